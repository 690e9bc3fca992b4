"""What keeps a monitor from a server that serves all others: for the tests of every door."""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg

from router.testing import Cluster, Server

MONITORS = "FROM pg_stat_activity WHERE application_name = 'pg-router monitor' AND datname = %s"


def until(so: Callable[[], object], told: Callable[[], object] = str, seconds: float = 10) -> None:
    """Look until it is so: what brings it about is a probe, and nobody awaits that."""
    deadline = time.monotonic() + seconds
    while not so():
        assert time.monotonic() < deadline, told()
        time.sleep(0.01)


def end_monitors(servers: Sequence[Server], dbname: str) -> None:
    """End the sessions over which monitors ask about a database, and see them gone."""
    for server in servers:
        with psycopg.connect(server.conninfo(), autocommit=True) as admin:
            _end(admin, dbname)


def _end(admin: psycopg.Connection[Any], dbname: str) -> None:
    rows = admin.execute(f"SELECT pid, pg_terminate_backend(pid) {MONITORS}".encode(), [dbname])
    pids = [pid for pid, _ in rows]
    assert pids
    until(
        lambda: (
            admin.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(%s)", [pids]
            ).fetchone()
            == (0,)
        )
    )


@contextmanager
def slow_logins(servers: Sequence[Server], dbname: str, seconds: int = 2) -> Iterator[None]:
    """Servers that let nobody in before so much time is over, and have ended the monitors'
    sessions; what is connected is served as ever."""
    with ExitStack() as stack:
        admins = [
            stack.enter_context(psycopg.connect(server.conninfo(), autocommit=True))
            for server in servers
        ]
        for admin in admins:
            stack.callback(_set, admin, "RESET pre_auth_delay", "0")
            _set(admin, f"SET pre_auth_delay = {seconds}", f"{seconds}s")
        for admin in admins:
            _end(admin, dbname)
        yield


def _set(admin: psycopg.Connection[Any], what: str, wanted: str) -> None:
    admin.execute(f"ALTER SYSTEM {what}".encode())
    admin.execute("SELECT pg_reload_conf()")
    # A server process hears of it after the postmaster, which is who delays logins.
    until(lambda: admin.execute("SHOW pre_auth_delay").fetchone() == (wanted,))


def leave_no_room(cluster: Cluster, dbname: str, role: str) -> None:
    """Have servers admit one connection of `role`, which each pool has, and end the monitors'."""
    cluster.primary.execute(f"ALTER ROLE {role} CONNECTION LIMIT 1")
    cluster.wait_caught_up()
    end_monitors(cluster.servers, dbname)


def role_for(cluster: Cluster, dbname: str) -> str:
    """A role for one test, which may do what it likes in its database, but is no superuser."""
    role = f"app_{dbname}"
    for sql in (
        f"CREATE ROLE {role} LOGIN",
        f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}",
        f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}",
        f"GRANT pg_read_all_stats TO {role}",
    ):
        cluster.primary.execute(sql, dbname=dbname)
    cluster.wait_caught_up()
    return role


@contextmanager
def computing(threads: int) -> Iterator[None]:
    """Threads that compute, so that each step of another one waits for all of them."""
    over, interval = threading.Event(), sys.getswitchinterval()

    def compute() -> None:
        while not over.is_set():
            sum(range(10_000))

    workers = [threading.Thread(target=compute, daemon=True) for _ in range(threads)]
    sys.setswitchinterval(0.01)
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        over.set()
        for worker in workers:
            worker.join(30)
