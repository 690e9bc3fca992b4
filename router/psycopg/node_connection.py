"""One node's connection of psycopg while a checkout holds it; see `NodeConnection`."""

# ruff: noqa: D102 - the base class documents the methods

import asyncio
from typing import TYPE_CHECKING, Any, Literal
from weakref import ref

import psycopg
from psycopg import IsolationLevel
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from router.checkout.node_connection import Characteristics, NodeConnection
from router.model import Node

if TYPE_CHECKING:
    from router.psycopg.source import PsycopgSource

OUTSIDE = (TransactionStatus.IDLE,)
WITHIN = (TransactionStatus.INTRANS, TransactionStatus.INERROR)
"""How a connection stands that runs nothing, outside a transaction and within one."""


class ConnectionRecord:
    """A connection of psycopg, and what is known of it for as long as it lives.

    Attributes:
        dbapi: the connection.
        pool: the pool of psycopg_pool it came from, None where its owner keeps it.
        proven: when it was last known to live (monotonic seconds).
        settings: values that changed settings had when it was new.
        streams: server-side cursors that are open on it.
        borrower: who uses it, so that the garbage collector says when he is no more; None where
            nobody has to know.
        dedicated: it leads past a PgBouncer, and ends with its use.
    """

    __slots__ = (
        "__weakref__",
        "borrower",
        "dbapi",
        "dedicated",
        "pool",
        "proven",
        "settings",
        "streams",
    )  # fmt: skip

    def __init__(self, dbapi: Any, pool: Any, proven: float) -> None:
        self.dbapi: Any = dbapi
        self.pool: Any = pool
        self.proven: float = proven
        self.settings: dict[str, str] = {}
        self.streams: set[Any] = set()
        self.borrower: ref[PsycopgConnection] | None = None
        self.dedicated: bool = False

    def end(self) -> None:
        """Close it, and let the pool it came from have another in its place."""
        try:
            self.dbapi.close()
        finally:
            if self.pool is not None:
                self.pool.putconn(self.dbapi)


class PsycopgConnection(NodeConnection):
    """One node's connection while a checkout holds it."""

    __slots__ = ("__weakref__", "dbapi", "line", "nodes")

    def __init__(self, nodes: "PsycopgSource", node: Node, line: ConnectionRecord) -> None:
        self.nodes: PsycopgSource = nodes
        self.line: ConnectionRecord = line
        self.dbapi: Any = line.dbapi
        super().__init__(node, in_transaction=False)

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        return self.nodes.driver_errors

    @property
    def first_settings(self) -> dict[str, str]:
        return self.line.settings

    def autocommit(self, value: bool) -> None:
        if self.dbapi.autocommit is not value:
            self.dbapi.autocommit = value

    @property
    def in_autocommit(self) -> bool:
        return bool(self.dbapi.autocommit)

    def run(self, sql: str, parameters: Any = None) -> None:
        with self.dbapi.cursor() as cursor:
            cursor.execute(sql, parameters)

    def ask(self, sql: str) -> tuple[Any, ...]:
        return ask(self.dbapi, sql)

    def look(self) -> bool:
        return bool(self.dbapi.pgconn.transaction_status != TransactionStatus.IDLE)

    @property
    def busy(self) -> bool:
        return self.look()

    @property
    def running(self) -> bool:
        return bool(self.dbapi.pgconn.transaction_status == TransactionStatus.ACTIVE)

    @property
    def recovers(self) -> bool:
        # Psycopg cancels what a task's cancellation or Ctrl-C interrupts, and waits for its end.
        # It does not do so for what else may be raised there, such as gevent's Timeout.
        status = self.dbapi.pgconn.transaction_status
        return bool(status in (WITHIN if self.in_transaction else OUTSIDE))

    def end(self, verb: Literal["commit", "rollback"]) -> None:
        getattr(self.dbapi, verb)()

    def characterise(self, wanted: Characteristics) -> None:
        now, dbapi = self.characteristics, self.dbapi
        if wanted.isolation != now.isolation:
            level = self.nodes.isolation
            if wanted.isolation not in (None, "AUTOCOMMIT"):
                level = IsolationLevel[str(wanted.isolation).replace(" ", "_")]
            dbapi.isolation_level = level
        if wanted.read_only != now.read_only:
            # None, not False: a standby refuses BEGIN READ WRITE.
            dbapi.read_only = wanted.read_only
        if wanted.deferrable != now.deferrable:
            dbapi.deferrable = wanted.deferrable
        self.characteristics = wanted

    def report_failure(self, error: Any, cursor: Any = None) -> bool:
        closed = isinstance(error, psycopg.OperationalError) and bool(self.dbapi.closed)
        return self.nodes.report_failure(self, error, gone=closed)

    def fileno(self) -> int:
        return int(self.dbapi.fileno())

    def sqlstate(self, error: BaseException) -> str:
        return self.nodes.sqlstate(error)

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        return loop_of(self.dbapi)

    def give_back(self) -> None:
        self.nodes.give_back(self.node, self.line)

    def discard(self, *, distrust: bool) -> None:
        self.nodes.discard(self.node, self.line, distrust=distrust)


def still_waits(client: Any) -> bool:
    """Whether a `client` in psycopg_pool's queue waits: who does not any more stays there until a
    connection comes back."""
    return client.error is None and client.conn is None


def loop_of(thing: Any) -> asyncio.AbstractEventLoop | None:
    """The event loop that `thing`, a connection or a pool, belongs to, which is the running
    one: None where its calls block the thread, and not only a greenlet
    (`router.psycopg.blocking`)."""
    return asyncio.get_running_loop() if hasattr(thing, "real") else None


def ask(connection: Any, sql: str) -> tuple[Any, ...]:
    """The one row that the query `sql` gives on `connection`, whatever rows the user has it
    make."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        row: tuple[Any, ...] = cursor.execute(sql).fetchone()
    return row


def alive(connection: Any) -> bool:
    """Whether the server answers on `connection`, which may have a transaction open.

    A transaction that psycopg begins for the question, as it does without autocommit, is ended:
    while it is open, psycopg refuses to change what the next transaction shall be.
    """
    idle = connection.pgconn.transaction_status == TransactionStatus.IDLE
    try:
        connection.execute("SELECT 1")
        if idle:
            connection.rollback()  # sends nothing in autocommit
    except psycopg.Error:
        return not connection.closed and connection.info.transaction_status != 0
    return True
