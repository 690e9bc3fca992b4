"""What probes found: taken into the snapshot, and what follows from it."""

from collections.abc import Callable

from router.cluster import news
from router.cluster.health import Health
from router.cluster.lost_writes import Place, Write, loss, place
from router.cluster.roles import with_reports
from router.cluster.state import State
from router.model import Node, Report, Snapshot


class Observation:
    """Takes in the reports of probes; any thread."""

    def __init__(self, state: State, health: Health, retire: Callable[[Node], None]) -> None:
        """Begin with nothing seen.

        Args:
            state: what is known of the cluster.
            health: lets nodes in and keeps them out.
            retire: closes the pooled connections to a node.
        """
        self._state = state
        self._health = health
        self._retire = retire
        self._acknowledged: Write | None = None
        self._placed: Place | None = None
        self._blind_told = False

    def acknowledged(self, sent: float) -> None:
        """The primary has acknowledged a write.

        Args:
            sent: when its COMMIT, or the autocommitted statement, was sent (monotonic seconds).
        """
        self._acknowledged = Write(sent, self._state.clock())

    def take(self, reports: tuple[Report, ...], now: float) -> Snapshot:
        """Take in what probes found, restore nodes that are due, and return the new snapshot."""
        state, health = self._state, self._health
        reports = health.with_what_was_heard(reports)
        before, after = state.see(lambda snapshot: with_reports(snapshot, reports, now))
        self._mind_positions(after)
        self._place_write(before, after)
        for report in reports:
            news.of_reach(state, report.node, before, after)
            health.probed(report, now)
        if after.primary is not before.primary:
            news.of_primary(state, before, after)
            if after.primary is not None:
                # Who follows it, and who claims to be the primary as well, is told by answers that
                # are newer than the one by which it is known.
                state.hurry(after.primary)
        elif after.primary is not None and 0 < before.timeline < after.timeline:
            # Its address leads to the promoted server now, and what is pooled to the old one.
            self._retire(after.primary)
        news.of_foreigners(state, before, after)
        if after.timeline > before.timeline > 0:
            self._judge_last_write(before, after)
        news.of_lag(state, before, after)
        news.of_writes(state, before, after)
        news.of_rivals(state, before, after)
        return after

    def _mind_positions(self, snapshot: Snapshot) -> None:
        """Pin by time while the servers tell no WAL positions, and say so once."""
        state = self._state
        wanted = state.config.policy()
        if wanted.consistency != "lsn":
            return
        if snapshot.blind():
            wanted = wanted._replace(consistency="time")
        if wanted == state.policy:
            return
        state.policy = wanted
        if wanted.consistency == "time" and not self._blind_told:
            self._blind_told = True
            news.of_no_positions(state)

    def _place_write(self, before: Snapshot, after: Snapshot) -> None:
        """Remember where the last acknowledged write stands, before its samples are forgotten."""
        write, known = self._acknowledged, self._placed
        if write is None or before.timeline != after.timeline:
            return
        if known is None or known.write is not write:
            self._placed = place(after, write)

    def _judge_last_write(self, before: Snapshot, after: Snapshot) -> None:
        """Say that what a former primary had acknowledged to this process is not on the new one,
        or may not be."""
        write, primary = self._acknowledged, after.primary
        if write is None or primary is None:
            return
        if self._acknowledged is write:
            self._acknowledged = None  # each is judged at one promotion
        found = loss(before, after, write, self._placed)
        if found is not None:
            former = None if before.primary is None else before.primary.name
            news.of_lost_writes(self._state, found, primary.name, former, after.timeline)
