"""Servers that answer and fail over as those of Amazon RDS and Aurora do."""

import json
import secrets
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from django.db.utils import OperationalError

import router
from router.connect.dns import RESOLVE_INTERVAL
from router.testing import Cluster, Server
from tests.conftest import MakeCluster
from tests.failover.endpoint import Address, Endpoint, Endpoints, free_port, names
from tests.failover.kit import PORT, ROLE, WRITE, Door, doors, follow, prepare, until, url
from tests.native.kit import DRIVER_ERRORS

CUT = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
 WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
"""
COUNT = "SELECT count(*) FROM item"
WRITER = "writer.shop.test"
WRITING = ("engine", "asyncpg")
PATIENCE = 5.0
"""Seconds by which a busy machine may be late."""


class Journal:
    """What a process of `tests.failover.writing` tells of its attempts, as it comes."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.attempts: list[dict[str, Any]] = []
        self._process = process
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.attempts.append(json.loads(line))

    def taken(self, door: str, server: Server) -> list[dict[str, Any]]:
        """The writes through `door` that `server` has acknowledged."""
        return [a for a in self.attempts if (a["door"], a.get("port")) == (door, server.port)]

    def await_writes(self, server: Server) -> None:
        """Wait until `server` has taken some writes of each door."""
        for door in WRITING:
            enough = partial(self._several, door, server)
            until(enough, f"{door} writes to {server.name}", 60)

    def _several(self, door: str, server: Server) -> bool:
        return len(self.taken(door, server)) >= 10

    def end(self) -> None:
        """End the process, and take in the last it says."""
        self._process.kill()
        self._reader.join()


@pytest.mark.parametrize("old_one", ["dies", "lives on"])
def test_the_writers_name_is_followed_to_the_promoted_server(
    make_cluster: MakeCluster, old_one: str
) -> None:
    """Writes follow the writer's name to the promoted server, and all that it acknowledges are
    there. An old server that lives on takes none later than the next look-up of the name that
    moved, and no statement fails; but a commit under way there, just as the other server is met,
    is told as unknown."""
    cluster = make_cluster(2)
    prepare(cluster)
    old, (new, reads) = cluster.primary, cluster.replicas
    port = free_port()
    options = {
        "url": f"postgresql://postgres@{WRITER}:{port}/postgres",
        "replicas": [url(reads, "postgres")],
        "probe_interval": 0.2,
    }
    with names() as known, Address("127.0.0.2", port, old), Address("127.0.0.3", port, new):
        known.lead(WRITER, "127.0.0.2")
        with known.process("tests.failover.writing", json.dumps(options)) as process:
            journal = Journal(process)
            journal.await_writes(old)
            if old_one == "dies":
                old.kill()
            new.promote()
            cluster.repoint(reads)
            known.lead(WRITER, "127.0.0.3")
            moved = time.monotonic()
            journal.await_writes(new)
            journal.end()
    for door in WRITING:
        first, last = journal.taken(door, new)[0], journal.taken(door, old)[-1]
        assert last["ended"] < first["ended"], door
        if old_one == "lives on":
            assert last["began"] < moved + RESOLVE_INTERVAL + PATIENCE, door
            errors = [a["error"] for a in journal.attempts if "error" in a]
            assert [e for e in errors if not e.startswith("CommitUnknown")] == []
            assert len(errors) <= len(WRITING)
    acknowledged = sum(len(journal.taken(door, new)) for door in WRITING)
    assert new.execute("SELECT count(*) >= %s FROM item", [acknowledged]) == [(True,)]


def forget_connections(door: Door) -> None:
    """Have `door` open its next connection to a replica anew, which leads to the next server, and
    know what there is now: else a context that just read from the primary reads there again."""
    door.router.refresh()
    for node in door.router.snapshot.replicas:
        door.router.membership.retire(node)


