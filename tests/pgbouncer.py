"""A real PgBouncer on a loopback port, ended with the test."""

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from router.config.config import Config
from router.config.pgbouncer_ini import Bouncer, databases, ini, userlist
from router.testing import Cluster, programs
from router.testing.ports import free_port
from tests.servers import require

STARTUP = 10.0


@contextmanager
def running(ini: str, userlist: str, port: int) -> Iterator[Path]:
    """PgBouncer as the two files say, listening on `port`; its directory."""
    command = require("pgbouncer")
    who = programs.account()
    home = Path(tempfile.mkdtemp(prefix="pgbouncer-", dir=programs.temporary_root(who)))
    try:
        for name, text in (("pgbouncer.ini", ini), ("userlist.txt", userlist)):
            (home / name).write_text(text)
            who.own(home / name)
        who.own(home)
        with (home / "log").open("w") as log:
            process = subprocess.Popen(
                [command, "pgbouncer.ini"], cwd=home, stdout=log, stderr=log, **who.options()
            )
        try:
            _await(process, port, home / "log")
            yield home
        finally:
            process.kill()
            process.wait()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _await(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + STARTUP
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.01)


@contextmanager
def bouncer(
    cluster: Cluster,
    dbname: str,
    pool_size: int = 20,
    pool_mode: str = "transaction",
    patience: int = 3,
    entries: str = "",
    **options: Any,
) -> Iterator[tuple[str, list[str]]]:
    """A PgBouncer in front of every server, made by what ``pg-router pgbouncer-ini`` writes for a
    Config with `options`: the primary's URL through it, and those of the replicas. A statement
    waits `patience` seconds for a server connection; `entries` are further databases."""
    primary, *replicas = cluster.urls(dbname)
    config = Config.from_url(primary, replicas=replicas, **options)
    settings = {"max_client_conn": "500", "query_wait_timeout": str(patience)}
    wanted = Bouncer(
        port=free_port(), pool_mode=pool_mode, pool_size=pool_size, auth="trust", settings=settings
    )
    users = userlist(dict.fromkeys(("postgres", "app", "tenants_app"), ""))
    text = ini(config, wanted).replace("[databases]", f"[databases]{entries}")
    with running(text, users, wanted.port):
        first, *others = (
            f"postgresql://postgres@127.0.0.1:{wanted.port}/{name}"
            for name in databases(config).values()
        )
        yield first, others


def pooled(port: int) -> set[int]:
    """The server processes a PgBouncer has connections to, as it says itself."""
    with (
        psycopg.connect(
            host="127.0.0.1", port=port, user="postgres", dbname="pgbouncer", autocommit=True
        ) as connection,
        connection.cursor(row_factory=dict_row) as cursor,
    ):
        return {int(row["remote_pid"]) for row in cursor.execute("SHOW SERVERS")}


__all__ = ["bouncer", "free_port", "pooled", "running"]
