"""One simulated application over one simulated cluster, from a seed."""

import random
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import greenlet

from router.pins.carrier import PinCarrier
from router.psycopg import AsyncConnectionPool, ConnectionPool
from tests.simulation import interrupts
from tests.simulation.bouncer import Bouncer
from tests.simulation.clients import User
from tests.simulation.driver import Network, SimConnection
from tests.simulation.faults import Saboteur
from tests.simulation.half_open import USER_TIMEOUT
from tests.simulation.history import History
from tests.simulation.judges import HALF_OPEN, at_rest, judge, left, let_in_again, watch
from tests.simulation.patches import patched
from tests.simulation.postgres import World
from tests.simulation.scheduler import Scheduler, SimRuntime, Stuck
from tests.simulation.tasks import Bridge, BridgedPool, SimAsyncConnection

SECRET = "a secret of the simulation's own"
OPERATIONS = 1000
"""Statements of clients in one run."""
LIMIT = 600.0
"""Seconds of the simulated clock after which a run that has not ended is stuck."""


@dataclass(frozen=True)
class Setting:
    """What a run is like; drawn from its seed, or said by a test.

    Attributes:
        operations: statements of clients after which it ends.
        replicas, processes, users, pool: how many there are; places of a node's pool.
        tasks: how many of the processes run tasks on an event loop; the others run threads.
        sees: the role of the monitor sees the timelines of WAL receivers.
        replay: seconds that replicas take to replay.
        catch_up: seconds they may need to replay again what they had, once started.
        faults: how many faults are drawn, and which.
        options: of the Router.
        synchronous: commits wait until a standby has flushed them.
        bouncer: server connections of the PgBouncer before each server, 0 where there is none.
    """

    operations: int
    replicas: int
    processes: int
    tasks: int
    users: int
    pool: int
    sees: bool
    replay: float
    catch_up: float
    faults: tuple[str, ...]
    options: dict[str, Any]
    synchronous: bool = False
    bouncer: int = 0

    @classmethod
    def drawn(
        cls,
        rand: random.Random,
        operations: int,
        kinds: tuple[str, ...],
        servers: random.Random,
    ) -> "Setting":
        """One that `rand` draws, and how the servers are set up `servers`; faults of `kinds`."""
        consistency = rand.choices(["lsn", "time"], [5, 1])[0]
        options: dict[str, Any] = {
            "consistency": consistency,
            "probe_interval": rand.choice([0.2, 0.5, 1.0]),
            "probe_timeout": rand.choice([0.5, 1.0]),
            "blacklist_duration": rand.choices([0.3, 1.0, 5.0], [2, 1, 1])[0],
            "max_lag_seconds": rand.choices([None, 0.5, 1.0, 5.0], [4, 2, 2, 1])[0],
            "pin_lsn": rand.choices(["sample", "commit"], [2, 1])[0],
            "pin_duration": 5.0,
            "transactions": rand.choices(["primary", "lazy"], [4, 1])[0],
            "reads_in_transaction": rand.random() < 0.2,
            "balance": rand.choice(["random", "round_robin", "least_outstanding"]),
        }
        setting = cls(
            operations,
            replicas=rand.randint(1, 3),
            processes=(processes := rand.randint(1, 3)),
            tasks=rand.randint(0, processes) if rand.random() < 0.4 else 0,
            users=rand.randint(6, 24),
            pool=rand.randint(2, 8),
            sees=rand.random() < 0.7,
            replay=rand.choices([0.001, 0.02, 0.1], [3, 1, 1])[0],
            catch_up=rand.choices([0.5, 5.0], [1, 2])[0],
            faults=tuple(rand.choices(kinds, k=rand.randint(0, 4))) if kinds else (),
            options=options,
            synchronous=servers.random() < 0.25,
        )
        asked = any(kind.startswith("bouncer") for kind in setting.faults)
        if not (asked or servers.random() < 0.05):
            return setting
        return setting.behind_bouncers(servers.randint(3, 10))

    def behind_bouncers(self, size: int) -> "Setting":
        """The same with PgBouncers of `size` server connections."""
        return replace(self, bouncer=size, options={**self.options, "pgbouncer": "transaction"})


