"""Who is out, until when, and why. Time comes in as `now`; nothing here sleeps or probes.

An entry moves from *out* (no user meets the node) to *due* (its time is over: a probe must pass
first) to gone. While it keeps failing, its duration doubles up to a cap.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Entry:
    """Why one node is out.

    Attributes:
        node: the node's name.
        reason: one line: SQLSTATE or the probe's error.
        since: when the first of these failures happened (monotonic seconds).
        until: when a probe may let it back in.
        duration: seconds of the current term; the next one is twice as long.
        failures: failures in a row.
    """

    node: str
    reason: str
    since: float
    until: float
    duration: float
    failures: int = 1

    def due(self, now: float) -> bool:
        """Whether the term is over, so that one passed probe restores the node."""
        return now >= self.until


_NOBODY: Mapping[str, Entry] = MappingProxyType({})


class Blacklist:
    """The nodes kept out of routing.

    `entries` is an immutable mapping replaced whole: the hot path reads it without a lock. The
    lock orders writers only and is never held across I/O.
    """

    __slots__ = ("_lock", "entries", "longest")

    def __init__(self, longest: float) -> None:
        """Start empty.

        Args:
            longest: seconds a term never exceeds, however often the node failed.
        """
        self.entries: Mapping[str, Entry] = _NOBODY
        self.longest: float = longest
        self._lock = threading.Lock()

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def add(self, name: str, reason: str, duration: float, now: float) -> Entry | None:
        """Keep `name` out for `duration` seconds; longer if it was out already and its term over.

        A failure seen while the node is out anyway (a connection that was already checked out)
        belongs to the same outage and does not lengthen it. A duration of 0 keeps nothing out.
        """
        if duration <= 0:
            return None
        with self._lock:
            before = self.entries.get(name)
            if before is None:
                duration = min(duration, self.longest)
                entry = Entry(name, reason, now, now + duration, duration)
            elif before.due(now):
                longer = min(before.duration * 2, self.longest)
                entry = Entry(
                    name, reason, before.since, now + longer, longer, before.failures + 1
                )
            else:
                return before
            self.entries = MappingProxyType({**self.entries, name: entry})
            return entry

    def remove(self, name: str) -> Entry | None:
        """Let `name` back in; returns the entry that kept it out."""
        with self._lock:
            entry = self.entries.get(name)
            if entry is not None:
                self.entries = MappingProxyType(
                    {n: e for n, e in self.entries.items() if n != name}
                )
            return entry

    def after_fork(self) -> None:
        """Take a new lock: in a forked child the old one may be held by a thread left behind."""
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Blacklist {', '.join(self.entries) or 'empty'}>"
