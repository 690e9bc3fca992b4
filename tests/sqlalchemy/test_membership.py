"""Replicas that join and leave while the engine runs."""

import threading
import time
from typing import Any

import pytest
import sqlalchemy as sa

import router
from router.sqlalchemy import RoutedEngine
from router.testing import Server
from tests.sqlalchemy.kit import EVERY_DOOR, PORT, SYNCHRONOUS, Routed, insert

pytestmark = EVERY_DOOR


def ports(engine: RoutedEngine, reads: int = 30) -> set[int]:
    """Ports of the servers that served some reads."""
    found = set()
    for _ in range(reads):
        with router.request_context(), engine.connect() as connection:
            found.add(connection.execute(PORT).scalar_one())
    return found


def await_joined(engine: RoutedEngine, port: int) -> None:
    """Probe until the replica may serve: what it has to replay may be flushed a moment later."""
    deadline = time.monotonic() + 10
    while port not in {n.port for n in engine.router.refresh().replicas}:
        assert time.monotonic() < deadline, "the replica did not join in time"


def sessions(server: Server, name: str) -> int:
    """Server sessions of one application, the monitor's included."""
    sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
    return int(server.execute(sql, [name])[0][0])


def called(routed: Routed, name: str) -> dict[str, Any]:
    """What names an engine's server sessions, in its driver's words."""
    named = {"application_name": name}
    return {"server_settings": named} if routed.door.startswith("asyncpg") else named


def await_gone(server: Server, name: str) -> None:
    """A session ends a moment after its socket was closed: look until it has."""
    deadline = time.monotonic() + 10
    while sessions(server, name):
        assert time.monotonic() < deadline, f"sessions of {name} stay on {server.name}"
        time.sleep(0.01)


def test_a_replica_that_joins_gets_reads(routed: Routed) -> None:
    """add_replica() takes what replicas= takes; after a probe the new one serves its share."""
    one, two = routed.cluster.replicas
    engine = routed.another(replicas=[one.url(routed.dbname)])
    assert ports(engine) == {one.port}
    node = engine.router.add_replica({"host": two.host, "port": two.port})
    assert node.name == "replica2"
    await_joined(engine, two.port)
    assert ports(engine) == {one.port, two.port}
    assert engine.router.stats()["events"]["joined"] == 1


@pytest.mark.parametrize("used_before", [True, False])
def test_an_engine_without_replicas_routes_once_one_joins(
    routed: Routed, used_before: bool
) -> None:
    """A plain engine, used already or not, reads from its first replica and pins writes."""
    one, _ = routed.cluster.replicas
    engine = routed.another(replicas=[])
    if used_before:
        assert ports(engine, 1) == {routed.cluster.primary.port}
    engine.router.add_replica(one.url(routed.dbname))
    await_joined(engine, one.port)
    assert ports(engine) == {one.port}
    with router.request_context(), engine.connect() as connection, routed.paused():
        insert(connection)
        connection.commit()
        assert routed.served(connection) == "primary"


def test_the_first_replica_misses_no_write_made_before_it_came(routed: Routed) -> None:
    """A write outside any request context, when there was no replica yet, is read back from the
    primary until the one that joins has replayed it."""
    one, _ = routed.cluster.replicas
    engine = routed.another(replicas=[], max_lag_seconds=None)
    count = sa.text("SELECT count(*) FROM item")
    with routed.paused():
        with engine.begin() as connection:
            insert(connection)
        engine.router.add_replica(one.url(routed.dbname))
        engine.router.refresh()
        with engine.connect() as connection:
            assert connection.scalar(count) == 1
    with engine.connect() as connection:
        routed.await_replica(connection)
        assert connection.scalar(count) == 1


def test_a_replica_that_leaves_finishes_what_it_has(routed: Routed) -> None:
    """remove_replica() sends no new statement there; an open transaction ends there undisturbed,
    and then no connection is left, the monitor's included."""
    one, two = routed.cluster.replicas
    name = f"leaving {routed.dbname}"
    engine = routed.another(connect_args=called(routed, name), balance="round_robin")
    assert ports(engine) == {one.port, two.port}
    with engine.connect().execution_options(postgresql_readonly=True) as reading:
        with reading.begin():
            port = reading.execute(PORT).scalar_one()
            leaving = next(n for n in engine.router.replicas if n.port == port)
            engine.router.remove_replica(leaving.name)
            assert reading.execute(PORT).scalar_one() == port
            assert ports(engine) == {one.port, two.port} - {port}
        assert reading.execute(PORT).scalar_one() != port
    await_gone(routed.cluster.server_at(port), name)
    assert leaving.name not in {n.name for n in engine.router.snapshot.nodes}
    assert engine.router.stats()["events"]["left"] == 1


def test_a_checkout_that_held_it_reads_on_elsewhere(routed: Routed) -> None:
    """Outside a transaction the next statement of a checkout leaves the removed replica."""
    one, two = routed.cluster.replicas
    engine = routed.another(replicas=[one.url(routed.dbname), two.url(routed.dbname)])
    with router.request_context(), engine.connect() as connection:
        first = connection.execute(PORT).scalar_one()
        (node,) = [n for n in engine.router.snapshot.nodes if n.port == first]
        engine.router.remove_replica(node.name)
        assert connection.execute(PORT).scalar_one() != first


def test_a_replica_that_is_behind_joins_when_it_has_caught_up(routed: Routed) -> None:
    """A write all replicas had replayed is not missed on one that joins with an older state."""
    one, two = routed.cluster.replicas
    engine = routed.another(replicas=[one.url(routed.dbname)], max_lag_seconds=None)
    two.pause_replay()
    with router.request_context(), engine.connect() as connection:
        insert(connection)
        connection.commit()
        one.wait_caught_up()
        routed.await_replica(connection)  # the pin is forgotten
        engine.router.add_replica({"host": two.host, "port": two.port, "weight": 1e9})
        engine.router.refresh()
        for _ in range(10):
            connection.rollback()
            assert connection.scalar(sa.text("SELECT count(*) FROM item")) == 1
            assert connection.execute(PORT).scalar_one() == one.port
    two.resume_replay()
    await_joined(engine, two.port)
    assert two.port in ports(engine)


@SYNCHRONOUS
def test_coming_and_going_under_load_fails_nothing(routed: Routed) -> None:
    """While eight threads read and write, a replica leaves and joins again and again: no error,
    and no connection to it in the end."""
    one, two = routed.cluster.replicas
    name = f"churn {routed.dbname}"
    engine = routed.another(replicas=[one.url(routed.dbname)], connect_args=called(routed, name))
    failures: list[BaseException] = []
    stop = threading.Event()

    def work() -> None:
        try:
            while not stop.is_set():
                with router.request_context(), engine.connect() as connection:
                    connection.execute(PORT)
                    insert(connection)
                    connection.commit()
                    connection.execute(PORT)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    joined: list[Any] = []
    try:
        for _ in range(10):
            node = engine.router.add_replica(two.url(routed.dbname))
            engine.router.refresh()
            joined.append(any(n.name == node.name for n in engine.router.replicas))
            engine.router.remove_replica(node.name)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures
    assert any(joined)
    engine.router.refresh()
    await_gone(two, name)
