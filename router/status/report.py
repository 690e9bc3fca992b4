"""How a cluster stands now, as one value that can be printed or sent."""

import math
import re
from dataclasses import dataclass

from router.cluster.router import Router
from router.model import Node, Role
from router.rules.blacklist import Entry
from router.rules.view import View

_AROUND = re.compile(
    r"(connection failed: )?connection to server .* failed: |consuming input failed: "
    r"| (Is the server running|This probably means) .*"
)


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One node, as last seen.

    Attributes:
        name: the node's name.
        address: ``host:port``.
        role: what it said it is, UNKNOWN where it has not answered.
        reads: whether it is the primary, or a replica that gets reads now.
        lag_seconds: how far a replica is behind, None where that is not known.
        lag_bytes: how far a replica is behind, in bytes of WAL.
        problem: why it gets nothing, empty where nothing is wrong.
    """

    name: str
    address: str
    role: Role
    reads: bool
    lag_seconds: float | None = None
    lag_bytes: int | None = None
    problem: str = ""

    def __str__(self) -> str:
        told = [f"{self.name:<12} {self.role!s:<8} {self.address}"]
        if self.lag_seconds is not None:
            told.append(f"{self.lag_seconds:.1f} s behind")
        if self.problem:
            told.append(self.problem)
        return "  ".join(told)


@dataclass(frozen=True, slots=True)
class Status:
    """A cluster, as last seen.

    Attributes:
        cluster: its id.
        primary: name of the node writes go to, None while there is none.
        nodes: every node, the configured primary first.
    """

    cluster: str
    primary: str | None
    nodes: tuple[NodeStatus, ...]

    @property
    def writable(self) -> bool:
        """Whether a primary has answered the last probe."""
        return any(n.name == self.primary and not n.problem for n in self.nodes)

    def __str__(self) -> str:
        head = f"{self.cluster}: " + ("writable" if self.writable else "no primary")
        return "\n".join([head, *(f"  {node}" for node in self.nodes)])


def status(router: Router) -> Status:
    """How the cluster of `router` stands, by what is known; `Router.refresh` asks the nodes."""
    view, now = router.view, router.clock()
    primary = view.snapshot.primary
    nodes = tuple(_node(view, node, now) for node in view.snapshot.nodes)
    return Status(router.cluster, None if primary is None else primary.name, nodes)


def _node(view: View, node: Node, now: float) -> NodeStatus:
    snapshot = view.snapshot
    report, is_primary = snapshot.reports.get(node.name), node is snapshot.primary
    lags = report is not None and not is_primary
    return NodeStatus(
        node.name,
        f"{node.host}:{node.port}",
        Role.UNKNOWN if report is None else report.role,
        is_primary or node in view.replicas,
        snapshot.lag_seconds(node.name) if lags else None,
        snapshot.lag_bytes(node.name) if lags else None,
        _problem(view, node, now),
    )


def _problem(view: View, node: Node, now: float) -> str:
    """Why `node` gets nothing, empty where nothing is wrong."""
    snapshot, name = view.snapshot, node.name
    report, out = snapshot.reports.get(name), kept_out(view, name)
    if out is not None:
        left = out.until - now
        term = (
            "until it is restored by hand"
            if math.isinf(left)
            else f"for {max(0.0, left):.0f} s more"
        )
        return f"out {term}: {brief(out.reason)}"
    if report is None:
        return "not probed yet"
    if not report.ok and not report.vouched:
        return f"no answer: {brief(' '.join(report.error.split()))}"
    if foreign := snapshot.foreign(name):
        return f"gets nothing: it {foreign}"
    if name in snapshot.fenced:
        return "fenced: another server is the primary"
    if name in snapshot.strays:
        return f"does not follow the primary: {snapshot.strays[name].why}"
    if node is snapshot.primary or node in view.replicas:
        return ""
    return "too far behind, or not joined yet"


def kept_out(view: View, name: str) -> Entry | None:
    """The blacklist's entry in `view` that keeps the node called `name` out, None without one. The
    entry it got as a replica does not count once it is the primary."""
    entry, primary = view.out.get(name), view.snapshot.primary
    if entry is None or (primary is not None and primary.name == name and not entry.primary):
        return None
    return entry


def brief(error: str) -> str:
    """`error`, one line, without the address and the advice libpq puts around what happened."""
    return _AROUND.sub("", error)
