"""The blog of compose.yaml, on everything compose.yaml starts, without Docker."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from http.cookiejar import CookieJar
from pathlib import Path

import pytest

from router.testing.ports import HOST, free_port
from tests.docker.stage import DOCKER, SECRETS, Stage
from tests.docker.test_compose import DOCKERFILE, ROOT, SERVICES, environment
from tests.pins.conftest import RedisServer, redis_server

__all__ = ["redis_server"]  # a fixture here as well


def localised(service: str, stage: Stage, redis: RedisServer) -> dict[str, str]:
    """A service's environment, its hosts and the password replaced by those of the test."""
    addresses = {
        "pgbouncer:6432": f"{HOST}:{stage.ports['pool']}",
        "redis:6379": f"{HOST}:{redis.port}",
        ":play@": f":{SECRETS['APP_PASSWORD']}@",
    }
    found = {}
    for name, value in environment(service).items():
        for before, after in addresses.items():
            value = value.replace(before, after)
        found[name] = value
    paths = [str(ROOT / "examples" / "flask"), str(DOCKER / "app")]
    bin_first = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {"PATH": bin_first, "PYTHONPATH": os.pathsep.join(paths), **found}


@pytest.mark.slow
def test_the_blog_runs_as_compose_runs_it(
    stage: Stage, redis_server: RedisServer, tmp_path: Path
) -> None:
    """The set-up command makes the tables, gunicorn serves as the Dockerfile says, the health
    check turns ready, a user registers and is logged in, Prometheus is told of it, and SIGTERM
    ends it in order."""
    stage.ports = {"primary": free_port()}
    stage.primary()
    for name in ("replica1", "replica2"):
        stage.until(name, "SELECT pg_is_in_recovery()", stage.replica(name))
    stage.pgbouncer()
    done = subprocess.run(
        SERVICES["setup"]["command"],
        cwd=tmp_path,
        env=localised("setup", stage, redis_server),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "The tables are there." in done.stdout

    port = free_port()
    (command,) = re.findall(r"^CMD (\[\"gunicorn.*\])$", DOCKERFILE, re.MULTILINE)
    given = [part.replace("0.0.0.0:8000", f"{HOST}:{port}") for part in json.loads(command)]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *given],
            cwd=tmp_path,
            env=localised("app", stage, redis_server)
            | {"PROMETHEUS_MULTIPROC_DIR": str(_made(tmp_path / "metrics"))},
            stdout=log,
            stderr=log,
        )
    try:
        _await_health(port, process)
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        form = urllib.parse.urlencode({"name": "ada", "password": "x"}).encode()
        with browser.open(f"http://{HOST}:{port}/register", form, timeout=10) as answer:
            assert "ada" in answer.read().decode()
        with browser.open(f"http://{HOST}:{port}/metrics", timeout=10) as answer:
            assert "pg_router_node_primary" in answer.read().decode()
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
    except BaseException:
        print((tmp_path / "log").read_text())
        raise
    finally:
        process.kill()
        process.wait()


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def _await_health(port: int, process: "subprocess.Popen[bytes]") -> None:
    *_, check = SERVICES["app"]["healthcheck"]["test"]
    (url,) = re.findall(r'"(http://\S+)"', check)
    deadline = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(url.replace(":8000", f":{port}"), timeout=3) as answer:
                assert answer.status == 200
                return
        except OSError:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
