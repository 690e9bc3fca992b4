"""The frozen values everything else speaks in: Lsn, Role, Node, Report, Sample, Snapshot.

Nothing here reads a clock, opens a socket or holds a lock. Times are seconds of one monotonic
clock and arrive as arguments.
"""

import enum
import re
from collections.abc import Iterable, Mapping
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
        """Read `text` in PostgreSQL's ``XXX/XXX`` form.

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

    # Every statement looks a node up, by its name only: all fields would cost more. Names are
    # unique within a cluster, so nearly every comparison ends there.

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
        flushed: how far a primary has flushed its WAL: standbys are sent no more than that. Of a
            replica how far its WAL receiver has, None where `received` is 0.
        taken: when the answer was taken in (monotonic seconds). The values are no newer.
        earlier: what the report before told, where the node has answered both times without a
            break, in the same role.
        database: the one that was reached, by the server's own name; empty when unknown.
        obstacle: why nothing newer is known, though nothing says that the node is down: a
            connection is still being opened, or the server answered and lets nobody in.
        heard: of a probe that failed: when a statement last succeeded there.
        vouched: a statement has succeeded there since the probes began to fail.
        reconnected: when the monitor last replaced its connection to it (monotonic seconds); minus
            infinity as long as that is its first one.
        silent_since: of a probe that failed because the server said nothing in time, over a
            connection or while one was being opened: since when that is held against it (monotonic
            seconds). Later than `started` where the question has been out for several rounds.
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
    reconnected: float = -inf
    silent_since: float | None = None

    @property
    def ok(self) -> bool:
        """Whether the node answered."""
        return not self.error

    @property
    def outweighed(self) -> float:
        """From when on a statement that succeeds proves more than this failed probe does."""
        return self.started if self.silent_since is None else self.silent_since

    @property
    def mute(self) -> bool:
        """Whether the server answers, but tells neither position nor timeline: see `ROLE_SQL`."""
        return self.ok and self.lsn is None and self.timeline == 0

    @property
    def replays(self) -> bool:
        """Whether it is seen to replay what it receives.

        A standby that crashed with WAL past a promotion may come up with a receiver on the new
        timeline, whose WAL does not fit to what it has: it stays where it is, and shows rows that
        are lost. (PostgreSQL 18 logs "record with incorrect prev-link" and tries again for ever.)
        """
        if not self.received:
            return True  # the control file goes by what was replayed
        earlier = self.earlier
        if earlier is not None and self.lsn != earlier.lsn and self.timeline == earlier.timeline:
            return True
        had = None if self.highest_before is None else self.highest_before[1]
        return self.lsn == self.flushed and self.lsn != had

    def known_before(self, at: float) -> Known | None:
        """What it told last, if that was taken in before `at` (monotonic seconds)."""
        if self.taken < at:
            return Known(self.taken, self.lsn, self.timeline)
        earlier = self.earlier
        return earlier if earlier is not None and earlier.taken < at else None

    def position_before(self, at: float) -> Lsn | None:
        """Its position on its timeline taken in before `at` (monotonic seconds)."""
        known = self.known_before(at)
        return None if known is None or known.timeline != self.timeline else known.lsn


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
    """How far a replica may be behind and still serve reads.

    Attributes:
        seconds: None is no limit.
        bytes: None is no limit.
        back: how long one that came back is waited for until it has its `Floor` (seconds).
    """

    seconds: float | None = None
    bytes: int | None = None
    back: float = inf


class Floor(NamedTuple):
    """What a node that joined, or came back, must replay before it serves reads.

    Attributes:
        timeline: of `lsn`.
        lsn: for one that joined, on a later timeline as much of it as is left there, or what was
            there when that began. For one that came back 0 as long as it is not known.
        after: when it came back (monotonic seconds): a look at the primary from then on gives
            `lsn`. None for one that joined.
    """

    timeline: int
    lsn: Lsn
    after: float | None = None


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
        """Whether by `report`, its last, the node has come to `timeline` since, or nobody can tell
        any more because the timeline `followed` now is later."""
        if self.shown >= self.timeline and followed > self.timeline:
            return True  # to have had more than one primary says nothing of the next one
        if not report.ok or report.timeline < self.timeline:
            return False
        # On a timeline of the same number only a server that was set up anew can have come back.
        return (report.timeline > self.shown or report.since > self.at) and report.replays


NO_STRAYS: Mapping[str, Stray] = MappingProxyType({})

MAX_SAMPLES = 256
"""Primary positions remembered: about five seconds of the fast probing pins ask for."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The cluster as last seen, replaced whole and never edited, so readers need no lock.

    `router.cluster.roles` makes each from the one before and the servers' answers.

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
        joining: nodes that came later, or came back, and have not shown yet that they replayed as
            much as is given here.
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
    strays: Mapping[str, Stray] = field(default_factory=lambda: NO_STRAYS)

    @classmethod
    def initial(cls, nodes: Iterable[Node], limits: Limits, now: float) -> Self:
        """`nodes` at `now` (monotonic seconds), none probed; replicas serve within `limits`."""
        nodes = tuple(nodes)
        primary = next((n for n in nodes if n.role is Role.PRIMARY), None)
        return cls(nodes=nodes, primary=primary, changed=now, limits=limits)

    def node(self, name: str) -> Node:
        """The node called `name`; raises KeyError where there is none."""
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
        """Upper bound of the position of every commit that had returned by `at` (monotonic
        seconds), if one is known.

        The earliest sample *started after* `at` is the tightest. Of what was committed before the
        timeline began, all that is left is before the branch.
        """
        if self.branch is not None and at <= self.branch.until:
            return self.branch.lsn
        sample = self.sample_after(at)
        return None if sample is None else sample.lsn

    def sample_after(self, at: float) -> Sample | None:
        """The earliest sample of the primary that was started after `at` (monotonic seconds)."""
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
        """The latest sample of the primary taken in before `at` (monotonic seconds)."""
        return next((s for s in reversed(self.samples) if s.taken < at), None)

    def replayed(self, name: str) -> Lsn | None:
        """What the replica `name` has replayed at least, on the current timeline."""
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
        """Whether another server holds the writes than the one met as `node` on `timeline`, the
        primary's when the connection to it was taken, 0 when unknown.

        Whatever that one still acknowledges is lost. Its address may be the primary's all the
        same: a name or a proxy leads to the server that was promoted, while a connection made
        before leads to the old one.
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
        """The last report of the node `name` when it is taken to be down, else None: it has failed
        two probes in a row, and no statement has succeeded there meanwhile."""
        report = self.doubted(name)
        return report if report is not None and not report.vouched else None

    def doubted(self, name: str) -> Report | None:
        """The last report of the node `name` when it has failed two probes in a row, for one lost
        probe is no outage, else None. Before a statement is refused for it, an open connection
        shall be tried: see `router.checkout.checkout.Checkout`."""
        report = self.reports.get(name)
        return report if report is not None and report.failures >= 2 else None

    def vouched(self, name: str) -> "Snapshot":
        """A snapshot in which `name`, whose probes fail, answers over an open connection."""
        report = self.reports.get(name)
        if report is None or report.ok:
            return self
        return self._with(replace(report, failures=0, vouched=True))

    def silent(self, name: str) -> "Snapshot":
        """A snapshot in which nothing speaks for the node called `name` but its probes."""
        report = self.reports.get(name)
        if report is None or not report.vouched:
            return self
        return self._with(replace(report, vouched=False))

    def _with(self, report: Report) -> "Snapshot":
        reports = {**self.reports, report.node: report}
        return replace(self, reports=MappingProxyType(reports))

    def interrupted(self, name: str, now: float) -> "Snapshot":
        """A snapshot in which the node `name` began to answer at `now` (monotonic seconds): a
        server whose connections broke may have restarted with an older state before any probe met
        its absence."""
        report = self.reports.get(name)
        if report is None or not report.ok:
            return self
        return self._with(replace(report, since=now))

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
        """Why the rows of the node `name` are not the primary's, for people; empty if they may
        be."""
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
        """Bytes between what the primary was last seen to have flushed and the replay of the node
        `name`, None when unknown.

        Unknown also where the node follows another server, or may: positions of two timelines do
        not compare, and a node that follows no promotion may have replayed further than the new
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
        """Seconds the replica `name` is behind at most, None when unknown.

        0 when it has replayed all the primary is known to have, be it on a later timeline, which
        branched off there: its primary has yet to answer here. Else the lesser of two: what it
        says itself, the age of the last transaction it replayed, which grows while the primary is
        idle and is unknown before it replayed any; and how long ago the primary stood where the
        replica stands now. While the primary does not answer time makes no replica older: what it
        had last is all to be behind of, or its outage would become one of reads. While it answers,
        but lets no monitor in, it may have gone on since it was last asked.
        """
        report, behind = self.reports.get(name), self.lag_bytes(name)
        if report is None or name in self.strays:
            return None
        later = 0 < self.timeline < report.timeline
        if behind == 0 or (later and self._had(report.lsn)):
            since, said = self._unasked_for(report.started), report.lag_seconds
            return since if said is None else max(0.0, min(since, said))
        silent = 0.0
        if self.samples and not self.writable:
            silent = max(0.0, report.started - self.samples[-1].started)
        said = None if report.lag_seconds is None else max(0.0, report.lag_seconds - silent)
        if report.lsn is None or (behind is None and not later):
            return said
        stood = self._stood(report.lsn)
        if stood is None:
            return said
        since = max(0.0, report.started - silent - stood)
        return since if said is None else min(since, said)

    def _had(self, lsn: Lsn | None) -> bool:
        """Whether `lsn` is no less than what the primary was last known to have flushed."""
        return lsn is not None and bool(self.samples) and lsn >= self.samples[-1].flushed

    def _stood(self, lsn: Lsn) -> float | None:
        """When the primary was last known to have flushed no more than `lsn`."""
        branch = self.branch
        stood = next((s.started for s in reversed(self.samples) if s.flushed <= lsn), None)
        if stood is None and branch is not None and branch.lsn <= lsn and branch.until > -inf:
            stood = branch.until  # the primary before stood no further then
        return stood

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
