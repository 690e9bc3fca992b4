"""The router as a pool of asyncpg's: one real pool per node behind it."""

import asyncio
import contextlib
import functools
import inspect
from collections.abc import Coroutine, Generator, Mapping
from typing import Any, NoReturn, Self
from urllib.parse import urlencode

import asyncpg

from router import registry
from router.asyncpg.connection import Acquiring, Connection
from router.asyncpg.errors import PoolClosed
from router.asyncpg.node_connection import DRIVER_ERRORS, NothingOpen, may_open
from router.cluster.membership import Use
from router.cluster.monitor import Monitor
from router.cluster.router import Router
from router.config.config import Config
from router.config.options import OPTIONS
from router.config.server import Server
from router.connect.probe import PROBE_SQL, ROLE_SQL, report
from router.errors import ConfigError, NoReplicaAvailable
from router.greenlets import await_only, greenlet_spawn, require
from router.messages import did_you_mean, masked
from router.model import Node, Report, app_name
from router.rules.pgbouncer import check_search_path, check_startup, not_the_primary, stranger

ADDRESS = {"host": "host", "port": "port", "user": "user", "password": "password",
           "database": "dbname"}  # fmt: skip
"""What asyncpg calls a part of the address, and what we call it."""

_SQLALCHEMYS: dict[str, str] = {
    "pool_size": "min_size and max_size",
    "max_overflow": "max_size",
    "pool_timeout": "timeout= of acquire()",
    "pool_recycle": "max_inactive_connection_lifetime",
    "pool_pre_ping": "nothing: what is lost is noticed",
    "echo": "the logger asyncpg",
    "reads_in_transaction": "transaction(readonly=True)",
}
"""Options of SQLAlchemy's engines, and what is their like here."""

_UNREACHABLE: tuple[type[Exception], ...] = (OSError, *DRIVER_ERRORS)

_OURS = frozenset({"connect", "loop", "connection_class", "target_session_attrs", "service",
                   "servicefile", "passfile"})  # fmt: skip
"""Options of asyncpg's that would take a node's connections from the router."""


