"""``manage.py router status``, ``doctor`` and ``explain SQL``."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DEFAULT_DB_ALIAS, connections

from router.django.base import DatabaseWrapper
from router.doctor.diagnosis import doctor
from router.errors import RouterError
from router.explain import explain
from router.messages import did_you_mean, masked
from router.status.report import status


class Command(BaseCommand):
    """Say where reads and writes go."""

    help = "Where reads and writes of this project go."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        commands = parser.add_subparsers(dest="command", required=True)
        commands.add_parser(
            "status", help="Ask every node how it is. Exit status 1 where there is no primary."
        )
        strict = commands.add_parser(
            "doctor",
            help="Find what is wrong with servers and settings. Exit status 1 for an error.",
        )
        strict.add_argument("--strict", action="store_true", help="Let a warning count as one.")
        explained = commands.add_parser(
            "explain", help="Say what SQL does and where it would go now. Nothing is sent."
        )
        explained.add_argument("sql")
        explained.add_argument("--database", default=DEFAULT_DB_ALIAS)

    def handle(self, *_: Any, command: str, **given: Any) -> None:
        routed = {c.alias: c for c in connections.all() if isinstance(c, DatabaseWrapper)}
        if not routed:
            raise CommandError('no database is routed: say ENGINE: "router.django"')
        if command == "status":
            self._status(routed)
        elif command == "doctor":
            self._doctor(routed, strict=given["strict"])
        else:
            self._explain(routed, given["sql"], given["database"])

    def _status(self, routed: dict[str, DatabaseWrapper]) -> None:
        writable = True
        for alias, connection in routed.items():
            connection.router.refresh()
            found = status(connection.router)
            writable = writable and found.writable
            self.stdout.write(f"{alias}: {found}")
        if not writable:
            raise SystemExit(1)

    def _doctor(self, routed: dict[str, DatabaseWrapper], *, strict: bool) -> None:
        failed = False
        for alias, connection in routed.items():
            found = doctor(connection.router)
            failed = found.failed(strict=strict) or failed
            self.stdout.write(f"{alias}: {found}")
        if failed:
            raise SystemExit(1)

    def _explain(self, routed: dict[str, DatabaseWrapper], sql: str, alias: str) -> None:
        if alias not in routed:
            near = did_you_mean(alias, routed)
            raise CommandError(f"no routed database is called {alias!r}{near}")
        try:
            explanation = explain(sql, routed[alias].router)
        except RouterError as error:
            raise CommandError(masked(str(error))) from None
        self.stdout.write(str(explanation))
        if explanation.problem:
            raise SystemExit(1)
