"""An engine that asks who its servers are."""

import threading
from typing import Any

import router
from tests.sqlalchemy.kit import PORT, Routed
from tests.sqlalchemy.test_membership import await_joined, ports


def test_an_engine_finds_its_replicas_by_itself(routed: Routed) -> None:
    """With no replicas configured the first statement already knows those discovery names; one
    it names later joins, one it names no longer leaves; a failure is told once and changes
    nothing."""
    cluster = routed.cluster
    one, two = cluster.replicas
    given: list[Any] = [{"host": s.host, "port": s.port} for s in (cluster.primary, one)]
    asked = threading.Semaphore(0)

    def members() -> list[Any]:
        asked.release()
        if not given:
            raise OSError("nobody there")
        return list(given)

    engine = routed.another(
        replicas=[], discovery=members, discovery_interval=0, probe_interval=0.02
    )
    await_joined(engine, one.port)
    assert ports(engine) == {one.port}
    given.append({"host": two.host, "port": two.port})
    await_joined(engine, two.port)
    assert ports(engine) == {one.port, two.port}
    given.clear()
    for _ in range(asked._value + 3):
        assert asked.acquire(timeout=10)
    assert ports(engine) == {one.port, two.port}
    assert engine.router.stats()["events"]["discovery_failed"] == 1
    given.extend({"host": s.host, "port": s.port} for s in (cluster.primary, two))
    while (
        two.port != {n.port for n in engine.router.refresh().replicas}.pop()
        or len(engine.router.snapshot.nodes) > 2
    ):
        assert asked.acquire(timeout=10)
    assert ports(engine) == {two.port}


def test_a_discovery_that_hangs_holds_up_nothing(routed: Routed) -> None:
    """Probes and statements go on while the callable does not return, and dispose() as well."""
    hang = threading.Event()

    def members() -> list[Any]:
        hang.wait(60)
        return []

    engine = routed.another(discovery=members, start_timeout=0.5, probe_interval=0.05)
    try:
        first = engine.router.refresh()
        second = engine.router.refresh()
        assert second.samples[-1].started > first.samples[-1].started
        with router.request_context(), engine.connect() as connection:
            connection.execute(PORT)
        engine.dispose()
    finally:
        hang.set()
