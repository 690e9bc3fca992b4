"""The asynchronous pool of psycopg: the same as with psycopg_pool, and cancelled anywhere."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import psycopg
import psycopg_pool
import pytest
from psycopg.rows import dict_row

from router import request_context, using_primary, using_replica
from router.greenlets import greenlet_spawn
from router.psycopg import AsyncConnectionPool
from router.psycopg.source import FIRST_LOOK
from router.rules.context import RoutingContext, within
from tests.conftest import Database
from tests.native.kit import STORM, cancelled_at_random, drop, how, until_waiting

INSERT = "INSERT INTO item (name) VALUES (%s)"
NAMES = "SELECT name FROM item ORDER BY id"


@pytest.fixture
def items(database: Database) -> Database:
    """A fresh database with a table ``item``."""
    database.execute("CREATE TABLE item (id serial PRIMARY KEY, name text NOT NULL)")
    database.cluster.wait_caught_up()
    return database


@asynccontextmanager
async def opened(database: Database, **options: Any) -> AsyncIterator[AsyncConnectionPool]:
    options = {"min_size": 1, "replicas": database.replica_urls(), **options}
    async with AsyncConnectionPool(database.primary_url(), **options) as pool:
        await asyncio.to_thread(pool.router.start)
        yield pool


async def commit_and_roll_back(pool: Any) -> Any:
    async with pool.connection() as connection:
        await connection.execute(INSERT, ["a"])
    with suppress(ZeroDivisionError):
        async with pool.connection() as connection:
            await connection.execute(INSERT, ["b"])
            raise ZeroDivisionError
    async with pool.connection() as connection:
        await connection.execute(INSERT, ["c"])
        await connection.commit()
        await connection.execute(INSERT, ["d"])
        await connection.rollback()
        return await (await connection.execute(NAMES)).fetchall()


async def blocks(pool: Any) -> Any:
    async with pool.connection() as connection:
        async with connection.transaction() as outer:
            await connection.execute(INSERT, ["kept"])
            async with connection.transaction() as inner:
                await connection.execute(INSERT, ["undone"])
                raise psycopg.Rollback(inner)
            with suppress(psycopg.errors.DivisionByZero):
                async with connection.transaction():
                    await connection.execute("SELECT 1/0")
        rows = await (await connection.execute(NAMES)).fetchall()
    return rows, how(outer), how(inner), inner.savepoint_name


async def attributes(pool: Any) -> Any:
    async with pool.connection() as connection:
        await connection.set_autocommit(True)
        await connection.set_isolation_level(psycopg.IsolationLevel.SERIALIZABLE)
        await connection.set_read_only(True)
        await connection.set_deferrable(True)
        async with connection.transaction():
            row = await (
                await connection.execute(
                    "SELECT current_setting('transaction_isolation'), "
                    "current_setting('transaction_read_only'), "
                    "current_setting('transaction_deferrable')"
                )
            ).fetchone()
        await connection.set_read_only(None)
        return row, connection.autocommit, connection.isolation_level, connection.deferrable


async def cursors(pool: Any) -> Any:
    found: list[Any] = []
    async with pool.connection() as connection:
        async with connection.cursor(row_factory=dict_row) as cursor:
            await cursor.executemany(INSERT, [("a",), ("b",), ("c",)])
            found.append((cursor.rowcount, await (await cursor.execute(NAMES)).fetchone()))
            found.append((cursor.description[0].name, await cursor.fetchmany(1)))
            found.append([row async for row in cursor])
        async with connection.cursor() as cursor:
            await cursor.execute(NAMES)
            await cursor.scroll(1)
            found.append(await cursor.fetchall())
            found.append([row async for row in cursor.stream(NAMES)])
            await cursor.execute("SELECT 1; SELECT 2")
            found.append((await cursor.fetchone(), cursor.nextset(), await cursor.fetchone()))
            if hasattr(psycopg.AsyncCursor, "results"):
                await cursor.execute("SELECT 1; SELECT 2")
                found.append([await c.fetchone() async for c in cursor.results()])
        async with connection.cursor("named") as cursor:
            await cursor.execute(NAMES)
            found.append([row async for row in cursor])
    return found


async def copies(pool: Any) -> Any:
    async with pool.connection() as connection, connection.cursor() as cursor:
        async with cursor.copy("COPY item (name) FROM STDIN") as copy:
            await copy.write_row(["a"])
        async with cursor.copy(f"COPY ({NAMES}) TO STDOUT") as copy:
            return [row async for row in copy.rows()]


async def pipelines(pool: Any) -> Any:
    async with pool.connection() as connection:
        async with connection.pipeline():
            await connection.execute(INSERT, ["a"])
            cursor = await connection.execute(NAMES)
        return await cursor.fetchall()


async def notifications(pool: Any) -> Any:
    async with pool.connection() as connection, pool.connection() as other:
        await connection.set_autocommit(True)
        await connection.execute("LISTEN jobs")
        await other.execute("NOTIFY jobs, 'one'")
        await other.commit()
        return [n.payload async for n in connection.notifies(timeout=20, stop_after=1)]


async def by_hand(pool: Any) -> Any:
    connection = await pool.getconn(timeout=5)
    try:
        return await (await connection.execute("SELECT 1")).fetchone(), connection.closed
    finally:
        await pool.putconn(connection)


SCENARIOS: list[Callable[[Any], Awaitable[Any]]] = [
    commit_and_roll_back,
    blocks,
    attributes,
    cursors,
    copies,
    pipelines,
    notifications,
    by_hand,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.__name__)
def test_as_with_psycopg_pool(items: Database, scenario: Callable[[Any], Awaitable[Any]]) -> None:
    """A program over psycopg_pool gets the same results from ours with two live replicas."""

    async def both() -> None:
        plain = psycopg_pool.AsyncConnectionPool(
            items.primary_url(), min_size=1, max_size=2, open=False
        )
        async with plain:
            expected = await scenario(plain)
        items.execute("TRUNCATE item RESTART IDENTITY")
        items.cluster.wait_caught_up()
        async with opened(items, max_size=2) as pool:
            with request_context():
                assert await scenario(pool) == expected
            assert pool.checkedout() == 0

    asyncio.run(both())


def test_its_life(items: Database) -> None:
    """Not open, open, closed; and what belongs to another event loop says so."""
    pool = AsyncConnectionPool(items.primary_url(), min_size=1, name="mine")

    async def live() -> None:
        with pytest.raises(psycopg_pool.PoolClosed, match="not open yet"):
            await pool.getconn()
        await pool.open(wait=True)
        async with pool.connection() as connection:
            assert await (await connection.execute("SELECT 1")).fetchone() == (1,)
            assert connection.info.dbname == items.name
            with pytest.raises(AttributeError, match="primary_connection"):
                _ = connection.no_such_thing
            primary = await connection.primary_connection()
            assert isinstance(primary, psycopg.AsyncConnection)
        await pool.check()
        await pool.resize(1, 3)
        if hasattr(psycopg_pool.AsyncConnectionPool, "drain"):
            await pool.drain()
        assert pool.get_stats()["pool_max"] == 3
        async with pool.connection(timeout=5) as connection:
            await connection.execute("SELECT 1")

    async def elsewhere() -> None:
        with pytest.raises(RuntimeError, match="another event loop"):
            await pool.getconn()

    async def end() -> None:
        await live()
        await asyncio.to_thread(asyncio.run, elsewhere())
        await pool.close()
        with pytest.raises(psycopg_pool.PoolClosed, match="mine is closed"):
            await pool.getconn()
        with pytest.raises(psycopg_pool.PoolClosed, match="make another"):
            await pool.open()

    asyncio.run(end())


def test_the_servers_isolation_level_holds_for_reads(items: Database) -> None:
    """Reads share a transaction where default_transaction_isolation is REPEATABLE READ."""
    count = "SELECT count(*) FROM item"

    async def work() -> None:
        kwargs = {"options": "-c default_transaction_isolation=repeatable\\ read"}
        async with opened(items, kwargs=kwargs) as pool, pool.connection() as connection:
            before = await (await connection.execute(count)).fetchone()
            await asyncio.to_thread(items.execute, INSERT, ["between"])
            await asyncio.to_thread(items.cluster.wait_caught_up)
            assert await (await connection.execute(count)).fetchone() == before

    asyncio.run(work())


def test_configure_is_awaited(items: Database) -> None:
    """The asynchronous hooks get psycopg's own connections, and what they set holds."""

    async def configure(connection: psycopg.AsyncConnection[Any]) -> None:
        await connection.set_autocommit(True)

    async def run() -> None:
        options: dict[str, Any] = {"configure": configure, "kwargs": {"row_factory": dict_row}}
        async with opened(items, **options) as pool:
            with request_context():
                async with pool.connection() as connection:
                    assert connection.autocommit is True
                    await connection.execute(INSERT, ["a"])
                    assert items.execute("SELECT count(*) FROM item") == [(1,)]
                    cursor = await connection.execute("SELECT name FROM item")
                    assert await cursor.fetchall() == [{"name": "a"}]

    asyncio.run(run())


