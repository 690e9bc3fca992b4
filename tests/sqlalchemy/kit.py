"""What the SQLAlchemy scenarios share: an engine over a fresh database, and who served what."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from router.sqlalchemy import RoutedEngine
from router.testing import Cluster

PORT = sa.text("SELECT inet_server_port()")

EVERY_DOOR = pytest.mark.doors("psycopg", "psycopg_async", "asyncpg_async")
EVERY_DRIVER = pytest.mark.doors("psycopg", "psycopg_async", "asyncpg_async", "psycopg2", "pg8000")
THROUGH = "-pgbouncer"
"""Behind a door's name: through a PgBouncer that pools by transaction."""
EVERY_WAY = pytest.mark.doors(
    *EVERY_DRIVER.args,
    *(
        pytest.param(door + THROUGH, marks=pytest.mark.slow)
        for door in ("psycopg", "psycopg_async", "asyncpg_async", "psycopg2")
    ),
)
SYNCHRONOUS = pytest.mark.doors("psycopg")
"""The drivers a test runs on; the mark nearest to it counts."""

MakeEngine = Callable[..., RoutedEngine]


class Routed:
    """An engine with two live replicas and one table ``item``, in a database of its own."""

    def __init__(self, cluster: Cluster, dbname: str, make: MakeEngine, door: str) -> None:
        self.door = door
        self.cluster = cluster
        self.dbname = dbname
        self._make = make
        self.execute_on_primary("CREATE TABLE item (id serial PRIMARY KEY, name text NOT NULL)")
        cluster.wait_caught_up()
        self.engine = make()
        self.engine.router.start()

    def another(self, **options: Any) -> RoutedEngine:
        """One more engine over the same database, closed with the test."""
        engine = self._make(**options)
        engine.router.start()
        return engine

    def name_of(self, port: int) -> str:
        """The role, "primary" or "replica", of the server that listens on `port`."""
        if port == self.cluster.primary.port:
            return "primary"
        assert port in {replica.port for replica in self.cluster.replicas}
        return "replica"

    def served(self, connection: Any) -> str:
        """The role of the server that runs a read on `connection` now, as it says itself."""
        return self.name_of(connection.execute(PORT).scalar_one())

    def execute_on_primary(self, *statements: str) -> None:
        """Run statements straight on the primary, past the router."""
        for statement in statements:
            self.cluster.primary.execute(statement, dbname=self.dbname)

    def count(self) -> int:
        """Rows in ``item`` on the primary."""
        rows = self.cluster.primary.execute("SELECT count(*) FROM item", dbname=self.dbname)
        return int(rows[0][0])

    def settle(self) -> None:
        """Let the replicas catch up and the router see it, the catalog included."""
        self.cluster.wait_caught_up()
        self.engine.router.refresh()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Replay stands still on every replica."""
        with self.cluster.replay_paused():
            yield

    def await_replica(self, connection: Any, timeout: float = 10.0) -> None:
        """Read until a replica serves it: what ends a pin is a probe, and nobody awaits that."""
        deadline = time.monotonic() + timeout
        while self.served(connection) != "replica":
            assert time.monotonic() < deadline, "no replica served a read in time"
            connection.rollback()
            time.sleep(0.005)


@contextmanager
def as_soon_as(holds: Callable[[], object], act: Callable[[], object]) -> Iterator[None]:
    """While the block is at work, do `act` in another thread once `holds` is so."""

    def watch() -> None:
        while not over.is_set():
            if holds():
                act()
                return
            time.sleep(0.005)

    over = threading.Event()
    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def rewrite(engine: sa.Engine, old: str, new: str) -> None:
    """Have a listener execute `new` in the place of the statement `old`."""

    @sa.event.listens_for(engine, "before_cursor_execute", retval=True)
    def rewritten(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> Any:
        return new if statement == old else statement, parameters


def insert(connection: Any, **options: Any) -> None:
    """Insert one row, with execution options if given."""
    statement = sa.text("INSERT INTO item (name) VALUES ('new')")
    connection.execute(statement.execution_options(**options) if options else statement)
