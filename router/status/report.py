"""How a cluster stands now, as one value that can be printed or sent."""

import math
import re
from dataclasses import dataclass

from router.cluster.router import Router
from router.model import Role
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
        lag_bytes: the same in bytes of the log.
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
    snapshot = view.snapshot
    nodes = []
    for node in snapshot.nodes:
        report, out = snapshot.reports.get(node.name), kept_out(view, node.name)
        is_primary, reads = node is snapshot.primary, node in view.replicas
        if out is not None:
            problem = f"out {_term(out.until - now)}: {brief(out.reason)}"
        elif report is None:
            problem = "not probed yet"
        elif not report.ok and not report.vouched:
            problem = f"no answer: {brief(' '.join(report.error.split()))}"
        elif foreign := snapshot.foreign(node.name):
            problem = f"gets nothing: it {foreign}"
        elif node.name in snapshot.fenced:
            problem = "fenced: another server is the primary"
        elif node.name in snapshot.strays:
            problem = f"does not follow the primary: {snapshot.strays[node.name].why}"
        else:
            problem = "" if is_primary or reads else "too far behind, or not joined yet"
        nodes.append(
            NodeStatus(
                node.name,
                f"{node.host}:{node.port}",
                Role.UNKNOWN if report is None else report.role,
                is_primary or reads,
                None if is_primary or report is None else snapshot.lag_seconds(node.name),
                None if is_primary or report is None else snapshot.lag_bytes(node.name),
                problem,
            )
        )
    primary = snapshot.primary
    return Status(router.cluster, None if primary is None else primary.name, tuple(nodes))


def kept_out(view: View, name: str) -> Entry | None:
    """Why the node called `name` gets nothing; None where it is not out.

    What it got as a replica counts for nothing once it is the primary.
    """
    entry, primary = view.out.get(name), view.snapshot.primary
    if entry is None or (primary is not None and primary.name == name and not entry.primary):
        return None
    return entry


def _term(left: float) -> str:
    if math.isinf(left):
        return "until it is restored by hand"
    return f"for {max(0.0, left):.0f} s more"


def brief(error: str) -> str:
    """`error`, one line, without the address and the advice libpq puts around what happened."""
    return _AROUND.sub("", error)
