"""What ``router.doctor`` finds on real servers and real PgBouncers."""

import re
import time
from typing import Any

import psycopg
import pytest

import router
from router import Config
from tests.conftest import Database, MakeCluster
from tests.pgbouncer import bouncer

SUBDUED = {"conflicts"}
"""What is so of every replica of the tests' cluster, as PostgreSQL has it by default."""


APP = """
    DO $$ BEGIN CREATE ROLE app LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$
"""
"""A user whom the console of the tests' PgBouncer refuses."""


def found(target: Any) -> set[tuple[str, str, str]]:
    """Level, code and node of everything found, without what is always so."""
    told = router.doctor(target)
    return {(f.level, f.code, f.node) for f in told.findings if f.code not in SUBDUED}


def config(database: Database, **options: Any) -> Config:
    return Config.from_url(database.primary_url(), database.replica_urls(), **options)


def test_a_sound_cluster(database: Database) -> None:
    """Nothing but a note on the default of max_standby_streaming_delay is found."""
    told = router.doctor(config(database))
    assert told.nodes == ("primary", "replica1", "replica2")
    assert {(f.level, f.code) for f in told.findings} == {("note", "conflicts")}
    assert not told.failed(strict=True)


def test_servers_that_do_not_let_us_in(database: Database, make_cluster: MakeCluster) -> None:
    """Unreachable, refused and of another cluster are three things, told without a password."""
    other = make_cluster(replicas=0, password="s3cret")
    other.primary.execute(f"CREATE DATABASE {database.name}")
    right = other.primary.url(database.name)
    replicas = ["127.0.0.1:1", right, right.replace("s3cret", "wr0ng")]
    told = config(database).but(replicas=replicas)
    assert found(told) == {
        ("error", "unreachable", "replica1"),
        ("error", "other-cluster", "replica2"),
        ("error", "login", "replica3"),
    }
    assert "wr0ng" not in str(router.doctor(told))


def test_one_server_by_two_names(database: Database) -> None:
    """A replica that is the primary by another name is an error, one listed twice a warning."""
    again = database.primary_url().replace("127.0.0.1", "localhost")
    twice = [database.replica_urls()[0]] * 2
    assert found(config(database).but(replicas=[again, *twice])) == {
        ("error", "same-server", "replica1"),
        ("warning", "same-server", "replica3"),
    }


def test_roles_that_were_exchanged(database: Database) -> None:
    """A primary's URL that is a standby's is told with the name of the node that is primary."""
    first, *others = database.replica_urls()
    exchanged = Config.from_url(first, [*others, database.primary_url()])
    assert found(exchanged) == {("warning", "primary-moved", "replica2")}
    assert found(Config.from_url(first, others)) == {("error", "no-primary", "")}


def test_another_database_behind_a_pooler(database: Database) -> None:
    """Where names say nothing the servers are asked: a replica's entry that leads to another
    database is an error, and so is such a session_url, or a default that is not the primary's."""
    replica = database.cluster.replicas[0]
    astray = f"\nastray = host={replica.host} port={replica.port} dbname=postgres"
    with bouncer(database.cluster, database.name, entries=astray) as (primary, replicas):
        urls = [replicas[0], primary.rpartition("/")[0] + "/astray"]
        session = database.cluster.primary.url("postgres")
        pooled = Config.from_url(primary, urls, pgbouncer=True, session_url=session)
        told = router.doctor(pooled)
    errors = [str(f) for f in told.findings if f.level == "error"]
    opens = f"it opens the database 'postgres', and primary {database.name!r}"
    assert [error.partition(": name")[0] for error in errors] == [
        f"error: replica2: {opens}",
        f"error: session_url: {opens}",
    ]
    assert all(error.endswith("[other-database]") for error in errors)
    defaults = Config.from_url(database.cluster.primary.url("postgres").rpartition("/")[0], [
        replica.url(database.name)
    ])  # fmt: skip
    assert found(defaults) == {("error", "other-database", "replica1")}


