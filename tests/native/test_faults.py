"""Servers that die, are replaced or are busy, seen through the drivers' own pools."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from router import request_context
from router.errors import PrimaryUnavailable, RouterError
from router.testing import Cluster
from tests.conftest import MakeCluster
from tests.native.kit import DOORS, DRIVER_ERRORS, PORT, TIMEOUTS

INSERT = "INSERT INTO item (name) VALUES ('new')"
FAST = {"probe_interval": 0.1, "blacklist_duration": 0.3, "connect_timeout": 2.0}

Open = Callable[..., Any]


@pytest.fixture
def open_pool(way: str) -> Iterator[Open]:
    """Opens pools over a cluster, closed with the test."""
    with ExitStack() as stack:

        def make(cluster: Cluster, **options: Any) -> Any:
            replicas = [r.url() for r in cluster.replicas]
            door = DOORS[way](cluster.primary.url(), **{"replicas": replicas, **FAST, **options})
            stack.callback(door.close)
            door.router.start()
            return door

        yield make


def prepared(make_cluster: MakeCluster, **options: Any) -> Cluster:
    cluster = make_cluster(**options)
    cluster.primary.execute("CREATE TABLE item (id serial PRIMARY KEY, name text)")
    cluster.wait_caught_up()
    return cluster


def run(door: Any, sql: str) -> Any:
    with request_context(), door.connection() as connection:
        return door.run(connection, sql)


def within(seconds: float, ask: Callable[[], bool], told: Callable[[], object]) -> None:
    """Ask until it is so: what brings it about is a probe, and nobody awaits that."""
    deadline = time.monotonic() + seconds
    while not ask():
        assert time.monotonic() < deadline, told()
        time.sleep(0.02)


def test_a_replicas_death_is_invisible(make_cluster: MakeCluster, open_pool: Open) -> None:
    """Reads go on without an error while a replica is killed, also in a request that used it, and
    reach it again after it came back."""
    cluster = prepared(make_cluster)
    door = open_pool(cluster)
    with request_context(), door.connection() as connection:
        port = door.run(connection, PORT)[0][0]
        victim = cluster.server_at(port)
        assert victim is not cluster.primary
        victim.kill()
        for _ in range(30):
            assert door.run(connection, PORT)[0][0] != victim.port
    assert {run(door, PORT)[0][0] for _ in range(30)} <= {r.port for r in cluster.replicas}
    assert door.in_use() == 0  # nobody waits for the dead one's when the application stops
    victim.start()
    within(20, lambda: run(door, PORT)[0][0] == victim.port, door.router.stats)


def test_without_a_primary_reads_go_on(make_cluster: MakeCluster, open_pool: Open) -> None:
    """With the primary dead reads are served, and a write fails at once, saying so; after its
    return writes go on."""
    cluster = prepared(make_cluster, replicas=1)
    door = open_pool(cluster)
    run(door, INSERT)
    cluster.wait_caught_up()
    cluster.primary.kill()
    assert run(door, PORT)[0][0] == cluster.replicas[0].port
    errors: list[BaseException] = []
    while not any(isinstance(error, PrimaryUnavailable) for error in errors):
        with pytest.raises(DRIVER_ERRORS) as caught:  # first the connection that broke
            run(door, INSERT)
        errors.append(caught.value)
        assert len(errors) < 20, errors
    assert "primary" in str(errors[-1])
    assert run(door, "SELECT count(*) FROM item") == [(1,)]
    cluster.primary.start()

    def writes() -> bool:
        try:
            run(door, INSERT)
        except Exception:
            return False
        return True

    within(20, writes, door.router.stats)


def test_a_promoted_replica_takes_the_writes(make_cluster: MakeCluster, open_pool: Open) -> None:
    """After a failover writes reach the new primary without a restart of the application."""
    cluster = prepared(make_cluster)
    door = open_pool(cluster)
    run(door, INSERT)
    cluster.wait_caught_up()
    old, heir = cluster.primary, cluster.replicas[0]
    old.kill()
    heir.promote()

    def writes() -> bool:
        try:
            run(door, INSERT)
        except Exception:
            return False
        return True

    within(20, writes, door.router.stats)
    assert heir.execute("SELECT count(*) FROM item") == [(2,)]
    assert run(door, "INSERT INTO item (name) VALUES ('x') RETURNING inet_server_port()") == [
        (heir.port,)
    ]


def test_a_busy_pool_says_which_and_blacklists_nobody(cluster: Cluster, open_pool: Open) -> None:
    """Where all connections of a node's pool are in use the error names node, size, wait and cure,
    and is the driver's own time-out as well; the node is not blacklisted."""
    door = open_pool(cluster, max_size=1, replicas=[])
    with door.connection() as first:
        door.run(first, "SELECT pg_advisory_xact_lock_shared(0)")
        door.run(first, PORT)
        with (
            pytest.raises(TIMEOUTS, match=r"primary.*'s 1 conn.*0\.3 s: raise max_size") as caught,
            door.connection(timeout=0.3) as second,
        ):
            door.run(second, PORT)
        assert isinstance(caught.value, RouterError)
        assert door.router.stats()["events"].get("blacklisted", 0) == 0
    assert run(door, PORT)


def test_many_and_a_killed_replica(make_cluster: MakeCluster, open_pool: Open) -> None:
    """Threads or tasks that write and read what they wrote while a replica is killed: no
    failed read, no write lost or doubled, no stale own-read."""
    cluster = prepared(make_cluster)
    door = open_pool(cluster, max_size=8)
    victim = cluster.replicas[0]
    failures: list[str] = []
    written: list[str] = []
    half = threading.Event()
    workers, requests = 12, 60

    def note(n: int) -> None:
        if n == requests // 2:
            half.set()

    def seen(name: str, rows: int) -> None:
        written.append(name)
        if rows != 1:
            failures.append(f"stale {name}: {rows}")

    def work(owner: int) -> None:
        for n in range(requests):
            note(n)
            try:
                with request_context():
                    seen(f"{owner}-{n}", door.wrote(f"{owner}-{n}"))
            except Exception as error:
                failures.append(f"{type(error).__name__}: {error}")

    async def task(owner: int) -> None:
        for n in range(requests):
            note(n)
            try:
                with request_context():
                    seen(f"{owner}-{n}", await door.wrote(f"{owner}-{n}"))
            except Exception as error:
                failures.append(f"{type(error).__name__}: {error}")

    async def tasks() -> None:
        async def kill() -> None:
            assert await asyncio.to_thread(half.wait, 60)
            await asyncio.to_thread(victim.kill)

        await asyncio.gather(kill(), *(task(i) for i in range(workers)))

    if door.asynchronous:
        door.loop(tasks())
    else:
        threads = [threading.Thread(target=work, args=(i,)) for i in range(workers)]
        for thread in threads:
            thread.start()
        assert half.wait(60)
        victim.kill()
        for thread in threads:
            thread.join(60)
    assert failures == []
    rows = cluster.primary.execute("SELECT name, count(*) FROM item GROUP BY name")
    assert dict(rows) == dict.fromkeys(written, 1)
    assert len(written) == workers * requests
    assert door.in_use() == 0
