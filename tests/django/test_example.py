"""The guestbook in examples/django, on gunicorn with several workers, over a real HTTP client."""

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from router.testing import Cluster
from router.testing.ports import free_port
from tests.conftest import MakeCluster

HERE = Path(__file__).parents[2]
PATIENCE = 60.0


class Guest:
    """A browser: one cookie jar, a connection of its own for each request."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.jar: dict[str, str] = {}

    def ask(self, path: str = "/", **form: str) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        headers = {"Cookie": "; ".join(f"{k}={v}" for k, v in self.jar.items())}
        try:
            if form:
                headers["Content-Type"] = "application/x-www-form-urlencoded"
                connection.request("POST", path, urlencode(form), headers)
            else:
                connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        for cookie in response.headers.get_all("Set-Cookie", []):
            name, _, value = cookie.partition(";")[0].partition("=")
            self.jar[name] = value
        return response.status, json.loads(text) if response.status < 400 else {}


@contextmanager
def served(cluster: Cluster, log: Path, workers: int = 3) -> Iterator[int]:
    """The guestbook on gunicorn; yields its port."""
    port = free_port()
    environment = os.environ | {
        "GUESTBOOK_PRIMARY": f"{cluster.primary.host}:{cluster.primary.port}",
        "GUESTBOOK_REPLICAS": ",".join(f"{r.host}:{r.port}" for r in cluster.replicas),
        "GUESTBOOK_SECRET": "the same in every worker",
        "DJANGO_SETTINGS_MODULE": "guestbook.settings",
        "PYTHONPATH": f"{HERE / 'examples' / 'django'}{os.pathsep}{HERE}",
    }
    run = [sys.executable, "-m"]
    subprocess.run([*run, "django", "migrate", "-v0"], env=environment, check=True, timeout=60)
    cluster.wait_caught_up()
    command = [*run, "gunicorn", "--bind", f"127.0.0.1:{port}", "--workers", str(workers)]
    command += ["--log-level", "warning", "guestbook.wsgi"]
    with log.open("w") as output:
        server = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        try:
            until = time.monotonic() + PATIENCE
            while True:
                try:
                    Guest(port).ask()
                    break
                except OSError:
                    assert time.monotonic() < until, log.read_text()
                    assert server.poll() is None, log.read_text()
                    time.sleep(0.05)
            yield port
        finally:
            server.terminate()
            server.wait(30)


@pytest.mark.slow
def test_guests_on_several_workers(make_cluster: MakeCluster, tmp_path: Path) -> None:
    """A guest's write is read by every worker while replay stands still; others read replicas;
    a replica killed under load costs no error."""
    cluster = make_cluster(2)
    with served(cluster, tmp_path / "log") as port:
        writer, stranger = Guest(port), Guest(port)
        with cluster.replay_paused():
            status, wrote = writer.ask(text="hello")
            assert status == 201
            others = set()
            for _ in range(200):
                status, told = writer.ask()
                assert [e["text"] for e in told["entries"]] == ["hello"]
                others.add(told["worker"])
                if len(others - {wrote["worker"]}) >= 1:
                    break
            assert others - {wrote["worker"]}, "only one worker ever answered"
            _, told = stranger.ask()
            assert told["entries"] == []
            assert told["port"] != cluster.primary.port
        cluster.wait_caught_up()
        found: list[int] = []
        ports: set[int] = set()
        done = threading.Event()

        def load() -> None:
            guest = Guest(port)
            while not done.is_set():
                status, told = guest.ask()
                found.append(status)
                ports.add(told.get("port", 0))

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            wait(lambda: len(found) > 60)
            cluster.replicas[0].kill()
            after = len(found)
            wait(lambda: len(found) > after + 150)
        finally:
            done.set()
            for thread in threads:
                thread.join(PATIENCE)
        assert set(found) == {200}, (tmp_path / "log").read_text()
        assert cluster.replicas[1].port in ports


def wait(until: Any) -> None:
    """Wait until `until` holds."""
    deadline = time.monotonic() + PATIENCE
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.01)
