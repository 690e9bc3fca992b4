"""Under gevent: the monitor in a real thread, and greenlets that it never holds up."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from router.testing import Proxy
from tests.conftest import Database, MakeCluster

ROOT = Path(__file__).parents[2]
PATIENCE = 90.0
"""Seconds a program may take."""


@contextmanager
def program(name: str, primary: str, replicas: list[str]) -> Iterator["subprocess.Popen[str]"]:
    """The one of `tests.gevent.programs` that is called `name`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.gevent.programs", name],
        cwd=ROOT,
        env=os.environ | {"APP_PRIMARY": primary, "APP_REPLICAS": ",".join(replicas)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def found(process: "subprocess.Popen[str]", told: str = "") -> dict[str, Any]:
    """What it printed in the end, after it was `told` something."""
    output, _ = process.communicate(told, timeout=PATIENCE)
    assert process.returncode == 0, output
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


def test_djangos_orm_works(database: Database) -> None:
    """In every greenlet, while the monitor probes in one thread more, which is a real one."""
    database.execute("CREATE TABLE item (id bigserial PRIMARY KEY, name text NOT NULL)")
    database.cluster.wait_caught_up()
    with program("orm", database.primary_url(), database.replica_urls()) as process:
        assert found(process) == {"counts": [10] * 8, "threads": 1, "errors": 0}


def test_two_routers_live_in_one_process(database: Database) -> None:
    """Each probes all its servers, no loop of asyncio's runs where greenlets look for one, and who
    waits for a round or for the end lets others run meanwhile."""
    with program("two", database.primary_url(), database.replica_urls()) as process:
        result = found(process)
    assert result["loop"] == "none"
    assert result["seen"] == [["primary", "replica1", "replica2"]] * 2
    assert result["longest"] < 1
    assert result["stopped"] == [True, True]
    assert result["stopping"] < 4


def test_reads_go_on_when_a_replica_is_killed(make_cluster: MakeCluster) -> None:
    """No greenlet's read fails, and the monitor finds out which replica it was."""
    cluster = make_cluster(replicas=2)
    primary, *replicas = cluster.urls("postgres")
    with program("killed", primary, replicas) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "kill\n"
        cluster.replicas[0].kill()
        assert found(process, "killed\n") == {"failed": [], "left": ["replica2"]}


def test_psycopgs_pool_works(database: Database) -> None:
    """More greenlets than it has connections read from the replicas, and discovery and hooks are
    called where the application's greenlets run."""
    with program("pool", database.primary_url(), database.replica_urls()) as process:
        result = found(process)
    assert result == {
        "ports": sorted(replica.port for replica in database.cluster.replicas),
        "nodes": ["primary", "replica1", "replica2"],
        "called": True,
    }


def test_who_waits_for_dark_servers_lets_others_run(database: Database) -> None:
    """Asking servers that answer nothing costs no other greenlet its turn."""
    far = database.cluster.primary
    with Proxy(far.host, far.port) as proxy:
        proxy.deaf()
        url = proxy.url(database.primary_url())
        with program("waits", url, [url.replace("127.0.0.1", "localhost")]) as process:
            result = found(process)
    assert result["longest"] < 0.5
    assert result["down"] == ["primary", "replica1"]


def test_a_forked_child_has_a_monitor_of_its_own(database: Database) -> None:
    """Greenlets are copied by a fork, and the monitor's thread is not: a child starts its own, and
    the parent's goes on."""
    with program("forked", database.primary_url(), database.replica_urls()) as process:
        assert found(process) == {"children": [0, 0, 0], "parent": True}


def test_a_program_ends_in_silence(database: Database, capfd: pytest.CaptureFixture[str]) -> None:
    """Also one that leaves its monitor running."""
    with program("left", database.primary_url(), database.replica_urls()) as process:
        assert found(process) == {"runs": True}
    assert capfd.readouterr().err == ""


def test_the_pages_program_runs(database: Database) -> None:
    """What docs/how-to/use-with-gevent.md shows, in a process of its own."""
    page = (ROOT / "docs" / "how-to" / "use-with-gevent.md").read_text()
    code = page.partition("```python\n")[2].partition("```")[0]
    urls = f"primary_url, replica_urls = {database.primary_url()!r}, {database.replica_urls()!r}\n"
    subprocess.run([sys.executable, "-c", urls + code], check=True, timeout=PATIENCE)


@pytest.mark.parametrize("order", ["before", "after"])
def test_eventlet_is_refused(order: str) -> None:
    """With an error that names the cure, whether it patched before or after we were imported."""
    patch, load = "import eventlet; eventlet.monkey_patch()", "import router"
    lines = [patch, load] if order == "before" else [load, patch]
    lines.append("router.create_engine('postgresql+psycopg://a@db/b').router.start()")
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "\n".join(lines)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert process.returncode == 1
    assert "ConfigError: eventlet has patched the threads of this process" in process.stderr
    assert "use gevent" in process.stderr
