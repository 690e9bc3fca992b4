"""``manage.py check``: what is wrong, or will surprise, in the settings."""

from collections.abc import Iterable, Iterator
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Error, Info
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from router.config.config import Config
from router.django import bouncer, middleware
from router.django.base import DatabaseWrapper
from router.errors import ConfigError
from router.pins.http import Pinning
from router.pins.options import safe_methods

PATH = "router.django.middleware.PinMiddleware"


def check_settings(**_: Any) -> list[CheckMessage]:
    """Every message for the settings as they are; nothing is connected to."""
    routed = [c for c in connections.all() if isinstance(c, DatabaseWrapper)]
    found: list[CheckMessage] = []
    for connection in routed:
        found += _database(connection)
    if routed:
        found += _routers({c.alias for c in routed})
        found += _pins()
    for connection in connections.all():
        engine = connection.settings_dict["ENGINE"]
        for key in ("REPLICAS", "ROUTER"):
            if connection not in routed and connection.settings_dict.get(key):
                found.append(
                    checks.Warning(
                        f"DATABASES[{connection.alias!r}][{key!r}] means nothing to {engine}.",
                        hint='Say ENGINE: "router.django", or leave it out.',
                        id="pg_router.W002",
                    )
                )
    return found


def _database(connection: DatabaseWrapper) -> Iterator[CheckMessage]:
    where, database = f"DATABASES[{connection.alias!r}]", connection.settings_dict
    try:
        config = Config.from_django(database, connection.alias)
        bouncer.check(config, database, connection.alias)
    except ConfigError as error:
        yield Error(str(error), id="pg_router.E001")
        return
    if database["OPTIONS"].get("pool") and database["CONN_MAX_AGE"] != 0:
        yield Error(
            f"{where}: OPTIONS['pool'] and CONN_MAX_AGE exclude each other.",
            hint="Leave CONN_MAX_AGE at 0.",
            id="pg_router.E002",
        )
    try:
        _ = connection.configured_isolation
    except ImproperlyConfigured as error:
        yield Error(f"{where}['OPTIONS']['isolation_level']: {error}", id="pg_router.E003")
    if not config.replicas and config.discovery is None:
        yield checks.Warning(
            f"{where}: there is no replica, so everything goes to the primary.",
            hint="Give REPLICAS, or discovery in ROUTER.",
            id="pg_router.W001",
        )
    if database["ATOMIC_REQUESTS"]:
        yield Info(
            f"{where}['ATOMIC_REQUESTS']: each view is a transaction, so its reads go to the "
            "primary.",
            hint="Decorate views that only read with router.django.read_only().",
            id="pg_router.I001",
        )


def _routers(aliases: set[str]) -> Iterator[CheckMessage]:
    hosts: dict[tuple[object, ...], str] = {}
    for connection in connections.all():
        database = connection.settings_dict
        if connection.alias in aliases:
            replicas = database.get("REPLICAS") or ()
            for replica in replicas if isinstance(replicas, Iterable) else ():
                if isinstance(replica, dict):
                    port = replica.get("PORT") or database["PORT"] or 5432
                    hosts[replica.get("HOST"), str(port)] = connection.alias
    for connection in connections.all():
        database = connection.settings_dict
        owner = hosts.get((database["HOST"], str(database["PORT"] or 5432)))
        if connection.alias not in aliases and owner and settings.DATABASE_ROUTERS:
            yield checks.Warning(
                f"DATABASES[{connection.alias!r}] is a replica of {owner!r} as well, and "
                "DATABASE_ROUTERS may send reads there past every pin.",
                hint="Drop the alias and its database router: one alias is enough.",
                id="pg_router.W003",
            )


def _pins() -> Iterator[CheckMessage]:
    if PATH not in settings.MIDDLEWARE:
        yield checks.Warning(
            "Without PinMiddleware every write pins the reads of the whole process.",
            hint=f"Put {PATH!r} first in MIDDLEWARE.",
            id="pg_router.W004",
        )
        return
    if settings.MIDDLEWARE[0] != PATH:
        yield checks.Warning(
            "PinMiddleware is not the first of MIDDLEWARE: what those before it write and read "
            "is not the request's.",
            hint=f"Put {PATH!r} first.",
            id="pg_router.W005",
        )
    try:
        Pinning(**middleware.options())
        safe_methods(getattr(settings, "ROUTER_SAFE_METHODS", ()) or ())
    except ConfigError as error:
        yield Error(str(error), id="pg_router.E004")
