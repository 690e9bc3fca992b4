"""Servers that come in no wheel: found, or skipped on a laptop, or failed in CI."""

import os
import shutil
from pathlib import Path

import pytest

from router.testing import versions

LIST = Path(__file__).parents[1] / "scripts" / "servers.txt"
# Debian puts daemons in sbin, which a user's PATH may lack.
SEARCH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"])

PGBOUNCER, SUITE = "pgbouncer", "PG_ROUTER_TEST_PGBOUNCER"
"""The environment variable names the Debian suite whose PgBouncer the tests take."""


def require(command: str, servers: Path = LIST) -> str:
    """The path of a server from scripts/servers.txt. Without it the test is skipped; in CI
    (CI=true) it fails, so that a green run means that everything ran."""
    packages = {
        words[0]: words[1]
        for line in servers.read_text().splitlines()
        if (words := line.split()) and not line.startswith("#")
    }
    if command == PGBOUNCER and (suite := os.environ.get(SUITE)):
        return _of_suite(suite)
    if command not in packages:
        pytest.fail(f"{command} is not listed in {servers}: add it, so that .ci/run installs it")
    found = shutil.which(command, path=SEARCH)
    if found:
        return found
    reason = f"{command} is not installed: type sudo apt-get install {packages[command]}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def _of_suite(suite: str) -> str:
    """The PgBouncer of another Debian `suite` than this system's."""
    name = f"pgbouncer-{suite}"
    found = versions.cache().parent / "debian" / name / "usr/sbin/pgbouncer"
    if not found.exists():
        pytest.fail(f"{found} is missing: type scripts/debian-programs {name}")
    return str(found)
