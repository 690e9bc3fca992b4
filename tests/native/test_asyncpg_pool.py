"""The pool of `router.asyncpg` on real servers."""

import asyncio
from typing import Any

import asyncpg
import pytest

import router.asyncpg
from router import request_context
from router.errors import PrimaryUnavailable
from tests.conftest import Database, MakeCluster

PORT = "SELECT inet_server_port()"


def pool(database: Database, **options: Any) -> router.asyncpg.Pool:
    options = {"min_size": 1, "max_size": 4, **options}
    return router.asyncpg.create_pool(
        database.primary_url(), replicas=database.replica_urls(), **options
    )


def test_reads_leave_the_primary_and_writes_do_not(database: Database) -> None:
    """A read of the pool runs on a replica, a write on the primary, and is read afterwards."""
    database.execute("CREATE TABLE t (n int)")
    database.cluster.wait_caught_up()
    primary = database.cluster.primary.port

    async def run() -> None:
        async with pool(database) as p:
            with request_context():
                assert await p.fetchval(PORT) != primary
                await p.execute("INSERT INTO t VALUES ($1)", 1)
                assert [r["n"] for r in await p.fetch("SELECT n FROM t")] == [1]
                await p.executemany("INSERT INTO t VALUES ($1)", [(2,), (3,)])
                await p.copy_records_to_table("t", records=[(4,)])
                assert await p.fetchval("SELECT count(*) FROM t") == 4
        assert p.is_closing()

    asyncio.run(run())


def test_a_pinned_read_waits_for_no_replica(database: Database) -> None:
    """With replay paused everywhere a request reads its own write, from the primary."""
    database.execute("CREATE TABLE t (n int)")
    database.cluster.wait_caught_up()

    async def run() -> None:
        async with pool(database) as p:
            for replica in database.cluster.replicas:
                replica.execute("SELECT pg_wal_replay_pause()")
            with request_context():
                async with p.acquire() as con, con.transaction():
                    await con.execute("INSERT INTO t VALUES (1)")
                assert await p.fetchval("SELECT count(*) FROM t") == 1

    asyncio.run(run())


def test_transactions(database: Database) -> None:
    """A transaction runs on the primary, its savepoints nest, and a read-only one on a replica."""
    database.execute("CREATE TABLE t (n int)")
    database.cluster.wait_caught_up()
    primary = database.cluster.primary.port

    async def run() -> None:
        async with pool(database) as p:
            with request_context():
                async with p.acquire() as con:
                    async with con.transaction(readonly=True):
                        assert await con.fetchval(PORT) != primary
                        rows = [r[0] async for r in con.cursor("SELECT generate_series(1, 3)")]
                        assert rows == [1, 2, 3]
                    async with con.transaction():
                        assert await con.fetchval(PORT) == primary
                        await con.execute("INSERT INTO t VALUES (1)")
                        inner = con.transaction()
                        await inner.start()
                        with pytest.raises(asyncpg.UndefinedTableError):
                            await con.execute("INSERT INTO nowhere VALUES (1)")
                        await inner.rollback()
                    assert not con.is_in_transaction()
                    undone = con.transaction()
                    await undone.start()
                    await con.execute("INSERT INTO t VALUES (2)")
                    await undone.rollback()
                    assert await con.fetchval("SELECT count(*) FROM t") == 1
                with pytest.raises(asyncpg.InterfaceError, match="given back"):
                    await con.fetchval(PORT)

    asyncio.run(run())


def test_cancelled_tasks_leave_nothing(database: Database) -> None:
    """After tasks were cancelled at many points every connection is back in its pool."""

    async def run() -> None:
        async with pool(database) as p:

            async def work(n: int) -> None:
                if n % 2:
                    await p.fetchval("SELECT pg_sleep(0.01)")
                    return
                async with p.acquire() as con, con.transaction():
                    await con.execute("SELECT pg_sleep(0.01)")

            for n in range(60):
                task = asyncio.create_task(work(n))
                for _ in range(n % 12):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            assert p.checkedout() == 0
            assert await p.fetchval("SELECT 1") == 1

    asyncio.run(run())


def test_what_needs_a_session_stays_with_the_primary(database: Database) -> None:
    """A listener hears what the pool notifies, and a prepared statement stays usable."""

    async def run() -> None:
        heard: asyncio.Queue[str] = asyncio.Queue()

        def hear(con: Any, pid: int, channel: str, payload: str) -> None:
            assert con is listening
            heard.put_nowait(payload)

        async with pool(database) as p, p.acquire() as listening:
            await listening.add_listener("c", hear)
            await p.execute("SELECT pg_notify('c', 'hello')")
            assert await asyncio.wait_for(heard.get(), 10) == "hello"
            statement = await listening.prepare(PORT)
            assert await statement.fetchval() == database.cluster.primary.port

    asyncio.run(run())


def test_dead_servers(make_cluster: MakeCluster) -> None:
    """A replica's death is invisible to reads; without the primary they go on, writes fail."""
    cluster = make_cluster(replicas=2)
    urls = [replica.url() for replica in cluster.replicas]

    async def run() -> None:
        async with router.asyncpg.create_pool(
            cluster.primary.url(), replicas=urls, min_size=1, max_size=4
        ) as p:
            for _ in range(8):
                assert await p.fetchval(PORT) != cluster.primary.port
            cluster.replicas[0].kill()
            for _ in range(20):
                assert await p.fetchval(PORT) == cluster.replicas[1].port
            cluster.primary.kill()
            assert await p.fetchval(PORT) == cluster.replicas[1].port
            with pytest.raises((PrimaryUnavailable, asyncpg.PostgresError, OSError)):
                await p.execute("CREATE TABLE t (n int)")
            assert await p.fetchval(PORT) == cluster.replicas[1].port

    asyncio.run(run())
