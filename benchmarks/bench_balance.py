"""p99 of reads with one of three replicas 50 ms further away, balancer beside balancer.

The balancers take turns within one run, in rounds whose order changes, over the same servers.
"""

import random
import statistics
import threading
import time
from typing import Any

import sqlalchemy as sa

import router
from benchmarks.harness import keep
from router.testing import Cluster, Proxy

BALANCERS = ("weighted", "round_robin", "least_outstanding", "latency")
THREADS, ROUNDS, READS = 8, 6, 100
DELAY = 0.05
READ = sa.text("SELECT inet_server_port()")


def load(engine: Any, reads: int) -> list[tuple[float, int]]:
    """Milliseconds and serving port of `reads` reads by each of `THREADS` threads."""
    found: list[tuple[float, int]] = []

    def work() -> None:
        for _ in range(reads):
            started = time.perf_counter()
            with engine.connect() as connection:
                port = connection.execute(READ).scalar_one()
            found.append(((time.perf_counter() - started) * 1e3, port))

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def main() -> None:
    """Measure, print, keep."""
    with Cluster(replicas=3) as cluster:
        far = cluster.replicas[-1]
        with Proxy(far.host, far.port) as proxy:
            urls = [s.url() for s in cluster.replicas[:-1]] + [proxy.url(far.url())]
            engines = {
                name: router.create_engine(
                    cluster.primary.url(), replicas=urls, balance=name, pool_size=THREADS
                )
                for name in BALANCERS
            }
            for engine in engines.values():
                load(engine, 20)
            proxy.delay(DELAY)
            for engine in engines.values():
                load(engine, 10)  # the means learn of it
            times: dict[str, list[tuple[float, int]]] = {name: [] for name in BALANCERS}
            order = list(BALANCERS)
            rng = random.Random(1)
            for _ in range(ROUNDS):
                rng.shuffle(order)
                for name in order:
                    times[name] += load(engines[name], READS)
            for engine in engines.values():
                engine.dispose()
    figures = {}
    print(f"\n{THREADS} threads, three replicas, one {DELAY * 1e3:g} ms further away")
    for name in BALANCERS:
        ms = sorted(t for t, _ in times[name])
        cuts = statistics.quantiles(ms, n=100)
        share = sum(port == far.port for _, port in times[name]) / len(ms)
        figures[name] = {
            "reads": len(ms), "p50_ms": cuts[49], "p99_ms": cuts[98], "share_of_slow": share
        }  # fmt: skip
        print(
            f"  {name:<18} p50 {cuts[49]:7.2f} ms   p99 {cuts[98]:7.2f} ms   "
            f"{share:6.2%} of {len(ms)} reads on the slow one"
        )
    print(f"  kept in {keep('balance', figures)}")


if __name__ == "__main__":
    main()