def test_a_replica_that_is_a_primary(make_cluster: MakeCluster) -> None:
    """Two that take writes are an error; a short max_standby_streaming_delay is a warning."""
    cluster = make_cluster(replicas=1, settings={"max_standby_streaming_delay": "1s"})
    (replica,) = cluster.replicas
    target = Config.from_url(cluster.primary.url(), [replica.url()])
    (finding,) = router.doctor(target).findings
    assert (finding.level, finding.code) == ("warning", "conflicts")
    replica.promote()
    assert found(target) == {
        ("warning", "primary-moved", "replica1"),
        ("error", "two-primaries", "primary"),
    }


@pytest.mark.parametrize(
    ("pool_mode", "said", "level", "code"),
    [
        ("transaction", "off", "error", "pgbouncer-unsaid"),
        ("transaction", "session", "error", "pgbouncer-mode"),
        ("transaction", "statement", "warning", "pgbouncer-mode"),
        ("statement", "transaction", "error", "pgbouncer-mode"),
        ("session", "off", "note", "pgbouncer-unsaid"),
        ("session", "transaction", "warning", "pgbouncer-mode"),
    ],
)
def test_how_a_pgbouncer_pools(
    database: Database, pool_mode: str, said: str, level: str, code: str
) -> None:
    """What was said of a PgBouncer is compared with what it says, and for a user whom its console
    refuses, with what it does, on every node."""
    options = {"pgbouncer": said, "session_url": database.primary_url()}
    database.execute(APP)
    with bouncer(database.cluster, database.name, pool_mode=pool_mode) as (primary, replicas):
        for user in ("postgres@", "app@"):
            urls = [url.replace("postgres@", user) for url in (primary, *replicas)]
            told = found(Config.from_url(urls[0], urls[1:], **options))
            assert told == {(level, code, node) for node in ("primary", "replica1", "replica2")}


@pytest.mark.parametrize("pool_mode", ["transaction", "session", "statement"])
def test_a_pgbouncer_well_said(database: Database, pool_mode: str) -> None:
    """Said as it is there is nothing to find."""
    options = {"pgbouncer": pool_mode, "session_url": database.primary_url()}
    with bouncer(database.cluster, database.name, pool_size=4, pool_mode=pool_mode) as (
        primary,
        replicas,
    ):
        assert found(Config.from_url(primary, replicas, **options)) == set()


def test_what_a_pgbouncer_lacks(database: Database) -> None:
    """No session_url, one that leads to the PgBouncer too, one to a standby, statements kept
    prepared that PgBouncer drops, as 1.18 always does, more clients than it bears."""
    with bouncer(database.cluster, database.name, prepared=0) as (primary, replicas):
        pooled = Config.from_url(primary, replicas, pgbouncer=True)
        assert found(pooled) == {("warning", "session-url-missing", "primary")}
        assert found(pooled.but(session_url=primary)) == {
            ("error", "session-url-pooled", "session_url")
        }
        assert found(pooled.but(session_url=database.replica_urls()[0])) == {
            ("error", "session-url-standby", "session_url")
        }
        options = {"prepared_statements": True, "pool_size": 400}
        assert found(pooled.but(session_url=database.primary_url(), **options)) == {
            ("error", "budget", "primary"),
            *(("error", "prepared-unkept", node) for node in ("primary", "replica1", "replica2")),
        }


def test_a_mode_without_a_pgbouncer(database: Database) -> None:
    """The mode said of plain servers is a warning: it takes away what works there."""
    told = found(config(database, pgbouncer=True, session_url=database.primary_url()))
    assert told == {
        ("warning", "pgbouncer-absent", node) for node in ("primary", "replica1", "replica2")
    }


def test_pools_over_max_connections(database: Database) -> None:
    """Pools that may open more than a server bears are an error, without limit a warning."""
    assert found(config(database, pool_size=20, workers=10)) == {
        ("error", "budget", node) for node in ("primary", "replica1", "replica2")
    }
    assert found(Config.from_url(database.primary_url(), pool_size=0)) == {
        ("warning", "budget", "primary"),
        ("note", "no-replica", ""),
    }


