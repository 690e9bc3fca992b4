"""What asyncpg's users rely on beside routing: the same as with asyncpg's own pool."""

import asyncio
import contextvars
import select
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg
import pytest
from asyncpg import prepared_stmt

import router
from router import Config, request_context
from router.asyncpg import Pool, PoolTimeout, create_pool
from router.asyncpg.prepared import PreparedStatement
from router.errors import ConfigError
from tests.conftest import Database, MakeCluster
from tests.native.kit import STORM, cancelled_at_random

PORT = "SELECT inet_server_port()"
INSERT = "INSERT INTO item (name) VALUES ($1)"
NAMES = "SELECT name FROM item ORDER BY id"


@pytest.fixture
def items(database: Database) -> Database:
    """A fresh database with a table ``item``."""
    database.execute("CREATE TABLE item (id serial PRIMARY KEY, name text NOT NULL)")
    database.cluster.wait_caught_up()
    return database


@asynccontextmanager
async def opened(database: Database, **options: Any) -> AsyncIterator[Pool]:
    options = {"min_size": 1, "max_size": 4, "replicas": database.replica_urls(), **options}
    async with create_pool(database.primary_url(), **options) as pool:
        yield pool


# -- the same as with asyncpg's pool: each of these runs on it, then on ours ---------------------


async def statements(pool: Any) -> Any:
    told = [await pool.execute(INSERT, "a"), await pool.executemany(INSERT, [("b",), ("c",)])]
    told += [await pool.fetch(NAMES), await pool.fetchrow(NAMES), await pool.fetchval(NAMES)]
    told += [await pool.fetchval("SELECT id, name FROM item ORDER BY id", column=1)]
    told += [await pool.fetchmany(f"{INSERT} RETURNING id", [("d",), ("e",)])]
    told += [await pool.execute("SELECT 1; SELECT 2")]
    return told


async def transactions(pool: Any) -> Any:
    async with pool.acquire() as con:
        async with con.transaction():
            await con.execute(INSERT, "kept")
            assert con.is_in_transaction()
            with suppress(ZeroDivisionError):
                async with con.transaction():
                    await con.execute(INSERT, "undone")
                    raise ZeroDivisionError
            with suppress(asyncpg.DivisionByZeroError):
                async with con.transaction():
                    await con.execute("SELECT 1/0")
        tx = con.transaction(isolation="serializable", readonly=True, deferrable=True)
        await tx.start()
        level = await con.fetchval("SHOW transaction_isolation")
        read_only = await con.fetchval("SHOW transaction_read_only")
        await tx.rollback()
        return level, read_only, await con.fetch(NAMES), con.is_in_transaction()


async def copies(pool: Any) -> Any:
    told = [await pool.copy_records_to_table("item", records=[("a",)], columns=["name"])]
    rows: list[bytes] = []

    async def take(data: bytes) -> None:
        rows.append(data)

    told += [await pool.copy_from_query("SELECT name FROM item", output=take, format="csv")]
    told += [await pool.copy_from_table("item", columns=["name"], output=take, format="csv")]
    return told, rows


async def cursors(pool: Any) -> Any:
    async with pool.acquire() as con:
        await con.executemany(INSERT, [(str(n),) for n in range(10)])
        async with con.transaction():
            walked = [r["name"] async for r in con.cursor(NAMES, prefetch=3)]
            cursor = await con.cursor(NAMES)
            await cursor.forward(2)
            return walked, await cursor.fetch(3), await cursor.fetchrow()


async def prepared(pool: Any) -> Any:
    async with pool.acquire() as con:
        statement = await con.prepare("SELECT $1::int + 1")
        return await statement.fetchval(1), [a.name for a in statement.get_parameters()]


async def listeners(pool: Any) -> Any:
    heard: asyncio.Queue[Any] = asyncio.Queue()

    def hear(con: Any, _pid: int, channel: str, payload: str) -> None:
        heard.put_nowait((channel, payload))

    async with pool.acquire() as con:
        await con.add_listener("jobs", hear)
        await pool.execute("NOTIFY jobs, 'one'")
        told = await asyncio.wait_for(heard.get(), 20)
        await con.remove_listener("jobs", hear)
        return told


