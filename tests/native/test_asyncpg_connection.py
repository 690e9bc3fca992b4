"""What an asyncpg connection can do beside statements: each works, or says why not."""

import asyncio
import io
from typing import Any

import asyncpg
import pytest

import router.asyncpg
from router import request_context, using_primary, using_replica
from router.asyncpg import PoolTimeout
from tests.conftest import Database, MakeCluster

PORT = "SELECT inet_server_port()"
GONE = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError)


def pool(database: Database, **options: Any) -> router.asyncpg.Pool:
    options = {"min_size": 1, "max_size": 2, **options}
    return router.asyncpg.create_pool(database.primary_url(), database.replica_urls(), **options)


def test_who_listens_hears_of_its_session_s_end(database: Database) -> None:
    """The end of the session a connection listens in is told; the connection is closed, for what
    it listened to is lost, and the pool goes on. A reader's lost session is replaced unseen."""

    async def run() -> None:
        async with pool(database) as p:
            async with p.acquire() as con:
                told: list[Any] = []
                ended = asyncio.Event()

                async def later(of: Any) -> None:
                    told.append(of)
                    ended.set()

                con.add_termination_listener(later)
                con.add_termination_listener(told.append)
                with using_replica():
                    port, pid = await con.fetchrow("SELECT inet_server_port(), pg_backend_pid()")
                    end = f"SELECT pg_terminate_backend({pid}, 5000)"
                    await asyncio.to_thread(database.served_by(port).execute, end)
                    assert await con.fetchval("SELECT pg_backend_pid()") != pid
                assert told == []
                await con.add_listener("news", print)
                assert not con.is_closed()
                await p.execute(f"SELECT pg_terminate_backend({con.get_server_pid()}, 5000)")
                await asyncio.wait_for(ended.wait(), 20)
                assert told == [con, con]
                assert con.is_closed()
                with pytest.raises(asyncpg.InterfaceError, match="has ended: acquire another"):
                    await con.fetchval("SELECT 1")
            assert p.checkedout() == 0
            assert await p.fetchval("SELECT 1") == 1

    asyncio.run(run())


def test_notices_and_queries_are_told_from_every_node(database: Database) -> None:
    """Log listeners and query loggers hear of statements on any node, until they are removed or
    the connection goes back."""
    notice = "DO $$ BEGIN RAISE NOTICE 'seen'; END $$"

    async def run() -> None:
        async with pool(database) as p:
            said, asked, async_heard = [], [], asyncio.Queue[Any]()

            async def heard(*news: Any) -> None:
                await async_heard.put(news)

            async with p.acquire() as con:
                con.add_log_listener(lambda of, message: said.append((of, message.message)))
                await con.execute(notice)
                assert said == [(con, "seen")]
                with con.query_logger(lambda record: asked.append(record.query)):
                    for force in (using_primary, using_replica):
                        with force():
                            await con.fetchval(PORT)
                await con.fetchval(PORT)
                assert asked == [PORT, PORT]
                await con.add_listener("news", heard)
                await p.execute("NOTIFY news, 'x'")
                got = await asyncio.wait_for(async_heard.get(), 20)
                assert (got[0], got[3]) == (con, "x")
                await con.remove_listener("news", heard)
            for _ in range(3):
                await p.execute(notice)
            assert len(said) == 1

    asyncio.run(run())


def test_what_is_asked_of_a_server_names_one_server(database: Database) -> None:
    """Process id and settings are those of the one session a connection is in, and an error
    while there is none; the version is known as soon as a server is."""

    async def run() -> None:
        async with pool(database) as p, p.acquire() as con:
            assert con.get_server_version().major >= 14
            for ask in (con.get_server_pid, con.get_settings):
                with pytest.raises(asyncpg.InterfaceError, match="within a transaction"):
                    ask()
            for readonly in (False, True):
                async with con.transaction(readonly=readonly):
                    pid = await con.fetchval("SELECT pg_backend_pid()")
                    assert con.get_server_pid() == pid
                    assert con.get_settings().server_encoding == "UTF8"
            await con.reload_schema_state()

    asyncio.run(run())


def test_codecs_are_set_for_every_node(database: Database) -> None:
    """init= sets them on each node's connections; set on one acquired they are refused, for the
    next user would have them."""

    def turned(text: str) -> int:
        return -int(text)

    async def init(con: Any) -> None:
        await con.set_type_codec(
            "int4", encoder=str, decoder=lambda t: -int(t), schema="pg_catalog"
        )

    async def run() -> None:
        async with pool(database, init=init) as p:
            for force in (using_primary, using_replica):
                with force():
                    assert await p.fetchval("SELECT 7::int") == -7
            async with p.acquire() as con:
                with pytest.raises(asyncpg.InterfaceError, match=r"create_pool\(init="):
                    await con.set_type_codec("int4", encoder=str, decoder=int)

    asyncio.run(run())


