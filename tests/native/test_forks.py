"""What a forked child has of its parent's pool: its options, and none of its connections."""

import asyncio
from typing import Any

import pytest

import router.asyncpg
import router.psycopg
from router import TransactionLost
from tests.conftest import Database
from tests.forks.kit import ended, fork

INSERT = "INSERT INTO item (name) VALUES ('new')"
PID = "SELECT pg_backend_pid()"


@pytest.fixture
def items(database: Database) -> Database:
    database.execute("CREATE TABLE item (id serial PRIMARY KEY, name text NOT NULL)")
    database.cluster.wait_caught_up()
    return database


def test_a_transaction_stays_the_parents(items: Database) -> None:
    """A child forked inside a transaction runs nothing of it, begins one of its own elsewhere,
    and the parent's commits as if nobody had forked."""

    def child() -> None:
        for _ in range(2):
            with pytest.raises(TransactionLost, match="forked"):
                connection.execute(INSERT)
        with pytest.raises(TransactionLost, match="forked"):
            block.__exit__(None, None, None)
        with pool.connection() as own:
            own.execute(INSERT)
            assert own.execute(PID).fetchone() != mine

    with router.psycopg.ConnectionPool(
        items.primary_url(), replicas=items.replica_urls(), min_size=1, max_size=3
    ) as pool:
        block = pool.connection()
        with block as connection:
            connection.execute(INSERT)
            mine = connection.execute(PID).fetchone()
            assert ended(fork(child)) == "fine"
            connection.execute(INSERT)
            assert connection.execute(PID).fetchone() == mine
    assert items.execute("SELECT count(*) FROM item") == [(3,)]


def test_an_asynchronous_pool_serves_the_childs_own_loop(items: Database) -> None:
    """Opened on the parent's event loop, a pool of psycopg's is used on another one in the child,
    beside a transaction that stays the parent's."""

    async def child(pool: Any, connection: Any, mine: object) -> None:
        with pytest.raises(TransactionLost, match="forked"):
            await connection.execute(INSERT)
        async with pool.connection() as own:
            await own.execute(INSERT)
            assert await (await own.execute(PID)).fetchone() != mine
        await pool.close()

    async def parent() -> None:
        async with (
            router.psycopg.AsyncConnectionPool(
                items.primary_url(), replicas=items.replica_urls(), open=False, min_size=1
            ) as pool,
            pool.connection() as connection,
        ):
            await connection.execute(INSERT)
            mine = await (await connection.execute(PID)).fetchone()
            pid = fork(lambda: asyncio.run(child(pool, connection, mine)))
            assert await asyncio.to_thread(ended, pid) == "fine"
            await connection.execute(INSERT)
            assert await (await connection.execute(PID)).fetchone() == mine

    asyncio.run(parent())
    assert items.execute("SELECT count(*) FROM item") == [(3,)]


def test_a_pool_of_asyncpgs_serves_the_childs_own_loop(items: Database) -> None:
    """As psycopg's asynchronous pool."""

    async def child(pool: Any, connection: Any, mine: object) -> None:
        with pytest.raises(TransactionLost, match="forked"):
            await connection.execute(INSERT)
        async with pool.acquire() as own, own.transaction():
            await own.execute(INSERT)
            assert await own.fetchval(PID) != mine
        await pool.close()

    async def parent() -> None:
        async with (
            router.asyncpg.create_pool(
                items.primary_url(), items.replica_urls(), min_size=1
            ) as pool,
            pool.acquire() as connection,
            connection.transaction(),
        ):
            await connection.execute(INSERT)
            mine = await connection.fetchval(PID)
            pid = fork(lambda: asyncio.run(child(pool, connection, mine)))
            assert await asyncio.to_thread(ended, pid) == "fine"
            await connection.execute(INSERT)
            assert await connection.fetchval(PID) == mine

    asyncio.run(parent())
    assert items.execute("SELECT count(*) FROM item") == [(3,)]
