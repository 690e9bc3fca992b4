"""A real PgBouncer on a loopback port, ended with the test."""

import os
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from router.config.config import Config
from router.config.pgbouncer_ini import Bouncer, databases, ini, userlist
from router.testing import Cluster
from router.testing.ports import free_port
from tests.servers import require, serving

STORM = int(os.environ.get("STORM_STATEMENTS", "4000"))
"""Statements of a storm over few server connections; two thousand collide with a mode off."""

KEEPS = (1, 21)
"""The first version that keeps prepared statements apart, by ``max_prepared_statements``."""


def version() -> tuple[int, ...]:
    """Of the PgBouncer that the tests take."""
    command = [require("pgbouncer"), "--version"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return tuple(int(number) for number in said.split()[1].split("."))


def keeps(prepared: int) -> dict[str, str]:
    """The settings by which a PgBouncer that can keep `prepared` statements for each client; since
    1.24 it keeps 200 unless told otherwise."""
    return {"max_prepared_statements": str(prepared)} if version() >= KEEPS else {}


def running(ini: str, userlist: str, port: int) -> AbstractContextManager[Path]:
    """PgBouncer as the two files say, listening on `port`; its directory."""
    files = {"pgbouncer.ini": ini, "userlist.txt": userlist}
    return serving([require("pgbouncer"), "pgbouncer.ini"], files, port)


@contextmanager
def bouncer(
    cluster: Cluster,
    dbname: str,
    pool_size: int = 20,
    pool_mode: str = "transaction",
    patience: int = 3,
    entries: str = "",
    prepared: int | None = None,
    **options: Any,
) -> Iterator[tuple[str, list[str]]]:
    """A PgBouncer in front of every server, made by what ``pg-router pgbouncer-ini`` writes for a
    Config with `options`: the primary's URL through it, and those of the replicas. A statement
    waits `patience` seconds for a server connection; `entries` are further databases; so many
    `prepared` statements are kept where that version can."""
    primary, *replicas = cluster.urls(dbname)
    config = Config.from_url(primary, replicas=replicas, **options)
    settings = {"max_client_conn": "500", "query_wait_timeout": str(patience)}
    settings |= {} if prepared is None else keeps(prepared)
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


def prepared(url: str) -> int:
    """How many statements of drivers are prepared in the server session that a query through
    `url`, a PgBouncer's, comes upon."""
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
        row = connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone()
        assert row is not None
        return int(row[0])


def collided(failures: Iterable[str]) -> bool:
    """Whether some of `failures` are of one driver's prepared statement meeting another's."""
    return any("prepared statement" in failure for failure in failures)


def judge_prepared(failures: list[str], kept: int) -> None:
    """Of a run whose driver prepared statements: none failed, and some were `kept` on a server,
    where the PgBouncer keeps them apart; else they collided."""
    if version() >= KEEPS:
        assert failures == []
        assert kept > 0
    else:
        assert collided(failures)


def pooled(port: int) -> set[int]:
    """The server processes a PgBouncer has connections to, as it says itself."""
    with (
        psycopg.connect(
            host="127.0.0.1", port=port, user="postgres", dbname="pgbouncer", autocommit=True
        ) as connection,
        connection.cursor(row_factory=dict_row) as cursor,
    ):
        return {int(row["remote_pid"]) for row in cursor.execute("SHOW SERVERS")}


__all__ = ["bouncer", "collided", "free_port", "judge_prepared", "pooled", "prepared", "running"]
