"""What a database's settings may say where its ``ROUTER`` names a PgBouncer."""

from collections.abc import Mapping
from typing import Any

from router.config.config import Config
from router.connect.parameters import prepared_refused
from router.errors import ConfigError
from router.rules.pgbouncer import SHARED, check_startup


def shared(config: Config) -> bool:
    """Whether a client of any node of `config` has no server session of its own."""
    return any(config.pooling(s) in SHARED for s in (config.primary, *config.replicas))


def check(config: Config, database: Mapping[str, Any], alias: str) -> None:
    """Refuse what would leak into other clients' sessions, or fail there.

    Args:
        config: what the settings say.
        database: one value of ``DATABASES``.
        alias: its key.

    Raises:
        ConfigError: names the key and the cure.
    """
    if not shared(config):
        return
    options = database.get("OPTIONS") or {}
    at = f"DATABASES[{alias!r}]['OPTIONS']"
    check_startup(options, at)
    for i, server in enumerate(config.replicas):
        if config.pooling(server) in SHARED:
            check_startup(server.params, f"DATABASES[{alias!r}]['REPLICAS'][{i}]['OPTIONS']")
    if options.get("prepare_threshold") is not None and not config.prepared_statements:
        raise prepared_refused(f"{at}['prepare_threshold']", " in ROUTER")
    if options.get("assume_role"):
        raise ConfigError(
            f"{at}['assume_role']: PgBouncer would hand SET ROLE on to other clients: connect as "
            "the role itself"
        )
