"""The command ``pg-router``. What a command needs is imported when it runs."""

import signal
import sys

from router.cli.exits import INTERRUPTED, MISSING


def main() -> None:
    """Run the command line; the console script's entry point."""
    # SIGTERM ends a command as Ctrl-C does: nothing is left behind, and it ends the first process
    # of a container too, which no signal ends by default.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        from router.cli.app import run

        sys.exit(run())
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in ("click", "rich"):
            raise
        sys.stderr.write(
            f"pg-router: {package} is not installed: pip install 'pg-router[cli]', "
            "or 'pg-router[demo]' for the demo\n"
        )
        sys.exit(MISSING)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
