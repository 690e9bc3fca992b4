"""The frozen values everything else speaks in: Lsn, Role, Node, Report, Sample, Snapshot.

Nothing here reads a clock, opens a socket or holds a lock. Times are seconds of one monotonic
clock and arrive as arguments.
"""

import enum
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass, field, replace
from math import inf
from types import MappingProxyType
from typing import NamedTuple, Self

_LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")


class Lsn(int):
    """A WAL position: a byte offset, written by PostgreSQL as ``16/B374D848``.

    Positions are comparable within one timeline only.

    Source: https://www.postgresql.org/docs/current/datatype-pg-lsn.html
    """

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read PostgreSQL's ``XXX/XXX`` form.

        Raises:
            ValueError: the text is not two hexadecimal numbers joined by a slash.
        """
        found = _LSN.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is not a WAL position: expected a form like 16/B374D848")
        return cls((int(found[1], 16) << 32) | int(found[2], 16))

    def __str__(self) -> str:
        return f"{self >> 32:X}/{self & 0xFFFFFFFF:X}"

    def __repr__(self) -> str:
        return f"Lsn({self})"


class Role(enum.Enum):
    """What a server is, as it says itself, never as configuration hopes."""

    PRIMARY = "primary"
    REPLICA = "replica"
    UNKNOWN = "unknown"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One server as configured: where it is and how much traffic it should get.

    Credentials are not in here: adapters keep them with the connection arguments.

    Attributes:
        name: unique within the cluster; shown in logs, errors and metrics.
        host: host name, address or socket directory.
        port: TCP port.
        dbname: database the connections open; empty when the driver decides.
        role: the role configuration expects at start; the probe has the last word.
        weight: share of reads relative to the other replicas; 0 takes none unless alone.
        blacklist_duration: seconds a failure keeps the node out; None takes the cluster's.
        zone: where it stands, in the words of the option ``zone``.
        priority: replicas of a higher number get reads while none of a lower one is eligible.
    """

    name: str
    host: str
    port: int = 5432
    dbname: str = ""
    role: Role = Role.REPLICA
    weight: float = 1.0
    blacklist_duration: float | None = None
    zone: str = ""
    priority: int = 0

    # Every statement looks a node up: by its name, for all the fields would cost more. Within a
    # cluster no two have the same, so nearly every comparison ends there.

    def __hash__(self) -> int:
        return hash(self.name)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Node):
            return NotImplemented
        return self is other or (self.name == other.name and astuple(self) == astuple(other))

    def __str__(self) -> str:
        return f"{self.name} ({self.host}:{self.port})"


def app_name(node: Node) -> str:
    """What connections to `node` show as ``application_name`` where the user gives none."""
    return f"pg-router {node.name}"


class Known(NamedTuple):
    """What a node had told of its WAL by a moment.

    Attributes:
        taken: that moment, when the answer was taken in (monotonic seconds).
        lsn: as in `Report`.
        timeline: as in `Report`.
    """

    taken: float
    lsn: Lsn | None
    timeline: int


