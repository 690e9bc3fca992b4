"""What Django reads in order to write, while the replicas stand still."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from router import request_context
from tests.conftest import Database
from tests.django.conftest import Connect, Routed, settings_of
from tests.django.test_commands import ROOT, call
from tests.django.test_requests import close


@pytest.fixture
def stale(connect: Connect) -> Iterator[Routed]:
    """Tables that the replicas have; the rows of another request, which they have not."""
    from tests.django.shop.models import Box, Label, Rack, Shelf

    routed = connect()
    with routed.connection.schema_editor() as editor:
        for model in (Shelf, Box, Rack, Label):
            editor.create_model(model)
    with request_context():
        assert Shelf.objects.create(name="old").pk == 1
    routed.settle()
    with routed.cluster.replay_paused():
        with request_context():
            Box.objects.create(shelf_id=1)
            Rack.objects.create(name="new", rank=1)
            Label.objects.create(text="tea")
        with request_context():
            assert not Box.objects.exists(), "a plain read is a replica's"
            yield routed


def test_delete_finds_what_refers(stale: Routed) -> None:
    """delete() of a queryset and of an instance takes along rows that no replica has."""
    from tests.django.shop.models import Box, Shelf

    assert Shelf.objects.filter(pk=1).delete() == (2, {"shop.Box": 1, "shop.Shelf": 1})
    with request_context():
        other = Shelf.objects.create(name="other")
        Box.objects.create(shelf=other)
    with request_context():
        assert other.delete() == (2, {"shop.Box": 1, "shop.Shelf": 1})
    assert stale.database.execute("SELECT count(*) FROM shop_box") == [(0,)]


def test_update_of_two_tables(stale: Routed) -> None:
    """An update of a parent's column, chosen by the child's, changes rows that no replica has."""
    from tests.django.shop.models import Rack

    assert Rack.objects.filter(rank=1).update(name="changed") == 1


def test_get_or_create(stale: Routed) -> None:
    """What no replica has yet is found and not created again, by the asynchronous twin too."""
    from tests.django.shop.models import Shelf

    async def again() -> Any:
        found = await Shelf.objects.aget_or_create(name="new")
        await close()
        return found

    with request_context():
        assert Shelf.objects.get_or_create(name="new")[1] is False
    with request_context():
        assert asyncio.run(again())[1] is False
    assert Shelf.objects.count() == 1, "what follows is a replica's again"


def test_save_that_reads_first(stale: Routed) -> None:
    """The next place of an order and select_on_save count rows that no replica has."""
    from tests.django.shop.models import Box, Label

    with request_context():
        assert Box.objects.create(shelf_id=1)._order == 1
    with request_context():
        Label(text="tea", size=5).save()
    assert stale.database.execute("SELECT size FROM shop_label") == [(5,)]


def test_djangos_commands_that_decide(stale: Routed) -> None:
    """A command of Django's that writes what is missing does not miss what no replica has."""
    call("createcachetable", "cached")
    with request_context():
        call("createcachetable", "cached")
    call("migrate", "contenttypes", verbosity=0)
    with request_context():
        assert "[ ]" not in call("showmigrations", "contenttypes")


MODELS = """
from django.db import models

class Account(models.Model):
    balance = models.IntegerField()
"""

MIGRATION = """
from django.db import migrations, models

def credit(apps, editor):
    accounts = apps.get_model("bank", "Account").objects.using(editor.connection.alias)
    accounts.update(balance=models.F("balance") + 100)

class Migration(migrations.Migration):
    operations = [
        migrations.CreateModel(
            "Account",
            [("id", models.BigAutoField(primary_key=True)), ("balance", models.IntegerField())],
        ),
    ] if {first} else [migrations.RunPython(credit)]
    dependencies = [] if {first} else [("bank", "0001_table")]
"""

PROJECT_SETTINGS = """
from tests.django.settings import *
INSTALLED_APPS = {apps!r}
DATABASES = {databases!r}
"""
PLAIN = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}


@pytest.mark.parametrize(
    ("apps", "alias"),
    [
        (["router.django", "bank"], "default"),
        (["bank"], "default"),
        (["router.django", "bank"], "other"),
        (["bank"], "other"),
    ],
)
def test_migrate_runs_a_migration_once(
    database: Database, tmp_path: Path, apps: list[str], alias: str
) -> None:
    """Two runs of manage.py migrate, one after the other, apply a migration of data once while
    replay stands still, whether or not the app is installed and the alias is the default."""
    versions = tmp_path / "bank" / "migrations"
    versions.mkdir(parents=True)
    for package in (versions, versions.parent):
        (package / "__init__.py").touch()
    (versions.parent / "models.py").write_text(MODELS)
    (versions / "0001_table.py").write_text(MIGRATION.format(first=True))
    databases = {"default": PLAIN, alias: settings_of(database)}
    text = PROJECT_SETTINGS.format(apps=apps, databases=databases)
    (tmp_path / "its_settings.py").write_text(text)
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "its_settings",
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}",
    }

    def migrate() -> None:
        command = [sys.executable, "-m", "django", "migrate", f"--database={alias}"]
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr

    migrate()
    database.execute("INSERT INTO bank_account (balance) VALUES (1)")
    (versions / "0002_credit.py").write_text(MIGRATION.format(first=False))
    database.cluster.wait_caught_up()
    with database.cluster.replay_paused():
        migrate()
        migrate()
    assert database.execute("SELECT balance FROM bank_account") == [(101,)]
