"""The last minutes of a Router: lag, decisions and events, in small rings.

Nothing here runs unless somebody keeps a History, and no statement passes through it: counts are
compared when probes come in.
"""

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from router.cluster.router import Router
from router.status.report import brief

KEPT = 360
"""Moments remembered: three minutes at the least, six at the usual ``probe_interval``."""

EVERY = 0.5
"""The fewest seconds between two moments, however often nodes are probed."""

EVENTS = 50
"""Events remembered."""

RECENT = 5.0
"""Seconds that count as recent."""

QUIET = frozenset({"retried", "healed", "no_request_context"})
"""Events that are counted, not shown one by one."""

_PLAIN = {
    "caught_up": "{node} has caught up",
    "degraded": "nothing can be written",
    "not_following": "{node} does not follow the primary and gets no reads",
    "reachable": "{node} reachable after {after:.1f} s",
    "restored": "{node} restored after {after:.1f} s",
    "unreachable": "{node} does not answer: {reason}",
    "writable": "{node} can be written",
    "writes_lost": "{node} was promoted without {bytes} bytes of WAL: writes lost",
    "writes_maybe_lost": "{node} was promoted without {bytes} bytes of WAL: writes maybe lost",
}

_SHOWN = 48  # characters of a failure's reason


@dataclass(frozen=True, slots=True)
class Moment:
    """How a cluster stood.

    Attributes:
        at: when (monotonic seconds).
        lag: seconds by the name of each node that knows its lag; the primary is left out.
        decided: statements since the moment before, by node name and reason.
    """

    at: float
    lag: Mapping[str, float]
    decided: Counter[Any]


@dataclass(frozen=True, slots=True)
class Happened:
    """An event called `name`: when it was (monotonic seconds), and one line about it."""

    at: float
    name: str
    text: str


class History:
    """The last minutes of one Router, from the moment it is told to `follow` it."""

    __slots__ = ("_due", "_events", "_moments", "_total")

    def __init__(self) -> None:
        # One thread appends to each and others copy it: either is a single step of a deque.
        self._moments: deque[Moment] = deque(maxlen=KEPT)
        self._events: deque[Happened] = deque(maxlen=EVENTS)
        self._total: Counter[Any] = Counter()
        self._due = float("-inf")

    def follow(self, router: Router) -> None:
        """Remember events and moments of `router` from now on."""
        self._total = router.telemetry.decisions.total()
        clock = router.clock

        def hook(name: str, fields: Mapping[str, Any]) -> None:
            if name not in QUIET:
                self._events.append(Happened(clock(), name, words(name, fields)))

        router.telemetry.hooks.append(hook)
        router.observers.append(self.look)

    def look(self, router: Router) -> None:
        """Add a moment of `router`, unless one was added within `EVERY`."""
        now = router.clock()
        if now < self._due:
            return
        self._due = now + EVERY
        snapshot, total = router.snapshot, router.telemetry.decisions.total()
        lag = {
            node.name: seconds
            for node in snapshot.nodes
            if node is not snapshot.primary
            and (report := snapshot.reports.get(node.name)) is not None
            and report.ok
            and (seconds := snapshot.lag_seconds(node.name)) is not None
        }
        self._moments.append(Moment(now, lag, total - self._total))
        self._total = total

    @property
    def moments(self) -> tuple[Moment, ...]:
        """Oldest first."""
        return tuple(self._moments.copy())

    @property
    def events(self) -> tuple[Happened, ...]:
        """Oldest first."""
        return tuple(self._events.copy())


def recent(moments: tuple[Moment, ...], now: float) -> tuple[Counter[Any], float]:
    """Statements of `moments`, oldest first, that are recent at `now` (monotonic seconds), by node
    and reason, and in how many seconds they were decided."""
    decided: Counter[Any] = Counter()
    lately = [moment for moment in moments if now - moment.at <= RECENT]
    for moment in lately[1:]:  # what the first one counts was before it
        decided.update(moment.decided)
    return decided, lately[-1].at - lately[0].at if lately else 0.0


def words(name: str, fields: Mapping[str, Any]) -> str:
    """The event called `name` with its `fields` as a short line."""
    node = fields.get("node", "")
    reason = brief(fields.get("reason", ""))
    if len(reason) > _SHOWN:
        reason = reason[:_SHOWN].rstrip() + " …"
    if name == "blacklisted":
        seconds = fields["seconds"]
        term = "" if seconds is None else f" for {seconds:.1f} s"
        return f"{node} blacklisted{term}: {reason}"
    if name == "primary_changed":
        return f"the primary is now {fields['after'] or 'nobody'}, was {fields['before']}"
    if name == "lagging":
        seconds = fields["seconds"]
        behind = "" if seconds is None else f"{seconds:.1f} s "
        return f"{node} is {behind}behind and gets no reads"
    if name in _PLAIN:
        return _PLAIN[name].format(**{**fields, "node": node, "reason": reason})
    return f"{name} {' '.join(f'{k}={v}' for k, v in fields.items())}"
