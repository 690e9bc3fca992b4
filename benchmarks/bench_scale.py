"""What the router costs as things grow: replicas, distinct statements, threads; and its memory."""

import gc
import itertools
import random
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

import router
from benchmarks.harness import compare, keep, show
from router.sql.classifier import Classifier
from router.testing import Cluster

REPLICAS = (1, 2, 4, 8, 16)
STATEMENTS = (10, 100, 1_000, 10_000, 100_000)
THREADS = (1, 4, 16, 64)
ASKED = 300
ROW = "SELECT 1"


def replicas(cluster: Cluster) -> dict[str, Any]:
    """One read in a connection of its own over 1 to 16 replicas, and its decision by itself."""
    primary, *others = cluster.urls(driver="psycopg")
    engines = {
        str(count): router.create_engine(primary, replicas=others[:count], name=str(count))
        for count in REPLICAS
    }
    for engine in engines.values():
        engine.router.start()
        engine.router.refresh()

    def read(engine: Any) -> Callable[[], None]:
        def run() -> None:
            with engine.connect() as connection:
                connection.exec_driver_sql(ROW)

        return run

    def decide(engine: Any) -> Callable[[], None]:
        this = engine.router
        intent = this.intent(ROW)

        def run() -> None:
            this.pick(this.decide(intent).nodes)

        return run

    reads = {count: read(engine) for count, engine in engines.items()}
    decisions = {count: decide(engine) for count, engine in engines.items()}
    found = {
        "replicas": compare(reads, baseline="1", rounds=40, batch=40, warmup=200),
        "decisions": compare(decisions, baseline="1", rounds=40, batch=2_000),
    }
    for engine in engines.values():
        engine.dispose()
    return found


def statements() -> dict[str, Any]:
    """Telling what a statement is, one of 10 to 100,000 texts at random."""
    runs = {}
    for count in STATEMENTS:
        classifier = Classifier()
        texts = [f"SELECT name FROM pg_class WHERE oid = %s AND {i} = {i}" for i in range(count)]
        for text in texts:
            classifier(text)
        # Endless, and drawn beforehand: what was drawn once must not be all that is ever asked.
        drawn = itertools.cycle(random.Random(count).choices(texts, k=200_000))

        def run(classifier: Classifier = classifier, drawn: Iterator[str] = drawn) -> None:
            for text in itertools.islice(drawn, ASKED):
                classifier(text)

        runs[str(count)] = run
    found = compare(runs, baseline="10", rounds=30, batch=1, warmup=3)
    for row in found.values():
        for key in ("microseconds", "cpu_microseconds"):
            row[key] = round(row[key] / ASKED, 3)
    return found


def threads(cluster: Cluster) -> dict[str, Any]:
    """Threads that read in connections of their own: routed, beside a plain autocommit replica."""
    primary, *others = cluster.urls(driver="psycopg")
    size = {"pool_size": max(THREADS), "max_overflow": 0}
    routed = router.create_engine(primary, replicas=others[:1], **size)
    routed.router.start()
    routed.router.refresh()
    floor = sa.create_engine(others[0], isolation_level="AUTOCOMMIT", **size)
    found = {}
    for count in THREADS:
        with ThreadPoolExecutor(count) as workers:
            each = max(2, 64 // count)

            def read(engine: Any, each: int = each) -> None:
                for _ in range(each):
                    with engine.connect() as connection:
                        connection.exec_driver_sql(ROW)

            def run(
                engine: Any, workers: Any = workers, count: int = count, one: Any = read
            ) -> None:
                list(workers.map(one, [engine] * count))

            ways = {"floor": lambda r=run: r(floor), "routed": lambda r=run: r(routed)}
            row = compare(ways, baseline="floor", rounds=30, batch=1, warmup=4)["routed"]
            found[str(count)] = row
    floor.dispose()
    routed.dispose()
    return found


def calls(cluster: Cluster) -> dict[str, dict[str, float]]:
    """Calls of functions, in Python and in C, for one statement: no neighbour can blur that."""
    primary, *others = cluster.urls(driver="psycopg")
    routed = router.create_engine(primary, replicas=others[:1])
    routed.router.start()
    routed.router.refresh()
    plain = sa.create_engine(primary)
    floor = sa.create_engine(others[0], isolation_level="AUTOCOMMIT")
    engines: dict[str, Any] = {"plain": plain, "floor": floor, "routed": routed}
    one = sa.text(ROW)

    def read(engine: Any) -> None:
        for _ in range(50):
            with Session(engine) as session:
                session.execute(one)

    def within(engine: Any) -> None:
        with Session(engine) as session, session.begin():
            for _ in range(50):
                session.execute(one)

    found: dict[str, dict[str, float]] = {}
    for name, work in (("read in a Session", read), ("statement in a transaction", within)):
        for way, engine in engines.items():
            work(engine)
            counted: Counter[str] = Counter()

            def count(_: object, event: str, __: object, counted: Any = counted) -> None:
                counted[event] += 1

            sys.setprofile(count)
            try:
                work(engine)
            finally:
                sys.setprofile(None)
            found.setdefault(name, {})[way] = round((counted["call"] + counted["c_call"]) / 50)
    for engine in engines.values():
        engine.dispose()
    return found


def memory(cluster: Cluster) -> dict[str, float]:
    """Bytes that stay allocated in Python: per engine, open checkout, statement remembered."""
    primary, *others = cluster.urls(driver="psycopg")
    pair = others[:2]

    def engine(_: int) -> Any:
        made = router.create_engine(primary, replicas=pair)
        made.router.start()
        return made

    engine(0).dispose()
    engines, per_engine = _kept(engine, 10)
    plains, per_plain = _kept(lambda _: sa.create_engine(primary), 10)
    for made in (*engines, *plains):
        made.dispose()
    found = {"engine": per_engine, "plain engine": per_plain}
    # A pool whose checkouts all share one connection: the driver's own memory is not the question.
    shared = sa.create_engine(primary, poolclass=StaticPool)
    routed = engine(0)
    for name, source in (("checkout", routed), ("plain checkout", shared)):
        with source.connect() as warm:
            warm.exec_driver_sql(ROW)
        opened, found[name] = _kept(lambda _, source=source: source.connect(), 200)
        for connection in opened:
            connection.close()
    routed.dispose()
    shared.dispose()
    classifier = Classifier()
    text = "SELECT name FROM pg_class WHERE oid = %s AND {0} = {0}"
    _, found["statement of 50 characters"] = _kept(lambda i: classifier(text.format(i)), 5_000)
    return {name: round(size) for name, size in found.items()}


def _kept(make: Callable[[int], Any], count: int) -> tuple[list[Any], float]:
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    made = [make(number) for number in range(count)]
    gc.collect()
    size = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return made, size / count


def main() -> None:
    """Measure, print, keep."""
    figures: dict[str, Any] = {"statements": statements()}
    show((statements.__doc__ or "").rstrip("."), figures["statements"], "10")
    with Cluster(replicas=max(REPLICAS)) as cluster:
        figures["memory"] = memory(cluster)
        print(f"\n{memory.__doc__}\n  {figures['memory']}", flush=True)
        figures["calls"] = calls(cluster)
        print(f"\n{calls.__doc__}\n  {figures['calls']}", flush=True)
        for name, found in replicas(cluster).items():
            figures[name] = found
            show(f"{name}: {replicas.__doc__}".rstrip("."), found, "1")
        figures["threads"] = threads(cluster)
        show((threads.__doc__ or "").rstrip("."), figures["threads"], "the floor")
    print(f"kept in {keep('scale', figures)}")


if __name__ == "__main__":
    main()
