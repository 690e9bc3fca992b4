"""Patches each node's pool, to share the engine's listeners: where connections come from."""

import asyncio
import contextlib
from collections.abc import Callable, Hashable, Iterator
from functools import partial
from typing import Any
from weakref import ref

from sqlalchemy import exc
from sqlalchemy.engine.interfaces import DBAPIConnection, Dialect
from sqlalchemy.pool import ConnectionPoolEntry, NullPool, Pool, PoolProxiedConnection, QueuePool
from sqlalchemy.pool.base import _ConnectionFairy, _ConnectionRecord
from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

from router import registry
from router.cluster.membership import Use
from router.cluster.router import Router
from router.config.config import Config
from router.connect.dialing import NothingOpen, may_open
from router.connect.source import Connector, Source
from router.errors import RouterError, SessionRefused
from router.model import Node
from router.sqlalchemy.drivers import Driver, driver_of
from router.sqlalchemy.errors import PoolTimeout, translated
from router.sqlalchemy.node_connection import DbapiConnection
from router.sqlalchemy.opening import Creator, Opening
from router.sqlalchemy.waiting import Waits, connected, count

PROVEN = "pg_router_proven"
"""Key in a connection's ``info``: when it was last known to live (monotonic seconds)."""

TIMEOUT = 30.0
"""Seconds to wait for a connection; SQLAlchemy's own default for ``pool_timeout``."""

AT_ONCE = 0.001
"""Seconds a node's pool itself has for a connection that is idle. At 0, SQLAlchemy's asynchronous
queue ends its wait before it has looked, as ``asyncio.wait_for`` does: seen with 2.0.40."""

LEFT = "pg_router_left"
"""Attribute of a node's pool that was disposed of: its connections are closed as they return."""


class InUse:
    """Lives as long as an engine's pool, or a pool that replaced that one.

    Attributes:
        loop: the event loop of its connections, the last where it has several; None without
            asyncio.
    """

    def __init__(self, opening: Opening) -> None:
        """In use are connections of `opening`."""
        self.opening: Opening = opening
        self.loop: asyncio.AbstractEventLoop | None = None


