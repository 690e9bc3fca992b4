"""A dry run: what replicas would have served stays on the primary, and is counted."""

from router.cluster.state import State
from router.errors import ConfigError
from router.model import Node
from router.rules.context import LastRead, RoutingContext
from router.rules.decide import dry
from router.rules.decision import Decision, Reason
from router.rules.dryrun import DryRunReport, summed_up

DRY_RUN_EVERY = 60.0
"""Seconds between two events of a dry run."""


class DryRun:
    """What routing would have done, while ``dry_run`` is on."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._furthest = 0.0
        self._since = state.clock()
        self._due = self._since + DRY_RUN_EVERY

    def kept(
        self, decision: Decision, node: Node, context: RoutingContext, now: float
    ) -> Decision:
        """Keep on the primary what `decision` would have sent to its `node`, at `now` (monotonic
        seconds); `context` is the request's."""
        state = self._state
        if not context.root:
            context.pins.reads[state.cluster] = LastRead(node, now)
        if decision.on_primary:
            return decision
        kept = dry(state.view, node, now)
        if kept.reason is Reason.DRY_RUN_BEHIND:
            lag = state.snapshot.lag_seconds(node.name) or 0.0
            # When two threads race, the lesser value may win: it is a figure for people.
            self._furthest = max(self._furthest, lag)
        return kept

    def report(self) -> DryRunReport:
        """As `Router.dry_run_report`."""
        state = self._state
        if not state.config.dry_run:
            raise ConfigError("dry_run: it is off: say dry_run=True to have a report")
        seconds = state.clock() - self._since
        return summed_up(state.telemetry.decisions.total(), self._furthest, seconds)

    def tell(self, now: float) -> None:
        """Send an event with the report so far, once a minute by `now` (monotonic seconds)."""
        if not self._state.config.dry_run or now < self._due:
            return
        self._due = now + DRY_RUN_EVERY
        report = self.report()
        self._state.telemetry.event(
            "dry_run",
            statements=report.statements,
            replicas=report.replicas,
            share=round(report.share, 3),
            behind=report.behind,
        )
