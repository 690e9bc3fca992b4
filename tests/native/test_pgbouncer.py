"""The drivers' own pools through a real PgBouncer that pools by transaction."""

import asyncio
import random
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from router import request_context
from router.errors import ConfigError, SessionRefused
from tests.conftest import Database
from tests.native.kit import DOORS, DRIVER_ERRORS
from tests.pgbouncer import STORM, bouncer, collided, judge_prepared, prepared

SQL = (
    "SELECT count(*) FROM item WHERE id > {}",
    "SELECT {} + 1",
    "SELECT name FROM item LIMIT {}",
)


@contextmanager
def small(
    database: Database, way: str, prepared: int | None = None, **options: Any
) -> Iterator[Any]:
    """A pool by the door `way`, over a PgBouncer with four server connections a database, which
    keeps so many `prepared` statements."""
    database.execute("CREATE TABLE item (id serial PRIMARY KEY, name text NOT NULL)")
    database.cluster.wait_caught_up()
    with bouncer(database.cluster, database.name, 4, patience=60, prepared=prepared) as (
        primary,
        replicas,
    ):
        given = {"replicas": replicas, "pgbouncer": True, "probe_timeout": 5.0, **options}
        door: Any = DOORS[way](primary, **given)
        door.url = primary
        try:
            yield door
        finally:
            door.close()


def storm(door: Any, statements: int) -> list[str]:
    """Run as many statements from 16 threads or 64 tasks, a tenth of them writes; what went
    wrong."""
    failures: list[str] = []

    def statement(rng: random.Random) -> str:
        if rng.random() < 0.1:
            return "INSERT INTO item (name) VALUES ('storm')"
        return rng.choice(SQL).format(door.parameter)

    def arguments(sql: str, rng: random.Random) -> tuple[int, ...]:
        return (rng.randrange(100),) if door.parameter in sql else ()

    def work(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(statements // 16):
            try:
                with request_context(), door.pool.connection() as connection:
                    sql = statement(rng)
                    connection.execute(sql, arguments(sql, rng))
            except Exception as error:
                failures.append(f"{type(error).__name__}: {error}")

    async def task(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(statements // 64):
            try:
                with request_context():
                    sql = statement(rng)
                    await door.one(sql, arguments(sql, rng))
            except Exception as error:
                failures.append(f"{type(error).__name__}: {error}")

    async def tasks() -> None:
        await asyncio.gather(*(task(i) for i in range(64)))

    if door.asynchronous:
        door.loop(tasks())
        return failures
    threads = [threading.Thread(target=work, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return failures


@pytest.mark.slow
def test_a_pool_of_four_meets_no_prepared_statement(database: Database, way: str) -> None:
    """16 threads, or 64 tasks, run a storm of statements over four server connections without one
    error."""
    with small(database, way, max_size=16) as door:
        assert storm(door, STORM) == []


def test_with_the_mode_left_off_prepared_statements_collide(database: Database, way: str) -> None:
    """The same run without the mode fails by prepared statements: the one above is awake."""
    with small(database, way, prepared=0, max_size=16, pgbouncer="off") as door:
        failures = storm(door, 2_560)
    assert collided(failures)


def test_a_pgbouncer_that_keeps_prepared_statements_may_have_them(
    database: Database, way: str
) -> None:
    """With prepared_statements=True the driver prepares what it repeats: without one error from
    PgBouncer 1.21 on, where max_prepared_statements is set; before, they collide."""
    with small(database, way, prepared=100, max_size=16, prepared_statements=True) as door:
        failures = storm(door, 2_560)
        kept = prepared(door.url)
    judge_prepared(failures, kept)


REFUSED = ["SET search_path = public", "LISTEN jobs", "CREATE TEMP TABLE t (i int)",
           "SELECT pg_advisory_lock(1)", "PREPARE p AS SELECT 1"]  # fmt: skip


@pytest.mark.parametrize("sql", REFUSED)
def test_what_needs_a_session_is_refused(database: Database, way: str, sql: str) -> None:
    """Without session_url a statement that would leave something in another client's session is
    refused before it is sent, by an error that is the driver's too."""
    with small(database, way) as door, door.connection() as connection:
        with pytest.raises(SessionRefused) as caught:
            door.run(connection, sql)
        assert isinstance(caught.value, DRIVER_ERRORS)
        assert door.run(connection, "SELECT 1") == [(1,)]


def test_a_session_url_to_another_database_is_refused(database: Database, way: str) -> None:
    """What needs a session, as locks do, is not sent to another database of the primary's."""
    elsewhere = database.cluster.primary.url("postgres")
    said = f"session_url: the database there is 'postgres', and the primary's '{database.name}'"
    with (
        small(database, way, session_url=elsewhere) as door,
        door.connection() as connection,
        pytest.raises(SessionRefused, match=said),
    ):
        door.run(connection, "SELECT pg_advisory_lock(1)")


def test_a_name_that_leads_to_another_database_is_refused(database: Database, way: str) -> None:
    """A replica of another database is refused by its name, and behind PgBouncer at the start."""
    replica = database.cluster.replicas[0]
    opens = f"opens the database 'postgres', and the primary '{database.name}'"
    with pytest.raises(ConfigError, match=f"replicas\\[0\\]: it {opens}"):
        DOORS[way](database.primary_url(), replicas=[replica.url("postgres")])
    astray = f"\nastray = host={replica.host} port={replica.port} dbname=postgres"
    with bouncer(database.cluster, database.name, entries=astray) as (primary, _):
        elsewhere = primary.rpartition("/")[0] + "/astray"
        with (
            pytest.raises(ConfigError, match=f"replicas\\[0\\]: replica1 .*{opens}"),
            closing(DOORS[way](primary, replicas=[elsewhere], pgbouncer=True)) as door,
            door.connection() as connection,
        ):
            door.run(connection, "SELECT 1")


def test_session_url_leads_past_it(database: Database, way: str) -> None:
    """With session_url such statements run on a session of the primary's own, where they stay
    together, and end with the connection."""
    with (
        small(database, way, session_url=database.primary_url()) as door,
        request_context(),
    ):
        with door.connection() as connection:
            door.run(connection, "CREATE TEMP TABLE t (i int)")
            door.run(connection, "INSERT INTO t VALUES (1)")
            assert door.run(connection, "SELECT i FROM t") == [(1,)]
            port = door.run(connection, "SELECT inet_server_port()")
            assert port == [(database.cluster.primary.port,)]
        with door.connection() as connection:
            assert door.run(connection, "SELECT to_regclass('t')") == [(None,)]


def test_notifications_come_past_it(database: Database, way: str) -> None:
    """LISTEN and what it hears have a session of their own by session_url."""
    with small(database, way, session_url=database.primary_url()) as door:
        assert door.heard("jobs", lambda: database.execute("NOTIFY jobs, 'one'")) == ["one"]


def test_a_schema_is_checked_behind_it(database: Database, way: str) -> None:
    """A schema that PgBouncer does not begin its sessions in is refused, not silently missed."""
    with (
        pytest.raises(ConfigError, match=r"schema.*search_path.*mine"),
        small(database, way, schema="mine") as door,
        door.connection(timeout=5.0) as connection,
    ):
        door.run(connection, "SELECT 1")
