"""What the user asked for, as one frozen Config. Unknown keys are refused with a suggestion."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from router.config import budget
from router.config.explanation import Explanation, explained
from router.config.layers import KEYS, FromSources, refuse_unknown
from router.config.options import OPTIONS, Pooling, check
from router.config.server import Server, check_database, replica_server
from router.config.sources import argument, found_at
from router.config.urls import each_host, entries
from router.errors import ConfigError
from router.model import Limits, Node, Role
from router.rules.balance import Balancer
from router.rules.decision import Policy
from router.rules.pgbouncer import SHARED
from router.sql.intent import Rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(FromSources):
    """Every option of a Router. Durations are seconds.

    Attributes:
        primary: the server that takes writes, as far as configuration knows.
        replicas: the servers reads may go to; may be empty.
        name: cluster id: pins and tokens of one cluster mean nothing to another. Defaults to the
            primary's address and database.
        consistency: "lsn" ends a pin when a replica has replayed the write, "time" after
            `pin_duration`, "off" never pins.
        pin_lsn: "sample" learns a write's position from the next probe of the primary; "commit"
            asks for it after each commit, which costs a round trip and ends pins soonest.
        pin_duration: how long a pin lasts in "time" mode.
        pin_max: a pin that no replica ever satisfied is dropped after this, with a warning.
        pin_probe_interval: pause between probes while a pin waits.
        probe_interval: pause between probes at rest.
        probe_timeout: how long a server may be silent when it is asked, by a probe or, where
            probes fail, over a connection that is open.
        start_timeout: how long the first statement waits for the first probe of the nodes; after
            that it goes to the primary. 0 does not wait.
        connect_timeout: how long opening one connection may take, a probe's too, unless the URL,
            ``connect_args`` or ``PGCONNECT_TIMEOUT`` say it. libpq takes whole seconds, 2 or more.
        blacklist_duration: how long a failure keeps a replica out, at first.
        blacklist_max: how long the doubling of that may get.
        give_up_silent: statements that wait for the answer of a server that answers no probe any
            more are given up: reads run elsewhere. Not behind a PgBouncer.
        blacklist_sqlstates: SQLSTATEs, or classes of two characters, that blacklist a node beside
            those that say it is gone, such as ``58030`` (I/O error); the read runs elsewhere.
        max_lag_seconds: a replica further behind takes no reads, unless `max_lag_bytes` is kept.
        max_lag_bytes: see `max_lag_seconds`; either one kept is enough. None is no limit.
        fallback: "primary" or "error": what a read gets when no replica is eligible.
        transactions: "primary" starts explicit transactions there; "lazy" treats them like
            autobegun ones: under READ COMMITTED, reads before the first write may use a replica.
        reads_in_transaction: run reads outside explicit transactions in a real transaction, as
            plain SQLAlchemy does, at its price of two more round trips.
        server_local: "primary" or "any": who answers what each server answers for itself, such as
            ``pg_backend_pid()``, ``pg_locks`` and ``pg_stat_activity``; "any" takes that for a
            read like others.
        balance: "weighted", "random" (the same), "round_robin", "least_outstanding", "latency" or
            a callable, see `router.balance.Balancer`.
        discovery: a callable that returns every server of the cluster, as `replicas` takes them;
            asked by the monitor, see `router.discovery`.
        discovery_interval: pause between two askings.
        zone: where this process runs. Replicas of the same `zone` get its reads while one of them
            is eligible.
        read_functions: functions to be taken as harmless on a replica, whatever the catalog says.
        write_functions: functions to be taken as writes.
        read_patterns: regular expressions; a statement that matches is a read.
        write_patterns: regular expressions; a statement that matches is a write, first of all.
        rule: a callable asked after the patterns: given the statement's text it returns a
            `router.Kind`, a `router.Intent`, or None to leave the answer to the grammar.
        hints: a comment ``/* router: primary */`` or ``/* router: replica */`` in a statement says
            where it runs, as the execution option ``router`` does; no hint sends what is no read
            to a replica. False where texts have comments that are not your application's own.
        max_connections: connections that all processes may have open to all nodes together; the
            pools are sized for it, see `workers`. Excludes `pool_size` and `max_overflow`.
        workers: how many processes share `max_connections`.
        pool_size: connections each node's pool keeps; 0 is no limit. None is SQLAlchemy's 5.
        max_overflow: connections beyond that, opened under load; -1 is no limit. None is
            SQLAlchemy's 10.
        pool_timeout: how long to wait for a connection of a pool. None is SQLAlchemy's 30.
        pool_recycle: a connection older than this is replaced; -1 is never. None is never.
        pool_pre_ping: ask each connection whether it lives before it is used. None is no.
        echo: log every statement; "debug" logs rows too. None is no.
        schema: schemas in which names without one are looked up, on every node, yours first; the
            database's ``search_path`` where it is empty. `router.create_schema` makes the first.
        prepared_statements: False keeps drivers from keeping prepared statements. None leaves the
            drivers as they are, except where PgBouncer pools by transaction or statement; True
            keeps them there too, for PgBouncer 1.21 with ``max_prepared_statements``.
        pgbouncer: how the PgBouncer in front of the servers pools: "transaction" (or True),
            "session" or "statement"; "off" is none. Each server may say its own.
        dry_run: send everything to the primary, and report what routing would have done; see
            `router.cluster.router.Router.dry_run_report`.
        sql_comment: append to each statement a comment with the node and the reason it went there,
            which the server's log and ``pg_stat_activity`` then show.
        session_url: the primary past PgBouncer, where `router.Listener` listens, and where
            SQLAlchemy engines and Django run what needs a session of its own.
        sources: where each value came from, by name; what is not in it has its default.
    """

    primary: Server
    replicas: tuple[Server, ...] = ()
    name: str = ""
    consistency: Literal["lsn", "time", "off"] = "lsn"
    pin_lsn: Literal["sample", "commit"] = "sample"
    pin_duration: float = 5.0
    pin_max: float = 60.0
    pin_probe_interval: float = 0.02
    probe_interval: float = 1.0
    probe_timeout: float = 1.0
    start_timeout: float = 2.0
    connect_timeout: float = 5.0
    blacklist_duration: float = 30.0
    blacklist_max: float = 300.0
    give_up_silent: bool = True
    blacklist_sqlstates: tuple[str, ...] = ()
    max_lag_seconds: float | None = 30.0
    max_lag_bytes: int | None = None
    fallback: Literal["primary", "error"] = "primary"
    transactions: Literal["primary", "lazy"] = "primary"
    reads_in_transaction: bool = False
    server_local: Literal["primary", "any"] = "primary"
    balance: str | Balancer = "weighted"
    discovery: Callable[[], Iterable[str | Mapping[str, object]]] | None = None
    discovery_interval: float = 10.0
    zone: str = ""
    read_functions: tuple[str, ...] = ()
    write_functions: tuple[str, ...] = ()
    read_patterns: tuple[str, ...] = ()
    write_patterns: tuple[str, ...] = ()
    rule: Rule | None = None
    hints: bool = True
    max_connections: int | None = None
    workers: int = 1
    pool_size: int | None = None
    max_overflow: int | None = None
    pool_timeout: float | None = None
    pool_recycle: float | None = None
    pool_pre_ping: bool | None = None
    echo: bool | str | None = None
    schema: tuple[str, ...] = ()
    prepared_statements: bool | None = None
    pgbouncer: Pooling = "off"
    dry_run: bool = False
    sql_comment: bool = False
    session_url: str | None = field(default=None, repr=False)
    sources: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    def but(self, **options: object) -> Self:
        """The same with other options, as arguments beside a Config say them.

        Raises:
            ConfigError: an option is unknown or malformed; names it and the cure.
        """
        for key in options.keys() & (set(KEYS) - {"replicas"}):
            raise ConfigError(f"{key}: a Config has its primary already: make another one")
        kept: dict[str, Any] = {name: getattr(self, name) for name in OPTIONS}
        replicas: Any = options.pop("replicas", ())
        return type(self).build(
            self.primary,
            replicas,
            beside=() if replicas else self.replicas,
            sources={**self.sources, **{name: argument(name) for name in options}},
            **{**kept, **options},
        )

    @classmethod
    def build(
        cls,
        primary: Server,
        replicas: object = (),
        *,
        beside: Sequence[Server] = (),
        sources: Mapping[str, str] | None = None,
        **options: object,
    ) -> Self:
        """A checked Config from loosely typed options, as they come from code or a URL.

        Args:
            primary: taken for the primary until the servers were asked.
            replicas: the others, in any of the forms the documentation lists.
            beside: further servers of the URL that named the primary.
            sources: where each option was found, for error messages and `explain`.
            **options: as the attributes above.

        Raises:
            ConfigError: an option is unknown or malformed; names it and the cure.
        """
        sources = dict(sources or {})
        refuse_unknown(options, sources)
        found = [(f"replicas[{i}]", server) for i, server in enumerate(beside)]
        found += _replicas(replicas, primary, found_at(sources, "replicas"))
        checked = {}
        for key, value in options.items():
            try:
                checked[key] = check(key, value)
            except ConfigError as error:
                raise ConfigError(f"{found_at(sources, key)}{error}") from None
        servers = tuple(server for _, server in found)
        config = cls(primary=primary, replicas=servers, sources=sources, **checked)
        for key, server in found:
            config._same_database(server, key)
        for server in config.sessions():
            if config.pooling(primary) == "off":
                check_database(server, primary, f"{found_at(sources, 'session_url')}session_url")
        config.nodes()  # names must be unique
        config.pool_options()  # and sizes must go together
        return config

    def joining(self, given: object, key: str) -> Server:
        """The server of an entry as in ``replicas`` that comes later.

        Args:
            given: the entry; what it leaves out is the primary's.
            key: where it was found, for error messages.

        Raises:
            ConfigError: it is malformed, or opens another database than the primary.
        """
        server = replica_server(given, key, self.primary)
        self._same_database(server, key)
        return server

    def _same_database(self, server: Server, key: str) -> None:
        """Raise ConfigError where it is known that `server` opens another database."""
        primary = self.primary
        # A PgBouncer's names are its own. So are those of two servers at one address, which only
        # something in between can tell apart. What is behind them the probes ask.
        bounced = {self.pooling(server), self.pooling(primary)} != {"off"}
        if not bounced and (server.host, server.port) != (primary.host, primary.port):
            check_database(server, primary, key)

    @property
    def cluster(self) -> str:
        """The cluster id: `name`, or the primary's address and database."""
        primary = self.primary
        return self.name or f"{primary.host}:{primary.port}/{primary.dbname}"

    def nodes(self) -> tuple[Node, ...]:
        """The configured nodes, primary first.

        Raises:
            ConfigError: two nodes have one name.
        """
        return tuple(self.servers())

    def servers(self) -> dict[Node, Server]:
        """Every node and the server behind it, primary first."""
        found = {self.primary.node("primary", Role.PRIMARY): self.primary}
        names = {node.name for node in found}
        for i, server in enumerate(self.replicas, 1):
            node = server.node(f"replica{i}", Role.REPLICA)
            if node.name in names:
                raise ConfigError(
                    f"replicas[{i - 1}].name: {node.name!r} is taken by another node: "
                    "give every node a name of its own"
                )
            names.add(node.name)
            found[node] = server
        return found

    def pooling(self, server: Server) -> Pooling:
        """How the PgBouncer in front of `server` pools, "off" for none."""
        return self.pgbouncer if server.pgbouncer is None else server.pgbouncer

    def sessions(self) -> list[Server]:
        """The servers of `session_url`, one for each of its hosts; what it leaves out is the
        primary's.

        Raises:
            ConfigError: it names no host.
        """
        entry = {"url": self.session_url, "pgbouncer": "off"}
        given = [] if self.session_url is None else each_host(entry, "session_url")
        plain = replace(self.primary, driver="")
        found = (replica_server(each, "session_url", plain) for each in given)
        return [replace(server, driver=self.primary.driver) for server in found]

    def unprepared(self, server: Server) -> bool:
        """Whether drivers must keep no prepared statements on `server`."""
        if self.prepared_statements is None:
            return self.pooling(server) in SHARED
        return not self.prepared_statements

    def policy(self) -> Policy:
        """The options that the rules need."""
        return Policy(
            consistency=self.consistency,
            pin_duration=self.pin_duration,
            fallback=self.fallback == "primary",
            lazy_transactions=self.transactions == "lazy",
            reads_in_transaction=self.reads_in_transaction,
            any_server_local=self.server_local == "any",
        )

    def limits(self) -> Limits:
        """How far a replica may be behind."""
        # No longer than a pin is held: one that replays hours late is meant to.
        return Limits(self.max_lag_seconds, self.max_lag_bytes, back=self.pin_max)

    def pool_options(self) -> dict[str, Any]:
        """SQLAlchemy's own options, as far as any was given, for each node's pool.

        Raises:
            ConfigError: `max_connections` is too small, or sizes are given beside it.
        """
        names = ("pool_size", "max_overflow", "pool_timeout", "pool_recycle", "pool_pre_ping",
                 "echo")  # fmt: skip
        given = {name: v for name in names if (v := getattr(self, name)) is not None}
        if self.max_connections is None:
            return given
        for name in ("pool_size", "max_overflow"):
            if name in given:
                raise ConfigError(
                    f"{name}: max_connections sizes the pools already: leave one of them out"
                )
        if self.discovery is not None:
            raise ConfigError(
                "max_connections: with discovery nobody knows how many nodes will share it: give "
                "pool_size and max_overflow"
            )
        size = budget.share(self.max_connections, self.workers, 1 + len(self.replicas))
        return given | {"pool_size": size, "max_overflow": 0}

    def relief(self, sizes: str) -> str:
        """What to do when no connection of a node's pool is free; `sizes` names the settings that
        say how many there are."""
        raised = f"raise {sizes}"
        if self.max_connections is not None:
            raised = (
                f"max_connections={self.max_connections} is shared by {self.workers} workers "
                f"and {1 + len(self.replicas)} nodes: raise it if the servers bear it "
                "(pg-router budget), run fewer workers"
            )
        return f"{raised}, hold connections for less time, or run fewer threads"

    def demand(self, extra: int = 0) -> budget.Demand:
        """What all `workers` may open, `extra` connections of other programs included."""
        options = self.pool_options()
        return budget.Demand(
            self.workers,
            options.get("pool_size", budget.POOL_SIZE),
            options.get("max_overflow", budget.MAX_OVERFLOW),
            extra,
        )

    def explain(self) -> Explanation:
        """Every setting, masked, and where its value came from."""
        return explained(self)

    @property
    def search_path(self) -> str:
        """`schema` as the server's setting has it, empty where nothing is asked for."""
        return ",".join(f'"{name}"' for name in self.schema)

    def begins_in(self, server: Server) -> str:
        """`search_path` as a connection to `server` has to ask for it: empty behind a PgBouncer,
        which refuses that, and has it from its own ``connect_query``."""
        return self.search_path if self.pooling(server) == "off" else ""

    def libpq(self) -> dict[str, int]:
        """Parameters of libpq for every connection, as far as the user says nothing else."""
        return {"connect_timeout": max(2, math.ceil(self.connect_timeout)), **KEEPALIVES}


def _replicas(given: object, primary: Server, where: str) -> list[tuple[str, Server]]:
    """Each entry of ``replicas`` for each of its hosts, and what to call it in an error."""
    if isinstance(given, str):
        given = entries(given)
    if isinstance(given, Mapping) or not isinstance(given, Iterable):
        raise ConfigError(
            f"replicas: expected a list of URLs, 'host:port' or mappings, "
            f"not {type(given).__name__}"
        )
    found = []
    for i, entry in enumerate(given):
        key = f"{where}replicas[{i}]"
        found += [(key, replica_server(each, key, primary)) for each in each_host(entry, key)]
    return found


KEEPALIVES: dict[str, int] = {
    "keepalives": 1, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}  # fmt: skip
"""How a connection finds out that its host is gone: idle for 30 s it asks every 10 s, three times;
data that is not acknowledged for 60,000 milliseconds ends it too.

Source: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
"""
