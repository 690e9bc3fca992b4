"""``manage.py migrate``: Django's, over ``session_url`` where a PgBouncer shares its sessions."""

from typing import Any

from django.core.management.commands import migrate
from django.db import connections

from router.django.base import DatabaseWrapper


class Command(migrate.Command):
    """Django's own, in a server session of its own where ``session_url`` gives one."""

    def handle(self, *args: Any, **options: Any) -> None:
        connection = connections[options["database"]]
        held = isinstance(connection, DatabaseWrapper) and connection.hold_session()
        try:
            super().handle(*args, **options)
        finally:
            if held and not connection.in_atomic_block:
                connection.close()
