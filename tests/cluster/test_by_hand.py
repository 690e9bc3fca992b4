"""Nodes taken out and let back in by hand, and what the Router remembers of outages."""

from dataclasses import dataclass, field
from math import inf
from typing import Any

import pytest

from router.cluster.router import Router
from router.config.config import Config
from router.config.server import Server
from router.errors import ConfigError, NoReplicaAvailable, PrimaryUnavailable
from router.model import Lsn, Report, Role
from router.rules.blacklist import HISTORY
from router.rules.context import RoutingContext
from router.rules.situation import Situation, Transaction
from router.sql.intent import Intent, Kind

READ = Intent(Kind.READ, "a SELECT")
WRITE = Intent(Kind.WRITE, "an INSERT")


@dataclass
class Site:
    """A Router over a primary and two replicas that all answer, on a clock of its own."""

    options: dict[str, Any] = field(default_factory=dict)
    now: float = 100.0

    def __post_init__(self) -> None:
        config = Config.build(Server("p"), ["a", "b"], **self.options)
        self.router = Router(config, clock=lambda: self.now, rand=lambda: 0.5)
        self.probe()

    def probe(self, primary: str = "primary") -> None:
        timeline = 1 if primary == "primary" else 2
        for node in self.router.snapshot.nodes:
            role = Role.PRIMARY if node.name == primary else Role.REPLICA
            self.router.observe(
                Report(node.name, self.now, role, Lsn(9), timeline, "1", 0.0, True)
            )

    def went(self, intent: Intent = READ, transaction: Transaction = Transaction.NONE) -> set[str]:
        decision = self.router.decide(intent, Situation(transaction), context=RoutingContext())
        return {n.name for n in decision.nodes}


def test_a_replica_taken_out_stays_out_until_it_is_let_back_in() -> None:
    """Neither time nor passed probes restore what was taken out by hand; restore() does."""
    site = Site()
    entry = site.router.blacklist("replica1", "new disk")
    assert (entry.reason, entry.until) == ("new disk", inf)
    for _ in range(3):
        site.now += 1e6
        site.probe()
        assert site.went() == {"replica2"}
    assert site.router.blacklisted == {"replica1": entry}
    assert site.router.restore("replica1") is entry
    assert site.went() == {"replica1", "replica2"}
    assert site.router.restore("replica1") is None


def test_a_duration_lets_a_probe_end_it() -> None:
    """With a duration the node is back after the first passed probe behind it, not before."""
    site = Site()
    site.router.blacklist("replica1", duration=1000.0)
    site.now += 999
    site.probe()
    assert site.went() == {"replica2"}
    site.now += 2
    site.probe()
    assert site.went() == {"replica1", "replica2"}


def test_failures_do_not_end_what_was_asked_for() -> None:
    """A node that fails while it is out by hand is still out by hand, for the reason given."""
    site = Site()
    entry = site.router.blacklist("replica1", "new disk")
    site.router.health.failed(site.router.snapshot.node("replica1"), "08006")
    assert site.router.blacklisted["replica1"] is entry


def test_by_hand_replaces_what_was_noticed() -> None:
    """Taking out a node that is out already keeps when it began, and lasts as asked."""
    site = Site()
    site.router.health.failed(site.router.snapshot.node("replica1"), "08006")
    site.now += 5
    entry = site.router.blacklist("replica1")
    assert (entry.since, entry.until, entry.failures) == (100.0, inf, 1)


def test_a_primary_taken_out_refuses_writes_but_not_what_is_open() -> None:
    """Writes get PrimaryUnavailable that says why and how to end it; open transactions go on and
    reads stay on replicas."""
    site = Site()
    site.router.blacklist("primary", "maintenance")
    with pytest.raises(PrimaryUnavailable, match=r"maintenance; .*Router\.restore\('primary'\)"):
        site.went(WRITE)
    assert site.went(WRITE, Transaction.ON_PRIMARY) == {"primary"}
    assert site.went() == {"replica1", "replica2"}
    site.router.restore("primary")
    assert site.went(WRITE) == {"primary"}


def test_a_replica_taken_out_takes_writes_once_promoted() -> None:
    """Out by hand as a replica is no reason to have no primary."""
    site = Site()
    site.router.blacklist("replica1", "slow")
    site.probe(primary="replica1")
    assert site.went(WRITE) == {"replica1"}


def test_without_replicas_the_fallback_decides() -> None:
    """All replicas out by hand: the primary serves, or nobody does and the error says why."""
    for fallback in ("primary", "error"):
        site = Site({"fallback": fallback})
        site.router.blacklist("replica1", "new disk")
        site.router.blacklist("replica2", "new disk")
        if fallback == "primary":
            assert site.went() == {"primary"}
        else:
            with pytest.raises(NoReplicaAvailable, match="replica2: blacklisted: new disk"):
                site.went()


@pytest.mark.parametrize("method", ["blacklist", "restore"])
def test_an_unknown_name_is_refused_with_the_one_meant(method: str) -> None:
    """A mistyped name changes nothing and is answered with the nearest name."""
    site = Site()
    with pytest.raises(ConfigError, match=rf"{method}: no node is called 'replca1' .*'replica1'"):
        getattr(site.router, method)("replca1")
    assert not site.router.blacklisted


def test_outages_are_remembered_up_to_a_bound() -> None:
    """Each outage that ended is kept with reason, begin and end; the oldest go first."""
    site = Site()
    for i in range(HISTORY + 5):
        site.now = 1000.0 * i
        site.router.blacklist("replica1", f"reason {i}")
        site.now += 7
        site.router.restore("replica1")
    outages = site.router.outages
    assert len(outages) == HISTORY
    assert [o.reason for o in outages] == [f"reason {i}" for i in range(5, HISTORY + 5)]
    assert {(o.node, o.ended - o.since) for o in outages} == {("replica1", 7.0)}


def test_an_outage_that_was_noticed_is_remembered_with_its_failures() -> None:
    """The history of a node that kept failing counts its failures and gives the last reason."""
    site = Site()
    site.router.health.failed(site.router.snapshot.node("replica1"), "08006")
    site.now += 31
    site.router.observe(Report("replica1", site.now, error="connection refused"))
    assert site.router.blacklisted["replica1"].failures == 2
    site.now += 61
    site.probe()
    (outage,) = site.router.outages
    assert (outage.reason, outage.failures) == ("connection refused", 2)
    assert outage.ended - outage.since == 92.0


@pytest.mark.parametrize(
    ("state", "lost"),
    [("08006", True), ("57P01", True), ("53300", True), ("58030", True), ("XX001", True),
     ("XX000", False), ("57014", False), ("23505", False), ("40001", False), ("", False)],
)  # fmt: skip
def test_sqlstates_of_the_users_own_count_beside_the_built_in(state: str, lost: bool) -> None:
    """blacklist_sqlstates adds whole codes and classes; others stay what they were."""
    assert Site({"blacklist_sqlstates": "58,XX001"}).router.health.is_disconnect(state) is lost
    if state[:2] in ("58", "XX"):
        assert not Site().router.health.is_disconnect(state)


@pytest.mark.parametrize("given", ["5803", "58x30", "580301", "é8"])
def test_what_is_no_sqlstate_is_refused(given: str) -> None:
    """A code of the wrong shape would never match anything: it is refused by name."""
    with pytest.raises(ConfigError, match=r"blacklist_sqlstates: .* is no SQLSTATE"):
        Site({"blacklist_sqlstates": [given]})
