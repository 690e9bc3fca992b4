"""Read your own writes, and never go back in time: a cluster in small, in any order of events.

The model is a primary, replicas that replay when they like, crash and are promoted, a monitor
whose probes start, look and report at three different moments, and clients who write and read
through a real Router with a clock of the model's. What each read sees is held against what its
client has written and seen before. Hypothesis wanders through it and so does chance, which comes
further; that the check can fail is tested with the promises turned off.
"""

import logging
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    precondition,
    rule,
    run_state_machine_as_test,
)

from router.cluster.router import Router
from router.config.config import Config
from router.config.server import Server
from router.errors import PrimaryUnavailable
from router.model import Lsn, Node, Report, Role
from router.rules.context import RoutingContext
from router.rules.decision import Reason
from router.sql.intent import Intent, Kind

READ = Intent(Kind.READ, "a SELECT")
WRITE = Intent(Kind.WRITE, "an INSERT")
REPLICAS = ("a", "b")
NAMES = ("p", *REPLICAS)


class StaleRead(AssertionError):
    """A read that saw less than was promised."""


class WrongServer(AssertionError):
    """A read that was sent where another primary's writes are."""


@dataclass
class Machine:
    """A server: its WAL is a list of commits, its position the list's length."""

    name: str
    log: list[int] = field(default_factory=list)
    timeline: int = 1
    primary: bool = False
    up: bool = True
    broken: bool = False  # a crash has cut the connections that were open
    control: int = 1  # the timeline its control file was last told
    upstream: "Machine | None" = None
    began: int | None = None  # where it was promoted

    @property
    def streams(self) -> bool:
        source = self.upstream
        return source is not None and source.up and source.log[: len(self.log)] == self.log

    def answers(self, started: float, *, monitor: bool = True) -> Report:
        """What a probe is told; only a `monitor` may see the timeline of a WAL receiver."""
        if not self.up:
            return Report(self.name, started, error="connection refused")
        at = Lsn(len(self.log))
        if self.primary:
            began = None if self.began is None else Lsn(self.began)
            role = Role.PRIMARY
            return Report(self.name, started, role, at, self.timeline, "1", None, began=began)
        received = self.timeline if monitor and self.streams else 0
        return Report(
            self.name, started, Role.REPLICA, at, received or self.control, "1", 0.0, True,
            received=received, flushed=at if received else None,
        )  # fmt: skip


@dataclass
class Client:
    """Whose reads are checked: what it has written and what it has seen."""

    context: RoutingContext
    written: set[int] = field(default_factory=set)
    seen: set[int] = field(default_factory=set)


@dataclass
class Probe:
    server: Machine
    started: float
    report: Report | None = None


servers = st.sampled_from(NAMES)
replicas = st.sampled_from(REPLICAS)
clients = st.integers(0, 2)
events = st.lists(
    st.one_of(
        st.tuples(st.just("replay"), replicas, st.integers(1, 4)),
        st.tuples(st.just("probe"), servers, st.just(0)),
        st.tuples(st.just("look"), st.just(""), st.integers(0, 3)),
        st.tuples(st.just("report"), st.just(""), st.integers(0, 3)),
        st.tuples(st.sampled_from(["wal", "other"]), st.just(""), st.integers(1, 3)),
        st.tuples(st.just("round"), st.just(""), st.just(0)),
        st.tuples(st.just("wait"), st.just(""), st.just(0)),
    ),
    max_size=4,
)