async def by_hand(pool: Any) -> Any:
    con = await pool.acquire(timeout=5)
    try:
        return await con.fetchval("SELECT 1"), con.is_closed(), con.get_server_version().major
    finally:
        await pool.release(con)


async def errors(pool: Any) -> Any:
    told: list[str] = []
    for sql in ("SELECT no_such_column", "SELEC", "SELECT 1/0", "INSERT INTO item VALUES (1)"):
        try:
            await pool.fetch(sql)
        except asyncpg.PostgresError as error:
            told.append(type(error).__name__)
    return told


SCENARIOS: list[Callable[[Any], Awaitable[Any]]] = [
    statements,
    transactions,
    copies,
    cursors,
    prepared,
    listeners,
    by_hand,
    errors,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.__name__)
def test_as_with_asyncpgs_own(items: Database, scenario: Callable[[Any], Awaitable[Any]]) -> None:
    """A program over asyncpg's pool gets the same results from ours with two live replicas."""

    async def both() -> None:
        async with asyncpg.create_pool(items.primary_url(), min_size=1, max_size=2) as plain:
            expected = await scenario(plain)
        items.execute("TRUNCATE item RESTART IDENTITY")
        items.cluster.wait_caught_up()
        async with opened(items, max_size=2) as pool:
            with request_context():
                assert await scenario(pool) == expected
            assert pool.checkedout() == 0

    asyncio.run(both())


def test_every_method_of_asyncpgs_pool_is_its_own() -> None:
    """The pool is an asyncpg.Pool for whoever asks, and inherits none of its methods unseen."""
    assert issubclass(Pool, asyncpg.Pool)
    public = [
        n for n in vars(asyncpg.Pool) if not n.startswith("_") and callable(getattr(Pool, n))
    ]
    assert [name for name in public if name not in vars(Pool)] == []


def test_hooks_see_each_nodes_connections(items: Database) -> None:
    """init, setup and reset get asyncpg's own connections, of every node; codecs belong there."""
    ports: dict[str, set[int]] = {"init": set(), "setup": set(), "reset": set()}

    def note(what: str) -> Callable[[Any], Awaitable[None]]:
        async def hook(con: Any) -> None:
            ports[what].add(await con.fetchval(PORT))
            if what == "init":
                await con.set_type_codec(
                    "json", encoder=str, decoder=lambda text: ("read", text), schema="pg_catalog"
                )

        return hook

    async def run() -> None:
        async with opened(items, **{what: note(what) for what in ports}) as pool:
            with request_context():
                assert await pool.fetchval("SELECT '{}'::json") == ("read", "{}")
                await pool.execute(INSERT, "a")
                assert await pool.fetchval("SELECT '{}'::json") == ("read", "{}")
            async with pool.acquire() as con:
                with pytest.raises(asyncpg.InterfaceError, match="init="):
                    await con.set_type_codec("json", encoder=str, decoder=str)
        every = {server.port for server in items.cluster.servers}
        assert ports["init"] == ports["setup"] == ports["reset"] == every

    asyncio.run(run())


