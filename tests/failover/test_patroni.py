"""The router beside a real Patroni: three members, etcd, and clients that go on meanwhile."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from router import discovery
from router.sqlalchemy import RoutedEngine
from tests.failover.managed import TABLE, Load, reads_on, routed, successor, until
from tests.failover.patroni import TTL, Patroni, patroni
from tests.servers import require

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[Patroni]:
    require("etcd")
    with patroni() as made:
        made.leader.execute(TABLE)
        yield made


@contextmanager
def at_work(cluster: Patroni) -> Iterator[RoutedEngine]:
    """An engine over the members as their Patronis name them, once all are at work."""
    cluster.wait()
    leader = cluster.leader
    discover = discovery.patroni(*cluster.apis)
    others = cluster.others(leader)
    with routed(leader, *others, first=cluster.members[0], discovery=discover) as engine:
        yield engine


def test_patroni_names_the_members_and_the_probes_find_their_roles(cluster: Patroni) -> None:
    """An engine that is given one member's address, and the REST API, finds all members: it writes
    on the leader and reads on each of the others."""
    with at_work(cluster) as engine:
        nodes = [node.port for node in engine.router.snapshot.nodes]
        assert sorted(nodes) == sorted(member.port for member in cluster.members)
        with Load(engine) as load:
            until(lambda: load.first(cluster.leader) and len(load.served) > 1, "they work")
        load.judge()
        assert set(load.served) == {member.port for member in cluster.others(cluster.leader)}


def test_a_switchover_loses_no_write_and_fails_no_read(cluster: Patroni) -> None:
    """While Patroni hands the lead over no read fails, every acknowledged write is on the new
    leader, and the old one serves reads again."""
    with at_work(cluster) as engine:
        old = cluster.leader
        new = cluster.others(old)[0]
        with Load(engine, "switchover") as load:
            until(lambda: load.first(old), "a write")
            cluster.switchover(new)
            until(lambda: load.first(new), "the new leader takes writes")
            cluster.wait()
            until(lambda: reads_on(engine, old), "the old one serves reads")
        load.judge()
        assert load.missing(new) == set()
        print(f"switchover: writes were refused for {load.pause():.1f} s")


def test_after_a_killed_leader_writes_go_to_the_new_one_only(cluster: Patroni) -> None:
    """With the leader and its Patroni killed no read fails, writes go on at the next leader, and
    the old one, back as a replica, gets no write, and serves reads."""
    with at_work(cluster) as engine:
        old = cluster.leader
        with Load(engine, "kill") as load:
            until(lambda: load.first(old), "a write")
            old.kill()
            killed = time.monotonic()
            new, promoted = successor(cluster.others(old))
            went_on = until(lambda: load.first(new), "the new leader takes writes")
            back = old.log.stat().st_size
            cluster.start(old)
            cluster.wait()
            until(lambda: reads_on(engine, old), "the old one serves reads")
        load.judge_move(new, since=killed)
        assert old.tried(back) == set()
        print(
            f"kill: writes were refused for {load.pause():.1f} s (ttl {TTL} s), "
            f"{went_on - promoted:.1f} s of them after the promotion; "
            f"{len(load.missing(new))} acknowledged before were lost"
        )


def test_a_frozen_leader_that_wakes_up_gets_no_write(cluster: Patroni) -> None:
    """With the leader and its Patroni frozen until the router follows another, and then thawed,
    no write acknowledged after the promotion is lost, and on the old leader none is tried but what
    had been sent there before."""
    with at_work(cluster) as engine:
        old = cluster.leader
        with Load(engine, "before") as before:
            until(lambda: before.first(old), "a write")
            old.freeze()
            with Load(engine, "after") as after:
                new, promoted = successor(cluster.others(old))
                went_on = until(lambda: after.first(new), "the new leader takes writes")
                woken = old.log.stat().st_size
                old.thaw()
                until(lambda: before.first(new), "clients that hung go on")
                cluster.wait()
                until(lambda: reads_on(engine, old), "the old one serves reads")
        sent = set()
        for load in (before, after):
            load.judge_move(new, since=promoted)
            sent |= {name for name, begun in load.begun.items() if begun < promoted}
        assert old.tried(woken) <= sent
        print(
            f"freeze: clients that hung wrote nothing for {before.pause():.1f} s (ttl {TTL} s), "
            f"others until {went_on - promoted:.1f} s after the promotion; "
            f"{len(old.tried(woken))} writes that hung were tried on the old leader"
        )