@dataclass(frozen=True, slots=True)
class Report:
    """What one probe of one node found.

    Attributes:
        node: the node's name.
        started: when the probe was sent (monotonic seconds). The values are at least as new.
        role: primary, replica, or unknown when the node did not answer.
        lsn: replay position of a replica; insert position of a primary.
        timeline: timeline the node is on, 0 when unknown. A replica that does not tell `received`
            is on this one or a later one: it goes by what the control file was last told.
        system_id: the cluster's system identifier, empty when unknown.
        lag_seconds: age of the last replayed transaction; None before the first one.
        streaming: a replica's WAL receiver is connected to its upstream.
        error: why the probe failed, one line, empty when it succeeded.
        since: when the node began to answer in its role, or to fail, without a break.
        failures: failed probes in a row since the node last showed life. Of a probe that has just
            failed: how many it counts for, where that is more than one.
        highest: the furthest replay ever reported on the timeline `highest_on`, the highest seen.
            A standby that crashed may accept connections before it has replayed as far again;
            until then it is not eligible, for a pin it once satisfied may be gone.
        highest_before: the same of the timeline before that one.
        received: timeline that a replica's WAL receiver is on; 0 while there is no receiver, or
            where the role may not see it.
        began: where a primary's recovery ended. For a server that was promoted, and has not been
            restarted since, its timeline began there; None after a start without recovery.
        flushed: how far a primary has flushed its WAL. Standbys are sent no more than that.
        taken: when the answer was taken in (monotonic seconds). The values are no newer.
        earlier: what the report before told, where the node has answered both times without a
            break, in the same role.
        database: the one that was reached, by the server's own name; empty when unknown.
        obstacle: why nothing newer is known, though nothing says that the node is down: a
            connection is still being opened, or the server answered and lets nobody in.
        heard: of a probe that failed: when a statement last succeeded there.
        vouched: a statement has succeeded there since the probes began to fail.
    """

    node: str
    started: float
    role: Role = Role.UNKNOWN
    lsn: Lsn | None = None
    timeline: int = 0
    system_id: str = ""
    lag_seconds: float | None = None
    streaming: bool = False
    error: str = ""
    since: float = 0.0
    failures: int = 0
    highest: Lsn | None = None
    highest_on: int = 0
    highest_before: tuple[int, Lsn] | None = None
    received: int = 0
    began: Lsn | None = None
    flushed: Lsn | None = None
    taken: float = 0.0
    earlier: Known | None = None
    database: str = ""
    obstacle: str = ""
    heard: float = float("-inf")
    vouched: bool = False

    @property
    def ok(self) -> bool:
        """Whether the node answered."""
        return not self.error

    @property
    def mute(self) -> bool:
        """Whether the server answers, but tells neither position nor timeline: see `ROLE_SQL`."""
        return self.ok and self.lsn is None and self.timeline == 0

    def known_before(self, at: float) -> Known | None:
        """What it told of the last two times, if it had been taken in before `at`."""
        if self.taken < at:
            return Known(self.taken, self.lsn, self.timeline)
        earlier = self.earlier
        return earlier if earlier is not None and earlier.taken < at else None

    def position_before(self, at: float) -> Lsn | None:
        """The position that had been taken in before `at`, on the timeline of this report."""
        known = self.known_before(at)
        return None if known is None or known.timeline != self.timeline else known.lsn

    def after(self, before: "Report | None", now: float) -> "Report":
        """This report, taken in at `now`, with what only the history knows continued from the one
        before it."""
        if self.obstacle and before is not None and before.ok:
            return before._held_up(self)
        # A role given up means a restart, even if no probe met the node while it was down.
        unbroken = before is not None and before.ok is self.ok and before.role is self.role
        since = before.since if before and unbroken else self.started
        highest, highest_on, highest_before = self.lsn, self.timeline, None
        if before and before.highest is not None:
            highest_before = before.highest_before
            # A lost probe names no timeline, and a crashed replica may name an older one: neither
            # must wipe what it has to regain.
            if self.timeline <= before.highest_on or before.highest_on == 0:
                highest = before.highest if highest is None else max(highest, before.highest)
                highest_on = max(self.timeline, before.highest_on)
            else:
                highest_before = (before.highest_on, before.highest)
        timeline = self.timeline or (before.timeline if before else 0)
        earlier = None
        # Met anew in between, it may be another server, or an older state of the same one.
        if before and unbroken and before.since <= before.started:
            if self.role is Role.REPLICA and not self.received:
                # A standby never goes back. While it has no receiver its control file, which may
                # be minutes behind, is all that it tells.
                timeline = max(timeline, before.timeline)
            earlier = Known(before.taken, before.lsn, before.timeline)
        return replace(
            self,
            since=since,
            failures=self._failures(before),
            highest=highest,
            highest_on=highest_on,
            highest_before=highest_before,
            timeline=timeline,
            taken=now,
            earlier=earlier,
            vouched=not self.ok and before is not None and before.vouched,
        )

    def _failures(self, before: "Report | None") -> int:
        if self.ok or self.obstacle:
            return 0
        # A statement that succeeded after a probe was sent proves more than the probe's failure.
        earlier = 0 if before is None or self.heard > before.started else before.failures
        return earlier + (0 if self.heard > self.started else max(1, self.failures))

    def _held_up(self, later: "Report") -> "Report":
        """This report when `later` could learn nothing.

        A replica may have stood still since: it counts as that much further behind. A primary's
        position stays the one of its own time, for it bounds what was committed before that.
        """
        if self.role is not Role.REPLICA:
            return replace(self, obstacle=later.obstacle)
        lag, silent = self.lag_seconds, max(0.0, later.started - self.started)
        return replace(
            self,
            started=self.started + silent,
            lag_seconds=None if lag is None else lag + silent,
            obstacle=later.obstacle,
        )


