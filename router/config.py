"""What the user asked for, as one frozen Config. Unknown keys are refused with a suggestion.

A secret never leaves this module in readable form except through `Server.params`: every repr and
every error goes through `masked`.
"""

import difflib
import math
import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import count
from typing import Any, Literal, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from router.balance import BALANCERS, Balancer
from router.classify import Rule
from router.decide import Policy
from router.errors import ConfigError
from router.model import Limits, Node, Role

# Generous on purpose: a password that was not percent-encoded may hold spaces, "@", "/" or ":",
# and masking too much of a message is better than one character too little.
_URL_PASSWORD = re.compile(r"(?P<head>[a-z][a-z0-9+]*://[^:\s]*:).*(?=@)", re.IGNORECASE)
_KEY_PASSWORD = re.compile(
    r"""(?P<head>pass\w*\s*=\s*)('(?:[^'\\]|\\.)*(?:'|$)|"(?:[^"\\]|\\.)*(?:"|$)|(?:\\.|[^\s\\])+)""",
    re.IGNORECASE | re.DOTALL,
)


def masked(text: str) -> str:
    """`text` with the password of every URL and ``password=`` setting replaced by ``***``."""
    return _KEY_PASSWORD.sub(r"\g<head>***", _URL_PASSWORD.sub(r"\g<head>***", text))


@dataclass(frozen=True, slots=True)
class Server:
    """One server's address and credentials.

    Attributes:
        host: host name, address or socket directory.
        port: TCP port.
        user: role to log in as, empty for the driver's default.
        password: its password; never shown.
        dbname: database to open, empty for the driver's default.
        driver: SQLAlchemy's driver name when the URL names one, such as "psycopg".
        params: further connection parameters from the URL's query, such as ``sslmode``.
        name: name given by the user, empty for a default.
        weight: share of reads, see `router.model.Node`.
        blacklist_duration: seconds, None for the cluster's.
        zone: where it stands, see `router.model.Node`.
        priority: which replicas come first, see `router.model.Node`.
    """

    host: str
    port: int = 5432
    user: str = ""
    password: str = field(default="", repr=False)
    dbname: str = ""
    driver: str = ""
    params: Mapping[str, str] = field(default_factory=dict, repr=False)
    name: str = ""
    weight: float = 1.0
    blacklist_duration: float | None = None
    zone: str = ""
    priority: int = 0

    @classmethod
    def parse(cls, url: str, key: str) -> Self:
        """Read a ``postgresql://`` or ``postgres://`` URL, with or without ``+driver``.

        Args:
            url: the URL.
            key: the option it was given under, for error messages.

        Raises:
            ConfigError: it is no PostgreSQL URL, or names no host.
        """
        scheme, separator, _ = url.partition("://")
        dialect, _, driver = scheme.partition("+")
        if not separator or dialect not in ("postgresql", "postgres"):
            raise ConfigError(
                f"{key}: {masked(url)!r} is not a PostgreSQL URL: "
                "expected postgresql://user:password@host:port/dbname"
            )
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            # Its message may quote a part of the password.
            raise ConfigError(
                f"{key}: {masked(url)!r} is malformed: the port must be a number, and special "
                "characters in user and password percent-encoded ('@' as %40, '/' as %2F)"
            ) from None
        if parts.fragment or "@" in parts.path:
            raise ConfigError(
                f"{key}: {masked(url)!r} is malformed: percent-encode special characters in user "
                "and password ('#' as %23, '/' as %2F)"
            )
        params = dict(parse_qsl(parts.query, keep_blank_values=True))
        host = unquote(_host(parts.netloc)) or params.pop("host", "")
        if not host:
            raise ConfigError(
                f"{key}: {masked(url)!r} names no host: write postgresql://…@HOST:5432/dbname"
            )
        return cls(
            host=host,
            port=port or _port(params.pop("port", 5432), key),
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            dbname=unquote(parts.path.lstrip("/")),
            driver=driver,
            params=params,
        )

    def node(self, name: str, role: Role) -> Node:
        """The Node adapters and rules know this server by."""
        duration = self.blacklist_duration
        if duration is None and role is Role.PRIMARY:
            duration = 0.0
        return Node(
            self.name or name,
            self.host,
            self.port,
            self.dbname,
            role,
            self.weight,
            duration,
            self.zone,
            self.priority,
        )


SESSION_ATTRS = ("any", "read-write", "read-only", "primary", "standby", "prefer-standby")
"""What libpq's ``target_session_attrs`` may be; the router finds roles out itself.

Source: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-TARGET-SESSION-ATTRS
"""

CHOOSING = ("target_session_attrs", "load_balance_hosts")
"""Parameters by which libpq chooses among hosts; meaningless where each node is one server."""


def one_host_each(url: str) -> list[str]:
    """`url`, or one URL for each of its hosts where it names several, as libpq allows."""
    scheme, separator, rest = url.partition("://")
    end = re.search(r"[/?#]|$", rest)
    cut = end.start() if end is not None else len(rest)
    user, at, hosts = rest[:cut].rpartition("@")
    if not separator or "," not in hosts:
        return [url]
    return [f"{scheme}://{user}{at}{host}{rest[cut:]}" for host in hosts.split(",")]


