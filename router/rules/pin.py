"""When a pin ends, and which replicas show what a context has written or read already."""

from dataclasses import replace

from router.model import Node, Snapshot
from router.rules.context import LastRead, Pin
from router.rules.decision import Policy
from router.rules.view import View


def resolved(pin: Pin, snapshot: Snapshot) -> Pin | None:
    """`pin` with a WAL position on the timeline of `snapshot`, or None while none is known.

    Any position sampled on the primary after the commit returned bounds the commit from above.
    Positions of different timelines are not comparable, so after a promotion the bound is taken
    from the new primary. A pin of a timeline yet to come is from a process that has met the new
    primary already; until this one does, no position of the old one covers it.
    """
    if pin.lsn is not None and pin.timeline == snapshot.timeline:
        return pin
    if pin.timeline > snapshot.timeline:
        return None
    lsn = snapshot.bound(pin.at)
    return None if lsn is None else replace(pin, lsn=lsn, timeline=snapshot.timeline)


def expired(pin: Pin, snapshot: Snapshot, policy: Policy, now: float) -> bool:
    """Whether `pin` can be forgotten at `now` (monotonic seconds): by `policy` its time is over,
    or by `snapshot` every replica has replayed it, one that is out now too: it may come back
    older."""
    if policy.consistency == "time":
        return pin.waited(now) >= policy.pin_duration
    if pin.lsn is None or pin.timeline != snapshot.timeline:
        return False
    lsn = pin.lsn
    return all(
        (at := snapshot.replayed(n.name)) is not None and at >= lsn
        for n in snapshot.nodes
        if n is not snapshot.primary
    )


def caught_up(view: View, pin: Pin, policy: Policy, now: float) -> tuple[Node, ...]:
    """Replicas of `view` that satisfy `pin` by `policy` at `now` (monotonic seconds)."""
    if policy.consistency == "time":
        return view.replicas if pin.waited(now) >= policy.pin_duration else ()
    snapshot, lsn = view.snapshot, pin.lsn
    if lsn is None or pin.timeline != snapshot.timeline:
        return ()
    found = tuple(
        n for n in view.replicas if (at := snapshot.replayed(n.name)) is not None and at >= lsn
    )
    return view.replicas if len(found) == len(view.replicas) else found


def as_recent(view: View, replicas: tuple[Node, ...], last: LastRead) -> tuple[Node, ...]:
    """Those of `replicas` that by `view` show nothing older than `last`, the context's last read.

    The replica it read from last, while eligible and without a break since. Otherwise replicas
    that have replayed what the primary had written by then: what the last one reports now counts
    for nothing, for it may have crashed and come back with less than was read from it.
    """
    snapshot = view.snapshot
    report = snapshot.reports.get(last.node.name)
    if report is not None and report.since <= last.at and last.node in replicas:
        return (last.node,)
    floor = snapshot.bound(last.at)
    if floor is None:
        # Where no server tells a position, to stay on one replica is all that can be done.
        return replicas if snapshot.blind() else ()
    return tuple(
        n for n in replicas if (at := snapshot.replayed(n.name)) is not None and at >= floor
    )


def shows_less(
    node: Node, view: View, policy: Policy, pin: Pin | None, last: LastRead | None, now: float
) -> bool:
    """Whether `node`, a replica of `view`, may by `policy` show less at `now` (monotonic seconds)
    than a context has written, as `pin` says, or has read, as `last` does."""
    if (
        pin is not None
        and policy.consistency != "off"
        and node not in caught_up(view, pin, policy, now)
    ):
        return True
    if last is None or last.node is node:
        return False
    return node not in as_recent(view, view.replicas, last)
