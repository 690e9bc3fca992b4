"""Two hundred tasks at once: SQLAlchemy's asynchronous engines, and the drivers' own pools."""

import asyncio
import importlib.util
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
import sqlalchemy as sa
from psycopg_pool import AsyncConnectionPool
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

import router
import router.asyncpg
import router.psycopg
from benchmarks.contenders import POOL, Base, Item
from benchmarks.harness import compare, keep, show
from router.testing import Cluster

TASKS = 200
SIZE = POOL["pool_size"]
ROW = "SELECT id, name, n FROM item WHERE id = 1"

Read = Callable[[], Awaitable[object]]
"""One read of one row, its connection taken and given back."""
Ways = dict[str, Read]


@asynccontextmanager
async def engines(cluster: Cluster) -> AsyncIterator[Ways]:
    """SQLAlchemy on asyncpg, an AsyncSession for each read."""
    primary, *replicas = (server.url(driver="asyncpg") for server in cluster.servers)
    routed: Any = router.create_async_engine(primary, replicas=replicas, **POOL)
    made: dict[str, AsyncEngine] = {
        "plain engine on the primary": create_async_engine(primary, **POOL),
        "routed": routed,
        "floor: autocommit on a replica": create_async_engine(
            replicas[0], isolation_level="AUTOCOMMIT", **POOL
        ),
    }
    await asyncio.to_thread(routed.router.start)
    await asyncio.to_thread(routed.router.refresh)

    def read(engine: AsyncEngine) -> Read:
        async def run() -> None:
            async with AsyncSession(engine) as session:
                assert await session.get(Item, 1) is not None

        return run

    yield {name: read(engine) for name, engine in made.items()}
    for engine in made.values():
        await engine.dispose()


def all_hosts(cluster: Cluster) -> str:
    """One URL that names every server, as hasql wants it."""
    hosts = ",".join(f"{server.host}:{server.port}" for server in cluster.servers)
    return f"postgresql://postgres@{hosts}/postgres"


@asynccontextmanager
async def asyncpg_pools(cluster: Cluster) -> AsyncIterator[Ways]:
    """Pools of asyncpg: its own, hasql's, and ours."""
    primary, *replicas = cluster.urls()
    size = {"min_size": SIZE, "max_size": SIZE}

    def read(pool: Any) -> Read:
        async def run() -> None:
            async with pool.acquire() as connection:
                assert await connection.fetchrow(ROW)

        return run

    def read_replica(pool: Any) -> Read:
        async def run() -> None:
            async with pool.acquire_replica() as connection:
                assert await connection.fetchrow(ROW)

        return run

    async with AsyncExitStack() as stack:
        plain = await stack.enter_async_context(asyncpg.create_pool(primary, **size))
        floor = await stack.enter_async_context(asyncpg.create_pool(replicas[0], **size))
        found = {
            "plain pool on the primary": read(plain),
            "floor: plain pool on a replica": read(floor),
        }
        if importlib.util.find_spec("hasql"):
            from hasql.driver.asyncpg import PoolManager

            hasql = PoolManager(all_hosts(cluster), pool_factory_kwargs=size)
            stack.push_async_callback(hasql.close)
            await hasql.ready()
            found["hasql, asked for a replica"] = read_replica(hasql)
        ours = router.asyncpg.create_pool(primary, replicas=replicas, **size)
        found["routed"] = read(await stack.enter_async_context(ours))
        await asyncio.to_thread(ours.router.refresh)
        yield found


@asynccontextmanager
async def psycopg_pools(cluster: Cluster) -> AsyncIterator[Ways]:
    """Pools of psycopg: its own, hasql's, and ours."""
    primary, *replicas = cluster.urls()
    size = {"min_size": SIZE, "max_size": SIZE}

    def read(pool: Any) -> Read:
        async def run() -> None:
            async with pool.connection() as connection:
                assert await (await connection.execute(ROW)).fetchone()

        return run

    def read_replica(pool: Any) -> Read:
        async def run() -> None:
            async with pool.acquire_replica() as connection:
                assert await (await connection.execute(ROW)).fetchone()

        return run

    async with AsyncExitStack() as stack:

        async def pool(kind: Any, url: str, **more: Any) -> Any:
            made = kind(url, open=False, **size, **more)
            return await stack.enter_async_context(made)

        # Without it hasql gives connections back within a transaction, and psycopg warns of each.
        autocommit: dict[str, Any] = {"kwargs": {"autocommit": True}}
        plain = await pool(AsyncConnectionPool, primary)
        floor = await pool(AsyncConnectionPool, replicas[0], **autocommit)
        found = {
            "plain pool on the primary": read(plain),
            "floor: autocommit on a replica": read(floor),
        }
        if importlib.util.find_spec("hasql"):
            from hasql.driver.psycopg3 import PoolManager

            hasql = PoolManager(all_hosts(cluster), pool_factory_kwargs=size | autocommit)
            stack.push_async_callback(hasql.close)
            await hasql.ready()
            found["hasql, asked for a replica"] = read_replica(hasql)
        routed = await pool(router.psycopg.AsyncConnectionPool, primary, replicas=replicas)
        found["routed"] = read(routed)
        await asyncio.to_thread(routed.router.refresh)
        yield found


def at_once(runner: asyncio.Runner, read: Read) -> Callable[[], None]:
    """Two hundred tasks, each of which reads once."""

    async def all_tasks() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(TASKS):
                group.create_task(_once(read))

    return lambda: runner.run(all_tasks())


async def _once(read: Read) -> None:
    await read()


def alone(runner: asyncio.Runner, read: Read) -> Callable[[], None]:
    """One task that reads thirty times."""

    async def thirty() -> None:
        for _ in range(30):
            await read()

    return lambda: runner.run(thirty())


Stage = Callable[[Cluster], AbstractAsyncContextManager[Ways]]
STAGES: dict[str, tuple[Stage, str]] = {
    "sqlalchemy": (engines, "plain engine on the primary"),
    "asyncpg": (asyncpg_pools, "plain pool on the primary"),
    "psycopg": (psycopg_pools, "plain pool on the primary"),
}


def main() -> None:
    """Measure, print, keep."""
    figures: dict[str, Any] = {}
    with Cluster(replicas=2) as cluster, asyncio.Runner() as runner:
        engine = sa.create_engine(cluster.primary.url(driver="psycopg"))
        Base.metadata.create_all(engine)
        with engine.begin() as connection:
            connection.execute(sa.insert(Item).values(id=1, name="one"))
        engine.dispose()
        cluster.wait_caught_up()
        for name, (stage, baseline) in STAGES.items():
            context = stage(cluster)
            ways = runner.run(context.__aenter__())
            try:
                for shape, rounds in ((alone, 50), (at_once, 30)):
                    runs = {n: shape(runner, read) for n, read in ways.items()}
                    found = compare(runs, baseline=baseline, rounds=rounds, batch=1, warmup=8)
                    figures.setdefault(name, {})[shape.__name__] = found
                    show(f"{name}: {shape.__doc__}".rstrip("."), found, baseline)
            finally:
                runner.run(context.__aexit__(None, None, None))
    print(f"kept in {keep('async', figures)}")


if __name__ == "__main__":
    main()
