"""The drivers' own pools as one small door, so that a scenario is written once for all of them.

The tests stay synchronous: an asynchronous pool runs on a loop of its own, one step at a time.
"""

import asyncio
import contextvars
import gc
import os
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import asyncpg
import psycopg
import psycopg_pool

import router.asyncpg
import router.psycopg
from router.cluster.router import Router
from tests.conftest import Database

PORT = "SELECT inet_server_port()"
TIMEOUTS = (psycopg_pool.PoolTimeout, TimeoutError)
"""What the drivers' own pools raise when nothing was free in time."""

DRIVER_ERRORS = (psycopg.Error, asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError)

Rows = list[tuple[Any, ...]]
LoopFactory = Callable[[], asyncio.AbstractEventLoop]


class Loop:
    """An event loop that runs coroutines in the caller's context, as tasks of one request are."""

    def __init__(self, factory: LoopFactory | None = None) -> None:
        self._runner = asyncio.Runner(loop_factory=factory)

    @property
    def kind(self) -> type[asyncio.AbstractEventLoop]:
        return type(self._runner.get_loop())

    def __call__(self, coroutine: Any) -> Any:
        return self._runner.run(coroutine, context=contextvars.copy_context())

    @contextmanager
    def entered(self, block: Any) -> Iterator[Any]:
        """``async with block`` as ``with``."""
        value = self(block.__aenter__())
        try:
            yield value
        except BaseException as error:
            if not self(block.__aexit__(type(error), error, error.__traceback__)):
                raise
        else:
            self(block.__aexit__(None, None, None))

    def close(self) -> None:
        self._runner.close()


class Psycopg:
    """`router.psycopg.ConnectionPool`; a connection is in autocommit unless a test says else."""

    asynchronous = False
    parameter = "%s"

    def __init__(self, url: str, **options: Any) -> None:
        options.setdefault("kwargs", {"autocommit": True})
        self.pool: Any = router.psycopg.ConnectionPool(url, min_size=1, **options)

    @property
    def router(self) -> Router:
        found: Router = self.pool.router
        return found

    def connection(self, **options: Any) -> AbstractContextManager[Any]:
        block: AbstractContextManager[Any] = self.pool.connection(**options)
        return block

    def run(self, connection: Any, sql: str) -> Rows:
        """One statement; its rows, if it has any."""
        cursor = connection.execute(sql)
        return cursor.fetchall() if cursor.description else []

    @contextmanager
    def transaction(self, connection: Any, *, read_only: bool = False) -> Iterator[None]:
        if read_only:
            connection.read_only = True
        with connection.transaction():
            yield
        if read_only:
            connection.read_only = None

    def wrote(self, name: str) -> int:
        """Insert a name; how many rows of it are read in the next transaction."""
        with self.pool.connection() as connection:
            connection.execute("INSERT INTO item (name) VALUES (%s)", [name])
            query = "SELECT count(*) FROM item WHERE name = %s"
            return int(connection.execute(query, [name]).fetchone()[0])

    def heard(self, channel: str, send: Callable[[], object]) -> list[str]:
        """What the first notification after `send` says."""
        with self.connection() as connection:
            connection.execute(f"LISTEN {channel}")
            send()
            return [n.payload for n in connection.notifies(timeout=20, stop_after=1)]

    def in_use(self) -> int:
        return int(self.pool.checkedout())

    def close(self) -> None:
        self.pool.close()


