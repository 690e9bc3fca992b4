"""Through a real PgBouncer that pools by transaction, with four server connections a database."""

import asyncio
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

import router
from router.config.config import Config
from router.errors import ConfigError, SessionRefused
from router.sqlalchemy import RoutedEngine
from tests.pgbouncer import STORM, bouncer, collided, judge_prepared, pooled, prepared
from tests.sqlalchemy.kit import THROUGH, Routed
from tests.sqlalchemy.test_row_level_security import TENANTS, enter, prepare

POOLED = pytest.mark.doors(
    *(door + THROUGH for door in ("psycopg", "psycopg_async", "asyncpg_async", "psycopg2"))
)
SQL = (
    "SELECT count(*) FROM item WHERE id > :n",
    "SELECT :n + 1",
    "SELECT name FROM item LIMIT :n",
)


@contextmanager
def small(
    routed: Routed, driver: str, kept: int | None = None, **options: Any
) -> Iterator[tuple[str, dict[str, Any]]]:
    """A PgBouncer with four server connections for each database, which keeps so many prepared
    statements, and how to reach it."""
    with bouncer(routed.cluster, routed.dbname, 4, patience=60, prepared=kept) as (
        primary,
        replicas,
    ):
        url = primary.replace("postgresql:", f"postgresql+{driver}:", 1)
        yield url, {"replicas": replicas, "pgbouncer": True, "probe_timeout": 5.0, **options}


