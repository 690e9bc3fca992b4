"""What is wrong with a cluster's configuration or servers, judged by plain facts.

Each rule is a generator over one `Case`; what it says is one line: what is so, and the cure.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from router.config.budget import Line, Room, opened
from router.config.config import Config
from router.config.server import Server
from router.doctor.facts import RESULT_SETTINGS, Facts
from router.messages import one_line
from router.model import Node, Snapshot
from router.rules.pgbouncer import SHARED
from router.sql.parser import GRAMMAR

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")

CLOCK_SKEW = 1.0
"""Seconds that two clocks may differ, beside the question's uncertainty, without a finding."""

CONFLICT_DELAY = 30_000
"""PostgreSQL's own ``max_standby_streaming_delay`` (milliseconds)."""

OLDEST = 130_000
"""``server_version_num`` of the oldest PostgreSQL whose functions the probes know."""

KEEPS_PREPARED = (1, 21)
"""The first PgBouncer that keeps prepared statements for its clients.

Source: https://www.pgbouncer.org/changelog.html
"""

SESSION = "session_url"
"""The name that findings give the server behind `Config.session_url`."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be.

    Attributes:
        level: "error": something does not work; "warning": it will not always, or not well;
            "note": good to know.
        code: a stable name for programs, see the reference.
        node: the node's name, "session_url", or empty where it is the whole cluster.
        what: what is so.
        cure: what to do.
    """

    level: Level
    code: str
    node: str
    what: str
    cure: str

    def __str__(self) -> str:
        where = f"{self.node}: " if self.node else ""
        return f"{self.level}: {where}{self.what}: {self.cure} [{self.code}]"


@dataclass(frozen=True, slots=True)
class Case:
    """What the rules judge.

    Attributes:
        config: what was asked for.
        servers: every node and the server behind it, the configured primary first.
        facts: each server's, by node name.
        snapshot: the cluster as the probes saw it, for its lags.
        session: the facts of `Config.session_url`, None without one.
        unparsed: texts that begin like a read and do not parse, as
            `router.sql.classifier.Classifier.unparsed` has them.
    """

    config: Config
    servers: Mapping[Node, Server]
    facts: Mapping[str, Facts]
    snapshot: Snapshot
    session: Facts | None = None
    unparsed: tuple[int, str] = (0, "")

    @property
    def answering(self) -> list[Facts]:
        """The facts of every node that could be asked."""
        return [f for f in self.facts.values() if f.ok]

    @property
    def standbys(self) -> list[Facts]:
        """The facts of every node that answered from recovery."""
        return [f for f in self.answering if f.standby]

    @property
    def told(self) -> list[Facts]:
        """Every server asked, that of the session URL among them."""
        return [*self.facts.values(), *([self.session] if self.session else [])]

    @property
    def configured(self) -> str:
        """Name of the node the configuration calls the primary."""
        return next(iter(self.facts), "")

    @property
    def primary(self) -> Facts | None:
        """The node whose role is primary: the one that is followed, else the first."""
        followed = self.snapshot.primary
        claims = {f.node: f for f in self.answering if not f.standby}
        first = next(iter(claims.values()), None)
        return first if followed is None else claims.get(followed.name, first)


def examine(case: Case) -> tuple[Finding, ...]:
    """Everything the rules find in `case`, worst first."""
    found = [finding for rule in RULES for finding in rule(case)]
    return tuple(sorted(found, key=lambda f: LEVELS.index(f.level)))


def reached(case: Case) -> Iterator[Finding]:
    """Servers of `case` that do not answer."""
    for facts in case.told:
        if facts.denied:
            yield Finding(
                "error", "login", facts.node, f"{facts.address} refuses the login: "
                f"{facts.problem}", "correct user and password, or pg_hba.conf there",
            )  # fmt: skip
        elif not facts.ok:
            yield Finding(
                "error", "unreachable", facts.node, f"{facts.address}: {facts.problem}",
                "see that it runs, and that host, port, database and sslmode are right",
            )  # fmt: skip


