"""Horsies, a job queue on SQLAlchemy's asynchronous engines, routed by its URL alone."""

import asyncio
import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from router import request_context
from tests.conftest import Database

TASKS = 50
SHOP = """
import os

from horsies import AppConfig, Horsies, PostgresConfig, TaskError, TaskResult

broker = PostgresConfig(
    database_url=os.environ["SHOP_URL"], session_database_url=os.environ["SHOP_SESSION_URL"]
)
app = Horsies(AppConfig(broker=broker))


@app.task("double")
def double(*, n: int) -> TaskResult[int, TaskError]:
    return TaskResult(ok=2 * n)
"""


@pytest.mark.skipif(sys.version_info < (3, 13), reason="Horsies needs Python 3.13")
def test_horsies(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An application of Horsies', routed by nothing but ``?plugin=router`` in its URL, gives tasks
    to a worker and reads all results, some of them from replicas.

    The worker itself has a plain URL: its children hand theirs to libpq, which knows no plugin.
    """
    plain = database.primary_url(driver="psycopg")
    replicas = ",".join(f"{r.host}:{r.port}" for r in database.cluster.replicas)
    routed = f"{plain}?plugin=router&router_replicas={replicas}"
    (tmp_path / "shop.py").write_text(SHOP)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    environ = {"SHOP_URL": plain, "SHOP_SESSION_URL": plain, "PYTHONPATH": path}
    horsies = Path(sys.executable).with_name("horsies")
    log = (tmp_path / "worker.log").open("w+")
    worker = subprocess.Popen(
        [horsies, "worker", "shop:app", "--processes", "2"],
        env=os.environ | environ, stdout=log, stderr=subprocess.STDOUT,
    )  # fmt: skip
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("SHOP_URL", routed)
    monkeypatch.setenv("SHOP_SESSION_URL", plain)

    async def run() -> dict[str, Any]:
        shop = importlib.import_module("shop")
        sent = []
        for n in range(TASKS):
            with request_context():
                sent.append((await shop.double.send_async(n=n)).ok_value)
        for n, handle in enumerate(sent):
            with request_context():
                result = await handle.get_async(timeout_ms=120_000)
            assert result.ok_value == 2 * n
        broker = shop.app.get_broker()
        stats: dict[str, Any] = broker.async_engine.sync_engine.router.stats()
        await broker.close_async()
        return stats

    try:
        decisions = asyncio.run(run())["decisions"]
    finally:
        worker.terminate()
        worker.wait(20)
        log.seek(0)
        print(log.read())
        log.close()
    assert sum(decisions["primary"].values()) >= TASKS
    assert any(name.startswith("replica") for name in decisions)
