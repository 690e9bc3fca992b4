"""A short ORM session with one primary-key read: routed, plain, the floor and the docs' recipe."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import router
from benchmarks.harness import compare, keep, show
from router.testing import Cluster


class Base(DeclarativeBase):
    """Declarative base of the benchmark."""


class Item(Base):
    """One table."""

    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


def recipe(primary: sa.Engine, replica: sa.Engine) -> type[Session]:
    """SQLAlchemy's documented get_bind recipe: flushes and DML to one engine, the rest to another.

    Source: https://docs.sqlalchemy.org/en/20/orm/persistence_techniques.html#custom-vertical-partitioning
    """

    class RoutingSession(Session):
        def get_bind(self, mapper: Any = None, clause: Any = None, **_: Any) -> sa.Engine:
            if self._flushing or isinstance(clause, sa.Update | sa.Delete | sa.Insert):
                return primary
            return replica

    return RoutingSession


def main() -> None:
    """Measure, print, keep."""
    with Cluster(replicas=2) as cluster:
        urls = [server.url(driver="psycopg") for server in cluster.servers]
        plain = sa.create_engine(urls[0])
        floor = sa.create_engine(urls[1], isolation_level="AUTOCOMMIT")
        on_replica = sa.create_engine(urls[1])
        routed = router.create_engine(urls[0], replicas=urls[1:])
        Base.metadata.create_all(plain)
        with Session(plain) as session:
            session.add(Item(id=1, name="one"))
            session.commit()
        cluster.wait_caught_up()
        routed.router.refresh()

        def read(make: Any) -> Any:
            def run() -> None:
                with make() as session:
                    assert session.get(Item, 1) is not None

            return run

        contenders = {
            "plain engine on the primary": read(lambda: Session(plain)),
            "routed": read(lambda: Session(routed)),
            "floor: autocommit on a replica": read(lambda: Session(floor)),
            "get_bind recipe": read(recipe(plain, on_replica)),
        }
        baseline = "plain engine on the primary"
        found = compare(contenders, baseline=baseline)
        show("A short ORM session with one primary-key read", found, baseline)
        over_floor = found["routed"]["ratio"] / found["floor: autocommit on a replica"]["ratio"]
        print(f"  routed / floor: {over_floor:.3f}")
        decisions = routed.router.stats()["decisions"]
        print(f"  where the routed reads went: {decisions}")
        print(f"  kept in {keep('read', found)}")
        for engine in (plain, floor, on_replica, routed):
            engine.dispose()


if __name__ == "__main__":
    main()
