"""What routing would have done, while everything goes to the primary: evidence before adoption."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from router.decide import Reason

WHY: Mapping[Reason, str] = {
    Reason.WRITE: "writes, or not surely reads",
    Reason.TRANSACTION: "in a transaction that had written",
    Reason.EXPLICIT: "in a transaction of the application's",
    Reason.BOUND: "in a session that only the primary has",
    Reason.PIN_PRIMARY: "reads kept there so that a user sees their own write",
    Reason.MONOTONIC_PRIMARY: "reads kept there so that nobody goes back in time",
    Reason.NO_REPLICA: "reads for which no replica was fit",
    Reason.FORCED_PRIMARY: "sent there by the application",
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
    """

    statements: int
    replicas: int
    behind: int
    furthest: float
    stayed: Mapping[Reason, int]

    @property
    def share(self) -> float:
        """Part of the statements that would leave the primary, 0 to 1."""
        return self.replicas / self.statements if self.statements else 0.0

    def __str__(self) -> str:
        if not self.statements:
            return "Dry run: no statement has been seen yet."
        lines = [
            f"Dry run: {self.statements:,} statements, all on the primary.",
            f"Replicas would have served {self.replicas:,} of them ({self.share:.1%}).",
        ]
        if self.replicas:
            part = self.behind / self.replicas
            late = f", {self.furthest:.1f} s at most" if self.behind else ""
            lines.append(
                f"  {self.behind:,} of these ({part:.1%}) by a replica that was behind then{late}."
            )
        kept = self.statements - self.replicas
        if kept:
            lines.append(f"The primary would have kept {kept:,}:")
            for reason, n in sorted(self.stayed.items(), key=lambda item: -item[1]):
                lines.append(f"  {n:>9,}  {WHY.get(reason, str(reason))}")
        return "\n".join(lines)


def summed_up(decisions: Mapping[tuple[str, Reason], int], furthest: float) -> DryRunReport:
    """What a dry run has seen.

    Args:
        decisions: how often each was made, by node and reason, as `Telemetry` counts them.
        furthest: seconds the replica furthest behind would have been.
    """
    by_reason: Counter[Reason] = Counter()
    for (_, reason), n in decisions.items():
        by_reason[reason] += n
    total = by_reason.total()
    behind = by_reason.pop(Reason.DRY_RUN_BEHIND, 0)
    moved = by_reason.pop(Reason.DRY_RUN, 0) + behind
    return DryRunReport(total, moved, behind, furthest, dict(by_reason))