@dataclass(frozen=True, slots=True)
class Sample:
    """The primary's insert position, asked for at `started`: an upper bound for every commit that
    had returned by then.

    Attributes:
        started: when it was asked for (monotonic seconds).
        lsn: the insert position.
        taken: when the answer was taken in: a lower bound for every commit sent later.
        flushed: how far the WAL was flushed, which is what a standby can have.
    """

    started: float
    lsn: Lsn
    taken: float
    flushed: Lsn


@dataclass(frozen=True, slots=True)
class Limits:
    """How far a replica may be behind and still serve reads; None is no limit."""

    seconds: float | None = None
    bytes: int | None = None


class Floor(NamedTuple):
    """What a node that joined has to have replayed before it may serve reads: a position on a
    timeline; on a later one as much of it as is left there, or what was there when that began."""

    timeline: int
    lsn: Lsn


class Branch(NamedTuple):
    """Where the followed timeline left the one that was followed before.

    Attributes:
        parent: the timeline before.
        lsn: past here they have no WAL in common.
        exact: up to here they have it all in common.
        until: a moment at which the promoted server was a replica still (monotonic seconds): what
            had been committed by then is before `lsn`, or lost. Minus infinity if none is known.
    """

    parent: int
    lsn: Lsn
    exact: bool
    until: float


@dataclass(frozen=True, slots=True)
class Stray:
    """Why a node that answers does not follow the followed primary, as far as is known.

    Attributes:
        why: one line.
        lasting: whether it holds until the node shows that it is on `timeline`; else only as long
            as the reports say so.
        sure: whether the reports are new enough to say so; they may be of a moment before the
            primary was promoted.
        timeline: the followed timeline.
        shown: the timeline the node was on at least.
        at: when that was found (monotonic seconds).
    """

    why: str
    lasting: bool
    sure: bool
    timeline: int
    shown: int
    at: float

    def over(self, report: Report, followed: int) -> bool:
        """Whether the node has come to `timeline` since, or nobody can tell any more.

        Args:
            report: the node's last one.
            followed: the timeline that is followed now.
        """
        if self.shown >= self.timeline and followed > self.timeline:
            return True  # to have had more than one primary says nothing of the next one
        if not report.ok or report.timeline < self.timeline:
            return False
        # On a timeline of the same number only a server that was set up anew can have come back.
        return report.timeline > self.shown or report.since > self.at


_NONE: Mapping[str, Stray] = MappingProxyType({})

