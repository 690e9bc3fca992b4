"""Who is primary, and what follows from it: the next Snapshot, from what the servers say.

Nothing here reads a clock or asks a server: each function takes a Snapshot and returns another.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from router import model
from router.cluster import eligible, following
from router.cluster.reports import came_back, continued, unasked
from router.model import NO_STRAYS, Branch, Floor, Lsn, Node, Report, Role, Sample, Snapshot


def with_reports(snapshot: Snapshot, reports: Iterable[Report], now: float) -> Snapshot:
    """`snapshot` with `reports` in place of earlier ones, at `now` (monotonic seconds)."""
    merged = dict(snapshot.reports)
    known = {n.name for n in snapshot.nodes}
    back: dict[str, Floor] = {}
    for report in reports:
        before = merged.get(report.node)
        # A node may have left while it was asked, and another come under its name.
        if report.node in known and (before is None or before.started <= report.started):
            merged[report.node] = continued(report, before, now)
            floor = snapshot.joining.get(report.node)
            if came_back(report, before) and (floor is None or floor.after is not None):
                # Another process may have seen it satisfy a pin before, and forgotten that pin.
                back[report.node] = Floor(0, Lsn(0), report.reconnected)
    if back:
        snapshot = replace(snapshot, joining=MappingProxyType({**snapshot.joining, **back}))
    return _judged(snapshot, merged, now)


def with_nodes(snapshot: Snapshot, nodes: Iterable[Node], now: float) -> Snapshot:
    """`snapshot` over other `nodes` from `now` on (monotonic seconds); reports of kept ones stay.

    Pins that every node satisfied are forgotten, so a new one has to replay as much as they had
    before it may serve reads.
    """
    nodes = tuple(nodes)
    old = {(n.name, n.host, n.port) for n in snapshot.nodes}
    stay = {n.name for n in nodes if (n.name, n.host, n.port) in old}
    kept = {name: r for name, r in snapshot.reports.items() if name in stay}
    among = replace(snapshot, nodes=nodes)
    if snapshot.primary is None or snapshot.primary.name not in stay:
        # Its timeline went with it: else the nodes that are left could never take over.
        heir = None if kept else next((n for n in nodes if n.role is Role.PRIMARY), None)
        among = replace(
            among,
            primary=heir,
            changed=snapshot.changed if snapshot.primary is None and heir is None else now,
            timeline=0,
            samples=(),
            branch=None,
            contested=0,
            strays=NO_STRAYS,
        )
    strays = {name: stray for name, stray in among.strays.items() if name in stay}
    among = replace(among, strays=MappingProxyType(strays))
    if snapshot.timeline:  # else no pin was ever satisfied
        new = {n.name for n in nodes} - stay
        kept |= {name: unasked(name, now) for name in new}
        floors = {name: f for name, f in snapshot.joining.items() if name in stay}
        among = replace(among, joining=floors | dict.fromkeys(new, _floor(snapshot)))
    return _judged(among, kept, now)


def renewed(snapshot: Snapshot, node: Node, now: float) -> Snapshot:
    """`snapshot` at `now` (monotonic seconds), when `node` is another server, not asked yet."""
    reports = {**snapshot.reports, node.name: unasked(node.name, now)}
    joining = {**snapshot.joining, node.name: _floor(snapshot)}
    strays = {name: stray for name, stray in snapshot.strays.items() if name != node.name}
    return _judged(replace(snapshot, joining=joining, strays=strays), reports, now)


def _floor(snapshot: Snapshot) -> Floor:
    samples = snapshot.samples
    return Floor(snapshot.timeline, samples[-1].lsn if samples else Lsn(0))


def _judged(before: Snapshot, reports: dict[str, Report], now: float) -> Snapshot:
    """The cluster of `before` as `reports` show it: who leads, who follows, and who may read."""
    judged = _led(before, reports, now)
    contested = following.contested(before, judged)
    strays = following.strays(before, judged, contested, now)
    if strays or before.strays or contested != before.contested:
        judged = replace(judged, contested=contested, strays=strays)
    if before.joining:
        floors = ((n, eligible.floor_known(judged, f)) for n, f in before.joining.items())
        joining = {n: f for n, f in floors if not eligible.joined(judged, n, f, now)}
        judged = replace(judged, joining=MappingProxyType(joining))
    replicas = (n for n in judged.nodes if n is not judged.primary)
    return replace(judged, replicas=tuple(n for n in replicas if eligible.may_read(judged, n)))


def _led(before: Snapshot, reports: dict[str, Report], now: float) -> Snapshot:
    """The cluster of `before` with `reports`, and the primary that they show."""
    followed = "" if before.primary is None else before.primary.name
    # The server we follow says which cluster this is; any other that differs is a stranger.
    among = _identified(replace(before, reports=MappingProxyType(reports)), reports.get(followed))
    claims = {n: r for n in before.nodes if (r := reports.get(n.name)) and r.role is Role.PRIMARY}
    primary = _primary(before, among, claims)
    timeline, samples, branch = before.timeline, before.samples, before.branch
    if primary is not None and (mine := claims.get(primary)):
        timeline, samples, branch = _line(before, mine)
        among = _identified(among, mine)
    return replace(
        among,
        primary=primary,
        samples=samples,
        timeline=timeline,
        fenced=frozenset(n.name for n in claims if n is not primary),
        changed=before.changed if followed == (primary.name if primary else "") else now,
        branch=branch,
    )


def _identified(snapshot: Snapshot, mine: Report | None) -> Snapshot:
    """`snapshot` with what the primary's report says of the cluster and of its database, which is
    the one meant: an heir that opens another would take writes astray."""
    if mine is None:
        return snapshot
    system_id = mine.system_id or snapshot.system_id
    database = mine.database or snapshot.database
    if (system_id, database) == (snapshot.system_id, snapshot.database):
        return snapshot
    return replace(snapshot, system_id=system_id, database=database)


def _primary(before: Snapshot, among: Snapshot, claims: Mapping[Node, Report]) -> Node | None:
    """The node that takes writes: of `claims`, those who say that they are primary, the one on the
    highest timeline. `among` is `before` with the new reports, and what its primary says of
    itself."""
    known = before.timeline if before.system_id in (among.system_id, "") else 0
    valid = {
        n: r.timeline
        for n, r in claims.items()
        if r.timeline >= known
        and among.same_cluster(r)
        and (r.database == among.database or not r.database or not among.database)
    }
    leaders = [n for n, timeline in valid.items() if timeline == max(valid.values())]
    followed = "" if before.primary is None else before.primary.name
    primary = next((n for n in before.nodes if n.name == followed), None)
    mine = among.reports.get(followed)
    if primary is not None and mine is None:
        return primary  # it has yet to be asked
    if leaders:
        # Two claimants on one timeline: the one we already follow keeps the writes.
        return primary if primary in leaders else leaders[0]
    if mine is not None and mine.ok:
        return None  # demoted: a replica, or left behind on an old timeline
    return primary


def _line(before: Snapshot, mine: Report) -> tuple[int, tuple[Sample, ...], Branch | None]:
    """The primary's timeline, its positions on that and where it began, as `mine` shows them."""
    timeline, samples, branch = before.timeline, before.samples, before.branch
    if mine.timeline != timeline:
        branch = following.branch_of(before, mine)
        timeline, samples = mine.timeline, ()
    if mine.lsn is not None and (not samples or samples[-1].started < mine.started):
        flushed = mine.lsn if mine.flushed is None else mine.flushed
        sample = Sample(mine.started, mine.lsn, mine.taken, flushed)
        samples = (*samples[-(model.MAX_SAMPLES - 1) :], sample)
    return timeline, samples, branch
