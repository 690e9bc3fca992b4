"""Credentials that are made for each connection, by whatever way a driver has for that."""

import asyncio
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import asyncpg
import psycopg
import psycopg2  # type: ignore[import-untyped]
import psycopg_pool
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

import router
import router.asyncpg
import router.psycopg
from router.cluster.router import Router
from router.errors import ConfigError
from router.testing import Cluster
from tests.conftest import Database
from tests.django.conftest import settings_of
from tests.failover.kit import PORT, ROLE, WRITE, prepare, until, url

EVERY = 2.0
"""Seconds for which a password is good."""
FAST = {"probe_interval": 0.2, "blacklist_duration": 0.2}
CUT = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
 WHERE application_name = 'pg-router monitor' AND usename = 'app'
"""


class Passwords:
    """Of the role "app"; each is good until the next. Whoever asks while one is being replaced
    waits for the next; who asked just before finds his refused."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._lock = threading.Lock()
        self._current = ""
        self.asked: set[int] = set()
        self.replace()

    def replace(self) -> None:
        """Another one, and monitors have to log in anew."""
        with self._lock:
            self._current = secrets.token_hex(16)
            self.cluster.primary.execute(f"ALTER ROLE {ROLE} PASSWORD '{self._current}'")
            self.cluster.wait_caught_up()
        for server in self.cluster.servers:
            server.execute(CUT)

    def __call__(self) -> str:
        with self._lock:
            return self._current

    def of(self, host: str) -> str:
        """As a call, for the server at `host`."""
        assert host
        return self()

    async def later(self) -> str:
        """As a call, by the event loop of whoever awaits it."""
        await asyncio.sleep(0)
        return self()


Way = Callable[[str], Any]
"""Runs one statement on a connection that was opened not long ago; gives its first value."""


@pytest.fixture(scope="module")
def passwords() -> Iterator[Passwords]:
    """A cluster that asks for passwords, with what they are."""
    with Cluster(1, password="of the owner") as cluster:
        prepare(cluster)
        yield Passwords(cluster)


@contextmanager
def engine_way(engine: sa.Engine) -> Iterator[tuple[Router, Way]]:
    def run(sql: str) -> Any:
        with engine.begin() if sql is WRITE else engine.connect() as connection:
            result = connection.execute(sa.text(sql))
            return result.scalar() if result.returns_rows else None

    try:
        yield engine.router, run  # type: ignore[attr-defined]
    finally:
        engine.dispose()


@contextmanager
def async_engine_way(engine: Any) -> Iterator[tuple[Router, Way]]:
    async def one(sql: str) -> Any:
        async with engine.begin() if sql is WRITE else engine.connect() as connection:
            result = await connection.execute(sa.text(sql))
            return result.scalar() if result.returns_rows else None

    with asyncio.Runner() as runner:
        try:
            yield engine.sync_engine.router, lambda sql: runner.run(one(sql))
        finally:
            runner.run(engine.dispose())


@contextmanager
def pool_way(pool: Any) -> Iterator[tuple[Router, Way]]:
    def run(sql: str) -> Any:
        with pool.connection() as connection:
            cursor = connection.execute(sql)
            return cursor.fetchone()[0] if cursor.description else None

    with pool:
        yield pool.router, run


@contextmanager
def async_pool_way(pool: Any) -> Iterator[tuple[Router, Way]]:
    async def one(sql: str) -> Any:
        async with pool.connection() as connection:
            cursor = await connection.execute(sql)
            return (await cursor.fetchone())[0] if cursor.description else None

    with asyncio.Runner() as runner:
        runner.run(pool.open())
        try:
            yield pool.router, lambda sql: runner.run(one(sql))
        finally:
            runner.run(pool.close())


@contextmanager
def asyncpg_way(**options: Any) -> Iterator[tuple[Router, Way]]:
    with asyncio.Runner() as runner:

        async def open_() -> Any:
            return await router.asyncpg.create_pool(min_size=0, max_queries=1, **options)

        pool = runner.run(open_())
        try:
            yield pool.router, lambda sql: runner.run(pool.fetchval(sql))
        finally:
            runner.run(pool.close())


