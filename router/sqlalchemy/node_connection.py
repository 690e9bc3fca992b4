"""One node's connection from its SQLAlchemy pool while a checkout holds it."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy.pool import PoolProxiedConnection

from router.checkout.node_connection import DEFAULTS, Characteristics, Life, NodeConnection
from router.checkout.rows import RowsCursor
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
        # `EngineSource.idle` took it: no pre-ping was sent, and no checkout listener called.
        self.unasked: bool = False
        # Puts the characteristics back, where the pool and nobody else ends this checkout.
        self.undo: Callable[[Any], None] | None = None
        # A checkout listener may have left a transaction open, as in plain SQLAlchemy.
        super().__init__(node, in_transaction=pool.driver.in_transaction(self.dbapi))

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        return self.pool.driver_errors

    @property
    def first_settings(self) -> dict[str, str]:
        known: dict[str, str] = self.fairy.info.setdefault(SETTINGS, {})
        return known

    def autocommit(self, value: bool) -> None:
        if self.dbapi.autocommit != value:
            set_here = value and self.characteristics != DEFAULTS
            if set_here and self.pool.router.shares_sessions(self.node):
                # In autocommit psycopg2 makes them settings of a session that is not ours.
                self.characterise(DEFAULTS)
            self.dbapi.autocommit = value

    def run(self, sql: str, parameters: Any = None) -> None:
        cursor = self.dbapi.cursor()
        cursor.execute(sql, *((parameters,) if parameters else ()))
        cursor.close()

    def ask(self, sql: str) -> tuple[Any, ...]:
        return self.pool.driver.ask(self.dbapi, sql)

    def look(self) -> bool:
        """Whether the server has a transaction open."""
        is_open = self.pool.driver.in_transaction(self.dbapi)
        if not is_open:
            self.dbapi.rollback()  # for drivers that still believe in the one they began
        return is_open

    @property
    def busy(self) -> bool:
        return self.pool.driver.in_transaction(self.dbapi)

    @property
    def running(self) -> bool:
        # Only where rows may come one by one is it so between two calls, and only there known.
        driver = self.pool.driver
        return driver.cursor is RowsCursor and driver.runs(self.dbapi)

    @property
    def unsure(self) -> bool:
        return self.pool.driver.unsure or self.busy

    def end(self, verb: Literal["commit", "rollback"]) -> None:
        self.pool.driver.end(self.dbapi, verb)

    def report_failure(self, error: Any, cursor: Any = None) -> bool:
        pool = self.pool
        return pool.report_failure(self, error, gone=pool.driver.lost(error, self.dbapi))

    def answers(self, seconds: float, runtime: Runtime) -> Life:
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
        return self.pool.driver.fileno(self.dbapi)

    def sqlstate(self, error: BaseException) -> str:
        return self.pool.driver.sqlstate(error)

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        return asyncio.get_running_loop() if self.pool.dialect.is_async else None

    def characterise(self, wanted: Characteristics) -> None:
        dialect: Any = self.pool.dialect
        now = self.characteristics
        record: Any = self.fairy._connection_record  # None where it was detached
        if self.undo is None and record is not None:
            # As SQLAlchemy does: its callback runs where the pool takes back a connection that
            # nobody closed. A reference to us would keep that from happening.
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
        """As the base class has it, where the dialect's way to declare statements read-only holds
        for those in autocommit too: by a setting of the session."""
        now = self.characteristics
        if self.pool.driver.declares_session and wanted.read_only != now.read_only:
            self.characterise(now._replace(read_only=wanted.read_only))

    def give_back(self) -> None:
        self.pool.give_back(self.fairy)
        self.pool.given_back(self)

    def forsake(self) -> None:
        """Its checkout has gone without giving it back, and SQLAlchemy's pool is about to take it:
        close it before that, if a rollback alone would not put it right. It may be the garbage
        collector that asks, in the middle of anything: no server is waited for, nor anybody woken.
        """
        pool, fairy = self.pool, self.fairy
        pool.lent.pop(id(fairy), None)
        if pool.dialect.is_async or fairy.is_detached:
            return  # SQLAlchemy closes it whatever its state is, or keeps it no more
        # What a BEGIN of the user's own has begun in autocommit, psycopg2 does not roll back.
        unseen = self.dbapi.autocommit and self.busy
        if self.broken or self.spoilt or self.applied or unseen or pool.left(fairy):
            fairy.invalidate()

    def discard(self, *, distrust: bool) -> None:
        fairy: Any = self.fairy
        if distrust:
            fairy._pool._invalidate(fairy)
        else:
            fairy.invalidate()
        self.pool.given_back(self)


def _plain(dialect: Any, dbapi: Any) -> None:
    """Make every characteristic of a driver's connection the default one again."""
    dialect.reset_isolation_level(dbapi)
    dialect.set_readonly(dbapi, None)
    dialect.set_deferrable(dbapi, None)
