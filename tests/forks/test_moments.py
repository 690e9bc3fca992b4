"""Forks under load."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Database

ROOT = Path(__file__).parents[2]
CHILDREN = int(os.environ.get("FORK_CHILDREN", "400"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_forks_at_random_moments(database: Database) -> None:
    """While threads read, write, run DDL, blacklist, log and carry pins, no child of hundreds
    hangs or finds anything half done, and those that run statements of their own do so in time.

    FORK_CHILDREN=1000 forks more often; FORK_SEED=… draws the moments, and what the threads do,
    as the run did that told its seed.
    """
    database.execute("CREATE TABLE item (id serial PRIMARY KEY, name text NOT NULL)")
    database.cluster.wait_caught_up()
    seed = os.environ.get("FORK_SEED") or str(random.SystemRandom().randrange(10**6))
    print(f"FORK_SEED={seed}")
    arguments = [seed, str(CHILDREN), database.primary_url(), *database.replica_urls()]
    done = subprocess.run(
        [sys.executable, "-m", "tests.forks.moments", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=570,
    )
    print(done.stderr)
    assert done.returncode == 0
    assert done.stdout == f"{CHILDREN}\n"