def _each(given: object) -> list[object]:
    """`given`, an entry of ``replicas``, for each of its hosts."""
    if isinstance(given, str):
        return list(one_host_each(given) if "://" in given else given.split(","))
    if isinstance(given, Mapping) and isinstance(url := given.get("url"), str):
        return [{**given, "url": each} for each in one_host_each(url)]
    return [given]


def _host(netloc: str) -> str:
    """The host as it is written: `urlsplit` lowers it, and a socket directory has its case."""
    address = netloc.rpartition("@")[2]
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0]


_REPLICA_KEYS = ("url", "host", "port", "name", "weight", "blacklist_duration", "zone", "priority",
                 "user", "password", "dbname")  # fmt: skip

# What is a server's own and never another's.
_OWN: dict[str, Any] = {
    "name": "", "weight": 1.0, "blacklist_duration": None, "zone": "", "priority": 0
}  # fmt: skip


def replica_server(given: object, key: str, primary: Server) -> Server:
    """One entry of ``replicas``: a URL, ``host``, ``host:port``, or a mapping of what differs.

    What the entry leaves out is the primary's.

    Raises:
        ConfigError: the entry has no host, another driver, or an unknown key.
    """
    if isinstance(given, str):
        given = {"url": given} if "://" in given else host_port(given, key)
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"{key}: expected a URL, 'host:port' or a mapping, not {type(given).__name__}"
        )
    for unknown in given.keys() - set(_REPLICA_KEYS):
        raise ConfigError(
            f"{key}: unknown key {unknown!r}{did_you_mean(str(unknown), _REPLICA_KEYS)}"
        )
    options = {name: value for name, value in given.items() if value is not None}
    url = options.pop("url", None)
    if url is not None:
        server = Server.parse(str(url), key)
        if server.driver and primary.driver and server.driver != primary.driver:
            raise ConfigError(
                f"{key}: driver {server.driver!r} differs from the primary's {primary.driver!r}: "
                "one engine has one driver; leave the driver out of the replica's URL"
            )
        if "," in server.host:
            raise ConfigError(f"{key}: {masked(str(url))!r} names several hosts: give one")
        options = {
            "host": server.host,
            "port": server.port,
            "user": server.user or primary.user,
            "password": server.password or (primary.password if not server.user else ""),
            "dbname": server.dbname or primary.dbname,
            "params": {**primary.params, **server.params},
            **options,
        }
    if not options.get("host"):
        raise ConfigError(f"{key}: no host: add 'host' or 'url' to this replica")
    options["port"] = _port(options.get("port", primary.port), f"{key}.port")
    for name in ("host", "user", "password", "dbname", "name", "zone"):
        if name in options:
            options[name] = str(options[name])
    for name in ("weight", "blacklist_duration"):
        if name in options:
            options[name] = _number(options[name], f"{key}.{name}", float)
    if "priority" in options:
        options["priority"] = _number(options["priority"], f"{key}.priority", int)
    return replace(primary, **{**_OWN, **options})


def free_name(names: Container[str]) -> str:
    """The first of ``replica1``, ``replica2`` … that is not among `names`."""
    return next(name for i in count(1) if (name := f"replica{i}") not in names)