MAX_SAMPLES = 256
"""Primary positions remembered: about five seconds of the fast probing pins ask for."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The cluster as last seen, replaced whole and never edited, so readers need no lock.

    Attributes:
        nodes: every configured node, in configuration order.
        reports: last report of each node that was ever probed.
        primary: the node that takes writes, or None while no node is known to.
        replicas: nodes in recovery, reachable and within `limits`, in configuration order.
        samples: recent positions of the current primary, oldest first.
        timeline: timeline of the primary the samples come from.
        fenced: nodes that claim to be primary but are not followed: another holds the writes, on
            the same timeline or a higher one, or they are `foreign`.
        changed: when `primary` last changed (monotonic seconds).
        joining: nodes that came later and have not shown yet that they replayed as much as is
            given here.
        system_id: the cluster's system identifier, empty when unknown.
        database: the primary's, by the server's own name; empty when unknown.
        branch: where `timeline` began, None where that is not known.
        contested: the highest timeline beside which a server on an older one was seen to claim to
            be the primary: replicas may follow that one.
        strays: nodes known not to follow the primary, by name. They serve no read.
    """

    nodes: tuple[Node, ...]
    reports: Mapping[str, Report] = field(default_factory=lambda: MappingProxyType({}))
    primary: Node | None = None
    replicas: tuple[Node, ...] = ()
    samples: tuple[Sample, ...] = ()
    timeline: int = 0
    system_id: str = ""
    fenced: frozenset[str] = frozenset()
    changed: float = 0.0
    limits: Limits = Limits()
    joining: Mapping[str, Floor] = field(default_factory=lambda: MappingProxyType({}))
    database: str = ""
    branch: Branch | None = None
    contested: int = 0
    strays: Mapping[str, Stray] = field(default_factory=lambda: _NONE)

    @classmethod
    def initial(cls, nodes: Iterable[Node], limits: Limits, now: float) -> Self:
        """The cluster before anything was probed: the configured primary, no replica."""
        nodes = tuple(nodes)
        primary = next((n for n in nodes if n.role is Role.PRIMARY), None)
        return cls(nodes=nodes, primary=primary, changed=now, limits=limits)

    def node(self, name: str) -> Node:
        """The node called `name`.

        Raises:
            KeyError: there is none.
        """
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    def blind(self) -> bool:
        """Whether the primary, or every replica, answers without telling its WAL position."""
        primary = self.primary
        answers = {n: r for n in self.nodes if (r := self.reports.get(n.name)) and r.ok}
        if primary is not None and primary in answers and answers.pop(primary).mute:
            return True
        return bool(answers) and all(r.mute for r in answers.values())

    def bound(self, at: float) -> Lsn | None:
        """Upper bound of the position of every commit that had returned by `at`, if one is known.

        The earliest sample *started after* `at` is the tightest. Of what was committed before the
        timeline began, all that is left is before the branch.
        """
        if self.branch is not None and at <= self.branch.until:
            return self.branch.lsn
        sample = self.sample_after(at)
        return None if sample is None else sample.lsn

    def sample_after(self, at: float) -> Sample | None:
        """The earliest sample of the primary that was started after `at`."""
        samples = self.samples
        if not samples or samples[-1].started <= at:
            return None
        found = samples[-1]
        for sample in reversed(samples):
            if sample.started <= at:
                break
            found = sample
        return found

    def sample_before(self, at: float) -> Sample | None:
        """The latest sample of the primary that had been taken in before `at`."""
        return next((s for s in reversed(self.samples) if s.taken < at), None)

    def replayed(self, name: str) -> Lsn | None:
        """Position the replica is known to have replayed at least, on the current timeline."""
        report = self.reports.get(name)
        if report is None or report.lsn is None or name in self.strays:
            return None
        if report.timeline == self.timeline:
            return report.lsn
        branch = self.branch
        if branch is not None and branch.exact and report.timeline == branch.parent:
            # On the timeline before or on this one: they are the same up to here.
            return min(report.lsn, branch.lsn)
        return None

    @property
    def writable(self) -> bool:
        """Whether there is a primary, and it answers as far as is known."""
        return self.primary is not None and self.down(self.primary.name) is None

    def superseded(self, node: Node, timeline: int) -> bool:
        """Whether another server holds the writes than the one met as `node` on `timeline`.

        Whatever that one still acknowledges is lost. Its address may be the primary's all the
        same: a name or a proxy leads to the server that was promoted, while a connection made
        before leads to the old one.

        Args:
            node: where writes were sent.
            timeline: the primary's when the connection to it was taken, 0 when unknown.
        """
        primary = self.primary
        if node.name in self.fenced or 0 < timeline < self.timeline:
            return True
        return primary is not None and (primary.name, primary.host, primary.port) != (
            node.name,
            node.host,
            node.port,
        )

    def down(self, name: str) -> Report | None:
        """The node's last report when it is taken to be down, else None: it has failed two probes
        in a row, and no statement has succeeded there meanwhile."""
        report = self.doubted(name)
        return report if report is not None and not report.vouched else None

    def doubted(self, name: str) -> Report | None:
        """The node's last report when it has failed two probes in a row, else None.

        One lost probe is no outage. Before a statement is refused for it, a connection that is
        open shall be tried: see `router.checkout.checkout.Checkout`.
        """
        report = self.reports.get(name)
        return report if report is not None and report.failures >= 2 else None

    def vouched(self, name: str) -> "Snapshot":
        """A new snapshot in which the node called `name`, whose probes fail, has answered over a
        connection that was open."""
        report = self.reports.get(name)
        if report is None or report.ok:
            return self
        return self._with(replace(report, failures=0, vouched=True))

    def silent(self, name: str) -> "Snapshot":
        """A new snapshot in which nothing speaks for the node called `name` but its probes."""
        report = self.reports.get(name)
        if report is None or not report.vouched:
            return self
        return self._with(replace(report, vouched=False))

    def _with(self, report: Report) -> "Snapshot":
        reports = {**self.reports, report.node: report}
        return replace(self, reports=MappingProxyType(reports))

    def interrupted(self, name: str, now: float) -> "Snapshot":
        """A new snapshot in which the node called `name` was met anew at `now`.

        A server whose connections broke may have restarted with an older state, and been back
        before any probe met its absence.
        """
        report = self.reports.get(name)
        if report is None or not report.ok:
            return self
        return self._with(replace(report, since=now))

    def renewed(self, node: Node, now: float) -> "Snapshot":
        """A new snapshot in which `node` is another server than before, and was never asked."""
        reports = {**self.reports, node.name: _unasked(node.name, now)}
        joining = {**self.joining, node.name: self._floor()}
        strays = {name: stray for name, stray in self.strays.items() if name != node.name}
        return _settle(replace(self, joining=joining, strays=strays), reports, now)

    def _floor(self) -> "Floor":
        return Floor(self.timeline, self.samples[-1].lsn if self.samples else Lsn(0))

    def impostor(self) -> str | None:
        """What is wrong with a configured replica that no failover explains, None if nothing.

        A promoted replica is on a higher timeline than the primary it left, and a cluster has
        one system identifier for life: everything else is a mistake in the configuration.
        """
        for i, node in enumerate(self.nodes):
            report = self.reports.get(node.name)
            if node is self.primary or report is None or not report.ok:
                continue
            if foreign := self.foreign(node.name):
                cure = "give the address of a streaming replica of the primary, or leave it out"
                if self.same_cluster(report):
                    cure = (
                        "name the primary's database for it too; where a pooler stands before it, "
                        "correct what that name leads to there"
                    )
                return f"replicas[{i - 1}]: {node} {foreign}: {cure}"
            if node.name in self.fenced and report.timeline == self.timeline:
                return (
                    f"replicas[{i - 1}]: {node} is not in recovery, so it is no replica: give the "
                    "address of a streaming replica, or leave it out"
                )
        return None

    def same_cluster(self, report: Report) -> bool:
        """Whether `report` is from a server of this cluster, as far as both are known."""
        mine, theirs = self.system_id, report.system_id
        return not mine or not theirs or mine == theirs

    def foreign(self, name: str) -> str:
        """Why the rows of the node called `name` are not the primary's, empty where they may be:
        a predicate, for people."""
        report = self.reports.get(name)
        if report is None or not report.ok:
            return ""
        if not self.same_cluster(report):
            return (
                f"belongs to another cluster (system identifier {report.system_id}, the primary "
                f"has {self.system_id})"
            )
        if self.database and report.database and report.database != self.database:
            return f"opens the database {report.database!r}, and the primary {self.database!r}"
        return ""

    def lag_bytes(self, name: str) -> int | None:
        """Bytes between what the primary was last seen to have flushed and the node's replay, None
        when unknown.

        Unknown also where the node follows another server, or may: positions of two timelines do
        not compare, and one that follows no promotion may have replayed further than the new
        primary wrote.
        """
        report = self.reports.get(name)
        if report is None or report.lsn is None or not self.samples or name in self.strays:
            return None
        behind = self.samples[-1].flushed - report.lsn
        other = report.timeline and self.timeline and report.timeline != self.timeline
        if other and (report.timeline > self.timeline or behind < 0):
            return None
        return max(0, behind)

    def lag_seconds(self, name: str) -> float | None:
        """Seconds the replica is behind at most, None when unknown.

        0 when it has replayed all the primary is known to have. Else what it says itself, the age
        of the last transaction it replayed, or how long ago the primary stood where the replica
        stands now, if that is less: the first grows while the primary is idle, and is not to be
        had before anything was replayed. While the primary does not answer time makes no replica
        older: what it had last is all to be behind of, or its outage would become one of reads.
        While it answers, but lets no monitor in, it may have gone on since it was last asked.
        """
        report, behind = self.reports.get(name), self.lag_bytes(name)
        if report is None or name in self.strays:
            return None
        if behind == 0:
            since, said = self._unasked_for(report.started), report.lag_seconds
            return since if said is None else max(0.0, min(since, said))
        silent = 0.0
        if self.samples and not self.writable:
            silent = max(0.0, report.started - self.samples[-1].started)
        said = None if report.lag_seconds is None else max(0.0, report.lag_seconds - silent)
        if behind is None or report.lsn is None:
            return said
        lsn, branch = report.lsn, self.branch
        stood = next((s.started for s in reversed(self.samples) if s.flushed <= lsn), None)
        if stood is None and branch is not None and branch.lsn <= lsn and branch.until > -inf:
            stood = branch.until  # the primary before stood no further then
        if stood is None:
            return said
        since = max(0.0, report.started - silent - stood)
        return since if said is None else min(since, said)

    def _unasked_for(self, now: float) -> float:
        """Seconds from the last sample until `now`, where an obstacle keeps new ones away."""
        mine = self.reports.get(self.primary.name) if self.primary is not None else None
        if mine is None or not mine.obstacle:
            return 0.0
        return max(0.0, now - self.samples[-1].started)

    def unjudged(self) -> bool:
        """Whether a replica takes no reads just because nobody knows yet how far behind it is."""
        return self.limits.seconds is not None and any(
            self.lag_seconds(node.name) is None and self.lag_bytes(node.name) is not None
            for node in self.nodes
            if node is not self.primary and node not in self.replicas
        )

    def with_reports(self, reports: Iterable[Report], now: float) -> "Snapshot":
        """A new snapshot with `reports` in place of the nodes' earlier ones."""
        merged = dict(self.reports)
        known = {n.name for n in self.nodes}
        for report in reports:
            before = merged.get(report.node)
            # A node may have left while it was asked, and another come under its name.
            if report.node in known and (before is None or before.started <= report.started):
                merged[report.node] = report.after(before, now)
        return _settle(self, merged, now)

    def with_nodes(self, nodes: Iterable[Node], now: float) -> "Snapshot":
        """A new snapshot over another set of nodes; what is known of the kept ones stays.

        Pins that every node satisfied are forgotten, so a new one has to replay as much as they
        had before it may serve reads.
        """
        nodes = tuple(nodes)
        old = {(n.name, n.host, n.port) for n in self.nodes}
        stay = {n.name for n in nodes if (n.name, n.host, n.port) in old}
        kept = {name: r for name, r in self.reports.items() if name in stay}
        among = replace(self, nodes=nodes)
        if self.primary is None or self.primary.name not in stay:
            # Its timeline went with it: else the nodes that are left could never take over.
            heir = None if kept else next((n for n in nodes if n.role is Role.PRIMARY), None)
            changed = self.changed if self.primary is None and heir is None else now
            among = replace(
                among,
                primary=heir,
                changed=changed,
                timeline=0,
                samples=(),
                branch=None,
                contested=0,
                strays=_NONE,
            )
        strays = {name: stray for name, stray in among.strays.items() if name in stay}
        among = replace(among, strays=MappingProxyType(strays))
        if self.timeline:  # else no pin was ever satisfied
            new = {n.name for n in nodes} - stay
            kept |= {name: _unasked(name, now) for name in new}
            floors = {name: f for name, f in self.joining.items() if name in stay}
            among = replace(among, joining=floors | dict.fromkeys(new, self._floor()))
        return _settle(among, kept, now)


