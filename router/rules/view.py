"""The snapshot and the blacklist as one value to check and use."""

from collections.abc import Mapping
from math import inf

from router.model import Node, Snapshot
from router.rules.blacklist import Entry
from router.rules.decision import Decision, Reason


class View:
    """A snapshot together with a blacklist, with what every read asks of the two worked out once.

    A new one is made when either of them is replaced; checking and using one View is what keeps a
    host list that changes between the check and the use from letting a stale read through.
    """

    __slots__ = (
        "any_read", "any_within", "out", "outdated", "replicas", "snapshot", "timeline",
        "write_within",
    )  # fmt: skip

    def __init__(self, snapshot: Snapshot, out: Mapping[str, Entry]) -> None:
        self.snapshot: Snapshot = snapshot
        self.timeline: int = snapshot.timeline
        self.out: Mapping[str, Entry] = out
        replicas = snapshot.replicas
        if out:
            replicas = tuple(n for n in replicas if n.name not in out)
        self.replicas: tuple[Node, ...] = replicas
        self.any_read: Decision | None = (
            Decision(replicas, Reason.READ, False) if replicas else None
        )
        # Nothing new is known of some node: its own connections are asked before they are used.
        self.outdated: bool = any(report.obstacle for report in snapshot.reports.values())
        # For statements in a transaction open on the primary: those that do not write, and writes.
        primary = snapshot.primary
        self.any_within: Decision | None = None
        self.write_within: Decision | None = None
        if primary is not None and not snapshot.doubted(primary.name):
            self.any_within = Decision((primary,), Reason.TRANSACTION, True)
            self.write_within = self.any_within._replace(pins=True)

    def uses(self, node: Node, now: float) -> bool:
        """Whether the rules send anything new to `node` at `now` (monotonic seconds)."""
        snapshot, entry = self.snapshot, self.out.get(node.name)
        if node is snapshot.primary:
            kept_out = entry is not None and entry.primary and not entry.due(now)
            return not kept_out and snapshot.doubted(node.name) is None
        if self.replicas:
            return node in self.replicas
        # The last resort; see `router.rules.decide.last_resort`.
        return node in snapshot.replicas and (entry is None or entry.until != inf)

    def why_no_reads(self) -> str:
        """One line saying of each node other than the primary why it takes no reads."""
        snapshot = self.snapshot
        parts = []
        for node in snapshot.nodes:
            if node is snapshot.primary:
                continue
            report = snapshot.reports.get(node.name)
            entry = self.out.get(node.name)
            if entry is not None:
                why = f"blacklisted: {entry.reason}"
            elif report is None:
                why = "not probed yet"
            elif report.error:
                why = report.error
            elif foreign := snapshot.foreign(node.name):
                why = f"it {foreign}"
            elif node.name in snapshot.strays:
                why = f"does not follow the primary: {snapshot.strays[node.name].why}"
            else:
                why = "behind or not a replica"
            parts.append(f"{node.name}: {why}")
        return "; ".join(parts) or "none configured"
