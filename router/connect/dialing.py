"""Connections that are being opened, so that one caller waits for a dead host and not all of them.

Time comes in as `now`; nothing here sleeps or connects.
"""

import enum
from contextvars import ContextVar

from router import registry
from router.errors import NoReplicaAvailable

PATIENCE = 0.25
"""Seconds an attempt may take before others take another node."""

PROOF = 1.0
"""Seconds for which a connection that was opened shows that more can be, side by side."""


patient: ContextVar[bool] = ContextVar("pg_router_patient", default=False)
"""Whether the caller has no other node to take, and waits for an attempt however long it takes."""


may_open: ContextVar[bool] = ContextVar("pg_router_may_open", default=True)
"""Whether pools may open connections now, or only give those that are open."""


class NothingOpen(Exception):
    """A pool has no connection that is open."""


class KeepsWaiting(NoReplicaAvailable):
    """A connection to that node is being opened, and it takes long."""


class Turn(enum.Enum):
    """What a caller who wants a connection shall do."""

    GO = "open it"
    WAIT = "ask again in a moment"
    ELSEWHERE = "take another node"


class Attempts:
    """The attempts under way, by node."""

    __slots__ = ("_lock", "_proved", "_under_way")

    def __init__(self) -> None:
        self._lock = registry.lock()
        self._under_way: dict[str, list[float]] = {}
        self._proved: dict[str, float] = {}

    def begin(self, name: str, now: float) -> Turn:
        """Ask at `now` (monotonic seconds) to open a connection to the node `name`; `end` must
        follow a `Turn.GO`.

        The first attempt after a while goes alone. When it succeeds, so may all others; when it
        takes long, the host may be a black hole, and nobody joins it.
        """
        with self._lock:
            under_way = self._under_way.setdefault(name, [])
            if under_way:
                if now - under_way[0] > PATIENCE:
                    return Turn.ELSEWHERE
                if now - self._proved.get(name, float("-inf")) > PROOF:
                    return Turn.WAIT
            under_way.append(now)
            return Turn.GO

    def end(self, name: str, began: float, now: float, *, ok: bool) -> None:
        """The attempt that `began` to reach the node `name` is over at `now` (both monotonic
        seconds), and was successful or not (`ok`)."""
        with self._lock:
            self._under_way[name].remove(began)
            if ok:
                self._proved[name] = now
