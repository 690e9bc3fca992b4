"""What happened in a simulation, for the judges to look at."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.simulation.postgres import Where


class Read(NamedTuple):
    """One row read by a client.

    Attributes:
        request: number of the request.
        user: whose request it was.
        process: number of the process that served it.
        sent, done: when (seconds).
        key: which row.
        value: what it held.
        at: the state of the database it shows.
        explicit: it was in a transaction that the client began.
        level: the isolation of that transaction, empty where there was none.
        followed: the timeline its process followed when it was sent.
        leaders: names of the servers it took for the primary, when it was sent and when done.
        own: what its own transaction had given the row before, None for nothing.
    """

    request: int
    user: int
    process: int
    sent: float
    done: float
    key: int
    value: Any
    at: Where
    explicit: bool
    level: str
    followed: int
    leaders: tuple[str, str]
    own: Any


class Write(NamedTuple):
    """One write by a client, as far as its client knows.

    Attributes:
        request, user, process, sent, done: as of a `Read`.
        ops: the tags of its statements, unique.
        sets: values it gave rows, unique, by row.
        outcome: "done", or the name of the exception's class.
        read: what the transaction had read of rows before it wrote them.
    """

    request: int
    user: int
    process: int
    sent: float
    done: float
    ops: tuple[str, ...]
    sets: dict[int, Any]
    outcome: str
    read: dict[int, Any]


class Failure(NamedTuple):
    """A read that failed."""

    user: int
    process: int
    sent: float
    done: float
    error: str


class Followed(NamedTuple):
    """Since when a process took a server for the primary; its name is empty for none."""

    at: float
    server: str


class Claim(NamedTuple):
    """A server could be reached as the primary of `timeline` from `since` to `until` (seconds)."""

    server: str
    timeline: int
    since: float
    until: float


class Fault(NamedTuple):
    """Something was done to the servers; `until` it was over (seconds)."""

    at: float
    what: str
    server: str
    until: float


class Action(NamedTuple):
    """One thing a client did, and how long it took."""

    what: str
    process: int
    sent: float
    done: float
    outcome: str


class Violation(NamedTuple):
    """A promise that was broken."""

    judge: str
    at: float
    said: str

    def __str__(self) -> str:
        return f"{self.at:9.4f} {self.judge}: {self.said}"


@dataclass
class History:
    """Everything the judges need.

    Attributes:
        operations: statements that clients sent.
        ran: what servers ran for them, with what a pool adds: BEGIN, COMMIT, settings.
        passed: by server, since when it has replayed what a promotion left behind (seconds).
    """

    reads: list[Read] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    followed: dict[int, list[Followed]] = field(default_factory=lambda: defaultdict(list))
    passed: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    violations: list[Violation] = field(default_factory=list)
    events: list[tuple[float, int, str, dict[str, Any]]] = field(default_factory=list)
    operations: int = 0
    ran: int = 0

    def violate(self, judge: str, at: float, said: str) -> None:
        """Note that a promise was broken."""
        self.violations.append(Violation(judge, at, said))
