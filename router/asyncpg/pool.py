"""The router as a pool of asyncpg's: one real pool per node behind it."""

import asyncio
import contextlib
from collections.abc import Generator
from typing import Any, Self
from urllib.parse import urlencode

import asyncpg
from sqlalchemy.util import await_only, greenlet_spawn

from router.asyncpg.connection import DRIVER_ERRORS, Connection
from router.config import OPTIONS, Config
from router.core import Router
from router.errors import NoReplicaAvailable
from router.model import Node
from router.monitor import Monitor
from router.probe import PROBE_SQL, ROLE_SQL, report


class Pool:
    """A pool of routed connections; its options hold for each node's pool of asyncpg's."""

    def __init__(self, config: Config, **options: Any) -> None:
        """Prepare; nothing is opened before it is awaited or entered, or first used.

        Args:
            config: which servers, and how to route.
            **options: as `asyncpg.create_pool` takes them, for each node's pool.
        """
        self.config: Config = config
        self.router: Router = Router(config)
        self._options: dict[str, Any] = {"min_size": 10, "max_size": 10, **options}
        self._pools: dict[Node, Any] = {}
        self._closing = False
        router = self.router
        router.watch(Monitor(router, lambda n: config.libpq() | router.servers[n].connect_args()))
        router.attach(self)

    def __repr__(self) -> str:
        return f"<router.asyncpg.Pool {self.router!r}>"

    # -- its life ------------------------------------------------------------------------------

    def __await__(self) -> Generator[Any, None, Self]:
        return self._open().__await__()

    async def _open(self) -> Self:
        await asyncio.to_thread(self.router.start)
        await asyncio.gather(*(self._warm(node) for node in self.router.servers))
        return self

    async def _warm(self, node: Node) -> None:
        """Open the ``min_size`` connections; a node that is down gets its own later."""
        pool = self.node_pool(node)
        with contextlib.suppress(NoReplicaAvailable, *DRIVER_ERRORS):
            taken = await asyncio.gather(
                *(pool.acquire() for _ in range(self._options["min_size"])),
                return_exceptions=True,
            )
            for con in taken:
                if not isinstance(con, BaseException):
                    await pool.release(con)

    async def __aenter__(self) -> Self:
        return await self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Wait for the connections in use to come back, close all, and stop the monitor."""
        self._closing = True
        await asyncio.gather(*(pool.close() for pool in self._pools.values()))
        await asyncio.to_thread(self.router.close)

    def terminate(self) -> None:
        """Close all connections at once, without waiting for those in use."""
        self._closing = True
        for pool in self._pools.values():
            pool.terminate()
        self.router.close()

    async def expire_connections(self) -> None:
        """Replace every connection that is open now, those in use when they come back."""
        for pool in list(self._pools.values()):
            await pool.expire_connections()

    def is_closing(self) -> bool:
        """Whether it was closed, or is being closed."""
        return self._closing

    # -- nodes ---------------------------------------------------------------------------------

    def node_pool(self, node: Node) -> Any:
        """The pool of asyncpg's for `node`, made when first asked for.

        Raises:
            asyncpg.InterfaceError: this pool is closed.
        """
        if self._closing:
            raise asyncpg.InterfaceError("pool is closed: make another one")
        pool = self._pools.get(node)
        if pool is None:
            server = self.router.servers.get(node)
            if server is None:
                raise NoReplicaAvailable(f"{node} has left the cluster: try again")
            arguments: dict[str, Any] = {"timeout": self.config.connect_timeout}
            if self.config.unprepared(server):
                arguments["statement_cache_size"] = 0
            query = f"?{urlencode(server.params)}" if server.params else ""
            for ours, theirs in (
                ("user", "user"),
                ("password", "password"),
                ("dbname", "database"),
            ):
                if given := getattr(server, ours):
                    arguments[theirs] = given

            async def connect(*args: Any, **kw: Any) -> Any:
                return await greenlet_spawn(self._connect, node, args, kw)

            pool = asyncpg.create_pool(
                f"postgresql:///{query}",
                host=server.host,
                port=server.port,
                connect=connect,
                **{**arguments, **self._options, "min_size": 0},
            )
            # With nothing to open yet it gets ready in one step, so that no other task meets it
            # half made.
            with contextlib.suppress(StopIteration):
                next(pool.__await__())
            self._pools[node] = pool
        return pool

    def _connect(self, node: Node, args: Any, kw: dict[str, Any]) -> Any:
        with self.router.connecting(node, lambda s: await_only(asyncio.sleep(s))):
            try:
                con = await_only(asyncpg.connect(*args, **kw))
            except OSError as error:
                # A connect that takes too long is a TimeoutError, and so is a busy pool's.
                raise ConnectionError(str(error) or "it does not answer in time") from error
            try:
                await_only(self.probe(node, con))
            except BaseException:
                con.terminate()
                raise
            return con

    async def probe(self, node: Node, con: Any) -> None:
        """Probe `node` over `con`, and tell the Router.

        Raises:
            asyncpg.PostgresError: the connection is lost.
        """
        for sql in (PROBE_SQL, ROLE_SQL):
            started = self.router.clock()
            try:
                row = await con.fetchrow(sql)
            except asyncpg.PostgresError:
                if con.is_closed():
                    raise
                continue
            self.router.observe(report(node.name, started, tuple(row)))
            return

    def retire(self, node: Node) -> None:
        """Let a node that left go; what is in use is closed when it comes back. Any thread."""
        pool = self._pools.pop(node, None)
        loop = getattr(pool, "_loop", None)
        if pool is not None and loop is not None and not loop.is_closed():
            asyncio.run_coroutine_threadsafe(pool.close(), loop)

    def checkedout(self) -> int:
        """Connections in use, all nodes together."""
        return self.get_size() - self.get_idle_size()

    def _sum(self, method: str) -> int:
        return sum(getattr(pool, method)() for pool in list(self._pools.values()))

    def get_size(self) -> int:
        """Open connections, all nodes together."""
        return self._sum("get_size")

    def get_idle_size(self) -> int:
        """Open connections nobody uses, all nodes together."""
        return self._sum("get_idle_size")

    def get_min_size(self) -> int:
        """Connections each node's pool opens at the start."""
        return int(self._options["min_size"])

    def get_max_size(self) -> int:
        """Connections each node's pool may have."""
        return int(self._options["max_size"])

    # -- connections and statements ------------------------------------------------------------

    def acquire(self, *, timeout: float | None = None) -> "Acquiring":
        """A routed connection, to be awaited or entered with ``async with``.

        Args:
            timeout: seconds each statement may wait for a connection of its node's pool.
        """
        return Acquiring(self, timeout)

    async def release(self, connection: Connection, *, timeout: float | None = None) -> None:
        """Take a connection back; what is open on it is rolled back."""
        await asyncio.wait_for(connection._close(), timeout)

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        """As `Connection.execute`, on a connection of the pool."""
        async with self.acquire() as con:
            return await con.execute(query, *args, timeout=timeout)

    async def executemany(self, command: str, args: Any, *, timeout: float | None = None) -> None:
        """As `Connection.executemany`, on a connection of the pool."""
        async with self.acquire() as con:
            await con.executemany(command, args, timeout=timeout)

    async def fetch(self, query: str, *args: Any, **kw: Any) -> Any:
        """As `Connection.fetch`, on a connection of the pool."""
        async with self.acquire() as con:
            return await con.fetch(query, *args, **kw)

    async def fetchrow(self, query: str, *args: Any, **kw: Any) -> Any:
        """As `Connection.fetchrow`, on a connection of the pool."""
        async with self.acquire() as con:
            return await con.fetchrow(query, *args, **kw)

    async def fetchval(self, query: str, *args: Any, **kw: Any) -> Any:
        """As `Connection.fetchval`, on a connection of the pool."""
        async with self.acquire() as con:
            return await con.fetchval(query, *args, **kw)

    async def copy_from_query(self, query: str, *args: Any, **kw: Any) -> str:
        """As `Connection.copy_from_query`, on a connection of the pool."""
        async with self.acquire() as con:
            return await con.copy_from_query(query, *args, **kw)

    async def copy_from_table(self, table_name: str, **kw: Any) -> str:
        """As `Connection.copy_from_table`, on a connection of the pool."""
        async with self.acquire() as con:
            return await con.copy_from_table(table_name, **kw)

    async def copy_to_table(self, table_name: str, **kw: Any) -> str:
        """As `Connection.copy_to_table`, on a connection of the pool."""
        async with self.acquire() as con:
            return await con.copy_to_table(table_name, **kw)

    async def copy_records_to_table(self, table_name: str, **kw: Any) -> str:
        """As `Connection.copy_records_to_table`, on a connection of the pool."""
        async with self.acquire() as con:
            return await con.copy_records_to_table(table_name, **kw)


