"""Read your own writes across two processes: the cluster in small of tests/core, where each
request of a client is served by either process and only its token goes from one to the next.

Crashes and promotions are left out: the model has one set of connections, not one per process.
"""

import random
from collections.abc import Iterator
from typing import Any

import pytest

import router.pins.carrier
from router.cluster.router import Router
from router.model import Report
from router.pins.carrier import PinCarrier
from router.rules.context import RoutingContext
from tests.cluster.test_promises import Client, Cluster, StaleRead, some_events
from tests.pins.kit import SECRET


class TwoProcesses(Cluster):
    """Each client has a token and no context of its own."""

    def __init__(self, rand: random.Random, patch: pytest.MonkeyPatch, *, carrying: bool) -> None:
        self.rand = rand
        self.carrying = carrying
        self.tokens: dict[int, str] = {}
        self.positions = 0
        super().__init__()
        other = Router(self.router.config, clock=lambda: self.now, rand=lambda: 0.5)
        self.processes = [(process, self.carrier()) for process in (self.router, other)]
        # Each process knows its own Router only.
        patch.setattr(router.pins.carrier, "routers", lambda: [self.router])
        self.round()

    def carrier(self) -> PinCarrier:
        return PinCarrier(SECRET, max_age=1e9, clock=lambda: self.now, wall=lambda: 1e9 + self.now)

    def observe(self, report: Report) -> None:
        if hasattr(self, "processes"):
            before, (self.router, _) = self.router, self.rand.choice(self.processes)
            super().observe(report)
            self.router = before
        else:
            super().observe(report)

    def request(self, me: int) -> tuple[Client, PinCarrier]:
        client = self.clients[me]
        self.router, carrier = self.rand.choice(self.processes)
        # A root context, because what one request has seen binds no other.
        client.context = RoutingContext(root=True)
        if self.carrying and me in self.tokens:
            carrier.arrive(client.context.pins, [self.tokens[me]])
        return client, carrier

    def write(self, me: int, sent: Any, committed: Any, returned: Any) -> None:
        client, carrier = self.request(me)
        super().write(me, sent, committed, returned)
        entries = carrier.entries(client.context)
        if client.context.pins.changes and entries:
            self.tokens[me] = carrier.tokens.sign(entries)
            self.positions += any(entry.lsn is not None for entry in entries)

    def read(self, me: int, sent: Any, seen: Any, turn: int) -> None:
        self.request(me)
        super().read(me, sent, seen, turn)


def wander(cluster: TwoProcesses, rand: random.Random) -> None:
    for step in rand.choices(
        ["write", "read", "time", "round", "rest"], [25, 45, 25, 4, 3], k=150
    ):
        me, events = rand.randrange(3), [some_events(rand) for _ in range(3)]
        match step:
            case "write":
                cluster.write(me, *events)
            case "read":
                cluster.read(me, events[0], events[1], rand.randrange(2))
            case "time":
                cluster.time_passes(events[0])
            case "round":
                cluster.now += 0.01
                cluster.round()
            case "rest":
                cluster.rest()


@pytest.fixture
def seeds(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs histories, and gives the cluster of each."""

    def run(count: int, *, carrying: bool) -> Iterator[TwoProcesses]:
        for seed in range(count):
            rand = random.Random(seed)
            cluster = TwoProcesses(rand, monkeypatch, carrying=carrying)
            try:
                wander(cluster, rand)
            except StaleRead as error:
                error.add_note(f"seed {seed}")
                raise
            yield cluster

    return run


def test_no_process_misses_what_another_wrote_for_its_client(seeds: Any) -> None:
    """However probes, replay and processes interleave, a client with its token misses none of its
    writes; tokens with and without a position were met, and replicas served many reads."""
    clusters = list(seeds(150, carrying=True))
    reads = sum((c.reasons for c in clusters[1:]), start=clusters[0].reasons)
    counts = {str(reason): n for reason, n in reads.items()}
    assert counts["a read"] > 500
    assert counts["pinned, and no replica has replayed the pin"] > 500
    assert 100 < sum(c.positions for c in clusters) < sum(c.ids for c in clusters)


def test_without_the_token_a_write_is_missed(seeds: Any) -> None:
    """The same search finds a stale read where nothing is carried."""
    with pytest.raises(StaleRead, match="its own writes"):
        list(seeds(20, carrying=False))
