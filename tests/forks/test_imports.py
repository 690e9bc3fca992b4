"""What a background thread imports, a child forked meanwhile has half of, behind a lock."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Database
from tests.forks.test_first import EVERY
from tests.test_discovery import rest_api

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("door", [*EVERY, "listener"])
def test_nothing_is_imported_beside_the_application(door: str, database: Database) -> None:
    """From the first statement to the last, through failures of every kind, no module is imported
    in a thread that the application did not start."""
    primary, replica, *_ = (
        url.replace("127.0.0.1", "localhost")
        for url in (database.primary_url(), *database.replica_urls())
    )
    members = [
        {"name": server.name, "host": "localhost", "port": server.port}
        for server in database.cluster.servers[:2]
    ]
    with rest_api(lambda: (200, {"members": members})) as patroni:
        done = subprocess.run(
            [sys.executable, "-m", "tests.forks.beside", door, primary, replica, patroni],
            cwd=ROOT,
            env=os.environ | {"PYTHONWARNINGS": "default"},
            capture_output=True,
            text=True,
            timeout=90,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n") == ["", ""], done.stderr
