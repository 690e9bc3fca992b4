"""What is sent when a connection is opened: libpq's parameters, and what its environment adds.

The Router has chosen the server already: whatever would have libpq choose one is left out.
"""

import os
from collections.abc import Mapping
from typing import Any

from router.config.config import Config
from router.config.server import CHOOSING, Server
from router.errors import ConfigError

NOT_FOR_PROBES = ("async_creator_fn", "autocommit", "context", "cursor_factory",
                  "prepare_threshold", "row_factory")  # fmt: skip
"""Arguments of a driver's ``connect`` that mean nothing to the monitor, which uses psycopg."""


def environments(found: dict[str, Any], *, timeout_given: bool = False) -> dict[str, Any]:
    """`found`, libpq's parameters, changed in place to where libpq's environment variables
    count; `timeout_given`: the user gave ``connect_timeout``, which wins over
    PGCONNECT_TIMEOUT."""
    if "PGCONNECT_TIMEOUT" in os.environ and not timeout_given:
        found.pop("connect_timeout", None)
    if {"PGTARGETSESSIONATTRS", "PGSERVICE"} & os.environ.keys():
        found["target_session_attrs"] = "any"  # libpq would apply it to each node's connections
    return found


def to_one_server(
    found: dict[str, Any], server: Server, config: Config, *, timeout_given: bool = False
) -> dict[str, Any]:
    """Psycopg's arguments for a connection to `server` and no other, in autocommit.

    Args:
        found: libpq's parameters and psycopg's, as the user wants them; changed in place.
        server: where the connection leads.
        config: says in which schemas the connection begins.
        timeout_given: as `environments` has it.
    """
    for key in ("service", *CHOOSING):
        found.pop(key, None)
    environments(found, timeout_given=timeout_given)
    if path := config.begins_in(server):
        found |= begin_in(found, path)
    return {**found, "host": server.host, "port": server.port, "autocommit": True}


def begin_in(parameters: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The parameter of libpq by which a server begins every session with `path` as
    ``search_path``; the ``options`` among the `parameters` are kept."""
    # Of two settings the later one counts. No schema name holds a blank, which would end the path.
    return {"options": f"{parameters.get('options') or ''} -csearch_path={path}".strip()}


def for_probes(found: dict[str, Any]) -> dict[str, Any]:
    """`found`, arguments of psycopg, as the monitor takes them; changed in place."""
    for key in NOT_FOR_PROBES:
        found.pop(key, None)
    return found


def prepared_refused(key: str, where: str = "") -> ConfigError:
    """The error of the option `key`, which asks for prepared statements behind a PgBouncer;
    `where` names the place of ``prepared_statements``, if that is not beside it."""
    return ConfigError(
        f"{key}: prepared statements fail behind PgBouncer: leave it out; or, for PgBouncer 1.21 "
        f"with max_prepared_statements, say prepared_statements=True{where}"
    )


def budgeted(config: Config, max_size: int | None) -> int | None:
    """The most connections of each node's pool: the share of `config`'s budget where there is
    one, else `max_size`, None for what the user does not say. Raises ConfigError: the user
    gives both."""
    if config.max_connections is None:
        return max_size
    if max_size is not None:
        raise ConfigError(
            "max_size: max_connections sizes the pools already: leave one of them out"
        )
    return int(config.pool_options()["pool_size"])
