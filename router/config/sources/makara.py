"""One environment's block of a Rails ``database.yml`` that uses Makara, parsed.

Source: https://github.com/instacart/makara, lib/makara/config_parser.rb for defaults and merging
"""

from collections.abc import Mapping
from typing import Any

from router.config.sources.settings import Settings
from router.config.urls import url_parts, url_text
from router.errors import ConfigError
from router.messages import did_you_mean

_SERVER = {
    "url": "url", "host": "host", "port": "port", "username": "user", "password": "password",
    "database": "dbname",
}  # fmt: skip
_CONNECTION = {**_SERVER, "name": "name", "weight": "weight",
               "blacklist_duration": "blacklist_duration"}  # fmt: skip
_OWN = ("name", "weight", "blacklist_duration")
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
_IDLE = ("adapter", "encoding", "timeout")
_IDLE_THERE = ("rescue_connection_failures", "master_strategy", "primary_strategy")
"""Keys that say nothing to a router with a single primary, and are left out."""
_PARAMS = ("sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl", "application_name")
_ROLES = {"master": True, "primary": True, "slave": False, "replica": False}


def read(block: Mapping[str, object]) -> Settings:
    """What `block`, one environment's, such as ``loaded["production"]``, says of servers, pins,
    blacklist and pools.

    Raises:
        ConfigError: a key is unknown, or the connections have no single primary.
    """
    makara = block.get("makara")
    if not isinstance(makara, Mapping):
        raise ConfigError(
            "makara: the block has no such section: give one environment's, such as "
            'yaml.safe_load(text)["production"]'
        )
    if "connection_error_matchers" in makara:
        raise ConfigError(
            "makara.connection_error_matchers: errors are told apart by SQLSTATE, not by their "
            "text: leave it out, and give blacklist_sqlstates"
        )
    known = (*_SERVER, *_RAILS, *_IDLE, *_PARAMS, "makara")
    _refuse(block, known, "")
    _refuse(makara, (*_MAKARA, *_STRATEGIES, *_IDLE_THERE, "sticky", "disable_blacklist",
                     "connections"), "makara.")  # fmt: skip
    _unneeded(block)
    values: dict[str, object] = {}
    sources: dict[str, str] = {}

    def take(name: str, value: object, source: str) -> None:
        if value is not None:
            values[name], sources[name] = value, source

    for key, name in _RAILS.items():
        take(name, block.get(key), key)
    if "pool_size" in values:
        take("max_overflow", 0, "pool")
    for key, name in _MAKARA.items():
        take(name, makara.get(key), f"makara.{key}")
    if makara.get("sticky") is False:
        take("consistency", "off", "makara.sticky")
    if makara.get("disable_blacklist"):
        take("blacklist_duration", 0, "makara.disable_blacklist")
    primary, replicas = _connections(makara.get("connections"))
    for key in _STRATEGIES:
        strategy = _strategy(makara, key)
        if strategy == "failover":
            replicas = [{**each, "priority": i} for i, each in enumerate(replicas)]
        else:
            take("balance", strategy, f"makara.{key}")
    common = {name: block[key] for key, name in _SERVER.items() if block.get(key) is not None}
    common["params"] = {key: block[key] for key in _PARAMS if block.get(key) is not None}
    for given, source in ((common, "the block"), (primary, "makara.connections, the primary's")):
        for name, value in _server(given, values.get("params", {})).items():
            take(name, value, source)
    take("replicas", replicas, "makara.connections")
    return Settings(values, sources)


def _strategy(makara: Mapping[str, object], key: str) -> object:
    strategy = makara.get(key)
    if strategy not in ("round_robin", "failover", None):
        raise ConfigError(f"makara.{key}: {strategy!r} is none of round_robin, failover")
    return strategy


def _server(given: Mapping[str, Any], params: Any) -> dict[str, object]:
    """An address by the names of `Server`; what a URL says wins, as in Makara."""
    own = {name: value for name, value in given.items() if name not in _OWN}
    url = url_parts(url_text(own.pop("url"), "url"), "url") if "url" in own else {}
    merged = {**params, **own.pop("params", {}), **url.pop("params", {})}
    its = {name: given[name] for name in _OWN if name in given}
    return {**own, **url, "params": merged, **({"primary": its} if its else {})}


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