def _settle(before: Snapshot, reports: dict[str, Report], now: float) -> Snapshot:
    """Decide roles from what the servers say: the highest timeline is the primary."""
    nodes = before.nodes
    followed = "" if before.primary is None else before.primary.name
    primary = next((n for n in nodes if n.name == followed), None)
    mine = reports.get(followed)
    # The server we follow says which cluster this is; any other that differs is a stranger.
    system_id = (mine.system_id if mine else "") or before.system_id
    # Its database is the one meant; an heir that opens another would take writes astray.
    database = (mine.database if mine else "") or before.database
    known = before.timeline if before.system_id in (system_id, "") else 0

    claims = {n: r for n in nodes if (r := reports.get(n.name)) and r.role is Role.PRIMARY}
    valid = {
        n: r.timeline
        for n, r in claims.items()
        if r.timeline >= known
        and (r.system_id == system_id or not r.system_id or not system_id)
        and (r.database == database or not r.database or not database)
    }
    leaders = [n for n, timeline in valid.items() if timeline == max(valid.values())]
    if primary is None or mine is not None:  # else it has yet to be asked
        if leaders:
            # Two claimants on one timeline: the one we already follow keeps the writes.
            primary = primary if primary in leaders else leaders[0]
        elif mine is not None and mine.ok:
            primary = None  # demoted: a replica, or left behind on an old timeline
    fenced = frozenset(n.name for n in claims if n is not primary)

    timeline, samples, branch = before.timeline, before.samples, before.branch
    if primary is not None and (mine := claims.get(primary)):
        if mine.timeline != timeline:
            branch = _branch(before, mine)
            timeline, samples = mine.timeline, ()
        if mine.lsn is not None and (not samples or samples[-1].started < mine.started):
            flushed = mine.lsn if mine.flushed is None else mine.flushed
            sample = Sample(mine.started, mine.lsn, mine.taken, flushed)
            samples = (*samples[-(MAX_SAMPLES - 1) :], sample)
        system_id = mine.system_id or system_id
        database = mine.database or database

    changed = before.changed if followed == (primary.name if primary else "") else now
    settled = replace(
        before,
        reports=MappingProxyType(reports),
        primary=primary,
        samples=samples,
        timeline=timeline,
        system_id=system_id,
        database=database,
        fenced=fenced,
        changed=changed,
        branch=branch,
    )
    contested = _contested(before, settled)
    strays = _strays(before, settled, contested, now)
    if strays or before.strays or contested != before.contested:
        settled = replace(settled, contested=contested, strays=strays)
    if before.joining:
        joining = {name: f for name, f in before.joining.items() if not _joined(settled, name, f)}
        settled = replace(settled, joining=MappingProxyType(joining))
    replicas = tuple(n for n in nodes if n is not primary and _may_read(settled, n))
    return replace(settled, replicas=replicas)


