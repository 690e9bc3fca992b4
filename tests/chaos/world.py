"""A cluster behind proxies, and everything that can be done to it."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Self

from router.testing import Cluster, Proxy, Server
from tests.chaos.clients import SCHEMA

ROLE = "app"


class World:
    """One primary and two replicas, each behind a proxy that clients connect to."""

    def __init__(self) -> None:
        self.cluster = Cluster(2)
        self.proxies: dict[str, Proxy] = {}
        self.stale_writes: list[str] = []
        self.figures: dict[str, list[float]] = {}

    def __enter__(self) -> Self:
        self.cluster.start()
        for server in self.cluster.servers:
            proxy = self.proxies[server.name] = Proxy(server.host, server.port)
            proxy.start()
        self.cluster.primary.execute(f"CREATE ROLE {ROLE} LOGIN")
        self.cluster.primary.execute(SCHEMA)
        self.cluster.primary.execute(f"GRANT ALL ON entry TO {ROLE}")
        self.cluster.wait_caught_up()
        return self

    def __exit__(self, *_: object) -> None:
        for proxy in self.proxies.values():
            proxy.close()
        self.cluster.close()

    def urls(self) -> list[str]:
        """The addresses clients are given: primary first."""
        order = [self.cluster.primary, *self.cluster.replicas]
        return [self.proxies[s.name].url(s.url()).replace("postgres@", f"{ROLE}@") for s in order]

    @property
    def primary(self) -> Server:
        return self.cluster.primary

    def proxy(self, server: Server) -> Proxy:
        return self.proxies[server.name]

    # -- faults: each holds for a while and ends with everything well ------------------------

    @contextmanager
    def killed(self, *servers: Server) -> Iterator[None]:
        for server in servers:
            server.kill()
        try:
            yield
        finally:
            for server in servers:
                server.start()

    @contextmanager
    def frozen(self, server: Server) -> Iterator[None]:
        server.freeze()
        try:
            yield
        finally:
            server.thaw()

    @contextmanager
    def deaf(self, server: Server) -> Iterator[None]:
        self.proxy(server).deaf()
        try:
            yield
        finally:
            self.proxy(server).heal()

    @contextmanager
    def refusing(self, server: Server) -> Iterator[None]:
        self.proxy(server).refuse()
        self.proxy(server).cut()
        try:
            yield
        finally:
            self.proxy(server).heal()

    @contextmanager
    def slow(self, server: Server) -> Iterator[None]:
        self.proxy(server).delay(0.1)
        try:
            yield
        finally:
            self.proxy(server).heal()

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        with self.cluster.replay_paused():
            yield

    @contextmanager
    def full(self) -> Iterator[None]:
        """The clients' connections end, and no server takes more than three of them again."""
        self.primary.execute(f"ALTER ROLE {ROLE} CONNECTION LIMIT 3")
        for server in self.cluster.servers:
            server.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [ROLE]
            )
        try:
            yield
        finally:
            self.primary.execute(f"ALTER ROLE {ROLE} CONNECTION LIMIT -1")

    @contextmanager
    def failed_over(self) -> Iterator[None]:
        """The primary is shut down, a replica promoted, and the old one comes back believing
        that it still is the primary; in the end it follows the new one."""
        old, new = self.primary, self.cluster.replicas[0]
        old.stop("fast")
        new.promote()
        self.figures.setdefault("promoted", []).append(time.monotonic())
        self.cluster.repoint(*(r for r in self.cluster.replicas if r is not old))
        old.start()
        before = self._rows(old)
        try:
            yield
        finally:
            if self._rows(old) != before:
                self.stale_writes.append(f"{old.name} took writes after {new.name} was promoted")
            self.cluster.rejoin(old)
            self.cluster.wait_caught_up()

    def _rows(self, server: Server) -> int:
        return int(server.execute("SELECT count(*) FROM entry")[0][0])


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing to happen.

    Attributes:
        title: for people.
        happen: makes it happen; a block that ends with everything well.
        hold: seconds it lasts.
        readable: readers must notice nothing: no error.
    """

    title: str
    happen: Callable[[World], AbstractContextManager[None]] = field(repr=False)
    hold: float = 1.0
    readable: bool = True


def _replica(world: World) -> Server:
    return world.cluster.replicas[0]


FAULTS: tuple[Fault, ...] = (
    Fault("a replica is killed", lambda w: w.killed(_replica(w))),
    Fault("a replica is frozen", lambda w: w.frozen(_replica(w))),
    Fault("the network to a replica goes deaf", lambda w: w.deaf(_replica(w))),
    Fault("a replica refuses connections", lambda w: w.refusing(_replica(w))),
    Fault("the network to a replica is slow", lambda w: w.slow(_replica(w))),
    Fault("replay stands still", World.standing_still),
    Fault("both replicas are killed", lambda w: w.killed(*w.cluster.replicas)),
    Fault("the primary is killed", lambda w: w.killed(w.primary)),
    Fault("the primary is frozen", lambda w: w.frozen(w.primary)),
    Fault("the network to the primary goes deaf", lambda w: w.deaf(w.primary)),
    Fault("the primary refuses connections", lambda w: w.refusing(w.primary)),
    Fault("the servers are full", World.full, readable=False),
    Fault("a replica is promoted, the old primary comes back", World.failed_over),
)
