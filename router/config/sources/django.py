"""One database of Django's ``DATABASES``.

Source: https://docs.djangoproject.com/en/stable/ref/settings/#databases
"""

import difflib
from collections.abc import Iterable, Mapping

from router.config.options import pooling
from router.config.sources.settings import Settings
from router.config.urls import host_port
from router.errors import ConfigError
from router.messages import did_you_mean

ADDRESS = {
    "HOST": "host",
    "PORT": "port",
    "USER": "user",
    "PASSWORD": "password",
    "NAME": "dbname",
}
OWN = ("name", "weight", "zone", "priority", "blacklist_duration", "pgbouncer")
"""Keys of a replica that the router reads; in small letters, where Django's keys are capitals."""

_KEPT = "Django keeps the connections: use CONN_MAX_AGE, CONN_HEALTH_CHECKS and OPTIONS['pool']"
REFUSED: dict[str, str] = {
    **dict.fromkeys(
        ("max_connections", "workers", "pool_size", "max_overflow", "pool_timeout",
         "pool_recycle", "pool_pre_ping"), _KEPT),
    "echo": "use Django's logger django.db.backends",
    "reads_in_transaction": "Django's autocommit reads have no transaction; use atomic()",
}  # fmt: skip
"""Options that mean nothing with Django, and what to use in their place."""


def read(database: Mapping[str, object], alias: str) -> Settings:
    """What `database`, the value of ``DATABASES`` under the key `alias`, says of servers and
    routing.

    Raises:
        ConfigError: a key is unknown, malformed, or means nothing with Django.
    """
    where = f"DATABASES[{alias!r}]"
    for key in database:
        # Django leaves keys to others that it does not know; ours would be missed in silence.
        close = difflib.get_close_matches(key.upper(), ("REPLICAS", "ROUTER"), n=1, cutoff=0.8)
        if close and key not in close:
            raise ConfigError(f"{where}[{key!r}]: no such key (did you mean {close[0]!r}?)")
    values: dict[str, object] = {}
    sources: dict[str, str] = {}
    for key, name in ADDRESS.items():
        if database.get(key):
            values[name], sources[name] = database[key], f"{where}[{key!r}]"
    options = database.get("OPTIONS", {})
    if not isinstance(options, Mapping):
        raise ConfigError(f"{where}['OPTIONS']: expected a mapping: give one, or leave it out")
    if options.get("service"):
        values["params"] = {"service": options["service"]}
    given = _router(database.get("ROUTER") or {}, where)
    values |= given
    sources |= {key: f"{where}['ROUTER'][{key!r}]" for key in given}
    bounced = _bounced(given.get("pgbouncer"))
    replicas = database.get("REPLICAS") or ()
    if isinstance(replicas, str | Mapping) or not isinstance(replicas, Iterable):
        raise ConfigError(f"{where}['REPLICAS']: expected a list of mappings with HOST each")
    at = f"{where}['REPLICAS']"
    values["replicas"] = [
        _replica(each, f"{at}[{i}]", database, bounced) for i, each in enumerate(replicas)
    ]
    sources["replicas"] = at
    return Settings(values, sources)


def _router(given: object, where: str) -> Mapping[str, object]:
    """The options in ``ROUTER``. ConfigError if one of them names a server or means nothing."""
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where}['ROUTER']: expected a mapping of options")
    for key in given:
        at = f"{where}['ROUTER'][{key!r}]"
        if key in REFUSED:
            raise ConfigError(f"{at}: {REFUSED[key]}: leave it out")
        if key in (*ADDRESS.values(), "url", "replicas", "params", "driver"):
            raise ConfigError(f"{at}: servers stand beside ROUTER, as HOST and REPLICAS")
    if "prepared_statements" in given and not _bounced(given.get("pgbouncer")):
        raise ConfigError(
            f"{where}['ROUTER']['prepared_statements']: Django keeps none; "
            "OPTIONS['prepare_threshold'] turns them on: leave it out"
        )
    return given


def _bounced(said: object) -> bool:
    return said is not None and pooling(said, "pgbouncer") != "off"


def _replica(given: object, where: str, database: Mapping[str, object], bounced: bool) -> object:
    """One of ``REPLICAS``; `bounced`: a PgBouncer stands before it, unless it says otherwise."""
    if isinstance(given, str):
        return given
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where}: expected a mapping with HOST, or a text 'host:port'")
    if given.get("pgbouncer") is not None:
        bounced = _bounced(given["pgbouncer"])
    server: dict[str, object] = {}
    for key, value in given.items():
        if key == "NAME" and not bounced:
            raise ConfigError(
                f"{where}['NAME']: a replica has the primary's databases: leave it out; 'name', "
                "in small letters, is what to call the node; behind a PgBouncer that knows it by "
                "another name, say pgbouncer in ROUTER or here"
            )
        if key == "OPTIONS":
            server["params"] = _params(value, f"{where}['OPTIONS']")
        elif key in ADDRESS:
            if value not in (None, ""):
                if key == "HOST":
                    _check_host(str(value), f"{where}['HOST']")
                server[ADDRESS[key]] = value
        elif key in OWN:
            server[key] = value
        else:
            known = ("HOST", "PORT", "USER", "PASSWORD", "OPTIONS", *OWN)
            raise ConfigError(f"{where}: unknown key {key!r}{did_you_mean(str(key), known)}")
    if "dbname" in server and "host" not in server:
        server["host"] = database.get("HOST")  # one PgBouncer, several names
    return server


def _params(value: object, where: str) -> dict[str, str]:
    if not isinstance(value, Mapping) or {"pool", "isolation_level"} & value.keys():
        raise ConfigError(
            f"{where}: expected connection parameters of libpq; the pool and the isolation level "
            "are the database's own"
        )
    return {name: str(each) for name, each in value.items()}


def _check_host(host: str, where: str) -> None:
    host_port(host, where)
    if "/" in host and not host.startswith("/"):
        raise ConfigError(
            f"{where}: expected a host or a directory of sockets; the text may be a URL: put its "
            "parts into HOST, PORT, USER and PASSWORD"
        )
