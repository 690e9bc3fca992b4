"""Who is well: nodes that fail are kept out, and tried again; a dead host delays one caller."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from router.cluster import events
from router.cluster.state import State
from router.connect.dialing import Attempts, KeepsWaiting, Turn, patient
from router.model import Node, Report, Snapshot
from router.rules.blacklist import ENDED, LOST, Entry, among

ATTEMPT_STEP = 0.005
"""Seconds between two looks at whether the first connection to a node has been opened."""

RETRIAL = 5.0
"""Seconds until a primary that kept silent over an open connection as well is tried again."""


class Health:
    """What became of connections to the nodes. Every method may be called from any thread.

    Attributes:
        lost: SQLSTATEs, and classes of them, that blacklist the node that sent them.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._attempts = Attempts()
        self._of_users = frozenset(state.config.blacklist_sqlstates)
        self.lost: frozenset[str] = LOST | self._of_users
        # By the node's name: when a statement last succeeded there; when one is tried there next.
        self._heard: dict[str, float] = {}
        self._retrial: dict[str, float] = {}

    def is_disconnect(self, sqlstate: str) -> bool:
        """Whether an error with this `sqlstate` blacklists the node that sent it."""
        return among(sqlstate, self.lost)

    def failed(self, node: Node, reason: str) -> None:
        """Keep `node` out for its blacklist duration: a connection failed, for `reason`."""
        if node not in self._state.servers:
            return  # it has left, and its name may be another's
        is_primary, duration = self._state.primary is node, node.blacklist_duration
        if duration is None:
            duration = 0.0 if is_primary else self._state.config.blacklist_duration
        was_out = node.name in self._state.kept_out
        now = self._state.clock()
        entry = self._state.kept_out.add(node.name, reason, duration, now, primary=is_primary)
        self.interrupted(node)
        if entry is not None and not was_out:
            events.blacklisted(self._state, node.name, reason, duration)
        self._state.hurry(node)

    def ended(self, node: Node, state: str, reason: str, *, fresh: bool) -> None:
        """A connection to `node` ended with the SQLSTATE `state`, empty when the server sent none.
        Only if it is `fresh`, opened for the statement that failed, this keeps the node out for
        `reason`, the error as one line."""
        if among(state, self._of_users) or (fresh and state not in ENDED):
            self.failed(node, reason)
            return
        self.interrupted(node)
        self._state.hurry(node)

    def heard(self, node: Node) -> None:
        """A statement has succeeded on `node`: no probe sent before that says that it is down."""
        self._heard[node.name] = self._state.clock()

    def may_try(self, node: Node) -> bool:
        """Whether `node`, which probes call down, may be asked over an open connection; not for
        `RETRIAL` seconds after one that got no answer."""
        due, now = self._retrial.get(node.name), self._state.clock()
        if due is None:
            return True
        if now < due:
            return False
        self._retrial[node.name] = now + RETRIAL  # one caller's wait, and not everybody's
        return True

    def vouch(self, node: Node) -> None:
        """`node`, which probes call down, has answered over an open connection."""
        self.heard(node)
        self._retrial.pop(node.name, None)
        self._change(node, lambda snapshot: snapshot.vouched(node.name))

    def silent(self, node: Node, *, tried: bool) -> None:
        """Nothing but its probes speaks for `node`: no connection to it is open or, if `tried`, it
        was asked over one and said nothing."""
        if tried:
            self._retrial[node.name] = self._state.clock() + RETRIAL
        self._change(node, lambda snapshot: snapshot.silent(node.name))

    def _change(self, node: Node, change: Callable[[Snapshot], Snapshot]) -> None:
        before, after = self._state.see(change)
        events.reach(self._state, node.name, before, after)
        events.writes(self._state, before, after)

    @contextmanager
    def connecting(
        self, node: Node, pause: Callable[[float], None] | None = None
    ) -> Iterator[None]:
        """Around the opening of a connection to `node`: only one caller waits for a dead host.

        The primary has no substitute, so every caller may try it. `pause` waits as many seconds as
        it is given, without blocking an event loop; None blocks the thread.

        Raises:
            KeepsWaiting: another attempt takes long already: use another node. Nothing is
                blacklisted for it; the attempt's own end will tell. Not raised while `patient`.
        """
        if node is self._state.primary:
            yield
            return
        attempts, clock = self._attempts, self._state.clock
        while (turn := attempts.begin(node.name, began := clock())) is not Turn.GO:
            if turn is Turn.ELSEWHERE and not patient.get():
                raise KeepsWaiting(
                    f"{node} keeps another connection waiting that is being opened: try again, or "
                    "look at the host"
                )
            (pause or self._state.runtime.sleep)(ATTEMPT_STEP)
        ok = False
        try:
            yield
            ok = True
        finally:
            attempts.end(node.name, began, clock(), ok=ok)

    def interrupted(self, node: Node) -> None:
        """Connections to `node` broke: it may have restarted, even if no probe met it down."""
        now = self._state.clock()
        self._state.see(lambda snapshot: snapshot.interrupted(node.name, now))

    def with_what_was_heard(self, reports: tuple[Report, ...]) -> tuple[Report, ...]:
        """`reports`, those of silent nodes with when a statement last succeeded there."""
        heard = self._heard
        if not heard:
            return reports
        return tuple(
            r if r.ok or r.node not in heard else replace(r, heard=heard[r.node]) for r in reports
        )

    def probed(self, report: Report, now: float) -> None:
        """Take in `report` at `now` (monotonic seconds): a node that is due is let in if it
        answers, and kept out for longer if not."""
        if report.ok:
            self._retrial.pop(report.node, None)
        state = self._state
        entry = state.kept_out.entries.get(report.node)
        if entry is None or not entry.due(report.started):
            return
        if report.ok:
            self._let_in(report.node)
        elif not report.obstacle:
            state.kept_out.add(report.node, report.error, entry.duration, now)
            state.blacklist_changed()

    def blacklist(
        self, name: str, reason: str = "by hand", *, duration: float | None = None
    ) -> Entry:
        """As `Router.blacklist`."""
        node = self._state.named("blacklist", name)
        now = self._state.clock()
        before = self._state.kept_out.entries.get(name)
        seconds = float("inf") if duration is None else duration
        since, failures = (before.since, before.failures) if before else (now, 0)
        is_primary = self._state.primary is node
        entry = Entry(name, reason, since, now + seconds, seconds, failures, is_primary)
        self._state.kept_out.put(entry)
        self._state.blacklist_changed()
        events.blacklisted(self._state, name, reason, duration)
        return entry

    def restore(self, name: str) -> Entry | None:
        """As `Router.restore`."""
        node = self._state.named("restore", name)
        entry = self._let_in(name)
        self._state.hurry(node)
        return entry

    def _let_in(self, name: str) -> Entry | None:
        now = self._state.clock()
        entry = self._state.kept_out.remove(name, now)
        if entry is not None:
            self._state.blacklist_changed()
            events.restored(self._state, entry, now)
        return entry

    def after_fork(self) -> None:
        """In a forked child: connections being opened in the parent never come back here."""
        self._attempts = Attempts()