def test_nothing_of_a_session_outlives_its_connection(items: Database) -> None:
    """Settings, locks and temporary tables end when a connection goes back, on every node; what
    only read is not reset, which spares a round trip."""

    async def run() -> None:
        async with opened(items, max_size=1) as pool:
            for force in (router.using_primary, router.using_replica):
                with force():
                    async with pool.acquire() as con:
                        await con.execute("SET app.tenant = '7'")
                        assert await con.fetchval("SHOW app.tenant") == "7"
                    assert not await pool.fetchval("SELECT current_setting('app.tenant', true)")
            async with pool.acquire() as con:
                await con.execute("SELECT pg_advisory_lock(7)")
                await con.execute("LISTEN jobs")
            assert items.execute("SELECT count(*) FROM pg_locks WHERE objid = 7") == [(0,)]
            assert await pool.fetchval("SELECT count(*) FROM item") == 0
            assert pool.unclean == set()

    asyncio.run(run())


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"min_sise": 1}, r"min_sise.*did you mean 'min_size'"),
    ({"pin_duratoin": 1}, r"pin_duratoin.*did you mean 'pin_duration'"),
    ({"pool_size": 5}, r"pool_size.*min_size and max_size"),
    ({"reads_in_transaction": True}, r"reads_in_transaction.*readonly=True"),
    ({"connect": "x"}, r"connect: expected a function, not 'x'"),
    ({"max_connections": 30, "max_size": 5}, r"max_size: max_connections sizes"),
    ({"min_size": 5, "max_size": 2}, r"min_size <= max_size"),
    ({"pgbouncer": True, "statement_cache_size": 10}, r"statement_cache_size.*PgBouncer"),
    ({"pgbouncer": True, "server_settings": {"jit": "off"}}, r"jit.*ALTER ROLE"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_bad_input_gets_one_clear_error(options: dict[str, Any], message: str) -> None:
    """What is unknown, malformed or contradictory is refused when the pool is made."""
    with pytest.raises(ConfigError, match=message):
        create_pool("postgresql://db1/shop", replicas=["db2"], **options)


def test_addresses_in_every_form(items: Database) -> None:
    """The primary is named by a DSN, by asyncpg's own arguments, or by a Config."""
    primary = items.cluster.primary
    replicas = items.replica_urls()
    said: list[tuple[Any, dict[str, Any]]] = [
        (None, {"host": primary.host, "port": primary.port, "user": "postgres",
                "database": items.name, "replicas": replicas}),
        (Config.from_url(items.primary_url(), replicas=replicas), {}),
    ]  # fmt: skip

    async def run() -> None:
        for dsn, options in said:
            async with create_pool(dsn, min_size=1, **options) as pool:
                ask = "SELECT inet_server_port() || ' ' || current_setting('application_name')"
                port, name = (await pool.fetchval(ask)).split(" ", 1)
                assert int(port) != primary.port
                assert name in ("pg-router replica1", "pg-router replica2")
                assert pool.get_max_size() == 10
                assert "router.asyncpg.Pool" in repr(pool)

    asyncio.run(run())


def test_its_life(items: Database) -> None:
    """A closed pool, another loop's pool, a connection given back: each says what it is."""

    async def run() -> None:
        async with opened(items) as pool:
            async with pool.acquire() as con:
                await con.fetchval(PORT)
                with pytest.raises(asyncpg.InterfaceError, match="several server sessions"):
                    con.get_server_pid()
                with pytest.raises(AttributeError, match="no_such_thing"):
                    _ = con.no_such_thing  # type: ignore[attr-defined]
                assert await (await con.primary_connection()).fetchval("SELECT 1") == 1
                await con.reload_schema_state()
            with pytest.raises(asyncpg.InterfaceError, match="given back"):
                await con.fetchval(PORT)
            with pytest.raises(asyncpg.InterfaceError, match="not a connection of this pool"):
                await pool.release(object())

            async def elsewhere() -> None:
                with pytest.raises(asyncpg.InterfaceError, match="another event loop"):
                    await pool.fetchval(PORT)

            await asyncio.to_thread(asyncio.run, elsewhere())
            await pool.expire_connections()
            assert await pool.fetchval("SELECT 1") == 1
        assert pool.is_closing()
        with pytest.raises(asyncpg.InterfaceError, match="pool is closed"):
            await pool.fetchval(PORT)

    asyncio.run(run())


def test_a_schema_of_ones_own(items: Database) -> None:
    """With schema= unqualified names are found there, on every node."""
    items.execute("CREATE SCHEMA mine CREATE TABLE thing (n int)")
    items.cluster.wait_caught_up()

    async def run() -> None:
        async with opened(items, schema="mine") as pool:
            for force in (router.using_primary, router.using_replica):
                with force():
                    assert await pool.fetchval("SELECT count(*) FROM thing") == 0

    asyncio.run(run())


def test_cancellation_anywhere_leaks_nothing(items: Database) -> None:
    """Requests cancelled at random points: afterwards no connection is in use, none is in a
    transaction on any server, and every node still serves."""

    async def request(pool: Pool, n: int) -> None:
        with request_context():
            if n % 3 == 0:
                async with pool.acquire() as con, con.transaction():
                    await con.execute(INSERT, str(n))
                    await con.fetch("SELECT pg_sleep(0.001)")
            elif n % 3 == 1:
                await pool.execute(INSERT, str(n))
                await pool.fetch(NAMES)
            else:
                async with pool.acquire() as con:
                    await con.fetch(NAMES)
                    await con.fetch(NAMES)

    async def storm() -> int:
        async with opened(items, max_size=8) as pool:
            cancelled = await cancelled_at_random(pool, items, 8, request)
            with request_context():
                await pool.execute(INSERT, "last")
                assert "last" in {r["name"] for r in await pool.fetch(NAMES)}
        return cancelled

    assert asyncio.run(storm()) > STORM / 10


WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory' AND datname = $1"


async def until(ask: Callable[[], Awaitable[object]]) -> None:
    """Ask until it is so: what is asked of a server or a pool, nobody awaits."""
    async with asyncio.timeout(15):
        while True:
            if await ask():
                return
            await asyncio.sleep(0.005)


async def cancelled(items: Database, pool: Pool, sql: str) -> None:
    """Send `sql`, and cancel it while it waits for an advisory lock that another has."""
    async with asyncpg.create_pool(items.primary_url(), min_size=1, max_size=1) as beside:
        task = asyncio.ensure_future(pool.execute(sql))
        await until(lambda: beside.fetchval(WAITING, items.name))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not await beside.fetchval(WAITING, items.name)


def test_what_is_cancelled_ends_at_the_server(items: Database) -> None:
    """When a cancelled statement's connection is back the server has given the statement up:
    nothing of it is committed later; and all of the pool's sessions live on."""

    async def run() -> None:
        async with (
            opened(items, min_size=2, max_size=2) as pool,
            asyncpg.create_pool(items.primary_url(), min_size=1, max_size=1) as beside,
        ):
            with router.using_primary():
                async with pool.acquire() as one, pool.acquire() as other:
                    pids = [await con.fetchval("SELECT pg_backend_pid()") for con in (one, other)]
                async with beside.acquire() as con:
                    await con.execute("SELECT pg_advisory_lock(7)")
                    lock = "SELECT 'late' FROM pg_advisory_xact_lock(7)"
                    await cancelled(items, pool, f"INSERT INTO item (name) {lock}")
                async with pool.acquire() as one, pool.acquire() as other:
                    now = [await con.fetchval("SELECT pg_backend_pid()") for con in (one, other)]
                assert set(pids) == set(now)
                assert await pool.fetch(NAMES) == []
            assert pool.router.blacklisted == {}

    asyncio.run(run())


async def cut_short(con: Any, sql: str) -> None:
    """Run `sql`, which takes longer than its caller waits."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await con.fetch(sql)


async def after_a_cancelled_statement(pool: Any) -> list[Any]:
    """What a connection is like whose statements were cut short, and the one that comes next."""
    told: list[Any] = []
    async with pool.acquire() as con:
        pid = await con.fetchval("SELECT pg_backend_pid()")
        await cut_short(con, "SELECT pg_sleep(30)")
        told.append(await con.fetchval("SELECT pg_backend_pid()") == pid)
        with suppress(asyncpg.InFailedSQLTransactionError):
            async with con.transaction():
                await con.execute(INSERT, "undone")
                await cut_short(con, "SELECT pg_sleep(30)")
                told.append(con.is_in_transaction())
                await con.execute(INSERT, "refused")
        told += [con.is_in_transaction(), await con.fetch(NAMES)]
        await cut_short(con, "UPDATE item SET name = 'x' FROM pg_sleep(30)")
        await con.execute(INSERT, "goes on")
        await cut_short(con, "SELECT pg_sleep(30)")
    async with pool.acquire() as con:
        told.append(await con.fetchval("SELECT pg_backend_pid()") == pid)
        told.append([row["name"] for row in await con.fetch(NAMES)])
    return told


def test_a_cancelled_statement_keeps_its_connection(items: Database) -> None:
    """After a read, a write and a statement of a transaction were cut short, their connection goes
    on, and the next one has the same server session: as with asyncpg's own pool."""

    async def run() -> None:
        url = items.primary_url()
        async with asyncpg.create_pool(url, min_size=1, max_size=1) as plain:
            expected = await after_a_cancelled_statement(plain)
        assert expected == [True, True, False, [], True, ["goes on"]]
        items.execute("TRUNCATE item")
        with router.using_primary():
            async with opened(items, max_size=1) as pool:
                assert await after_a_cancelled_statement(pool) == expected
                assert pool.router.blacklisted == {}

    asyncio.run(run())


def test_a_cancelled_statement_that_sets_something_ends_its_session(items: Database) -> None:
    """What would be left of it in the session is unknown, so the next statement has another."""

    async def run() -> None:
        with router.using_primary():
            async with opened(items, max_size=1) as pool, pool.acquire() as con:
                pid = await con.fetchval("SELECT pg_backend_pid()")
                await cut_short(con, "SELECT set_config('a.b', 'c', false) FROM pg_sleep(30)")
                assert await con.fetchval("SELECT pg_backend_pid()") != pid

    asyncio.run(run())


def test_a_frozen_server_holds_no_cancelled_request_up(make_cluster: MakeCluster) -> None:
    """A request cancelled twice goes on at once though its server answers nothing; the place in
    the pool is free again when the server has had its time."""
    cluster = make_cluster(replicas=0)

    async def run() -> None:
        async with create_pool(cluster.primary.url(), min_size=1, max_size=1) as pool:
            task = asyncio.ensure_future(pool.execute("SELECT pg_sleep(30)"))

            async def free() -> bool:
                return not pool.checkedout()

            async def taken() -> bool:
                return not await free()

            await until(taken)
            cluster.primary.freeze()
            while not task.done():
                task.cancel()
                await asyncio.sleep(0)
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(free)
            cluster.primary.thaw()
            assert await pool.fetchval("SELECT 1") == 1

    asyncio.run(run())


def test_a_connection_that_ends_as_it_comes_back_fails_nobody(items: Database) -> None:
    """A server ends a connection at any step of the event loop in which it is given back: what was
    read with it is not lost by an error of asyncpg's own, and its place is free."""

    async def run() -> None:
        async with opened(items, max_size=1) as pool:
            for steps in range(8):
                with request_context(), router.using_replica():
                    async with pool.acquire() as con:
                        pid = await con.fetchval("SELECT pg_backend_pid()")
                        (held,) = con._held()
                        server = items.cluster.server_at(await con.fetchval(PORT))
                        server.execute(f"SELECT pg_terminate_backend({pid}, 15000)")
                        select.select(
                            [held.fileno()], [], [], 15
                        )  # and the loop knows nothing yet
                        for _ in range(steps):
                            await asyncio.sleep(0)
                assert pool.checkedout() == 0
                assert await pool.fetchval("SELECT 1") == 1

    asyncio.run(run())


def test_a_listener_cancelled_twice_leaves_its_place(items: Database) -> None:
    """A task that listens and is cancelled at every step it takes, as anyio's scopes do it, gives
    the pool's only connection back all the same."""

    async def run() -> None:
        async with opened(items, max_size=1) as pool:
            listening = asyncio.Event()

            async def listen() -> None:
                async with pool.acquire() as con:
                    await con.add_listener("news", print)
                    listening.set()
                    await asyncio.Event().wait()

            for _ in range(2):
                listening.clear()
                task = asyncio.ensure_future(listen())
                await asyncio.wait_for(listening.wait(), 20)
                while not task.done():
                    task.cancel()
                    await asyncio.sleep(0)
            await asyncio.wait_for(pool.execute(INSERT, "goes on"), 20)
            assert pool.checkedout() == 0

    asyncio.run(run())


def test_what_setup_sets_is_the_next_ones_own(items: Database) -> None:
    """A setting that setup= makes for one acquirer is gone for the next, on every node, though
    nothing but reads ran: under row-level security it would be another's rows."""
    tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="")

    async def setup(con: Any) -> None:
        if tenant.get():
            await con.execute("SELECT set_config('app.tenant', $1, false)", tenant.get())

    async def run() -> None:
        async with opened(items, max_size=1, setup=setup) as pool:
            ask = "SELECT current_setting('app.tenant', true)"
            for force in (router.using_primary, router.using_replica):
                token = tenant.set("alice")
                with force():
                    assert await pool.fetchval(ask) == "alice"
                    tenant.reset(token)
                    assert not await pool.fetchval(ask)

    asyncio.run(run())


