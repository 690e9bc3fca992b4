"""Programs under gevent, each by its name: ``python -m tests.gevent.programs NAME``.

Each prints what it found as one line of JSON.
"""

# ruff: noqa: E402 - gevent patches what is imported after it
from gevent import monkey

monkey.patch_all()

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import gevent.pool
import sqlalchemy as sa
from gevent.fileobject import FileObjectThread

import router
from router.psycopg import ConnectionPool
from tests.forks.kit import configure_django

URL = os.environ["APP_PRIMARY"]
REPLICAS = os.environ["APP_REPLICAS"].split(",")
FAST: Any = {"probe_interval": 0.05}
NAMES = sa.text("SELECT count(*) FROM item")
PORT = sa.text("SELECT inet_server_port()")


def threads() -> int:
    """How many threads this process has, as the system counts them."""
    return len(list(Path("/proc/self/task").iterdir()))


def ticking(work: Callable[[], object]) -> float:
    """The longest that another greenlet had to wait for its turn during `work` (seconds)."""
    longest, over = 0.0, False

    def tick() -> None:
        nonlocal longest
        while not over:
            began = time.monotonic()
            gevent.sleep(0.01)
            longest = max(longest, time.monotonic() - began)

    ticker = gevent.spawn(tick)
    gevent.sleep(0)
    work()
    over = True
    ticker.join()
    return longest


def orm() -> dict[str, Any]:
    """Django's ORM in many greenlets while the monitor probes."""
    configure_django(URL, {"replicas": REPLICAS, **FAST}, INSTALLED_APPS=[])
    from django.db import connection, models

    class Item(models.Model):
        name = models.TextField()

        class Meta:
            app_label = "shop"
            db_table = "item"

    def one(number: int) -> int:
        try:
            for _ in range(10):
                Item.objects.create(name=f"greenlet {number}")
                gevent.sleep(0.01)
                assert Item.objects.filter(name=f"greenlet {number}").exists()
            return Item.objects.filter(name=f"greenlet {number}").count()
        finally:
            connection.close()

    before = threads()
    connection.router.start()
    more = threads() - before
    counts = gevent.pool.Pool(8).map(one, range(8))
    stats = connection.router.stats()
    connection.close_pool()
    return {"counts": counts, "threads": more, "errors": stats["events"].get("monitor_error", 0)}


def two() -> dict[str, Any]:
    """Two Routers in one process, and what asyncio finds."""
    engines: list[Any] = [
        router.create_engine(
            URL.replace(":", "+psycopg:", 1), replicas=REPLICAS, name=name, **FAST
        )
        for name in ("first", "second")
    ]

    def work() -> None:
        for engine in engines:
            engine.router.start()
        for _ in range(5):
            for engine in engines:
                assert engine.router.monitor.round(10)

    longest = ticking(work)
    try:
        asyncio.get_running_loop()
        loop = "a loop runs"
    except RuntimeError:
        loop = "none"
    seen = [sorted(n for n, r in e.router.snapshot.reports.items() if r.ok) for e in engines]
    monitors = [engine.router.monitor._probing for engine in engines]
    began = time.monotonic()
    for engine in engines:
        engine.dispose()
    return {
        "loop": loop,
        "seen": seen,
        "longest": longest,
        "stopped": [not each.alive for each in monitors],
        "stopping": time.monotonic() - began,
    }


def killed() -> dict[str, Any]:
    """Greenlets that read while a replica is killed, which our parent does when it is asked to."""
    engine = router.create_engine(
        URL.replace(":", "+psycopg:", 1), replicas=REPLICAS, pool_size=8, **FAST
    )
    reads, failed, over = 0, [], False

    def read() -> None:
        nonlocal reads
        while not over:
            try:
                with engine.connect() as connection:
                    connection.scalar(PORT)
                reads += 1
            except Exception as error:
                failed.append(repr(error))
            gevent.sleep(0.001)

    engine.router.start()
    with gevent.Timeout(60):
        readers = [gevent.spawn(read) for _ in range(6)]
        while reads < 100:
            gevent.sleep(0.01)
        print("kill", flush=True)
        FileObjectThread(sys.stdin).readline()
        while engine.router.snapshot.down("replica1") is None:
            gevent.sleep(0.01)
        until = reads + 100
        while reads < until:
            gevent.sleep(0.01)
        over = True
        gevent.joinall(readers)
    left = sorted(node.name for node in engine.router.snapshot.replicas)
    engine.dispose()
    return {"failed": failed, "left": left}


def pool() -> dict[str, Any]:
    """A routed pool of psycopg; what the application gives is called in its own thread."""
    called: set[int] = set()
    here = threading.get_native_id()

    def members() -> list[str]:
        called.add(threading.get_native_id())
        gevent.sleep(0.01)
        return [URL, *REPLICAS]

    def hook(name: str, fields: Any) -> None:
        called.add(threading.get_native_id())

    with ConnectionPool(
        URL,
        replicas=REPLICAS,
        min_size=1,
        max_size=3,
        discovery=members,
        discovery_interval=1,
        **FAST,
    ) as made:
        made.router.telemetry.hooks.append(hook)
        made.router.start()

        def read(_: int) -> int:
            with made.connection() as connection:
                row = connection.execute(
                    "SELECT inet_server_port() WHERE pg_sleep(0.01) IS NOT NULL"
                )
                return int(row.fetchone()[0])

        ports = set(gevent.pool.Pool(12).map(read, range(60)))
        nodes = sorted(node.name for node in made.router.snapshot.nodes)
    return {"ports": sorted(ports), "nodes": nodes, "called": called == {here}}


def waits() -> dict[str, Any]:
    """A Router whose servers cannot be reached, while other greenlets want their turns."""
    engine = router.create_engine(
        URL.replace(":", "+psycopg:", 1), replicas=REPLICAS, start_timeout=0.5, connect_timeout=2
    )

    def down() -> list[str]:
        reports = engine.router.snapshot.reports
        return sorted(name for name, report in reports.items() if not report.ok)

    def look() -> None:
        until = time.monotonic() + 20
        while len(down()) < 2 and time.monotonic() < until:
            engine.router.refresh(1.0)

    longest = ticking(look)
    engine.dispose()
    return {"longest": longest, "down": down()}


def forked() -> dict[str, Any]:
    """A child, forked while the monitor runs, has its own, and the parent's goes on."""
    engine: Any = router.create_engine(URL.replace(":", "+psycopg:", 1), replicas=REPLICAS, **FAST)
    with engine.connect() as connection:
        connection.scalar(PORT)

    def ask() -> bool:
        with engine.connect() as connection:
            connection.scalar(PORT)
        engine.router.start()
        return bool(engine.router.monitor.round(10))

    codes = []
    for _ in range(3):
        pid = os.fork()
        if not pid:
            code = 1
            try:
                with gevent.Timeout(20):
                    code = 0 if ask() else 2
            finally:
                os._exit(code)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    found = {"children": codes, "parent": ask()}
    engine.dispose()
    return found


def left() -> dict[str, Any]:
    """A Router that nobody closes, at the end of its program."""
    engine: Any = router.create_engine(URL.replace(":", "+psycopg:", 1), replicas=REPLICAS, **FAST)
    engine.router.start()
    return {"runs": engine.router.monitor._probing.alive}


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]]()), flush=True)
