"""What a cluster went through, as Prometheus is told of it."""

import os
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import router
from router.metrics import LAG, METRICS
from router.prometheus import publish
from router.sqlalchemy import RoutedEngine
from router.testing.ports import free_port
from tests.conftest import MakeCluster

ROOT = Path(__file__).parents[2]
PATIENCE = 20.0
Values = dict[tuple[str, ...], float]


def read(text: str) -> Values:
    """The page's values, by name and labels' values."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_page_says_where_statements_went(engine: RoutedEngine) -> None:
    """Each statement is counted once, by node and reason, however often the page is asked for."""
    registry = CollectorRegistry()
    publish(engine, registry)
    publish(engine.router, registry)
    seen: Values = {}
    for n in (1, 2):
        with router.request_context():
            with engine.connect() as connection:
                connection.execute(sa.text("SELECT 1"))
            with engine.begin() as connection:
                connection.execute(sa.text("CREATE TABLE IF NOT EXISTS t ()"))
        generate_latest(registry)
        seen = read(generate_latest(registry).decode())
        name = "pg_router_statements_total"
        reads = [v for key, v in seen.items() if key[0] == name and key[-1] == "read"]
        assert sum(reads) == n
        assert seen[name, "one", "primary", "write"] == n
    assert seen["pg_router_node_primary", "one", "primary"] == 1
    assert {seen["pg_router_node_readable", "one", f"replica{i}"] for i in (1, 2)} == {1.0}
    assert seen["pg_router_node_lag_seconds", "one", "replica1"] < 5
    assert seen[LAG + "_count", "one", "replica2"] >= 1
    assert seen["pg_router_connections_in_use", "one"] == 0


def test_a_node_that_left_is_told_of_no_more(engine: RoutedEngine) -> None:
    """What a removed server was counted for stays, and its state goes."""
    registry = CollectorRegistry()
    publish(engine, registry)
    generate_latest(registry)
    engine.router.remove_replica("replica2")
    seen = read(generate_latest(registry).decode())
    assert ("pg_router_node_up", "one", "replica1") in seen
    assert ("pg_router_node_up", "one", "replica2") not in seen


def test_every_metric_is_documented() -> None:
    """The reference names each metric with its labels, and no other."""
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    for metric in METRICS:
        suffix = "_total" if metric.kind == "counter" else ""
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        assert f"| `{metric.name}{suffix}` | {metric.kind} | {labels} |" in page
    assert f"| `{LAG}` | histogram | `cluster`, `node` |" in page
    assert page.count("\n| `pg_router_") == len(METRICS) + 1


@pytest.mark.slow
def test_two_workers_tell_one_story(make_cluster: MakeCluster, tmp_path: Path) -> None:
    """Scraped from any worker of a real gunicorn, the counters of both add up, and show a replica
    killed, reads going on elsewhere, and its return."""
    cluster = make_cluster(2)
    cluster.primary.execute("CREATE TABLE item (n int)")
    cluster.wait_caught_up()
    primary, *replicas = cluster.urls("postgres")
    port = free_port()
    environment = os.environ | {
        "APP_PRIMARY": primary.replace("postgresql:", "postgresql+psycopg:", 1),
        "APP_REPLICAS": ",".join(replicas),
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path),
    }
    command = f"-m gunicorn tests.metrics.served:application --bind 127.0.0.1:{port} --workers 2 "
    command += "--config tests/metrics/gunicorn_conf.py --log-level warning"
    process = subprocess.Popen([sys.executable, *command.split()], cwd=ROOT, env=environment)

    def get(path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE) as answer:
            return str(answer.read().decode())

    def until(holds: Callable[[Values], bool]) -> Values:
        deadline = time.monotonic() + PATIENCE
        while not holds(seen := read(get("/metrics"))):
            assert time.monotonic() < deadline, seen
            time.sleep(0.05)
        return seen

    def statements(seen: Values, node: str = "") -> float:
        name = "pg_router_statements_total"
        return sum(v for k, v in seen.items() if k[0] == name and node in ("", k[2]))

    def visit(paths: list[str]) -> Counter[str]:
        return Counter(get(path) for path in paths)

    try:
        workers: Counter[str] = Counter()
        deadline = time.monotonic() + PATIENCE
        while len(workers) < 2:
            assert time.monotonic() < deadline, workers
            try:
                workers += visit(["/"])
            except OSError:
                time.sleep(0.05)
        workers += visit(["/"] * 40)
        until(lambda seen: statements(seen) == workers.total())
        visit(["/write"] * 5)
        written = ("pg_router_statements_total", "served", "primary", "write")
        until(lambda seen: seen.get(written) == 5)
        asked = workers.total() + 5

        cluster.replicas[0].kill()
        asked += visit(["/"] * 60).total()
        down = until(lambda s: s["pg_router_node_up", "served", "replica1"] == 0)
        assert down["pg_router_node_readable", "served", "replica2"] == 1
        told = [v for k, v in down.items() if k[0] == "pg_router_events_total"
                and k[-1] in ("blacklisted", "unreachable")]  # fmt: skip
        assert sum(told) >= 1
        still = statements(down, "replica1")
        asked += visit(["/"] * 40).total()
        seen = until(
            lambda s: statements(s, "replica2") + statements(s, "primary") >= asked - still
        )
        # The worker that had not noticed yet asked there once more.
        assert statements(seen, "replica1") <= still + 1

        cluster.replicas[0].start()
        until(lambda s: s["pg_router_node_readable", "served", "replica1"] == 1)
    finally:
        process.terminate()
        process.wait(PATIENCE)