def storm(url: str, options: dict[str, Any], statements: int, threads: int = 16) -> list[str]:
    """Run as many statements from as many threads, a tenth of them writes; what went wrong."""
    engine = router.create_engine(url, pool_size=threads, **options)
    failures: list[str] = []

    def work(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(statements // threads):
            try:
                with engine.connect() as connection:
                    step(connection.execute, rng)
                    connection.commit()
            except Exception as error:
                failures.append(f"{type(error).__name__}: {error}")

    workers = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    engine.dispose()
    return failures


def storm_async(url: str, options: dict[str, Any], statements: int, tasks: int = 64) -> list[str]:
    """The same from as many tasks of one event loop."""
    failures: list[str] = []

    async def work(engine: Any, seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(statements // tasks):
            try:
                async with engine.connect() as connection:
                    await step(connection.execute, rng)
                    await connection.commit()
            except Exception as error:
                failures.append(f"{type(error).__name__}: {error}")

    async def run() -> None:
        engine = router.create_async_engine(url, pool_size=tasks, **options)
        await asyncio.gather(*(work(engine, i) for i in range(tasks)))
        await engine.dispose()

    asyncio.run(run())
    return failures


def step(execute: Any, rng: random.Random) -> Any:
    """One statement, as `execute` runs it."""
    if rng.random() < 0.1:
        return execute(sa.text("INSERT INTO item (name) VALUES (:name)"), {"name": "storm"})
    return execute(sa.text(rng.choice(SQL)), {"n": rng.randrange(100)})


@pytest.mark.slow
@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_threads_over_a_pool_of_four_meet_no_prepared_statement(
    routed: Routed, driver: str
) -> None:
    """16 threads run a storm of statements over four server connections without one error."""
    with small(routed, driver) as (url, options):
        assert storm(url, options, STORM) == []


@pytest.mark.slow
@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_tasks_over_a_pool_of_four_meet_no_prepared_statement(routed: Routed, driver: str) -> None:
    """64 tasks run a storm of statements over four server connections without one error."""
    with small(routed, driver) as (url, options):
        assert storm_async(url, options, STORM) == []


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_with_the_mode_left_off_prepared_statements_collide(routed: Routed, driver: str) -> None:
    """The same run without the mode fails by prepared statements: the one above is awake."""
    with small(routed, driver, kept=0, pgbouncer="off") as (url, options):
        failures = either_storm(driver, url, options)
    assert collided(failures)


def either_storm(driver: str, url: str, options: dict[str, Any]) -> list[str]:
    if driver == "asyncpg":
        return storm_async(url, options, 640)
    return storm(url, options, 1600)


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_a_pgbouncer_that_keeps_prepared_statements_may_have_them(
    routed: Routed, driver: str
) -> None:
    """With prepared_statements=True the driver prepares what it repeats: without one error from
    PgBouncer 1.21 on, where max_prepared_statements is set; before, they collide."""
    with small(routed, driver, kept=100, prepared_statements=True) as (url, options):
        failures = either_storm(driver, url, options)
        kept = prepared(url.replace(f"+{driver}", ""))
    judge_prepared(failures, kept)


REFUSED = [
    "SET search_path = public",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "RESET ALL",
    "DISCARD ALL",
    "SELECT set_config('app.tenant', 'x', false)",
    "INSERT INTO item (name) SELECT set_config('app.tenant', 'x', false)",
    "SELECT pg_advisory_lock(1)",
    "SELECT pg_try_advisory_lock(1)",
    "LISTEN jobs",
    "CREATE TEMP TABLE t (i int)",
    "CREATE TEMP TABLE t AS SELECT 1",
    "SELECT 1 AS i INTO TEMP t",
    "PREPARE p AS SELECT 1",
    "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
]


@POOLED
def test_what_needs_a_session_is_refused_before_it_is_sent(routed: Routed) -> None:
    """Each statement that leaves something in its session raises SessionRefused, in a transaction
    and outside; what lasts for the transaction runs."""
    for begun in (False, True):
        for sql in REFUSED:
            with routed.engine.connect() as connection:
                if begun:
                    connection.execute(sa.text("INSERT INTO item (name) VALUES ('x')"))
                with pytest.raises(SessionRefused, match="PgBouncer gives none"):
                    connection.execute(sa.text(sql))
                with pytest.raises(sa.exc.InvalidRequestError):
                    connection.execute(sa.text(sql))
    with routed.engine.connect() as connection:
        connection.execute(sa.text("SET LOCAL app.tenant = 'me'"))
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(1)"))
        assert connection.scalar(sa.text("SELECT current_setting('app.tenant')")) == "me"
        connection.commit()
        assert not connection.scalar(sa.text("SELECT current_setting('app.tenant', true)"))


PID = sa.text("SELECT pg_backend_pid()")


@POOLED
def test_what_needs_a_session_goes_past_pgbouncer(routed: Routed) -> None:
    """With session_url each such statement has a session of its own past PgBouncer, and so has all
    that follows in its checkout; nothing of it is left for others."""
    engine = routed.another(session_url=routed.cluster.primary.url(routed.dbname))
    with engine.connect() as connection:
        pid = connection.scalar(PID.execution_options(router="primary"))
        assert pid in pooled(engine.router.config.primary.port)
    for sql in REFUSED:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text(sql))
            pid = connection.scalar(PID)
            assert pid not in pooled(engine.router.config.primary.port)
            connection.execute(sa.text("SELECT count(*) FROM item"))
            assert connection.scalar(PID) == pid
            assert routed.served(connection) == "primary"
    with engine.connect() as connection:
        connection.execute(sa.text("CREATE TEMP TABLE kept AS SELECT 42 AS x"))
        connection.commit()
        assert connection.scalar(sa.text("SELECT x FROM kept")) == 42
        pid = connection.scalar(PID)
    gone = sa.text("SELECT count(*) FROM pg_stat_activity WHERE pid = :pid")
    with routed.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT", router="primary")
        deadline = time.monotonic() + 10
        while connection.scalar(gone, {"pid": pid}):
            assert time.monotonic() < deadline


@POOLED
def test_a_transaction_under_way_does_not_change_its_session(routed: Routed) -> None:
    """After a write what needs a session is refused, saying that it has to come first; a checkout
    on the primary past PgBouncer is asked for by router="session"."""
    engine = routed.another(session_url=routed.cluster.primary.url(routed.dbname))
    with engine.connect() as connection:
        connection.execute(sa.text("INSERT INTO item (name) VALUES ('x')"))
        with pytest.raises(SessionRefused, match="the first statement of its transaction"):
            connection.execute(sa.text("LISTEN jobs"))
    with engine.connect().execution_options(router="session") as connection:
        pid = connection.scalar(PID)
        connection.execute(sa.text("INSERT INTO item (name) VALUES ('y')"))
        connection.execute(sa.text("LISTEN jobs"))
        connection.commit()
        assert connection.scalar(PID) == pid
    with (
        routed.engine.connect().execution_options(router="session") as connection,
        pytest.raises(SessionRefused, match="give session_url"),
    ):
        connection.execute(sa.text("SELECT 1"))


@POOLED
def test_a_session_url_that_leads_elsewhere_is_refused(routed: Routed) -> None:
    """A standby, or nobody, behind session_url: the statement is not sent, and the message names
    the option; of several hosts the primary is found."""
    primary = routed.cluster.primary.url(routed.dbname)
    standby = routed.cluster.replicas[0].url(routed.dbname)
    for url, said in (
        (standby, "session_url: the server there is not the primary"),
        ("postgresql://postgres@127.0.0.1:1/x", "session_url: "),
    ):
        engine = routed.another(session_url=url)
        with engine.connect() as connection, pytest.raises(SessionRefused, match=said):
            connection.execute(sa.text("LISTEN jobs"))
        assert not engine.router.blacklisted
    port = f":{routed.cluster.primary.port}/"
    several = primary.replace(port, f":{routed.cluster.replicas[0].port},127.0.0.1{port}")
    with routed.another(session_url=several).connect() as connection:
        connection.execute(sa.text("LISTEN jobs"))
        assert routed.served(connection) == "primary"


@POOLED
def test_no_isolation_level_reaches_another_client(routed: Routed) -> None:
    """What execution options say of a transaction is over with it on every server session."""
    options = {"isolation_level": "SERIALIZABLE", "postgresql_readonly": True}
    ask = sa.text(
        "SELECT current_setting('default_transaction_isolation'), "
        "current_setting('default_transaction_read_only'), current_setting('lock_timeout')"
    )
    for _ in range(4):
        with routed.engine.connect().execution_options(**options) as connection:
            assert connection.get_isolation_level() == "SERIALIZABLE"
            connection.scalar(sa.text("SELECT 1"))
            connection.commit()
    with routed.engine.connect() as connection:
        for role in ("primary", "replica"):
            statement = ask.execution_options(router=role)
            assert connection.execute(statement).one() == ("read committed", "off", "0")


def test_no_tenant_sees_anothers_row_over_a_pool_of_four(routed: Routed) -> None:
    """Row-level security by SET LOCAL and set_config(…, true) holds over shared server sessions:
    8 threads, 400 transactions, not one row of another tenant, nor any after the transaction."""
    prepare(routed)
    leaks: list[object] = []
    failures: list[str] = []
    ask = sa.text("SELECT tenant FROM secret")

    def work(engine: RoutedEngine, seed: int) -> None:
        rng = random.Random(seed)
        for n in range(50):
            tenant = f"tenant_{rng.randrange(TENANTS)}"
            how = ("set local", "set_config")[n % 2]
            try:
                with router.request_context(), engine.connect() as connection:
                    enter(connection, how, tenant)
                    if rng.random() < 0.3:
                        add = "INSERT INTO secret (tenant, note) VALUES (:tenant, 'new')"
                        connection.execute(sa.text(add), {"tenant": tenant})
                    found = connection.scalars(ask).all()
                    if set(found) != {tenant}:
                        leaks.append((how, tenant, found[:3]))
                    connection.commit()
                    if after := connection.scalars(ask).all():
                        leaks.append(("after", how, after[:3]))
            except Exception as error:
                failures.append(f"{type(error).__name__}: {error}")

    with small(routed, "psycopg") as (url, options):
        url, *options["replicas"] = (
            each.replace("postgres@", "tenants_app@") for each in (url, *options["replicas"])
        )
        engine = router.create_engine(url, pool_size=8, **options)
        threads = [threading.Thread(target=work, args=(engine, i)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        engine.dispose()
    assert (leaks, failures) == ([], [])


def test_pooling_by_statement_needs_autocommit(routed: Routed) -> None:
    """With "statement" a transaction is refused before it is sent, and AUTOCOMMIT works."""
    with small(routed, "psycopg", pgbouncer="statement") as (url, options):
        engine = router.create_engine(url, **options)
        insert = sa.text("INSERT INTO item (name) VALUES ('x')")
        with engine.connect() as connection, pytest.raises(SessionRefused, match="AUTOCOMMIT"):
            connection.execute(insert)
        engine.dispose()
        engine = router.create_engine(url, isolation_level="AUTOCOMMIT", **options)
        with engine.connect() as connection:
            connection.execute(insert)
        engine.dispose()
    assert routed.count() == 1


def test_pg8000_and_refused_start_up_parameters_are_found_when_the_engine_is_made() -> None:
    """A driver or parameter that cannot go through PgBouncer is a ConfigError with the cure."""
    with pytest.raises(ConfigError, match=r"pg8000 sends a statement in parts.*use psycopg"):
        router.create_engine("postgresql+pg8000://u@h/db?pgbouncer=true")
    with pytest.raises(ConfigError, match="options: PgBouncer refuses this start-up parameter"):
        router.create_engine("postgresql://u@h/db?pgbouncer=true&options=-csearch_path%3Dx")
    settings = {"connect_args": {"server_settings": {"search_path": "x"}}}
    with pytest.raises(ConfigError, match="search_path: PgBouncer refuses"):
        router.create_async_engine(
            "postgresql+asyncpg://u@h/db", pgbouncer="transaction", **settings
        )


def test_a_node_may_stand_without_a_pgbouncer() -> None:
    """The mode is said for all, or of one server, in a mapping or its URL."""
    config = Config.from_url(
        "postgresql://u@h/db?pgbouncer=true",
        replicas=[
            {"host": "r1", "pgbouncer": "off"},
            "postgresql://r2/db?pgbouncer=session",
            "r3",
        ],
    )
    servers = [config.primary, *config.replicas]
    assert [config.pooling(s) for s in servers] == ["transaction", "off", "session", "transaction"]
    assert [config.unprepared(s) for s in servers] == [True, False, False, True]
    assert "pgbouncer" not in config.replicas[1].params
    assert not config.but(prepared_statements=True).unprepared(config.primary)
