"""What a dry run found, as `Router.dry_run_report` returns it; see `router.rules.dryrun`."""

from router.rules.dryrun import DryRunReport

__all__ = ["DryRunReport"]
