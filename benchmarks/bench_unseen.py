"""How soon statements follow a function that another process has replaced, and what that costs.

    python benchmarks/bench_unseen.py [--times 50] [--functions 10 1000 50000]

A session that no router sees replaces a function that reads by one that acts, and back again; told
is the time until the router's classifier says so, and the server's time for one stamp. The last
column is how much of one core the stamps of a thousand processes would take, by their pace.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import psycopg

sys.path.insert(0, str(Path(__file__).parents[1]))

import router
from benchmarks.bench_closure import make
from router.cluster.stamp import INTERVAL, StampPace
from router.sql.intent import Kind
from router.sql.queries import STAMP
from router.testing import Cluster

BODIES = {
    Kind.WRITE: "select 1 from (select pg_advisory_xact_lock(1)) x",
    Kind.READ: "select 1",
}
REPLACE = "create or replace function followed() returns int language sql as $$ {} $$"


def main() -> None:
    """Replace, wait, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--functions", type=int, nargs="*", default=[10, 1000, 50_000])
    given = parser.parse_args()
    print("functions   median s   worst s   stamp ms   a thousand processes' pause s")
    with Cluster(1) as cluster:
        for count in given.functions:
            cluster.primary.execute(f"create database unseen_{count}")
            conninfo = cluster.primary.conninfo(f"unseen_{count}")
            with psycopg.connect(conninfo, autocommit=True) as connection:
                make(connection, count)
                connection.execute(REPLACE.format(BODIES[Kind.READ]))
                measure(cluster, connection, count, given.times)


def measure(cluster: Cluster, connection: psycopg.Connection, count: int, times: int) -> None:
    """One line."""
    name = connection.info.dbname
    cluster.wait_caught_up()
    engine = router.create_engine(
        cluster.primary.url(name), replicas=[r.url(name) for r in cluster.replicas]
    )
    routed = engine.router
    routed.start()
    waited = [follow(routed, Kind.READ)]
    took = []
    for n in range(times):
        kind = list(BODIES)[n % 2]
        connection.execute(REPLACE.format(BODIES[kind]))
        waited.append(follow(routed, kind))
        time.sleep(0.37 * (n % 4))  # not in step with the monitor
        began = time.perf_counter()
        connection.execute(STAMP)
        took.append(time.perf_counter() - began)
    engine.dispose()
    stamp = statistics.median(took)
    pace = StampPace()
    pace.answered(stamp, 1000)
    print(
        f"{count:9,} {statistics.median(waited[1:]):10.2f} {max(waited[1:]):9.2f} "
        f"{stamp * 1e3:10.1f} {max(INTERVAL, pace.gap):24.1f}",
        flush=True,
    )


def follow(routed: router.Router, kind: Kind) -> float:
    """Seconds until a call of the function is of this `kind`."""
    began = time.monotonic()
    while routed.classifier("SELECT followed()").kind is not kind:
        time.sleep(0.001)
        if time.monotonic() - began > 120:
            raise SystemExit("it does not follow")
    return time.monotonic() - began


if __name__ == "__main__":
    main()