@contextmanager
def django_way(passwords: Passwords, pool: Any) -> Iterator[tuple[Router, Way]]:
    import django
    from django.db import connections

    from tests.failover.rotating_backend.base import DatabaseWrapper

    django.setup()
    cluster = passwords.cluster

    def token(_host: str, port: int) -> str:
        passwords.asked.add(port)
        return passwords()

    DatabaseWrapper.token = token
    alias = f"rotating{'_pooled' if pool else ''}"
    settings = settings_of(Database(cluster, "postgres"), USER=ROLE, PASSWORD="", ROUTER=FAST)
    settings |= {"ENGINE": "tests.failover.rotating_backend", "CONN_MAX_AGE": 0}
    settings["OPTIONS"] = {**settings.get("OPTIONS", {}), **({"pool": pool} if pool else {})}
    known = connections.configure_settings({"default": {}, alias: settings})
    connections.databases[alias] = known[alias]

    def run(sql: str) -> Any:
        try:
            with connections[alias].cursor() as cursor:
                cursor.execute(sql)
                return cursor.fetchone()[0] if cursor.description else None
        finally:
            connections[alias].close()

    cluster_of = connections[alias].cluster
    try:
        yield cluster_of.router, run
    finally:
        cluster_of.close()
        del connections.databases[alias]


def ways(passwords: Passwords) -> Mapping[str, AbstractContextManager[tuple[Router, Way]]]:
    """Each way in which a driver has credentials made for a connection."""
    import django

    django.setup()  # now, and not by one of many threads, which would take it seconds
    cluster = passwords.cluster
    replicas = [url(replica, ROLE) for replica in cluster.replicas]
    options = {"replicas": replicas, "poolclass": NullPool, **FAST}
    plain = url(cluster.primary, ROLE)

    def primary(driver: str) -> str:
        return url(cluster.primary, ROLE, driver)

    def listened(engine: Any) -> Any:
        @sa.event.listens_for(getattr(engine, "sync_engine", engine), "do_connect")
        def give(_dialect: Any, _record: Any, _args: Any, parameters: dict[str, Any]) -> None:
            parameters["password"] = passwords()

        return engine

    def by(connect: Any) -> Callable[..., Any]:
        return lambda **given: connect(**{**given, "password": passwords()})

    async def async_psycopg(**given: Any) -> Any:
        return await psycopg.AsyncConnection.connect(
            **{**given, "password": await passwords.later()}
        )

    async def by_asyncpg(*args: Any, **given: Any) -> Any:
        return await asyncpg.connect(*args, **{**given, "password": await passwords.later()})

    def pg8000(**given: Any) -> Any:
        from pg8000 import dbapi  # type: ignore[import-untyped]

        return dbapi.connect(**{**given, "password": passwords()})

    engine, async_engine = router.create_engine, router.create_async_engine
    found = {
        "do_connect": engine_way(listened(engine(primary("psycopg"), **options))),
        "creator, psycopg": engine_way(
            engine(primary("psycopg"), creator=by(psycopg.connect), **options)
        ),
        "creator, psycopg2": engine_way(
            engine(primary("psycopg2"), creator=by(psycopg2.connect), **options)
        ),
        "creator, pg8000": engine_way(engine(primary("pg8000"), creator=pg8000, **options)),
        "do_connect, asyncpg": async_engine_way(
            listened(async_engine(primary("asyncpg"), **options))
        ),
        "async_creator, asyncpg": async_engine_way(
            async_engine(primary("asyncpg"), async_creator=by_asyncpg, **options)
        ),
        "async_creator, psycopg": async_engine_way(
            create_async_engine(
                primary("psycopg"), plugins=["router"], async_creator=async_psycopg, **options
            )
        ),
        "connect_args, asyncpg": async_engine_way(
            async_engine(primary("asyncpg"), connect_args={"password": passwords.later}, **options)
        ),
        "asyncpg's password": asyncpg_way(
            dsn=plain, replicas=replicas, password=passwords.later, **FAST
        ),
        "asyncpg's connect": asyncpg_way(dsn=plain, replicas=replicas, connect=by_asyncpg, **FAST),
        "Django": django_way(passwords, None),
    }
    if not hasattr(psycopg_pool.ConnectionPool, "_resolve_kwargs"):
        return found  # psycopg_pool 3.3 made the others possible

    async def later() -> dict[str, Any]:
        return {"password": await passwords.later(), "autocommit": True}

    def conninfo() -> str:
        return plain.replace(f"{ROLE}@", f"{ROLE}:{passwords()}@")

    short: dict[str, Any] = {"replicas": replicas, "max_lifetime": 0.2, "min_size": 1, **FAST}
    pool = router.psycopg.ConnectionPool
    return found | {
        "kwargs": pool_way(
            pool(plain, kwargs=lambda: {"password": passwords()}, open=False, **short)
        ),
        "conninfo": pool_way(pool(conninfo, open=False, **short)),
        "kwargs, async": async_pool_way(
            router.psycopg.AsyncConnectionPool(plain, kwargs=later, **short)
        ),
        "Django, pool": django_way(passwords, {"max_lifetime": 0.2, "min_size": 1}),
    }


