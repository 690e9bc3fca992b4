"""One environment's block of a Rails ``database.yml`` that uses Makara, parsed.

Source: https://github.com/instacart/makara#databaseyml
"""

from collections.abc import Mapping
from typing import Any

from router.errors import ConfigError
from router.server import did_you_mean
from router.sources.settings import Settings

_SERVER = {
    "url": "url",
    "host": "host",
    "port": "port",
    "username": "user",
    "password": "password",
    "database": "dbname",
}
_CONNECTION = {**_SERVER, "name": "name", "weight": "weight",
               "blacklist_duration": "blacklist_duration"}  # fmt: skip
_RAILS = {
    "pool": "pool_size",
    "checkout_timeout": "pool_timeout",
    "connect_timeout": "connect_timeout",
    "prepared_statements": "prepared_statements",
}
_MAKARA = {
    "id": "name",
    "blacklist_duration": "blacklist_duration",
    "master_ttl": "pin_duration",
    "primary_ttl": "pin_duration",
}
_STRATEGIES = ("slave_strategy", "replica_strategy")
_IDLE = ("adapter", "encoding", "timeout", "rescue_connection_failures")
"""What says nothing the router could do otherwise: checked by `_unneeded`, then left out."""
_PARAMS = ("sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl", "application_name")
_ROLES = {"master": True, "primary": True, "slave": False, "replica": False}


def read(block: Mapping[str, object]) -> Settings:
    """What the block says of servers, pins, blacklist and pools.

    Args:
        block: one environment's, such as ``loaded["production"]``.

    Raises:
        ConfigError: a key is unknown, or the connections have no single primary.
    """
    makara = block.get("makara")
    if not isinstance(makara, Mapping):
        raise ConfigError(
            "makara: the block has no such section: give one environment's, such as "
            'yaml.safe_load(text)["production"]'
        )
    known = (*_SERVER, *_RAILS, *_IDLE, *_PARAMS, "makara")
    _refuse(block, known, "")
    _refuse(makara, (*_MAKARA, *_STRATEGIES, *_IDLE[3:], "sticky", "disable_blacklist",
                     "connections"), "makara.")  # fmt: skip
    _unneeded(block)
    values: dict[str, object] = {}
    sources: dict[str, str] = {}

    def take(name: str, value: object, source: str) -> None:
        if value is not None:
            values[name], sources[name] = value, source

    for key, name in (*_SERVER.items(), *_RAILS.items()):
        take(name, block.get(key), key)
    if "pool_size" in values:
        take("max_overflow", 0, "pool")
    if params := {key: str(block[key]) for key in _PARAMS if block.get(key) is not None}:
        take("params", params, ", ".join(params))
    for key, name in _MAKARA.items():
        take(name, makara.get(key), f"makara.{key}")
    if makara.get("sticky") is False:
        take("consistency", "off", "makara.sticky")
    if makara.get("disable_blacklist"):
        take("blacklist_duration", 0, "makara.disable_blacklist")
    connections = makara.get("connections")
    primary, replicas = _connections(connections)
    common = Settings(values, sources)
    its = {key: primary.pop(key) for key in tuple(primary) if key not in _SERVER.values()}
    own = Settings.of({**primary, "primary": its}, lambda _: "makara.connections, the primary's")
    if "url" in primary:
        common = _without(common, tuple(_SERVER.values()))
    for key in _STRATEGIES:
        strategy = makara.get(key)
        if strategy == "failover":
            replicas = [{**each, "priority": i} for i, each in enumerate(replicas)]
        elif strategy == "round_robin":
            common = common.beside(Settings({"balance": strategy}, {"balance": f"makara.{key}"}))
        elif strategy is not None:
            raise ConfigError(f"makara.{key}: {strategy!r} is none of round_robin, failover")
    found = own.over(common) if "url" in primary else own.beside(common)
    return found.beside(Settings({"replicas": replicas}, {"replicas": "makara.connections"}))


def _without(settings: Settings, names: tuple[str, ...]) -> Settings:
    kept = [name for name in settings.values if name not in names]
    return Settings(
        {name: settings.values[name] for name in kept},
        {name: settings.sources[name] for name in kept},
    )


def _connections(given: object) -> tuple[dict[str, object], list[dict[str, object]]]:
    if not isinstance(given, list) or not all(isinstance(each, Mapping) for each in given):
        raise ConfigError("makara.connections: expected a list of mappings with a role each")
    primaries: list[dict[str, object]] = []
    replicas: list[dict[str, object]] = []
    each: Mapping[str, Any]
    for i, each in enumerate(given):
        where = f"makara.connections[{i}]."
        _refuse(each, (*_CONNECTION, "role"), where)
        # Makara takes whoever has no role for a replica.
        role = each.get("role", "slave")
        if role not in _ROLES:
            raise ConfigError(f"{where}role: {role!r} is none of {', '.join(_ROLES)}")
        server = {_CONNECTION[key]: value for key, value in each.items() if key != "role"}
        (primaries if _ROLES[role] else replicas).append(server)
    if len(primaries) != 1:
        raise ConfigError(
            f"makara.connections: {len(primaries)} of them have the role master or primary: give "
            "it to one; which server is the primary is found out anyway"
        )
    return primaries[0], replicas


def _unneeded(block: Mapping[str, object]) -> None:
    adapter = str(block.get("adapter", "postgresql_makara"))
    if adapter not in ("postgresql_makara", "postgis_makara"):
        raise ConfigError(f"adapter: {adapter!r} is not Makara's for PostgreSQL")
    encoding = str(block.get("encoding", "utf8")).lower()
    if encoding not in ("unicode", "utf8", "utf-8"):
        raise ConfigError(f"encoding: {encoding!r}: drivers use UTF-8: leave it out")


def _refuse(given: Mapping[str, object], known: tuple[str, ...], where: str) -> None:
    for key in given.keys() - set(known):
        raise ConfigError(f"{where}{key}: unknown key {key!r}{did_you_mean(str(key), known)}")