def roles(case: Case) -> Iterator[Finding]:
    """The nodes of `case` that are a primary, and the one that should be."""
    primary = case.primary
    if primary is None:
        if case.answering:
            yield Finding(
                "error", "no-primary", "", "every node that answers is in recovery",
                "name the primary, or promote a replica",
            )  # fmt: skip
    elif primary.node != case.configured:
        yield Finding(
            "warning", "primary-moved", primary.node,
            f"it is the primary and gets the writes; {case.configured} is said to be",
            "exchange the two in the configuration",
        )  # fmt: skip
    twins = {b.node for _, b in _twins(case)}
    for facts in case.answering:
        if primary is None or facts.standby or facts is primary:
            continue
        same = facts.identity == primary.identity
        if same or facts.node in twins or _stranger(primary, facts):
            continue  # told by the rule for that
        yield Finding(
            "error", "two-primaries", facts.node,
            f"it is not in recovery, and {primary.node} is followed: it gets no statements",
            "make it a replica again (pg_rewind, pg_basebackup), or leave it out",
        )  # fmt: skip
    if len(case.facts) == 1 and case.config.discovery is None:
        yield Finding(
            "note", "no-replica", "", "there is no replica, so the primary serves everything",
            "name replicas",
        )  # fmt: skip


def strangers(case: Case) -> Iterator[Finding]:
    """Servers of `case` that belong to other clusters, and one server by two names."""
    primary = case.primary
    for facts in case.told:
        if primary is None or not facts.ok:
            continue
        if _stranger(primary, facts):
            yield Finding(
                "error", "other-cluster", facts.node,
                f"it belongs to another cluster (system identifier {facts.system_id}, "
                f"{primary.node} has {primary.system_id})",
                f"give the address of a server of {primary.node}'s cluster, or leave it out",
            )  # fmt: skip
        elif facts.database != primary.database:
            yield Finding(
                "error", "other-database", facts.node,
                f"it opens the database {facts.database!r}, and {primary.node} "
                f"{primary.database!r}",
                "name the same database; where a pooler stands before it, correct what the name "
                "leads to there",
            )  # fmt: skip
    for a, b in _twins(case):
        yield Finding(
            "error" if not b.standby else "warning", "same-server", b.node,
            f"{b.address} is the same server as {a.node} ({a.address})",
            "leave one of them out, or correct its address",
        )  # fmt: skip
    if case.session and case.session.ok and case.session.standby:
        yield Finding(
            "error", "session-url-standby", SESSION, "it leads to a standby",
            "give the primary's address, past PgBouncer",
        )  # fmt: skip


def clocks(case: Case) -> Iterator[Finding]:
    """Clocks of `case` that differ, from this machine's and from each other."""
    for facts in case.answering:
        if abs(facts.clock_offset) > CLOCK_SKEW + facts.clock_error:
            yield Finding(
                "warning", "clock-skew", facts.node,
                f"its clock is {_ahead(facts.clock_offset)} of this machine's",
                "run NTP on both: tokens and pins by time are judged by clocks",
            )  # fmt: skip
    primary = case.primary
    for facts in case.standbys:
        if primary is None:
            return
        apart = facts.clock_offset - primary.clock_offset
        if abs(apart) > CLOCK_SKEW + facts.clock_error + primary.clock_error:
            yield Finding(
                "warning", "clock-skew", facts.node,
                f"its clock is {_ahead(apart)} of {primary.node}'s",
                "run NTP on both: its lag in seconds is wrong by as much",
            )  # fmt: skip