class PsycopgAsync:
    """`router.psycopg.AsyncConnectionPool`."""

    asynchronous = True
    parameter = "%s"

    def __init__(self, url: str, *, loop: LoopFactory | None = None, **options: Any) -> None:
        options.setdefault("kwargs", {"autocommit": True})
        self.loop = Loop(loop)
        self.pool: Any = router.psycopg.AsyncConnectionPool(url, min_size=1, **options)
        self.loop(self.pool.open())

    @property
    def router(self) -> Router:
        found: Router = self.pool.router
        return found

    def connection(self, **options: Any) -> AbstractContextManager[Any]:
        return self.loop.entered(self.pool.connection(**options))

    def run(self, connection: Any, sql: str) -> Rows:
        async def run() -> Rows:
            cursor = await connection.execute(sql)
            return await cursor.fetchall() if cursor.description else []

        rows: Rows = self.loop(run())
        return rows

    @contextmanager
    def transaction(self, connection: Any, *, read_only: bool = False) -> Iterator[None]:
        if read_only:
            self.loop(connection.set_read_only(True))
        with self.loop.entered(connection.transaction()):
            yield
        if read_only:
            self.loop(connection.set_read_only(None))

    async def one(self, sql: str, arguments: tuple[Any, ...] = ()) -> None:
        """One statement on a connection of its own, within the loop."""
        async with self.pool.connection() as connection:
            await connection.execute(sql, arguments)

    async def wrote(self, name: str) -> int:
        """Insert a name; how many rows of it are read in the next transaction."""
        async with self.pool.connection() as connection:
            await connection.execute("INSERT INTO item (name) VALUES (%s)", [name])
            query = "SELECT count(*) FROM item WHERE name = %s"
            return int((await (await connection.execute(query, [name])).fetchone())[0])

    def heard(self, channel: str, send: Callable[[], object]) -> list[str]:
        """What the first notification after `send` says."""

        async def hear() -> list[str]:
            async with self.pool.connection() as connection:
                await connection.execute(f"LISTEN {channel}")
                await asyncio.to_thread(send)
                return [n.payload async for n in connection.notifies(timeout=20, stop_after=1)]

        found: list[str] = self.loop(hear())
        return found

    def in_use(self) -> int:
        return int(self.pool.checkedout())

    def close(self) -> None:
        self.loop(self.pool.close())
        self.loop.close()


class Asyncpg:
    """`router.asyncpg.Pool`."""

    asynchronous = True
    parameter = "$1::int"

    def __init__(self, url: str, *, loop: LoopFactory | None = None, **options: Any) -> None:
        self.loop = Loop(loop)
        options = {"min_size": 1, "max_size": 10, **options}
        self.pool: Any = router.asyncpg.create_pool(url, **options)
        try:
            self.loop(self.pool.__aenter__())
        except BaseException:
            self.loop.close()
            raise

    @property
    def router(self) -> Router:
        found: Router = self.pool.router
        return found

    def connection(self, **options: Any) -> AbstractContextManager[Any]:
        return self.loop.entered(self.pool.acquire(**options))

    def run(self, connection: Any, sql: str) -> Rows:
        return [tuple(row) for row in self.loop(connection.fetch(sql))]

    def transaction(
        self, connection: Any, *, read_only: bool = False
    ) -> AbstractContextManager[Any]:
        return self.loop.entered(connection.transaction(readonly=read_only))

    async def one(self, sql: str, arguments: tuple[Any, ...] = ()) -> None:
        """One statement on a connection of its own, within the loop."""
        await self.pool.fetch(sql, *arguments)

    async def wrote(self, name: str) -> int:
        """Insert a name; how many rows of it are read in the next transaction."""
        await self.pool.execute("INSERT INTO item (name) VALUES ($1)", name)
        return int(await self.pool.fetchval("SELECT count(*) FROM item WHERE name = $1", name))

    def heard(self, channel: str, send: Callable[[], object]) -> list[str]:
        """What the first notification after `send` says."""

        async def hear() -> list[str]:
            heard: asyncio.Queue[str] = asyncio.Queue()
            async with self.pool.acquire() as connection:
                await connection.add_listener(channel, lambda *told: heard.put_nowait(told[3]))
                await asyncio.to_thread(send)
                return [await asyncio.wait_for(heard.get(), 20)]

        found: list[str] = self.loop(hear())
        return found

    def in_use(self) -> int:
        return int(self.pool.checkedout())

    def close(self) -> None:
        self.loop(self.pool.close())
        self.loop.close()


