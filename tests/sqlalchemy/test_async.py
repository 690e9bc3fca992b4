"""What only an asynchronous engine has: tasks, cancellation, streams, event loops.

The rules themselves run on the same drivers in test_rules.py and test_engine.py.
"""

import asyncio
import contextlib
import gc
import os
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.ext.asyncio import create_async_engine as plain_create_async_engine
from sqlalchemy.pool import NullPool, QueuePool

import router
from router.rules.context import ROOT, RoutingContext
from router.sqlalchemy import RoutedAsyncEngine, router_of
from router.testing import Cluster
from tests.conftest import Database, MakeCluster
from tests.sqlalchemy.kit import PORT

DRIVERS = ["asyncpg", "psycopg"]
INSERT = sa.text("INSERT INTO item (name) VALUES ('new')")

Scenario = Callable[["Place"], Coroutine[Any, Any, None]]


class Place:
    """A database with one table ``item``, and the servers it lives on."""

    def __init__(self, database: Database, driver: str) -> None:
        self.cluster: Cluster = database.cluster
        self.name = database.name
        self.driver = driver
        self.url = database.primary_url(driver)
        self.replicas = database.replica_urls()
        database.execute("CREATE TABLE item (id serial PRIMARY KEY, name text NOT NULL)")
        self.cluster.wait_caught_up()

    @contextlib.asynccontextmanager
    async def engine(self, **options: Any) -> AsyncIterator[RoutedAsyncEngine]:
        options.setdefault("probe_interval", 0.2)
        engine = router.create_async_engine(self.url, self.replicas, **options)
        try:
            yield engine
        finally:
            await engine.dispose()

    def role(self, port: int) -> str:
        return "primary" if port == self.cluster.primary.port else "replica"

    async def served(self, source: Any) -> str:
        """The role of the server that runs a read on a connection or session."""
        return self.role((await source.execute(PORT)).scalar_one())

    def count(self) -> int:
        rows = self.cluster.primary.execute("SELECT count(*) FROM item", dbname=self.name)
        return int(rows[0][0])

    def sessions(self) -> int:
        """Connections applications hold to this database, on all servers."""
        asked = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid() AND application_name <> 'pg-router monitor'"
        )
        servers = self.cluster.servers
        return sum(int(s.execute(asked, dbname=self.name)[0][0]) for s in servers)

    def alone(self) -> None:
        """Wait until the servers have noticed that every connection was closed."""
        deadline = time.monotonic() + 20
        while self.sessions():
            assert time.monotonic() < deadline, "connections are left"
            gc.collect()
            time.sleep(0.01)


@pytest.fixture(params=DRIVERS)
def place(request: pytest.FixtureRequest, database: Database) -> Place:
    return Place(database, request.param)


def test_both_functions_make_the_same_engine(place: Place) -> None:
    """Router's create_async_engine and SQLAlchemy's own, by keyword or URL, all route."""

    async def scenario() -> None:
        hosts = [url.partition("@")[2].partition("/")[0] for url in place.replicas]
        query = "&".join(["plugin=router", *(f"replica={host}" for host in hosts)])
        engines: list[AsyncEngine] = [
            router.create_async_engine(place.url, place.replicas),
            plain_create_async_engine(place.url, plugins=["router"], replicas=place.replicas),
            plain_create_async_engine(f"{place.url}?{query}"),
        ]
        for engine in engines:
            async with engine.connect() as connection:
                assert await place.served(connection) == "replica"
            async with engine.begin() as connection:
                assert await place.served(connection) == "primary"
            assert router_of(engine).primary is not None
            await engine.dispose()
        assert isinstance(engines[0], RoutedAsyncEngine)
        assert engines[0].router is router_of(engines[0].execution_options(x=1))

    asyncio.run(scenario())


def test_an_async_session_reads_on_a_replica_and_writes_on_the_primary(place: Place) -> None:
    """AsyncSession needs nothing of ours: reads leave the primary, a write pins what follows."""

    async def scenario() -> None:
        async with place.engine() as engine:
            maker = async_sessionmaker(engine)
            for replica in place.cluster.replicas:
                replica.pause_replay()
            with router.request_context():
                async with maker() as session:
                    assert await place.served(session) == "replica"
                    await session.execute(INSERT)
                    assert await place.served(session) == "primary"
                    await session.commit()
                    assert await place.served(session) == "primary"
            async with maker() as session, session.begin():
                assert await place.served(session) == "primary"
            with router.request_context():
                async with maker() as session:
                    assert await place.served(session) == "replica"

    asyncio.run(scenario())
    assert place.count() == 1


