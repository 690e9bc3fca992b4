"""Who is out, until when, and why. Time comes in as `now`; nothing here sleeps or probes.

An entry moves from *out* (no user meets the node) to *due* (its time is over: a probe must pass
first) to gone. While it keeps failing, its duration doubles up to a cap.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from router import registry

LOST = frozenset({"08", "57P01", "57P02", "57P03", "53300"})
"""SQLSTATEs, and classes of them, that mean the server or the way to it is gone:
connection_exception (08), admin_shutdown, crash_shutdown, cannot_connect_now,
too_many_connections.

Source: https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

ENDED = frozenset({"57P05", "25P03", "25P04"})
"""SQLSTATEs idle_session_timeout, idle_in_transaction_session_timeout and transaction_timeout: the
server ends one session for what became of that session, which says nothing of the server.

Source: https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

FULL = "53300"
"""SQLSTATE too_many_connections: a server that says so has answered."""

# What is looked for in an error that has no SQLSTATE, for libpq keeps it to itself while it
# connects. Only servers that speak English are understood; PgBouncer always does.
# Source: https://github.com/postgres/postgres/blob/REL_18_STABLE/src/backend/utils/init/postinit.c
_TOO_MANY = (
    "too many clients",
    "too many connections",
    "connection slots are reserved",
    "no more connections allowed",
)
_NOT_LET_IN = (
    "authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    "pg_hba.conf rejects",
    "is not permitted to log in",
    "permission denied for database",
    "is not currently accepting connections",
)


def among(state: str, states: frozenset[str]) -> bool:
    """Whether the SQLSTATE `state`, or the class it is of, is one of `states`."""
    return state in states or state[:2] in states


def is_full(state: str, message: str) -> bool:
    """Whether a server refused a new connection for having as many as it may, by the SQLSTATE
    `state`, empty when the driver does not tell, or the `message`."""
    return state == FULL or (not state and any(text in message for text in _TOO_MANY))


def refuses_login(state: str, message: str) -> bool:
    """Whether a server that runs refused a new connection: for want of room, or for who asked.

    Not so while it starts, stops or recovers (cannot_connect_now), nor where a pooler in front of
    it cannot reach it (class 08). `state` is the SQLSTATE, empty when the driver does not tell,
    `message` the error's text.
    """
    if state:
        return state == FULL or not among(state, LOST)
    if is_full(state, message) or any(text in message for text in _NOT_LET_IN):
        return True
    return "does not exist" in message and ("role " in message or "database " in message)


HISTORY = 100
"""Outages that are over and still remembered."""


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
        primary: whether it was the primary then: only so it keeps writes out, for what a node got
            as a replica must not count once it is promoted.
    """

    node: str
    reason: str
    since: float
    until: float
    duration: float
    failures: int = 1
    primary: bool = False

    def due(self, now: float) -> bool:
        """Whether the term is over at `now` (monotonic seconds): a passed probe then ends it."""
        return now >= self.until


@dataclass(frozen=True, slots=True)
class Outage:
    """A time a node was kept out that is over.

    Attributes:
        node: the node's name.
        reason: the last of its reasons.
        since: when it began (monotonic seconds).
        ended: when the node was let back in, or left the cluster.
        failures: failures in a row.
    """

    node: str
    reason: str
    since: float
    ended: float
    failures: int


_NOBODY: Mapping[str, Entry] = MappingProxyType({})


class Blacklist:
    """The nodes kept out of routing, at most for `longest` seconds a term.

    `entries` is an immutable mapping replaced whole: the hot path reads it without a lock. The
    lock orders writers only and is never held across I/O.
    """

    __slots__ = ("_history", "_lock", "entries", "longest")

    def __init__(self, longest: float) -> None:
        self.entries: Mapping[str, Entry] = _NOBODY
        self.longest: float = longest
        self._history: deque[Outage] = deque(maxlen=HISTORY)
        self._lock = registry.lock()

    @property
    def history(self) -> tuple[Outage, ...]:
        """The last `HISTORY` outages that are over, oldest first."""
        with self._lock:
            return tuple(self._history)

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def add(
        self, name: str, reason: str, duration: float, now: float, *, primary: bool = False
    ) -> Entry | None:
        """Keep the node `name` out for `reason` from `now` (monotonic seconds), for `duration`
        seconds; longer if it was out already and its term over. `primary` says what it was then.

        A failure seen while the node is out anyway (a connection that was already checked out)
        belongs to the same outage and does not lengthen it. A duration of 0 keeps nothing out.
        """
        if duration <= 0:
            return None
        with self._lock:
            before = self.entries.get(name)
            if before is None:
                duration = min(duration, self.longest)
                entry = Entry(name, reason, now, now + duration, duration, primary=primary)
            elif before.due(now):
                longer = min(before.duration * 2, self.longest)
                entry = replace(before, reason=reason, until=now + longer, duration=longer)
                entry = replace(entry, failures=before.failures + 1)
            else:
                return before
            self.entries = MappingProxyType({**self.entries, name: entry})
            return entry

    def put(self, entry: Entry) -> None:
        """Keep a node out as `entry` says, in place of any other entry: somebody wants it."""
        with self._lock:
            self.entries = MappingProxyType({**self.entries, entry.node: entry})

    def remove(self, name: str, now: float) -> Entry | None:
        """Let `name` back in at `now` (monotonic seconds); returns the entry that kept it out."""
        with self._lock:
            entry = self.entries.get(name)
            if entry is not None:
                self._history.append(Outage(name, entry.reason, entry.since, now, entry.failures))
                left = {n: e for n, e in self.entries.items() if n != name}
                self.entries = MappingProxyType(left)
            return entry

    def __repr__(self) -> str:
        return f"<Blacklist {', '.join(self.entries) or 'empty'}>"