class EngineSource(Connector, Source):
    """The connections of one engine: a SQLAlchemy pool for each node, made when first used.

    Attributes:
        creator: opens a connection to the configured primary.
        dispatch: the listeners of the engine's pool, which the node pools share.
        reset_style: what is done to a checkout that comes back.
        dialect: the engine's.
        server_isolation: the isolation level by the settings of server, database and role.
        default_isolation: the isolation level of a connection on which none was set.
        disposed: the engine was disposed of, and not used since.
        waits: how its callers wait.
        in_use: shared with the sources made of this one: when all are gone, the monitor ends.
    """

    creator: Creator
    dispatch: Any
    reset_style: Any
    dialect: Dialect
    server_isolation: str
    default_isolation: str
    in_use: InUse | None = None
    waits: Waits

    def __init__(
        self,
        router: Router,
        config: Config,
        connect_to: Callable[[Node], Creator | None],
        session_creators: Callable[[], list[Creator]],
        poolclass: type[Pool],
        options: dict[str, Any],
    ) -> None:
        """Prepare; nothing is opened before the first statement. `router`, `config`, `connect_to`
        and `poolclass` are as `RoutingPool` has them.

        Args:
            session_creators: gives what opens a connection to each host of ``session_url``.
            options: of the node pools.
        """
        self.router: Router = router
        self.config: Config = config
        self.connect_to = connect_to
        self.session_creators = session_creators
        self.poolclass = poolclass
        self.options = options
        self.timeout: float = options.get("timeout", TIMEOUT)
        self.opened: dict[Hashable, float] = {}
        self._pools: dict[Node, Pool] = {}
        self._leaving: list[Pool] = []
        # By its identity, what is in use; no reference that would keep the garbage collector from
        # giving it back.
        self.lent: dict[int, tuple[Node, ref[Any]]] = {}
        self.disposed: bool = False
        registry.renew(self)
        router.membership.attach(self)
        router.gate.always(self.unused)

    @property
    def renews(self) -> bool:  # type: ignore[override]
        """As the base class has it."""
        return self.in_use is not None and self.in_use.opening.renews

    def speak(self, dialect: Dialect) -> None:
        """Take `dialect` for the engine's: ``create_engine`` sets it once the pool is there."""
        self.dialect = dialect
        self.driver: Driver = (  # pyright: ignore[reportIncompatibleVariableOverride]
            driver_of(dialect).of(dialect)
        )
        self.waits = Waits(self.router, self.give_back, asynchronous=dialect.is_async)
        self.meet()

    def meet(self) -> None:
        """Take over what the dialect may not have known before it met its first connection."""
        dialect: Any = self.dialect
        level = dialect._on_connect_isolation_level
        found = getattr(dialect, "default_isolation_level", None) or "READ COMMITTED"
        self.server_isolation: str = found
        self.default_isolation: str = level or found

    def ask_isolation(self, connection: Any) -> None:
        """Learn the isolation level of a new `connection`: a listener may have set another than
        the dialect found before it."""
        self.meet()
        dialect: Any = self.dialect
        if dialect._on_connect_isolation_level is None:
            found: str = dialect.get_isolation_level(connection)
            self.server_isolation = self.default_isolation = found

    def translated(self, error: RouterError) -> Exception:
        return translated(error)

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

        A connection that is older than the node's last interruption is asked whether it lives: a
        write must not fail, nor a healthy replica be blacklisted, over a server's restart long
        ago.

        Raises:
            sqlalchemy.exc.TimeoutError: all are in use; names node, sizes and cure.
        """
        while self._leaving:
            self._leaving.pop().dispose()
        pool = self._pools.get(node) or self.node_pool(node)
        fairy: Any = self._taken(node, pool)
        try:
            report = self.router.view.snapshot.reports.get(node.name)
            # By the record's `info`: the fairy's is a property, which costs a call.
            if report is not None and (
                fairy._connection_record.info.get(PROVEN, report.since) < report.since
            ):
                fairy = self._proven(node, pool, fairy)
        except BaseException:
            self.lent.pop(id(fairy), None)
            self.waits.freed(node)
            raise
        held = DbapiConnection(self, node, fairy)
        if self.opened and self.is_fresh(id(fairy._connection_record)):
            held.fresh = True
        return held

    def _taken(self, node: Node, pool: Pool) -> PoolProxiedConnection:
        """A connection of `pool`, which is that of `node`, when there is one for this caller; it
        is in use from then on. Raises GivenUp, and PoolTimeout."""

        def current() -> Pool:
            return self._pools.get(node) or pool

        found = self.waits.connection(node, current, self.timeout)
        if found is None:
            cure = self.config.relief("pool_size or max_overflow")
            raise PoolTimeout(
                f"{node}: {type(pool).__name__} limit of size {count(pool, 'size')} overflow "
                f"{getattr(pool, '_max_overflow', 0)} reached, connection timed out, timeout "
                f"{self.timeout:.2f}: {cure}"
            )
        self.lent[id(found)] = node, ref(found)
        return found

    def idle(self, node: Node) -> DbapiConnection | None:
        """A pooled connection to `node` that is open and not in use, if there is one; it was
        not asked whether it lives, not even with ``pool_pre_ping``."""
        pool = self._pools.get(node)
        if pool is None:
            return None
        token = may_open.set(False)
        try:
            for _ in range(count(pool, "checkedin")):
                with contextlib.suppress(NothingOpen):
                    fairy: Any = _ConnectionRecord.checkout(pool)
                    fairy._counter += 1  # in use, though no listener was called: see `introduced`
                    held = DbapiConnection(self, node, fairy)
                    held.unasked = True
                    return held
        except exc.TimeoutError:
            pass  # another caller was quicker, and the pool may not grow
        finally:
            may_open.reset(token)
        return None

    def introduced(self, fairy: Any) -> None:
        """Do with `fairy`, of `idle`, what its pool does with each connection that it gives:
        pre-ping, and checkout listeners."""
        fairy._counter -= 1
        _ConnectionFairy._checkout(fairy._pool, fairy=fairy)

    def _proven(
        self, node: Node, pool: Pool, fairy: PoolProxiedConnection
    ) -> PoolProxiedConnection:
        """`fairy` if it lives, else another connection of `pool`."""
        dialect: Any = self.dialect
        now = self.router.clock()
        try:
            lives = dialect._do_ping_w_event(fairy.dbapi_connection)
        except BaseException:
            fairy.invalidate()
            raise
        if lives:
            fairy.info[PROVEN] = now
            return fairy
        pool._invalidate(fairy)  # and with it each connection that is as old
        self.lent.pop(id(fairy), None)
        return self._taken(node, pool)

    def session(self, node: Node) -> DbapiConnection | None:
        """A new connection to `node`, the primary, by ``session_url``; None without one.

        It is closed when it is given back, and what its session holds ends with it.

        Raises:
            Exception: none of its hosts is the primary; as `translated` has it.
        """

        def dial(create: Creator) -> PoolProxiedConnection:
            pool = NullPool(create, dialect=self.dialect)
            pool.__dict__["dispatch"] = self.dispatch
            return connected(pool)

        def admit(fairy: PoolProxiedConnection) -> str:
            with self._untouched(fairy.dbapi_connection):
                return self.why_not_primary(node, fairy.dbapi_connection)

        ways = (partial(dial, create) for create in self.session_creators())
        try:
            fairy = self.first_of_sessions(node, ways, admit, lambda fairy: fairy.invalidate())
        except SessionRefused as error:
            raise self.translated(error) from error.__cause__
        return None if fairy is None else DbapiConnection(self, node, fairy)

    def start_router(self) -> None:
        """Start the Router, and let an event loop run on while its first probes are awaited."""
        self.apart(self.router.start)

    def apart(self, call: Callable[[], object]) -> None:
        if self.dialect.is_async and in_greenlet():
            if self.in_use is not None:
                self.in_use.loop = asyncio.get_running_loop()
            await_only(asyncio.to_thread(call))
        else:
            call()

    def _make(self, node: Node) -> Pool:
        options = self.options
        if issubclass(self.poolclass, QueuePool):
            options = {**options, "timeout": AT_ONCE}  # nobody waits in it: see `Waits`
        pool = self.poolclass(self._creator_for(node), dialect=self.dialect, **options)
        # Shared, not copied: a listener added to the engine later is heard as well.
        pool.__dict__["dispatch"] = self.dispatch
        return pool

    def _creator_for(self, node: Node) -> Creator:
        create = self.connect_to(node) or self.creator

        def verified(rec: ConnectionPoolEntry) -> DBAPIConnection:
            if not may_open.get():
                raise NothingOpen
            if len(self.router.servers) < 2:
                return create(rec)
            dial, admit = partial(create, rec), partial(self._admit, node)
            connection: DBAPIConnection = self.open_to(node, dial, admit, self._pause)
            rec.info[PROVEN] = self.router.clock()
            self.note_opened(id(rec))
            return connection

        return verified

    def _pause(self, seconds: float) -> None:
        if self.dialect.is_async:
            await_only(self.router.runtime.tasks.sleep(seconds))
        else:
            self.router.runtime.sleep(seconds)

    def _admit(self, node: Node, connection: Any) -> None:
        """Ask a new connection's server what it is, before anything is trusted to it."""
        with self._untouched(connection):
            self.probe_over(node, connection)

    @contextlib.contextmanager
    def _untouched(self, connection: Any) -> Iterator[None]:
        """Leave a new connection as the driver made it, or a do_connect listener, which may have
        begun a transaction: so a connect listener shall find it."""
        autocommit = connection.autocommit
        if not self.driver.in_transaction(connection):
            connection.autocommit = True
        yield
        if connection.autocommit != autocommit:
            connection.autocommit = autocommit

    def probe(self, held: DbapiConnection) -> None:
        self.probe_over(held.node, held.dbapi)

    def dispose(self) -> None:
        """Close every idle connection and stop the monitor; the next statement opens them
        again."""
        self.disposed = True
        pools, self._pools = [*self._pools.values(), *self._leaving], {}
        self._leaving.clear()
        for pool in pools:
            pool.__dict__[LEFT] = True
            pool.dispose()
        self.apart(self.router.close)

    def retire(self, node: Node) -> None:
        """Close idle connections to `node` now, those in use when they come back."""
        pool = self._pools.pop(node, None)
        if pool is None:
            return
        pool.__dict__[LEFT] = True
        if self.dialect.is_async:
            self._leaving.append(pool)  # `hold` closes it, on the event loop of its connections
        else:
            pool.dispose()

    def under_way(self, node: Node) -> list[Any]:
        """As the base class has it."""
        fairies = [known() for used, known in self.lent.copy().values() if used is node]
        found = [fairy.dbapi_connection for fairy in fairies if fairy is not None]
        return [connection for connection in found if connection is not None]

    def given_back(self, held: DbapiConnection) -> None:
        """`held` is not in use any more."""
        self.lent.pop(id(held.fairy), None)
        self.waits.freed(held.node)

    def left(self, fairy: Any) -> bool:
        """Whether `fairy`, which comes back, shall be closed: nobody asks its pool any more.

        Not so in a forked child, where the sockets are the parent's."""
        return self.disposed or LEFT in fairy._pool.__dict__

    def give_back(self, fairy: Any) -> None:
        """Give `fairy` to its pool, or close it where that pool was disposed of or retired."""
        if self.left(fairy):
            fairy.invalidate()
        else:
            fairy._close_special(transaction_reset=True)

    def use(self) -> dict[Node, Use]:
        return {
            node: Use(count(pool, "checkedout"), count(pool, "checkedin"))
            for node, pool in self.pools().items()
        }

    def pools(self) -> dict[Node, Pool]:
        """The node pools there are now."""
        return self._pools.copy()

    def after_fork(self) -> None:
        """In a forked child: leave every connection to the parent, neither used nor closed."""
        registry.leave_to_parent(self._pools, self._leaving)
        self._pools, self._leaving, self.lent = {}, [], {}
        self.waits = Waits(self.router, self.give_back, asynchronous=self.dialect.is_async)
        self.opened.clear()
        self.disposed = False
        if self.in_use is not None:
            self.in_use.loop = None
        for event in (self.dispatch.first_connect, self.dispatch.connect):
            _unlock(event)


def _unlock(event: Any) -> None:
    """Have SQLAlchemy make its lock around an `event`'s first call again. Whoever makes an
    engine's very first connection holds that lock, and may be a thread of the parent's."""
    with contextlib.suppress(AttributeError):  # SQLAlchemy has made no lock yet
        del event._exec_once_mutex
    if hasattr(event, "_get_exec_once_mutex"):  # since SQLAlchemy 2.1, which looks for None
        event._exec_once_mutex = None
