"""The asynchronous pool in a simulation: psycopg's asynchronous connections, and a bridge by which
simulated users, which are threads, use a pool that lives on its process's event loop."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any, ClassVar, Self

from psycopg import IsolationLevel

from tests.simulation.driver import SimConnection, SimCursor
from tests.simulation.scheduler import Scheduler, SimEvent, SimLoop


async def threaded(call: Callable[[], Any]) -> Any:
    """What `call`, which waits as a thread does, returns."""
    return await asyncio.get_running_loop().run_in_executor(None, call)


class SimAsyncConnection:
    """A connection as psycopg's asynchronous one, over one that blocks a simulated thread."""

    blocking: ClassVar[type[SimConnection]]

    def __init__(self, sync: SimConnection) -> None:
        self.sync = sync
        self.pgconn = sync.pgconn
        self.info = sync.info
        self.prepare_threshold: int | None = 5

    @classmethod
    async def connect(cls, conninfo: str = "", **kwargs: Any) -> Self:
        """As psycopg's."""
        return cls(await threaded(lambda: cls.blocking.connect(conninfo, **kwargs)))

    def __getattr__(self, key: str) -> Any:
        if key in ("closed", "broken", "fileno", "line", "status", "autocommit", "read_only",
                   "isolation_level", "deferrable"):  # fmt: skip
            return getattr(self.sync, key)
        raise AttributeError(key)

    def cursor(self, name: str = "", **_: Any) -> "SimAsyncCursor":
        """As psycopg's."""
        return SimAsyncCursor(self.sync.cursor())

    async def execute(self, sql: Any, params: Any = None, **_: Any) -> "SimAsyncCursor":
        """As psycopg's."""
        return await self.cursor().execute(sql, params)

    async def commit(self) -> None:
        """As psycopg's."""
        await threaded(self.sync.commit)

    async def rollback(self) -> None:
        """As psycopg's."""
        await threaded(self.sync.rollback)

    async def close(self) -> None:
        """As psycopg's."""
        self.sync.close()

    async def set_autocommit(self, value: bool) -> None:
        """As psycopg's."""
        self.sync.autocommit = value

    async def set_isolation_level(self, value: IsolationLevel | None) -> None:
        """As psycopg's."""
        self.sync.isolation_level = value

    async def set_read_only(self, value: bool | None) -> None:
        """As psycopg's."""
        self.sync.read_only = value

    async def set_deferrable(self, value: bool | None) -> None:
        """As psycopg's."""
        self.sync.deferrable = value


class SimAsyncCursor:
    """A cursor as psycopg's asynchronous one."""

    def __init__(self, sync: SimCursor) -> None:
        self.sync = sync

    def __getattr__(self, key: str) -> Any:
        return getattr(self.sync, key)

    async def execute(self, sql: Any, params: Any = None, **_: Any) -> Self:
        """As psycopg's."""
        await threaded(lambda: self.sync.execute(sql, params))
        return self

    async def fetchone(self) -> Any:
        """As psycopg's."""
        return self.sync.fetchone()

    async def close(self) -> None:
        """As psycopg's."""
        self.sync.close()


class Bridge:
    """An event loop in a thread of its own, and the way to it for other threads."""

    def __init__(self, scheduler: Scheduler, name: str) -> None:
        self._scheduler = scheduler
        self._loop = SimLoop(scheduler)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._thread = scheduler.spawn(self._run, name)

    def _run(self) -> None:
        asyncio.set_event_loop(None)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    def call(self, make: Callable[[], Any]) -> Any:
        """What the coroutine that `make` gives returns, awaited by a task of the loop's in the
        caller's context."""
        over = SimEvent(self._scheduler)
        told: dict[str, Any] = {}

        async def run() -> None:
            try:
                told["result"] = await make()
            except BaseException as error:
                told["error"] = error
            finally:
                over.set()

        def start() -> None:
            task = self._loop.create_task(run())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        self._loop.call_soon_threadsafe(start, context=copy_context())
        over.wait()
        if "error" in told:
            raise told["error"]
        return told["result"]

    def stop(self) -> None:
        """End the loop."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10.0)


class BridgedPool:
    """An asynchronous pool as threads see it."""

    def __init__(self, pool: Any, bridge: Bridge) -> None:
        self._pool = pool
        self._bridge = bridge
        bridge.call(pool.open)

    def __getattr__(self, key: str) -> Any:
        return getattr(self._pool, key)

    @contextmanager
    def connection(self) -> Iterator["BridgedConnection"]:
        """As the pool's."""
        bridge, lease = self._bridge, self._pool.connection()
        real = bridge.call(lease.__aenter__)
        try:
            yield BridgedConnection(real, bridge)
        except BaseException as error:
            kind, raised = type(error), error
            bridge.call(lambda: lease.__aexit__(kind, raised, raised.__traceback__))
            raise
        else:
            bridge.call(lambda: lease.__aexit__(None, None, None))

    def getconn(self) -> "BridgedConnection":
        """As the pool's."""
        return BridgedConnection(self._bridge.call(self._pool.getconn), self._bridge)

    def putconn(self, connection: "BridgedConnection") -> None:
        """As the pool's."""
        self._bridge.call(lambda: self._pool.putconn(connection.real))

    def close(self) -> None:
        """As the pool's, and the loop's end."""
        self._bridge.call(self._pool.close)
        self._bridge.stop()


class BridgedConnection:
    """An asynchronous connection as threads see it."""

    real: Any
    _bridge: Bridge

    def __init__(self, real: Any, bridge: Bridge) -> None:
        self.__dict__["real"] = real
        self.__dict__["_bridge"] = bridge

    def __setattr__(self, key: str, value: Any) -> None:
        setter = getattr(self.real, f"set_{key}")
        self._bridge.call(lambda: setter(value))

    def execute(self, sql: str, params: Any = None) -> "BridgedCursor":
        """As the connection's."""
        cursor = self._bridge.call(lambda: self.real.execute(sql, params))
        return BridgedCursor(cursor, self._bridge)

    def commit(self) -> None:
        """As the connection's."""
        self._bridge.call(self.real.commit)

    def rollback(self) -> None:
        """As the connection's."""
        self._bridge.call(self.real.rollback)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """As the connection's."""
        bridge, block = self._bridge, self.real.transaction()
        bridge.call(block.__aenter__)
        try:
            yield
        except BaseException as error:
            kind, raised = type(error), error
            if not bridge.call(lambda: block.__aexit__(kind, raised, raised.__traceback__)):
                raise
        else:
            bridge.call(lambda: block.__aexit__(None, None, None))


class BridgedCursor:
    """An asynchronous cursor as threads see it."""

    def __init__(self, real: Any, bridge: Bridge) -> None:
        self._real = real
        self._bridge = bridge

    def __getattr__(self, key: str) -> Any:
        return getattr(self._real, key)

    def fetchone(self) -> Any:
        """As the cursor's."""
        return self._bridge.call(self._real.fetchone)
