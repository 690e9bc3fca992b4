"""The fields of Horsies' ``PostgresConfig``, by name and with its defaults."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from router.config.sources.settings import Settings
from router.errors import ConfigError
from router.messages import did_you_mean

Part = Literal["broker", "worker", "child"]

FIELDS: Mapping[str, object] = MappingProxyType(
    {
        "database_url": None,
        "session_database_url": None,
        "pgbouncer_transaction_mode": False,
        "pool_size": 5,
        "max_overflow": 10,
        "worker_pool_size": 3,
        "worker_max_overflow": 2,
        "worker_child_pool_min_size": 0,
        "worker_child_pool_max_size": 2,
        "worker_child_pool_check": True,
        "pool_timeout": 30,
        "pool_pre_ping": True,
        "tcp_keepalives": True,
        "tcp_keepalives_idle": 30,
        "tcp_keepalives_interval": 10,
        "tcp_keepalives_count": 3,
        "echo": False,
        "pool_recycle": 1800,
    }
)
"""Every field and its default; ``database_url`` is required."""


def read(fields: Mapping[str, object], part: Part) -> Settings:
    """What `fields`, by name, mean for the pools of one part of Horsies.

    Args:
        fields: by name; one that is left out has Horsies' default.
        part: "broker" is the engine of producers and web processes, "worker" a worker's
            coordinator, "child" one of its child processes.

    Raises:
        ConfigError: a field is unknown or missing, or means something that is not there.
    """
    for key in fields.keys() - FIELDS.keys():
        raise ConfigError(f"unknown field {key!r}{did_you_mean(str(key), FIELDS)}")
    if part not in ("broker", "worker", "child"):
        raise ConfigError(f"part: {part!r} is none of broker, worker, child")
    every = {**FIELDS, **fields}
    _require(every, part)
    taken = {name: name for name in ("pool_timeout", "pool_pre_ping", "echo", "pool_recycle")}
    taken["url"] = "database_url"
    if every["session_database_url"]:
        taken["session_url"] = "session_database_url"
    if every["pgbouncer_transaction_mode"]:
        taken["pgbouncer"] = "pgbouncer_transaction_mode"
    taken |= _sizes(every, part)
    values: dict[str, object] = {name: every[key] for name, key in taken.items()}
    sources = {
        name: key if key in fields else f"Horsies' default for {key}"
        for name, key in taken.items()
    }
    if part == "child":
        values["max_overflow"], sources["max_overflow"] = 0, "Horsies has no overflow there"
    values["params"], sources["params"] = _keepalives(every), "tcp_keepalives"
    return Settings(values, sources)


def _require(every: Mapping[str, object], part: Part) -> None:
    """Let pass what Horsies itself would start with, and the router too."""
    if not every["database_url"]:
        raise ConfigError("database_url: required: give the primary's URL")
    pgbouncer, session = every["pgbouncer_transaction_mode"], every["session_database_url"]
    if pgbouncer and not session and part != "broker":
        raise ConfigError(
            "session_database_url: a worker needs it where pgbouncer_transaction_mode is true, "
            "for LISTEN and the schema: give a URL that does not lead through PgBouncer"
        )
    if part == "child" and str(every["worker_child_pool_min_size"]) != "0":
        raise ConfigError(
            "worker_child_pool_min_size: connections are opened when needed and not before: "
            "leave it out or give 0"
        )


def _sizes(every: Mapping[str, object], part: Part) -> dict[str, str]:
    """Options of the pools, and the field that says each."""
    sizes = ("pool_size", "max_overflow")
    if part == "broker":
        return {name: name for name in sizes}
    if part == "worker":
        return {
            name: name if every[f"worker_{name}"] is None else f"worker_{name}" for name in sizes
        }
    return {"pool_size": "worker_child_pool_max_size", "pool_pre_ping": "worker_child_pool_check"}


def _keepalives(every: Mapping[str, object]) -> dict[str, str]:
    """Libpq's parameters where they differ from Horsies' defaults, which are the router's too."""
    on = every["tcp_keepalives"]
    if not isinstance(on, bool):
        raise ConfigError(f"tcp_keepalives: {on!r} is neither True nor False")
    if not on:
        return {"keepalives": "0"}
    names = ("idle", "interval", "count")
    return {
        f"keepalives_{name}": str(every[key])
        for name in names
        if every[key := f"tcp_keepalives_{name}"] != FIELDS[key]
    }