class Cluster(RuleBasedStateMachine):
    consistency: ClassVar[str] = "lsn"
    monitor: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.now, self.ids = 0.0, 0
        config = Config.build(
            Server("p"),
            ["a", "b"],
            name="model",
            consistency=self.consistency,
            max_lag_seconds=None,
            pin_max=1e9,
            blacklist_duration=0.05,
        )
        self.names = dict(zip(("primary", "replica1", "replica2"), NAMES, strict=True))
        self.nodes = {n.host: n for n in config.nodes()}
        self.router = Router(config, clock=lambda: self.now, rand=lambda: 0.5)
        self.servers = {name: Machine(name, primary=name == "p") for name in NAMES}
        self.leader = self.servers["p"]
        for name in REPLICAS:
            self.servers[name].upstream = self.leader
        self.clients = [
            Client(RoutingContext()), Client(RoutingContext()), Client(RoutingContext(root=True))
        ]  # fmt: skip
        self.probes: list[Probe] = []
        self.followed: tuple[Machine, float] | None = None  # the primary, and since when
        self.told: list[Machine] = []  # the router was told that these follow another
        self.reasons: Counter[Reason] = Counter()
        self.round()

    # -- the world -------------------------------------------------------------------------

    def observe(self, report: Report) -> None:
        primary = self.router.observe(replace(report, node=self.nodes[report.node].name)).primary
        followed = None if primary is None else self.servers[primary.host]
        if followed is not None and (self.followed is None or self.followed[0] is not followed):
            self.followed = (followed, self.now)
        if followed is not self.leader or self.followed is None:
            return
        server, since = self.servers[report.node], self.followed[1]
        if report.started > since and 0 < report.received < self.leader.timeline:
            self.told.append(server)
        rival = report.role is Role.PRIMARY and server is not self.leader
        if rival and server.up and report.started > since:
            others = [s for s in self.servers.values() if not s.primary]
            self.told += [s for s in others if s.control < self.leader.timeline]

    def diverged(self, server: Machine) -> bool:
        """It has what its cluster's primary has not."""
        return self.leader.log[: len(server.log)] != server.log

    def asked(self, server: Machine, started: float) -> Report:
        return server.answers(started, monitor=self.monitor)

    def round(self) -> None:
        for server in self.servers.values():
            self.observe(self.asked(server, self.now))

    def replay(self, name: str, count: int) -> None:
        """Stream, if what was replayed is part of the history of where it comes from."""
        server, source = self.servers[name], self.servers[name].upstream
        if server.up and not server.primary and source is not None and server.streams:
            server.timeline = source.timeline
            server.log = source.log[: len(server.log) + count]
            if count > 3:
                server.control = server.timeline

    def wal(self, count: int, server: Machine | None = None) -> None:
        for _ in range(count):
            self.ids += 1
            (server or self.leader).log.append(self.ids)

    def happen(self, what: list[tuple[str, str, int]]) -> None:
        for verb, name, number in what:
            self.now += 0.01
            if verb == "replay":
                self.replay(name, number)
            elif verb == "probe":
                self.probes.append(Probe(self.servers[name], self.now))
            elif verb == "wal" and self.leader.up:
                self.wal(number)
            elif verb == "other":
                for server in self.servers.values():
                    if server.primary and server.up and server is not self.leader:
                        self.wal(number, server)
            elif verb == "round":
                self.round()
            elif verb in ("look", "report") and number < len(self.probes):
                probe = self.probes[number]
                if probe.report is None:
                    probe.report = self.asked(probe.server, probe.started)
                if verb == "report":
                    self.probes.remove(probe)
                    if self.now - probe.started < 1.0:  # the monitor's patience
                        self.observe(probe.report)

    @rule(what=events)
    def time_passes(self, what: list[tuple[str, str, int]]) -> None:
        self.happen(what)

    @rule(seconds=st.sampled_from([0.5, 2.0, 40.0]))
    def long_time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(name=replicas, lost=st.integers(0, 5))
    def crash(self, name: str, lost: int) -> None:
        """A replica starts again from an older state; a probe may or may not meet it down.

        If none does, a client may find less than it had read there: that much is not promised.
        """
        server = self.servers[name]
        if server.up and not server.primary:
            server.log = server.log[: max(0, len(server.log) - lost)]
            server.broken = True
            if lost % 2:
                self.observe(Report(name, self.now, error="starting up"))
            else:
                for client in self.clients:
                    client.seen &= client.written | set(server.log)

    @rule()
    def blacklist(self) -> None:
        """Clients lose their connections to every replica; the servers are well."""
        for node in self.nodes.values():
            if node is not self.router.primary:
                self.router.health.failed(node, "08006")

    @rule(name=replicas, lost=st.integers(0, 5))
    def replace(self, name: str, lost: int) -> None:
        """A replica leaves, and another server joins in its place, restored from a backup."""
        old, node = self.servers[name], self.nodes[name]
        if old.primary or self.router.primary == node:
            return
        self.now += 0.01
        self.router.remove_replica(node.name)
        log = old.log[: max(0, len(old.log) - lost)]
        self.servers[name] = Machine(
            name, log, old.timeline, control=old.control, upstream=old.upstream
        )
        self.now += 0.01
        self.nodes[name] = self.router.add_replica({"host": name, "name": node.name})

    @rule()
    def rest(self) -> None:
        """Everybody catches up and is seen to have: pins are forgotten."""
        for name in REPLICAS:
            self.replay(name, 1000)
        self.now += 0.01
        self.round()

    @precondition(lambda self: len(self.probes) > 4)
    @rule()
    def forget_probes(self) -> None:
        self.probes.clear()

    @rule(name=replicas, lives=st.booleans(), torn=st.booleans())
    def promote(self, name: str, lives: bool = False, torn: bool = False) -> None:
        """A replica is promoted, and what the old primary had beyond that is lost.

        The old primary dies, or `lives` on and takes writes of others. The other replica follows
        the new one, or stays with the old one where the cluster is `torn`.
        """
        server, old = self.servers[name], self.leader
        if not server.up or server.primary:
            return
        for other in self.servers.values():
            if other.primary and other is not old:
                other.primary, other.up, other.broken = False, False, True
        if not lives:
            old.primary, old.up, old.broken = False, False, True
        server.primary, server.timeline = True, old.timeline + 1
        server.control, server.began, server.upstream = server.timeline, len(server.log), None
        self.leader = server
        for other in self.servers.values():
            if not other.primary and not (torn and lives):
                other.upstream = server
        survived = set(server.log)
        for client in self.clients:
            client.written &= survived
            client.seen &= survived

    @rule(name=servers)
    def rejoin(self, name: str) -> None:
        """A server that is not the primary comes back as a replica, rewound to where that is now.

        Source: https://www.postgresql.org/docs/current/app-pgrewind.html
        """
        server, leader = self.servers[name], self.leader
        if server is leader or (server.up and not server.primary and server.upstream is leader):
            return
        server.broken = server.broken or server.up
        self.told = [other for other in self.told if other is not server]
        server.primary, server.up, server.began = False, True, None
        server.timeline = server.control = leader.timeline
        server.log, server.upstream = list(leader.log), leader
        self.observe(Report(name, self.now, error="starting up"))

    # -- what clients do -------------------------------------------------------------------

    @rule(me=clients, sent=events, committed=events, returned=events)
    def write(self, me: int, sent: Any, committed: Any, returned: Any) -> None:
        client = self.clients[me]
        try:
            decision = self.router.decide(WRITE, context=client.context)
        except PrimaryUnavailable:
            return
        self.router.pinning.wrote(client.context, done=False)
        self.happen(sent)
        server = self.servers[decision.nodes[0].host]
        if not server.up or not server.primary:
            return  # refused: dead, or in recovery
        self.wal(1, server)
        mine = self.ids
        self.happen(committed)
        self.router.pinning.wrote(client.context, done=True)
        if server is self.leader:  # else it is lost already
            client.written.add(mine)
            client.seen.add(mine)
        self.happen(returned)

    @rule(me=clients, sent=events, seen=events, turn=st.integers(0, 1))
    def read(self, me: int, sent: Any, seen: Any, turn: int) -> None:
        client = self.clients[me]
        try:
            decision = self.router.decide(READ, context=client.context)
        except PrimaryUnavailable:
            return
        self.reasons[decision.reason] += 1
        node = decision.nodes[turn % len(decision.nodes)]
        server = self.servers[node.host]
        followed = self.followed is not None and self.followed[0] is self.leader
        if followed and any(s is server for s in self.told) and self.diverged(server):
            raise WrongServer(f"a read was sent to {node}, which follows another primary")
        promised, before = set(client.written), set(client.seen)
        unnoticed = self.unnoticed
        self.happen(sent)
        server = self.servers[node.host]  # another one may have come in its place meanwhile
        if server.broken or not server.up:
            self.router.health.failed(node, "08006")
            # Adapters ask each new connection what its server is, before they trust it.
            server.broken = not server.up
            self.observe(self.asked(server, self.now))
            return
        got = set(server.log)
        self.happen(seen)
        if unnoticed or self.unnoticed:
            return
        self.check(promised - got, "its own writes", node)
        if not client.context.root:
            self.router.pinning.read(client.context, node)
            self.check(before - got, "what it had seen", node)
            client.seen |= got & set(self.leader.log)

    @property
    def unnoticed(self) -> bool:
        """The router still follows an old primary that lives on: nothing is promised meanwhile."""
        primary = self.router.primary
        followed = None if primary is None else self.servers[primary.host]
        return followed is not None and followed.primary and followed is not self.leader

    def check(self, missing: set[int], what: str, node: Node) -> None:
        alive = missing & set(self.leader.log)
        if alive:
            raise StaleRead(f"a read on {node.name} missed {what}: {sorted(alive)}")