class Pool(asyncpg.Pool):
    """A pool of routed connections; its options hold for each node's pool of asyncpg's.

    It is an `asyncpg.Pool` for whoever asks; each of that class's methods is its own.

    Attributes:
        config: which servers, and how to route.
        router: decides.
        version: of a server that was connected to, None before.
        unclean: connections, by node and server process, that have to be reset.
    """

    def __init__(self, config: Config, **options: Any) -> None:
        """Prepare; nothing is opened before it is awaited or entered.

        Args:
            config: which servers, and how to route.
            **options: as `asyncpg.create_pool` takes them, for each node's pool.

        Raises:
            ConfigError: an option is unknown or malformed, or the package greenlet is missing;
                names it and the cure.
        """
        require("router.asyncpg")
        self.config: Config = config
        self._options: dict[str, Any] = _checked(config, options)
        self._user_reset: Any = self._options.pop("reset", None)
        self.unclean: set[tuple[Node, int]] = set()
        # Connections that nobody has taken yet, and when they were opened (monotonic seconds).
        self.opened: dict[tuple[Node, int], float] = {}
        self._pools: dict[Node, Any] = {}
        self._closing: bool = False
        self._closed: bool = False
        self._lent: set[Connection] = set()
        self._all_back: asyncio.Event | None = None
        self._ending: set[asyncio.Future[None]] = set()
        self.version: Any = None
        self._router_loop: asyncio.AbstractEventLoop | None = None
        self.router: Router = Router(config)
        for server in self.router.servers.values():
            self._arguments(server)  # what is malformed is refused now
        self.router.use_monitor(Monitor(self.router, self._for_monitor))
        self.router.membership.attach(self)
        registry.renew(self)

    def __repr__(self) -> str:
        closed = "closed " if self._closing else ""
        return f"<router.asyncpg.Pool {closed}{self.router!r}>"

    # -- its life ------------------------------------------------------------------------------

    def __await__(self) -> Generator[Any, None, Self]:
        return self._open().__await__()

    async def _open(self) -> Self:
        if self._closing:
            raise PoolClosed("the pool is closed: make another one")
        self._same_loop()
        try:
            await asyncio.to_thread(self.router.start)
            # All of them to their end, so that no task is left behind one that failed.
            warming = (self._warm(node) for node in list(self.router.servers))
            for found in await asyncio.gather(*warming, return_exceptions=True):
                if isinstance(found, BaseException):
                    raise found
        except BaseException:
            # Nobody has a pool to close who was given an error in place of it.
            self.terminate()
            raise
        return self

    async def _warm(self, node: Node) -> None:
        """Open the ``min_size`` connections; a node that is down gets its own later."""
        pool = self.node_pool(node)
        with contextlib.suppress(NoReplicaAvailable, TimeoutError, *DRIVER_ERRORS):
            taken = await asyncio.gather(
                *(pool.acquire() for _ in range(self._options["min_size"])),
                return_exceptions=True,
            )
            for con in taken:
                if not isinstance(con, BaseException):
                    await pool.release(con)
            for found in taken:
                if isinstance(found, ConfigError):
                    raise found

    async def __aenter__(self) -> Self:
        return await self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Wait for the connections in use to come back, close all, and stop the monitor.

        From the beginning no more are lent; those lent take what they need until they are back.
        Cancelled, as by `asyncio.wait_for`, it closes all at once.
        """
        self._closing = True
        late = asyncio.get_running_loop().call_later(60, self._warn_on_long_close)
        try:
            if self._lent:
                self._all_back = self._all_back or self.router.runtime.tasks.event()
                await self._all_back.wait()
            self._closed = True
            await asyncio.gather(*self._ending, return_exceptions=True)
            await asyncio.gather(*(pool.close() for pool in self._pools.values()))
        except BaseException:
            self._end()
            raise
        finally:
            late.cancel()
            await asyncio.to_thread(self.router.close)

    def terminate(self) -> None:
        """Close all connections at once, without waiting for those in use."""
        self._end()
        self.router.close()

    def _end(self) -> None:
        self._closing = self._closed = True
        for pool in self._pools.values():
            pool.terminate()
        for connection in list(self._lent):
            self.returned(connection)

    def returned(self, connection: Connection) -> None:
        """A connection is back, or nobody waits for it any more."""
        self._lent.discard(connection)
        if not self._lent and self._all_back is not None:
            self._all_back.set()

    async def expire_connections(self) -> None:
        """Replace every connection that is open now, those in use when they come back."""
        for pool in list(self._pools.values()):
            await pool.expire_connections()

    def is_closing(self) -> bool:
        """Whether it was closed, or is being closed."""
        return self._closing

    def set_connect_args(self, *args: Any, **kw: Any) -> NoReturn:
        """Refused: nodes are added and removed by the Router."""
        raise asyncpg.UnsupportedClientFeatureError(
            "set_connect_args: use pool.router.add_replica() and remove_replica()"
        )

    def _same_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._router_loop is None:
            self._router_loop = loop
        elif self._router_loop is not loop:
            raise asyncpg.InterfaceError(
                "the pool belongs to another event loop: make one pool in each loop"
            )

    def after_fork(self) -> None:
        """In a forked child: leave every connection, and the event loop, to the parent. Whichever
        loop uses this pool next has it."""
        registry.leave_to_parent(self._pools, self._lent, self._ending, self._router_loop)
        self._pools, self._lent, self._ending = {}, set(), set()
        self.unclean = set()
        self._all_back = self._router_loop = None

    async def to_its_end(self, work: Coroutine[Any, Any, None]) -> None:
        """Await `work`, which goes on when the caller is cancelled meanwhile."""
        task = self.router.runtime.tasks.spawn(work)
        # The event loop itself keeps no strong reference to what nobody awaits any more.
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        await asyncio.shield(task)

    # -- nodes ---------------------------------------------------------------------------------

    def _arguments(self, server: Server) -> dict[str, Any]:
        """What `asyncpg.connect` needs to reach `server`."""
        config = self.config
        found: dict[str, Any] = {"timeout": config.connect_timeout, **self._connecting}
        if config.unprepared(server):
            if found.get("statement_cache_size"):
                raise ConfigError(
                    "statement_cache_size: prepared statements fail behind PgBouncer: leave it "
                    "out; or, for PgBouncer 1.21 with max_prepared_statements, say "
                    "prepared_statements=True"
                )
            found["statement_cache_size"] = 0
        settings = dict(found.get("server_settings") or {})
        if config.pooling(server) != "off":
            where = f"{server.host}:{server.port}/{server.dbname}"
            check_startup({"server_settings": settings}, where)
        if path := config.begins_in(server):
            settings["search_path"] = path
        found["server_settings"] = settings
        for ours, theirs in (("user", "user"), ("password", "password"), ("dbname", "database")):
            if given := getattr(server, ours):
                found[theirs] = given
        query = f"?{urlencode(server.params)}" if server.params else ""
        return {"dsn": f"postgresql:///{query}", "host": server.host, "port": server.port, **found}

    def _for_monitor(self, node: Node) -> Mapping[str, Any]:
        return self.config.libpq() | self.router.servers[node].connect_args()

    @property
    def _connecting(self) -> dict[str, Any]:
        return {k: v for k, v in self._options.items() if k in _CONNECTING}

    def node_pool(self, node: Node) -> Any:
        """The pool of asyncpg's for `node`, made when first asked for.

        Raises:
            PoolClosed: this pool is closed.
            NoReplicaAvailable: the node has left the cluster.
        """
        pool = self._pools.get(node)
        if pool is not None:
            return pool
        if self._closed:
            raise PoolClosed("the pool is closed: make another one")
        server = self.router.servers.get(node)
        if server is None:
            raise NoReplicaAvailable(f"{node} has left the cluster: try again")

        async def connect(*args: Any, **kw: Any) -> Any:
            return await greenlet_spawn(self._connect, node, args, kw)

        of_pool = {k: v for k, v in self._options.items() if k not in _CONNECTING}
        pool = asyncpg.create_pool(
            **{**self._arguments(server), **of_pool, "min_size": 0},
            connect=connect,
            reset=self._user_reset or functools.partial(self._put_right, node),
        )
        # With nothing to open yet it gets ready in one step, so that no other task meets it half
        # made.
        with contextlib.suppress(StopIteration):
            next(pool.__await__())
        self._pools[node] = pool
        return pool

    async def _put_right(self, node: Node, con: Any) -> None:
        """Reset what came back, unless all it did was to read: that spares a round trip.

        With ``setup`` always: what that sets is for whoever acquired it.
        """
        which = (node, con.get_server_pid())
        if which in self.unclean or self._options.get("setup"):
            self.unclean.discard(which)
            await con.reset()

    def _connect(self, node: Node, args: Any, kw: dict[str, Any]) -> Any:
        if not may_open.get():
            raise NothingOpen
        settings = {"application_name": app_name(node), **(kw.get("server_settings") or {})}
        with self.router.health.connecting(node, self._pause):
            try:
                con = await_only(asyncpg.connect(*args, **{**kw, "server_settings": settings}))
            except OSError as error:
                # A connect that takes too long is a TimeoutError, and so is a busy pool's.
                raise ConnectionError(str(error) or "it does not answer in time") from error
            try:
                await_only(self._settle(node, con))
            except BaseException:
                con.terminate()
                raise
            self.opened[node, con.get_server_pid()] = self.router.clock()
            return con

    def _pause(self, seconds: float) -> None:
        await_only(self.router.runtime.tasks.sleep(seconds))

    async def _settle(self, node: Node, con: Any) -> None:
        """Ask a new connection's server what it is, before anything is trusted to it."""
        await self.probe(node, con)
        self.version = con.get_server_version()
        path, server = self.config.search_path, self.router.servers.get(node)
        if server is not None and self.config.begins_in(server) != path:
            found = await con.fetchval("SELECT current_setting('search_path')")
            check_search_path(path, found, str(node))

    async def connect_session_url(self, node: Node) -> Any:
        """A new connection to `node`, the primary, by ``session_url``; None without one.

        Raises:
            SessionRefused: none of its hosts is the primary.
        """
        problem, cause = "", None
        for server in self.config.sessions():
            try:
                con = await asyncpg.connect(**self._arguments(server))
            except _UNREACHABLE as error:
                problem, cause = masked(" ".join(str(error).split())), error
                continue
            try:
                problem = stranger(await self._report(node, con), node, self.router.snapshot)
                if not problem:
                    if init := self._options.get("init"):
                        await init(con)
                    return con
            except BaseException:
                con.terminate()
                raise
            await con.close()
        if problem:
            raise not_the_primary(problem, node) from cause
        return None

    async def probe(self, node: Node, con: Any) -> None:
        """Probe `node` over `con`, and tell the Router.

        Raises:
            asyncpg.PostgresError: the connection is lost.
        """
        found = await self._report(node, con)
        if found is not None:
            self.router.observe(found)

    async def _report(self, node: Node, con: Any) -> Report | None:
        for sql in (PROBE_SQL, ROLE_SQL):
            started = self.router.clock()
            try:
                row = await con.fetchrow(sql)
            except asyncpg.PostgresError:
                if con.is_closed():
                    raise
                continue
            return report(node.name, started, tuple(row))
        return None

    def retire(self, node: Node) -> None:
        """Let a node that left go; what is in use is closed when it comes back. Any thread."""
        pool, loop = self._pools.pop(node, None), self._router_loop
        if pool is not None and loop is not None and not loop.is_closed():
            asyncio.run_coroutine_threadsafe(pool.close(), loop)

    def checkedout(self) -> int:
        """Connections in use, all nodes together."""
        return sum(use.busy for use in self.use().values())

    def use(self) -> dict[Node, Use]:
        """The connections to each node."""
        found = {}
        for node, pool in self._pools.copy().items():
            idle = pool.get_idle_size()
            found[node] = Use(pool.get_size() - idle, idle)
        return found

    def _sum(self, method: str) -> int:
        return sum(getattr(pool, method)() for pool in list(self._pools.values()))

    def get_size(self) -> int:
        """Open connections, all nodes together."""
        return self._sum("get_size")

    def get_idle_size(self) -> int:
        """Open connections nobody uses, all nodes together."""
        return self._sum("get_idle_size")

    def get_init_size(self) -> int:
        """Connections each node's pool opens at the start."""
        return int(self._options["min_size"])

    def get_min_size(self) -> int:
        """Connections each node's pool opens at the start."""
        return int(self._options["min_size"])

    def get_max_size(self) -> int:
        """Connections each node's pool may have."""
        return int(self._options["max_size"])

    # -- connections and statements ------------------------------------------------------------

    def acquire(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, *, timeout: float | None = None
    ) -> Acquiring:
        """A routed connection, to be awaited or entered with ``async with``.

        Args:
            timeout: seconds each statement may wait for a connection of its node's pool.

        Raises:
            PoolClosed: the pool is closed, once awaited.
        """
        return Acquiring(self, timeout)

    async def connection(self, timeout: float | None = None) -> Connection:
        """What `acquire` gives when it is awaited."""
        if self._closing:
            raise PoolClosed("the pool is closed: make another one")
        self._same_loop()
        connection = Connection(self, timeout)
        self._lent.add(connection)
        return connection

    async def release(self, connection: Any, *, timeout: float | None = None) -> None:
        """Take a connection back; what is open on it is rolled back.

        Raises:
            asyncpg.InterfaceError: it is another pool's.
        """
        if not isinstance(connection, Connection) or connection._pool is not self:
            raise asyncpg.InterfaceError(f"{connection!r} is not a connection of this pool")
        if not connection._routed.open:
            return
        if timeout is None:
            await connection._close()
        else:
            await asyncio.wait_for(connection._close(), timeout)

    async def _one(self, method: str, *args: Any, **kw: Any) -> Any:
        connection = await self.connection()
        try:
            return await getattr(connection, method)(*args, **kw)
        finally:
            await connection._close()

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        """As `Connection.execute`, on a connection of the pool."""
        return str(await self._one("execute", query, *args, timeout=timeout))

    async def executemany(self, command: str, args: Any, *, timeout: float | None = None) -> None:
        """As `Connection.executemany`, on a connection of the pool."""
        await self._one("executemany", command, args, timeout=timeout)

    async def fetch(self, query: str, *args: Any, **kw: Any) -> Any:
        """As `Connection.fetch`, on a connection of the pool."""
        return await self._one("fetch", query, *args, **kw)

    async def fetchrow(self, query: str, *args: Any, **kw: Any) -> Any:
        """As `Connection.fetchrow`, on a connection of the pool."""
        return await self._one("fetchrow", query, *args, **kw)

    async def fetchval(self, query: str, *args: Any, **kw: Any) -> Any:
        """As `Connection.fetchval`, on a connection of the pool."""
        return await self._one("fetchval", query, *args, **kw)

    async def fetchmany(self, query: str, args: Any, **kw: Any) -> Any:
        """As `Connection.fetchmany`, on a connection of the pool."""
        return await self._one("fetchmany", query, args, **kw)

    async def copy_from_query(self, query: str, *args: Any, **kw: Any) -> str:
        """As `Connection.copy_from_query`, on a connection of the pool."""
        return str(await self._one("copy_from_query", query, *args, **kw))

    async def copy_from_table(self, table_name: str, **kw: Any) -> str:
        """As `Connection.copy_from_table`, on a connection of the pool."""
        return str(await self._one("copy_from_table", table_name, **kw))

    async def copy_to_table(self, table_name: str, **kw: Any) -> str:
        """As `Connection.copy_to_table`, on a connection of the pool."""
        return str(await self._one("copy_to_table", table_name, **kw))

    async def copy_records_to_table(self, table_name: str, **kw: Any) -> str:
        """As `Connection.copy_records_to_table`, on a connection of the pool."""
        return str(await self._one("copy_records_to_table", table_name, **kw))


