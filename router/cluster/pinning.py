"""Pins: set by writes, resolved to a position, and dropped once every replica shows the write."""

from collections.abc import Callable, Iterable

from router.cluster.state import State
from router.model import Node
from router.rules.context import LastRead, Pin, RoutingContext, current_context
from router.rules.pin import caught_up, expired, resolved
from router.rules.view import View

ROOT_WRITES_TO_MENTION = 1000
"""Writes outside any request context before one log line says what that costs."""


class Pinning:
    """What contexts have written to, and read from, one cluster; any thread. `others` gives what
    the other Routers of this process know, each of its cluster."""

    def __init__(self, state: State, others: Callable[[], Iterable[State]]) -> None:
        self._state = state
        self._others = others
        self._asks = state.config.consistency == "lsn" and state.config.pin_lsn == "commit"
        self._remembers = not state.config.dry_run
        self._root_writes = 0

    @property
    def asks_position(self) -> bool:
        """Whether adapters ask for the WAL position at each commit and hand it to `wrote`."""
        return self._state.split and self._asks

    def wrote(self, context: RoutingContext, *, done: bool) -> None:
        """Pin `context`: its write is about to be sent, so that no read slips between, or its
        commit has returned (`done`), for only a position sampled after that covers it."""
        if self._state.policy.consistency == "off":
            return
        now = self._state.clock()
        # Without replicas of its own a service pins its requests for others that have some.
        if context.pinning and (self._state.split or not context.root):
            context.pins.set(self._state.cluster, Pin(now))
            if done:
                self._state.telemetry.detail("pin_set")
        if not done or not self._state.split:
            return
        self._state.last_write = now
        if context.root:
            self._root_writes += 1
            if self._root_writes == ROOT_WRITES_TO_MENTION:
                self._state.telemetry.event(
                    "no_request_context",
                    advice="every write pins the whole process: enter request_context() for each "
                    "request",
                )
        self._state.hurry()

    def pin(self, context: RoutingContext | None = None) -> None:
        """Treat `context`, by default the current one, as if it had just written."""
        now = self._state.clock()
        (context or current_context()).pins.set(self._state.cluster, Pin(now))
        self._state.last_write = now
        self._state.hurry()

    def read(self, context: RoutingContext, node: Node) -> None:
        """Remember that `context` has read from the replica `node`."""
        if not context.root and self._remembers:
            context.pins.reads[self._state.cluster] = LastRead(node, self._state.clock())

    def current(self, context: RoutingContext, view: View, now: float) -> Pin | None:
        """The pin of `context` by `view` at `now` (monotonic seconds); None once satisfied."""
        state, pins = self._state, context.pins
        pin = pins.get(state.cluster)
        if pin is None or not state.split:
            return None
        snapshot = view.snapshot
        if state.policy.consistency == "lsn":
            known = resolved(pin, snapshot)
            if known is not None and known is not pin and known.lsn is not None:
                pin = pins.resolve(state.cluster, pin, known.lsn, known.timeline)
        if expired(pin, snapshot, state.policy, now):
            if not self._over(pin, now):
                return None
            pins.clear(state.cluster, pin)
            name = "pin_satisfied" if state.policy.consistency == "lsn" else "pin_expired"
            state.telemetry.detail(name, after=round(pin.waited(now), 3))
            return None
        waited = pin.waited(now)
        if waited > state.config.pin_max and not caught_up(view, pin, state.policy, now):
            pins.clear(state.cluster, pin)
            state.telemetry.event(
                "pin_dropped",
                level="warning",
                after=round(waited, 1),
                advice="no replica replayed the write within pin_max: look at replication",
            )
            return None
        if pin.at > state.last_write and state.policy.consistency == "lsn":
            # It came with the request: nobody has told the monitor yet that a pin waits.
            state.last_write = pin.at
            state.hurry()
        return pin

    def _over(self, pin: Pin, now: float) -> bool:
        """Whether no other Router of the cluster needs `pin`: each has replicas of its own."""
        return all(
            other.policy.consistency == "off"
            or pin.waited(now) > other.config.pin_max
            or expired(pin, other.snapshot, other.policy, now)
            for other in self._others()
            if other.monitor is not None and other.cluster == self._state.cluster
        )

    def resolve(self, context: RoutingContext) -> None:
        """Give the pin of `context` its position, or drop it, by what is known now."""
        self.current(context, self._state.view, self._state.clock())