def _branch(before: Snapshot, mine: Report) -> Branch | None:
    """Where the timeline of `mine`, a server just promoted, began; None where nobody knows."""
    # Of one that was started anew since nothing is known but that its timeline began before.
    lsn = mine.lsn if mine.began is None else mine.began
    if lsn is None or not before.timeline:
        return None
    was = before.reports.get(mine.node)
    if was is None or was.role is not Role.REPLICA or mine.node in before.strays:
        return Branch(before.timeline, lsn, False, -inf)
    # Met anew since then it may have crashed, and what ended last was the recovery from that.
    unbroken = mine.began is not None and was.since <= was.started
    # Only a server that was on the followed timeline has left that one, and by the next number.
    left = was.timeline == before.timeline == mine.timeline - 1
    return Branch(before.timeline, lsn, unbroken and left, was.started)


def _rivals(snapshot: Snapshot) -> Iterator[Report]:
    """Claims to be the primary on an older timeline than the one that is followed."""
    for name in snapshot.fenced:
        claim, system_id = snapshot.reports[name], snapshot.system_id
        same = not claim.system_id or not system_id or claim.system_id == system_id
        if same and 0 < claim.timeline < snapshot.timeline:
            yield claim


def _contested(before: Snapshot, snapshot: Snapshot) -> int:
    """`Snapshot.contested`, by claims that are as new as that of the followed primary.

    An older one may be the old primary's last answer before it died.
    """
    if snapshot.timeline < before.timeline:
        return 0  # another cluster
    known_since = _known_since(snapshot)
    if any(claim.started >= known_since for claim in _rivals(snapshot)):
        return snapshot.timeline
    return before.contested


