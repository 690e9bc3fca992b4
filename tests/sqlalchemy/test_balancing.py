"""Balancers that want to be told are told, of every statement that goes through an engine."""

from collections import Counter

import pytest
import sqlalchemy as sa

import router
from router.model import Node
from router.sqlalchemy import RoutedEngine
from router.testing import Proxy
from tests.sqlalchemy.kit import PORT, Routed


class Watcher:
    """Picks the first and writes down what it is told."""

    def __init__(self) -> None:
        self.under_way: Counter[str] = Counter()
        self.seconds: list[tuple[str, float]] = []

    def __call__(self, nodes: tuple[Node, ...], /) -> Node:
        return nodes[0]

    def sent(self, node: Node, now: float, /) -> None:
        self.under_way[node.name] += 1

    def answered(self, node: Node, seconds: float, now: float, /) -> None:
        self.under_way[node.name] -= 1
        self.seconds.append((node.name, seconds))


def run(engine: RoutedEngine, times: int) -> Counter[int]:
    """Ports of the servers that served `times` reads."""
    found: Counter[int] = Counter()
    for _ in range(times):
        with router.request_context(), engine.connect() as connection:
            found[connection.execute(PORT).scalar_one()] += 1
    return found


def test_a_watching_balancer_hears_of_every_statement_and_its_end(routed: Routed) -> None:
    """Reads, writes, raw cursors and failures are told with their node and time, each once."""
    watcher = Watcher()
    engine = routed.another(balance=watcher)
    engine.connect().close()
    watcher.seconds.clear()
    with router.request_context(), engine.connect() as connection:
        connection.execute(sa.text("SELECT pg_sleep(0.05)"))
        with pytest.raises(sa.exc.ProgrammingError):
            connection.execute(sa.text("SELECT nothing_of_that_name"))
        connection.execute(sa.text("INSERT INTO item (name) VALUES ('x')"))
        connection.rollback()
    with router.request_context():
        raw = engine.raw_connection()
        cursor = raw.cursor()
        cursor.execute("SELECT 1")
        raw.close()
    assert [name for name, _ in watcher.seconds] == [
        "replica1", "replica1", "primary", "replica1"
    ]  # fmt: skip
    assert watcher.seconds[0][1] >= 0.05
    assert not any(watcher.under_way.values())


def test_a_plain_balancer_is_told_nothing(routed: Routed) -> None:
    """The default balancer has nothing to be told, so the adapter does not time statements."""
    assert routed.engine.router.timed_balancer is None
    assert routed.another(balance="latency").router.timed_balancer is not None


def test_a_slow_replica_is_left_alone(routed: Routed) -> None:
    """With one replica 50 ms away, a latency-aware engine reads from the near one."""
    near, far = routed.cluster.replicas
    with Proxy(far.host, far.port) as proxy:
        engine = routed.another(
            balance="latency",
            replicas=[near.url(routed.dbname), proxy.url(far.url(routed.dbname))],
        )
        run(engine, 20)
        proxy.delay(0.05)
        found = run(engine, 100)
    assert found[far.port] <= 3


def test_the_local_zone_serves_until_it_has_no_replica(routed: Routed) -> None:
    """Reads stay in the zone named by ``zone`` and go to the other one when it is out."""
    here, there = routed.cluster.replicas
    engine = routed.another(
        zone="here",
        replicas=[
            {"url": there.url(routed.dbname), "zone": "there"},
            {"url": here.url(routed.dbname), "zone": "here", "name": "near"},
        ],
    )
    assert set(run(engine, 20)) == {here.port}
    engine.router.health.failed(engine.router.snapshot.node("near"), "a test")
    assert set(run(engine, 20)) == {there.port}
