"""One server's address and credentials, and every way to write them.

A secret never leaves this module in readable form except through a `Server`'s own attributes.
"""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, Self

from router.config.options import Pooling, number, pooling
from router.config.urls import host_port, port_of, url_parts, url_text
from router.errors import ConfigError
from router.messages import did_you_mean, is_secret, masked
from router.model import Node, Role


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
        parts["port"] = port_of(parts.get("port", 5432), key)
        return cls(**parts)

    def shown(self) -> dict[str, object]:
        """Everything about it that is not empty, secrets as ``***``."""
        params = " ".join(
            f"{key}={'***' if is_secret(key) else masked(value)}"
            for key, value in self.params.items()
        )
        found: dict[str, object] = {
            **self._address(),
            "password": self.password and "***",
            "driver": self.driver,
            "params": params,
            "weight": None if self.weight == 1 else self.weight,
            "blacklist_duration": self.blacklist_duration,
            "zone": self.zone,
            "priority": self.priority or None,
            "pgbouncer": self.pgbouncer,
        }
        return {
            name: masked(value) if isinstance(value, str) else value
            for name, value in found.items()
            if value not in ("", None)
        }

    def _address(self) -> dict[str, Any]:
        names = ("host", "port", "user", "password", "dbname")
        return {name: getattr(self, name) for name in names}

    def connect_args(self) -> dict[str, Any]:
        """What libpq needs to connect here, parameters of other drivers left out."""
        own = self.params if self.driver in ("", "psycopg", "psycopg2") else {}
        taken = {key: value for key, value in own.items() if key not in CHOOSING}
        return taken | {key: value for key, value in self._address().items() if value}

    def node(self, name: str, role: Role) -> Node:
        """The Node of this server in the configured `role`; `name` is for one without a name."""
        return Node(
            self.name or name, self.host, self.port, self.dbname, role, self.weight,
            self.blacklist_duration, self.zone, self.priority,
        )  # fmt: skip


CHOOSING = ("target_session_attrs", "load_balance_hosts")
"""Parameters by which libpq chooses among hosts; meaningless where each node is one server."""


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
        number = port_of(given or 5432, port_key or key)
        address: dict[str, Any] = {"port": number, **host_port(each, key)}
        found.append(replace(first, **address))
    if len(found) < 2:
        return found
    alone = len({s.host for s in found}) == len(found)
    return [replace(s, name=s.host if alone else f"{s.host}:{s.port}") for s in found]


# What is a server's own and never another's.
_OWN: dict[str, Any] = {
    "name": "", "weight": 1.0, "blacklist_duration": None, "zone": "", "priority": 0,
    "pgbouncer": None,
}  # fmt: skip
_REPLICA_KEYS = ("url", "host", "port", *_OWN, "user", "password", "dbname", "params")


def replica_server(given: object, key: str, primary: Server) -> Server:
    """The server of `given`, an entry of ``replicas`` that was found at `key`: a URL, ``host``,
    ``host:port``, or a mapping of what differs from `primary`, whose the rest is.

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
        said = _of_url(url_text(url, key), key, primary)
        params = {**primary.params, **said.pop("params"), **own}
        options = {**said, **options, "params": params}
    if not options.get("host"):
        raise ConfigError(f"{key}: no host: add 'host' or 'url' to this replica")
    options["port"] = port_of(options.get("port", primary.port), f"{key}.port")
    for name in ("host", "user", "password", "dbname"):
        if name in options:
            options[name] = str(options[name])
    return replace(primary, **{**_OWN, **options, **_own(options, key)})


def _of_url(url: str, key: str, primary: Server) -> dict[str, Any]:
    """What the URL of a replica says; without a user, or a database, the primary's."""
    server = Server.parse(url, key)
    if server.driver and primary.driver and server.driver != primary.driver:
        raise ConfigError(
            f"{key}: driver {server.driver!r} differs from the primary's {primary.driver!r}: "
            "one engine has one driver; leave the driver out of the replica's URL"
        )
    params = dict(server.params)
    names = ("router_pgbouncer", "pgbouncer")  # the bare one wins
    said = [params.pop(name) for name in names if name in params]
    return {
        "host": server.host,
        "port": server.port,
        "user": server.user or primary.user,
        "password": server.password or (primary.password if not server.user else ""),
        "dbname": server.dbname or primary.dbname,
        **({"pgbouncer": said[-1]} if said else {}),
        "params": params,
    }


def check_database(server: Server, primary: Server, key: str) -> None:
    """Refuse the `server` found at `key` where it opens another database than `primary`, with no
    PgBouncer before either. The probes tell what a name that is left out opens.

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
    """`server` with the name, weight, zone and so on in `given`, which was found at `key`.

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