def _known_since(snapshot: Snapshot) -> float:
    """When the followed primary was first asked of the answers that say that it is one."""
    primary = snapshot.primary
    mine = None if primary is None else snapshot.reports.get(primary.name)
    return snapshot.changed if mine is None else mine.since


def _strays(
    before: Snapshot, snapshot: Snapshot, contested: int, now: float
) -> Mapping[str, Stray]:
    """`Snapshot.strays`: what was known `before` and still holds, and what the reports show."""
    timeline = snapshot.timeline
    if not timeline or timeline < before.timeline:
        return _NONE
    strays: dict[str, Stray] = {}
    for node in snapshot.nodes:
        report = snapshot.reports.get(node.name)
        if report is None or node is snapshot.primary:
            continue
        found = _astray(before, snapshot, report, contested, now)
        known = before.strays.get(node.name)
        if known is not None and (not known.lasting or known.over(report, timeline)):
            known = None
        stray = known if found is None or (known is not None and not found.lasting) else found
        if stray is not None:
            strays[node.name] = stray
    return MappingProxyType(strays) if strays else _NONE


def _astray(
    before: Snapshot, snapshot: Snapshot, report: Report, contested: int, now: float
) -> Stray | None:
    """What shows that the node of `report` does not follow the primary, None where nothing does.

    A timeline that the control file tells is a lower bound: it excludes no replica by itself, or
    after each failover a role without ``pg_read_all_stats`` would see none for minutes.
    """
    timeline, branch, samples = snapshot.timeline, snapshot.branch, snapshot.samples

    def stray(why: str, *, lasting: bool = True, sure: bool = True) -> Stray:
        return Stray(why, lasting, sure, timeline, report.timeline, now)

    if branch is not None and timeline != before.timeline and report.timeline < timeline:
        past = report.position_before(branch.until)
        if before.primary is not None and report.node == before.primary.name and before.samples:
            past = before.samples[-1].flushed
        if past is not None and past > branch.lsn:
            return stray(f"it had WAL up to {past} when timeline {timeline} began at {branch.lsn}")
    if not report.ok or report.role is not Role.REPLICA:
        return None
    if 0 < report.received < timeline:
        new = report.started >= _known_since(snapshot)
        why = f"its WAL receiver is on timeline {report.received}, the primary on {timeline}"
        return stray(why, lasting=new, sure=new)
    if report.timeline > timeline:
        # Its primary may be the next to answer. With ours away reads go on there.
        mine = None if snapshot.primary is None else snapshot.reports.get(snapshot.primary.name)
        seen = None if mine is None else report.known_before(mine.started)
        if not snapshot.writable or seen is None or seen.timeline <= timeline:
            return None
        why = f"it is on timeline {report.timeline}, the primary on {timeline}"
        return stray(why, lasting=False)
    if not report.received and 0 < report.timeline < timeline:
        why = (
            f"it was last seen on timeline {report.timeline}, on which a server that is not "
            "followed claimed to be the primary"
        )
        # It has a receiver, whose timeline this role may not see.
        why += "; GRANT pg_read_all_stats shows sooner which one it follows" * report.streaming
        if report.timeline < contested:
            return stray(why)
        if any(_rivals(snapshot)):
            return stray(why, lasting=False, sure=False)
    if samples:
        # Since it was asked the primary can only have gone on.
        past = report.position_before(samples[-1].started)
        if past is not None and past > samples[-1].lsn:
            return stray(f"it has WAL up to {past}, the primary only up to {samples[-1].lsn}")
    return None


