"""One server's address and credentials, and every way to write them.

A secret never leaves this module in readable form except through a `Server`'s own attributes.
"""

import math
import re
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, Literal, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from router.errors import ConfigError
from router.messages import did_you_mean, is_secret, masked
from router.model import Node, Role

Pooling = Literal["transaction", "session", "statement", "off"]
MODES: tuple[Pooling, ...] = ("transaction", "session", "statement", "off")


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
        pgbouncer: how the PgBouncer there pools, "off" for none; None is as the cluster's option
            says.
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
    pgbouncer: Pooling | None = None

    @classmethod
    def parse(cls, url: str, key: str) -> Self:
        """Read a ``postgresql://`` or ``postgres://`` URL, with or without ``+driver``.

        Args:
            url: the URL.
            key: the option it was given under, for error messages.

        Raises:
            ConfigError: it is no PostgreSQL URL, or names no host.
        """
        parts = url_parts(url, key)
        if not parts.get("host"):
            raise ConfigError(
                f"{key}: {masked(url)!r} names no host: write postgresql://…@HOST:5432/dbname"
            )
        if "," in parts["host"]:
            raise ConfigError(f"{key}: {masked(url)!r} names several hosts: give one")
        parts["port"] = _port(parts.get("port", 5432), key)
        return cls(**parts)

    def shown(self) -> dict[str, object]:
        """Everything about it that is not empty, secrets as ``***``."""
        found: dict[str, object] = {
            "host": self.host,
            "port": self.port,
            "user": self.user,
            "password": self.password and "***",
            "dbname": self.dbname,
            "driver": self.driver,
            "params": " ".join(
                f"{key}={'***' if is_secret(key) else masked(value)}"
                for key, value in self.params.items()
            ),
            "weight": "" if self.weight == 1 else self.weight,
            "blacklist_duration": ""
            if self.blacklist_duration is None
            else self.blacklist_duration,
            "zone": self.zone,
            "priority": self.priority or "",
            "pgbouncer": self.pgbouncer or "",
        }
        return {
            name: masked(value) if isinstance(value, str) else value
            for name, value in found.items()
            if value != ""
        }

    def connect_args(self) -> dict[str, Any]:
        """What libpq needs to connect here, parameters of other drivers left out."""
        own = self.params if self.driver in ("", "psycopg", "psycopg2") else {}
        named = {
            "host": self.host,
            "port": self.port,
            "user": self.user,
            "password": self.password,
            "dbname": self.dbname,
        }
        taken = {key: value for key, value in own.items() if key not in CHOOSING}
        return taken | {key: value for key, value in named.items() if value}

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

_SEVERAL = ("host", "port", "replica", "replicas", "router_replica", "router_replicas")
"""What a URL's query may say more than once."""


def url_parts(url: str, key: str) -> dict[str, Any]:
    """What a PostgreSQL URL says, by the names of `Server`'s attributes, and nothing else.

    Several hosts, as libpq writes them, are one text with commas in ``host`` and ``port``.

    Args:
        url: the URL.
        key: the option it was given under, for error messages.

    Raises:
        ConfigError: it is no PostgreSQL URL.
    """
    first, *others = [_one_url(each, key) for each in one_host_each(url.strip())]
    if others:
        each = [first, *others]
        first["host"] = ",".join(parts.get("host", "") for parts in each)
        first["port"] = ",".join(str(parts.get("port", "")) for parts in each)
    return first


def url_text(url: object, key: str) -> str:
    """`url` as text; SQLAlchemy's own URLs show their password only to who asks for it.

    Raises:
        ConfigError: it is no URL.
    """
    render = getattr(url, "render_as_string", None)
    found = url if render is None else render(hide_password=False)
    if not isinstance(found, str):
        raise ConfigError(f"{key}: expected a URL as text, not {type(url).__name__}")
    return found


