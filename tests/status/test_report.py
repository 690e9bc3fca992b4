"""How a cluster stands, in values and in words."""

import pytest

from router.cluster.router import Router
from router.config.config import Config
from router.config.server import Server
from router.model import Lsn, Report, Role
from router.status.history import words
from router.status.report import NodeStatus, brief, status


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def cluster() -> Router:
    config = Config.build(Server("p"), ["r1", "r2"], name="shop")
    return Router(config, clock=Clock())


def report(name: str, role: Role = Role.REPLICA, lsn: int = 1000, lag: float = 0.0) -> Report:
    return Report(name, 100.0, role, Lsn(lsn), 1, "1", lag, True)


def told(router: Router) -> dict[str, NodeStatus]:
    return {node.name: node for node in status(router).nodes}


def test_before_any_probe_nothing_is_claimed() -> None:
    """Nodes nobody has asked are unknown, and the cluster is not said to be writable."""
    found = status(cluster())
    assert not found.writable
    assert {node.problem for node in found.nodes} == {"not probed yet"}
    assert str(found).splitlines()[0] == "shop: no primary"


def test_a_healthy_cluster() -> None:
    """Every node has its role, its lag and no problem."""
    router = cluster()
    router.observe(
        report("primary", Role.PRIMARY), report("replica1"), report("replica2", lsn=900)
    )
    found = status(router)
    assert (found.cluster, found.primary, found.writable) == ("shop", "primary", True)
    assert found.nodes[0] == NodeStatus("primary", "p:5432", Role.PRIMARY, True)
    assert found.nodes[2] == NodeStatus("replica2", "r2:5432", Role.REPLICA, True, 0.0, 100)
    assert "0.0 s behind" in str(found)


def test_what_is_wrong_is_said() -> None:
    """A node that is out, does not answer, is behind or claims to be a second primary says so and
    gets no reads."""
    router = cluster()
    router.observe(
        report("primary", Role.PRIMARY), report("replica1"), report("replica2", lsn=900, lag=99.0)
    )
    assert told(router)["replica2"].problem.startswith("too far behind")
    router.health.failed(router.snapshot.node("replica1"), "08006: broken")
    assert told(router)["replica1"].problem == "out for 30 s more: 08006: broken"
    router.blacklist("replica1")
    assert told(router)["replica1"].problem.startswith("out until it is restored by hand: ")
    router.observe(Report("replica2", 101.0, error="connection refused"))
    assert told(router)["replica2"].problem == "no answer: connection refused"
    assert not told(router)["replica2"].reads
    router = cluster()
    router.observe(report("primary", Role.PRIMARY), report("replica2", Role.PRIMARY))
    assert told(router)["replica2"].problem == "fenced: another server is the primary"
    assert status(router).writable


def test_a_replica_that_was_out_and_is_the_primary_now_can_be_written() -> None:
    """What a node got as a replica is no reason to call a cluster read-only once it is promoted;
    what it got as the primary is."""
    router = cluster()
    router.observe(report("primary", Role.PRIMARY), report("replica1"), report("replica2"))
    router.health.failed(router.snapshot.node("replica1"), "08006: broken")
    router.observe(Report("primary", 101.0, error="gone"), report("replica1", Role.PRIMARY))
    found = status(router)
    assert (found.primary, found.writable) == ("replica1", True)
    assert told(router)["replica1"].problem == ""
    router.blacklist("replica1", duration=30)
    assert not status(router).writable


REFUSED = (
    'connection failed: connection to server at "10.0.0.1", port 5432 failed: Connection refused '
    "Is the server running on that host and accepting TCP/IP connections?"
)
CLOSED = (
    "57P01: consuming input failed: server closed the connection unexpectedly This probably means "
    "the server terminated abnormally before or while processing the request."
)
NOBODY = 'connection to server at "db", port 5432 failed: FATAL: role "shop" does not exist'


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (REFUSED, "Connection refused"),
        (CLOSED, "57P01: server closed the connection unexpectedly"),
        (NOBODY, 'FATAL: role "shop" does not exist'),
        ("the lookup of db failed: no such host", "the lookup of db failed: no such host"),
    ],
)
def test_an_error_is_told_in_brief(error: str, told: str) -> None:
    """What libpq puts around an error is left out, and nothing else."""
    assert brief(error) == told


def test_events_in_words() -> None:
    """A replica that follows another, and writes that a promotion lost, are one line each."""
    assert words("not_following", {"node": "replica2", "reason": "long"}) == (
        "replica2 does not follow the primary and gets no reads"
    )
    lost = {"node": "replica1", "bytes": 104}
    assert words("writes_lost", lost) == (
        "replica1 was promoted without 104 bytes of WAL: writes lost"
    )
    assert words("writes_maybe_lost", lost) == (
        "replica1 was promoted without 104 bytes of WAL: writes maybe lost"
    )