def poolers(case: Case) -> Iterator[Finding]:
    """The PgBouncer mode of each node of `case`, as said and as found."""
    for node, server in case.servers.items():
        facts, said = case.facts.get(node.name), case.config.pooling(server)
        if facts is None or not facts.ok:
            continue
        if facts.pooler is None:
            if said != "off":
                yield Finding(
                    "warning", "pgbouncer-absent", node.name,
                    f'pgbouncer="{said}" is said, and no pooler stands before it',
                    'say pgbouncer="off": prepared statements and session settings work then',
                )  # fmt: skip
            continue
        mode = facts.pooler.mode
        if said == "off" and mode in SHARED:
            yield Finding(
                "error", "pgbouncer-unsaid", node.name,
                f"a pooler stands before it, by {mode}, and the configuration does not say so: "
                "prepared statements collide and settings reach other clients",
                f'say pgbouncer="{mode}"',
            )  # fmt: skip
        elif said == "off":
            yield Finding(
                "note", "pgbouncer-unsaid", node.name,
                "a pooler stands before it, by session as far as can be seen",
                'say pgbouncer="session", or how it pools',
            )  # fmt: skip
        elif said != mode:
            worse = mode == "statement" or said == "session"
            yield Finding(
                "error" if worse else "warning", "pgbouncer-mode", node.name,
                f'pgbouncer="{said}" is said, and it pools by {mode}',
                f'say pgbouncer="{mode}", or change pool_mode there',
            )  # fmt: skip


def sessions(case: Case) -> Iterator[Finding]:
    """Where statements that need a session may go in `case`."""
    node, server = next(iter(case.servers.items()))
    facts = case.facts.get(node.name)
    found = facts.pooler.mode if facts is not None and facts.pooler else "off"
    if case.config.session_url is None:
        if case.config.pooling(server) in SHARED or found in SHARED:
            yield Finding(
                "warning", "session-url-missing", node.name,
                "its sessions are shared, and there is no session_url: LISTEN and migrations have "
                "nowhere to go",
                "give session_url, the primary's address past PgBouncer",
            )  # fmt: skip
    elif case.session and (pooler := case.session.pooler) and pooler.mode in SHARED:
        yield Finding(
            "error", "session-url-pooled", SESSION,
            f"it leads through a pooler by {pooler.mode}",
            "give the primary's address past PgBouncer",
        )  # fmt: skip


def prepared(case: Case) -> Iterator[Finding]:
    """Prepared statements that a PgBouncer of `case` has to keep."""
    for node, server in case.servers.items():
        facts = case.facts.get(node.name)
        if facts is None or facts.pooler is None or facts.pooler.mode not in SHARED:
            continue
        if case.config.unprepared(server) or case.config.pooling(server) not in SHARED:
            continue
        console = facts.pooler.console
        if console is None:
            yield Finding(
                "note", "prepared-unknown", node.name,
                "prepared_statements is on, and PgBouncer's console does not tell this user "
                "whether it keeps them",
                "add the user to its stats_users, and see that max_prepared_statements is set",
            )  # fmt: skip
        elif console.version < KEEPS_PREPARED:
            version = ".".join(map(str, console.version))
            yield Finding(
                "error", "prepared-unkept", node.name,
                f"prepared_statements is on, and PgBouncer {version} keeps none",
                "leave prepared_statements out, or run PgBouncer 1.21 or later",
            )  # fmt: skip
        elif console.settings.get("max_prepared_statements", "0") == "0":
            yield Finding(
                "error", "prepared-unkept", node.name,
                "prepared_statements is on, and PgBouncer's max_prepared_statements is 0",
                "set max_prepared_statements = 200 there, or leave prepared_statements out",
            )  # fmt: skip


def budgets(case: Case) -> Iterator[Finding]:
    """Connections that the pools of `case` may open, and how many the servers bear."""
    places: dict[str, list[Facts]] = {}
    for facts in case.answering:
        places.setdefault(facts.address, []).append(facts)
    demand = case.config.demand()
    yield from _behind(case)
    for address, there in places.items():
        room, limit, pooler = there[0].room, "max_connections", there[0].pooler
        if pooler is not None:
            limit = "max_client_conn"
            if pooler.console is None or limit not in pooler.console.settings:
                continue
            room = Room(int(pooler.console.settings[limit]))
        count = len(there)
        needed = demand.on(count) if demand.bounded else None
        names = tuple(facts.node for facts in there)
        line = Line(address, names, needed, demand.sum(count), room, limit=limit)
        if line.over and demand.bounded and room is not None:
            yield Finding(
                "error", "budget", names[0],
                f"the pools may open {line.sum} connections to {address}, which bears "
                f"{room.free} ({limit})",
                f"set max_connections or smaller pools, fewer workers, or raise {limit} there",
            )  # fmt: skip
        elif line.over:
            yield Finding(
                "warning", "budget", names[0],
                f"the pools to {address} have no limit",
                "set max_connections, or pool_size and max_overflow",
            )  # fmt: skip


