"""Checks, commands, settings, and Django's own commands."""

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from router.config.config import Config
from router.errors import ConfigError
from tests.conftest import Database
from tests.django.conftest import Connect, Routed, settings_of

ROOT = Path(__file__).parents[2]


def call(*arguments: str, **options: Any) -> str:
    from django.core.management import call_command

    out = io.StringIO()
    call_command(*arguments, stdout=out, **options)
    return out.getvalue()


def ids(messages: Any) -> set[str]:
    return {m.id for m in messages if (m.id or "").startswith("pg_router")}


def test_a_sound_project_has_no_messages(routed: Routed) -> None:
    """manage.py check finds nothing in a project as the docs have it."""
    from django.core.checks import run_checks

    assert ids(run_checks()) == set()


@pytest.mark.parametrize(
    ("changes", "settings_", "found"),
    [
        ({"ROUTER": {"pin_maxx": 1}}, {}, "E001"),
        ({"ROUTER": "pgbouncer"}, {}, "E001"),
        ({"ROUTER": ["pgbouncer"]}, {}, "E001"),
        ({"REPLICAS": 5}, {}, "E001"),
        ({"OPTIONS": None}, {}, "E001"),
        ({"REPLICAS": [{"HOSST": "x"}]}, {}, "E001"),
        ({"OPTIONS": {"pool": True}}, {}, "E002"),
        ({"OPTIONS": {"isolation_level": 77}}, {}, "E003"),
        ({"REPLICAS": []}, {}, "W001"),
        ({"ATOMIC_REQUESTS": True}, {}, "I001"),
        ({}, {"MIDDLEWARE": []}, "W004"),
        ({}, {"ROUTER_PINS": {"cokie": 1}}, "E004"),
    ],
)
def test_each_check(
    connect: Connect, settings: Any, changes: Any, settings_: Any, found: str
) -> None:
    """Each mistake has a message with an id of its own, and nothing is connected to for it."""
    from django.core.checks import run_checks

    connect()
    settings(**settings_)
    connect(start=False, **changes)
    assert ids(run_checks()) == {f"pg_router.{found}"}


def test_another_engine_with_replicas(connect: Connect, settings: Any) -> None:
    """REPLICAS beside an engine that does not know them, and aliases that are a replica of ours
    behind a database router, are told."""
    from django.core.checks import run_checks
    from django.db import connections

    routed = connect()
    replica = routed.cluster.replicas[0]
    plain = settings_of(routed.database, ENGINE="django.db.backends.postgresql")
    settings(DATABASE_ROUTERS=[object()])
    connections.settings = connections.configure_settings(
        {**connections.settings, "old": {**plain, "PORT": replica.port}}
    )
    try:
        assert ids(run_checks()) == {"pg_router.W002", "pg_router.W003"}
    finally:
        del connections.settings["old"]
        del connections["old"]


def test_status_and_explain(routed: Routed) -> None:
    """manage.py router tells how the nodes are, and where a statement would go."""
    from django.core.management import CommandError

    told = call("router", "status")
    assert "writable" in told
    assert told.count("replica") >= 2
    told = call("router", "doctor", strict=True)
    assert "primary, replica1, replica2: 2 findings" in told
    told = call("router", "explain", "SELECT * FROM shop_item")
    assert "goes to: replica" in told
    assert "goes to: primary" in call("router", "explain", "DELETE FROM shop_item")
    with pytest.raises(CommandError, match="default"):
        call("router", "explain", "SELECT 1", "--database", "defualt")


def test_inspectdb_and_migrate(routed: Routed) -> None:
    """Django's own commands work: inspectdb finds the table, migrate makes its own."""
    assert "class ShopItem" in call("inspectdb")
    call("migrate", verbosity=0)
    routed.settle()
    assert "django_migrations" in routed.connection.introspection.table_names()