def test_tasks_of_a_request_share_its_pin_and_others_do_not(place: Place) -> None:
    """A write in one task of a request pins its other tasks and threads, and no other request."""

    async def scenario() -> None:
        async with place.engine() as engine:

            async def write() -> None:
                async with engine.begin() as connection:
                    await connection.execute(INSERT)

            async def read() -> str:
                async with engine.connect() as connection:
                    return await place.served(connection)

            await engine.refresh()
            for replica in place.cluster.replicas:
                replica.pause_replay()
            async with router.request_context():
                await asyncio.gather(write(), write())
                assert set(await asyncio.gather(read(), read())) == {"primary"}
                assert await asyncio.create_task(read()) == "primary"
                pinned = await asyncio.to_thread(router.current_context)
                assert pinned.pins.by_cluster
            async with router.request_context():
                assert await read() == "replica"
            await write()
            assert await read() == "primary"

    try:
        asyncio.run(scenario())
    finally:
        ROOT.pins.clear()


def test_streams_and_run_sync(place: Place) -> None:
    """stream(), stream_scalars() and run_sync() read on a replica, and leave nothing open."""
    place.cluster.primary.execute(
        "INSERT INTO item (name) SELECT n::text FROM generate_series(1, 500) n", dbname=place.name
    )
    place.cluster.wait_caught_up()

    async def scenario() -> None:
        every = sa.text("SELECT id, inet_server_port() FROM item ORDER BY id")
        async with place.engine() as engine:
            async with engine.connect() as connection:
                async with connection.stream(every) as result:
                    rows = [row async for row in result]
                assert len(rows) == 500
                assert {place.role(port) for _, port in rows} == {"replica"}
                assert await connection.run_sync(lambda c: c.scalar(PORT)) in {
                    replica.port for replica in place.cluster.replicas
                }
            async with AsyncSession(engine) as session:
                scalars = await session.stream_scalars(sa.text("SELECT id FROM item"))
                assert len([n async for n in scalars]) == 500
            assert engine.sync_engine.pool.checkedout() == 0  # type: ignore[attr-defined]

    asyncio.run(scenario())


@pytest.mark.parametrize("how", ["commit", "rollback"])
def test_what_cannot_be_awaited_ends_nothing(place: Place, how: str) -> None:
    """Ending a transaction where nothing can be awaited is refused, and it is still open; its end
    by the right way counts."""

    async def run(place: Place) -> None:
        async with place.engine() as engine, engine.connect() as connection:
            await connection.execute(INSERT)
            handle: Any = (await connection.get_raw_connection()).dbapi_connection
            with pytest.raises(sa.exc.MissingGreenlet, match=r"connection\.run_sync"):
                getattr(handle, how)()
            await getattr(connection, how)()
        assert place.count() == (1 if how == "commit" else 0)

    asyncio.run(run(place))


def test_the_drivers_own_connection_is_the_primarys(place: Place) -> None:
    """get_raw_connection() leads to the driver's connection to the primary, and stays there."""

    async def scenario() -> None:
        async with place.engine() as engine, engine.connect() as connection:
            raw = await connection.get_raw_connection()
            driver: Any = raw.driver_connection
            if place.driver == "asyncpg":
                await driver.execute("INSERT INTO item (name) VALUES ('native')")
            else:
                await driver.set_autocommit(True)
                await driver.execute("INSERT INTO item (name) VALUES ('native')")
            assert await place.served(connection) == "primary"
        plain = plain_create_async_engine(place.url, plugins=["router"], replicas=place.replicas)
        async with plain.connect() as connection:
            raw = await connection.get_raw_connection()
            with pytest.raises(sa.exc.InvalidRequestError, match="run_sync"):
                _ = raw.driver_connection
            there = await connection.run_sync(lambda c: c.connection.driver_connection)
            assert there is raw.driver_connection
        await plain.dispose()

    asyncio.run(scenario())
    assert place.count() == 1


