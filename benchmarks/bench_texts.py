"""What texts of all sizes cost the classifier: time, memory, and how long the GIL is held.

    python benchmarks/bench_texts.py [--texts 100000]      distinct texts of 50 bytes to 1 MB
    python benchmarks/bench_texts.py --bulk [--pairs 30]   5,000 rows by psycopg2's execute_values,
                                                           beside a plain engine

The sizes of the texts are evenly spread over their logarithm; by turns they are rows of an INSERT,
an IN list, a chain of ORs, a literal, the columns of a SELECT, and a batch of UPDATEs. The GIL is
held for no longer than another thread waits that wants to run every millisecond.
"""

import argparse
import gc
import random
import resource
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa

sys.path.insert(0, str(Path(__file__).parents[1]))

import router
from benchmarks.bench_closure import Waits
from router.sql.classifier import Classifier
from router.testing import Cluster

SMALLEST, LARGEST = 50, 1_000_000
SIZES = (1_000, 10_000, 100_000, LARGEST)


def main() -> None:
    """Print one of the two."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--texts", type=int, default=100_000)
    parser.add_argument("--bulk", action="store_true")
    parser.add_argument("--pairs", type=int, default=30)
    given = parser.parse_args()
    if given.bulk:
        bulk(given.pairs)
    else:
        texts(given.texts)


def repeated(head: str, unit: str, between: str, tail: str) -> Callable[[int, int], str]:
    """Makes the text number `n` of about `size` characters: `unit` again and again, with other
    numbers in each of a hundred."""
    units = [unit.format(i) for i in range(100)]
    block = between.join(units)

    def text(n: int, size: int) -> str:
        few = between.join(units[: max(1, size // len(unit) % 100)])
        return between.join([head.format(n) + few, *[block] * (size // len(block))]) + tail

    return text


KINDS = {
    "rows of an INSERT": repeated(
        "INSERT INTO item VALUES ({}, 'x'), ", "({}, 'a name', now())", ", ", ""
    ),
    "an IN list": repeated("SELECT {} FROM pg_class WHERE oid IN (", "{}", ", ", ")"),
    "a chain of ORs": repeated(
        "SELECT {} FROM pg_class c WHERE ", "(c.oid = {0} AND c.relname = 'r{0}')", " OR ", ""
    ),
    "a literal": repeated("SELECT '{}', '", "text {} ", "", "'"),
    "columns": repeated("SELECT {}, ", "c.relname AS name_{}", ", ", " FROM pg_class c"),
    "a batch": repeated("UPDATE item SET id = {};", "UPDATE item SET name = '{0}' WHERE id = {0}",
                        ";", ""),
}  # fmt: skip


def texts(count: int) -> None:
    """Classify `count` texts, and print what it took."""
    classifier = Classifier()
    chosen = random.Random(24)
    took: dict[tuple[str, int], list[float]] = defaultdict(list)
    gc.collect()
    held, memory, total = Waits(), _memory(), 0
    for n in range(count):
        kind = list(KINDS)[n % len(KINDS)]
        sql = KINDS[kind](n, int(SMALLEST * (LARGEST / SMALLEST) ** chosen.random()))
        total += len(sql)
        began = time.perf_counter()
        classifier(sql)
        size = next(s for s in SIZES if len(sql) <= 2 * s)
        took[kind, size].append(time.perf_counter() - began)
    waited = held.stop()
    print(f"{count:,} texts, {total / 1e9:.1f} GB: {classifier.stats()}")
    print(f"memory grew by {(_memory() - memory) / 1e6:.0f} MB; another thread waited for "
          f"{waited * 1e3:.1f} ms at most")  # fmt: skip
    print("median, 99th percentile and maximum in ms, by kind and size up to")
    print(" " * 20 + "".join(f"{size:>28,}" for size in SIZES))
    for kind in KINDS:
        print(f"{kind:20}" + "".join(f"{_spread(took[kind, size]):>28}" for size in SIZES))
    print(f"{'all':20}{_spread([t for some in took.values() for t in some]):>28}")


def _spread(times: list[float]) -> str:
    if len(times) < 2:
        return "-"
    p99 = statistics.quantiles(times, n=100)[98]
    return f"{statistics.median(times) * 1e3:.3f} {p99 * 1e3:.2f} {max(times) * 1e3:.2f}"


def _memory() -> int:
    """The most bytes this process has had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def bulk(pairs: int) -> None:
    """Insert 5,000 rows in one statement by a plain engine and a routed one by turns."""
    from psycopg2.extras import execute_values

    with Cluster(1) as cluster:
        url = sa.make_url(cluster.primary.url()).set(drivername="postgresql+psycopg2")
        cluster.primary.execute("CREATE TABLE item (id int, name text, at date)")
        plain = sa.create_engine(url)
        routed = router.create_engine(url, replicas=[r.url() for r in cluster.replicas])
        ratios, medians = [], defaultdict(list)
        for n in range(pairs):
            took = {}
            rows = [(n * 5000 + i, f"name {n} {i}", "2020-01-01") for i in range(5000)]
            for engine in (plain, routed) if n % 2 else (routed, plain):
                with engine.connect() as connection:
                    cursor = connection.connection.cursor()
                    began = time.perf_counter()
                    execute_values(cursor, "INSERT INTO item VALUES %s", rows, page_size=5000)
                    took[engine] = time.perf_counter() - began
                    medians[engine].append(took[engine])
            ratios.append(took[routed] / took[plain])
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"plain {statistics.median(medians[plain]) * 1e3:.1f} ms, ratio {middle:.2f} "
              f"({low:.2f} to {high:.2f})")  # fmt: skip
        routed.dispose()
        plain.dispose()


if __name__ == "__main__":
    main()
