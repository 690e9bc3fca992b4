"""Who may join and leave, and what that changes for routing."""

from typing import Any

import pytest

from router.cluster.membership import Use
from router.cluster.router import Router
from router.config.config import Config
from router.config.server import Server
from router.errors import ConfigError
from router.model import Lsn, Node, Report, Role
from router.rules.blacklist import Outage


class Pools:
    """Writes down the nodes whose connections shall not be used again."""

    def __init__(self) -> None:
        self.retired: list[str] = []
        self.nodes: tuple[Node, ...] = ()

    def retire(self, node: Node) -> None:
        self.retired.append(node.name)

    def use(self) -> dict[Node, Use]:
        return dict.fromkeys(self.nodes, Use(2, 1))


def site(**options: Any) -> Router:
    config = Config.build(Server("p", dbname="shop"), ["a", "b"], **options)
    router = Router(config, clock=lambda: 1.0)
    for node in router.snapshot.nodes:
        answer(router, node)
    return router


def answer(router: Router, node: Node) -> None:
    role = Role.PRIMARY if node.name == "primary" else Role.REPLICA
    router.observe(Report(node.name, 1.0, role, Lsn(9), 1, "1", 0.0, True))


def names(router: Router) -> list[str]:
    return [n.name for n in router.snapshot.nodes]


def test_names_are_given_and_given_again() -> None:
    """A replica without a name gets the first free one, also one that another left."""
    router = site()
    assert router.add_replica("c").name == "replica3"
    router.remove_replica("replica1")
    assert router.add_replica({"host": "d", "name": "mine"}).name == "mine"
    assert router.add_replica("e:5433").name == "replica1"
    assert names(router) == ["primary", "replica2", "replica3", "mine", "replica1"]


@pytest.mark.parametrize(
    ("method", "given", "says"),
    [
        ("add_replica", {"host": "c", "name": "replica1"}, "name 'replica1' is taken"),
        ("add_replica", {"hots": "c"}, "add_replica: unknown key 'hots' (did you mean 'host'?)"),
        ("add_replica", "a b", "add_replica: expected 'host'"),
        ("add_replica", "postgresql://c/other", "add_replica: it opens the database 'other'"),
        ("remove_replica", "replica9", "remove_replica: no node is called 'replica9'"),
        ("remove_replica", "primary", "primary (p:5432) is the primary: promote"),
    ],
)
def test_a_mistake_changes_nothing(method: str, given: Any, says: str) -> None:
    """A malformed or wrong request is refused in one line, and the nodes stay as they are."""
    router = site()
    with pytest.raises(ConfigError) as caught:
        getattr(router, method)(given)
    assert says in str(caught.value)
    assert names(router) == ["primary", "replica1", "replica2"]


def test_what_joins_is_eligible_after_a_report_only() -> None:
    """Nobody is sent to a server that was never asked."""
    router = site()
    node = router.add_replica("c")
    assert node not in router.replicas
    answer(router, node)
    assert node in router.replicas


def test_a_server_under_another_ones_name_inherits_nothing() -> None:
    """Blacklist entry, report and pool of a node that left are not those of its successor."""
    router, pools = site(), Pools()
    router.membership.attach(pools)
    old = router.snapshot.node("replica1")
    router.health.failed(old, "08006")
    router.remove_replica("replica1")
    assert pools.retired == ["replica1"]
    assert router.outages == (Outage("replica1", "08006", 1.0, 1.0, 1),)
    new = router.add_replica({"host": "c", "name": "replica1"})
    router.health.failed(old, "08006")  # a connection from before breaks
    assert not router.blacklisted
    assert new not in router.replicas
    answer(router, new)
    assert new in router.replicas


def test_preferences_follow_who_is_there() -> None:
    """A replica of the process's own zone that joins is preferred from then on."""
    router = site(zone="here")
    near = router.add_replica({"host": "c", "zone": "here"})
    answer(router, near)
    assert {router.pick(router.replicas) for _ in range(20)} == {near}
    router.remove_replica(near.name)
    assert len({router.pick(router.replicas) for _ in range(50)}) == 2


def test_a_disposed_pool_is_not_kept_alive() -> None:
    """Pools are told while they live, and live no longer for being told."""
    router, pools = site(), Pools()
    router.membership.attach(pools)
    del pools
    router.remove_replica("replica1")
    assert not list(router.membership._pools)


def test_connections_are_told_by_node() -> None:
    """Of all pools of a Router together; a node that left is told of while it has some."""
    router, one, other = site(), Pools(), Pools()
    primary, replica = router.snapshot.node("primary"), router.snapshot.node("replica1")
    one.nodes, other.nodes = (primary, replica), (primary,)
    router.membership.attach(one)
    router.membership.attach(other)
    told = {"primary": Use(4, 2), "replica1": Use(2, 1), "replica2": Use()}
    assert router.use() == told
    assert router.in_use == 6
    router.remove_replica("replica1")
    assert router.use() == told
    one.nodes = ()
    assert router.use() == {"primary": Use(2, 1), "replica2": Use()}