def test_a_prepared_write_is_read_by_its_request(items: Database) -> None:
    """Each execution of a prepared write pins the request it runs in, also long after it was
    prepared, in a transaction and in another request; a prepared read pins nobody."""
    count = "SELECT count(*) FROM item WHERE name = $1"

    async def run() -> None:
        async with opened(items) as pool, pool.acquire() as con:
            with request_context():
                insert = await con.prepare(f"{INSERT} RETURNING name")
                names = await con.prepare(NAMES)
            items.cluster.wait_caught_up()
            with items.cluster.replay_paused():
                for name in ("fetch", "fetchval", "fetchrow"):
                    with request_context():
                        await getattr(insert, name)(name)
                        assert await pool.fetchval(count, name) == 1
                with request_context():
                    await insert.executemany([("many",)])
                    assert await pool.fetchval(count, "many") == 1
                with request_context():
                    await insert.fetchmany([("of them",)])
                    assert await pool.fetchval(count, "of them") == 1
                with request_context():
                    async with con.transaction():
                        await insert.fetch("transaction")
                        async for row in insert.cursor("cursor"):
                            assert row["name"] == "cursor"
                    assert await pool.fetchval(count, "transaction") == 1
                    assert await pool.fetchval(count, "cursor") == 1
                with request_context():
                    with pytest.raises(asyncpg.NotNullViolationError):
                        await insert.fetch(None)
                    assert await pool.fetchval(count, "fetch") == 1
                with request_context():
                    assert len(await names.fetch()) == 7
                    assert await pool.fetchval("SELECT pg_is_in_recovery()") is False
                with request_context():
                    assert await pool.fetchval("SELECT pg_is_in_recovery()")

    asyncio.run(run())


