"""Host names that come to stand for another address."""

import threading
from typing import Any

import pytest
import sqlalchemy as sa

import router
from router.connect.dns import addresses_of, is_name
from router.sqlalchemy import RoutedEngine
from tests.sqlalchemy.kit import Routed
from tests.sqlalchemy.test_membership import await_joined

PID = sa.text("SELECT pg_backend_pid()").execution_options(router="replica")


class Names:
    """A name server's answer, and who is told when it was asked."""

    def __init__(self) -> None:
        self.addresses = frozenset({"127.0.0.1", "::1"})
        self.asked = threading.Semaphore(0)
        self.fails = False

    def __call__(self, host: str) -> frozenset[str]:
        self.asked.release()
        assert host == "localhost"
        if self.fails:
            raise OSError("no name server")
        return self.addresses

    def wait(self) -> None:
        """Until it was asked once more and that answer was dealt with."""
        while self.asked.acquire(blocking=False):
            pass
        for _ in range(2):
            assert self.asked.acquire(timeout=10)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """Every monitor of the test looks names up here, without pause."""
    found = Names()
    monkeypatch.setattr("router.connect.dns.RESOLVE_INTERVAL", 0.0)
    monkeypatch.setattr("router.cluster.monitor.addresses_of", found)
    return found


def engine_by_name(routed: Routed) -> RoutedEngine:
    replicas: list[Any] = [{"host": "localhost", "port": r.port} for r in routed.cluster.replicas]
    return routed.another(replicas=replicas[:1], probe_interval=0.02)


def test_a_name_that_moved_empties_its_nodes_pool(routed: Routed, names: Names) -> None:
    """Idle connections to the old address are not used again, one in use ends its transaction;
    the monitor connects anew as well, and the node gets reads again after a probe."""
    engine = engine_by_name(routed)
    with engine.connect() as connection:
        idle = connection.scalar(PID)
    with engine.connect().execution_options(postgresql_readonly=True) as busy:
        transaction = busy.begin()
        held = busy.scalar(PID)
        names.addresses = frozenset({"192.0.2.1"})
        names.wait()
        assert busy.scalar(PID) == held
        transaction.commit()
    await_joined(engine, routed.cluster.replicas[0].port)
    with router.request_context(), engine.connect() as connection:
        assert connection.scalar(PID) not in (idle, held)
        assert routed.served(connection) == "replica"
    assert engine.router.stats()["events"]["moved"] == 1


def test_an_address_more_or_less_and_a_dead_name_server_move_nothing(
    routed: Routed, names: Names
) -> None:
    """While one address stays, or nobody answers, pools are left alone."""
    engine = engine_by_name(routed)
    with engine.connect() as connection:
        before = connection.scalar(PID)
    names.wait()
    names.addresses = frozenset({"127.0.0.1", "192.0.2.1"})
    names.wait()
    names.fails = True
    names.wait()
    names.fails, names.addresses = False, frozenset({"127.0.0.1"})
    names.wait()
    with engine.connect() as connection:
        assert connection.scalar(PID) == before
    assert "moved" not in engine.router.stats()["events"]


def test_a_name_that_moves_step_by_step_has_moved(routed: Routed, names: Names) -> None:
    """What counts are the addresses the pool was filled from, not those of the last look."""
    engine = engine_by_name(routed)
    names.wait()
    names.addresses = frozenset({"127.0.0.1", "192.0.2.1"})
    names.wait()
    names.addresses = frozenset({"192.0.2.1"})
    names.wait()
    assert engine.router.stats()["events"]["moved"] == 1


@pytest.mark.parametrize(
    ("host", "name"),
    [("db1", True), ("db1.example.org", True), ("localhost", True), ("10.0.0.1", False),
     ("::1", False), ("fe80::1%eth0", False), ("/var/run/postgresql", False), ("@sock", False),
     ("", False)],
)  # fmt: skip
def test_only_names_are_looked_up(host: str, name: bool) -> None:
    """Addresses and socket directories stand for themselves."""
    assert is_name(host) is name


def test_the_systems_resolver_is_asked() -> None:
    """The name localhost has a loopback address; a name that cannot exist raises OSError."""
    assert addresses_of("localhost") & {"127.0.0.1", "::1"}
    with pytest.raises(OSError, match=r"."):
        addresses_of("no-such-name.invalid")