def test_replicas_that_stand_still(database: Database) -> None:
    """Paused replay is a warning, and so is a lag over the limit."""
    with database.cluster.replay_paused():
        database.execute("CREATE TABLE item (id int)")
        told = found(config(database, max_lag_seconds=None, max_lag_bytes=0))
    assert told == {
        ("warning", code, node)
        for code in ("replay-paused", "lag")
        for node in ("replica1", "replica2")
    }


def test_clocks_that_differ(database: Database) -> None:
    """A replica whose clock is an hour ahead is told beside this machine's and the primary's."""
    # In this database alone, and under the name a server's own functions are asked by.
    database.execute("ALTER FUNCTION pg_catalog.clock_timestamp() RENAME TO its_own_clock")
    database.execute(
        "CREATE FUNCTION pg_catalog.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS "
        "'SELECT pg_catalog.its_own_clock() + interval ''1 hour'' * pg_is_in_recovery()::int'"
    )
    database.cluster.wait_caught_up()
    findings = [f for f in router.doctor(config(database)).findings if f.code not in SUBDUED]
    assert [(f.level, f.code) for f in findings] == [("warning", "clock-skew")] * 4
    for node in ("replica1", "replica2"):
        mine, primarys = [f.what for f in findings if f.node == node]
        assert re.fullmatch(r"its clock is 3(599|600)\.\d s ahead of this machine's", mine)
        assert re.fullmatch(r"its clock is 3(599|600)\.\d s ahead of primary's", primarys)


def test_a_catalog_that_cannot_be_read(database: Database) -> None:
    """A user who must not read functions has what uses them run on the primary, and is told so."""
    database.execute(APP)
    database.execute("REVOKE SELECT ON pg_catalog.pg_proc FROM PUBLIC")
    database.cluster.wait_caught_up()
    urls = [url.replace("postgres@", "app@") for url in database.cluster.urls(database.name)]
    assert found(Config.from_url(urls[0], urls[1:])) == {
        ("warning", "catalog-unreadable", node) for node in ("primary", "replica1", "replica2")
    }


def test_a_replica_that_cancels_reads_and_receives_nothing(make_cluster: MakeCluster) -> None:
    """Reads that replay has cancelled are counted; with the primary gone nothing is received."""
    cluster = make_cluster(1, settings={"max_standby_streaming_delay": "0"})
    primary, (replica,) = cluster.primary, cluster.replicas
    target = Config.from_url(primary.url(), [replica.url()])
    primary.execute("CREATE TABLE item AS SELECT 1 AS id")
    cluster.wait_caught_up()
    with psycopg.connect(replica.url()) as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.execute("SELECT count(*) FROM item")
        primary.execute("DELETE FROM item")
        primary.execute("VACUUM item")
        with pytest.raises(psycopg.OperationalError):
            reader.execute("SELECT pg_sleep(30)")
    deadline = time.monotonic() + 20  # the server counts it when it gets round to it
    while "; 1 were" not in (told := router.doctor(target).findings[0]).what:
        assert time.monotonic() < deadline, told
    assert (told.level, told.code) == ("warning", "conflicts")
    primary.stop()
    assert found(target) == {
        ("error", "unreachable", "primary"),
        ("error", "no-primary", ""),
        ("warning", "not-streaming", "replica1"),
    }


def test_settings(database: Database) -> None:
    """A primary whose transactions are read-only is an error, settings that change what a read
    answers are a warning where they differ, a primary that may lose commits is noted."""
    database.execute(f"ALTER DATABASE {database.name} SET synchronous_commit = off")
    database.execute(f"ALTER DATABASE {database.name} SET default_transaction_read_only = on")
    database.cluster.wait_caught_up()
    away = f"{database.replica_urls()[0]}?options=-cTimeZone%3DAsia/Tokyo"
    assert found(config(database).but(replicas=[away])) == {
        ("error", "read-only-primary", "primary"),
        ("note", "commit-unsafe", "primary"),
        ("warning", "settings-differ", "replica1"),
    }
