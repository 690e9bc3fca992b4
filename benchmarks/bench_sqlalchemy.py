"""What an application does all day with SQLAlchemy's ORM, by every way in contenders.py."""

import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import sqlalchemy as sa

from benchmarks.contenders import AGAIN, BULK, PLAIN, Contender, Item, contenders
from benchmarks.harness import compare, keep, show
from benchmarks.truth import show_truth, truth
from router.testing import Cluster

STATEMENTS = 100
ROWS = [{"id": i, "name": f"name {i}"} for i in range(10_000)]
STREAMED = 100_000
THREADS = 16
PER_THREAD = 5


def read(way: Contender) -> Callable[[], None]:
    """A Session that reads one row by its primary key."""

    def run() -> None:
        with way.session() as session:
            assert session.get(Item, 1) is not None

    return run


def page(way: Contender) -> Callable[[], None]:
    """A request that reads ten rows, each by a query of its own."""

    def run() -> None:
        with way.request(), way.session() as session:
            for i in range(1, 11):
                assert session.get(Item, i) is not None

    return run


def form(way: Contender) -> Callable[[], None]:
    """A request that writes, and the one it redirects to, which reads what was written."""

    def run() -> None:
        with way.request():
            with way.session() as session:
                session.execute(sa.update(Item).where(Item.id == 1).values(name="changed"))
                session.commit()
            with way.session() as session:
                assert session.get(Item, 1) is not None

    return run


def long_transaction(way: Contender) -> Callable[[], None]:
    """A hundred statements in one transaction, every tenth a write."""
    one, write = sa.select(Item.name).where(Item.id == 2), sa.update(Item).where(Item.id == 2)

    def run() -> None:
        with way.session() as session, session.begin():
            for i in range(STATEMENTS):
                if i % 10 == 0:
                    session.execute(write.values(name="again"))
                else:
                    session.execute(one).one()

    return run


def bulk_insert(way: Contender) -> Callable[[], None]:
    """Ten thousand rows in one executemany, rolled back."""

    def run() -> None:
        with way.session() as session:
            session.execute(BULK.insert(), ROWS)
            session.rollback()

    return run


def streaming(way: Contender) -> Callable[[], None]:
    """A hundred thousand rows through a server-side cursor."""
    numbers = sa.text("SELECT i, 'name ' || i AS name FROM generate_series(1, :n) AS i")
    options = {"yield_per": 5000}

    def run() -> None:
        with way.session() as session:
            streamed = session.execute(numbers, {"n": STREAMED}, execution_options=options)
            assert sum(1 for _ in streamed) == STREAMED

    return run


def threads(way: Contender) -> Callable[[], None]:
    """Sixteen threads, each with five Sessions that read one row."""
    workers = ThreadPoolExecutor(THREADS)
    once = read(way)

    def several(_: int) -> None:
        for _ in range(PER_THREAD):
            once()

    return lambda: list(workers.map(several, range(THREADS))) and None


WORKLOADS: dict[str, tuple[Callable[[Contender], Callable[[], None]], dict[str, int]]] = {
    "read": (read, {"rounds": 150, "batch": 30, "warmup": 100}),
    "page": (page, {"rounds": 30, "batch": 5, "warmup": 20}),
    "form": (form, {"rounds": 40, "batch": 5, "warmup": 20}),
    "long_transaction": (long_transaction, {"rounds": 80, "batch": 1, "warmup": 2}),
    "bulk_insert": (bulk_insert, {"rounds": 50, "batch": 1, "warmup": 1}),
    "streaming": (streaming, {"rounds": 60, "batch": 1, "warmup": 1}),
    "threads": (threads, {"rounds": 20, "batch": 1, "warmup": 2}),
}


def own_reads(way: Contender) -> tuple[Any, Any, Any]:
    """What truth() asks for."""

    def write(user: int, n: int) -> None:
        with way.session() as session:
            session.execute(sa.update(Item).where(Item.id == user).values(n=n))
            session.commit()

    def told(user: int) -> tuple[int, int]:
        where = sa.select(Item.n, sa.func.inet_server_port()).where(Item.id == user)
        with way.session() as session:
            n, port = session.execute(where).one()
            return n, port

    return way.request, write, told


def settled(cluster: Cluster) -> Callable[[], None]:
    """Waits until the replicas have replayed what the last contender wrote."""

    def settle() -> None:
        gc.collect()
        cluster.wait_caught_up()

    return settle


def main() -> None:
    """Measure, print, keep."""
    figures: dict[str, Any] = {}
    with Cluster(replicas=2) as cluster, contenders(cluster) as ways:
        for name, (make, options) in WORKLOADS.items():
            fit = {n: make(way) for n, way in ways.items() if name not in way.lacks}
            figures[name] = found = compare(
                fit, baseline=PLAIN, settle=settled(cluster), **options
            )
            show((make.__doc__ or "").rstrip("."), found, PLAIN)
        honest = {
            n: own_reads(way) for n, way in ways.items() if "form" not in way.lacks and n != AGAIN
        }
        figures["truth"] = truth(cluster, honest)
        show_truth(figures["truth"])
    print(f"kept in {keep('sqlalchemy', figures)}")


if __name__ == "__main__":
    main()
