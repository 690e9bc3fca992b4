"""The router as a pool like asyncpg's: one real pool per node behind it."""

import asyncio
import contextlib
from collections.abc import Generator
from typing import Any, NoReturn, Self

import asyncpg

from router import registry
from router.asyncpg.connection import Acquiring, Connection
from router.asyncpg.errors import PoolClosed
from router.asyncpg.node_connection import DRIVER_ERRORS
from router.asyncpg.options import ADDRESS
from router.asyncpg.source import AsyncpgConnector
from router.config.config import Config
from router.config.options import OPTIONS
from router.errors import ConfigError, NoReplicaAvailable
from router.greenlets import require
from router.model import Node


class Pool(AsyncpgConnector, asyncpg.Pool):
    """A pool of routed connections; its options hold for each node's asyncpg pool.

    It is an `asyncpg.Pool` for whoever asks; each of that class's methods is its own.
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
        self._lent: set[Connection] = set()
        self._all_back: asyncio.Event | None = None
        super().__init__(config, options)

    def __repr__(self) -> str:
        closed = "closed " if self.closing else ""
        return f"<router.asyncpg.Pool {closed}{self.router!r}>"

    def __await__(self) -> Generator[Any, None, Self]:
        return self._open().__await__()

    async def _open(self) -> Self:
        if self.closing:
            raise PoolClosed("the pool is closed: make another one")
        self._same_loop()
        try:
            await asyncio.to_thread(self.router.start)
            # Each is awaited to its end, so that no task goes on after another has failed.
            warming = (self._warm(node) for node in list(self.router.servers))
            for found in await asyncio.gather(*warming, return_exceptions=True):
                if isinstance(found, BaseException):
                    raise found
        except BaseException:
            # The caller gets an error in place of a pool, and so has none to close.
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
        self.closing = True
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
        self.closing = self._closed = True
        for pool in self._pools.values():
            pool.terminate()
        for connection in list(self._lent):
            self.returned(connection)

    def returned(self, connection: Connection) -> None:
        """Note that `connection` is back, or that nobody waits for it any more."""
        self._lent.discard(connection)
        if not self._lent and self._all_back is not None:
            self._all_back.set()

    async def expire_connections(self) -> None:
        """Replace every connection that is open now, those in use when they come back."""
        for pool in list(self._pools.values()):
            await pool.expire_connections()

    def is_closing(self) -> bool:
        """Whether it was closed, or is being closed."""
        return self.closing

    def set_connect_args(self, *args: Any, **kw: Any) -> NoReturn:
        """Refused: nodes are added and removed by the Router."""
        raise asyncpg.UnsupportedClientFeatureError(
            "set_connect_args: use pool.router.add_replica() and remove_replica()"
        )

    def checkedout(self) -> int:
        """Connections in use, all nodes together."""
        return sum(use.busy for use in self.use().values())

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

    get_init_size = get_min_size

    def get_max_size(self) -> int:
        """Connections each node's pool may have."""
        return int(self._options["max_size"])

    def after_fork(self) -> None:
        """As the base class has it; what is lent is the parent's."""
        super().after_fork()
        registry.leave_to_parent(self._lent)
        self._lent, self._all_back = set(), None

    def acquire(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, *, timeout: float | None = None
    ) -> Acquiring:
        """A routed connection, to be awaited or entered with ``async with``; each statement may
        wait `timeout` seconds for a connection of its node's pool.

        Raises:
            PoolClosed: the pool is closed, once awaited.
        """
        return Acquiring(self, timeout)

    async def connection(self, timeout: float | None = None) -> Connection:
        """What `acquire`, with that `timeout`, gives when it is awaited."""
        if self.closing:
            raise PoolClosed("the pool is closed: make another one")
        self._same_loop()
        connection = Connection(self, timeout)
        self._lent.add(connection)
        return connection

    async def release(self, connection: Any, *, timeout: float | None = None) -> None:
        """Take `connection` back, within `timeout` seconds; what is open on it is rolled back.

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
    own = {
        ADDRESS[key]: options.pop(key)
        for key in list(options)
        if key in ADDRESS and not (key == "password" and callable(options[key]))
    }
    if isinstance(dsn, Config):
        if replicas:
            ours["replicas"] = replicas
        return Pool(dsn.but(**ours) if ours else dsn, **options)
    said: dict[str, object] = {"url": dsn, **own} if dsn else own
    if replicas:
        said["replicas"] = replicas
    return Pool(Config.from_mapping(said, **ours), **options)
