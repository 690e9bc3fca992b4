"""Ways to reach a primary and its replicas from SQLAlchemy, each as a maker of Sessions."""

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import router
from benchmarks.proxies import pgbouncer, pgpool
from router.testing import Cluster

PLAIN = "plain engine on the primary"
AGAIN = "the same again"
"""A second one like the baseline: what its ratio is off 1 is the error of the measurement."""
ROUTED = "routed"
FLOOR = "floor: autocommit on a replica"
FLOORS = "the same, on two by chance"
"""As the routed reads: each server process is colder when there are two to read from."""
NO_TRANSACTIONS = frozenset({"form", "long_transaction", "bulk_insert", "streaming"})
# psycopg describes the portal that DECLARE made; Pgpool-II 4.3 knows only portals it saw bound.
NO_CURSORS = frozenset({"streaming"})
POOL: dict[str, Any] = {"pool_size": 16, "max_overflow": 0}


class Base(DeclarativeBase):
    """Declarative base of the benchmarks."""


class Item(Base):
    """What is read and written singly."""

    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    n: Mapped[int] = mapped_column(default=0)


BULK = sa.Table("bulk", Base.metadata, sa.Column("id", sa.Integer), sa.Column("name", sa.Text))


@dataclass(frozen=True, slots=True)
class Contender:
    """One way; `request` surrounds what one user does, where the way wants to know of it.

    `lacks` names the workloads it cannot run.
    """

    session: Callable[[], Session]
    request: Callable[[], AbstractContextManager[Any]] = nullcontext
    lacks: frozenset[str] = frozenset()


@contextmanager
def contenders(cluster: Cluster) -> Iterator[dict[str, Contender]]:
    """All ways that are installed here, over the cluster's database "postgres"."""
    primary, *replicas = (server.url(driver="psycopg") for server in cluster.servers)
    with ExitStack() as stack:

        def engine(url: str, **options: Any) -> sa.Engine:
            made = sa.create_engine(url, **POOL, **options)
            stack.callback(made.dispose)
            return made

        plain = engine(primary)
        floors = [engine(url, isolation_level="AUTOCOMMIT") for url in replicas]
        again = engine(primary)
        Base.metadata.create_all(plain)
        with Session(plain) as session:
            session.add_all(Item(id=i, name=f"item {i}") for i in range(1, 101))
            session.commit()
        cluster.wait_caught_up()
        routed = router.create_engine(primary, replicas=replicas, **POOL)
        stack.callback(routed.dispose)
        routed.router.start()
        routed.router.refresh()
        found = {
            PLAIN: Contender(lambda: Session(plain)),
            AGAIN: Contender(lambda: Session(again)),
            ROUTED: Contender(lambda: Session(routed), router.request_context),
            FLOOR: Contender(lambda: Session(floors[0]), lacks=NO_TRANSACTIONS),
            FLOORS: Contender(lambda: Session(random.choice(floors)), lacks=NO_TRANSACTIONS),
            "get_bind recipe": Contender(recipe(plain, [engine(url) for url in replicas])),
        }
        if alchemy := advanced_alchemy(stack, primary, replicas):
            found["advanced-alchemy"] = alchemy
        # PgBouncer 1.18 of Debian 12 keeps no prepared statements.
        if url := stack.enter_context(pgbouncer(cluster)):
            bouncer = engine(url, connect_args={"prepare_threshold": None})
            found["plain through PgBouncer"] = Contender(lambda: Session(bouncer))
        if url := stack.enter_context(pgpool(cluster)):
            pool = engine(url)
            found["plain through Pgpool-II"] = Contender(lambda: Session(pool), lacks=NO_CURSORS)
        yield found


def recipe(primary: sa.Engine, replicas: list[sa.Engine]) -> type[Session]:
    """SQLAlchemy's documented get_bind recipe: flushes and DML to one engine, the rest to others.

    Source: https://docs.sqlalchemy.org/en/20/orm/persistence_techniques.html#custom-vertical-partitioning
    Inserts count as DML here; the page names updates and deletes only.
    """

    class RoutingSession(Session):
        def get_bind(self, mapper: Any = None, *, clause: Any = None, **_: Any) -> sa.Engine:
            if self._flushing or isinstance(clause, sa.Update | sa.Delete | sa.Insert):
                return primary
            return random.choice(replicas)

    return RoutingSession


def advanced_alchemy(stack: ExitStack, primary: str, replicas: list[str]) -> Contender | None:
    """Its routing sessions with their defaults; None where it is not installed."""
    try:
        from advanced_alchemy.config.routing import RoutingConfig
        from advanced_alchemy.routing import RoutingSyncSessionMaker
    except ImportError:
        return None
    config = RoutingConfig(primary_connection_string=primary, read_replicas=list(replicas))
    maker = RoutingSyncSessionMaker(config, engine_config=POOL)
    stack.callback(maker.close_all)
    return Contender(maker)