def _one_url(url: str, key: str) -> dict[str, Any]:
    scheme, separator, _ = url.partition("://")
    dialect, _, driver = scheme.partition("+")
    if not separator or dialect not in ("postgresql", "postgres"):
        # What is no URL may be anything, a password for one.
        shown = f"{masked(url)!r}" if separator else "the text"
        raise ConfigError(
            f"{key}: {shown} is not a PostgreSQL URL: expected postgresql://host:port/dbname"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        # Its message may quote a part of the password.
        raise ConfigError(
            f"{key}: {masked(url)!r} is malformed: the port must be a number of 1 to 65535, and "
            "special characters in user and password percent-encoded ('@' as %40, '/' as %2F)"
        ) from None
    # Of a line break or tab urlsplit says nothing, and leaves it out.
    if parts.fragment or "@" in parts.path or re.search(r"[\t\r\n]", url):
        raise ConfigError(
            f"{key}: {masked(url)!r} is malformed: percent-encode special characters in user "
            "and password ('#' as %23, '/' as %2F)"
        )
    query: dict[str, list[str]] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        query.setdefault(name, []).append(value)
    for name, values in query.items():
        if len(values) > 1 and name not in _SEVERAL:
            raise ConfigError(f"{key}: {name}: given {len(values)} times in the URL: give it once")
    params: dict[str, Any] = {name: ",".join(values) for name, values in query.items()}
    hosts = params.pop("host", "")
    found: dict[str, Any] = {
        "host": unquote(_host(parts.netloc)) or hosts,
        "port": params.pop("port", "") if port is None else str(port),
        "user": unquote(parts.username or "") or params.pop("user", ""),
        "password": unquote(parts.password or "") or params.pop("password", ""),
        "dbname": unquote(parts.path.lstrip("/")) or params.pop("dbname", ""),
        "driver": driver,
        "params": params,
    }
    return {name: value for name, value in found.items() if value}


def split_hosts(first: Server, host: str, port: str, key: str, port_key: str = "") -> list[Server]:
    """`first` at each host of a text like ``h1,h2:5433`` with ports like ``5432`` or ``,5433``.

    Args:
        first: what is the same for each.
        host: the hosts.
        port: the ports.
        key: where the hosts were found, for error messages.
        port_key: where the ports were, if elsewhere.

    Raises:
        ConfigError: the numbers of hosts and ports do not match, or one is malformed.
    """
    hosts, ports = host.split(","), port.split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    if len(ports) != len(hosts):
        raise ConfigError(f"{key}: {len(hosts)} hosts and {len(ports)} ports: give one for each")
    found = []
    for each, given in zip(hosts, ports, strict=True):
        number = _port(given or 5432, port_key or key)
        address: dict[str, Any] = {"port": number, **host_port(each, key)}
        found.append(replace(first, **address))
    if len(found) < 2:
        return found
    alone = len({s.host for s in found}) == len(found)
    return [replace(s, name=s.host if alone else f"{s.host}:{s.port}") for s in found]


def one_host_each(url: str) -> list[str]:
    """`url`, or one URL for each of its hosts where it names several, as libpq allows."""
    scheme, separator, rest = url.partition("://")
    end = re.search(r"[/?#]|$", rest)
    cut = end.start() if end is not None else len(rest)
    user, at, hosts = rest[:cut].rpartition("@")
    if not separator or "," not in hosts:
        return [url]
    return [f"{scheme}://{user}{at}{host}{rest[cut:]}" for host in hosts.split(",")]


_HOST = r"(?:\[[^\]\s]*\]|[^\s,/?#:\[\]@]*)(?::\d+)?"
_ENTRY = re.compile(
    rf"\s*[a-z][a-z0-9+]*://(?:[^/?#\s]*@)?(?:{_HOST}(?:,{_HOST})+(?=[/?]))?[^,]*|[^,]+",
    re.IGNORECASE,
)


def entries(text: str) -> list[str]:
    """The servers of a text with commas; those in a URL's password, or among its hosts, are its
    own."""
    return [entry for found in _ENTRY.findall(text) if (entry := found.strip())]


def each_host(given: object, key: str) -> list[object]:
    """`given`, an entry of ``replicas``, for each of its hosts.

    Raises:
        ConfigError: its URL is none.
    """
    if isinstance(given, Mapping):
        if given.get("url") is None:
            return [given]
        return [{**given, "url": each} for each in one_host_each(url_text(given["url"], key))]
    if hasattr(given, "render_as_string"):
        given = url_text(given, key)
    if not isinstance(given, str):
        return [given]
    return list(one_host_each(given) if "://" in given else map(str.strip, given.split(",")))


def _host(netloc: str) -> str:
    """The host as it is written: `urlsplit` lowers it, and a socket directory has its case."""
    address = netloc.rpartition("@")[2]
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0]


_REPLICA_KEYS = ("url", "host", "port", "name", "weight", "blacklist_duration", "zone", "priority",
                 "pgbouncer",
                 "user", "password", "dbname", "params")  # fmt: skip

