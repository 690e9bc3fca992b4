"""Many threads, and a replica that dies and comes back in the middle."""

import random
import threading
import time
import uuid
from collections import Counter

import pytest
import sqlalchemy as sa

import router
from router.sqlalchemy import RoutedEngine
from tests.conftest import MakeCluster

THREADS, REQUESTS = 100, 120


@pytest.mark.slow
def test_a_replicas_death_is_invisible_to_a_hundred_threads(make_cluster: MakeCluster) -> None:
    """100 threads × 120 mixed requests with one replica killed and restarted in the middle: no
    failed read, no write lost, none executed twice, no stale own-read."""
    cluster = make_cluster()
    cluster.primary.execute("CREATE TABLE entry (id uuid, owner int, n int)")
    cluster.wait_caught_up()
    engine = router.create_engine(
        cluster.primary.url(),
        replicas=[r.url() for r in cluster.replicas],
        pool_size=20,
        max_overflow=40,
        blacklist_duration=0.5,
        probe_interval=0.2,
    )
    victim = cluster.replicas[0]
    failures: list[str] = []
    stale: list[str] = []
    written: list[uuid.UUID] = []
    served: Counter[str] = Counter()
    done = Counter[str]()
    third, two_thirds = threading.Event(), threading.Event()
    insert = sa.text("INSERT INTO entry VALUES (:id, :owner, :n)")
    own = sa.text("SELECT count(*) FROM entry WHERE id = :id")
    read = sa.text("SELECT inet_server_port(), count(*) FROM entry WHERE owner = :owner")
    ports = {s.port: s.name for s in cluster.servers}

    def request(rng: random.Random, owner: int, n: int) -> None:
        with router.request_context(), engine.connect() as connection:
            if rng.random() < 0.2:
                key = uuid.UUID(int=rng.getrandbits(128))
                connection.execute(insert, {"id": key, "owner": owner, "n": n})
                connection.commit()
                written.append(key)
                if connection.scalar(own, {"id": key}) != 1:
                    stale.append(str(key))
            else:
                port, _ = connection.execute(read, {"owner": owner}).one()
                served[ports[port]] += 1

    def work(owner: int) -> None:
        rng = random.Random(owner)
        for n in range(REQUESTS):
            try:
                request(rng, owner, n)
            except Exception as error:
                failures.append(f"{type(error).__name__}: {error}")
            done["requests"] += 1
            if done["requests"] > THREADS * REQUESTS / 3:
                third.set()
            if done["requests"] > THREADS * REQUESTS * 2 / 3:
                two_thirds.set()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(THREADS)]
    try:
        for thread in threads:
            thread.start()
        assert third.wait(120)
        victim.kill()
        assert two_thirds.wait(120)
        victim.start()
        for thread in threads:
            thread.join(120)
        assert not any(thread.is_alive() for thread in threads)
        assert failures == []
        assert stale == []
        rows = cluster.primary.execute("SELECT id, count(*) FROM entry GROUP BY id")
        assert dict(rows) == dict.fromkeys(written, 1)
        assert served["replica1"]
        assert served["replica2"]
        _await_restored(engine, victim.name)
    finally:
        engine.dispose()
    total = sum(served.values())
    print(f"reads by server: {dict(served)}; {total} reads, {len(written)} writes")
    print(engine.router.stats()["events"])


def _await_restored(engine: RoutedEngine, name: str) -> None:
    deadline = time.monotonic() + 15
    while name not in {n.name for n in engine.router.replicas}:
        assert time.monotonic() < deadline, "the restarted replica was not taken back"
        engine.router.refresh()
