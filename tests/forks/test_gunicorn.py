"""Applications that are loaded once and forked, as ``gunicorn --preload`` does it."""

import http.client
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from router.testing.ports import free_port
from tests.conftest import Database

ROOT = Path(__file__).parents[2]
PATIENCE = 10.0
"""Seconds an answer may take."""
START = 60.0
"""Seconds until gunicorn listens."""
WORKERS = 3


def ask(port: int, path: str, seconds: float = PATIENCE) -> list[int]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        answer = connection.getresponse()
        text = answer.read().decode()
        assert answer.status == 200, text
        return [int(part) for part in text.split()]
    finally:
        connection.close()


@pytest.mark.parametrize("how", ["--preload", "-c tests/forks/gevent_conf.py", "-k gevent"])
@pytest.mark.parametrize("app", ["flask", "django"])
def test_workers_forked_right_after_a_statement(app: str, how: str, database: Database) -> None:
    """With a SELECT while the application is imported, every worker writes and reads, and none
    takes more than a moment for its first statements. So it is in gevent's workers, whether they
    load the application or gunicorn does; and many requests at once are answered."""
    database.execute("CREATE TABLE item (id serial PRIMARY KEY, name text NOT NULL)")
    database.cluster.wait_caught_up()
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "tests.forks.served:application", *how.split()]
    command += ["--workers", str(WORKERS), "--bind", f"127.0.0.1:{port}"]
    server = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ
        | {
            "APP": app,
            "APP_PRIMARY": database.primary_url(),
            "APP_REPLICAS": ",".join(database.replica_urls()),
            "PYTHONWARNINGS": "ignore",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    # A worker that loads the application itself listens already.
    first = START if how == "-k gevent" else PATIENCE
    wrote: set[int] = set()
    writes = 0
    try:
        deadline = time.monotonic() + START
        while len(wrote) < WORKERS:
            assert time.monotonic() < deadline
            assert server.poll() is None
            try:
                wrote.update(ask(port, "/write", first))
                writes += 1
            except ConnectionRefusedError:
                time.sleep(0.05)  # it does not listen yet
        assert writes == database.execute("SELECT count(*) FROM item")[0][0]
        database.cluster.wait_caught_up()
        read: set[int] = set()
        while read != wrote:
            assert time.monotonic() < deadline
            worker, count = ask(port, "/read")
            assert count == writes
            read.add(worker)
        with ThreadPoolExecutor(12) as threads:
            assert {n for _, n in threads.map(lambda _: ask(port, "/read"), range(60))} == {writes}
    finally:
        server.terminate()
        output, _ = server.communicate(timeout=40)
        print(output)
