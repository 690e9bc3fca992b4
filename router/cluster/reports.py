"""One node's reports in a row: what each new one means beside the one before it."""

from dataclasses import replace
from math import inf

from router.model import Known, Lsn, Report, Role


def continued(report: Report, before: Report | None, now: float) -> Report:
    """`report`, taken in at `now` (monotonic seconds), as the next after `before`."""
    if report.obstacle and before is not None and before.ok:
        return _held_up(before, report)
    # A role given up means a restart, even if no probe met the node while it was down.
    unbroken = before and (before.ok, before.role) == (report.ok, report.role)
    highest, highest_on, highest_before = _highest(report, before)
    # If its connections broke in between, it may be another server, or an older state of it.
    known = before if before and unbroken and before.since <= before.started else None
    return replace(
        report,
        since=before.since if before and unbroken else report.started,
        failures=_failures(report, before),
        highest=highest,
        highest_on=highest_on,
        highest_before=highest_before,
        timeline=_timeline(report, before, known),
        taken=now,
        earlier=Known(known.taken, known.lsn, known.timeline) if known else None,
        reconnected=max(report.reconnected, before.reconnected) if before else -inf,
        vouched=not report.ok and before is not None and before.vouched,
    )


def came_back(report: Report, before: Report | None) -> bool:
    """Whether the monitor has replaced its connection to the replica of `report` since the one
    `before`, so that it may have crashed in between, and replay again what it had."""
    if before is None or report.role is not Role.REPLICA:
        return False
    return report.reconnected > before.reconnected


def unasked(name: str, now: float) -> Report:
    """What is known at `now` (monotonic seconds) of the node `name`, which was never probed."""
    return Report(name, now, error="not probed yet", since=now)


def _highest(
    report: Report, before: Report | None
) -> tuple[Lsn | None, int, tuple[int, Lsn] | None]:
    """`Report.highest`, its timeline, and the same of the timeline before that."""
    if before is None or before.highest is None:
        return report.lsn, report.timeline, None
    # A lost probe names no timeline, and a crashed replica may name an older one: neither
    # must wipe what it has to regain.
    if report.timeline <= before.highest_on or before.highest_on == 0:
        highest = before.highest if report.lsn is None else max(report.lsn, before.highest)
        return highest, max(report.timeline, before.highest_on), before.highest_before
    return report.lsn, report.timeline, (before.highest_on, before.highest)


def _timeline(report: Report, before: Report | None, known: Report | None) -> int:
    """The timeline its node is on, by `report` and the one `before`, which is `known` where the
    node has answered since without a break."""
    told = report.timeline or (before.timeline if before else 0)
    if known and report.role is Role.REPLICA and not report.received and known.replays:
        # A standby never goes back. While it has no receiver its control file, which may be
        # minutes behind, is all that it tells.
        return max(told, known.timeline)
    return told


def _failures(report: Report, before: Report | None) -> int:
    """Failed probes in a row, this one included."""
    if report.ok or report.obstacle:
        return 0
    # A statement that succeeded after a probe was sent proves more than the probe's failure.
    earlier = 0 if before is None or report.heard > before.outweighed else before.failures
    return earlier + (0 if report.heard > report.outweighed else max(1, report.failures))


def _held_up(report: Report, later: Report) -> Report:
    """`report` when `later` could learn nothing. A replica may have stood still since, and counts
    as that much further behind. A primary's position stays, for it bounds what was committed
    before it."""
    if report.role is not Role.REPLICA:
        return replace(report, obstacle=later.obstacle)
    lag, silent = report.lag_seconds, max(0.0, later.started - report.started)
    return replace(
        report,
        started=report.started + silent,
        lag_seconds=None if lag is None else lag + silent,
        obstacle=later.obstacle,
    )
