"""An experiment: ask the replica for its position in the same round trip as the read itself.

One client in a closed loop writes, asks for the commit's position, and reads nine times. Each
read goes to a replica together with ``pg_last_wal_replay_lsn()``, in one pipeline, and counts only
if the position suffices. The router does not do this; docs/explanation/how-pins-end.md says why.
"""

import statistics
import time
from typing import Any

import psycopg

from benchmarks.harness import compare, keep, show
from router.model import Lsn
from router.testing import Cluster

POSITION = b"SELECT pg_last_wal_replay_lsn()::text"
WRITTEN = b"SELECT pg_current_wal_insert_lsn()::text"
READ = b"SELECT n FROM item WHERE id = 1"
WRITE = b"UPDATE item SET n = n + 1 WHERE id = 1"
READS = 9


def verified(replica: psycopg.Connection[Any], lsn: Lsn) -> bool:
    """Whether the replica had replayed `lsn` when it read."""
    with replica.pipeline():
        position = replica.execute(POSITION)
        rows = replica.execute(READ)
    rows.fetchall()
    found = position.fetchone()
    assert found is not None
    return Lsn.parse(found[0]) >= lsn


def main() -> None:
    """Measure, print, keep."""
    with Cluster(1) as cluster:
        cluster.primary.execute("CREATE TABLE item (id int PRIMARY KEY, n int NOT NULL)")
        cluster.primary.execute("INSERT INTO item VALUES (1, 0)")
        cluster.wait_caught_up()
        with (
            psycopg.connect(cluster.primary.conninfo(), autocommit=True) as primary,
            psycopg.connect(cluster.replicas[0].conninfo(), autocommit=True) as replica,
        ):
            cost = compare(
                {
                    "read": lambda: replica.execute(READ).fetchall(),
                    "position and read, one pipeline": lambda: verified(replica, Lsn(0)),
                },
                baseline="read",
            )
            show("A read on a replica", cost, "read")
            succeeded = [0] * READS
            delays = []
            for _ in range(500):
                primary.execute(WRITE)
                written = primary.execute(WRITTEN).fetchone()
                committed = time.perf_counter()
                assert written is not None
                there = [verified(replica, Lsn.parse(written[0])) for _ in range(READS)]
                succeeded = [a + b for a, b in zip(succeeded, there, strict=True)]
                while not verified(replica, Lsn.parse(written[0])):
                    pass
                if not there[-1]:
                    delays.append(time.perf_counter() - committed)
            first = succeeded[0] / 500
    print(f"\nthe first read after a write found it replayed: {first:.1%}")
    shares = ", ".join(f"{n / 500:.0%}" for n in succeeded)
    print(f"reads 1 to {READS}: {shares}")
    late = statistics.median(delays) * 1000 if delays else 0.0
    keep("verified_read", {"cost": cost, "succeeded": [n / 500 for n in succeeded], "late": late})


if __name__ == "__main__":
    main()
