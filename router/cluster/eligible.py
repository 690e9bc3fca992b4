"""Which replicas may serve reads: those that follow, have shown what they have, and are near."""

from router.model import Floor, Node, Report, Role, Snapshot


def floor_known(snapshot: Snapshot, floor: Floor) -> Floor:
    """`floor`, where it is a node's that came back with the position that the primary of
    `snapshot` had afterwards, if that is known: what the node had before it went is no more."""
    samples = snapshot.samples
    if floor.after is None or (floor.lsn and floor.timeline == snapshot.timeline):
        return floor
    if not samples or samples[-1].started < floor.after:
        return floor
    return Floor(snapshot.timeline, samples[-1].flushed, floor.after)


def joined(snapshot: Snapshot, name: str, floor: Floor, now: float) -> bool:
    """Whether the node `name`, which joined later or came back, has replayed `floor` by
    `snapshot`, or need not at `now` (monotonic seconds)."""
    report = snapshot.reports.get(name)
    if report is None or not report.ok:
        return False
    if report.lsn is None or not report.timeline:
        return True  # the server tells no position: pins there end by time
    if floor.after is not None:
        if now - floor.after > snapshot.limits.back:
            return True
        # The control file may name an old timeline for minutes, where nobody sees the receiver.
        there = report.timeline == snapshot.timeline or not report.received
        return there and bool(floor.lsn) and report.lsn >= floor.lsn
    if report.timeline != snapshot.timeline:
        return False
    if floor.timeline == snapshot.timeline:
        return report.lsn >= floor.lsn
    branch = snapshot.branch
    if branch is None:
        return True
    there = (
        floor.timeline == branch.parent
    )  # else its position is on an older one yet, and says nothing
    return report.lsn >= (min(floor.lsn, branch.lsn) if there else branch.lsn)


def may_read(snapshot: Snapshot, node: Node) -> bool:
    """Whether `node`, which is not the primary of `snapshot`, may serve reads."""
    report = snapshot.reports.get(node.name)
    if report is None or not report.ok or report.role is not Role.REPLICA:
        return False
    floor = snapshot.joining.get(node.name)
    if floor is not None and (floor.after is None or snapshot.writable):
        return False  # without a primary nobody can tell what it missed, and reads go on
    if node.name in snapshot.strays:
        return False
    if snapshot.foreign(node.name):
        return False
    return _regained(snapshot, report) and _near(snapshot, report)


def _regained(snapshot: Snapshot, report: Report) -> bool:
    """Whether a replica has replayed again what it once had; see `Report.highest`."""
    lsn, branch = report.lsn, snapshot.branch
    if lsn is None:
        return True
    if report.highest is not None and lsn < report.highest:
        return False
    if report.highest_before is None or branch is None:
        return True
    on, highest = report.highest_before
    # What it had past the branch is lost; up to there it may still have less than it had.
    return on != branch.parent or lsn >= min(highest, branch.lsn)


def _near(snapshot: Snapshot, report: Report) -> bool:
    """Whether a replica is within the limits, as far as anything is known to be behind of."""
    limits, primary = snapshot.limits, snapshot.primary
    if limits.seconds is None and limits.bytes is None:
        return True
    if report.mute:
        return True  # it tells no lag either
    seen = snapshot.reports.get(primary.name) if primary is not None else None
    if not snapshot.samples and (seen is None or not seen.ok):
        # No primary has answered since this process began: there is nothing to be behind of, and
        # refusing every replica would turn the primary's outage into one of reads.
        return True
    seconds, behind = snapshot.lag_seconds(report.node), snapshot.lag_bytes(report.node)
    # Few bytes *or* few seconds: an idle primary makes seconds lie, a busy one makes bytes large.
    near = limits.bytes is not None and behind is not None and behind <= limits.bytes
    fresh = limits.seconds is not None and seconds is not None and seconds <= limits.seconds
    return near or fresh
