"""What routing would have done, while everything goes to the primary: evidence before adoption."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from router.rules.decision import Reason

WHY: Mapping[Reason, str] = {
    Reason.WRITE: "writes, which a replica refuses",
    Reason.ACTS: "what would act on a replica in silence, such as a lock",
    Reason.UNKNOWN: "what is not surely a read: functions or tables nobody knows",
    Reason.TRANSACTION: "in a transaction that had written already",
    Reason.EXPLICIT: "in a transaction that the application began",
    Reason.SERVER_LOCAL: "questions about the server itself, such as its locks and its activity",
    Reason.BOUND: "in a session with something of its own there, such as a temporary table",
    Reason.PIN_PRIMARY: "reads just after a write, so that its author sees it",
    Reason.MONOTONIC_PRIMARY: "reads for which every replica was behind what was seen already",
    Reason.NO_REPLICA: "reads while no replica was up and close enough behind",
    Reason.FORCED_PRIMARY: "sent there by the application on purpose",
}
"""Why a statement stays on the primary, for people."""


@dataclass(frozen=True, slots=True)
class DryRunReport:
    """What a dry run has seen so far.

    Attributes:
        statements: all that ran.
        replicas: how many of them a replica would have served.
        behind: how many of those by a replica that had not replayed all the primary is known to
            have written: they might have missed a write of somebody else's, never their own.
        furthest: seconds the replica furthest behind would have been then.
        stayed: the others by the reason why they stay on the primary.
        seconds: since when it runs.
    """

    statements: int
    replicas: int
    behind: int
    furthest: float
    stayed: Mapping[Reason, int]
    seconds: float

    @property
    def share(self) -> float:
        """Part of the statements that would leave the primary, 0 to 1."""
        return self.replicas / self.statements if self.statements else 0.0

    def __str__(self) -> str:
        if not self.statements:
            return "Dry run: no statement has been seen yet."
        kept, moved = self.statements - self.replicas, self.replicas
        span = _span(self.seconds)
        lines = [f"Dry run over {span}: {self.statements:,} statements, all run on the primary."]
        lines.append(
            f"With routing on, replicas would have taken {moved:,} reads ({self.share:.1%}) "
            f"and left it {kept:,}."
        )
        if self.behind:
            part = self.behind / moved
            lines += ["", f"Of those reads {self.behind:,} ({part:.1%}) might have been stale:"]
            lines.append(
                f"  their replica was behind, by {self.furthest:.1f} s at most, so that somebody "
                "else's newest"
            )
            lines.append("  write might have been missing; a user's own never.")
        elif moved:
            lines += ["", "None of those reads would have met a replica known to be behind."]
        if kept:
            lines += ["", f"What would have stayed on the primary ({kept:,}):"]
            for reason, n in sorted(self.stayed.items(), key=lambda item: -item[1]):
                share = f"{n / self.statements:.1%}"
                lines.append(f"  {n:>9,} {share:>6}  {WHY.get(reason, str(reason))}")
        return "\n".join(lines)


def _span(seconds: float) -> str:
    for unit, name in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} seconds"


def summed_up(
    decisions: Mapping[tuple[str, Reason], int], furthest: float, seconds: float
) -> DryRunReport:
    """What a dry run has seen in `seconds`: `decisions` by node and reason, as `Telemetry` counts
    them; the replica `furthest` behind would have been as many seconds behind."""
    by_reason: Counter[Reason] = Counter()
    for (_, reason), n in decisions.items():
        by_reason[reason] += n
    total = by_reason.total()
    behind = by_reason.pop(Reason.DRY_RUN_BEHIND, 0)
    moved = by_reason.pop(Reason.DRY_RUN, 0) + behind
    return DryRunReport(total, moved, behind, furthest, dict(by_reason), seconds)
