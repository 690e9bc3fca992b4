"""The router beside a real pg_auto_failover, which it is told nothing of."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from router.sqlalchemy import RoutedEngine
from router.testing.ports import HOST, free_port
from tests.failover.managed import (
    TABLE,
    Load,
    Server,
    Stage,
    reads_on,
    routed,
    set_up,
    successor,
    until,
)
from tests.servers import require

pytestmark = pytest.mark.slow

BINARIES = Path("/usr/lib/postgresql/15/bin")
"""Of the PostgreSQL that Debian bookworm's pg_auto_failover is made for."""

_QUICK = """
pgautofailover.health_check_period = '1s'
pgautofailover.health_check_timeout = '1s'
pgautofailover.health_check_retry_delay = '200ms'
pgautofailover.node_considered_unhealthy_timeout = '4s'
pgautofailover.startup_grace_period = '1s'
pgautofailover.primary_demote_timeout = '3s'
"""


class AutoFailover:
    """A monitor, and `count` servers with a keeper each, of which the first leads."""

    def __init__(self, stage: Stage, count: int) -> None:
        self._stage = stage
        self._program = require("pg_autoctl")
        places = {"XDG_RUNTIME_DIR": "run", "XDG_CONFIG_HOME": "conf", "XDG_DATA_HOME": "share"}
        self._env = {name: str(stage.directory(place)) for name, place in places.items()}
        path = f"{BINARIES}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        # PGHOST: no socket in a directory of the system's.
        self._env |= {"PATH": path, "HOME": str(stage.home), "PGHOST": HOST}
        self._env |= {"LC_ALL": "C.UTF-8"}  # in C its databases would be in SQL_ASCII
        self._monitor = self._start_monitor(free_port())
        self.servers: list[Server] = []
        for number in range(count):
            self._add(f"node{number + 1}")
        self.wait()

    @property
    def leader(self) -> Server:
        [leader] = [server for server in self.servers if server.leads]
        return leader

    def others(self, server: Server) -> list[Server]:
        return [each for each in self.servers if each is not server]

    def wait(self) -> None:
        """Wait until the monitor has one primary, and the others as its replicas."""
        states = ["primary", *["secondary"] * (len(self.servers) - 1)]

        def settled() -> bool:
            said = json.loads(self.ask(self.servers[0], "show", "state", "--json"))
            return sorted(node["current_group_state"] for node in said) == states

        until(settled, "one is primary, the others are its replicas")

    def ask(self, server: Server, *command: str) -> str:
        """What pg_autoctl says of `server`."""
        return self._stage.run(self._program, *command, "--pgdata", server.data, **self._env)

    def start(self, server: Server) -> None:
        """Start the keeper of `server`, which starts its server."""
        server.manager = self._stage.start(
            server.name, self._program, "run", "--pgdata", server.data, **self._env
        )

    def _start_monitor(self, port: int) -> str:
        data = self._stage.home / "monitor"
        self._stage.run(*self._create("monitor", data, port), **self._env)
        with (data / "postgresql.conf").open("a") as file:
            file.write(_QUICK)
        listen = ("postgresql.listen_addresses", HOST)
        command = [self._program, "config", "set", "--pgdata", data, *listen]
        self._stage.run(*command, **self._env)
        self._stage.start("monitor", self._program, "run", "--pgdata", data, **self._env)
        url = f"postgres://autoctl_node@{HOST}:{port}/pg_auto_failover"
        until(lambda: answers(url), "the monitor answers")
        return url

    def _add(self, name: str) -> None:
        data, port = self._stage.home / name, free_port()
        command = self._create("postgres", data, port)
        command += ["--name", name, "--monitor", self._monitor, "--listen", HOST]
        command += ["--username", "postgres", "--dbname", "postgres"]
        self._stage.run(*command, **self._env)
        self.servers.append(Server(name, port, data, self._stage.log(name)))
        self.start(self.servers[-1])

    def _create(self, what: str, data: Path, port: int) -> list[object]:
        command: list[object] = [self._program, "create", what, "--pgctl", BINARIES / "pg_ctl"]
        command += ["--pgdata", data, "--pgport", port, "--hostname", HOST]
        return [*command, "--auth", "trust", "--no-ssl"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[AutoFailover]:
    require("pg_autoctl")
    with set_up() as stage:
        made = AutoFailover(stage, 2)
        made.leader.execute(TABLE)
        yield made


@contextmanager
def at_work(cluster: AutoFailover) -> Iterator[RoutedEngine]:
    """An engine that is told the servers' names only, once all are at work."""
    cluster.wait()
    first, *named = cluster.servers
    replicas = [server.url() for server in named]
    leader = cluster.leader
    with routed(leader, *cluster.others(leader), first=first, replicas=replicas) as engine:
        yield engine


def test_a_switchover_by_the_monitor_is_followed(cluster: AutoFailover) -> None:
    """While pg_auto_failover hands the lead over no read fails, every acknowledged write is on the
    new leader, and the old one serves reads again."""
    with at_work(cluster) as engine:
        old = cluster.leader
        with Load(engine, "switchover") as load:
            until(lambda: load.first(old), "a write")
            cluster.ask(old, "perform", "switchover")
            cluster.wait()
            new = cluster.leader
            assert new is not old
            until(lambda: load.first(new), "the new leader takes writes")
            until(lambda: reads_on(engine, old), "the old one serves reads")
        load.judge()
        assert load.missing(new) == set()
        print(f"pg_auto_failover, switchover: writes were refused for {load.pause():.1f} s")


def test_a_failover_by_the_monitor_is_followed(cluster: AutoFailover) -> None:
    """With the leader and its keeper killed no read fails, writes go on at the next leader and
    are kept, and the old one, started again, serves reads."""
    with at_work(cluster) as engine:
        old = cluster.leader
        with Load(engine, "kill") as load:
            until(lambda: load.first(old), "a write")
            old.kill()
            killed = time.monotonic()
            new, promoted = successor(cluster.others(old))
            went_on = until(lambda: load.first(new), "it takes writes")
            cluster.start(old)
            cluster.wait()
            until(lambda: reads_on(engine, old), "the old one serves reads")
        load.judge_move(new, since=killed)
        assert load.missing(new) == set()
        print(
            f"pg_auto_failover, kill: writes were refused for {load.pause():.1f} s, "
            f"{went_on - promoted:.1f} s of them after the promotion"
        )


def answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True
