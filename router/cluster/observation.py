"""What probes found: taken into the snapshot, and what follows from it."""

from collections.abc import Callable

from router.cluster import events
from router.cluster.health import Health
from router.cluster.lost_writes import Place, Write, loss, place
from router.cluster.roles import with_reports
from router.cluster.state import State
from router.model import Node, Report, Snapshot


class Observation:
    """Takes in probes' reports; any thread. `retire` closes pooled connections to a node."""

    def __init__(self, state: State, health: Health, retire: Callable[[Node], None]) -> None:
        self._state = state
        self._health = health
        self._retire = retire
        self._acknowledged: Write | None = None
        self._placed: Place | None = None
        self._blind_told = False

    def acknowledged(self, sent: float) -> None:
        """The primary has acknowledged the write that was sent at `sent` (monotonic seconds)."""
        self._acknowledged = Write(sent, self._state.clock())

    def take(self, reports: tuple[Report, ...], now: float) -> Snapshot:
        """Take in `reports` at `now` (monotonic seconds); returns the new snapshot."""
        state, health = self._state, self._health
        reports = health.with_what_was_heard(reports)
        before, after = state.see(lambda snapshot: with_reports(snapshot, reports, now))
        self._mind_positions(after)
        self._place_write(before, after)
        for report in reports:
            events.reach(state, report.node, before, after)
            health.probed(report, now)
        for name in after.joining.keys() - before.joining.keys():
            state.hurry(after.node(name))  # it came back: the primary's position tells how far
        if after.primary is not before.primary:
            events.primary(state, before, after)
            if after.primary is not None:
                # Only answers newer than its own tell who follows it, and who claims its role.
                state.hurry(after.primary)
        elif after.primary is not None and 0 < before.timeline < after.timeline:
            # Its address leads to the promoted server now; pooled connections, to the old one.
            self._retire(after.primary)
        events.foreigners(state, before, after)
        if after.timeline > before.timeline > 0:
            self._judge_last_write(before, after)
        events.lag(state, before, after)
        events.writes(state, before, after)
        events.rivals(state, before, after)
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
            events.no_positions(state)

    def _place_write(self, before: Snapshot, after: Snapshot) -> None:
        """Remember where the last acknowledged write stands, before its samples are forgotten."""
        write, known = self._acknowledged, self._placed
        if write is None or before.timeline != after.timeline:
            return
        if known is None or known.write is not write:
            self._placed = place(after, write)

    def _judge_last_write(self, before: Snapshot, after: Snapshot) -> None:
        """Tell whether the new primary lacks the last write acknowledged by the former."""
        write, primary = self._acknowledged, after.primary
        if write is None or primary is None:
            return
        if self._acknowledged is write:
            self._acknowledged = None  # each is judged at one promotion
        found = loss(before, after, write, self._placed)
        if found is not None:
            former = None if before.primary is None else before.primary.name
            events.lost_writes(self._state, found, primary.name, former, after.timeline)