_CONNECTING = frozenset(inspect.signature(asyncpg.connect).parameters) - {"dsn"}
_KNOWN = (_CONNECTING | set(inspect.signature(asyncpg.create_pool).parameters)) - {
    "dsn",
    "connect_kwargs",
}


def _checked(config: Config, options: Mapping[str, Any]) -> dict[str, Any]:
    """What goes to each node's pool.

    Raises:
        ConfigError: an option is unknown, means nothing here, or contradicts another.
    """
    for key, instead in _SQLALCHEMYS.items():
        if getattr(config, key) not in (None, False):
            raise ConfigError(f"{key}: asyncpg's pools have {instead}: use that")
    for key in options:
        if key in _OURS:
            raise ConfigError(
                f"{key}: the router says for each node where to connect: leave it out"
            )
        if key not in _KNOWN:
            near = did_you_mean(key, (*OPTIONS, *_KNOWN))
            raise ConfigError(f"unknown option {key!r}{near}")
    found = {"min_size": 10, "max_size": 10, **options}
    if config.max_connections is not None:
        if "max_size" in options:
            raise ConfigError(
                "max_size: max_connections sizes the pools already: leave one of them out"
            )
        found["max_size"] = int(config.pool_options()["pool_size"])
        found["min_size"] = min(found["min_size"], found["max_size"])
    if not 0 <= found["min_size"] <= found["max_size"] or not found["max_size"]:
        raise ConfigError("min_size: expected 0 <= min_size <= max_size, and max_size above 0")
    return found


def create_pool(dsn: str | Config | None = None, replicas: object = (), **options: Any) -> Pool:
    """A pool whose reads go to replicas and whose writes go to the primary.

    Args:
        dsn: the primary's, such as ``postgresql://user:password@host/dbname``; or a whole
            `Config`; or None, with ``host``, ``port``, ``user``, ``password`` and ``database``.
        replicas: URLs, ``host:port`` texts, or mappings of what differs from the primary.
        **options: those of `router.config.Config` and those of `asyncpg.create_pool`, which hold
            for each node's pool.

    Raises:
        ConfigError: an option is unknown or malformed; names it and the cure.
    """
    ours = {key: options.pop(key) for key in list(options) if key in OPTIONS}
    own = {ADDRESS[key]: options.pop(key) for key in list(options) if key in ADDRESS}
    if isinstance(dsn, Config):
        if replicas:
            ours["replicas"] = replicas
        return Pool(dsn.but(**ours) if ours else dsn, **options)
    said: dict[str, object] = {"url": dsn, **own} if dsn else own
    if replicas:
        said["replicas"] = replicas
    return Pool(Config.from_mapping(said, **ours), **options)
