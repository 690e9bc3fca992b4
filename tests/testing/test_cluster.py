"""The embedded cluster does to real servers what its methods say."""

import time
from collections.abc import Iterator

import psycopg
import pytest

from router.testing import Cluster, Server, ServerFailed
from router.testing.server import _end_of_record
from tests.conftest import Database, MakeCluster


def rows(server: Server) -> int:
    return int(server.execute("SELECT count(*) FROM t")[0][0])


@pytest.fixture(scope="module")
def own() -> Iterator[Cluster]:
    """A cluster for this file, healed between the tests."""
    with Cluster() as started:
        started.primary.execute("CREATE TABLE t (n int)")
        yield started


@pytest.fixture
def healed(own: Cluster) -> Iterator[Cluster]:
    own.primary.execute("TRUNCATE t")
    own.wait_caught_up()
    yield own
    own.heal()


def test_starting_is_quick(capsys: pytest.CaptureFixture[str]) -> None:
    """One call makes three servers of one system, two of them in recovery."""
    begun = time.perf_counter()
    with Cluster() as cluster:
        took = time.perf_counter() - begun
        systems = {
            server.execute("SELECT system_identifier FROM pg_control_system()")[0][0]
            for server in cluster.servers
        }
        assert len(systems) == 1
        assert [server.is_in_recovery() for server in cluster.servers] == [False, True, True]
    with capsys.disabled():
        print(f" [1+2 servers in {took:.2f} s]", end="")


def test_replicas_stream_through_slots_of_their_own(healed: Cluster) -> None:
    """Each replica streams under its name, through a slot of its name."""
    found = healed.primary.execute(
        "SELECT application_name, slot_name, state FROM pg_stat_replication"
        " JOIN pg_replication_slots ON active_pid = pid ORDER BY 1"
    )
    assert found == [(name, name, "streaming") for name in ("replica1", "replica2")]


def test_a_write_reaches_every_replica(healed: Cluster) -> None:
    """After wait_caught_up() every replica shows what the primary had committed."""
    for number in range(20):
        healed.primary.execute("INSERT INTO t VALUES (%s)", [number])
        healed.wait_caught_up()
        assert [rows(replica) for replica in healed.replicas] == [number + 1] * 2


def test_an_open_transaction_does_not_hold_up_catching_up(healed: Cluster) -> None:
    """WAL that an open transaction has written but not flushed can be waited for."""
    with psycopg.connect(healed.primary.conninfo()) as connection:
        connection.execute("INSERT INTO t VALUES (1)")
        healed.wait_caught_up(timeout=5)
        connection.rollback()


@pytest.mark.parametrize(
    ("insert", "end"),
    [
        (5 * 8192 + 24, 5 * 8192),
        (16 << 20 | 40, 16 << 20),
        (5 * 8192 + 40, 5 * 8192 + 40),
        (16 << 20 | 24, 16 << 20 | 24),
        (5 * 8192 + 4000, 5 * 8192 + 4000),
    ],
)
def test_the_header_of_a_page_to_come_is_not_waited_for(insert: int, end: int) -> None:
    """An insert position just behind a page header means the end of the page before it."""
    assert _end_of_record(insert) == end


def test_kill_and_start(healed: Cluster) -> None:
    """A killed replica refuses connections, and has caught up after start()."""
    victim = healed.replicas[0]
    victim.kill()
    assert not victim.running
    assert victim.pid is None
    with pytest.raises(psycopg.OperationalError, match="refused"):
        victim.execute("SELECT 1")
    healed.primary.execute("INSERT INTO t VALUES (1)")
    healed.wait_caught_up()  # the dead one is not waited for
    victim.start()
    victim.wait_caught_up()
    assert rows(victim) == 1


@pytest.mark.parametrize("mode", ["smart", "fast", "immediate"])
def test_stop_and_start(healed: Cluster, mode: str) -> None:
    """stop() ends a server in each of PostgreSQL's modes, and start() brings it back."""
    healed.primary.stop(mode)
    assert not healed.primary.running
    healed.primary.start()
    assert healed.primary.execute("SELECT 1") == [(1,)]


def test_stop_refuses_an_unknown_mode(healed: Cluster) -> None:
    """An unknown mode is an error that names the known ones."""
    with pytest.raises(ValueError, match="mode='quick' is unknown: use one of smart, fast"):
        healed.primary.stop("quick")


def test_paused_replay_shows_the_past(healed: Cluster) -> None:
    """A paused replica answers without what was written since; resumed, it has it."""
    replica, other = healed.replicas
    replica.pause_replay()
    healed.primary.execute("INSERT INTO t VALUES (1)")
    other.wait_caught_up()
    assert (rows(replica), rows(other)) == (0, 1)
    with pytest.raises(TimeoutError, match=r"replica1 has not replayed up to .* in 0\.05 s"):
        replica.wait_caught_up(timeout=0.05)
    replica.resume_replay()
    replica.wait_caught_up()
    assert rows(replica) == 1


def test_a_block_without_replay(healed: Cluster) -> None:
    """No replica replays anything in the block, and all do after it."""
    with healed.replay_paused():
        healed.primary.execute("INSERT INTO t VALUES (1)")
        assert [rows(replica) for replica in healed.replicas] == [0, 0]
    healed.wait_caught_up()
    assert [rows(replica) for replica in healed.replicas] == [1, 1]