def test_dbshell_opens_the_primary(routed: Routed) -> None:
    """Dbshell is given the primary's address, and nothing psql does not know."""
    from django.db.backends.postgresql.client import DatabaseClient

    arguments, _ = DatabaseClient.settings_to_cmd_args_env(routed.connection.settings_dict, [])
    assert arguments[-1] == routed.database.name
    assert str(routed.cluster.primary.port) in arguments


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ROUTER": {"consistancy": "lsn"}}, "did you mean 'consistency'"),
        ({"ROUTER": {"pool_size": 5}}, "CONN_MAX_AGE"),
        ({"ROUTER": {"host": "x"}}, "beside ROUTER"),
        ({"ROUTER": ["x"]}, "mapping"),
        ({"REPLICAS": [{"NAME": "x"}]}, "leave it out"),
        ({"REPLICAS": [{"HOSST": "x"}]}, "did you mean 'HOST'"),
        ({"REPLICAS": [{"HOST": "x", "OPTIONS": {"pool": True}}]}, "libpq"),
        ({"REPLICAS": {"HOST": "x"}}, "a list"),
        ({"REPLICAS": [7]}, "mapping"),
        ({"REPLICAS": [{"HOST": "postgresql://u:hunter2@h2/db"}]}, r"\['HOST'\]: expected 'host'"),
        ({"REPLICAS": [{"HOST": "hunter2/db"}]}, "may be a URL"),
        ({"PORT": "hunter2"}, "the text is no port"),
        ({"OPTIONS": None}, "expected a mapping"),
        ({"HOST": ""}, "HOST"),
    ],
)
def test_what_is_refused(changes: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that is wrong or means nothing is refused by its place and with a cure, and what may
    be a password is not told."""
    monkeypatch.delenv("PGHOST", raising=False)
    given = {"HOST": "db", "NAME": "shop", **changes}
    with pytest.raises(ConfigError, match=said) as caught:
        Config.from_django(given, "main")
    assert "DATABASES['main']" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_options_that_are_none_are_refused_where_they_are_used(connect: Connect) -> None:
    """A statement over OPTIONS that are no mapping fails with their name and the cure."""
    from django.core.exceptions import ImproperlyConfigured

    routed = connect(start=False, OPTIONS=None)
    with pytest.raises(ImproperlyConfigured, match=r"\['OPTIONS'\]: expected a mapping"):
        routed.served()


def test_replicas_take_what_they_leave_out_from_the_primary() -> None:
    """Port, user, password and parameters are the primary's unless a replica has its own."""
    config = Config.from_django(
        {
            "HOST": "db", "PORT": 6000, "USER": "app", "PASSWORD": "p", "NAME": "shop",
            "REPLICAS": [
                {"HOST": "r1", "weight": 2},
                {"HOST": "r2", "PORT": "6001", "USER": "ro", "PASSWORD": "q", "name": "near"},
                "r3:6002",
            ],
            "ROUTER": {"pin_max": 9},
        }
    )  # fmt: skip
    first, second, third = config.replicas
    assert (first.port, first.user, first.password, first.weight) == (6000, "app", "p", 2)
    assert (second.port, second.user, second.password, second.name) == (6001, "ro", "q", "near")
    assert (third.port, third.dbname) == (6002, "shop")
    assert config.pin_max == 9


PROJECT_TESTS = """
from django.db import connection, transaction
from django.test import TestCase, TransactionTestCase, TestCase
from tests.django.shop.models import Item

def port():
    with connection.cursor() as cursor:
        cursor.execute("SELECT inet_server_port()")
        return cursor.fetchone()[0]

class InOneTransaction(TestCase):
    @classmethod
    def setUpTestData(cls):
        cls.item = Item.objects.create(name="tea")

    def test_sees_its_data(self):
        with self.assertNumQueries(1):
            self.assertEqual(list(Item.objects.all()), [self.item])
        self.assertEqual(port(), PRIMARY)

class Again(InOneTransaction):
    pass

class Committed(TransactionTestCase):
    serialized_rollback = True

    def test_reads_its_writes(self):
        self.assertEqual(Item.objects.count(), 0)
        for n in range(1, 20):
            Item.objects.create(name="tea")
            self.assertEqual(Item.objects.count(), n)

    def test_requests_and_the_test_read_each_others_writes(self):
        for n in range(1, 60, 2):
            Item.objects.create(name="tea")
            self.assertEqual(self.client.get("/").json()["count"], n)
            self.client.post("/")
            self.assertEqual(Item.objects.count(), n + 1)

    def test_starts_empty(self):
        self.assertEqual(Item.objects.count(), 0)
"""

PROJECT_SETTINGS = """
from tests.django.settings import *
INSTALLED_APPS = [*INSTALLED_APPS, "project"]
DATABASES = {{"default": {database!r}}}
"""


@pytest.mark.parametrize(
    "options", [(), ("--keepdb",), ("--parallel=2", "--noinput")], ids=("once", "keepdb", "many")
)
def test_the_test_runner(database: Database, tmp_path: Path, options: tuple[str, ...]) -> None:
    """manage.py test makes its database on the primary, awaits it on the replicas, runs every
    kind of test on it, and leaves nothing behind that was not to be kept."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "__init__.py").touch()
    port = database.cluster.primary.port
    (project / "tests.py").write_text(PROJECT_TESTS.replace("PRIMARY", str(port)))
    values = settings_of(database)
    (tmp_path / "its_settings.py").write_text(PROJECT_SETTINGS.format(database=values))
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "its_settings",
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}",
    }
    for _ in range(2 if "--keepdb" in options else 1):
        done = subprocess.run(
            [sys.executable, "-m", "django", "test", "project", *options],
            env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    left = database.execute("SELECT datname FROM pg_database WHERE datname ~ '^test_test'")
    kept = [(f"test_{database.name}",)] if "--keepdb" in options else []
    assert left == kept
    if kept:
        database.execute(f"DROP DATABASE test_{database.name} WITH (FORCE)")