def work(
    name: str,
    entered: AbstractContextManager[tuple[Router, Way]],
    passwords: Passwords,
    done: threading.Event,
) -> int:
    """Write and read by one way until `done`, from its opening on in one thread, as an event loop
    needs it; how often. Nothing may fail, and at the end its monitor is let in."""
    replica = passwords.cluster.replicas[0]
    calls = 0
    with entered as (routed, run):
        while not done.is_set():
            with router.request_context():
                run(WRITE)
            with router.request_context():
                run(PORT)
            calls += 1
        until(lambda: routed.refresh().replicas, f"{name}: its monitor is let in")
        assert all(report.ok for report in routed.snapshot.reports.values()), name
        with router.request_context():
            until(lambda: run(PORT) == replica.port, f"{name}: it reads from the replica")
    return calls


@pytest.mark.slow
def test_a_password_may_be_good_for_two_seconds(passwords: Passwords) -> None:
    """Under load no statement fails by any way, though the password changes three times and each
    monitor has to log in again every time. Django asks for each server's own."""
    done = threading.Event()
    entered = ways(passwords)
    with ThreadPoolExecutor(len(entered)) as threads:
        working = {
            name: threads.submit(work, name, way, passwords, done) for name, way in entered.items()
        }
        try:
            for _ in range(3):
                time.sleep(EVERY)  # the password's life, while the threads work
                passwords.replace()
        finally:
            done.set()
    failed = {name: repr(w.exception()) for name, w in working.items() if w.exception()}
    assert failed == {}
    counts = {name: calls.result() for name, calls in working.items()}
    assert min(counts.values()) >= 1, counts
    assert passwords.asked == {server.port for server in passwords.cluster.servers}


def test_who_cannot_get_a_password_goes_on_over_what_is_open(passwords: Passwords) -> None:
    """While the function that gives it fails, and the monitor has lost its connection, no server
    is taken to be down: reads and writes go on over the connections that are open."""
    cluster, broken = passwords.cluster, threading.Event()
    told: list[str] = []

    engine = router.create_engine(
        url(cluster.primary, ROLE, "psycopg"),
        [url(replica, ROLE) for replica in cluster.replicas],
        **FAST,
    )

    @sa.event.listens_for(engine, "do_connect")
    def give(_dialect: Any, _record: Any, _args: Any, parameters: dict[str, Any]) -> None:
        if broken.is_set():
            raise RuntimeError("no token")
        parameters["password"] = passwords()

    with engine_way(engine) as (routed, run):
        routed.telemetry.hooks.append(lambda event, _: told.append(event))
        run(WRITE)
        until(lambda: routed.refresh().replicas, "the replica is read from")
        run(PORT)
        broken.set()
        for server in cluster.servers:
            server.execute(CUT)
        until(lambda: "probe_refused" in told, "a probe was not let in")
        for _ in range(5):
            routed.refresh()
            with router.request_context():
                run(WRITE)
            with router.request_context():
                assert run(PORT) == cluster.replicas[0].port
        assert {"unreachable", "degraded", "blacklisted"} & {*told} == set()


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "pg8000"])
def test_a_creator_may_know_one_server_only(passwords: Passwords, driver: str) -> None:
    """As with plain SQLAlchemy it takes no arguments then, and the monitor goes where it leads;
    with a replica it is refused."""
    import importlib

    primary = passwords.cluster.primary
    dbapi = importlib.import_module("pg8000.dbapi" if driver == "pg8000" else driver)
    name = "database" if driver == "pg8000" else "dbname"

    def creator() -> Any:
        where = {"host": primary.host, "port": primary.port, name: "postgres"}
        return dbapi.connect(user=ROLE, password=passwords(), **where)

    lead = f"postgresql+{driver}://{ROLE}@127.0.0.1:{primary.port}/postgres"
    with engine_way(router.create_engine(lead, creator=creator, **FAST)) as (routed, run):
        run(WRITE)
        assert run(PORT) == primary.port
        assert routed.refresh().reports["primary"].ok
    with pytest.raises(ConfigError, match="creator: it takes no arguments"):
        router.create_engine(lead, ["127.0.0.1:1"], creator=creator)