class Process:
    """One process of the application: its pool, its Router, its monitor, its pins."""

    def __init__(self, simulation: "Simulation", number: int) -> None:
        setting, world = simulation.setting, simulation.world
        runtime = SimRuntime(simulation.scheduler, random.Random(f"{simulation.seed}p{number}"))
        self.number = number
        self.nesting = False  # one of its users holds two connections
        self.bridge: Bridge | None = None
        kind: Any = type("SimConnection", (SimConnection,), {"process": self})
        pool: Any = ConnectionPool
        if number < setting.tasks:
            self.bridge = Bridge(simulation.scheduler, f"event loop {number}")
            kind = type("SimAsyncConnection", (SimAsyncConnection,), {"blocking": kind})
            pool = AsyncConnectionPool
        pool = type("Pool", (pool,), {"_runtime": runtime, "_connection_class": kind})

        primary, *replicas = (f"{server.host}:{server.port}" for server in world.servers)
        made = pool(
            f"postgresql://app@{primary}/app",
            replicas=replicas,
            kwargs={"connect_timeout": 3},
            min_size=1,
            max_size=setting.pool,
            max_idle=20.0,
            timeout=5.0,
            connection_class=kind,
            **setting.options,
        )
        self.pool: Any = made if self.bridge is None else BridgedPool(made, self.bridge)
        self.router = made.router
        self._names = {server.port: server.name for server in world.servers}
        # The registry knows the Routers of all simulated processes.
        self.router.pinning._others = lambda: (self.router,)
        self.carrier = PinCarrier(
            SECRET, clock=simulation.scheduler.clock, wall=lambda: 1e9 + simulation.scheduler.now
        )
        self.router.telemetry.hooks.append(
            lambda name, fields: simulation.history.events.append(
                (simulation.scheduler.now, number, name, dict(fields))
            )
        )

    @property
    def leader(self) -> str:
        """The name of the server it takes for the primary; empty where there is none."""
        primary = self.router.primary
        return "" if primary is None else self._names[primary.port]


class Simulation:
    """Runs once.

    Attributes:
        over: users shall end.
        troubled: a fault is there.
        think: seconds a user waits between two requests at most.
    """

    def __init__(
        self,
        seed: int | str,
        setting: Setting | None = None,
        *,
        operations: int = OPERATIONS,
        kinds: tuple[str, ...] | None = None,
    ) -> None:
        rand = random.Random(f"{seed}")
        self.seed: int | str = seed
        self.setting = setting or Setting.drawn(
            rand,
            operations,
            Saboteur.KINDS if kinds is None else kinds,
            random.Random(f"{seed}v"),
        )
        self.scheduler = Scheduler(random.Random(f"{seed}s"))
        self.world = World(
            random.Random(f"{seed}w"),
            replicas=self.setting.replicas,
            monitor_sees_receivers=self.setting.sees,
            replay_delay=self.setting.replay,
            catch_up=self.setting.catch_up,
            synchronous=self.setting.synchronous,
        )
        self.network = Network(self.scheduler, self.world, random.Random(f"{seed}n"))
        if size := self.setting.bouncer:
            self.network.bouncers = {s.port: Bouncer(s, size) for s in self.world.servers}
        self.history = History()
        self.requests = count(1)
        self.numbers = count(1)
        self.processes: list[Process] = []
        self.over = False
        self.troubled = False
        self.claims: Any = None
        self.think = 0.08 * self.setting.users * rand.choice([0.1, 0.5, 1.0, 1.5])
        self._rand = rand

    def enter(self, process: Process) -> None:
        """The calling thread belongs to `process` from now on."""
        greenlet.getcurrent().process = process

    def routers(self) -> list[Any]:
        """The Routers of the process that the calling thread belongs to."""
        process = getattr(greenlet.getcurrent(), "process", None)
        return [] if process is None else [process.router]

    def run(self) -> History:
        """Run to the end, and judge; what happened."""
        scheduler, history = self.scheduler, self.history
        interrupts.begin()
        with patched(scheduler, self.network, self.routers):
            watch(self)
            done = scheduler.spawn(self._live, "main")
            try:
                scheduler.run(done, LIMIT)
            except Stuck as stuck:
                history.violate("ends", scheduler.now, str(stuck))
            for name, error in scheduler.crashes:
                history.violate("no crash", scheduler.now, f"{name}: {error!r}")
            judge(self)
        return history

    def _live(self) -> None:
        scheduler, setting = self.scheduler, self.setting
        for number in range(setting.processes):
            self.processes.append(Process(self, number))
        users = [
            User(self, number, random.Random(f"{self.seed}u{number}"))
            for number in range(setting.users)
        ]
        threads = [scheduler.spawn(user.run, f"user {user.number}") for user in users]
        saboteur = Saboteur(self, random.Random(f"{self.seed}f"))
        while self.history.operations < setting.operations * 0.1:
            scheduler.sleep(0.05)
        saboteur.run()
        while self.history.operations < setting.operations and not saboteur.enough():
            scheduler.sleep(0.05)
        self.over = True
        for thread in threads:
            thread.join(120.0)
        alive = [thread.name for thread in threads if thread.is_alive()]
        if alive:
            self.history.violate("nobody waits for ever", scheduler.now, ", ".join(alive))
        self._close()

    def _close(self) -> None:
        at_rest(self)
        let_in_again(self)
        for process in self.processes:
            with suppress(Exception):
                process.pool.close()
        late = any(fault.what in HALF_OPEN for fault in self.history.faults)
        self.scheduler.sleep(10.0 + USER_TIMEOUT * late)  # until the kernel ends what is left
        left(self)