def test_a_prepared_statement_has_all_of_asyncpgs(items: Database) -> None:
    """Every public method of asyncpg's prepared statement is there, and its checks hold."""
    public = {name for name in vars(prepared_stmt.PreparedStatement) if name[0] != "_"}
    assert public <= vars(PreparedStatement).keys()

    async def run() -> None:
        async with opened(items) as pool:
            async with pool.acquire() as con:
                insert = await con.prepare(INSERT)
                assert (await insert.explain("x"))[0]["Plan"]["Operation"] == "Insert"
                assert (insert.get_query(), insert.get_attributes()) == (INSERT, ())
                await insert.fetch("x")
                assert insert.get_statusmsg() == "INSERT 0 1"
                assert insert.get_name()
                assert "INSERT" in repr(insert)
            with pytest.raises(asyncpg.InterfaceError, match="released back"):
                await insert.fetch("y")

    asyncio.run(run())


def test_within_a_read_only_transaction_on_a_replica(items: Database) -> None:
    """A statement is prepared on the replica and ends with the transaction; what needs the
    primary is refused by an error that says what to do, and the transaction goes on."""

    async def run() -> None:
        async with opened(items) as pool, pool.acquire() as con:
            async with con.transaction(readonly=True):
                statement = await con.prepare("SELECT pg_is_in_recovery()")
                assert await statement.fetchval() is True
                for refused in (con.primary_connection(), con.add_listener("news", print)):
                    with pytest.raises(asyncpg.InterfaceError, match="before that transaction"):
                        await refused
                assert await con.fetchval("SELECT pg_is_in_recovery()") is True
            with pytest.raises(asyncpg.InterfaceError, match="prepare it again"):
                await statement.fetchval()
            assert not con.is_closed()
            await con.execute(INSERT, "goes on")

    asyncio.run(run())