def test_behind_a_readers_name_a_write_is_seen_when_pins_go_by_time(
    make_cluster: MakeCluster,
) -> None:
    """One name leads to all replicas by turns, and one of them is late: who wrote sees it on every
    connection, at every door, where pins go by time and longer than that."""
    cluster = make_cluster(2)
    prepare(cluster)
    late = cluster.replicas[1]
    late.set_lag(1)
    options: dict[str, Any] = {"consistency": "time", "pin_duration": 4}
    with Address("127.0.0.4", free_port(), *cluster.replicas) as reader:
        ends: Any = Endpoints(cluster.primary, [Endpoint(reader, cluster.primary)])
        with doors(ends, **options) as opened, router.request_context():
            for number, door in enumerate(opened):
                door.run(WRITE)
                assert door.run(COUNT) == number + 1, door.name
            served: set[int] = set()
            wait = time.monotonic() + options["pin_duration"] + PATIENCE
            while time.monotonic() < wait and len(served) < 3:
                for door in opened:
                    forget_connections(door)
                    served.add(door.run(PORT))
                    assert door.run(COUNT) == len(opened), door.name
    assert served == {server.port for server in cluster.servers}


@pytest.mark.parametrize("functions", ["revoked", "raise", "tell nothing"])
def test_without_wal_functions_pins_go_by_time_and_reads_to_replicas(
    blind: Cluster, functions: str
) -> None:
    """Where the WAL functions may not be called, fail or give NULL, every door starts, reads from
    replicas, pins by time after a write, and says so once; no error reaches anybody."""
    role = ROLES[functions]
    with doors(blind, role, pin_duration=2) as opened, router.request_context():
        for door in opened:
            until(partial(leaves, door, blind.primary), f"{door.name} reads from a replica")
        began = time.monotonic()
        for door in opened:
            door.run(WRITE)
            assert time.monotonic() - began > 2 or not leaves(door, blind.primary), door.name
        for door in opened:
            until(partial(leaves, door, blind.primary), f"{door.name} reads there again")
        assert time.monotonic() - began > 2
        for door in opened:
            events = door.router.stats()["events"]
            assert events["no_positions"] == 1
            assert events.keys() <= {"no_positions", "pin_set", "pin_expired"}, door.name


ROLES = {"revoked": "app", "raise": "raising", "tell nothing": "nulls"}
POSITIONS = (
    "pg_last_wal_replay_lsn", "pg_last_wal_receive_lsn", "pg_current_wal_lsn",
    "pg_current_wal_insert_lsn", "pg_current_wal_flush_lsn",
)  # fmt: skip


@pytest.fixture(scope="module")
def blind() -> Iterator[Cluster]:
    """A cluster with a role for each way in which a server may tell no positions."""
    with Cluster(2) as cluster:
        prepare(cluster)
        run = cluster.primary.execute
        for name in POSITIONS:
            run(f"REVOKE EXECUTE ON FUNCTION {name}() FROM PUBLIC")
        bodies = {
            "raising": "BEGIN RAISE feature_not_supported USING"
            " MESSAGE = 'not supported for Aurora'; END",
            "nulls": "BEGIN RETURN NULL; END",
        }
        for role, body in bodies.items():
            run(f"CREATE ROLE {role} LOGIN IN ROLE app")
            run(f"CREATE SCHEMA {role} AUTHORIZATION {role}")
            # Found before the server's own functions.
            run(f"ALTER ROLE {role} SET search_path = {role}, pg_catalog, public")
            for name in POSITIONS:
                run(
                    f"CREATE FUNCTION {role}.{name}() RETURNS pg_lsn LANGUAGE plpgsql"
                    f" AS $${body}$$"
                )
        cluster.wait_caught_up()
        yield cluster