def test_tasks_share_a_requests_pins(items: Database) -> None:
    """What one task of a request wrote its other tasks read, with replay paused."""

    async def run() -> None:
        async with opened(items, max_size=4) as pool:
            with request_context(), items.cluster.replay_paused():

                async def write() -> None:
                    async with pool.connection() as connection:
                        await connection.execute(INSERT, ["a"])

                async def read() -> Any:
                    async with pool.connection() as connection:
                        return await (await connection.execute(NAMES)).fetchall()

                await asyncio.create_task(write())
                assert list(await asyncio.gather(read(), read())) == [[("a",)], [("a",)]]

    asyncio.run(run())


def test_first_come_is_first_served(items: Database) -> None:
    """Who waits for a connection, however long, is served before those who came later."""
    served: list[int] = []

    async def wait(pool: AsyncConnectionPool, number: int) -> None:
        async with pool.connection() as connection:
            await connection.execute("SELECT 1")
            served.append(number)

    async def run() -> None:
        async with (
            opened(items, max_size=1, replicas=[]) as pool,
            asyncio.TaskGroup() as group,
            pool.connection() as first,
        ):
            await first.execute("SELECT 1")
            for number in range(4):
                group.create_task(wait(pool, number))
                await asyncio.to_thread(until_waiting, pool, number + 1)
                await asyncio.sleep(FIRST_LOOK / 3.5)
        assert pool.get_stats().get("requests_errors", 0) == 0

    asyncio.run(run())
    assert served == [0, 1, 2, 3]