class HiddenCluster(Cluster):
    """Seen by a role without ``pg_read_all_stats``."""

    monitor = False


class OffCluster(Cluster):
    consistency = "off"


def some_events(rand: random.Random) -> list[tuple[str, str, int]]:
    verbs = rand.choices(
        ["replay", "probe", "look", "report", "wal", "other", "round", "wait"],
        [6, 4, 3, 3, 1, 1, 1, 1],
        k=rand.choice([0, 0, 1, 2, 4]),
    )
    return [
        (verb, rand.choice(NAMES if verb == "probe" else REPLICAS), rand.randint(0, 3))
        for verb in verbs
    ]


def wander(cluster: Cluster, rand: random.Random, steps: int = 150) -> None:
    """Let chance play, with outages rare enough for something to happen between them."""
    for step in rand.choices(
        [
            "write",
            "read",
            "time",
            "long",
            "crash",
            "promote",
            "rejoin",
            "round",
            "rest",
            "replace",
            "blacklist",
        ],
        [25, 45, 25, 1, 3, 0.7, 3, 4, 3, 1, 2],
        k=steps,
    ):
        me, events = rand.randrange(3), [some_events(rand) for _ in range(3)]
        match step:
            case "write":
                cluster.write(me, *events)
            case "read":
                cluster.read(me, events[0], events[1], rand.randrange(2))
            case "time":
                cluster.time_passes(events[0])
            case "long":
                cluster.long_time_passes(rand.choice([0.5, 40.0]))
            case "crash":
                cluster.crash(rand.choice(REPLICAS), rand.randint(0, 5))
            case "promote":
                lives = rand.random() < 0.3
                cluster.promote(rand.choice(REPLICAS), lives, lives and rand.random() < 0.7)
            case "rejoin":
                cluster.rejoin(rand.choice(NAMES))
            case "round":
                cluster.now += 0.01
                cluster.round()
            case "rest":
                cluster.rest()
            case "blacklist":
                cluster.blacklist()
            case "replace":
                cluster.replace(rand.choice(REPLICAS), rand.randint(0, 5))