def test_bulk_and_cursors(database: Database) -> None:
    """COPY in and out, many sets of arguments and cursors do what asyncpg's do."""
    database.execute("CREATE TABLE t (n int)")
    database.cluster.wait_caught_up()

    async def run() -> None:
        async with pool(database) as p:
            with request_context():
                await p.copy_records_to_table("t", records=[(1,), (2,)])
                await p.copy_to_table("t", source=io.BytesIO(b"3\n4\n"))
                await p.executemany("INSERT INTO t VALUES ($1)", iter([(5,), (6,)]))
                rows = await p.fetchmany("INSERT INTO t VALUES ($1) RETURNING n", [(7,), (8,)])
                assert [r["n"] for r in rows] == [7, 8]
                out = io.BytesIO()
                await p.copy_from_table("t", output=out)
                assert len(out.getvalue().split()) == 8
                out = io.BytesIO()
                assert await p.copy_from_query("SELECT n FROM t", output=out) == "COPY 8"
                with pytest.raises(asyncpg.UniqueViolationError):
                    await p.execute("CREATE UNIQUE INDEX u ON t (n); INSERT INTO t VALUES (1)")
            async with p.acquire() as con:
                with pytest.raises(asyncpg.NoActiveSQLTransactionError):
                    await con.cursor("SELECT n FROM t")
                async with con.transaction():
                    await con.execute("DELETE FROM t WHERE n = 1")
                    cursor = await con.cursor("SELECT n FROM t ORDER BY n")
                    assert (await cursor.fetchrow())["n"] == 2
                    assert await cursor.forward(2) == 2
                    assert [r["n"] for r in await cursor.fetch(9)] == [5, 6, 7, 8]

    asyncio.run(run())


def test_a_busy_pool_is_not_a_broken_node(database: Database) -> None:
    """Waiting longer than acquire(timeout=) is an error that names node and cure, and keeps
    nobody else from the node."""

    async def run() -> None:
        async with pool(database, max_size=1) as p:
            with using_primary():
                async with p.acquire() as con, con.transaction():
                    await con.execute("SELECT 1")
                    async with p.acquire(timeout=0.05) as other:
                        with pytest.raises(PoolTimeout, match=r"^primary .*max_size"):
                            await other.execute("SELECT 1")
                assert await p.fetchval("SELECT 1") == 1
            assert p.router.blacklisted == {}

    asyncio.run(run())


def test_another_event_loop_is_refused(database: Database) -> None:
    """A pool belongs to the loop it was first used in; another one gets one clear error."""
    p = pool(database)

    async def use() -> None:
        assert await p.fetchval("SELECT 1") == 1

    with asyncio.Runner() as runner:
        runner.run(use())
        with pytest.raises(asyncpg.InterfaceError, match="one pool in each loop"):
            asyncio.run(use())
        runner.run(p.close())


def test_a_promoted_replica_takes_the_writes(make_cluster: MakeCluster) -> None:
    """After a failover writes go to the new primary without the pool being made anew."""
    cluster = make_cluster(replicas=1)
    replica = cluster.replicas[0]

    async def run() -> None:
        async with router.asyncpg.create_pool(
            cluster.primary.url(), [replica.url()], min_size=1, max_size=2, probe_interval=0.05
        ) as p:
            await p.execute("CREATE TABLE t (n int)")
            await asyncio.to_thread(cluster.wait_caught_up)
            await asyncio.to_thread(cluster.primary.kill)
            with pytest.raises((*GONE, router.RouterError)):
                await p.execute("INSERT INTO t VALUES (1)")
            await asyncio.to_thread(replica.promote)
            async with asyncio.timeout(10):
                while True:
                    try:
                        await p.execute("INSERT INTO t VALUES (2)")
                        break
                    except router.RouterError:
                        await asyncio.sleep(0.02)
            assert await p.fetchval(PORT) == replica.port
            assert await p.fetchval("SELECT array_agg(n) FROM t") == [2]

    asyncio.run(run())


def test_reset_makes_it_as_new(database: Database) -> None:
    """reset() rolls back, forgets settings, locks and listeners, and the connection goes on."""
    database.execute("CREATE TABLE item (name text)")

    async def run() -> None:
        async with pool(database) as p, p.acquire() as con:
            heard: list[Any] = []
            await con.add_listener("news", lambda *said: heard.append(said))
            await con.execute("SET application_name = 'changed'")
            await con.execute("SELECT pg_advisory_lock(7)")
            await con.transaction().start()
            await con.execute("INSERT INTO item VALUES ('undone')")
            await con.reset()
            assert not con.is_in_transaction()
            assert p.checkedout() == 0
            with using_primary():
                assert await con.fetchval("SELECT count(*) FROM item") == 0
                assert await con.fetchval("SHOW application_name") != "changed"
                assert await con.fetchval("SELECT count(*) FROM pg_locks WHERE objid = 7") == 0
            await con.add_listener("other", lambda *said: heard.append(said))
            await p.execute("NOTIFY news")
            await p.execute("NOTIFY other")
            await con.execute("SELECT pg_sleep(0)")
            assert [said[2] for said in heard] == ["other"]
        with pytest.raises(asyncpg.InterfaceError, match="given back"):
            await con.reset()

    asyncio.run(run())
