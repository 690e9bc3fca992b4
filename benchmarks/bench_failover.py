"""What users notice of a failover: reads failed and slowed by a kill, the time to the first write.

Five rounds, each on a cluster of its own, with a client that reads or writes without pause.
"""

import logging
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

import router
from benchmarks.harness import keep
from router.testing import Cluster

ROUNDS, PROBE_INTERVAL, READERS = 5, 1.0, 4
WHO = sa.text("SELECT inet_server_port()")


def until(what: Callable[[], bool], seconds: float = 60.0) -> float:
    """Seconds until `what` is true."""
    started = time.perf_counter()
    while not what():
        if time.perf_counter() - started > seconds:
            raise TimeoutError
        time.sleep(0.001)
    return time.perf_counter() - started


def a_kill(cluster: Cluster, engine: Any) -> dict[str, float]:
    """Readers meanwhile: one replica is killed, and started again."""
    victim = cluster.replicas[0]
    stop, failed, times = threading.Event(), [], []

    def read() -> None:
        while not stop.is_set():
            started = time.perf_counter()
            try:
                with router.request_context(), engine.connect() as connection:
                    port = connection.execute(WHO).scalar_one()
            except Exception as error:  # noqa: BLE001 - counted
                failed.append(f"{error}")
                continue
            times.append((started, time.perf_counter() - started, port))

    threads = [threading.Thread(target=read) for _ in range(READERS)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    killed = time.perf_counter()
    victim.kill()
    gone = time.perf_counter()
    time.sleep(2)
    victim.start()
    started = time.perf_counter()
    until(lambda: any(at > started and port == victim.port for at, _, port in times[-200:]))
    back = next(at + t for at, t, port in times if at > started and port == victim.port)
    stop.set()
    for thread in threads:
        thread.join()
    usual = statistics.median(t for at, t, _ in times if at < killed - 0.1)
    # The slowest of the reads that were under way or began while the server died.
    worst = max(t for at, t, _ in times if killed - 0.1 < at < gone + 1)
    return {
        "reads": len(times),
        "reads_failed": len(failed),
        "usual_read_ms": usual * 1e3,
        "slowest_read_after_kill_ms": worst * 1e3,
        "extra_ms": (worst - usual) * 1e3,
        "restart_to_first_read_s": back - started,
    }


def a_promotion(cluster: Cluster, engine: Any) -> dict[str, float]:
    """The primary dies and a replica is promoted; a writer tries until it succeeds."""
    write = sa.text("INSERT INTO item DEFAULT VALUES")
    promoted = cluster.replicas[1]

    def written() -> bool:
        try:
            with router.request_context(), engine.begin() as connection:
                connection.execute(write)
        except sa.exc.OperationalError:
            return False
        return True

    assert written()
    cluster.wait_caught_up()
    cluster.primary.kill()
    refused = until(lambda: not written())
    time.sleep(2)
    asked = time.perf_counter()
    promoted.execute("SELECT pg_promote(true, 30)")
    done = time.perf_counter()
    until(written)
    ended = time.perf_counter()
    return {
        "write_refused_s": refused,
        "promote_call_s": done - asked,
        "from_pg_promote_asked_to_first_write_s": ended - asked,
        "from_pg_promote_done_to_first_write_s": ended - done,
    }


def main() -> None:
    """Measure, print, keep."""
    logging.getLogger("router").setLevel(logging.CRITICAL)  # the events are expected
    rounds = []
    for _ in range(ROUNDS):
        with Cluster(replicas=2) as cluster:
            cluster.primary.execute("CREATE TABLE item (id serial PRIMARY KEY)")
            cluster.wait_caught_up()
            engine = router.create_engine(
                cluster.primary.url(),
                replicas=[r.url() for r in cluster.replicas],
                probe_interval=PROBE_INTERVAL,
                blacklist_duration=1.0,
            )
            try:
                rounds.append(a_kill(cluster, engine) | a_promotion(cluster, engine))
            finally:
                engine.dispose()
    print(f"\n{ROUNDS} rounds, probe_interval {PROBE_INTERVAL:g} s, blacklist_duration 1 s")
    figures: dict[str, Any] = {"rounds": rounds}
    for key in rounds[0]:
        values = [r[key] for r in rounds]
        figures[key] = {"median": statistics.median(values), "worst": max(values)}
        print(f"  {key:<42} median {statistics.median(values):9.3f}   worst {max(values):9.3f}")
    print(f"  kept in {keep('failover', figures)}")


if __name__ == "__main__":
    main()