def host_port(text: str, key: str) -> dict[str, object]:
    """``host`` and, where given, ``port`` of a text like ``db1``, ``db1:5432`` or ``[::1]:5432``.

    Raises:
        ConfigError: it is something else.
    """
    if re.search(r"[@=\s]", text):  # the text may hold a password
        raise ConfigError(
            f"{key}: expected 'host' or 'host:port'; what needs a user or parameters is written "
            "postgresql://user:password@host:port/dbname"
        )
    if text.startswith("["):  # [::1]:5432
        host, _, rest = text[1:].partition("]")
        port = rest.lstrip(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    else:
        host, port = text, ""
    if not host:
        raise ConfigError(f"{key}: {text!r} names no host: write 'host' or 'host:port'")
    return {"host": host, **({"port": _port(port, key)} if port else {})}


def _port(value: object, key: str) -> int:
    port: int = _number(value, key, int)
    if not 0 < port < 65536:
        raise ConfigError(f"{key}: {value!r} is no port: give 1 to 65535")
    return port


def _number(value: object, key: str, kind: Callable[[Any], Any]) -> Any:
    try:
        number = kind(value)
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(f"{key}: {value!r} is not a number: give 0 or more") from None
    if not math.isfinite(number):
        raise ConfigError(f"{key}: {value!r} is not finite: give 0 or more")
    if number < 0:
        raise ConfigError(f"{key}: {value!r} is negative: give 0 or more")
    return number


def did_you_mean(unknown: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` when something close to `unknown` is known, else what is."""
    names = list(known)
    close = difflib.get_close_matches(unknown, names, n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else f" (known: {', '.join(sorted(names))})"


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
        probe_timeout: how long one probe may take, connecting included.
        start_timeout: how long the first statement waits for the first probe of the nodes; after
            that it goes to the primary. 0 does not wait.
        connect_timeout: how long opening one connection may take, unless the URL,
            ``connect_args`` or ``PGCONNECT_TIMEOUT`` say it. libpq takes whole seconds, 2 or more.
        blacklist_duration: how long a failure keeps a replica out, at first.
        blacklist_max: how long the doubling of that may get.
        blacklist_sqlstates: SQLSTATEs, or classes of two characters, that blacklist a node beside
            those that say it is gone, such as ``58030`` (I/O error); the read runs elsewhere.
        max_lag_seconds: a replica further behind takes no reads, unless `max_lag_bytes` is kept.
        max_lag_bytes: see `max_lag_seconds`; either one kept is enough. None is no limit.
        fallback: "primary" or "error": what a read gets when no replica is eligible.
        transactions: "primary" starts explicit transactions there; "lazy" treats them like
            autobegun ones: reads before the first write may use a replica.
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

    @classmethod
    def build(
        cls,
        primary: Server,
        replicas: object = (),
        *,
        beside: Sequence[Server] = (),
        **options: object,
    ) -> Self:
        """A checked Config from loosely typed options, as they come from code or a URL.

        Args:
            primary: taken for the primary until the servers were asked.
            replicas: the others, in any of the forms the documentation lists.
            beside: further servers of the URL that named the primary.
            **options: as the attributes above.

        Raises:
            ConfigError: an option is unknown or malformed; names it and the cure.
        """
        for key in options.keys() - set(OPTIONS):
            raise ConfigError(f"unknown option {key!r}{did_you_mean(key, ('replicas', *OPTIONS))}")
        if isinstance(replicas, str):
            replicas = [part for part in replicas.split(",") if part]
        if isinstance(replicas, Mapping) or not isinstance(replicas, Iterable):
            raise ConfigError(
                f"replicas: expected a list of URLs, 'host:port' or mappings, "
                f"not {type(replicas).__name__}"
            )
        servers = tuple(beside) + tuple(
            replica_server(each, f"replicas[{i}]", primary)
            for i, given in enumerate(replicas)
            for each in _each(given)
        )
        checked = {key: _checked(key, value) for key, value in options.items()}
        config = cls(primary=primary, replicas=servers, **checked)
        config.nodes()  # names must be unique
        return config

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
    f.name for f in fields(Config) if f.name not in ("primary", "replicas")
)
"""Every option name, in the order of `Config`."""

_CHOICES: dict[str, Sequence[str]] = {
    "consistency": ("lsn", "time", "off"),
    "fallback": ("primary", "error"),
    "pin_lsn": ("sample", "commit"),
    "transactions": ("primary", "lazy"),
}
_OPTIONAL = ("max_lag_seconds", "max_lag_bytes")
_LISTS = (
    "blacklist_sqlstates",
    "read_functions",
    "write_functions",
    "read_patterns",
    "write_patterns",
)
_SQLSTATE = re.compile(r"[0-9A-Z]{2}([0-9A-Z]{3})?")
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def _checked(key: str, value: object) -> Any:
    if key in _CHOICES:
        if value not in _CHOICES[key]:
            raise ConfigError(f"{key}: {value!r} is none of {', '.join(_CHOICES[key])}")
        return value
    if key in ("name", "zone"):
        return str(value)
    if key in ("rule", "discovery"):
        if value is not None and not callable(value):
            takes = "of the text" if key == "rule" else "that returns servers"
            raise ConfigError(f"{key}: {value!r} is not callable: give a function {takes}")
        return value
    if key == "balance":
        if not callable(value) and (not isinstance(value, str) or value not in BALANCERS):
            raise ConfigError(
                f"balance: {value!r} is none of {', '.join(BALANCERS)}, nor callable"
            )
        return value
    if key == "reads_in_transaction":
        text = str(value).lower()
        if text not in _TRUE + _FALSE:
            raise ConfigError(f"{key}: {value!r} is neither true nor false")
        return text in _TRUE
    if key in _LISTS:
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, Iterable):
            raise ConfigError(f"{key}: expected a list of strings, not {type(value).__name__}")
        # An empty pattern would match every statement.
        found = tuple(text for item in items if (text := str(item).strip()))
        for text in found if key == "blacklist_sqlstates" else ():
            if not _SQLSTATE.fullmatch(text):
                raise ConfigError(
                    f"{key}: {text!r} is no SQLSTATE: give five digits or capitals, or the first "
                    "two for a class"
                )
        for text in found if key.endswith("_patterns") else ():
            try:
                re.compile(text)
            except re.error as error:
                raise ConfigError(
                    f"{key}: {text!r} is no regular expression ({error}): correct it"
                ) from None
        return found
    if key in _OPTIONAL and (value is None or str(value).lower() == "none"):
        return None
    return _number(value, key, int if key == "max_lag_bytes" else float)