def test_a_preparation_that_times_out_ends_nothing(items: Database) -> None:
    """As with asyncpg's own, a connection whose prepare() timed out goes on."""

    async def run() -> None:
        async with opened(items) as pool, pool.acquire() as con, pool.acquire() as other:
            await con.prepare("SELECT 1")
            async with other.transaction():
                await other.execute("LOCK TABLE item")  # the server cannot name the columns now
                with pytest.raises(TimeoutError):
                    await con.prepare("SELECT name FROM item", timeout=0.2)
                assert await con.fetchval("SELECT 3") == 3
            assert not con.is_closed()

    asyncio.run(run())


def test_a_transaction_that_could_not_begin_is_none(items: Database) -> None:
    """After a BEGIN that found no connection the same connection begins its next transaction."""

    async def run() -> None:
        async with opened(items, max_size=1) as pool, pool.acquire(timeout=1) as con:
            async with pool.acquire() as other, other.transaction():
                await other.execute(INSERT, "first")
                with pytest.raises(PoolTimeout):
                    await con.transaction().start()
            async with con.transaction():
                await con.execute(INSERT, "second")
            assert [r["name"] for r in await con.fetch(NAMES)] == ["first", "second"]

    asyncio.run(run())


@pytest.mark.parametrize("timeout", [None, 20])
def test_a_hook_that_times_out_is_no_busy_pool(
    make_cluster: MakeCluster, timeout: float | None
) -> None:
    """Where a frozen replica lets setup= run into command_timeout the read runs elsewhere."""
    cluster = make_cluster(replicas=1)

    async def setup(con: Any) -> None:
        await con.execute("SELECT 1")

    async def run() -> None:
        async with create_pool(
            cluster.primary.url(),
            [cluster.replicas[0].url()],
            min_size=1,
            setup=setup,
            command_timeout=0.5,
            probe_interval=60,
        ) as pool:
            assert await pool.fetchval(PORT) == cluster.replicas[0].port
            cluster.replicas[0].freeze()
            async with pool.acquire(timeout=timeout) as con:
                assert await con.fetchval(PORT) == cluster.primary.port
            cluster.replicas[0].thaw()

    asyncio.run(run())


