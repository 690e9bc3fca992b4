"""What clients did and saw, and what of it breaks a promise."""

import threading
from collections import Counter
from dataclasses import dataclass, field

Key = tuple[str, int]
"""Who wrote, and which of the writes."""

LIMIT = 8.0
"""Seconds a request may take beyond the fault it ran into."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request as its client saw it; times are monotonic seconds.

    Attributes:
        door: the driver.
        began, ended: when.
        wrote: the write it tried, None for a reader.
        acknowledged: whether the commit returned.
        unknown: whether the commit broke, so that nobody knows.
        port: of the server the first read was served by, 0 if none was.
        stale: the write was acknowledged and its own context then did not see it.
        error: what went wrong, one line.
    """

    door: str
    began: float
    ended: float
    wrote: Key | None = None
    acknowledged: bool = False
    unknown: bool = False
    port: int = 0
    stale: bool = False
    error: str = ""


@dataclass(slots=True)
class Ledger:
    """Every request of a run; safe from any thread."""

    requests: list[Request] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, request: Request) -> None:
        """Write one down."""
        with self._lock:
            self.requests.append(request)

    def since(self, began: float, until: float) -> list[Request]:
        """The requests that ran at any time between `began` and `until`."""
        with self._lock:
            return [r for r in self.requests if r.ended >= began and r.began <= until]


def broken_promises(
    requests: list[Request], rows: Counter[Key], longest_fault: float
) -> list[str]:
    """What must never happen, one line each.

    Args:
        requests: all of them.
        rows: how often each write is stored on the primary, after the run.
        longest_fault: seconds; a request may hang that long and `LIMIT` more.
    """
    found = [f"stale own read: {r}" for r in requests if r.stale]
    for r in requests:
        if r.acknowledged and r.wrote is not None and rows[r.wrote] == 0:
            found.append(f"acknowledged write lost: {r}")
        if r.ended - r.began > longest_fault + LIMIT:
            found.append(f"hung for {r.ended - r.began:.1f} s: {r}")
    tried = {r.wrote for r in requests if r.acknowledged or r.unknown}
    for key, times in rows.items():
        if times > 1:
            found.append(f"stored {times} times: {key}")
        if key not in tried:
            found.append(f"stored though its client was told that it failed: {key}")
    return found
