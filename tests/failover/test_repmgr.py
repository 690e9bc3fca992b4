"""The router beside a real repmgr, which it is told nothing of."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from router.testing import Cluster
from router.testing.ports import HOST
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
"""Of the PostgreSQL that Debian bookworm's repmgr is made for."""


class Repmgr:
    """A repmgr node, with its repmgrd, for each server of `cluster`."""

    def __init__(self, stage: Stage, cluster: Cluster) -> None:
        self._stage = stage
        self._cluster = cluster
        self.repmgr = require("repmgr")
        assert cluster.directory is not None
        home = cluster.directory
        self.servers = [
            Server(s.name, s.port, s.data, home / f"{s.name}.log") for s in cluster.servers
        ]
        for number, server in enumerate(self.servers, 1):
            config = stage.home / f"{server.name}.conf"
            config.write_text(self._config(number, server))
            stage.who.own(config)
            self.ask(server, "standby" if number > 1 else "primary", "register")
        for server in self.servers:
            # Not its manager: repmgrd outlives its server, which is started anew for it.
            stage.start(
                server.name,
                f"{BINARIES}/repmgrd",
                "-f",
                self._conf(server),
                "--daemonize=false",
                "--no-pid-file",
            )

    def ask(self, server: Server, *command: str) -> str:
        """What repmgr says, run on the machine of `server`."""
        return self._stage.run(self.repmgr, "-f", self._conf(server), *command)

    def _conf(self, server: Server) -> str:
        return str(self._stage.home / f"{server.name}.conf")

    def _config(self, number: int, server: Server) -> str:
        me = f"{self.repmgr} -f {self._conf(server)}"
        # Its port: pg_rewind copies the other's configuration files.
        start = f"{BINARIES}/pg_ctl -w -D {server.data} -l {server.log}"
        start += f' -o "-p {server.port}" start'
        settings = {
            "node_id": number,
            "node_name": server.name,
            "conninfo": conninfo(server),
            "data_directory": server.data,
            "pg_bindir": BINARIES,
            "service_start_command": start,
            "use_replication_slots": "yes",
            "failover": "automatic",
            "promote_command": f"{me} standby promote",
            "follow_command": f"{me} standby follow --upstream-node-id=%n",
            "monitor_interval_secs": 1,
            "reconnect_attempts": 2,
            "reconnect_interval": 1,
        }
        return "".join(f"{name}='{value}'\n" for name, value in settings.items())

    def kill(self, server: Server) -> None:
        """SIGKILL the server; its repmgrd lives on."""
        self._cluster.server_at(server.port).kill()

    def rejoin(self, server: Server, leader: Server) -> str:
        """Make `server`, which is stopped, follow `leader` by pg_rewind."""
        known = f"SELECT type = 'primary' FROM repmgr.nodes WHERE node_name = '{leader.name}'"
        until(lambda: leader.answers(known), "repmgr knows of the promotion")
        # Before 16 pg_rewind finds nothing to do while the promoted server's control file still
        # has the old timeline; the next checkpoint writes the new one.
        leader.execute("CHECKPOINT")
        return self.ask(server, "node", "rejoin", "-d", conninfo(leader), "--force-rewind")


def conninfo(server: Server) -> str:
    return f"host={HOST} port={server.port} user=postgres dbname=postgres"


@pytest.fixture
def repmgr() -> Iterator[Repmgr]:
    """Three servers of which the first leads, watched by repmgrd."""
    require("repmgr")
    settings = {
        "shared_preload_libraries": "repmgr",
        "wal_log_hints": "on",
        "log_statement": "mod",
    }
    with Cluster(2, binaries=BINARIES, settings=settings) as cluster, set_up() as stage:
        cluster.primary.execute(TABLE)
        made = Repmgr(stage, cluster)
        first = made.servers[0]
        until(lambda: "not running" not in made.ask(first, "service", "status"), "repmgrd runs")
        yield made


def test_a_failover_by_repmgrd_is_followed(repmgr: Repmgr) -> None:
    """Told only the servers' names, an engine goes on writing on the one that repmgrd promotes
    after the primary was killed, fails no read, and reads on the old one when repmgr has rejoined
    it."""
    old, *others = repmgr.servers
    replicas = [server.url() for server in others]
    with routed(old, *others, first=old, replicas=replicas) as engine:
        with Load(engine) as load:
            until(lambda: load.first(old), "a write")
            repmgr.kill(old)
            killed = time.monotonic()
            new, promoted = successor(others)
            went_on = until(lambda: load.first(new), "it takes writes")
            [other] = [server for server in others if server is not new]
            until(lambda: other.streams, "the other follows it")
            until(lambda: reads_on(engine, other), "the other serves reads")
            back = old.log.stat().st_size
            repmgr.rejoin(old, new)
            until(lambda: reads_on(engine, old), "the old one serves reads")
        load.judge_move(new, since=killed)
        assert old.tried(back) == set()
        print(
            f"repmgr: writes were refused for {load.pause():.1f} s, {went_on - promoted:.1f} s of "
            f"them after the promotion; {len(load.missing(new))} acknowledged before were lost"
        )