def test_a_creator_that_takes_arguments_gets_them_of_one_server_too(passwords: Passwords) -> None:
    """Where there are no replicas, as on a developer's machine, the same creator is called in the
    same way."""
    primary = passwords.cluster.primary

    def connect(**given: Any) -> Any:
        return psycopg.connect(**{**given, "password": passwords.of(given["host"])})

    async def connect_later(*args: Any, **given: Any) -> Any:
        return await asyncpg.connect(*args, **{**given, "password": passwords.of(given["host"])})

    engine = sa.create_engine(url(primary, ROLE, "psycopg"), plugins=["router"], creator=connect)
    asynchronous = create_async_engine(
        url(primary, ROLE, "asyncpg"), plugins=["router"], async_creator=connect_later
    )
    for way in (engine_way(engine), async_engine_way(asynchronous)):
        with way as (routed, run):
            run(WRITE)
            assert routed.refresh().reports["primary"].ok


@pytest.mark.skipif(
    not hasattr(psycopg_pool.ConnectionPool, "_resolve_kwargs"), reason="no functions before 3.3"
)
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_function_that_fails_is_what_its_caller_is_told(
    passwords: Passwords, *, asynchronous: bool
) -> None:
    """Nobody waits for a connection that cannot be made, to be told that the pool is too small."""

    def sealed() -> dict[str, Any]:
        raise RuntimeError("the vault is sealed")

    cluster = passwords.cluster
    given: Any = {"kwargs": sealed, "min_size": 1, "timeout": 20, **FAST}
    given["replicas"] = [url(replica, ROLE) for replica in cluster.replicas]
    module: Any = router.psycopg
    if asynchronous:
        way = async_pool_way(module.AsyncConnectionPool(url(cluster.primary, ROLE), **given))
    else:
        way = pool_way(module.ConnectionPool(url(cluster.primary, ROLE), **given))
    began = time.monotonic()
    with way as (_, run), pytest.raises(ConfigError, match=r"kwargs.*RuntimeError: the vault"):
        run(PORT)
    assert time.monotonic() - began < 10


def test_a_conninfo_that_is_made_may_name_options_of_ours(passwords: Passwords) -> None:
    """What the function gives is read for each connection as it is when the pool is made."""
    primary, (replica,) = passwords.cluster.primary, passwords.cluster.replicas

    def conninfo() -> str:
        user = f"postgresql://{ROLE}:{passwords()}@"
        return f"{user}127.0.0.1:{primary.port}/postgres?replica=127.0.0.1:{replica.port}"

    if not hasattr(psycopg_pool.ConnectionPool, "_resolve_kwargs"):
        pytest.skip("no functions before 3.3")
    pool = router.psycopg.ConnectionPool(conninfo, min_size=1, timeout=10)
    with pool_way(pool) as (_, run):
        assert run(PORT) == replica.port


def test_a_session_past_pgbouncer_logs_in_as_the_pools_do(passwords: Passwords) -> None:
    """What needs a session of its own gets it by ``session_url`` with the password that the
    user's function gives, by each way that goes there."""
    primary = passwords.cluster.primary
    options: dict[str, Any] = {"pgbouncer": True, "session_url": url(primary, ROLE), **FAST}
    lock = "SELECT pg_advisory_lock(7)::text"

    def connect(**given: Any) -> Any:
        return psycopg.connect(**{**given, "password": passwords()})

    async def connect_later(*args: Any, **given: Any) -> Any:
        return await asyncpg.connect(*args, **{**given, "password": passwords()})

    engine = router.create_engine(url(primary, ROLE, "psycopg"), creator=connect, **options)
    opened = [
        engine_way(engine),
        asyncpg_way(dsn=url(primary, ROLE), connect=connect_later, **options),
    ]
    if hasattr(psycopg_pool.ConnectionPool, "_resolve_kwargs"):
        given = {"kwargs": lambda: {"password": passwords(), "autocommit": True}, **options}
        opened.append(pool_way(router.psycopg.ConnectionPool(url(primary, ROLE), **given)))
    for way in opened:
        with way as (_, run):
            assert run(lock) == ""


def test_a_creator_that_gives_nothing_is_told(passwords: Passwords) -> None:
    """One that returns None is named, and no connection is opened in its place."""
    primary = url(passwords.cluster.primary, ROLE, "psycopg")
    engine = router.create_engine(primary, creator=lambda **_: None)
    with pytest.raises(ConfigError, match="creator: it returned None"):
        engine.connect()
    engine.dispose()
