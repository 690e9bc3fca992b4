"""The router as a pool: one real pool per node behind the one an engine sees.

Node pools share the facade's event dispatch and the one dialect, so ``connect`` and ``checkout``
listeners see real driver connections and the dialect is initialised once.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, Protocol

from sqlalchemy import exc
from sqlalchemy.engine.interfaces import DBAPIConnection, Dialect
from sqlalchemy.pool import ConnectionPoolEntry, NullPool, Pool, PoolProxiedConnection, QueuePool
from sqlalchemy.pool.base import _ConnectionFairy, _ConnectionRecord
from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

from router import registry
from router.checkout.words import in_words
from router.cluster.membership import Use
from router.cluster.router import Router
from router.config.config import Config
from router.connect.probe import PROBE_SQL, ROLE_SQL, report
from router.errors import RouterError
from router.model import Node, Report
from router.rules.pgbouncer import not_the_primary, stranger
from router.sqlalchemy.checkout import EngineCheckout, RoutedConnection
from router.sqlalchemy.drivers import Driver, driver_of
from router.sqlalchemy.errors import PoolTimeout, translated
from router.sqlalchemy.node_connection import DbapiConnection

PROVEN = "pg_router_proven"
"""Where a connection's ``info`` keeps when it was last known to live (monotonic seconds)."""

NEW = "pg_router_new"
"""Where it says that nobody has taken it yet."""

LEFT = "pg_router_left"
"""Marks a node's pool that was disposed of."""


class Creator(Protocol):
    """Opens one connection, as SQLAlchemy's pools call it."""

    def __call__(self, rec: ConnectionPoolEntry) -> DBAPIConnection:
        """A new connection for the pool's record `rec`."""
        ...


_may_open: ContextVar[bool] = ContextVar("pg_router_may_open", default=True)
"""Whether pools may open connections now, or only give those that are open."""


class NothingOpen(Exception):
    """A pool has no connection that is open."""


class InUse:
    """Lives as long as an engine's pool, or one that took its place."""


