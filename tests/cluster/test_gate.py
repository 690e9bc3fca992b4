"""Who waits for a node is told when nothing is sent there any more."""

import gc
from dataclasses import replace

import pytest

from router.cluster.router import Router
from router.config.config import Config
from router.config.server import Server
from router.model import Lsn, Node, Report, Role


class _Told:
    def __init__(self) -> None:
        self.nodes: list[str] = []

    def unused(self, node: Node) -> None:
        self.nodes.append(node.name)


class World:
    """A Router of a primary and two replicas that are well, with a clock of its own."""

    def __init__(self) -> None:
        self.now = 100.0
        self.router = Router(Config.build(Server("p"), ["a", "b"]), clock=lambda: self.now)
        self.primary, self.a, self.b = self.router.snapshot.nodes
        for _ in range(2):
            self.probe(self.primary, role=Role.PRIMARY)
            self.probe(self.a)
            self.probe(self.b)
        assert self.router.replicas == (self.a, self.b)
        self.told: list[str] = []

    def probe(self, node: Node, *, role: Role = Role.REPLICA, error: str = "") -> None:
        """Let a probe of `node` tell what it is, or fail with `error`."""
        self.now += 0.01
        report = Report(node.name, self.now, error=error)
        if not error:
            report = replace(
                report, role=role, lsn=Lsn(1000), flushed=Lsn(1000), timeline=1,
                received=int(role is Role.REPLICA), streaming=role is Role.REPLICA, system_id="7",
            )  # fmt: skip
        self.router.observe(report)

    def wait(self, node: Node) -> int:
        """Wait for `node`, and note when that shall end."""
        return self.router.gate.watch(node, lambda: self.told.append(node.name))


def test_who_waits_is_told_when_a_probe_fails() -> None:
    """One failed probe takes a replica out of use, and whoever waits for it hears of that with
    the same view; who waits for another node, or has left, does not."""
    world = World()
    for node in (world.primary, world.a, world.b):
        world.wait(node)
    world.router.gate.leave(world.wait(world.a))
    world.probe(world.b)
    assert world.told == []
    world.probe(world.a, error="gone")
    assert world.told == ["replica1"]


def test_one_lost_probe_of_the_primary_ends_no_wait() -> None:
    """The primary has no substitute: two failed probes in a row end the waiting for it."""
    world = World()
    world.wait(world.primary)
    world.probe(world.primary, error="gone")
    assert world.told == []
    world.probe(world.primary, error="gone")
    assert world.told == ["primary"]


def test_the_blacklist_ends_a_wait() -> None:
    """A node that is kept out, by a failure or by hand, is waited for no more."""
    world = World()
    world.wait(world.a)
    world.wait(world.b)
    world.router.health.failed(world.a, "08006")
    assert world.told == ["replica1"]
    world.router.blacklist("replica2")
    assert world.told[-1] == "replica2"


def test_the_last_resort_is_waited_for() -> None:
    """Where every replica is kept out, those that answer probes are used still."""
    world = World()
    for node in (world.a, world.b):
        world.router.health.failed(node, "08006")
    world.wait(world.a)
    world.probe(world.b)
    assert world.told == []


def test_a_node_that_leaves_ends_a_wait() -> None:
    """Nobody waits for a server that belongs to the cluster no more."""
    world = World()
    world.wait(world.a)
    world.router.remove_replica("replica1")
    assert world.told == ["replica1"]


def test_a_method_is_called_as_long_as_its_object_lives() -> None:
    """Who asks to be told always is told with each view, and is kept alive by nobody."""
    world, told = World(), _Told()
    nodes = told.nodes
    world.router.gate.always(told.unused)
    world.probe(world.a, error="gone")
    world.probe(world.b)
    assert nodes == ["replica1", "replica1"]
    del told
    gc.collect()
    world.probe(world.b)
    assert nodes == ["replica1", "replica1"]


@pytest.mark.parametrize("due", [False, True])
def test_a_primary_that_is_kept_out_is_used_once_it_is_due(due: bool) -> None:
    """The rules refuse a blacklisted primary until its term is over; so long nobody waits."""
    config = Config.build(Server("p", blacklist_duration=5.0), ["a"])
    now = [100.0]
    router = Router(config, clock=lambda: now[0])
    primary = router.snapshot.nodes[0]
    router.health.failed(primary, "08006")
    now[0] += 6.0 * due
    assert router.view.uses(primary, now[0]) is due