SEARCH = settings(
    max_examples=100,
    stateful_step_count=40,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Thousands of clusters fail over; nobody wants to read of it."""
    logger = logging.getLogger("router")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)


ROLES = pytest.mark.parametrize("seen_by", [Cluster, HiddenCluster])
"""Whether the role may see the timelines of WAL receivers."""


@ROLES
def test_no_read_misses_its_clients_writes_nor_goes_back_in_time(seen_by: type[Cluster]) -> None:
    """Whatever the lag, crashes, promotions and probes, each client sees what it was promised."""
    run_state_machine_as_test(seen_by, settings=SEARCH)


@ROLES
def test_chance_finds_no_broken_promise_either(seen_by: type[Cluster]) -> None:
    """In hundreds of long histories no read breaks a promise, and every rule of reads was met."""
    met: Counter[Reason] = Counter()
    for seed in range(300):
        cluster = seen_by()
        try:
            wander(cluster, random.Random(seed))
        except (StaleRead, WrongServer) as error:
            error.add_note(f"seed {seed}")
            raise
        met += cluster.reasons
    assert set(met) == {
        Reason.READ,
        Reason.PIN_REPLICA,
        Reason.PIN_PRIMARY,
        Reason.MONOTONIC_PRIMARY,
        Reason.NO_REPLICA,
        Reason.LAST_RESORT,
    }
    assert min(met.values()) > 5


@pytest.mark.parametrize("drive", ["hypothesis", "chance"])
def test_the_check_finds_a_stale_read_where_nothing_is_promised(drive: str) -> None:
    """With ``consistency="off"`` the same search finds a client that misses its own write."""

    def search() -> None:
        if drive == "hypothesis":
            run_state_machine_as_test(OffCluster, settings=SEARCH)
        for seed in range(20):
            wander(OffCluster(), random.Random(seed))

    with pytest.raises(StaleRead, match="its own writes"):
        search()


def test_the_check_finds_a_read_back_in_time_where_nobody_remembers_reads() -> None:
    """A Router that is not told of reads lets a client go back in time, and that is noticed."""

    def search() -> None:
        for seed in range(20):
            cluster = Cluster()
            cluster.router.pinning.read = lambda context, node: None  # type: ignore[method-assign]
            wander(cluster, random.Random(seed))

    with pytest.raises(StaleRead, match="what it had seen"):
        search()


@ROLES
def test_the_check_finds_a_read_on_a_replica_of_the_old_primary(
    seen_by: type[Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Router that does not ask whom a replica follows reads on the wrong one, and that is
    noticed."""
    monkeypatch.setattr("router.cluster.following.strays", lambda *_: {})

    def search() -> None:
        for seed in range(1000):
            wander(seen_by(), random.Random(seed))

    with pytest.raises(WrongServer):
        search()


def test_the_check_finds_a_stale_read_where_newcomers_are_trusted_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A replica that joined and may read before it has replayed what others had misses writes
    whose pins are forgotten, and that is noticed."""
    monkeypatch.setattr("router.cluster.eligible.joined", lambda *_: True)

    def search() -> None:
        for seed in range(1000):
            wander(Cluster(), random.Random(seed))

    with pytest.raises(StaleRead, match="its own writes"):
        search()
