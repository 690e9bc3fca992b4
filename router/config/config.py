"""What the user asked for, as one frozen Config. Unknown keys are refused with a suggestion."""

import difflib
import math
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import reduce
from pathlib import Path
from typing import Any, Literal, Self

from router.config import budget
from router.config.options import check
from router.config.server import (
    CHOOSING,
    SESSION_ATTRS,
    Pooling,
    Server,
    check_database,
    each_host,
    entries,
    free_name,
    host_port,
    one_host_each,
    replica_server,
    split_hosts,
    url_parts,
    url_text,
    with_own,
)
from router.config.sources import (
    ADDRESS,
    Settings,
    django,
    environment,
    horsies,
    libpq,
    makara,
    mediafusion,
    pgbouncer,
)
from router.errors import ConfigError
from router.messages import did_you_mean, masked
from router.model import Limits, Node, Role
from router.rules.balance import Balancer
from router.rules.decide import Policy
from router.rules.pgbouncer import SHARED
from router.sql.intent import Rule

__all__ = [
    "CHOOSING",
    "OPTIONS",
    "PREFIX",
    "Config",
    "Explanation",
    "Server",
    "apply_session_attrs",
    "free_name",
    "host_port",
    "one_host_each",
    "own_name",
    "own_query",
    "replica_server",
    "split_hosts",
]

