"""One node's connection from its SQLAlchemy pool while a checkout holds it."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy.pool import PoolProxiedConnection

from router.checkout.node_connection import DEFAULTS, Characteristics, Life, NodeConnection
from router.model import Node
from router.runtime import Runtime

if TYPE_CHECKING:
    from router.sqlalchemy.source import EngineSource

SETTINGS = "pg_router_settings"
"""Where a pooled connection's ``info`` keeps the values its settings had when it was new."""


class DbapiConnection(NodeConnection):
    """One node's pooled connection while a `RoutedConnection` holds it."""

    __slots__ = ("dbapi", "fairy", "pool", "unasked", "undo")

    def __init__(self, pool: "EngineSource", node: Node, fairy: PoolProxiedConnection) -> None:
        self.pool: EngineSource = pool
        self.fairy: PoolProxiedConnection = fairy
        self.dbapi: Any = fairy.dbapi_connection
        # Taken without what its pool does with each connection that it gives.
        self.unasked: bool = False
        # Puts the characteristics back, where the pool and nobody else ends this checkout.
        self.undo: Callable[[Any], None] | None = None
        # A checkout listener may have left a transaction open, as in plain SQLAlchemy.
        super().__init__(node, in_transaction=pool.driver.in_transaction(self.dbapi))

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What the driver raises."""
        return self.pool.driver_errors

    @property
    def first_settings(self) -> dict[str, str]:
        """Kept in the pooled connection's ``info``."""
        known: dict[str, str] = self.fairy.info.setdefault(SETTINGS, {})
        return known

    def autocommit(self, value: bool) -> None:
        """Switch autocommit, if it is not so already; no transaction may be open."""
        driver = self.pool.driver
        if driver.autocommit(self.dbapi) is not value:
            if (
                value
                and self.characteristics != DEFAULTS
                and self.pool.router.shares_sessions(self.node)
            ):
                # In autocommit psycopg2 makes them settings of a session that is not ours.
                self.characterise(DEFAULTS)
            driver.set_autocommit(self.dbapi, value)

    def run(self, sql: str, parameters: Any = None) -> None:
        """Run a statement whose rows nobody wants."""
        cursor = self.dbapi.cursor()
        cursor.execute(sql, *((parameters,) if parameters else ()))
        cursor.close()

    def ask(self, sql: str) -> tuple[Any, ...]:
        """The one row a query gives."""
        return self.pool.driver.ask(self.dbapi, sql)

    def look(self) -> bool:
        """Whether the server has a transaction open."""
        is_open = self.pool.driver.in_transaction(self.dbapi)
        if not is_open:
            self.dbapi.rollback()  # for drivers that still believe in the one they began
        return is_open

    @property
    def busy(self) -> bool:
        """Whether its server is at something, or has something open, that nobody told of."""
        return self.pool.driver.in_transaction(self.dbapi)

    @property
    def unsure(self) -> bool:
        """Whether its server may still be at a statement that an exception interrupted."""
        return self.pool.driver.unsure or self.busy

    def end(self, verb: Literal["commit", "rollback"]) -> None:
        """End the open transaction, whoever began it."""
        self.pool.driver.end(self.dbapi, verb)

    def report_failure(self, error: Any, cursor: Any = None) -> bool:
        """Whether the server, or the way to it, is gone; if so, the node is blacklisted."""
        pool = self.pool
        return pool.report_failure(self, error, gone=pool.driver.lost(error, self.dbapi))

    def answers(self, seconds: float, runtime: Runtime) -> Life:
        """Ask the server whether it is there. Unless it answers, this is of no use any more."""
        life = super().answers(seconds, runtime)
        if self.unasked and not self.broken:
            self.unasked = False
            try:
                self.pool.introduced(self.fairy)
            except BaseException:
                self.broken = True
                raise
            self.dbapi = self.fairy.dbapi_connection
        return life

    def fileno(self) -> int:
        """The descriptor of its socket."""
        return self.pool.driver.fileno(self.dbapi)

    def sqlstate(self, error: BaseException) -> str:
        """The five-character code of an error, empty when the server sent none."""
        return self.pool.driver.sqlstate(error)

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop it belongs to; None where its calls block the thread."""
        return asyncio.get_running_loop() if self.pool.dialect.is_async else None

    def characterise(self, wanted: Characteristics) -> None:
        """Make `wanted` the settings of the transactions to come."""
        dialect: Any = self.pool.dialect
        now = self.characteristics
        record: Any = self.fairy._connection_record  # None where it was detached
        if self.undo is None and record is not None:
            # As SQLAlchemy's own: it is called when the garbage collector gives the connection
            # back, of which we hear nothing. It must not know us, or that would never happen.
            self.undo = partial(_plain, dialect)
            record.finalize_callback.append(self.undo)
        if wanted.isolation != now.isolation:
            if wanted.isolation is None:
                dialect.reset_isolation_level(self.dbapi)
            else:
                dialect.set_isolation_level(self.dbapi, wanted.isolation)
        if wanted.read_only != now.read_only:
            # None, not False: a standby refuses BEGIN READ WRITE.
            dialect.set_readonly(self.dbapi, wanted.read_only)
        if wanted.deferrable != now.deferrable:
            dialect.set_deferrable(self.dbapi, wanted.deferrable)
        self.characteristics = wanted
        if wanted == DEFAULTS and self.undo is not None:
            if record is not None:
                record.finalize_callback.remove(self.undo)
            self.undo = None

    def characterise_alone(self, wanted: Characteristics) -> None:
        """Declare statements in autocommit read-only, where the dialect's way to do so holds for
        them: by a setting of the session."""
        now = self.characteristics
        if self.pool.driver.declares_session and wanted.read_only != now.read_only:
            self.characterise(now._replace(read_only=wanted.read_only))

    def give_back(self) -> None:
        """Give it to its pool, or close it where nobody asks that pool any more."""
        fairy: Any = self.fairy
        if self.pool.left(fairy):
            fairy.invalidate()
        else:
            fairy._close_special(transaction_reset=True)

    def discard(self, *, distrust: bool) -> None:
        """Close it."""
        fairy: Any = self.fairy
        if distrust:
            fairy._pool._invalidate(fairy)
        else:
            fairy.invalidate()


def _plain(dialect: Any, dbapi: Any) -> None:
    """Make every characteristic of a driver's connection the default one again."""
    dialect.reset_isolation_level(dbapi)
    dialect.set_readonly(dbapi, None)
    dialect.set_deferrable(dbapi, None)
