"""Servers that come in no wheel: found, or skipped on a laptop, or failed in CI."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from router.testing import programs, versions
from router.testing.home import Home

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
        return unpacked(f"{PGBOUNCER}-{suite}", "usr/sbin/pgbouncer")
    if command not in packages:
        pytest.fail(f"{command} is not listed in {servers}: add it, so that .ci/run installs it")
    found = shutil.which(command, path=SEARCH)
    if not found:
        missing(f"{command} is not installed: type sudo apt-get install {packages[command]}")
    return found


def unpacked(name: str, path: str) -> str:
    """The program at `path` of what scripts/debian-programs unpacks as `name`; where it is
    missing, as `require` has it."""
    found = versions.cache().parent / "debian" / name / path
    if not found.exists():
        missing(f"{found} is missing: type scripts/debian-programs {name}")
    return str(found)


def missing(reason: str) -> NoReturn:
    """Say that a test cannot run here for `reason`: in CI by failing, elsewhere by skipping."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def home() -> Iterator[tuple[Path, programs.Account]]:
    """A directory for servers, and the account they run as; both servers and directory are gone
    after the block."""
    who = programs.account()
    made = Home(who)
    try:
        who.own(made.path)
        yield made.path, who
    finally:
        made.remove()


def end_group(process: "subprocess.Popen[bytes]") -> None:
    """Kill a `process` that began a session, and with it what it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def serving(
    command: Sequence[str], files: Mapping[str, str], port: int, startup: float = 20.0
) -> Iterator[Path]:
    """A pooler that listens on `port` within `startup` seconds, in a directory of its own with
    `files`; its directory. It ends with the block, and its children with it."""
    who = programs.account()
    place = Path(tempfile.mkdtemp(prefix="pooler-", dir=programs.temporary_root(who)))
    try:
        for name, text in files.items():
            (place / name).write_text(text)
            who.own(place / name)
        who.own(place)
        with (place / "log").open("w") as log:
            process = subprocess.Popen(
                command, cwd=place, stdout=log, stderr=log, start_new_session=True, **who.options()
            )
        try:
            _await(process, port, place / "log", time.monotonic() + startup)
            yield place
        finally:
            end_group(process)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _await(process: "subprocess.Popen[bytes]", port: int, log: Path, deadline: float) -> None:
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.01)
