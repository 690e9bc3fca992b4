"""How a Router keeps its catalog: read whole where it changed, and kept where it did not."""

import os
import signal
from collections.abc import Iterator

import psycopg
import pytest

import router
from router.cluster.router import Router
from router.model import Report
from router.sql.catalog import BUILTIN
from router.sql.queries import FINGERPRINT
from router.testing import Cluster
from tests.probing import until

NAME = "catalog_reader"


@pytest.fixture
def watched(cluster: Cluster) -> Iterator[Router]:
    """A started Router over a database of its own, that has read its catalog."""
    cluster.primary.execute(f"create database {NAME}")
    cluster.primary.execute(
        "create table t (a int); create function f() returns int language sql as 'select 1'",
        dbname=NAME,
    )
    for replica in cluster.replicas:
        replica.wait_caught_up()
    engine = router.create_engine(
        cluster.primary.url(NAME), replicas=[r.url(NAME) for r in cluster.replicas]
    )
    try:
        engine.router.start()
        until(lambda: engine.router.catalog.current is not BUILTIN)
        yield engine.router
    finally:
        engine.dispose()
        cluster.primary.execute(f"drop database {NAME} with (force)")


def test_what_was_classified_stays_known_while_nothing_changes(watched: Router) -> None:
    """A reading that finds nothing new forgets no text."""
    watched.intent("SELECT a FROM t")
    catalog = watched.catalog
    assert catalog.learn(catalog.current, catalog.generation)
    assert "SELECT a FROM t" in catalog.classifier.known


def test_what_another_process_changes_is_seen(cluster: Cluster, watched: Router) -> None:
    """A function that acts now, by DDL of somebody else, is no read after the next reading."""
    assert watched.intent("SELECT f()").kind.name == "READ"
    cluster.primary.execute(
        "create or replace function f() returns int language sql as "
        "'select 1 from (select pg_advisory_lock(1)) x'",
        dbname=NAME,
    )
    assert watched.monitor is not None
    watched.monitor.refresh_catalog()
    until(lambda: watched.intent("SELECT f()").kind.name == "WRITE")


def test_ddl_that_was_rolled_back_costs_no_reading(watched: Router) -> None:
    """After DDL of this process that came to nothing the catalog of before is in force again."""
    before = watched.catalog.current
    watched.catalog.ddl()
    assert watched.catalog.current is BUILTIN
    until(lambda: watched.catalog.current is before)


REPLACE = (
    "create or replace function f() returns int language sql as "
    "'select 1 from (select pg_advisory_lock(1)) x'"
)


def test_a_function_that_another_process_replaces_is_known_soon(
    cluster: Cluster, watched: Router
) -> None:
    """Nobody here saw the DDL: the stamp that the monitor asks for shows it, within 10 seconds of
    the 60 until the whole catalog is looked at again."""
    assert watched.intent("SELECT f()").kind.name == "READ"
    cluster.primary.execute(REPLACE, dbname=NAME)
    until(lambda: watched.intent("SELECT f()").kind.name == "WRITE")


def test_the_stamp_is_free_of_order(cluster: Cluster, watched: Router) -> None:
    """A transaction that began first and is committed last has an older number than what was
    written meanwhile; it is seen all the same."""
    with psycopg.connect(cluster.primary.conninfo(NAME)) as longer:
        longer.execute("select pg_current_xact_id()")
        cluster.primary.execute("create function g() returns int return 1", dbname=NAME)
        until(lambda: watched.intent("SELECT g()").kind.name == "READ")
        longer.execute(REPLACE)
    until(lambda: watched.intent("SELECT f()").kind.name == "WRITE")


@pytest.mark.parametrize(
    ("sql", "news"),
    [
        ("create temp table mine (a int primary key)", False),
        ("truncate t", False),
        ("vacuum full t", False),
        ("refresh materialized view kept", False),
        ("refresh materialized view late", True),
        ("alter table t rename to u", True),
        ("create index on t (abs(a))", True),
        ("alter table t set schema app", True),
        ("alter function f() rename to g", True),
        ("drop function f()", True),
    ],
)
def test_only_what_may_change_a_verdict_is_news(
    cluster: Cluster, watched: Router, sql: str, news: bool
) -> None:
    """What sessions make for themselves, and what only writes files anew, changes no stamp."""
    with psycopg.connect(cluster.primary.conninfo(NAME), autocommit=True) as connection:
        connection.execute(
            "create schema app; create materialized view kept as select 1 as a;"
            "create materialized view late as select 1 as a with no data"
        )
        before = connection.execute(FINGERPRINT).fetchone()
        connection.execute(sql.encode())
        assert (connection.execute(FINGERPRINT).fetchone() != before) is news


def test_news_that_decide_nothing_forget_nothing(cluster: Cluster, watched: Router) -> None:
    """Where the catalog is as it was in all that decides, texts stay known after a reading."""
    watched.intent("SELECT a FROM t")
    before = watched.catalog.current
    cluster.primary.execute("alter function f() cost 7", dbname=NAME)
    assert watched.monitor is not None
    watched.monitor.refresh_catalog()
    with psycopg.connect(cluster.primary.conninfo(NAME)) as connection:
        (told,) = connection.execute(FINGERPRINT).fetchone() or ("",)
    reader = watched.monitor._probing._catalog  # type: ignore[union-attr]
    until(lambda: reader._known[0] == told)
    assert watched.catalog.current is before
    assert "SELECT a FROM t" in watched.catalog.classifier.known


WAITS = (
    "select pid from pg_stat_activity where application_name = 'pg-router monitor'"
    f" and datname = '{NAME}' and wait_event_type = 'Lock'"
)


def test_a_server_that_falls_silent_over_a_stamp_is_seen_to_be(
    cluster: Cluster, watched: Router
) -> None:
    """The next probe is asked behind the stamp that gets no answer, and tells of the silence; when
    the server goes on, so does everything."""
    primary = cluster.primary

    def report() -> Report:
        return watched.snapshot.reports["primary"]

    waiting: list[int] = []

    def waits() -> bool:
        watcher.execute("insert into t values (1)")  # which a stamp follows
        waiting.extend(pid for (pid,) in watcher.execute(WAITS))
        return bool(waiting)

    with (
        psycopg.connect(primary.conninfo(NAME)) as holder,
        psycopg.connect(primary.conninfo(NAME), autocommit=True) as watcher,
    ):
        holder.execute("lock pg_catalog.pg_range")
        until(waits)
        assert report().ok  # a stamp that is waited for is no silence
        pid = waiting[0]
        os.kill(pid, signal.SIGSTOP)
        try:
            holder.rollback()
            until(lambda: not report().ok, lambda: str(report()))
        finally:
            os.kill(pid, signal.SIGCONT)
        until(lambda: report().ok, lambda: str(report()))
    primary.execute(REPLACE, dbname=NAME)
    until(lambda: watched.intent("SELECT f()").kind.name == "WRITE", seconds=30)


def test_a_stamp_that_takes_too_long_is_given_up(cluster: Cluster, watched: Router) -> None:
    """While somebody holds a lock on the catalog the probes go on, and statements are judged as
    before."""
    with psycopg.connect(cluster.primary.conninfo(NAME)) as holder:
        holder.execute("lock pg_catalog.pg_range")
        cluster.primary.execute("create table other (a int)", dbname=NAME)
        for _ in range(3):
            watched.refresh()
            assert watched.snapshot.reports["primary"].ok
        assert watched.intent("SELECT f()").kind.name == "READ"