class RoutingPool(Pool):
    """A pool of pools: one per node, made when first used.

    Options that size a pool hold for each node's pool.
    """

    def __init__(
        self,
        creator: Creator,
        # Not keyword-only: create_engine() looks for these among the positional ones.
        pool_size: int | None = None,
        max_overflow: int | None = None,
        timeout: float | None = None,
        use_lifo: bool | None = None,
        *,
        router: Router,
        config: Config,
        connect_to: Callable[[Node], Creator | None],
        connect_session_url: Callable[[], list[Creator]],
        poolclass: type[Pool] = QueuePool,
        recycle: int = -1,
        pre_ping: bool = False,
        reset_on_return: Any = True,
        **kw: Any,
    ) -> None:
        """Prepare; nothing is opened before the first statement.

        Args:
            creator: opens a connection to the configured primary.
            pool_size: connections each node's pool keeps.
            max_overflow: connections beyond that, opened under load.
            timeout: seconds to wait for one.
            use_lifo: take the connection used last.
            router: decides; one Router for the life of the engine.
            config: what the user asked for.
            connect_to: gives what opens a connection to a node; None where `creator` does.
            connect_session_url: gives what opens one to each host of ``session_url``.
            poolclass: the class of the node pools.
            recycle: seconds after which a connection is replaced.
            pre_ping: ask each connection whether it lives before it is used.
            reset_on_return: what a node's pool does to a connection that comes back.
            **kw: as `sqlalchemy.pool.Pool` takes them.
        """
        super().__init__(
            creator, recycle=recycle, pre_ping=pre_ping, reset_on_return=reset_on_return, **kw
        )
        self.router = router
        self.config = config
        self.connect_to = connect_to
        self.connect_session_url = connect_session_url
        self.poolclass = poolclass
        self.node_options: dict[str, Any] = {
            key: value
            for key, value in (
                ("pool_size", pool_size),
                ("max_overflow", max_overflow),
                ("timeout", timeout),
                ("use_lifo", use_lifo),
            )
            if value is not None
        }
        self._kept: dict[str, Any] = {
            "recycle": recycle,
            "pre_ping": pre_ping,
            "reset_on_return": reset_on_return,
            "echo": kw.get("echo"),
            "logging_name": kw.get("logging_name"),
        }
        self._pools: dict[Node, Pool] = {}
        self._leaving: list[Pool] = []
        self._introduced = False
        self._disposed = False
        # Shared with those made of it: when all are gone, the monitor has nobody to watch for.
        self.in_use: InUse | None = None
        registry.renew(self)
        router.membership.attach(self)

    @property
    def _dialect(self) -> Dialect:
        return self.dialect

    @_dialect.setter
    def _dialect(  # pyright: ignore[reportIncompatibleVariableOverride]
        self, dialect: Dialect
    ) -> None:
        # create_engine sets it, once the pool is there.
        self.dialect: Dialect = dialect
        self.driver: Driver = driver_of(dialect)
        self.driver_errors: tuple[type[Exception], ...] = (
            dialect.loaded_dbapi.Error,
            *self.driver.errors(dialect.loaded_dbapi),
        )
        self._met()

    def _met(self) -> None:
        """Take over what the dialect may not have known before it met its first connection."""
        dialect: Any = self.dialect
        level = dialect._on_connect_isolation_level
        # The isolation level by the settings of server, database and role.
        self.server_isolation: str = (
            getattr(dialect, "default_isolation_level", None) or "READ COMMITTED"
        )
        # The isolation level of a connection on which none was set.
        self.default_isolation: str = level or self.server_isolation

    def _ask_isolation(self, connection: Any) -> None:
        """Learn the isolation level of a new connection: a listener may have set another than
        the dialect found before it."""
        self._met()
        dialect: Any = self._dialect
        if dialect._on_connect_isolation_level is None:
            found: str = dialect.get_isolation_level(connection)
            self.server_isolation = self.default_isolation = found

    def is_disconnect(self, error: Any, dbapi: Any, cursor: Any) -> bool:
        """Whether `error` says that the connection is gone: the dialect's own judgement."""
        dialect: Any = self._dialect
        return self.driver.is_disconnect(error) or bool(
            dialect.is_disconnect(error, dbapi, cursor)
        )

    def sqlstate(self, error: BaseException) -> str:
        """The five-character code of an error, empty when the server sent none."""
        return self.driver.sqlstate(error)

    def translated(self, error: RouterError) -> Exception:
        """An error of the core's that is SQLAlchemy's as well."""
        return translated(error)

    def reason(self, error: BaseException) -> str:
        """The error as one line for people: SQLSTATE and message, without secrets."""
        return in_words(self.driver.sqlstate(error), error)

    def connect(self) -> RoutedConnection:
        """A checkout; no connection is taken before a statement needs one.

        Except the very first time: what SQLAlchemy knows of the server's version decides how
        statements are compiled, so the dialect has to meet a server before the first of them.
        That checkout keeps the connection, so listeners hear of it once.
        """
        self._disposed = False
        routed = EngineCheckout(self)
        if not self._introduced:
            routed.introduce(self._ask_isolation)
            self._introduced = True
        return RoutedConnection(routed)

    def node_pool(self, node: Node) -> Pool:
        """The pool of `node`, made when first asked for."""
        pool = self._pools.get(node)
        if pool is None:
            made = self._make(node)
            # Two threads may both have made one; whoever stores first wins, none was used yet.
            pool = self._pools.setdefault(node, made)
            if node not in self.router.servers:
                self.retire(node)  # it left meanwhile: what is taken now is closed afterwards
        return pool

    def hold(self, node: Node) -> DbapiConnection:
        """A pooled connection to `node`, for a checkout.

        One that is older than the node's last interruption is asked whether it lives: a write
        must not fail, nor a healthy replica be blacklisted, over a server's restart long ago.

        Raises:
            sqlalchemy.exc.TimeoutError: all are in use; names node, sizes and cure.
        """
        while self._leaving:
            self._leaving.pop().dispose()
        pool = self._pools.get(node) or self.node_pool(node)
        fresh = None
        try:
            fairy = pool.connect()
            report = self.router.view.snapshot.reports.get(node.name)
            if report is not None:
                # The record's own: each checkout's `info` would be looked up anew.
                known: dict[str, Any] = fairy._connection_record.info
                if known.get(PROVEN, report.since) < report.since:
                    fairy = self._proven(pool, fairy)
                    known = fairy._connection_record.info
                fresh = known.pop(NEW, None)
        except exc.TimeoutError as error:
            cure = self.config.relief("pool_size or max_overflow")
            raise PoolTimeout(f"{node}: {error}: {cure}") from error
        held = DbapiConnection(self, node, fairy)
        if fresh:
            held.fresh = True
        return held

    def idle(self, node: Node) -> DbapiConnection | None:
        """A pooled connection to `node` that is open and not in use, if there is one; it was not
        asked whether it lives, not even with ``pool_pre_ping``."""
        pool = self._pools.get(node)
        if pool is None:
            return None
        token = _may_open.set(False)
        try:
            for _ in range(_count(pool, "checkedin")):
                with contextlib.suppress(NothingOpen):
                    fairy: Any = _ConnectionRecord.checkout(pool)
                    fairy._counter += 1  # it is in use, though nobody was told: see `introduced`
                    held = DbapiConnection(self, node, fairy)
                    held.unasked = True
                    return held
        except exc.TimeoutError:
            pass  # another caller was quicker, and the pool may not grow
        finally:
            _may_open.reset(token)
        return None

    def introduced(self, fairy: Any) -> None:
        """Do with a connection of `idle` what its pool does with each that it gives: pre-ping, and
        checkout listeners."""
        fairy._counter -= 1
        _ConnectionFairy._checkout(fairy._pool, fairy=fairy)

    def _proven(self, pool: Pool, fairy: PoolProxiedConnection) -> PoolProxiedConnection:
        """`fairy` if it lives, else another connection of `pool`."""
        dialect: Any = self._dialect
        now = self.router.clock()
        try:
            lives = dialect._do_ping_w_event(fairy.dbapi_connection)
        except BaseException:
            fairy.invalidate()
            raise
        if lives:
            fairy.info[PROVEN] = now
            return fairy
        pool._invalidate(fairy)  # and what else is as old
        return pool.connect()

    def session(self, node: Node) -> DbapiConnection | None:
        """A new connection to `node`, the primary, by ``session_url``; None without one.

        It is closed when it is given back, and what its session holds ends with it.

        Raises:
            Exception: none of its hosts is the primary; as `translated` has it.
        """
        problem, cause = "", None
        for create in self.connect_session_url():
            pool = NullPool(create, dialect=self._dialect)
            pool.__dict__["dispatch"] = self.dispatch
            try:
                fairy = pool.connect()
            except self.driver_errors as error:
                problem, cause = self.reason(error), error
                continue
            try:
                problem = self._stranger(node, fairy.dbapi_connection)
                if not problem:
                    return DbapiConnection(self, node, fairy)
            except BaseException:
                fairy.invalidate()
                raise
            fairy.invalidate()
        if not problem:
            return None
        raise self.translated(not_the_primary(problem, node)) from cause

    def _stranger(self, node: Node, connection: Any) -> str:
        """Why `connection` does not lead to the primary `node`, empty where it does."""
        with self._untouched(connection):
            found = self._report(node, connection)
        return stranger(found, node, self.router.snapshot)

    def start_router(self) -> None:
        """Start the Router, and let an event loop run on while its first probes are awaited."""
        self._apart(self.router.start)

    def _apart(self, call: Callable[[], object]) -> None:
        if self._dialect.is_async and in_greenlet():
            await_only(asyncio.to_thread(call))
        else:
            call()

    def _make(self, node: Node) -> Pool:
        pool = self.poolclass(
            self._creator_for(node), dialect=self._dialect, **self.node_options, **self._kept
        )
        # Shared, not copied: a listener added to the engine later is heard as well.
        pool.__dict__["dispatch"] = self.dispatch
        return pool

    def _creator_for(self, node: Node) -> Creator:
        create = self.connect_to(node) or self._invoke_creator
        router = self.router

        def verified(rec: ConnectionPoolEntry) -> DBAPIConnection:
            if not _may_open.get():
                raise NothingOpen
            if len(router.servers) < 2:
                return create(rec)
            with router.health.connecting(node, self._pause):
                connection = create(rec)
                try:
                    self._verify(node, connection)
                except BaseException:
                    dialect: Any = self._dialect
                    with contextlib.suppress(Exception):
                        (dialect.do_terminate if dialect.has_terminate else dialect.do_close)(
                            connection
                        )
                    raise
            rec.info[PROVEN] = router.clock()
            rec.info[NEW] = True
            return connection

        return verified

    def _pause(self, seconds: float) -> None:
        if self.dialect.is_async:
            await_only(self.router.runtime.tasks.sleep(seconds))
        else:
            self.router.runtime.sleep(seconds)

    def _verify(self, node: Node, connection: Any) -> None:
        """Ask a new connection's server what it is, before anything is trusted to it.

        Between two probes a replica may have been promoted, or restarted with an older state
        than it had when it was last probed.
        """
        with self._untouched(connection):
            self._probe(node, connection)

    @contextlib.contextmanager
    def _untouched(self, connection: Any) -> Iterator[None]:
        """Leave no transaction on a new connection.

        As the driver made it, or a do_connect listener, who may have begun a transaction: so a
        connect listener shall find it.
        """
        driver = self.driver
        autocommit = driver.autocommit(connection)
        if not driver.in_transaction(connection):
            driver.set_autocommit(connection, True)
        yield
        if driver.autocommit(connection) is not autocommit:
            driver.set_autocommit(connection, autocommit)

    def probe(self, held: DbapiConnection) -> None:
        """Probe a node over a connection held, and tell the Router.

        Raises:
            Exception: the connection is lost; as the driver says it.
        """
        self._probe(held.node, held.dbapi)

    def _probe(self, node: Node, connection: Any) -> None:
        found = self._report(node, connection)
        if found is not None:
            self.router.observe(found)

    def _report(self, node: Node, connection: Any) -> Report | None:
        for sql in (PROBE_SQL, ROLE_SQL):
            started = self.router.clock()
            cursor = connection.cursor()
            try:
                cursor.execute(sql)
                row = cursor.fetchone()
            except self.driver_errors as error:
                if self.is_disconnect(error, connection, cursor):
                    raise
                if self.driver.in_transaction(connection):
                    return None  # a listener's, and failed now: the monitor will find out
                continue
            finally:
                cursor.close()
            return report(node.name, started, row)
        return None

    def recreate(self) -> "RoutingPool":
        """A new pool with the same options, Router and listeners."""
        pool = type(self)(
            self._invoke_creator,
            router=self.router,
            config=self.config,
            connect_to=self.connect_to,
            connect_session_url=self.connect_session_url,
            poolclass=self.poolclass,
            recycle=self._recycle,
            echo=self.echo,
            logging_name=self._orig_logging_name,
            reset_on_return=self._reset_on_return,
            pre_ping=self._pre_ping,
            dialect=self._dialect,
            _dispatch=self.dispatch,
        )
        pool.node_options = dict(self.node_options)
        pool._introduced = self._introduced
        pool.server_isolation = self.server_isolation
        pool.default_isolation = self.default_isolation
        pool.in_use = self.in_use
        return pool

    def dispose(self) -> None:
        """Close every idle connection and stop the monitor; the next statement starts anew."""
        self._disposed = True
        pools, self._pools = [*self._pools.values(), *self._leaving], {}
        self._leaving.clear()
        for pool in pools:
            pool.__dict__[LEFT] = True
            pool.dispose()
        self._apart(self.router.close)

    def retire(self, node: Node) -> None:
        """Close idle connections to `node` now, those in use when they come back."""
        pool = self._pools.pop(node, None)
        if pool is None:
            return
        pool.__dict__[LEFT] = True
        if self.dialect.is_async:
            self._leaving.append(pool)  # to be closed on its event loop, which may not be ours
        else:
            pool.dispose()

    def left(self, fairy: Any) -> bool:
        """Whether a connection that comes back shall be closed: nobody asks its pool any more.

        Not so in a forked child, where the sockets are the parent's.
        """
        return self._disposed or LEFT in fairy._pool.__dict__

    def _invalidate(
        self,
        connection: PoolProxiedConnection,
        exception: BaseException | None = None,
        _checkin: bool = True,
    ) -> None:
        """A statement failed by disconnect: distrust what the failed node's pool holds."""
        if not isinstance(connection, RoutedConnection):
            return
        for held in (connection.routed.primary, connection.routed.replica):
            if held is not None and held.broken:
                self.node_pool(held.node)._invalidate(held.fairy, exception, _checkin=False)

    def _sum(self, method: str) -> int:
        return sum(_count(pool, method) for pool in list(self._pools.values()))

    def size(self) -> int:
        """Connections the node pools may keep, all together."""
        return self._sum("size")

    def checkedin(self) -> int:
        """Idle connections, all nodes together."""
        return self._sum("checkedin")

    def checkedout(self) -> int:
        """Connections in use, all nodes together."""
        return self._sum("checkedout")

    def use(self) -> dict[Node, Use]:
        """The connections to each node."""
        return {
            node: Use(_count(pool, "checkedout"), _count(pool, "checkedin"))
            for node, pool in self._pools.copy().items()
        }

    def overflow(self) -> int:
        """Connections beyond the pools' sizes, all nodes together."""
        return self._sum("overflow")

    def status(self) -> str:
        """One line per node."""
        lines = [f"{node.name}: {pool.status()}" for node, pool in self._pools.items()]
        return "\n".join(lines) or "no connection was needed yet"

    def __repr__(self) -> str:
        return f"<RoutingPool {self.router!r}>"

    def after_fork(self) -> None:
        """In a forked child: leave every connection to the parent, neither used nor closed."""
        registry.leave_to_parent(self._pools, self._leaving)
        self._pools, self._leaving = {}, []
        self._disposed = False
        for event in (self.dispatch.first_connect, self.dispatch.connect):
            _unlock(event)


def _count(pool: Pool, method: str) -> int:
    return int(getattr(pool, method, int)())  # a NullPool counts nothing


def _unlock(event: Any) -> None:
    """Have SQLAlchemy make its lock around an event's first call anew: whoever makes an engine's
    very first connection holds it for so long, and may be a thread of the parent's."""
    with contextlib.suppress(AttributeError):  # it has made none yet
        del event._exec_once_mutex
    if hasattr(event, "_get_exec_once_mutex"):  # since SQLAlchemy 2.1, which looks for None
        event._exec_once_mutex = None