def test_closing_waits_for_whoever_has_a_connection(items: Database) -> None:
    """close() lends no more at once, and lets requests under way go on, also to nodes they have
    not been to yet; it waits for a connection that has run nothing too."""

    async def run() -> None:
        pool = await create_pool(items.primary_url(), items.replica_urls(), min_size=0)
        async with pool.acquire() as con, pool.acquire() as idle:
            assert await con.fetchval("SELECT pg_is_in_recovery()")
            closing = asyncio.ensure_future(pool.close())
            await asyncio.sleep(0)  # its first step
            with pytest.raises(asyncpg.InterfaceError, match="pool is closed"):
                await pool.fetchval("SELECT 1")
            await con.execute(INSERT, "late")
            await con.close()
            assert await idle.fetch(NAMES)
            assert not closing.done()
        await asyncio.wait_for(closing, 20)
        assert pool.checkedout() == 0
        assert not pool.router.started

    asyncio.run(run())


def test_a_close_that_takes_too_long_ends_all(items: Database) -> None:
    """wait_for(close()) that times out has closed every connection and stopped the monitor."""

    async def run() -> None:
        pool = await create_pool(items.primary_url(), items.replica_urls(), min_size=1)
        async with pool.acquire() as con:
            await con.execute(INSERT, "x")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(pool.close(), 0.05)
            assert not pool.router.started
            assert pool.get_size() == 0
            with pytest.raises(asyncpg.InterfaceError):
                await con.execute(INSERT, "y")
        await pool.close()

    asyncio.run(run())


def test_two_tasks_on_one_connection_are_told_so(items: Database) -> None:
    """As with asyncpg's own, the second of two statements at once is an error, whatever the first
    has taken by then; no place in a pool is lost by it."""

    async def run() -> None:
        async with opened(items, min_size=0) as pool:
            for statement in (f"{INSERT} RETURNING name", "SELECT name FROM item WHERE $1 <> ''"):
                async with pool.acquire() as con:
                    twice = (con.fetch(statement, name) for name in ("a", "b"))
                    told = await asyncio.gather(*twice, return_exceptions=True)
                    assert len([t for t in told if isinstance(t, asyncpg.InterfaceError)]) == 1
                    assert await con.fetchval("SELECT 1") == 1
                assert pool.checkedout() == 0

    asyncio.run(run())