class Acquiring:
    """What `Pool.acquire` returns: awaited or entered, it is a connection."""

    __slots__ = ("_connection", "_pool", "_timeout")

    def __init__(self, pool: Pool, timeout: float | None) -> None:
        self._pool: Pool = pool
        self._timeout: float | None = timeout
        self._connection: Connection | None = None

    def __await__(self) -> Generator[Any, None, Connection]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> Connection:
        if self._pool.is_closing():
            raise asyncpg.InterfaceError("pool is closed: make another one")
        self._connection = Connection(self._pool, self._timeout)
        return self._connection

    async def __aexit__(self, *exc: object) -> None:
        if self._connection is not None:
            await self._pool.release(self._connection)


def create_pool(dsn: str | Config, replicas: object = (), **options: Any) -> Pool:
    """A pool whose reads go to replicas and whose writes go to the primary.

    Args:
        dsn: the primary's, such as ``postgresql://user:password@host/dbname``; or a whole
            `Config`.
        replicas: URLs, ``host:port`` texts, or mappings of what differs from the primary.
        **options: those of `router.config.Config` and those of `asyncpg.create_pool`, which hold
            for each node's pool.

    Raises:
        ConfigError: an option is unknown or malformed; names it and the cure.
    """
    ours = {key: options.pop(key) for key in list(options) if key in OPTIONS}
    if isinstance(dsn, str):
        return Pool(Config.from_url(dsn, replicas, **ours), **options)
    if replicas:
        ours["replicas"] = replicas
    return Pool(dsn.but(**ours) if ours else dsn, **options)