def replication(case: Case) -> Iterator[Finding]:
    """Replicas of `case` that are behind, stand still, or will be."""
    snapshot = case.snapshot
    for facts in case.standbys:
        name = facts.node
        if facts.paused:
            yield Finding(
                "warning", "replay-paused", name, "its replay is paused",
                "run SELECT pg_wal_replay_resume() there",
            )  # fmt: skip
        if facts.streaming is False:
            yield Finding(
                "warning", "not-streaming", name, "it receives from no primary now",
                "look at primary_conninfo and its log; from an archive it lags by a segment",
            )  # fmt: skip
        if name in snapshot.strays:
            yield Finding(
                "error", "not-following", name,
                f"it does not follow the primary: {snapshot.strays[name].why}: it gets no reads",
                "let its primary_conninfo lead to the primary, or set it up anew (pg_rewind, "
                "pg_basebackup)",
            )  # fmt: skip
        yield from _lag(snapshot, name)


def _lag(snapshot: Snapshot, name: str) -> Iterator[Finding]:
    """The lag of a standby that keeps it from reads."""
    limits = snapshot.limits
    seconds, behind = snapshot.lag_seconds(name), snapshot.lag_bytes(name)
    late = limits.seconds is not None and seconds is not None and seconds > limits.seconds
    far = limits.bytes is not None and behind is not None and behind > limits.bytes
    # One limit kept is enough, so a replica is out only where none is.
    kept = (limits.seconds is not None and not late) or (limits.bytes is not None and not far)
    if (late or far) and not kept:
        told = [] if seconds is None else [f"{seconds:.1f} s"]
        told += [] if behind is None else [f"{behind} bytes"]
        yield Finding(
            "warning", "lag", name, f"it is {' and '.join(told)} behind: it gets no reads",
            "find what holds it back (a long query, disk, network), or raise max_lag_seconds",
        )  # fmt: skip


def conflicts(case: Case) -> Iterator[Finding]:
    """Replicas of `case` whose replay will cancel reads."""
    for facts in case.standbys:
        delay = int(facts.settings.get("max_standby_streaming_delay", -1))
        if facts.settings.get("hot_standby_feedback") != "off" or delay < 0:
            continue
        said = f"a read of more than {delay / 1000:g} s may be cancelled by replay"
        cure = "set hot_standby_feedback = on there, or a larger max_standby_streaming_delay"
        if facts.conflicts:
            said += f"; {facts.conflicts} were"
        worse = facts.conflicts or delay < CONFLICT_DELAY
        yield Finding("warning" if worse else "note", "conflicts", facts.node, said, cure)


def texts(case: Case) -> Iterator[Finding]:
    """What this process was asked that no tree could be made of."""
    count, first = case.unparsed
    if count:
        yield Finding(
            "warning", "unparsed-reads", "",
            f"{count} texts begin like a read and do not parse by the grammar of PostgreSQL "
            f"{GRAMMAR}, so they run on the primary; the first: {one_line(first)}",
            "say it in another way, or list it in read_patterns where it only reads",
        )  # fmt: skip


