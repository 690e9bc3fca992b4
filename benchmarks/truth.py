"""Speed without truth is no result: stale reads of one's own writes, and who served the reads."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from router.testing import Cluster

LAG = 0.05  # seconds
USERS = 8
WRITES = 12  # per user
READS = 9  # after each write, so that a tenth of all statements are writes
PAUSE = 0.02  # seconds between two reads

Write = Callable[[int, int], object]
"""Stores a number in a user's row, and commits."""
Read = Callable[[int], tuple[int, int]]
"""A user's number, and the port of the server that told it."""


def truth(
    cluster: Cluster,
    contenders: Mapping[str, tuple[Callable[[], AbstractContextManager[Any]], Write, Read]],
) -> dict[str, dict[str, float]]:
    """Let users write and read their own row while replicas replay every commit 50 ms late.

    `contenders` holds, by name, what surrounds one user's requests, how to write, how to read.

    Returns:
        per contender: reads, the share of them that missed the reader's own last write, and the
        share that a replica served.
    """
    for replica in cluster.replicas:
        replica.set_lag(LAG)
    found = {}
    for name, (request, write, read) in contenders.items():
        counts: Counter[str] = Counter()
        threads = [
            threading.Thread(
                target=_user, args=(cluster, number + 1, request, write, read, counts)
            )
            for number in range(USERS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        reads = USERS * WRITES * READS
        if counts["reads"] != reads:
            raise RuntimeError(f"{name}: {counts['reads']} of {reads} reads were answered")
        found[name] = {
            "reads": reads,
            "stale": counts["stale"] / reads,
            "off_primary": counts["off"] / reads,
        }
    for replica in cluster.replicas:
        replica.set_lag(0)
    cluster.wait_caught_up()
    return found


def _user(
    cluster: Cluster,
    number: int,
    request: Callable[[], AbstractContextManager[Any]],
    write: Write,
    read: Read,
    counts: "Counter[str]",
) -> None:
    mine: Counter[str] = Counter()
    with request():
        for n in range(1, WRITES + 1):
            # Different for each contender, or the last one's rows would look fresh.
            value = n + time.monotonic_ns() // 1_000_000 % 1_000_000_000
            write(number, value)
            for _ in range(READS):
                told, port = read(number)
                mine["reads"] += 1
                mine["stale"] += told != value
                mine["off"] += port != cluster.primary.port
                time.sleep(PAUSE)
    with _lock:
        counts.update(mine)


_lock = threading.Lock()


def show_truth(found: Mapping[str, Mapping[str, float]]) -> None:
    """Print one table."""
    print(f"\nReads of one's own writes, replicas {LAG * 1000:.0f} ms late", flush=True)
    for name, row in found.items():
        print(
            f"  {name:<34} {row['stale']:6.1%} stale   {row['off_primary']:6.1%} off the primary"
        )
