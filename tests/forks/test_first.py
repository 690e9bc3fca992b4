"""A child forked soon after the first statement, at every door."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Database
from tests.forks.kit import DOORS

ROOT = Path(__file__).parents[2]
WAYS = ("after", "beside", "twice", "holding")
SAME = {"psycopg2", "pg8000", "psycopg_async"}
"""Doors that differ from another one by nothing a fork could find."""
EVERY = [pytest.param(d, marks=pytest.mark.slow) if d in SAME else d for d in DOORS]


def forked(door: str, ways: tuple[str, ...], database: Database) -> list[str]:
    """What became of the children, one line for each way to fork."""
    arguments = [door, ",".join(ways), database.primary_url(), *database.replica_urls()]
    done = subprocess.run(
        [sys.executable, "-m", "tests.forks.first", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("door", EVERY)
def test_a_child_forked_after_the_first_statement(door: str, database: Database) -> None:
    """It writes and reads at once: forked right after the first statement, in another thread,
    from a child, or while another thread holds every lock there is; and the parent goes on."""
    assert forked(door, WAYS, database) == [f"{way}: fine" for way in WAYS]


@pytest.mark.parametrize("door", ["psycopg", "asyncpg_async", "django"])
def test_a_child_forked_during_the_first_statement(door: str, database: Database) -> None:
    """It writes and reads at once, though it was forked while another thread waited for the first
    probes; and the parent goes on."""
    assert forked(door, ("starting",), database) == ["starting: fine"]
