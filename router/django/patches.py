"""Patches Django: what Django reads in order to write goes to the primary.

Django asks a database router's ``db_for_write`` for it, but below one alias nothing says which
statement that was about: these methods are wrapped, once for the process. What they read from an
alias that is not routed goes where it went before.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.core.management.base import BaseCommand
from django.db.migrations.recorder import MigrationRecorder
from django.db.models import Model, QuerySet
from django.db.models.deletion import Collector

from router.rules.context import using_primary

COMMANDS = frozenset(
    f"django.{where}.management.commands.{name}"
    for where, names in {
        "core": "createcachetable flush loaddata makemigrations migrate showmigrations sqlflush "
        "sqlmigrate sqlsequencereset squashmigrations",
        "contrib.auth": "changepassword createsuperuser",
        "contrib.contenttypes": "remove_stale_contenttypes",
        "contrib.sessions": "clearsessions",
    }.items()
    for name in names.split()
)
"""Django's commands that decide by what they read, and those of others that derive from them."""


def _decides(command: BaseCommand) -> bool:
    return any(kind.__module__ in COMMANDS for kind in type(command).__mro__)


def _reads_first(model: Any) -> bool:
    meta = model._meta
    return bool(meta.select_on_save or meta.order_with_respect_to)


def _wrap(owner: type, name: str, when: Callable[..., bool] | None = None) -> None:
    method = getattr(owner, name)
    if hasattr(method, "_on_primary"):
        return  # a second copy of this module, after a reload

    @wraps(method)
    def on_primary(self: Any, *args: Any, **kwargs: Any) -> Any:
        if when is not None and not when(self):
            return method(self, *args, **kwargs)
        with using_primary():
            return method(self, *args, **kwargs)

    on_primary._on_primary = True  # type: ignore[attr-defined]
    setattr(owner, name, on_primary)


def install() -> None:
    """Wrap Django's methods, if that has not been done. Thread-safe as imports are."""
    _wrap(BaseCommand, "execute", _decides)
    # A project without our app may come to the backend only after execute() was called.
    _wrap(MigrationRecorder, "has_table")
    _wrap(MigrationRecorder, "applied_migrations")
    _wrap(QuerySet, "get_or_create")
    _wrap(Collector, "collect")
    _wrap(Model, "_save_table", _reads_first)
