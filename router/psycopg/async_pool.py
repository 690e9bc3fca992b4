"""The same pool for event loops: a real AsyncConnectionPool of psycopg_pool for each node."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Self

import psycopg
import psycopg_pool

from router.errors import RouterError
from router.greenlets import await_only, greenlet_spawn, require
from router.model import Node
from router.psycopg import blocking
from router.psycopg.async_connection import AsyncConnection
from router.psycopg.blocking import BlockingConnection, BlockingPool
from router.psycopg.errors import PoolTimeout
from router.psycopg.node_connection import ConnectionRecord, still_waits
from router.psycopg.pool import ConnInfo, Kwargs, RoutedPool, full, silent
from router.psycopg.source import POOL_TIMEOUT, line_of

CLOSING = 5.0
"""Seconds for the workers of a pool that was retired to end; psycopg_pool's own for ``close``."""


class AsyncConnectionPool(RoutedPool):
    """`psycopg_pool.AsyncConnectionPool` whose reads go to replicas, and writes to the primary.

    It has one pool of psycopg_pool for each node; every size and hook holds for each of them. It
    belongs to the event loop it was opened in.

    Example:
        >>> async def main():
        ...     url = "postgresql://app@db1/shop"
        ...     async with AsyncConnectionPool(url, replicas=["db2", "db3"]) as pool:
        ...         async with pool.connection() as connection:
        ...             cursor = await connection.execute("SELECT count(*) FROM item")
        ...             return await cursor.fetchone()
    """

    _pool_class: Any = psycopg_pool.AsyncConnectionPool
    _connection_class: Any = psycopg.AsyncConnection
    check_connection: Callable[[psycopg.AsyncConnection[Any]], Awaitable[None]] = staticmethod(
        psycopg_pool.AsyncConnectionPool.check_connection
    )

    def __init__(
        self, conninfo: ConnInfo = "", *, replicas: object = (),
        kwargs: Kwargs = None, min_size: int = 4, max_size: int | None = None,
        open: bool = False,  # noqa: A002 - psycopg_pool's own name
        configure: Callable[[psycopg.AsyncConnection[Any]], Awaitable[None]] | None = None,
        name: str | None = None, timeout: float = POOL_TIMEOUT, **options: Any,
    ) -> None:  # fmt: skip
        """Prepare the nodes' pools; they are opened by `open`, or by ``async with``.

        Args:
            conninfo: as `router.psycopg.ConnectionPool` has it; and so are `replicas`, `kwargs`,
                `min_size`, `max_size`, `name`, `timeout` (seconds) and the `options`.
            open: True opens with the first connection that is asked for.
            configure: awaited with each new psycopg connection.

        Raises:
            ConfigError: as there.
        """
        require("AsyncConnectionPool")
        super().__init__(
            conninfo, replicas, kwargs, min_size, max_size, configure, name, timeout, options
        )
        self._retiring: set[Future[None]] = set()
        self._open_when_used: bool = open
        self._checks: bool = self._options.get("check") is not None

    async def open(self, wait: bool = False, timeout: float = 30.0) -> None:
        """As `router.psycopg.ConnectionPool.open`, in the event loop that it belongs to from then
        on; `wait` waits `timeout` seconds for each node that answers to have its connections.

        Raises:
            PoolClosed: it was closed before.
            PoolTimeout: as `wait`.
        """
        self._begin()
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        self._same_loop()
        for node in list(self.router.servers):
            await greenlet_spawn(self.node_pool, node)
        if wait:
            await self.wait(timeout)

    async def wait(self, timeout: float = 30.0) -> None:
        """As `router.psycopg.ConnectionPool.wait`, for `timeout` seconds. Raises PoolTimeout."""
        self._must_be_open()
        until = self.router.clock() + timeout
        await asyncio.to_thread(self.router.start)
        waiting = set(self.router.servers)
        while waiting and self.router.clock() < until:
            stats = self.get_node_stats()
            waiting = {n for n in waiting if not full(stats.get(n.name, {}), self.min_size)}
            if all(silent(self.router, n) for n in waiting):
                return
            await self.router.runtime.tasks.sleep(0.02)
        if len(waiting) == len(self.router.servers):
            await self.close()
            raise PoolTimeout(self.empty(waiting, timeout))

    async def close(self, timeout: float = 5.0) -> None:
        """As `router.psycopg.ConnectionPool.close`, with `timeout` seconds for each pool's
        worker tasks."""
        self._closed = True
        for node in list(self._pools):
            pool = self._pools.pop(node)
            self.shut(node, pool)
            await pool.real.close(timeout=timeout)
        # Their workers may still be connecting, and would be left behind by the event loop.
        for closing in list(self._retiring):
            with suppress(Exception):
                await asyncio.wrap_future(closing)
        await asyncio.to_thread(self.router.close)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def resize(self, min_size: int, max_size: int | None = None) -> None:
        """Change `min_size` and `max_size` of each node's pool."""
        for pool in self.resized(min_size, max_size):
            await pool.real.resize(self.min_size, self.max_size)

    async def check(self) -> None:
        """Ask every idle connection whether it lives; replace those that do not."""
        for pool in list(self._pools.values()):
            await pool.real.check()

    async def drain(self) -> None:
        """Replace every connection, those in use when they come back; since psycopg_pool 3.3."""
        for pool in list(self._pools.values()):
            await pool.real.drain()

    # Names of psycopg_pool's own that Procrastinate asks for, to listen.

    async def _resolve_conninfo(self) -> str:
        return await greenlet_spawn(lambda: self.conninfo)

    async def _resolve_kwargs(self) -> dict[str, Any]:
        return await greenlet_spawn(lambda: self.kwargs)

    def _named(self, node: Node) -> Any:
        """As the base class has it."""
        if not self.renews:
            return self.named(node)

        async def make() -> dict[str, Any]:
            return await greenlet_spawn(self._made_anew, node)

        return make

    def connection(self, timeout: float | None = None) -> "AsyncLease":
        """As `router.psycopg.ConnectionPool.connection`, for an ``async with`` block; each
        statement may wait `timeout` seconds for its node's pool.

        Raises:
            PoolClosed: the pool is closed, or not open yet.
        """
        return AsyncLease(self, timeout)

    async def getconn(self, timeout: float | None = None) -> AsyncConnection:
        """A routed connection, to be given back by `putconn`. As `connection`."""
        if self._open_when_used and not self._opened:
            await self.open()
        self._must_be_open()
        timeout = self.timeout if timeout is None else timeout
        if not self._learnt or self.server_isolation is None:
            await self._look(timeout)
        return AsyncConnection(self, timeout)

    async def putconn(self, connection: AsyncConnection) -> None:
        """Take a connection back; what is open on it is rolled back.

        Raises:
            ValueError: it is another pool's.
        """
        routed = getattr(connection, "routed", None)
        self._must_be_mine(getattr(routed, "pool", None), connection)
        await connection.close()

    async def _look(self, timeout: float) -> None:
        """As `router.psycopg.ConnectionPool` has it."""
        first = AsyncConnection(self, timeout)
        try:
            with suppress(psycopg.Error, RouterError):
                await greenlet_spawn(getattr, first.routed, "any")
        finally:
            await first.close()

    def dial(self, arguments: dict[str, Any]) -> Any:
        """As the base class has it, waited for."""
        return blocking.dial(arguments)

    def start_router(self) -> None:
        """Start the Router, while the event loop runs on."""
        await_only(asyncio.to_thread(self.router.start))

    def configure(self, connection: Any) -> None:
        """As the base class has it."""
        if self._configure is not None:
            connection.autocommit = self._autocommit
            await_only(self._configure(connection.real))
        self.prepared(connection)

    def aside(self, call: Callable[[], object]) -> None:
        """As the base class has it: in a task of the event loop."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(blocking.beside, call)

    def node_pool(self, node: Node) -> Any:
        """As the base class has it; called in a greenlet."""
        pool = self._pools.get(node)
        if pool is None:

            async def admit(connection: Any) -> None:
                await greenlet_spawn(self.admitted, node, BlockingConnection(connection))

            made = BlockingPool(self._made(node, admit))
            made.open()
            pool = self._pools.get(node)
            if pool is None:
                pool = made
                self._pools[node] = made
            else:
                made.close()  # another task has made it meanwhile
            if node not in self.router.servers:
                self.retire(node)
        return pool

    def idle_connection(
        self, node: Node, trusted: Callable[[ConnectionRecord], bool]
    ) -> ConnectionRecord | None:
        """As the base class has it."""
        pool = self._pools.get(node)
        if pool is None or self._checks:
            return None

        def known(connection: Any) -> bool:
            line = line_of(connection)
            return line is not None and trusted(line)

        taken = pool.idle_connection(known)
        return None if taken is None else line_of(taken)

    def retire(self, node: Node) -> None:
        """As the base class has it."""
        pool, loop = self._pools.pop(node, None), self._loop
        if pool is not None:
            self.shut(node, pool)
        if pool is not None and loop is not None and not loop.is_closed():
            closing = asyncio.run_coroutine_threadsafe(pool.real.close(timeout=CLOSING), loop)
            self._retiring.add(closing)
            closing.add_done_callback(self._retiring.discard)

    def give_up(self, node: Node, pool: Any) -> None:
        """As the base class has it."""
        loop = self._loop
        if loop is not None and any(map(still_waits, tuple(pool.real._waiting))):
            # The loop may be closed between the look and the call.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(pool.give_up, node)

    def after_fork(self) -> None:
        """As the base class has it; the child's own event loop opens it when it is used."""
        super().after_fork()
        self._loop, self._retiring = None, set()
        self._open_when_used = self._open_when_used or self._opened
        self._opened = False

    def _must_be_open(self) -> None:
        super()._must_be_open()
        self._same_loop()

    def _same_loop(self) -> None:
        if self._loop is not asyncio.get_running_loop():
            raise RuntimeError(
                f"{self.name} belongs to another event loop: open one pool in each loop"
            )


class AsyncLease:
    """What `AsyncConnectionPool.connection` gives, to be entered by ``async with``."""

    __slots__ = ("_connection", "_pool", "_timeout")

    def __init__(self, pool: AsyncConnectionPool, timeout: float | None) -> None:
        self._pool: AsyncConnectionPool = pool
        self._timeout: float | None = timeout

    async def __aenter__(self) -> AsyncConnection:
        self._connection: AsyncConnection = await self._pool.getconn(self._timeout)
        return self._connection

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            await self._connection.leave(kind)
        finally:
            await self._connection.close()
