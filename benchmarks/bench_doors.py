"""Every front door, ours beside plain: one read, and a statement in a long transaction.

Every run is a batch in one coroutine or loop, so that what starts it does not dilute the ratios.
"""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
import psycopg_pool
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

import router.asyncpg
import router.psycopg
from benchmarks.harness import compare, keep, show
from router.testing import Cluster

READS = 50
STATEMENTS = 100
ROW = "SELECT 1"
TEXT = sa.text(ROW)
SIZE = {"min_size": 2, "max_size": 2}
AUTOCOMMIT = {"kwargs": {"autocommit": True}}
PLAIN = "plain, on the primary"
FLOOR = "floor: plain, in autocommit on a replica"
ROUTED = "routed"

Ways = dict[str, Any]
"""Engines or pools: plain, floor and routed."""


# -- what is timed -----------------------------------------------------------------------------


def engine_read(engine: sa.Engine) -> None:
    for _ in range(READS):
        with engine.connect() as connection:
            connection.execute(TEXT).one()


def engine_statement(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        for _ in range(STATEMENTS):
            connection.execute(TEXT).one()


async def async_engine_read(engine: Any) -> None:
    for _ in range(READS):
        async with engine.connect() as connection:
            (await connection.execute(TEXT)).one()


async def async_engine_statement(engine: Any) -> None:
    async with engine.begin() as connection:
        for _ in range(STATEMENTS):
            (await connection.execute(TEXT)).one()


def psycopg_read(pool: Any) -> None:
    for _ in range(READS):
        with pool.connection() as connection:
            connection.execute(ROW).fetchone()


def psycopg_statement(pool: Any) -> None:
    with pool.connection() as connection, connection.transaction():
        cursor = connection.cursor()
        for _ in range(STATEMENTS):
            cursor.execute(ROW)
            cursor.fetchone()


async def psycopg_async_read(pool: Any) -> None:
    for _ in range(READS):
        async with pool.connection() as connection:
            await (await connection.execute(ROW)).fetchone()


async def psycopg_async_statement(pool: Any) -> None:
    async with pool.connection() as connection, connection.transaction():
        cursor = connection.cursor()
        for _ in range(STATEMENTS):
            await cursor.execute(ROW)
            await cursor.fetchone()


async def asyncpg_read(pool: Any) -> None:
    for _ in range(READS):
        await pool.fetch(ROW)


async def asyncpg_statement(pool: Any) -> None:
    async with pool.acquire() as connection, connection.transaction():
        for _ in range(STATEMENTS):
            await connection.fetch(ROW)


# -- the doors ---------------------------------------------------------------------------------


@asynccontextmanager
async def engines(cluster: Cluster) -> AsyncIterator[Ways]:
    """Synchronous engines of SQLAlchemy's."""
    primary, *replicas = (server.url(driver="psycopg") for server in cluster.servers)
    ways: Ways = {
        PLAIN: sa.create_engine(primary),
        FLOOR: sa.create_engine(replicas[0], isolation_level="AUTOCOMMIT"),
        ROUTED: router.create_engine(primary, replicas=replicas),
    }
    yield ways
    for engine in ways.values():
        engine.dispose()


@asynccontextmanager
async def async_engines(cluster: Cluster, driver: str) -> AsyncIterator[Ways]:
    """Asynchronous engines of SQLAlchemy's."""
    primary, *replicas = (server.url(driver=driver) for server in cluster.servers)
    ways: Ways = {
        PLAIN: create_async_engine(primary),
        FLOOR: create_async_engine(replicas[0], isolation_level="AUTOCOMMIT"),
        ROUTED: router.create_async_engine(primary, replicas=replicas),
    }
    yield ways
    for engine in ways.values():
        await engine.dispose()


@asynccontextmanager
async def psycopg_pools(cluster: Cluster, **options: Any) -> AsyncIterator[Ways]:
    """Pools of psycopg's, for threads."""
    primary, *replicas = cluster.urls()
    ways: Ways = {
        PLAIN: psycopg_pool.ConnectionPool(primary, open=True, **SIZE, **options),
        FLOOR: psycopg_pool.ConnectionPool(replicas[0], open=True, **SIZE, **AUTOCOMMIT),
        ROUTED: router.psycopg.ConnectionPool(primary, replicas=replicas, **SIZE, **options),
    }
    for pool in ways.values():
        pool.wait()
    yield ways
    for pool in ways.values():
        pool.close()


@asynccontextmanager
async def psycopg_async_pools(cluster: Cluster, **options: Any) -> AsyncIterator[Ways]:
    """Pools of psycopg's, for event loops."""
    primary, *replicas = cluster.urls()
    kind, ours = psycopg_pool.AsyncConnectionPool, router.psycopg.AsyncConnectionPool
    ways: Ways = {
        PLAIN: kind(primary, open=False, **SIZE, **options),
        FLOOR: kind(replicas[0], open=False, **SIZE, **AUTOCOMMIT),
        ROUTED: ours(primary, replicas=replicas, open=False, **SIZE, **options),
    }
    async with AsyncExitStack() as stack:
        for pool in ways.values():
            await stack.enter_async_context(pool)
            await pool.wait()
        yield ways


@asynccontextmanager
async def asyncpg_pools(cluster: Cluster) -> AsyncIterator[Ways]:
    """Pools of asyncpg's."""
    primary, *replicas = cluster.urls()
    ways: Ways = {
        PLAIN: asyncpg.create_pool(primary, **SIZE),
        FLOOR: asyncpg.create_pool(replicas[0], **SIZE),
        ROUTED: router.asyncpg.create_pool(primary, replicas=replicas, **SIZE),
    }
    async with AsyncExitStack() as stack:
        for pool in ways.values():
            await stack.enter_async_context(pool)
        yield ways


DOORS: dict[str, tuple[Any, Any, Any]] = {
    "SQLAlchemy on psycopg": (engines, engine_read, engine_statement),
    "SQLAlchemy on psycopg, asynchronous": (
        functools.partial(async_engines, driver="psycopg"),
        async_engine_read,
        async_engine_statement,
    ),
    "SQLAlchemy on asyncpg": (
        functools.partial(async_engines, driver="asyncpg"),
        async_engine_read,
        async_engine_statement,
    ),
    "psycopg's pool": (psycopg_pools, psycopg_read, psycopg_statement),
    "psycopg's pool, autocommit": (
        functools.partial(psycopg_pools, **AUTOCOMMIT),
        psycopg_read,
        psycopg_statement,
    ),
    "psycopg's asynchronous pool": (
        psycopg_async_pools,
        psycopg_async_read,
        psycopg_async_statement,
    ),
    "psycopg's asynchronous pool, autocommit": (
        functools.partial(psycopg_async_pools, **AUTOCOMMIT),
        psycopg_async_read,
        psycopg_async_statement,
    ),
    "asyncpg's pool": (asyncpg_pools, asyncpg_read, asyncpg_statement),
}


def timed(runner: asyncio.Runner, work: Any, way: Any) -> Callable[[], object]:
    """One batch of `work` on an engine or pool, on the event loop where it is a coroutine."""
    if asyncio.iscoroutinefunction(work):
        return lambda: runner.run(work(way))
    return lambda: work(way)


def main() -> None:
    """Measure, print, keep."""
    figures: dict[str, Any] = {}
    with Cluster(replicas=2) as cluster, asyncio.Runner() as runner:
        for name, (door, read, statement) in DOORS.items():
            context = door(cluster)
            ways = runner.run(context.__aenter__())
            routed = ways[ROUTED].router
            routed.start()
            routed.refresh()
            for what, work in (("read", read), ("statement", statement)):
                runs = {
                    n: timed(runner, work, way)
                    for n, way in ways.items()
                    if what == "read" or n != FLOOR
                }
                found = compare(runs, baseline=PLAIN, rounds=80, batch=1, warmup=8)
                figures.setdefault(what, {})[name] = found
                show(f"{name}: {what}", found, PLAIN)
            runner.run(context.__aexit__(None, None, None))
    print(f"kept in {keep('doors', figures)}")


if __name__ == "__main__":
    main()