class Storm:
    """Requests that set something, read, some write, and are cancelled at random moments.

    Attributes:
        cancelled: how many were, so far.
        contexts: every request's, by which its pins are judged later.
    """

    def __init__(self, engine: RoutedAsyncEngine, seed: int) -> None:
        self.engine = engine
        self.chance = random.Random(seed)
        self.cancelled = 0
        self.contexts: list[RoutingContext] = []

    async def request(self, n: int) -> None:
        with router.request_context() as context:
            self.contexts.append(context)
            async with AsyncSession(self.engine) as session:
                await session.execute(sa.text(f"SELECT set_config('app.n', '{n}', false)"))
                await session.execute(PORT)
                if n % 3 == 0:
                    await session.execute(INSERT)
                set_to = sa.text("SELECT current_setting('app.n')")
                assert (await session.execute(set_to)).scalar_one() == str(n)
                if n % 2 == 0:
                    await session.commit()

    async def burst(self) -> None:
        """25 requests at once; nothing of their errors is kept."""
        tasks = [asyncio.create_task(self.request(n)) for n in range(25)]
        for task in tasks:
            await asyncio.sleep(self.chance.random() * 0.002)
            if self.chance.random() < 0.8:
                task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert not [e for e in done if isinstance(e, Exception)]
        self.cancelled += sum(isinstance(e, asyncio.CancelledError) for e in done)

    async def left_nothing(self, place: Place) -> None:
        """No connection is out, no setting is left, no pin stays."""
        engine = self.engine
        pool: Any = engine.sync_engine.pool
        assert pool.checkedout() == 0
        assert engine.router.stats()["events"].get("blacklisted", 0) == 0
        for _ in range(20):
            with router.request_context():
                async with engine.connect() as connection:
                    left = sa.text("SELECT current_setting('app.n', true)")
                    assert not await connection.scalar(left)
                    assert await place.served(connection) == "replica"
        place.cluster.wait_caught_up()
        await engine.refresh()
        read = engine.router.intent("SELECT 1")
        goes = [engine.router.decide(read, context=context) for context in self.contexts]
        assert [decision for decision in goes if decision.on_primary] == []
        assert place.sessions() <= 30


# What is cancelled while it connects is left to the garbage collector, also by a plain engine.
# As an error the warning would keep the connection: asyncpg warns before it closes.
LEFT_TO_THE_COLLECTOR = [
    pytest.mark.filterwarnings("ignore:unclosed (connection|transport|<socket):ResourceWarning"),
    pytest.mark.filterwarnings("ignore:.*deleted while still open:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


BURSTS = int(os.environ.get("PG_ROUTER_BURSTS", "60"))
"""Of the longer run; a thousand are 25,000 requests and some minutes."""


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "bursts",
    [
        pytest.param(12, marks=LEFT_TO_THE_COLLECTOR),
        pytest.param(BURSTS, marks=[*LEFT_TO_THE_COLLECTOR, pytest.mark.slow]),
    ],
)
def test_cancellation_anywhere_leaks_nothing(place: Place, bursts: int) -> None:
    """Requests cancelled at random moments leave connections, settings and pins as they were."""

    async def scenario() -> None:
        async with place.engine(pool_size=5, max_overflow=5, pool_timeout=20) as engine:
            await engine.refresh()
            storm = Storm(engine, seed=7)
            for _ in range(bursts):
                await storm.burst()
            assert storm.cancelled > 5 * bursts
            print(f"{storm.cancelled} of {25 * bursts} requests were cancelled")
            await storm.left_nothing(place)

    asyncio.run(scenario())
    place.alone()


def test_a_timeout_ends_a_statement_and_the_engine_goes_on(place: Place) -> None:
    """asyncio.timeout() around a slow read gives TimeoutError at once, and frees the server."""

    async def scenario() -> None:
        async with place.engine() as engine:
            with pytest.raises(TimeoutError):
                async with engine.connect() as connection, asyncio.timeout(0.2):
                    await connection.execute(sa.text("SELECT pg_sleep(30)"))
            async with engine.connect() as connection:
                assert await place.served(connection) == "replica"

    asyncio.run(scenario())
    place.alone()


def test_the_loop_runs_on_while_the_router_starts(place: Place) -> None:
    """The first statement waits for the first probes; other tasks of the loop do not."""

    async def scenario() -> None:
        import socket

        with socket.socket() as black_hole:
            black_hole.bind(("127.0.0.1", 0))
            black_hole.listen()
            nowhere = f"127.0.0.1:{black_hole.getsockname()[1]}"
            engine = router.create_async_engine(place.url, [nowhere], start_timeout=0.5)
            ticks = 0

            async def tick() -> None:
                nonlocal ticks
                while True:
                    await asyncio.sleep(0.01)
                    ticks += 1

            ticking = asyncio.create_task(tick())
            async with engine.connect() as connection:
                assert await place.served(connection) == "primary"
            ticking.cancel()
            assert ticks > 5
            await engine.dispose()

    asyncio.run(scenario())


def test_one_engine_serves_several_event_loops(place: Place) -> None:
    """As in SQLAlchemy: with NullPool at once, with a pool after dispose()."""
    engines = [
        router.create_async_engine(place.url, place.replicas, poolclass=NullPool),
        router.create_async_engine(place.url, place.replicas),
    ]

    async def read(engine: RoutedAsyncEngine) -> str:
        async with engine.connect() as connection:
            role = await place.served(connection)
        if engine is engines[1]:
            await engine.dispose()
        return role

    for engine in engines:
        assert [asyncio.run(read(engine)) for _ in range(3)] == ["replica"] * 3
        engine.router.close()


def test_it_runs_on_uvloop(place: Place) -> None:
    """Uvloop runs it as asyncio's own loop does."""
    import uvloop

    async def scenario() -> None:
        async with place.engine() as engine:
            async with engine.connect() as connection:
                assert await place.served(connection) == "replica"
                await connection.execute(INSERT)
                await connection.commit()
            assert type(asyncio.get_running_loop()).__module__.startswith("uvloop")

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())
    assert place.count() == 1


