"""The events of a cluster, and their levels: who is kept out, what changed between snapshots."""

from router.cluster.lost_writes import Loss
from router.cluster.state import State
from router.model import Node, Role, Snapshot
from router.rules.blacklist import Entry

LOST_WRITES = (
    "it was promoted without WAL that the former primary had flushed: look there for what is "
    "missing before you rebuild it, and see synchronous_standby_names"
)
"""What to do about writes that a promotion lost, for people."""


def blacklisted(state: State, node: str, reason: str, seconds: float | None) -> None:
    """Tell `state` that a node is kept out, for `seconds`; None is until it is let back in."""
    state.telemetry.event(
        "blacklisted", level="warning", node=node, reason=reason, seconds=seconds
    )


def restored(state: State, entry: Entry, now: float) -> None:
    """Tell `state` that the node of `entry` was let back in, at `now` (monotonic seconds)."""
    state.telemetry.event("restored", node=entry.node, after=round(now - entry.since, 3))


def primary(state: State, before: Snapshot, after: Snapshot) -> None:
    """Tell `state` that another server is followed in `after` than in `before`."""
    state.telemetry.event(
        "primary_changed",
        level="warning",
        before=before.primary.name if before.primary else None,
        after=after.primary.name if after.primary else None,
        timeline=after.timeline,
    )


def rivals(state: State, before: Snapshot, after: Snapshot) -> None:
    """Tell `state` who claims to be primary as well in `after`, but did not `before`."""
    for name in after.fenced - before.fenced:
        state.telemetry.event(
            "fenced", level="error", node=name, reason="claims to be primary as well"
        )


def foreigners(state: State, before: Snapshot, after: Snapshot) -> None:
    """Tell `state` whose rows are not the primary's in `after`, but were `before`."""
    for node in after.nodes:
        reason = after.foreign(node.name)
        if reason and not before.foreign(node.name):
            state.telemetry.event(
                "foreign",
                level="error",
                node=node.name,
                reason=reason,
                advice="it gets no statement: correct its address or database",
            )


def lag(state: State, before: Snapshot, after: Snapshot) -> None:
    """Tell `state` which answering replicas stop or begin to take reads, `before` to `after`."""
    strays(state, before, after)
    if before.replicas is after.replicas or before.replicas == after.replicas:
        return
    for node in before.replicas:
        # Foreigners and strays have an event of their own.
        other = after.foreign(node.name) or node.name in after.strays or _is_back(after, node)
        if node in after.replicas or node not in after.nodes or other:
            continue
        if _answers_as_replica(after, node):
            state.telemetry.event(
                "lagging",
                level="warning",
                node=node.name,
                seconds=after.lag_seconds(node.name),
                bytes=after.lag_bytes(node.name),
            )
    for node in after.replicas:
        stray = before.strays.get(node.name)
        known = (stray is None or stray.sure) and not _is_back(before, node)
        if node not in before.replicas and known and _answers_as_replica(before, node):
            state.telemetry.event("caught_up", node=node.name)


def _is_back(snapshot: Snapshot, node: Node) -> bool:
    """Whether `node` came back, and has to show that it lacks nothing, which takes a moment."""
    floor = snapshot.joining.get(node.name)
    return floor is not None and floor.after is not None


def _answers_as_replica(snapshot: Snapshot, node: Node) -> bool:
    report = snapshot.reports.get(node.name)
    return report is not None and report.ok and report.role is Role.REPLICA


def strays(state: State, before: Snapshot, after: Snapshot) -> None:
    """Tell `state` which answering replicas stop following the primary, `before` to `after`."""
    for name, stray in after.strays.items():
        report, known = after.reports[name], before.strays.get(name)
        new = stray.sure and not (known is not None and known.sure)
        if new and report.ok and report.role is Role.REPLICA:
            state.telemetry.event(
                "not_following",
                level="warning",
                node=name,
                reason=stray.why,
                advice="let its primary_conninfo lead to the primary, or set it up anew with "
                "pg_rewind or pg_basebackup",
            )


def writes(state: State, before: Snapshot, after: Snapshot) -> None:
    """Tell `state` that writes became impossible, or possible, from `before` to `after`."""
    was, now = before.writable, after.writable
    if was and not now:
        state.telemetry.event(
            "degraded",
            level="error",
            node=after.primary.name if after.primary else None,
            advice="writes fail until there is a primary; reads go on"
            if after.primary is None
            else "writes fail unless a connection that is open still serves; reads go on",
        )
    elif now and not was:
        state.telemetry.event("writable", node=after.primary.name if after.primary else None)


def reach(state: State, name: str, before: Snapshot, after: Snapshot) -> None:
    """Tell `state` that the node `name` falls silent or answers again, `before` to `after`."""
    was, now = before.down(name), after.down(name)
    if was is not None and now is None:
        away = round(state.clock() - was.since, 3)
        state.telemetry.event("reachable", node=name, after=away)
    elif was is None and now is not None:
        state.telemetry.event("unreachable", level="warning", node=name, reason=now.error)


def lost_writes(
    state: State, found: Loss, primary: str, former: str | None, timeline: int
) -> None:
    """Tell `state` that what the `former` primary acknowledged to this process is not on
    `primary`, and its `timeline`, or may not be: see `found`."""
    began, written, certain = found
    if certain:
        state.telemetry.event(
            "writes_lost",
            level="error",
            node=primary,
            before=former,
            timeline=timeline,
            began=str(began),
            written=str(written),
            bytes=written - began,
            advice=LOST_WRITES,
        )
    else:
        state.telemetry.event(
            "writes_maybe_lost",
            level="warning",
            node=primary,
            before=former,
            timeline=timeline,
            began=str(began),
            written=str(written),
            bytes=written - began,
            advice=LOST_WRITES,
        )


def no_positions(state: State) -> None:
    """Tell `state` that the servers tell no WAL positions."""
    state.telemetry.event(
        "no_positions",
        level="warning",
        advice="the servers tell no WAL positions, so a write pins for pin_duration: give "
        "the role EXECUTE on the WAL functions, or say consistency='time'",
    )
