"""A process that is asked to end finishes what it began and leaves nothing at the servers."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import router
from router.testing.ports import free_port
from tests.conftest import Database

ROOT = Path(__file__).parents[2]
WAIT = 20.0
HANDLED = {"worker": 0, "gunicorn": 0, "uvicorn": -signal.SIGTERM}
"""The status each ends with; uvicorn sends itself the signal again when it has shut down."""

PROGRAMS = {
    "worker": "-m tests.shutdown.app",
    "gunicorn": "-m gunicorn tests.shutdown.app:wsgi --bind 127.0.0.1:{port} "
    "--config tests/shutdown/gunicorn_conf.py",
    "uvicorn": "-m uvicorn tests.shutdown.app:asgi --host 127.0.0.1 --port {port} --lifespan on",
}


def await_true(found: Any) -> None:
    deadline = time.monotonic() + WAIT
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=WAIT) as answer:
        return str(answer.read().decode())


def answers(port: int) -> bool:
    try:
        return get(port, "/") == "done"
    except OSError:
        return False


@contextmanager
def running(program: str, port: int, database: Database) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, *PROGRAMS[program].format(port=port).split()],
        cwd=ROOT,
        env=os.environ
        | {
            "APP_PRIMARY": database.primary_url(),
            "APP_REPLICAS": ",".join(database.replica_urls()),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("program", PROGRAMS)
def test_sigterm_lets_what_began_end(program: str, database: Database) -> None:
    """SIGTERM in the middle of a transaction: it commits, its caller is answered, the process ends
    by itself, and no connection of it is left on any server."""
    database.execute("CREATE TABLE done (n int)")
    database.cluster.wait_caught_up()
    working = (
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() "
        "AND query LIKE '%pg_sleep%' AND state = 'active' AND pid <> pg_backend_pid()"
    )
    port = free_port()
    with running(program, port, database) as process, ThreadPoolExecutor() as caller:
        answer = None
        if program != "worker":
            await_true(lambda: answers(port))
            answer = caller.submit(get, port, "/work")
        await_true(lambda: database.execute(working))
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=WAIT)
        assert process.returncode == HANDLED[program], output
        if answer is None:
            assert output == "drained\n"
        else:
            assert answer.result() == "done"
    assert database.execute("SELECT count(*) FROM done") == [(1,)]
    others = (
        "SELECT application_name FROM pg_stat_activity WHERE datname = current_database() "
        "AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )
    for server in database.cluster.servers:
        await_true(lambda server=server: not server.execute(others, dbname=database.name))


def test_a_drain_has_an_end(database: Database) -> None:
    """close(drain=…) waits no longer than it was told, and says that something was in use."""
    engine = router.create_engine(database.primary_url(), database.replica_urls())
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT 1"))
        assert engine.router.in_use == 1
        began = time.monotonic()
        assert engine.router.close(drain=0.1) is False
        assert time.monotonic() - began >= 0.1
    assert engine.router.in_use == 0
    assert engine.router.close(drain=60) is True
    engine.dispose()