def _unasked(name: str, now: float) -> Report:
    return Report(name, now, error="not probed yet", since=now)


def _joined(snapshot: Snapshot, name: str, floor: Floor) -> bool:
    report = snapshot.reports.get(name)
    if report is None or not report.ok:
        return False
    if report.lsn is None or not report.timeline:
        return True  # a server that does not tell: pins there are a matter of time
    if report.timeline != snapshot.timeline:
        return False
    if floor.timeline == snapshot.timeline:
        return report.lsn >= floor.lsn
    branch = snapshot.branch
    if branch is None:
        return True
    there = floor.timeline == branch.parent  # else it may have been anywhere before
    return report.lsn >= (min(floor.lsn, branch.lsn) if there else branch.lsn)


def _may_read(snapshot: Snapshot, node: Node) -> bool:
    report = snapshot.reports.get(node.name)
    if report is None or not report.ok or report.role is not Role.REPLICA:
        return False
    if node.name in snapshot.joining or node.name in snapshot.strays:
        return False
    if snapshot.foreign(node.name):
        return False
    if report.lsn is not None and report.highest is not None and report.lsn < report.highest:
        return False
    branch = snapshot.branch
    if report.lsn is not None and report.highest_before is not None and branch is not None:
        on, highest = report.highest_before
        # What it had past the branch is lost; up to there it may still have less than it had.
        if on == branch.parent and report.lsn < min(highest, branch.lsn):
            return False
    limits = snapshot.limits
    if limits.seconds is None and limits.bytes is None:
        return True
    if report.mute:
        return True  # it tells no lag either
    primary = snapshot.primary
    seen = snapshot.reports.get(primary.name) if primary is not None else None
    if not snapshot.samples and (seen is None or not seen.ok):
        # No primary has answered since this process began: there is nothing to be behind of, and
        # refusing every replica would turn the primary's outage into one of reads.
        return True
    seconds, behind = snapshot.lag_seconds(node.name), snapshot.lag_bytes(node.name)
    # Few bytes *or* few seconds: an idle primary makes seconds lie, a busy one makes bytes large.
    near = limits.bytes is not None and behind is not None and behind <= limits.bytes
    fresh = limits.seconds is not None and seconds is not None and seconds <= limits.seconds
    return near or fresh
