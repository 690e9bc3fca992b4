"""What is asked of the model of PostgreSQL, and what it answers."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from tests.simulation.wal import Key

READ = "SELECT value FROM item WHERE id = %(id)s"
LOCK = READ + " FOR UPDATE"
UPDATE = "UPDATE item SET value = %(value)s WHERE id = %(id)s"
INCREMENT = "UPDATE counter SET n = n + 1 WHERE id = %(id)s"
COUNT = "SELECT n FROM counter WHERE id = %(id)s"
APPEND = "INSERT INTO journal (op) VALUES (%(op)s)"
ONE = "SELECT 1"
DIVIDE = "SELECT 1/0"
SLEEP = "SELECT pg_sleep(%(s)s)"
NEXTVAL = "SELECT nextval('seq')"
TENANT = "SELECT current_setting('app.tenant', true)"

IDS = 100
SCHEMA = f"""
CREATE TABLE item (id int PRIMARY KEY, value text);
CREATE TABLE counter (id int PRIMARY KEY, n bigint NOT NULL);
CREATE TABLE journal (op text);
CREATE SEQUENCE seq;
INSERT INTO item SELECT id, NULL FROM generate_series(0, {IDS - 1}) AS id;
INSERT INTO counter SELECT id, 0 FROM generate_series(0, {IDS - 1}) AS id;
"""
"""What a real server must have to answer as the model does."""


class Refused(Exception):
    """An error of the server: its SQLSTATE, empty where the connection just broke, its text, and
    whether the session is over (FATAL)."""

    def __init__(self, sqlstate: str, text: str, ends: bool = False) -> None:
        super().__init__(sqlstate, text)
        self.sqlstate = sqlstate
        self.text = text
        self.ends = ends


class Obstacle(Protocol):
    """What a statement waits for: a transaction that holds a lock, or a standby."""

    @property
    def over(self) -> bool:
        """Whether nobody has to wait for it any more."""

    @property
    def step(self) -> float:
        """Seconds until whoever waits shall look again."""


class Blocked(Exception):
    """The statement waits for `by`: execute it once more, with the same arguments, when that is
    over."""

    def __init__(self, by: Obstacle) -> None:
        super().__init__(by)
        self.by = by


class Where(NamedTuple):
    """A place in history: what a read saw, or the end of a commit record."""

    server: str
    timeline: int
    lsn: int


class Rows(NamedTuple):
    """What a statement gave; `rowcount` is -1 where the server tells none."""

    rows: list[tuple[Any, ...]]
    rowcount: int
    tag: str
    at: Where | None


NOTHING = Rows([], 0, "", None)
"""What a client has of an answer that never came."""


class Commit(NamedTuple):
    """One commit record; `lsn` is its end, `ops` what `APPEND` added, as often as it did."""

    txid: int
    server: str
    timeline: int
    lsn: int
    when: float
    writes: "Mapping[Key, Any]"
    ops: tuple[str, ...]


class Ran(NamedTuple):
    """One data statement that a server executed without an error.

    Attributes:
        op: the tag its client gave.
        lsn: the snapshot of a read; of a write where the WAL ended then.
        settings: what differs from the session's start.
        session: the session's id.
        txid: of its transaction; 0 of a read without one.
    """

    op: str
    sql: str
    server: str
    timeline: int
    lsn: int
    when: float
    settings: tuple[tuple[str, str], ...]
    session: int
    txid: int
    writes: bool


def broken() -> Refused:
    return Refused("", "server closed the connection unexpectedly", ends=True)


ENDS = {
    "25P03": "terminating connection due to idle-in-transaction timeout",
    "25P04": "terminating connection due to transaction timeout",
    "40001": "terminating connection due to conflict with recovery",
    "57P01": "terminating connection due to administrator command",
    "57P02": "terminating connection because of crash of another server process",
    "57P05": "terminating connection due to idle-session timeout",
}
"""What a session that the server ends hears, by SQLSTATE."""
