"""One node's connection of psycopg while a checkout holds it."""

import asyncio
from typing import TYPE_CHECKING, Any, Literal

import psycopg
from psycopg import IsolationLevel
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from router.checkout.node_connection import Characteristics, NodeConnection
from router.model import Node

if TYPE_CHECKING:
    from router.psycopg.source import PsycopgSource


class ConnectionRecord:
    """A connection of psycopg, and what is known of it for as long as it lives.

    Attributes:
        dbapi: the connection.
        pool: the pool of psycopg_pool it came from, None where its owner keeps it.
        proven: when it was last known to live (monotonic seconds).
        settings: values that changed settings had when it was new.
        streams: server-side cursors that are open on it.
        given_back: nobody uses it now.
        dedicated: it leads past a PgBouncer, and ends with its use.
    """

    __slots__ = (
        "dbapi",
        "dedicated",
        "given_back",
        "pool",
        "proven",
        "settings",
        "streams",
    )

    def __init__(self, dbapi: Any, pool: Any, proven: float) -> None:
        self.dbapi: Any = dbapi
        self.pool: Any = pool
        self.proven: float = proven
        self.settings: dict[str, str] = {}
        self.streams: int = 0
        self.given_back: bool = False
        self.dedicated: bool = False


class PsycopgConnection(NodeConnection):
    """One node's connection while a checkout holds it."""

    __slots__ = ("dbapi", "line", "nodes")

    def __init__(self, nodes: "PsycopgSource", node: Node, line: ConnectionRecord) -> None:
        self.nodes: PsycopgSource = nodes
        self.line: ConnectionRecord = line
        self.dbapi: Any = line.dbapi
        super().__init__(node, in_transaction=False)

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What the driver raises."""
        return self.nodes.driver_errors

    @property
    def first_settings(self) -> dict[str, str]:
        """Kept with the connection."""
        return self.line.settings

    def autocommit(self, value: bool) -> None:
        """Switch autocommit, if it is not so already; no transaction may be open."""
        if self.dbapi.autocommit is not value:
            self.dbapi.autocommit = value

    @property
    def in_autocommit(self) -> bool:
        """Whether `autocommit` would find it so already, and has nothing to wait for."""
        return bool(self.dbapi.autocommit)

    def run(self, sql: str, parameters: Any = None) -> None:
        """Run a statement whose rows nobody wants."""
        with self.dbapi.cursor() as cursor:
            cursor.execute(sql, parameters)

    def ask(self, sql: str) -> tuple[Any, ...]:
        """The one row a query gives."""
        return ask(self.dbapi, sql)

    def look(self) -> bool:
        """Whether the server has a transaction open."""
        return bool(self.dbapi.pgconn.transaction_status != TransactionStatus.IDLE)

    @property
    def busy(self) -> bool:
        """Whether its server is at something, or has something open, that nobody told of."""
        return self.look()

    def end(self, verb: Literal["commit", "rollback"]) -> None:
        """End the open transaction, whoever began it."""
        getattr(self.dbapi, verb)()

    def characterise(self, wanted: Characteristics) -> None:
        """Make `wanted` the settings of the transactions to come."""
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
        """Whether the server, or the way to it, is gone; if so, the node is blacklisted."""
        closed = isinstance(error, psycopg.OperationalError) and bool(self.dbapi.closed)
        return self.nodes.report_failure(self, error, gone=closed)

    def fileno(self) -> int:
        """The descriptor of its socket."""
        return int(self.dbapi.fileno())

    def sqlstate(self, error: BaseException) -> str:
        """The five-character code of an error, empty when the server sent none."""
        return self.nodes.sqlstate(error)

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop it belongs to; None where its calls block the thread."""
        return loop_of(self.dbapi)

    def give_back(self) -> None:
        """Keep it for the next statement there, or give it to its pool."""
        self.nodes.give_back(self.node, self.line)

    def discard(self, *, distrust: bool) -> None:
        """Close it."""
        self.nodes.discard(self.node, self.line, distrust=distrust)


def loop_of(thing: Any) -> asyncio.AbstractEventLoop | None:
    """The event loop that a connection or a pool belongs to, as it is known here: None where its
    calls block the thread, and not only a greenlet (`router.psycopg.blocking`)."""
    return asyncio.get_running_loop() if hasattr(thing, "real") else None


def ask(connection: Any, sql: str) -> tuple[Any, ...]:
    """The one row a query gives, whatever rows the user has connections make."""
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