def test_a_dropped_connection_makes_room(items: Database) -> None:
    """As with the pool for threads, whatever thread the garbage collector runs in."""

    async def read(pool: AsyncConnectionPool) -> Any:
        with using_primary():
            async with pool.connection() as connection:
                return await (await connection.execute(NAMES)).fetchall()

    async def run() -> None:
        async with opened(items, min_size=1, max_size=1) as pool:
            lent = [await pool.getconn()]
            await lent[0].execute(INSERT, ["undone"])
            waiter = asyncio.ensure_future(read(pool))
            await asyncio.to_thread(until_waiting, pool)
            with pytest.warns(ResourceWarning, match=r"^primary.* was deleted while router-.* le"):
                await asyncio.to_thread(drop, lent)
            assert await asyncio.wait_for(waiter, 15) == []
            assert pool.checkedout() == 0

    asyncio.run(run())


async def cut_short(connection: Any, sql: str) -> None:
    """Run `sql`, which takes longer than its caller waits."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await connection.execute(sql)


async def server_session(connection: Any) -> Any:
    return await (await connection.execute("SELECT pg_backend_pid()")).fetchone()


async def after_a_cancelled_statement(pool: Any) -> list[Any]:
    """What a connection is like whose statements were cut short, and the one that comes next."""
    told: list[Any] = []
    async with pool.connection() as connection:
        await connection.set_autocommit(True)
        session = await server_session(connection)
        await cut_short(connection, "SELECT pg_sleep(30)")
        told.append(await server_session(connection) == session)
        with suppress(psycopg.errors.InFailedSqlTransaction):
            async with connection.transaction():
                await connection.execute(INSERT, ["undone"])
                await cut_short(connection, "SELECT pg_sleep(30)")
                await connection.execute(INSERT, ["refused"])
        told.append(await (await connection.execute(NAMES)).fetchall())
        await cut_short(connection, "UPDATE item SET name = 'x' FROM pg_sleep(30)")
        await connection.execute(INSERT, ["goes on"])
        await cut_short(connection, "SELECT pg_sleep(30)")
        await connection.set_autocommit(False)
    async with pool.connection() as connection:
        told.append(await server_session(connection) == session)
        told.append(await (await connection.execute(NAMES)).fetchall())
    return told


def test_a_cancelled_statement_keeps_its_connection(items: Database) -> None:
    """After a read, a write and a statement of a transaction were cut short, their connection goes
    on, and the next one has the same server session: as with psycopg's own pool."""

    async def run() -> None:
        url = items.primary_url()
        async with psycopg_pool.AsyncConnectionPool(url, min_size=1, max_size=1) as plain:
            expected = await after_a_cancelled_statement(plain)
        assert expected == [True, [], True, [("goes on",)]]
        items.execute("TRUNCATE item")
        with using_primary():
            async with opened(items, min_size=1, max_size=1) as pool:
                assert await after_a_cancelled_statement(pool) == expected
                assert pool.router.blacklisted == {}

    asyncio.run(run())