# What is a server's own and never another's.
_OWN: dict[str, Any] = {
    "name": "", "weight": 1.0, "blacklist_duration": None, "zone": "", "priority": 0,
    "pgbouncer": None,
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
    own = options.pop("params", {})
    if not isinstance(own, Mapping):
        raise ConfigError(f"{key}.params: expected a mapping, not {type(own).__name__}")
    options["params"] = {**primary.params, **{str(k): str(v) for k, v in own.items()}}
    url = options.pop("url", None)
    if url is not None:
        server = Server.parse(url_text(url, key), key)
        if server.driver and primary.driver and server.driver != primary.driver:
            raise ConfigError(
                f"{key}: driver {server.driver!r} differs from the primary's {primary.driver!r}: "
                "one engine has one driver; leave the driver out of the replica's URL"
            )
        params = dict(server.params)
        for name in ("pgbouncer", "router_pgbouncer"):
            if name in params:
                options.setdefault("pgbouncer", params.pop(name))
        options = {
            "host": server.host,
            "port": server.port,
            "user": server.user or primary.user,
            "password": server.password or (primary.password if not server.user else ""),
            "dbname": server.dbname or primary.dbname,
            **options,
            "params": {**primary.params, **params, **own},
        }
    if not options.get("host"):
        raise ConfigError(f"{key}: no host: add 'host' or 'url' to this replica")
    options["port"] = _port(options.get("port", primary.port), f"{key}.port")
    for name in ("host", "user", "password", "dbname"):
        if name in options:
            options[name] = str(options[name])
    return replace(primary, **{**_OWN, **options, **_own(options, key)})


def check_database(server: Server, primary: Server, key: str) -> None:
    """Refuse a server that opens another database than the primary, past any PgBouncer.

    A name that is left out is the driver's to fill in: what is opened then, the probes tell.

    Args:
        server: the server, behind no PgBouncer as far as is said.
        primary: the primary, the same.
        key: where the server was found, for error messages.

    Raises:
        ConfigError: both databases are named, and differ.
    """
    if server.dbname and primary.dbname and server.dbname != primary.dbname:
        raise ConfigError(
            f"{key}: it opens the database {server.dbname!r}, and the primary {primary.dbname!r}: "
            f"name {primary.dbname!r}, or no database; where a pooler knows it by another name, "
            "say pgbouncer and how it pools"
        )


def with_own(server: Server, given: object, key: str) -> Server:
    """`server` with a name, weight, zone and so on of its own.

    Raises:
        ConfigError: `given` is no mapping, or a key is unknown or malformed.
    """
    if not isinstance(given, Mapping):
        raise ConfigError(f"{key}: expected a mapping, not {type(given).__name__}")
    for unknown in given.keys() - set(_OWN):
        raise ConfigError(f"{key}: unknown key {unknown!r}{did_you_mean(str(unknown), _OWN)}")
    return replace(server, **_own(given, key))


def _own(options: Mapping[str, Any], key: str) -> dict[str, Any]:
    kinds: dict[str, Callable[[Any], Any]] = {
        "name": str, "zone": str, "weight": float, "blacklist_duration": float, "priority": int
    }  # fmt: skip
    found = {
        name: kind(options[name]) if kind is str else number(options[name], f"{key}.{name}", kind)
        for name, kind in kinds.items()
        if options.get(name) is not None
    }
    if options.get("pgbouncer") is not None:
        found["pgbouncer"] = pooling(options["pgbouncer"], f"{key}.pgbouncer")
    return found


def free_name(names: Container[str]) -> str:
    """The first of ``replica1``, ``replica2`` … that is not among `names`."""
    return next(name for i in count(1) if (name := f"replica{i}") not in names)


def host_port(text: str, key: str) -> dict[str, object]:
    """``host`` and, where given, ``port`` of a text like ``db1``, ``db1:5432`` or ``[::1]:5432``.

    Raises:
        ConfigError: it is something else.
    """
    if re.search(r"[@=\s{}\"']", text):  # the text may hold a password
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
    text = str(value)
    port = int(text) if re.fullmatch(r"[0-9]{1,5}", text) else 0
    if not 0 < port < 65536:
        # What is no number may be anything, a password for one.
        shown = repr(value) if re.fullmatch(r"-?[0-9]+", text) else "the text"
        raise ConfigError(f"{key}: {shown} is no port: give 1 to 65535")
    return port


def number(value: object, key: str, kind: Callable[[Any], Any], least: float = 0) -> Any:
    """`value` as a number of `kind`, finite and not below `least`.

    Raises:
        ConfigError: it is something else.
    """
    shown = masked(repr(value))
    try:
        found = kind(value)
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(f"{key}: {shown} is not a number: give {least:g} or more") from None
    if not math.isfinite(found):
        raise ConfigError(f"{key}: {shown} is not finite: give {least:g} or more")
    if found < least:
        below = "negative" if not least else f"less than {least:g}"
        raise ConfigError(f"{key}: {shown} is {below}: give {least:g} or more")
    return found


def pooling(value: object, key: str) -> Pooling:
    """How a PgBouncer pools, as people say it: a mode, or true for "transaction".

    Raises:
        ConfigError: it is something else.
    """
    text = str(value).lower()
    for mode in MODES:
        if text == mode:
            return mode
    if text in ("true", "yes", "on", "1"):
        return "transaction"
    if text in ("false", "no", "0", "none", ""):
        return "off"
    raise ConfigError(f"{key}: {masked(repr(value))} is none of {', '.join(MODES)}, true, false")