PREFIX = "router_"
"""Options may carry it, in code as in a URL, where another library claims the bare name."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Every setting, its value without secrets, and where that came from.

    Attributes:
        rows: name, value and source, the servers first.
    """

    rows: tuple[tuple[str, object, str], ...]

    def __str__(self) -> str:
        shown = [(name, str(value), source) for name, value, source in self.rows]
        wide = [max(len(row[i]) for row in shown) for i in (0, 1)]
        return "\n".join(
            f"{name:{wide[0]}}  {value:{wide[1]}}  {source}" for name, value, source in shown
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
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
        blacklist_sqlstates: SQLSTATEs, or classes of two characters, that blacklist a node beside
            those that say it is gone, such as ``58030`` (I/O error); the read runs elsewhere.
        max_lag_seconds: a replica further behind takes no reads, unless `max_lag_bytes` is kept.
        max_lag_bytes: see `max_lag_seconds`; either one kept is enough. None is no limit.
        fallback: "primary" or "error": what a read gets when no replica is eligible.
        transactions: "primary" starts explicit transactions there; "lazy" treats them like
            autobegun ones: under READ COMMITTED, reads before the first write may use a replica.
        reads_in_transaction: run reads outside explicit transactions in a real transaction, as
            plain SQLAlchemy does, at its price of two more round trips.
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
    blacklist_sqlstates: tuple[str, ...] = ()
    max_lag_seconds: float | None = 30.0
    max_lag_bytes: int | None = None
    fallback: Literal["primary", "error"] = "primary"
    transactions: Literal["primary", "lazy"] = "primary"
    reads_in_transaction: bool = False
    balance: str | Balancer = "weighted"
    discovery: Callable[[], Iterable[str | Mapping[str, object]]] | None = None
    discovery_interval: float = 10.0
    zone: str = ""
    read_functions: tuple[str, ...] = ()
    write_functions: tuple[str, ...] = ()
    read_patterns: tuple[str, ...] = ()
    write_patterns: tuple[str, ...] = ()
    rule: Rule | None = None
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

    @classmethod
    def from_url(cls, url: str, replicas: object = (), **options: object) -> Self:
        """From the primary's URL, whose query may hold options too.

        Args:
            url: such as ``postgresql://user:password@host/dbname?pin_max=30``; several hosts are
                several nodes.
            replicas: URLs, ``host:port`` texts, or mappings of what differs from the primary.
            **options: as the attributes above; they win over the URL.

        Raises:
            ConfigError: an option is unknown or malformed; names it and the cure.
        """
        given = {"url": url, **({"replicas": replicas} if replicas else {})}
        own = Settings.of(options, _argument)
        return cls._layered([own, Settings.of(given, _plain)], "url", os.environ)

    @classmethod
    def from_mapping(
        cls, mapping: Mapping[str, object], prefix: str = "", **options: object
    ) -> Self:
        """From a mapping, such as Flask's ``app.config`` or a section of your own file.

        Args:
            mapping: ``url`` or ``host``, ``port``, ``user``, ``password``, ``dbname`` and
                ``params`` for the primary, ``primary`` for its ``name``, ``zone`` and so on,
                ``replicas``, and options.
            prefix: only keys that begin with it are taken, without it and in lower case.
            **options: as the attributes above; they win over the mapping.

        Raises:
            ConfigError: a key is unknown or malformed; names it and the cure.
        """
        taken = {
            (key.removeprefix(prefix).lower() if prefix else key): value
            for key, value in mapping.items()
            if not prefix or str(key).startswith(prefix)
        }
        found = Settings.of(taken, lambda name: prefix + name.upper() if prefix else name)
        layers = [Settings.of(options, _argument), found]
        return cls._layered(layers, f"{prefix}URL" if prefix else "url", os.environ)

    @classmethod
    def from_env(
        cls,
        prefix: str = "PG_ROUTER_",
        *,
        environ: Mapping[str, str] | None = None,
        **options: object,
    ) -> Self:
        """From environment variables: `prefix` and the option's name in capitals.

        Args:
            prefix: of the variables.
            environ: the environment; by default the process's.
            **options: as the attributes above; they win over the environment.

        Raises:
            ConfigError: a variable is unknown or malformed; names it and the cure.
        """
        environ = os.environ if environ is None else environ
        layers = [Settings.of(options, _argument), environment.read(environ, prefix)]
        return cls._layered(layers, f"{prefix}URL", environ)

    @classmethod
    def from_toml(
        cls,
        path: str | Path,
        section: str = "pg-router",
        *,
        prefix: str = "",
        environ: Mapping[str, str] | None = None,
        **options: object,
    ) -> Self:
        """From a table of a TOML file.

        Args:
            path: the file.
            section: the table, with dots for one inside another: ``tool.pg-router``.
            prefix: environment variables that begin with it win over the file; by default none.
            environ: the environment; by default the process's.
            **options: as the attributes above; they win over both.

        Raises:
            ConfigError: the file or table is missing, or a key is unknown or malformed.
        """
        environ = os.environ if environ is None else environ
        layers = [Settings.of(options, _argument)]
        if prefix:
            layers.append(environment.read(environ, prefix))
        layers.append(Settings.of(_toml(Path(path), section), lambda n: f"{path} [{section}] {n}"))
        return cls._layered(layers, f"{path} [{section}] url", environ)

    @classmethod
    def from_libpq(
        cls,
        service: str = "",
        replicas: object = (),
        *,
        environ: Mapping[str, str] | None = None,
        **options: object,
    ) -> Self:
        """From libpq's environment variables (``PGHOST`` …) and service files.

        Args:
            service: a section of ``pg_service.conf``; by default what ``PGSERVICE`` says.
            replicas: as everywhere, and ``service=NAME`` for another section.
            environ: the environment; by default the process's.
            **options: as the attributes above.

        Raises:
            ConfigError: no host is named, the service is not found, or an option is malformed.
        """
        environ = os.environ if environ is None else environ
        given = {**options, **({"replicas": replicas} if replicas else {})}
        return cls._layered([Settings.of(given, _argument)], "PGHOST", environ, service)

    @classmethod
    def from_django(
        cls, database: Mapping[str, object], alias: str = "default", **options: object
    ) -> Self:
        """From one database of Django's ``DATABASES``, with ``REPLICAS`` and ``ROUTER``.

        Args:
            database: its settings.
            alias: its key, for error messages.
            **options: as the attributes above; they win over the settings.

        Raises:
            ConfigError: a key is unknown or malformed, or there is no ``HOST``.
        """
        layers = [Settings.of(options, _argument), django.read(database, alias)]
        return cls._layered(layers, f"DATABASES[{alias!r}]['HOST']", os.environ)

    @classmethod
    def from_makara(cls, block: Mapping[str, object], **options: object) -> Self:
        """From one environment's block of a ``database.yml`` that uses Makara.

        Args:
            block: as a YAML library gives it, such as ``loaded["production"]``.
            **options: as the attributes above; they win over the block.

        Raises:
            ConfigError: a key is unknown or malformed, or there is no single primary.
        """
        layers = [Settings.of(options, _argument), makara.read(block)]
        return cls._layered(layers, "makara.connections", os.environ)

    @classmethod
    def from_mediafusion(cls, environ: Mapping[str, str] | None = None, **options: object) -> Self:
        """From MediaFusion's variables: ``POSTGRES_URI``, ``POSTGRES_READ_URI`` and so on.

        Args:
            environ: the environment; by default the process's.
            **options: as the attributes above; they win over the environment.

        Raises:
            ConfigError: ``POSTGRES_URI`` is not set, or a variable is misspelt or malformed.
        """
        environ = os.environ if environ is None else environ
        layers = [Settings.of(options, _argument), mediafusion.read(environ)]
        return cls._layered(layers, "POSTGRES_URI", environ)

    @classmethod
    def from_horsies(
        cls,
        fields: Mapping[str, object],
        part: horsies.Part = "broker",
        replicas: object = (),
        **options: object,
    ) -> Self:
        """From the fields of Horsies' ``PostgresConfig``, with its defaults.

        Args:
            fields: by name; ``database_url`` is required.
            part: whose pools: "broker", a "worker"'s coordinator, or a "child" of it.
            replicas: Horsies knows none; those its reads may use.
            **options: as the attributes above; they win over the fields.

        Raises:
            ConfigError: a field is unknown, malformed, or missing where Horsies requires it.
        """
        given = {**options, **({"replicas": replicas} if replicas else {})}
        layers = [Settings.of(given, _argument), horsies.read(fields, part)]
        return cls._layered(layers, "database_url", os.environ)

    @classmethod
    def from_pgbouncer_ini(
        cls,
        path: str | Path,
        database: str,
        replicas: Sequence[str] = (),
        **options: object,
    ) -> Self:
        """From a ``pgbouncer.ini``: through that PgBouncer, as it pools each database.

        Args:
            path: the file.
            database: the name of its entry that leads to the primary.
            replicas: those of the entries that lead to replicas.
            **options: as the attributes above, and ``user`` and ``password``.

        Raises:
            ConfigError: the file cannot be read, an entry is missing, or an option is malformed.
        """
        layers = [Settings.of(options, _argument), pgbouncer.read(Path(path), database, replicas)]
        return cls._layered(layers, f"{path} listen_addr", os.environ)

    @classmethod
    def _layered(
        cls,
        layers: Iterable[Settings],
        wanted: str,
        environ: Mapping[str, str],
        service: str = "",
    ) -> Self:
        """The first layer that says something wins; libpq's variables fill what none says."""
        found = reduce(lambda above, below: above.over(below), map(_expanded, layers))
        params = found.values.get("params", {})
        if not isinstance(params, Mapping):
            raise ConfigError(f"{_found(found.sources, 'params')}params: expected a mapping")
        service = str(params.get("service", "")) or service
        below = libpq.read(environ, service)
        merged = {**_mapping(below.values.get("params")), **params}
        merged.pop("service", None)
        found = found.beside(below)
        sources = dict(found.sources)
        values = {key: value for key, value in found.values.items() if key != "params"}
        given = {key: values.pop(key) for key in ADDRESS if key in values}
        _known(values.keys() - {"primary", "replicas"}, sources)
        address = {key: str(value) for key, value in given.items() if value is not None}
        host, port = address.pop("host", ""), address.pop("port", "")
        if not host:
            raise ConfigError(
                f"{wanted}: no host: give the primary's URL, or its host (PGHOST, or a service)"
            )
        first = Server(host, params={k: str(v) for k, v in merged.items()}, **address)  # type: ignore[arg-type]
        places = [_source(sources, name) for name in ("host", "port")]
        primary, *beside = split_hosts(first, host, port, *places)
        primary = with_own(primary, values.pop("primary", {}), "primary")
        replicas = values.pop("replicas", ())
        if isinstance(replicas, str):
            replicas = entries(replicas)
        if isinstance(replicas, list | tuple):
            replicas = [_resolved(each, environ) for each in replicas if each]
        if beside or replicas or "discovery" in values:
            apply_session_attrs(first.params, values)
        return cls.build(primary, replicas, beside=beside, sources=sources, **values)

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
            sources={**self.sources, **{name: _argument(name) for name in options}},
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
        sources = sources or {}
        _known(options, sources)
        if isinstance(replicas, str):
            replicas = entries(replicas)
        if isinstance(replicas, Mapping) or not isinstance(replicas, Iterable):
            raise ConfigError(
                f"replicas: expected a list of URLs, 'host:port' or mappings, "
                f"not {type(replicas).__name__}"
            )
        where = _found(sources, "replicas")
        found = [(f"replicas[{i}]", server) for i, server in enumerate(beside)]
        for i, given in enumerate(replicas):
            key = f"{where}replicas[{i}]"
            found += [(key, replica_server(each, key, primary)) for each in each_host(given, key)]
        checked = {}
        for key, value in options.items():
            try:
                checked[key] = check(key, value)
            except ConfigError as error:
                raise ConfigError(f"{_found(sources, key)}{error}") from None
        servers = tuple(server for _, server in found)
        config = cls(primary=primary, replicas=servers, sources=dict(sources), **checked)
        for key, server in found:
            config._same_database(server, key)
        for server in config.sessions():
            if config.pooling(primary) == "off":
                check_database(server, primary, f"{_found(sources, 'session_url')}session_url")
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
        url = self.session_url
        entry = {"url": url, "pgbouncer": "off"}
        given = [] if url is None else each_host(entry, "session_url")
        plain = replace(self.primary, driver="")
        found = (replica_server(each, "session_url", plain) for each in given)
        return [replace(server, driver=self.primary.driver) for server in found]

    def unprepared(self, server: Server) -> bool:
        """Whether drivers must keep no prepared statements there."""
        if self.prepared_statements is None:
            return self.pooling(server) in SHARED
        return not self.prepared_statements

    def policy(self) -> Policy:
        """What of this the rules need."""
        return Policy(
            consistency=self.consistency,
            pin_duration=self.pin_duration,
            fallback=self.fallback == "primary",
            lazy_transactions=self.transactions == "lazy",
        )

    def limits(self) -> Limits:
        """How far a replica may be behind."""
        return Limits(self.max_lag_seconds, self.max_lag_bytes)

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
        """What to do when no connection of a node's pool is free.

        Args:
            sizes: the settings that say how many it has.
        """
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
        rows: list[tuple[str, object, str]] = []
        for node, server in self.servers().items():
            host = self.sources.get("host", "argument")
            for name, value in server.shown().items():
                if server is self.primary:
                    source = self.sources.get(name, "default" if self.sources else host)
                else:
                    source = self.sources.get("replicas", host)
                rows.append((f"{node.name}.{name}", value, source))
        for name in OPTIONS:
            value = getattr(self, name)
            plain = isinstance(value, str | bool | int | float | None)
            shown = list(value) if isinstance(value, tuple) else value if plain else repr(value)
            shown = masked(shown) if isinstance(shown, str) else shown
            default = "default" if value == _DEFAULTS[name] else "argument"
            rows.append((name, shown, self.sources.get(name, default)))
        return Explanation(tuple(rows))

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


KEEPALIVES: dict[str, int] = {
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
"""How a connection finds out that its host is gone: idle for 30 s it asks every 10 s, three times;
what was sent and is not acknowledged for as long ends it too (milliseconds).

Source: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
"""

OPTIONS: tuple[str, ...] = tuple(
    f.name for f in fields(Config) if f.name not in ("primary", "replicas", "sources")
)
"""Every option name, in the order of `Config`."""

KEYS: tuple[str, ...] = ("url", *ADDRESS, "primary", "replicas")
"""What a source may say beside the options."""

_DEFAULTS: dict[str, object] = {f.name: f.default for f in fields(Config)}


def own_query(query: Mapping[str, str | Sequence[str]]) -> tuple[dict[str, Any], dict[str, str]]:
    """The options in a URL's query, and the parameters that are the driver's.

    Raises:
        ConfigError: an option is unknown, looks misspelt, or is given twice.
    """
    options: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for key, value in query.items():
        name = own_name(key)
        if name is None:
            others[key] = value
        elif name in ("replica", "replicas"):
            given = [value] if isinstance(value, str) else list(value)
            parts = [part for text in given for part in entries(text)]
            options.setdefault("replicas", []).extend(parts)
        elif not isinstance(value, str):
            raise ConfigError(f"{name}: given {len(value)} times in the URL: give it once")
        elif name not in ("plugin", "plugins"):
            options[name] = value
    for key in others:
        # The drivers' own parameters are less like an option than this.
        if close := difflib.get_close_matches(key, _OWN, n=1, cutoff=0.85):
            raise ConfigError(f"unknown option {key!r} (did you mean {close[0]!r}?)")
    return options, others


def own_name(key: str) -> str | None:
    """The option a query's key or an argument stands for, None when it is somebody else's.

    Raises:
        ConfigError: it has our prefix and is no option.
    """
    bare = key.removeprefix(PREFIX)
    if bare in _OWN:
        return bare
    if key.startswith(PREFIX):
        raise ConfigError(f"unknown option {bare!r}{did_you_mean(bare, _OWN)}")
    return key if key in ("plugin", "plugins") else None


_OWN = ("replica", "replicas", *OPTIONS)


def apply_session_attrs(params: Mapping[str, object], options: dict[str, Any]) -> None:
    """Take ``target_session_attrs`` for what it asks of reads; roles are found out anyway.

    Raises:
        ConfigError: it is none of libpq's values.
    """
    wanted = params.get("target_session_attrs", "any")
    if wanted not in SESSION_ATTRS:
        raise ConfigError(
            f"target_session_attrs: {wanted!r} is none of {', '.join(SESSION_ATTRS)}"
        )
    if wanted in ("standby", "read-only"):
        options.setdefault("fallback", "error")


def _expanded(settings: Settings) -> Settings:
    """`settings` with what its URL says as settings of their own; those beside the URL win."""
    values = dict(settings.values)
    url = values.pop("url", None)
    if "replica" in values:
        values.setdefault("replicas", values.pop("replica"))
    kept = Settings(values, {name: _source(settings.sources, name) for name in values})
    if url is None:
        return kept
    source = _source(settings.sources, "url")
    parts = url_parts(url_text(url, source), source)
    try:
        options, params = own_query(parts.pop("params", {}))
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None
    said = {**options, **parts, **({"params": params} if params else {})}
    return kept.beside(Settings.of(said, lambda _: source))


def _known(options: Iterable[str], sources: Mapping[str, str]) -> None:
    for key in sorted(set(options) - set(OPTIONS), key=str):
        near = did_you_mean(str(key), (*KEYS, *OPTIONS))
        raise ConfigError(f"{_found(sources, key)}unknown option {key!r}{near}")


def _resolved(replica: object, environ: Mapping[str, str]) -> object:
    if isinstance(replica, str) and replica.startswith("service="):
        return libpq.service_url(replica.removeprefix("service="), environ)
    return replica


def _toml(path: Path, section: str) -> Mapping[str, object]:
    try:
        found: object = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}: name a file that can be read") from None
    except ValueError as error:
        raise ConfigError(f"{path}: not TOML: {masked(' '.join(str(error).split()))}") from None
    for name in section.split("."):
        tables = {k: v for k, v in _mapping(found).items() if isinstance(v, Mapping)}
        if name not in tables:
            raise ConfigError(f"{path}: no table [{section}]{did_you_mean(name, tables)}")
        found = tables[name]
    return _mapping(found)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _source(sources: Mapping[str, str], name: str) -> str:
    return sources.get(name, name)


def _found(sources: Mapping[str, str], name: str) -> str:
    """What an error about `name` begins with: where it was found, unless that says nothing new."""
    source = sources.get(name, name)
    return "" if source in (name, _argument(name)) else f"{source}: "


def _argument(name: str) -> str:
    return f"argument {name}"


def _plain(name: str) -> str:
    return name
