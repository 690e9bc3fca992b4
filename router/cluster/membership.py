"""Who belongs to the cluster: servers that join and leave, by hand or as discovery says."""

import weakref
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple, Protocol

from router.cluster.roles import renewed
from router.cluster.state import State
from router.config.server import Server, free_name
from router.errors import ConfigError
from router.model import Node, Role
from router.rules.context import ROOT, Pin


class Use(NamedTuple):
    """The connections to one node that are open.

    Attributes:
        busy: those in use.
        idle: those kept for whoever comes next.
    """

    busy: int = 0
    idle: int = 0


class NodePools(Protocol):
    """An adapter's pools, one for each node."""

    def retire(self, node: Node) -> None:
        """Close idle connections to `node` now, others when they come back; any thread."""

    def use(self) -> Mapping[Node, Use]:
        """The connections to each node that has any."""
        ...


class Membership:
    """The servers of a cluster, and the pools of connections to them; any thread."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._lock = state.runtime.lock()
        self._pools: weakref.WeakSet[NodePools] = weakref.WeakSet()

    def add_replica(self, given: str | Mapping[str, object]) -> Node:
        """As `Router.add_replica`."""
        server = self._state.config.joining(given, "add_replica")
        with self._lock:
            names = {n.name for n in self._state.servers}
            if server.name in names:
                raise ConfigError(
                    f"add_replica: the name {server.name!r} is taken by another node: "
                    "give every node a name of its own"
                )
            node = server.node(free_name(names), Role.REPLICA)
            self._become({**self._state.servers, node: server})
        return node

    def remove_replica(self, name: str) -> Node:
        """As `Router.remove_replica`."""
        with self._lock:
            node = self._state.named("remove_replica", name)
            if node is self._state.primary:
                raise ConfigError(
                    f"remove_replica: {node} is the primary: promote another server first"
                )
            self._become({n: s for n, s in self._state.servers.items() if n is not node})
        return node

    def members(self, given: Iterable[str | Mapping[str, object]]) -> None:
        """Make `given` the servers of the cluster: new ones join, others leave.

        `given` names every server as ``replicas`` does, the primary too; roles are found out. A
        server is known again by its host and port; its weight, zone and priority are taken over.
        The primary stays until another one is followed, or a member claims to be it.

        Raises:
            ConfigError: nothing is given, an entry is malformed or opens another database, or two
                have one name.
        """
        wanted = {}
        for i, entry in enumerate(given):
            server = self._state.config.joining(entry, f"discovery[{i}]")
            wanted[server.host, server.port] = server
        if not wanted:
            raise ConfigError("discovery: no server was given: give every one of the cluster")
        with self._lock:
            servers: dict[Node, Server] = {}
            for node, server in self._state.servers.items():
                known, found = node, wanted.pop((node.host, node.port), None)
                if found is not None:
                    share = (found.weight, found.zone, found.priority)
                    if share != (node.weight, node.zone, node.priority):
                        known = replace(node, weight=share[0], zone=share[1], priority=share[2])
                    servers[known] = server
                elif node is self._state.primary and not self._claimed_beside(node):
                    servers[node] = server
            for server in wanted.values():
                names = {n.name for n in servers}
                if server.name in names:
                    raise ConfigError(
                        f"discovery: two servers are called {server.name!r}: "
                        "give every one a name of its own"
                    )
                servers[server.node(free_name(names), Role.REPLICA)] = server
            if servers.keys() != self._state.servers.keys():
                self._become(servers)

    def _claimed_beside(self, primary: Node) -> bool:
        """Whether another node claims to be primary on the timeline of `primary`: a server that is
        known by two addresses, or a split brain."""
        snapshot = self._state.snapshot
        return any(
            (report := snapshot.reports.get(name)) and report.timeline == snapshot.timeline
            for name in snapshot.fenced - {primary.name}
        )

    def _become(self, servers: Mapping[Node, Server]) -> None:
        state = self._state
        old, new = ({(n.name, n.host, n.port): n for n in s} for s in (state.servers, servers))
        leaving = [node for key, node in old.items() if key not in new]
        joining = [node for key, node in new.items() if key not in old]
        changed = [node for node in state.servers if node not in servers]
        state.take_members(servers, leaving)
        if not state.split and len(servers) > 1:
            # Outside any request no pin was kept while there was nothing to read but the primary.
            ROOT.pins.set(state.cluster, Pin(state.clock()))
            state.split = True
        state.members_changed()
        for node in changed:
            self.retire(node)
        for node in leaving:
            state.telemetry.event("left", node=node.name, address=f"{node.host}:{node.port}")
        for node in joining:
            state.telemetry.event("joined", node=node.name, address=f"{node.host}:{node.port}")
        for node in joining:
            state.hurry(node)

    def moved(self, node: Node, before: Iterable[str], after: Iterable[str]) -> None:
        """The name of `node` stands for the addresses `after`, none of them among those `before`:
        its pool is emptied, and as a replica it gets reads again like one that joins."""
        now = self._state.clock()
        self._state.see(lambda snapshot: renewed(snapshot, node, now))
        self.retire(node)
        self._state.telemetry.event(
            "moved",
            level="warning",
            node=node.name,
            before=" ".join(sorted(before)),
            after=" ".join(sorted(after)),
        )
        self._state.hurry(node)

    def attach(self, pools: NodePools) -> None:
        """Tell `pools`, held weakly, when connections to a node are not to be used again."""
        self._pools.add(pools)

    def retire(self, node: Node) -> None:
        """Let every attached pool close its connections to `node` as they are now."""
        for pools in list(self._pools):
            pools.retire(node)

    def use(self) -> dict[str, Use]:
        """As `Router.use`."""
        found = {node.name: Use() for node in self._state.servers}
        for pools in list(self._pools):
            for node, use in pools.use().items():
                before = found.get(node.name, Use())
                found[node.name] = Use(before.busy + use.busy, before.idle + use.idle)
        return found