def test_lag_delays_a_commit(healed: Cluster) -> None:
    """With set_lag() a commit shows up late on that replica, and at once after set_lag(0)."""
    replica, other = healed.replicas
    replica.set_lag(60)
    healed.primary.execute("INSERT INTO t VALUES (1)")
    other.wait_caught_up()
    assert (rows(replica), rows(other)) == (0, 1)
    replica.set_lag(0)
    replica.wait_caught_up()
    assert rows(replica) == 1


def test_a_frozen_server_accepts_and_says_nothing(healed: Cluster) -> None:
    """A frozen server lets a client wait instead of refusing it; thawed, it answers."""
    replica = healed.replicas[0]
    with psycopg.connect(replica.conninfo(), autocommit=True) as connection:
        replica.freeze()
        with pytest.raises(psycopg.errors.ConnectionTimeout):
            psycopg.connect(replica.conninfo(), connect_timeout=2)
        assert replica.running
        replica.thaw()
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_frozen_server_can_be_killed(healed: Cluster) -> None:
    """kill() ends frozen processes too."""
    replica = healed.replicas[1]
    replica.freeze()
    replica.kill()
    assert not replica.running
    assert not replica.frozen


def test_heal_puts_every_server_to_work_again(healed: Cluster) -> None:
    """heal() starts what is stopped, thaws, resumes and ends lag."""
    first, second = healed.replicas
    healed.primary.freeze()
    first.kill()
    second.pause_replay()
    healed.heal()
    second.set_lag(60)
    healed.heal()
    healed.primary.execute("INSERT INTO t VALUES (1)")
    healed.wait_caught_up()
    assert [rows(first), rows(second)] == [1, 1]


def test_promotion_repointing_and_rejoining(make_cluster: MakeCluster) -> None:
    """A promoted replica is the primary, the others can follow it, and the old primary too."""
    cluster = make_cluster(password="s3cret' \\:/@")
    old = cluster.primary
    first, second = cluster.replicas
    old.execute("CREATE TABLE t (n int)")
    cluster.wait_caught_up()
    old.kill()
    first.promote()
    assert cluster.primary is first
    assert list(cluster.replicas) == [second]
    first.execute("INSERT INTO t VALUES (1)")
    cluster.repoint()
    cluster.wait_caught_up()
    assert rows(second) == 1
    cluster.rejoin(old)
    assert list(cluster.replicas) == [old, second]
    added = cluster.add_replica()
    first.execute("INSERT INTO t VALUES (2)")
    cluster.wait_caught_up()
    assert [rows(server) for server in (old, second, added)] == [2, 2, 2]
    assert [server.is_in_recovery() for server in cluster.servers] == [True, False, True, True]
    assert added.name == "replica3"
    with pytest.raises(ValueError, match="replica1 is the primary"):
        cluster.rejoin(first)


def test_a_password_is_asked_for_and_told_nowhere(make_cluster: MakeCluster) -> None:
    """With password= a client needs it, url() and conninfo() hold it, and nothing else does."""
    cluster = make_cluster(1, password="s3cret")
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(cluster.primary.url().replace("s3cret", "wrong"))
    for text in (cluster.primary.url(), cluster.primary.conninfo()):
        with psycopg.connect(text) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert "s3cret" in text
    assert "s3cret" not in repr(cluster) + "".join(s.log() + repr(s) for s in cluster.servers)


def test_urls_name_driver_and_database(healed: Cluster) -> None:
    """urls() gives the primary's first and takes driver and database."""
    ports = [server.port for server in healed.servers]
    assert healed.urls("d b", driver="psycopg") == tuple(
        f"postgresql+psycopg://postgres@127.0.0.1:{port}/d%20b" for port in ports
    )


def test_a_server_is_found_by_the_port_it_tells(healed: Cluster) -> None:
    """server_at() leads from inet_server_port() to the server that was asked."""
    for server in healed.servers:
        assert healed.server_at(server.execute("SELECT inet_server_port()")[0][0]) is server
    with pytest.raises(LookupError, match="port 1"):
        healed.server_at(1)


def test_two_clusters_live_side_by_side(healed: Cluster, make_cluster: MakeCluster) -> None:
    """Killing in one cluster does not touch another whose servers have the same names."""
    other = make_cluster(1)
    for server in other.servers:
        server.kill()
    assert all(server.running for server in healed.servers)


def test_own_settings_reach_every_server(make_cluster: MakeCluster) -> None:
    """settings= are in effect on primary and replicas, and not for what the cluster decides."""
    cluster = make_cluster(1, settings={"work_mem": "77MB", "application_name": "it's \\ me"})
    for server in cluster.servers:
        assert server.execute("SHOW work_mem") == [("77MB",)]
        assert server.execute("SHOW application_name") == [("it's \\ me",)]
    with pytest.raises(ValueError, match=r"settings\['port'\] is set by the cluster"):
        Cluster(settings={"port": "5432"})


def test_a_failed_start_shows_the_log() -> None:
    """A setting that PostgreSQL refuses is in the error, in the server's own words."""
    cluster = Cluster(1, settings={"work_mem": "much"})
    with pytest.raises(ServerFailed, match='invalid value for parameter "work_mem": "much"'):
        cluster.start()
    assert cluster.directory is None


def test_the_database_is_on_every_server(cluster: Cluster, database: Database) -> None:
    """The fixture's database can be used on the primary and on each replica at once."""
    for url in (database.primary_url(), *database.replica_urls()):
        with psycopg.connect(url) as connection:
            row = connection.execute("SELECT current_database(), inet_server_port()").fetchone()
            assert row is not None
            assert row[0] == database.name
            assert database.served_by(row[1]) in cluster.servers
    assert database.execute("SELECT %s", [1]) == [(1,)]