def settings(case: Case) -> Iterator[Finding]:
    """Servers of `case` that are not fit, or do not agree."""
    primary = case.primary
    for facts in case.answering:
        version = int(facts.settings.get("server_version_num", OLDEST))
        if version < OLDEST:
            yield Finding(
                "error", "server-too-old", facts.node,
                f"it is PostgreSQL {facts.settings.get('server_version')}", "run 13 or later",
            )  # fmt: skip
        if facts.catalog_problem:
            yield Finding(
                "warning", "catalog-unreadable", facts.node,
                f"its functions and tables cannot be read: {facts.catalog_problem}",
                "let the user read pg_catalog; till then what uses them runs on the primary",
            )  # fmt: skip
        for why in facts.unasked if facts is primary else ():
            yield Finding(
                "warning", "reads-kept", facts.node,
                f"an operator or a cast keeps reads on the primary, {why}",
                "name its function in read_functions where it does nothing of that, or drop it",
            )  # fmt: skip
        if facts.encrypted is False:
            yield Finding(
                "note", "plain-text", facts.node,
                f"the connection to {facts.address} is not encrypted",
                "turn ssl on there, and say sslmode=verify-full",
            )  # fmt: skip
        if primary is None or facts is primary:
            continue
        for name in RESULT_SETTINGS:
            here, there = facts.settings.get(name), primary.settings.get(name)
            if here != there:
                yield Finding(
                    "warning", "settings-differ", facts.node,
                    f"{name} is {here!r}, and {there!r} on {primary.node}: a read's answer "
                    "depends on who serves it",
                    f"set {name} alike on both, or with ALTER ROLE, which is replicated",
                )  # fmt: skip


def commits(case: Case) -> Iterator[Finding]:
    """Settings by which the primary of `case` refuses, delays or risks commits."""
    primary = case.primary
    if primary is None:
        return
    if primary.settings.get("default_transaction_read_only") == "on":
        yield Finding(
            "error", "read-only-primary", primary.node,
            "default_transaction_read_only is on, so writes fail",
            "turn it off there, for the role or the database",
        )  # fmt: skip
    mode = primary.settings.get("synchronous_commit")
    if mode == "remote_apply" and primary.settings.get("synchronous_standby_names"):
        yield Finding(
            "note", "remote-apply", primary.node,
            "synchronous_commit is remote_apply: commits wait for replay by synchronous standbys",
            "none is needed; pins end as soon as a probe has seen it",
        )  # fmt: skip
    elif mode == "off":
        yield Finding(
            "note", "commit-unsafe", primary.node,
            "synchronous_commit is off: a crash there loses commits it has confirmed",
            "turn it on, unless that is meant",
        )  # fmt: skip


def _behind(case: Case) -> Iterator[Finding]:
    """Connections that PgBouncers may open to the servers behind them."""
    servers: dict[tuple[str, ...], dict[str, int]] = {}
    for node, server in case.servers.items():
        facts = case.facts.get(node.name)
        told = facts.pooler.console if facts is not None and facts.pooler else None
        dbname = server.dbname or server.user
        if facts is not None and told is not None and dbname in told.databases:
            servers.setdefault(facts.identity, {})[dbname] = opened(told.databases[dbname])
    for facts in case.answering:
        pools, room = servers.pop(facts.identity, {}), facts.room
        if room is not None and sum(pools.values()) > room.free:
            yield Finding(
                "error", "budget", facts.node,
                f"PgBouncer may open {sum(pools.values())} connections to its server, which bears "
                f"{room.free} (max_connections)",
                "lower default_pool_size there, or raise max_connections",
            )  # fmt: skip


Rule = Callable[[Case], Iterator[Finding]]

RULES: tuple[Rule, ...] = (
    reached, roles, strangers, clocks, poolers, sessions, prepared, budgets, replication,
    conflicts, settings, texts, commits,
)  # fmt: skip


def _stranger(primary: Facts, facts: Facts) -> bool:
    return bool(primary.system_id and facts.system_id and facts.system_id != primary.system_id)


def _twins(case: Case) -> Iterator[tuple[Facts, Facts]]:
    """Nodes that are one server's same database, the configured primary's name first."""
    for a, b in combinations(case.answering, 2):
        if a.identity == b.identity and a.database == b.database:
            yield a, b


def _ahead(seconds: float) -> str:
    return f"{abs(seconds):.1f} s {'ahead' if seconds > 0 else 'behind'}"
