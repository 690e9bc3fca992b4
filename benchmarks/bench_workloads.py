"""What an application does all day, routed beside a plain engine on the primary alone."""

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import router
from benchmarks.harness import compare, keep, show
from router.testing import Cluster

PLAIN = "plain engine on the primary"
STATEMENTS = 100
BULK = 10_000
STREAMED = 100_000


class Base(DeclarativeBase):
    """Declarative base of the benchmark."""


class Item(Base):
    """What is read and written singly."""

    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


bulk = sa.Table("bulk", Base.metadata, sa.Column("id", sa.Integer), sa.Column("name", sa.Text))
ROWS = [{"id": i, "name": f"name {i}"} for i in range(BULK)]


def page(engine: sa.Engine) -> Callable[[], None]:
    """A request that reads ten rows, each by a query of its own."""

    def run() -> None:
        with router.request_context(), Session(engine) as session:
            for i in range(1, 11):
                assert session.get(Item, i) is not None

    return run


def form(engine: sa.Engine) -> Callable[[], None]:
    """A request that writes, and the one it redirects to, which reads what was written."""

    def run() -> None:
        with router.request_context():
            with Session(engine) as session:
                session.execute(sa.update(Item).where(Item.id == 1).values(name="changed"))
                session.commit()
            with Session(engine) as session:
                assert session.get(Item, 1) is not None

    return run


def long_transaction(engine: sa.Engine) -> Callable[[], None]:
    """A hundred statements in one transaction, every tenth a write."""
    read, write = sa.select(Item.name).where(Item.id == 2), sa.update(Item).where(Item.id == 2)

    def run() -> None:
        with engine.begin() as connection:
            for i in range(STATEMENTS):
                if i % 10 == 0:
                    connection.execute(write.values(name="again"))
                else:
                    connection.execute(read).one()

    return run


def bulk_insert(engine: sa.Engine) -> Callable[[], None]:
    """Ten thousand rows in one executemany, rolled back."""

    def run() -> None:
        with engine.connect() as connection:
            connection.execute(bulk.insert(), ROWS)
            connection.rollback()

    return run


def streaming(engine: sa.Engine) -> Callable[[], None]:
    """A hundred thousand rows through a server-side cursor."""
    numbers = sa.text("SELECT i, 'name ' || i AS name FROM generate_series(1, :n) AS i")

    def run() -> None:
        with engine.connect() as connection:
            streamed = connection.execution_options(yield_per=5000).execute(
                numbers, {"n": STREAMED}
            )
            assert sum(1 for _ in streamed) == STREAMED

    return run


WORKLOADS: dict[str, tuple[Callable[[sa.Engine], Callable[[], None]], dict[str, Any]]] = {
    "page": (page, {"rounds": 40, "batch": 20, "warmup": 40}),
    "form": (form, {"rounds": 40, "batch": 20, "warmup": 40}),
    "long_transaction": (long_transaction, {"rounds": 40, "batch": 2, "warmup": 4}),
    "bulk_insert": (bulk_insert, {"rounds": 20, "batch": 1, "warmup": 2}),
    "streaming": (streaming, {"rounds": 20, "batch": 1, "warmup": 2}),
}


def main() -> None:
    """Measure, print, keep."""
    figures = {}
    with Cluster(replicas=2) as cluster:
        urls = [server.url(driver="psycopg") for server in cluster.servers]
        plain = sa.create_engine(urls[0])
        routed = router.create_engine(urls[0], replicas=urls[1:])
        Base.metadata.create_all(plain)
        with Session(plain) as session:
            session.add_all(Item(id=i, name=f"item {i}") for i in range(1, 11))
            session.commit()
        cluster.wait_caught_up()
        routed.router.refresh()
        for name, (make, options) in WORKLOADS.items():
            contenders = {PLAIN: make(plain), "routed": make(routed)}
            figures[name] = found = compare(contenders, baseline=PLAIN, **options)
            show((make.__doc__ or "").rstrip("."), found, PLAIN)
        print(f"  kept in {keep('workloads', figures)}")
        for engine in (plain, routed):
            engine.dispose()


if __name__ == "__main__":
    main()
