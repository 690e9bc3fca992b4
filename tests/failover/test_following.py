"""Reads leave a replica that follows another server than the primary, and come back after an
ordinary failover."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa

import router
from router import doctor
from router.cluster.router import Router
from router.errors import NoReplicaAvailable, PrimaryUnavailable, TransactionLost
from router.psycopg import ConnectionPool
from router.status.report import status
from router.testing import Cluster, Proxy, Server
from tests.conftest import MakeCluster
from tests.failover.kit import (
    PORT,
    ROLE,
    WRITE,
    cut_off,
    doors,
    follow,
    prepare,
    replayed,
    until,
    url,
)

ROLES = pytest.mark.parametrize("role", ["postgres", ROLE])
"""One that sees the timelines of WAL receivers, and one that does not."""


def served_by(run: Callable[[str], Any], server: Server) -> bool:
    return bool(run(PORT) == server.port)


def primary_is(router: Router, server: Server) -> bool:
    return router.refresh().primary in [n for n in router.servers if n.port == server.port]


def not_following(nodes: list[str], event: str, fields: Mapping[str, Any]) -> None:
    """Add to `nodes` the one that the event says follows another server."""
    if event == "not_following":
        nodes.append(fields["node"])


def torn(cluster: Cluster, opened: list[Any]) -> tuple[Server, Server]:
    """Promote the first replica while the old primary lives on, writes, and feeds the second."""
    old, (new, left) = cluster.primary, cluster.replicas
    new.promote()
    follow(opened, new)
    old.execute("INSERT INTO item (name) VALUES ('of another client')")
    replayed(left, old)
    return old, new


@ROLES
def test_a_replica_of_the_fenced_primary_serves_no_read(
    make_cluster: MakeCluster, role: str
) -> None:
    """Once another primary is followed no door reads on the old one's replica, pinned or not, nor
    when it was asked for, nor when the old primary is gone, nor when no primary is left."""
    cluster = make_cluster(2)
    prepare(cluster)
    with doors(cluster, role, max_lag_seconds=None) as opened:
        told: dict[str, list[str]] = {door.name: [] for door in opened}
        for door in opened:
            door.router.telemetry.hooks.append(partial(not_following, told[door.name]))
        old, new = torn(cluster, opened)

        def nobody_reads_there() -> None:
            for door in opened:
                assert {door.read() for _ in range(5)} == {new.port}, door.name
                with router.request_context():
                    door.write()
                    assert door.run(PORT) == new.port, door.name
                with router.request_context(), router.using_replica():
                    assert door.run(PORT) == new.port, door.name

        nobody_reads_there()
        for door in opened:
            door.router.refresh()
            shown = next(n for n in status(door.router).nodes if n.name == "replica2")
            assert (shown.reads, shown.lag_seconds, shown.lag_bytes) == (False, None, None)
            assert "does not follow the primary" in shown.problem
            # A probe in the middle of its promotion may call the other one ahead, for a moment.
            assert told[door.name].count("replica2") == 1
        found = {
            (f.code, f.level) for f in doctor(opened[0].router).findings if f.node == "replica2"
        }
        assert ("not-following", "error") in found
        old.kill()
        for door in opened:
            until(partial(door.misses, "primary"), "the old one is missed")
        nobody_reads_there()
        new.kill()
        for door in opened:
            until(partial(door.misses, "replica1"), "the new one is missed")
            with pytest.raises(PrimaryUnavailable):
                door.read()


@ROLES
def test_what_is_open_on_it_reads_there_no_more(make_cluster: MakeCluster, role: str) -> None:
    """A read in a transaction already open on such a replica runs on the primary; one that was
    declared read-only ends with TransactionLost, but for one that has its one snapshot; and with
    fallback="error" the error says why the replica is out."""
    cluster = make_cluster(2)
    prepare(cluster)
    primary, (first, second) = cluster.primary, cluster.replicas
    options: dict[str, Any] = {"replicas": [url(first, role), url(second, role)]}
    options |= {"max_lag_seconds": None, "probe_interval": 0.2}
    address = url(primary, role, "psycopg")
    engine = router.create_engine(address, reads_in_transaction=True, **options)
    strict = router.create_engine(address, fallback="error", **options)
    try:
        for each in (engine, strict):
            each.router.start()
            each.router.blacklist(first.name)
        with engine.connect() as held, engine.connect() as declared, engine.connect() as snapshot:
            declared.execution_options(postgresql_readonly=True)
            snapshot.execution_options(postgresql_readonly=True, isolation_level="REPEATABLE READ")
            for connection in (held, declared, snapshot):
                assert connection.scalar(sa.text(PORT)) == second.port
            _, new = torn(cluster, [])
            for each in (engine, strict):
                until(partial(primary_is, each.router, new), "it is followed")
                each.router.restore(first.name)
            assert held.scalar(sa.text(PORT)) == new.port
            with pytest.raises(TransactionLost, match=r"replica2.*does not follow the primary"):
                declared.scalar(sa.text(PORT))
            assert snapshot.scalar(sa.text("SELECT count(*) FROM item")) == 0
            declared.rollback()
            assert declared.scalar(sa.text(PORT)) == new.port
        why = r"replica2: does not follow the primary: .* timeline 1"
        with pytest.raises(NoReplicaAvailable, match=why), strict.connect() as connection:
            connection.scalar(sa.text(PORT))
    finally:
        engine.dispose()
        strict.dispose()


@ROLES
def test_an_ordinary_failover_has_reads_back_on_replicas(
    make_cluster: MakeCluster, role: str
) -> None:
    """Within five seconds from the other replica's new primary_conninfo it serves reads at every
    door, those of a context that wrote before the failover too, and goes on although nobody
    writes and the last write is older than max_lag_seconds."""
    cluster = make_cluster(2)
    prepare(cluster)
    primary, (new, other) = cluster.primary, cluster.replicas
    # Pages for the promoted server's first checkpoint to write, which takes its time over them.
    primary.execute(
        "CREATE TABLE big AS SELECT g, repeat('x', 300) FROM generate_series(1, 5000) g"
    )
    cluster.wait_caught_up()
    # Of a server that was late to answer nobody knows whether it has crashed, and without seeing
    # WAL receivers where its timeline began: on a busy machine that takes longer than a second.
    options: dict[str, Any] = {"max_lag_seconds": 1, "probe_timeout": 5}
    with doors(cluster, role, **options) as opened, router.request_context():
        for door in opened:
            door.run("INSERT INTO item (name) VALUES ('before')")
        cluster.wait_caught_up()
        for door in opened:
            door.router.refresh()
        age = "SELECT now() - pg_last_xact_replay_timestamp() > '1.5 s'"
        until(lambda: other.execute(age)[0][0], "the last write is old")
        told: list[str] = []
        for door in opened:
            door.router.telemetry.hooks.append(lambda event, _: told.append(event))
        primary.kill()
        new.promote()
        cluster.repoint(other)
        began = time.monotonic()
        follow(opened, new)
        for door in opened:
            until(partial(served_by, door.run, other), f"{door.name} reads there", 5)
        assert time.monotonic() - began < 5
        for door in opened:
            door.router.refresh()
            assert door.run(PORT) == other.port, door.name
        assert not {"lagging", "pin_dropped"} & set(told)


@ROLES
def test_a_replica_that_has_more_than_the_promoted_one_is_left_out(
    make_cluster: MakeCluster, role: str
) -> None:
    """With the old primary dead, a replica that has WAL which the promoted one never received
    serves no reads, however little it is, until it was set up anew."""
    cluster = make_cluster(2)
    prepare(cluster)
    primary, (new, ahead) = cluster.primary, cluster.replicas
    with doors(cluster, role, max_lag_seconds=None) as opened:
        cut_off(new)
        primary.execute("INSERT INTO item (name) VALUES ('lost')")
        replayed(ahead, primary)
        for door in opened:
            door.router.refresh()
        primary.kill()
        new.promote()
        follow(opened, new)
        for door in opened:
            door.router.refresh()
            assert {door.read() for _ in range(5)} == {new.port}, door.name
        new.execute("ALTER SYSTEM RESET primary_conninfo")  # a copy would have it too
        cluster.rejoin(ahead)
        for door in opened:
            until(partial(served_by, door.run, ahead), f"{door.name} reads there again")


@ROLES
def test_a_replica_that_has_more_and_crashed_is_left_out_too(
    make_cluster: MakeCluster, role: str
) -> None:
    """Started again after a crash it shows a WAL receiver on the new timeline, for some
    milliseconds or seconds, and its lost rows for ever: it serves no read, though the new primary
    has written as much by then."""
    cluster = make_cluster(2)
    prepare(cluster)
    primary, (new, ahead) = cluster.primary, cluster.replicas
    options: dict[str, Any] = {"max_lag_seconds": None, "probe_interval": 0.2}
    with doors(cluster, role, **options) as opened:
        cut_off(new)
        for _ in range(10):
            primary.execute("INSERT INTO item (name) VALUES ('lost')")
        replayed(ahead, primary)
        for door in opened:
            door.router.refresh()
        primary.kill()
        new.promote()
        follow(opened, new)
        source = new.conninfo().replace("'", "")
        ahead.execute("ALTER SYSTEM SET primary_slot_name = ''")
        ahead.execute(f"ALTER SYSTEM SET primary_conninfo = '{source}'")
        ahead.execute("SELECT pg_reload_conf()")
        history = ahead.data / "pg_wal" / "00000002.history"
        until(history.exists, "it knows of the new timeline")
        [past] = ahead.execute("SELECT pg_last_wal_replay_lsn() - '0/0'")
        ahead.kill()
        for door in opened:
            until(partial(door.misses, ahead.name), "it is missed")
        while new.execute("SELECT pg_current_wal_flush_lsn() - '0/0'") <= [past]:
            new.execute(WRITE)
        ahead.start()
        for door in opened:
            for _ in range(20):
                door.router.refresh()
                assert door.read() == new.port, door.name
        assert ahead.execute("SELECT count(*) FROM item WHERE name = 'lost'") == [(10,)]


def test_a_primary_that_is_replaced_while_settings_are_replayed_gets_no_write(
    make_cluster: MakeCluster,
) -> None:
    """What waits until its session's settings are on the old primary runs on the new one when that
    is followed meanwhile, as nothing of it was sent."""
    cluster = make_cluster(1)
    prepare(cluster)
    old, (new,) = cluster.primary, cluster.replicas
    options: dict[str, Any] = {"probe_interval": 0.2, "probe_timeout": 5, "max_lag_seconds": None}
    with (
        Proxy(old.host, old.port) as proxy,
        ConnectionPool(
            proxy.url(url(old, "postgres")), replicas=[url(new, "postgres")], **options
        ) as pool,
        ThreadPoolExecutor(1) as executor,
    ):
        with router.request_context(), pool.connection() as connection:
            connection.execute(WRITE)
        cluster.wait_caught_up()
        pool.router.refresh()
        with router.request_context(), pool.connection() as connection:
            connection.execute("SET app.tenant = 'mine'")
            assert connection.execute(PORT).fetchone() == (new.port,)
            proxy.delay(1.0)
            write = copy_context()
            writing = executor.submit(write.run, connection.execute, WRITE)
            new.promote()
            until(lambda: primary_is(pool.router, new), "the new one is followed")
            assert not writing.done()
            writing.result(30)
            asked = "SELECT current_setting('app.tenant'), inet_server_port()"
            assert connection.execute(asked).fetchone() == ("mine", new.port)
    counted = "SELECT count(*) FROM item"
    assert [server.execute(counted) for server in (old, new)] == [[(1,)], [(2,)]]
