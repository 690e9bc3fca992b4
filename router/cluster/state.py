"""What one process knows of one cluster, for the parts of its Router to share."""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from router.cluster.gate import Gate
from router.cluster.roles import with_nodes
from router.config.config import Config
from router.config.server import Server
from router.errors import ConfigError
from router.messages import did_you_mean
from router.model import Node, Snapshot
from router.rules.blacklist import Blacklist
from router.rules.decision import Policy
from router.rules.pgbouncer import SHARED
from router.rules.view import View
from router.runtime import Runtime
from router.telemetry import Telemetry

if TYPE_CHECKING:
    from router.cluster.monitor import Monitor


class State:
    """The snapshot, the blacklist, and what they are of. May be used from any thread.

    Attributes:
        config: what the user asked for.
        runtime: its clock, and all it waits with.
        clock: monotonic seconds.
        cluster: the cluster's name.
        policy: what of the options the rules need.
        telemetry: counts and events.
        servers: the members of the cluster, and how each is reached.
        kept_out: the nodes that are kept out, and until when.
        view: the snapshot and the blacklist, as one value to check and use; for reading.
        pooled: whether a PgBouncer that pools by transaction or statement stands before any node.
        split: whether there is, or may be, anything to read but the primary.
        monitor: probes the nodes; None where nobody knows how to connect.
        gate: who waits for connections to the nodes.
        last_write: when this process last wrote, or met a pin set elsewhere (monotonic seconds).
    """

    def __init__(self, config: Config, runtime: Runtime) -> None:
        self.config: Config = config
        self.runtime: Runtime = runtime
        # Called for each statement: an attribute, and nothing in between.
        self.clock: Callable[[], float] = runtime.clock
        self.cluster: str = config.cluster
        self.policy: Policy = config.policy()
        self.telemetry: Telemetry = Telemetry(self.cluster, self.clock)
        self.servers: Mapping[Node, Server] = MappingProxyType(config.servers())
        self.kept_out: Blacklist = Blacklist(config.blacklist_max)
        self.view: View = View(
            Snapshot.initial(self.servers, config.limits(), self.clock()), self.kept_out.entries
        )
        self.pooled: bool = any(map(self.shares_sessions, self.servers))
        self.split: bool = len(self.servers) > 1 or config.discovery is not None
        self.monitor: Monitor | None = None
        self.gate: Gate = Gate()
        self.last_write: float = float("-inf")
        self._lock = runtime.lock()

    @property
    def snapshot(self) -> Snapshot:
        """The cluster as last seen."""
        return self.view.snapshot

    @property
    def primary(self) -> Node | None:
        """The node writes go to, None while there is none."""
        return self.view.snapshot.primary

    def shares_sessions(self, node: Node) -> bool:
        """Whether a PgBouncer before `node` gives its clients no server session of their own."""
        server = self.servers.get(node)
        return server is not None and self.config.pooling(server) in SHARED

    def see(self, change: Callable[[Snapshot], Snapshot]) -> tuple[Snapshot, Snapshot]:
        """Replace the snapshot by what `change` makes of it; the one before, and the new one."""
        with self._lock:
            before = self.view.snapshot
            after = change(before)
            self.view = View(after, self.kept_out.entries)
        self.gate.look(self.view, self.clock())
        return before, after

    def take_members(self, servers: Mapping[Node, Server], gone: Iterable[Node]) -> None:
        """Make `servers` the members of the cluster; those `gone` leave the blacklist."""
        now = self.clock()
        with self._lock:
            self.servers = MappingProxyType(dict(servers))
            self.pooled = any(map(self.shares_sessions, self.servers))
            for node in gone:
                self.kept_out.remove(node.name, now)
            snapshot = with_nodes(self.view.snapshot, self.servers, now)
            self.view = View(snapshot, self.kept_out.entries)
        self.gate.look(self.view, now)

    def members_changed(self) -> None:
        """Other servers belong to the cluster; a Router knows what follows."""

    def blacklist_changed(self) -> None:
        """Look at the cluster through the blacklist as it is now."""
        with self._lock:
            self.view = View(self.view.snapshot, self.kept_out.entries)
        self.gate.look(self.view, self.clock())

    def hurry(self, node: Node | None = None) -> None:
        """Have `node`, or every node, probed soon."""
        if self.monitor is not None:
            self.monitor.hurry(node)

    def named(self, method: str, name: str) -> Node:
        """The node called `name`; without one raises ConfigError, which says `method`."""
        nodes = self.snapshot.nodes
        for node in nodes:
            if node.name == name:
                return node
        raise ConfigError(
            f"{method}: no node is called {name!r}{did_you_mean(name, (n.name for n in nodes))}"
        )