DOORS: dict[str, type[Psycopg] | type[PsycopgAsync] | type[Asyncpg]] = {
    "psycopg": Psycopg,
    "psycopg_async": PsycopgAsync,
    "asyncpg": Asyncpg,
}


STORM = int(os.environ.get("PG_ROUTER_STORM", "1500"))
"""Requests of `cancelled_at_random`."""


async def cancelled_at_random(
    pool: Any, database: Database, size: int, request: Callable[[Any, int], Awaitable[None]]
) -> int:
    """Run many requests and cancel three of five; how many were.

    Afterwards no connection is in use, no server has more of them than the pool's `size` and the
    monitor's, none is in a transaction, and the context around the requests owes nothing.
    """
    rng = random.Random(7)
    cancelled = 0
    with router.request_context() as around:
        for start in range(0, STORM, 50):
            tasks = [asyncio.ensure_future(request(pool, start + n)) for n in range(50)]
            for task in rng.sample(tasks, 30):
                await asyncio.sleep(rng.random() * 0.002)
                task.cancel()
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(outcome, asyncio.CancelledError):
                    cancelled += 1
                elif isinstance(outcome, BaseException):
                    raise outcome
    assert not around.pins.by_cluster
    open_now = (
        "SELECT count(*), count(*) FILTER (WHERE starts_with(state, 'idle in')) "
        "FROM pg_stat_activity WHERE datname = current_database() "
        "AND starts_with(application_name, 'pg-router ')"
    )
    deadline = time.monotonic() + 20
    for server in database.cluster.servers:
        # What was closed here may take its server a moment.
        while True:
            ((count, idle_in),) = server.execute(open_now, dbname=database.name)
            if not pool.checkedout() and count <= size + 1 and not idle_in:
                break
            assert time.monotonic() < deadline, (server, count, idle_in, pool.checkedout())
            await asyncio.sleep(0.02)
    return cancelled


def until_waiting(pool: Any, callers: int = 1) -> None:
    """Wait until so many `callers` wait for a connection of one of psycopg's node pools."""
    deadline = time.monotonic() + 20
    while pool.get_stats().get("requests_waiting", 0) < callers:
        assert time.monotonic() < deadline, pool.get_stats()
        time.sleep(0.002)


def drop(lent: list[Any]) -> None:
    """Forget what is `lent`, and have the garbage collector take it."""
    lent.clear()
    gc.collect()


def how(block: Any) -> str | None:
    """How a transaction block of psycopg's stands; its own says it since psycopg 3.3."""
    return str(block.status.value) if hasattr(psycopg.Transaction, "Status") else None


class Native:
    """A pool with two live replicas and one table ``item``, in a database of its own."""

    def __init__(self, database: Database, make: Callable[..., Any]) -> None:
        self.database = database
        self.cluster = database.cluster
        self.door: Any = make()
        self.door.router.start()

    def run(self, sql: str) -> Rows:
        """One statement on a connection of its own."""
        with self.door.connection() as connection:
            rows: Rows = self.door.run(connection, sql)
        return rows

    def role(self, port: int) -> str:
        """The role, "primary" or "replica", of the server that listens on `port`."""
        return "primary" if port == self.cluster.primary.port else "replica"

    def served(self, connection: Any = None, sql: str = PORT) -> str:
        """The role of the server that runs a read now, as it says itself."""
        rows = self.run(sql) if connection is None else self.door.run(connection, sql)
        return self.role(rows[0][0])

    def count(self) -> int:
        """Rows in ``item`` on the primary."""
        return int(self.database.execute("SELECT count(*) FROM item")[0][0])

    def settle(self) -> None:
        """Let the replicas catch up and the router see it."""
        self.cluster.wait_caught_up()
        self.door.router.refresh()

    def await_replica(self, connection: Any = None, timeout: float = 10.0) -> None:
        """Read until a replica serves it: what ends a pin is a probe, and nobody awaits that."""
        deadline = time.monotonic() + timeout
        while self.served(connection) != "replica":
            assert time.monotonic() < deadline, self.door.router.stats()
            time.sleep(0.005)
