"""Who follows the primary: where its timeline began, and what shows that a node is on another."""

from collections.abc import Iterator, Mapping
from math import inf
from types import MappingProxyType
from typing import NamedTuple

from router.model import NO_STRAYS, Branch, Report, Role, Snapshot, Stray


def branch_of(before: Snapshot, mine: Report) -> Branch | None:
    """Where the timeline of `mine`, the report of a server just promoted, began; None where that
    and the snapshot `before` do not tell."""
    # Where the server was restarted since, its timeline began at this position or before.
    lsn = mine.lsn if mine.began is None else mine.began
    if lsn is None or not before.timeline:
        return None
    was = before.reports.get(mine.node)
    if was is None or was.role is not Role.REPLICA or mine.node in before.strays:
        return Branch(before.timeline, lsn, False, -inf)
    # If its connections broke since, it may have crashed: `began` then ends that recovery.
    unbroken = mine.began is not None and was.since <= was.started
    # Only a server that was on the followed timeline has left that one, and by the next number.
    left = was.timeline == before.timeline == mine.timeline - 1
    return Branch(before.timeline, lsn, unbroken and left, was.started)


def contested(before: Snapshot, snapshot: Snapshot) -> int:
    """`Snapshot.contested` of `snapshot`, which follows `before`, by claims as new as its
    primary's: an older claim may be the old primary's last answer before it died."""
    if snapshot.timeline < before.timeline:
        return 0  # another cluster
    known_since = _known_since(snapshot)
    if any(claim.started >= known_since for claim in _rivals(snapshot)):
        return snapshot.timeline
    return before.contested


def strays(
    before: Snapshot, snapshot: Snapshot, contested: int, now: float
) -> Mapping[str, Stray]:
    """`Snapshot.strays` at `now` (monotonic seconds): what was known `before` and still holds, and
    what the reports of `snapshot` show beside a `contested` timeline."""
    timeline = snapshot.timeline
    if not timeline or timeline < before.timeline:
        return NO_STRAYS
    found: dict[str, Stray] = {}
    for node in snapshot.nodes:
        report = snapshot.reports.get(node.name)
        if report is None or node is snapshot.primary:
            continue
        shown = _evidence(before, snapshot, report, contested)
        known = before.strays.get(node.name)
        if known is not None and (not known.lasting or known.over(report, timeline)):
            known = None
        if known is not None and (shown is None or not shown.lasting):
            found[node.name] = known
        elif shown is not None:
            found[node.name] = Stray(*shown, timeline, report.timeline, now)
    return MappingProxyType(found) if found else NO_STRAYS


class _Evidence(NamedTuple):
    """The part of a `Stray` that the reports show."""

    why: str
    lasting: bool = True
    sure: bool = True


def _evidence(
    before: Snapshot, snapshot: Snapshot, report: Report, contested: int
) -> _Evidence | None:
    """What shows that the node of `report` does not follow the primary, None where nothing does.

    A timeline that the control file tells is a lower bound: it excludes no replica by itself, or
    after each failover a role without ``pg_read_all_stats`` would see none for minutes.
    """
    timeline = snapshot.timeline
    if found := _past_the_branch(before, snapshot, report):
        return found
    if not report.ok or report.role is not Role.REPLICA:
        return None
    if 0 < report.received < timeline:
        new = report.started >= _known_since(snapshot)
        why = f"its WAL receiver is on timeline {report.received}, the primary on {timeline}"
        return _Evidence(why, lasting=new, sure=new)
    if report.timeline > timeline:
        return _ahead(snapshot, report)
    return _beside_a_rival(snapshot, report, contested) or _past_the_primary(snapshot, report)


def _past_the_branch(before: Snapshot, snapshot: Snapshot, report: Report) -> _Evidence | None:
    """A promotion has just been seen, and the node had more WAL than is left of the old line."""
    timeline, branch = snapshot.timeline, snapshot.branch
    if branch is None or timeline == before.timeline or report.timeline >= timeline:
        return None
    past = report.position_before(branch.until)
    if before.primary is not None and report.node == before.primary.name and before.samples:
        past = before.samples[-1].flushed
    if past is None or past <= branch.lsn:
        return None
    return _Evidence(f"it had WAL up to {past} when timeline {timeline} began at {branch.lsn}")


def _ahead(snapshot: Snapshot, report: Report) -> _Evidence | None:
    """The node is on a later timeline than the primary, which has answered since."""
    # Its primary may be the next to answer. With ours away reads go on there.
    timeline, primary = snapshot.timeline, snapshot.primary
    mine = None if primary is None else snapshot.reports.get(primary.name)
    seen = None if mine is None else report.known_before(mine.started)
    if not snapshot.writable or seen is None or seen.timeline <= timeline:
        return None
    why = f"it is on timeline {report.timeline}, the primary on {timeline}"
    return _Evidence(why, lasting=False)


def _beside_a_rival(snapshot: Snapshot, report: Report, contested: int) -> _Evidence | None:
    """The node was last seen on a timeline that another server claims to be the primary of."""
    if report.received or not 0 < report.timeline < snapshot.timeline:
        return None
    why = (
        f"it was last seen on timeline {report.timeline}, on which a server that is not "
        "followed claimed to be the primary"
    )
    # It has a receiver, whose timeline this role may not see.
    why += "; GRANT pg_read_all_stats shows sooner which one it follows" * report.streaming
    if report.timeline < contested:
        return _Evidence(why)
    if any(_rivals(snapshot)):
        return _Evidence(why, lasting=False, sure=False)
    return None


def _past_the_primary(snapshot: Snapshot, report: Report) -> _Evidence | None:
    """The node had more WAL than the primary when that was asked, and has only gone on since."""
    if not snapshot.samples:
        return None
    last = snapshot.samples[-1]
    past = report.position_before(last.started)
    if past is None or past <= last.lsn:
        return None
    return _Evidence(f"it has WAL up to {past}, the primary only up to {last.lsn}")


def _rivals(snapshot: Snapshot) -> Iterator[Report]:
    """Claims to be the primary on an older timeline than the one that is followed."""
    for name in snapshot.fenced:
        claim = snapshot.reports[name]
        if snapshot.same_cluster(claim) and 0 < claim.timeline < snapshot.timeline:
            yield claim


def _known_since(snapshot: Snapshot) -> float:
    """When the followed primary was first asked of the answers that say that it is one."""
    primary = snapshot.primary
    mine = None if primary is None else snapshot.reports.get(primary.name)
    return snapshot.changed if mine is None else mine.since