def test_a_failover_by_restart_costs_reads_nothing(make_cluster: MakeCluster) -> None:
    """The old primary comes back as a replica. No read fails at any door, not even where all
    connections of all servers are cut at once; writes fail until the promoted server is followed,
    after that at most once where one meets a connection that was cut; none that was acknowledged
    is lost."""
    cluster = make_cluster(2)
    prepare(cluster)
    old, (new, other) = cluster.primary, cluster.replicas
    ports = {server.port for server in cluster.servers}
    kept: Counter[str] = Counter()
    refused: list[tuple[str, bool]] = []

    def fail_over() -> None:
        old.stop()  # it sends its last WAL before it ends
        new.promote()
        cluster.repoint(old, other)
        old.start()

    def attempt(door: Door) -> None:
        assert door.read() in ports, door.name
        followed = door.follows(new)
        try:
            door.write()
        except LOST:
            refused.append((door.name, followed))
        else:
            kept[door.name] += 1

    with doors(cluster) as opened:
        for door in opened:
            attempt(door)
        assert refused == []
        failing = threading.Thread(target=fail_over)
        failing.start()
        while failing.is_alive():
            for door in opened:
                attempt(door)
        failing.join()
        assert [name for name, followed in refused if followed] == []
        follow(opened, new)
        for door in opened:
            until(partial(reads_from, door, old), f"{door.name} may read from the old primary")
        for server in cluster.servers:
            server.execute(CUT)
        refused.clear()
        for door in opened:
            attempt(door)
            attempt(door)
        assert max(Counter(name for name, _ in refused).values(), default=0) <= 1
    assert new.execute("SELECT count(*) FROM item") >= [(sum(kept.values()),)]


def leaves(door: Door, primary: Server) -> bool:
    """Whether a read through `door` runs on another server than `primary`."""
    return bool(door.run(PORT) != primary.port)


def reads_from(door: Door, server: Server) -> bool:
    """Whether `server` may serve the reads of `door`."""
    return server.port in {node.port for node in door.router.refresh().replicas}


LOST = (sa.exc.DBAPIError, *DRIVER_ERRORS, OperationalError)
"""What a statement raises that meets a connection which has ended."""


class Tokens:
    """Passwords of the role "app" that are good until the next one: as those of IAM, but that the
    server forgets each when the next is issued."""

    def __init__(self, cluster: Cluster, file: Path) -> None:
        self.current = ""
        self._cluster = cluster
        self._file = file
        self.issue()

    def issue(self) -> None:
        """Another token, in place of the one before, and no connection by that one left."""
        self.current = secrets.token_hex(16)
        fresh = self._file.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_text(f"*:*:*:{ROLE}:{self.current}\n")
        self._cluster.primary.execute(f"ALTER ROLE {ROLE} PASSWORD '{self.current}'")
        self._cluster.wait_caught_up()
        fresh.replace(self._file)
        for server in self._cluster.servers:
            server.execute(CUT)


@pytest.fixture(scope="module")
def guarded() -> Iterator[Cluster]:
    """A cluster that asks for passwords."""
    with Cluster(1, password="of the owner") as cluster:
        prepare(cluster)
        yield cluster


def goes_on(opened: list[Door], tokens: Tokens, cluster: Cluster) -> None:
    """Reads and writes go on at every door over two changes of the token, and probes with them."""
    told: list[str] = []
    for door in opened:
        door.router.telemetry.hooks.append(lambda event, _: told.append(event))
    for _ in range(2):
        for door in opened:
            until(partial(leaves, door, cluster.primary), f"{door.name} reads from a replica")
            door.write()
        tokens.issue()
        for door in opened:
            # A write that meets a connection which was cut is not sent again.
            with suppress(*LOST):
                door.write()
            assert door.router.refresh().replicas, door.name
    assert "probe_refused" not in told


def test_a_file_of_passwords_may_hold_tokens(
    guarded: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where PGPASSFILE names a file in which each token replaces the one before, every door and
    its monitor connect by the newest."""
    tokens = Tokens(guarded, tmp_path / "pgpass")
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "pgpass"))
    with doors(guarded, ROLE) as opened:
        goes_on(opened, tokens, guarded)


def test_a_listener_may_give_a_token_for_each_connection(guarded: Cluster, tmp_path: Path) -> None:
    """The password that a do_connect listener gives is that of an engine's connections and of its
    monitor's, on psycopg and on asyncpg."""
    tokens = Tokens(guarded, tmp_path / "unused")

    def give(_dialect: Any, _record: Any, _args: Any, parameters: dict[str, Any]) -> None:
        parameters["password"] = tokens.current

    sa.event.listen(sa.Engine, "do_connect", give)
    try:
        with doors(guarded, ROLE, only=("engine", "async engine")) as opened:
            goes_on(opened, tokens, guarded)
    finally:
        sa.event.remove(sa.Engine, "do_connect", give)