def test_cancellation_anywhere_leaks_nothing(items: Database) -> None:
    """Requests cancelled at random points: afterwards no connection is in use, none is open on the
    servers beyond the pools', none in a transaction, and no pin is left unfinished."""

    async def request(pool: AsyncConnectionPool, n: int) -> None:
        with request_context():
            async with pool.connection() as connection:
                await connection.execute(NAMES)
                if n % 3 == 0:
                    async with connection.transaction():
                        await connection.execute(INSERT, [str(n)])
                        await connection.execute("SELECT pg_sleep(0.001)")
                elif n % 3 == 1:
                    await connection.execute(INSERT, [str(n)])
                    await connection.execute(NAMES)

    async def storm() -> int:
        async with opened(items, max_size=8) as pool:
            cancelled = await cancelled_at_random(pool, items, 8, request)
            with request_context():
                async with pool.connection() as connection:
                    await connection.execute(INSERT, ["last"])
                    rows = await (await connection.execute(NAMES)).fetchall()
                    assert "last" in {name for (name,) in rows}
        return cancelled

    assert asyncio.run(storm()) > STORM / 10


def test_reads_and_statements_of_a_transaction_need_no_greenlet(
    items: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing has to be waited for but the server's answer, nothing is switched to."""
    spawned: list[Any] = []

    async def spy(*args: Any, **kwargs: Any) -> Any:
        spawned.append(args)
        return await greenlet_spawn(*args, **kwargs)

    async def scenario() -> None:
        async with opened(items, kwargs={"autocommit": True}) as pool:
            await pool.wait()
            monkeypatch.setattr("router.psycopg.async_connection.greenlet_spawn", spy)
            # A connection is known once it was used, and the pools may open more of them yet.
            alone = reads = 0
            while alone < 8:
                before = len(spawned)
                async with pool.connection() as connection:
                    assert await (await connection.execute(NAMES)).fetchall() == []
                alone = alone + 1 if len(spawned) == before else 0
                reads += 1
                assert reads < 200
            taken = len(spawned)
            async with pool.connection() as connection, connection.transaction():
                cursor = await connection.execute(INSERT, ["a"])
                before = len(spawned)
                await cursor.execute(NAMES)
                assert await cursor.fetchall() == [("a",)]
                assert len(spawned) == before
            assert pool.checkedout() == 0
        assert before == taken + 1, "what takes the primary's connection"

    # What other tests left in the process's own context is none of its business.
    with within(RoutingContext(root=True)):
        asyncio.run(scenario())


def test_a_pipelines_writes_are_read_after_it(items: Database) -> None:
    """What is written in a pipeline commits at its end, and reads after that see it."""

    async def main() -> Any:
        async with (
            opened(items, max_size=2, kwargs={"autocommit": True}) as pool,
            pool.connection() as connection,
        ):
            async with connection.pipeline():
                await connection.execute(INSERT, ["a"])
                items.execute("CREATE TABLE other ()")  # its commit flushes the WAL of the INSERT
                items.cluster.wait_caught_up()
                # A position sampled now is one before the commit.
                await asyncio.to_thread(pool.router.refresh)
                for replica in items.cluster.replicas:
                    replica.pause_replay()
            async with pool.connection() as other:
                return await (await other.execute(NAMES)).fetchall()

    with request_context():
        assert asyncio.run(main()) == [("a",)]


def test_what_is_lent_outlives_its_pool(items: Database) -> None:
    """As with psycopg_pool, close() lets requests that run finish, on whatever nodes they need."""

    async def main() -> Any:
        async with opened(items) as pool:
            async with pool.connection() as connection:
                await connection.execute("SELECT 1")
                await pool.close()
                await connection.execute(INSERT, ["a"])
            with pytest.raises(psycopg_pool.PoolClosed):
                await pool.getconn()
            return pool.checkedout()

    with request_context():
        assert asyncio.run(main()) == 0
    assert items.execute("SELECT name FROM item") == [("a",)]


def test_what_is_set_on_a_connection_holds_on_every_node(items: Database) -> None:
    """A row factory set on a routed connection, before or after its first statement, holds on each
    node and for nobody after it; what cannot be set says how."""

    async def main() -> None:
        async with opened(items, kwargs={"autocommit": True}) as pool:
            async with pool.connection() as connection:
                connection.row_factory = dict_row
                connection.prepared_max = 7
                row = await (await connection.execute("SELECT 1 AS a")).fetchone()
                assert row == {"a": 1}
                assert connection.prepared_max == 7
                await connection.execute(INSERT, ["x"])
                row = await (await connection.execute("SELECT 1 AS a")).fetchone()
                assert row == {"a": 1}
                with pytest.raises(AttributeError, match="set_autocommit"):
                    connection.autocommit = False  # type: ignore[misc]
                with pytest.raises(AttributeError, match="primary_connection"):
                    connection.pgconn = None
                assert not hasattr(connection.cursor(), "x")
            for force in (using_primary, using_replica):
                with force():
                    async with pool.connection() as connection:
                        row = await (await connection.execute("SELECT 1 AS a")).fetchone()
                        assert row == (1,)
            with pytest.raises(ValueError, match="another pool's"):
                await pool.putconn(None)  # type: ignore[arg-type]

    with request_context():
        asyncio.run(main())
