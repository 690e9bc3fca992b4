"""The life of one routed target, and which modules were imported beside the thread that uses it.

Run as ``python -m tests.forks.beside DOOR URL REPLICA PATRONI``. Everything a monitor may go
through happens: names are resolved, members discovered, the catalog is read and read again,
servers refuse, stay silent or cannot be named, sessions end, metrics are taken, events logged.
What was imported in another thread than the main one is printed, one line each.
"""

import contextlib
import io
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from tests.forks.kit import Run, first, opened

WAIT = 20.0

imported: list[str] = []


class Recorder:
    """First on ``sys.meta_path``: it is asked for each module that is not loaded, in the thread
    that wants it, whether or not there is one."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        thread = threading.current_thread()
        if thread is not threading.main_thread():
            imported.append(f"{name} in {thread.name}")


@contextmanager
def listener(url: str, options: dict[str, Any]) -> Iterator[tuple[Any, Run]]:
    import psycopg

    import router

    config = router.Config.from_url(url, options.pop("replicas"), **options)
    with (
        router.listen(config, "news") as on,
        psycopg.connect(url, autocommit=True) as connection,
    ):

        def run(sql: str) -> object:
            connection.execute("NOTIFY news")
            on.get(timeout=1.0)
            return first(connection.execute(sql))

        yield on.router, run


def wait(found: Callable[[], object]) -> None:
    until = time.monotonic() + WAIT
    while not found():
        assert time.monotonic() < until
        time.sleep(0.01)


def live(door: str, url: str, replica: str, patroni_at: str, deaf: int, refusing: int) -> None:
    from router.discovery import patroni
    from router.opentelemetry import publish as instrument
    from router.prometheus import publish
    from router.wsgi import StatusPage

    asked: list[None] = []
    told = patroni(patroni_at)

    def members() -> list[dict[str, object]]:
        asked.append(None)
        # A label too long for a host name fails where a name is resolved, without a server.
        return [
            *told(),
            {"name": "nameless", "host": "x" * 64, "port": 5432},
            {"name": "deaf", "host": "localhost", "port": deaf},
            {"name": "refusing", "host": "localhost", "port": refusing},
        ]

    options = {
        "replicas": [replica],
        "probe_interval": 0.05,
        "probe_timeout": 0.3,
        "connect_timeout": 1,
        "start_timeout": 2.0,
        "discovery": members,
        "discovery_interval": 0.2,
        "blacklist_duration": 0.1,
    }
    target = listener(url, options) if door == "listener" else opened(door, url, **options)
    with target as (router, run):
        publish(router)
        instrument(router)
        StatusPage(router, token="s" * 32)
        run("SELECT 1")
        run("CREATE TABLE t (n inet DEFAULT '::1', m date[])")
        run("CREATE DOMAIN d AS int CHECK (value > 0)")
        run("CREATE FUNCTION f(int) RETURNS int LANGUAGE sql AS 'SELECT $1'")
        router.catalog.ddl()
        wait(lambda: router.catalog.current.loaded)
        run("INSERT INTO t DEFAULT VALUES")
        run("SELECT count(*) FROM t")
        replicas = [node for node in router.snapshot.nodes if node is not router.primary]
        missing = {"nameless", "deaf", "refusing"}

        def failed() -> bool:
            reports = router.snapshot.reports
            missing.difference_update(n for n, r in reports.items() if r.failures > 1)
            return not missing

        wait(failed)
        for node in replicas:
            router.health.failed(node, "08006")
        monitors = "FROM pg_stat_activity WHERE application_name = 'pg-router monitor'"
        assert run(f"SELECT count(pg_terminate_backend(pid)) {monitors}") > 0
        router.refresh()
        wait(lambda: router.replicas)
        seen = len(asked)
        wait(lambda: len(asked) > seen)
        run("DROP TABLE t")


def main(door: str, url: str, replica: str, patroni_at: str) -> None:
    sys.meta_path.insert(0, Recorder())
    # Events are rendered, and written, by the thread in which they happen.
    logging.basicConfig(stream=io.StringIO(), level=logging.INFO)
    logging.getLogger("router").setLevel(logging.DEBUG)
    with ExitStack() as stack:
        deaf = stack.enter_context(contextlib.closing(socket.create_server(("127.0.0.1", 0))))
        refusing = socket.create_server(("127.0.0.1", 0))
        ports = [each.getsockname()[1] for each in (deaf, refusing)]
        refusing.close()
        live(door, url, replica, patroni_at, *ports)
    print(*imported, sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
