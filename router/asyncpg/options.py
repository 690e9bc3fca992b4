"""The options that an application gives its pool: asyncpg's, checked beside ours."""

import inspect
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import asyncpg

from router.config.config import Config
from router.config.options import OPTIONS
from router.config.server import Server
from router.connect.parameters import budgeted, prepared_refused
from router.errors import ConfigError
from router.messages import did_you_mean
from router.rules.pgbouncer import check_startup

ADDRESS = {"host": "host", "port": "port", "user": "user", "password": "password",
           "database": "dbname"}  # fmt: skip
"""What asyncpg calls a part of the address, and what we call it."""

_SQLALCHEMYS: dict[str, str] = {
    "pool_size": "min_size and max_size",
    "max_overflow": "max_size",
    "pool_timeout": "timeout= of acquire()",
    "pool_recycle": "max_inactive_connection_lifetime",
    "pool_pre_ping": "nothing: what is lost is noticed",
    "echo": "the logger asyncpg",
    "reads_in_transaction": "transaction(readonly=True)",
}
"""Options of SQLAlchemy's engines, and those that do the same here."""

_OURS = frozenset({"loop", "connection_class", "target_session_attrs", "service", "servicefile",
                   "passfile"})  # fmt: skip
"""Options that would take a node's connections from the router."""

CONNECTING = frozenset(inspect.signature(asyncpg.connect).parameters) - {"dsn"}
"""Options that are for each connection, and not for a pool."""

_KNOWN = CONNECTING | {*inspect.signature(asyncpg.create_pool).parameters} - {
    "dsn",
    "connect_kwargs",
}


def checked(config: Config, options: Mapping[str, Any]) -> dict[str, Any]:
    """The `options` of each node's pool, with the sizes that `config` allows. Raises
    ConfigError: an option is unknown, means nothing here, or contradicts another."""
    for key, instead in _SQLALCHEMYS.items():
        if getattr(config, key) not in (None, False):
            raise ConfigError(f"{key}: asyncpg's pools have {instead}: use that")
    for key in options:
        if key in _OURS:
            raise ConfigError(
                f"{key}: the router says for each node where to connect: leave it out"
            )
        if key not in _KNOWN:
            near = did_you_mean(key, (*OPTIONS, *_KNOWN))
            raise ConfigError(f"unknown option {key!r}{near}")
    if options.get("connect") is not None and not callable(options["connect"]):
        raise ConfigError(f"connect: expected a function, not {options['connect']!r}")
    found = {"min_size": 10, "max_size": 10, **options}
    size = budgeted(config, options.get("max_size"))
    if config.max_connections is not None and size is not None:
        found["max_size"] = size
        found["min_size"] = min(found["min_size"], size)
    if not 0 <= found["min_size"] <= found["max_size"] or not found["max_size"]:
        raise ConfigError("min_size: expected 0 <= min_size <= max_size, and max_size above 0")
    return found


def arguments(config: Config, server: Server, options: Mapping[str, Any]) -> dict[str, Any]:
    """What `asyncpg.connect` needs to reach `server`.

    Args:
        config: how to route, and whether a PgBouncer stands before the server.
        server: where to connect.
        options: checked ones; only those for connections count.

    Raises:
        ConfigError: PgBouncer would refuse one of the parameters, or prepared statements.
    """
    found: dict[str, Any] = {"timeout": config.connect_timeout}
    found.update({key: value for key, value in options.items() if key in CONNECTING})
    if config.unprepared(server):
        if found.get("statement_cache_size"):
            raise prepared_refused("statement_cache_size")
        found["statement_cache_size"] = 0
    settings = dict(found.get("server_settings") or {})
    if config.pooling(server) != "off":
        where = f"{server.host}:{server.port}/{server.dbname}"
        check_startup({"server_settings": settings}, where)
    if path := config.begins_in(server):
        settings["search_path"] = path
    found["server_settings"] = settings
    # One that is made for each connection is every node's, but for one that has its own.
    keep = callable(found.get("password")) and server.password == config.primary.password
    for ours, theirs in (("user", "user"), ("password", "password"), ("dbname", "database")):
        if (given := getattr(server, ours)) and not (theirs == "password" and keep):
            found[theirs] = given
    query = f"?{urlencode(server.params)}" if server.params else ""
    return {"dsn": f"postgresql:///{query}", "host": server.host, "port": server.port, **found}