def test_a_replicas_death_is_invisible_to_tasks(make_cluster: MakeCluster) -> None:
    """Reads under way on a killed replica, and those after, all succeed elsewhere."""
    cluster = make_cluster(2)
    victim = cluster.replicas[0]
    errors: list[Exception] = []

    async def scenario(driver: str) -> None:
        engine = router.create_async_engine(
            cluster.primary.url(driver=driver), [r.url() for r in cluster.replicas]
        )
        served: set[int] = set()
        stop = asyncio.Event()

        async def read() -> None:
            while not stop.is_set():
                try:
                    async with engine.connect() as connection:
                        served.add((await connection.execute(PORT)).scalar_one())
                except Exception as error:
                    errors.append(error)

        async with asyncio.TaskGroup() as group:
            for _ in range(10):
                group.create_task(read())
            while victim.port not in served:  # noqa: ASYNC110 - what other tasks find, they find
                await asyncio.sleep(0.01)
            await asyncio.to_thread(victim.kill)
            while len(engine.router.replicas) > 1:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            stop.set()
        await engine.dispose()
        await asyncio.to_thread(victim.start)

    for driver in DRIVERS:
        asyncio.run(asyncio.wait_for(scenario(driver), 60))
    assert errors == []


def test_tenants_stay_apart_over_shared_connections(place: Place) -> None:
    """Interleaved tasks of many tenants never see a row of another, on any node."""
    place.cluster.primary.execute(
        """
        CREATE TABLE note (tenant text NOT NULL, body text);
        ALTER TABLE note ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON note USING (tenant = current_setting('app.tenant', true));
        DROP ROLE IF EXISTS async_tenant;
        CREATE ROLE async_tenant LOGIN;
        GRANT SELECT, INSERT ON note TO async_tenant;
        INSERT INTO note SELECT 't' || n % 10, 'old' FROM generate_series(1, 100) n;
        """,
        dbname=place.name,
    )
    place.cluster.wait_caught_up()

    async def request(engine: RoutedAsyncEngine, n: int) -> None:
        tenant = f"t{n % 10}"
        local = str(n % 2 == 0).lower()
        async with AsyncSession(engine) as session:
            await session.execute(sa.text(f"SELECT set_config('app.tenant', '{tenant}', {local})"))
            await asyncio.sleep(0)
            rows = (await session.execute(sa.text("SELECT tenant FROM note"))).scalars().all()
            assert set(rows) == {tenant}
            assert len(rows) >= 10
            if n % 5 == 0:
                await session.execute(
                    sa.text("INSERT INTO note VALUES (:tenant, 'new')"), {"tenant": tenant}
                )
                rows = (await session.execute(sa.text("SELECT tenant FROM note"))).scalars().all()
                assert set(rows) == {tenant}
                await session.commit()

    async def scenario() -> None:
        name = sa.make_url(place.url).set(username="async_tenant")
        replicas = [
            sa.make_url(url).set(username="async_tenant").render_as_string(False)
            for url in place.replicas
        ]
        engine = router.create_async_engine(name, replicas, pool_size=4)
        for start in range(0, 200, 20):
            with router.request_context():
                await asyncio.gather(*(request(engine, n) for n in range(start, start + 20)))
        with router.request_context():
            async with engine.connect() as connection:
                left = await connection.scalars(sa.text("SELECT tenant FROM note"))
                assert left.all() == []
        assert {r for r in engine.router.stats()["decisions"] if r != "primary"} != set()
        await engine.dispose()

    try:
        asyncio.run(scenario())
    finally:
        place.cluster.primary.execute(
            "DROP TABLE note; DROP OWNED BY async_tenant; DROP ROLE async_tenant",
            dbname=place.name,
        )


def test_mistakes_are_named_with_their_cure(place: Place) -> None:
    """A synchronous driver or pool class, or a misspelt option, is refused at once."""
    with pytest.raises(router.ConfigError, match="AsyncAdaptedQueuePool"):
        router.create_async_engine(place.url, place.replicas, poolclass=QueuePool)
    with pytest.raises(router.ConfigError, match=r"did you mean 'probe_interval'"):
        router.create_async_engine(place.url, place.replicas, probe_intervall=1)
    synchronous = place.url.replace(f"+{place.driver}", "+psycopg2")
    with pytest.raises((router.ConfigError, sa.exc.InvalidRequestError, ModuleNotFoundError)):
        router.create_async_engine(synchronous, place.replicas)
    assert not [t for t in threading.enumerate() if "pg-router" in t.name]
