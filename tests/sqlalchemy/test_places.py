"""Who waits for a place in one node's pool keeps nobody from his place in another's."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

import router
from router.sqlalchemy import RoutedEngine
from tests.sqlalchemy.kit import Routed, insert

ROWS = sa.text("SELECT generate_series(1, 5000)").execution_options(stream_results=True)
Work = Callable[[RoutedEngine, threading.Barrier], object]


def streams_then_writes(engine: RoutedEngine, both: threading.Barrier) -> None:
    with engine.connect() as connection:
        rows = connection.execute(ROWS)
        assert rows.fetchone() is not None
        both.wait(10)
        insert(connection)
        rows.close()
        connection.commit()


def writes_then_reads(engine: RoutedEngine, both: threading.Barrier, **options: str) -> None:
    with engine.connect().execution_options(**options) as connection:
        with router.request_context():
            insert(connection)
            connection.commit()
        both.wait(10)
        with router.request_context():
            assert connection.scalar(sa.text("SELECT 1")) == 1


def writes_alone_then_reads(engine: RoutedEngine, both: threading.Barrier) -> None:
    writes_then_reads(engine, both, isolation_level="AUTOCOMMIT")


@pytest.mark.doors("psycopg", "psycopg2")
@pytest.mark.parametrize("other", [writes_then_reads, writes_alone_then_reads])
def test_nobody_waits_for_who_waits_for_him(routed: Routed, other: Work) -> None:
    """One streams from the replica and then writes, the other has written and then reads: with one
    place on each node both come to their ends."""
    engine = routed.another(
        replicas=[routed.cluster.replicas[0].url(routed.dbname)],
        pool_size=1, max_overflow=0, pool_timeout=8,
    )  # fmt: skip
    with engine.begin() as connection:
        insert(connection)
    routed.settle()
    both = threading.Barrier(2)

    def work(what: Work) -> None:
        with router.request_context():
            what(engine, both)

    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(work, what) for what in (streams_then_writes, other)]:
            done.result(30)


@pytest.mark.doors("psycopg", "psycopg2")
def test_who_has_written_keeps_the_session_that_knows_of_it(routed: Routed) -> None:
    """A read elsewhere does not take from a checkout the session in which it has written: as on a
    plain engine lastval() is what it has inserted, and not another user's. Here a connection that
    is given back is closed."""
    engine = routed.another(
        replicas=[routed.cluster.replicas[0].url(routed.dbname)],
        poolclass=NullPool, isolation_level="AUTOCOMMIT",
    )  # fmt: skip
    with engine.connect() as connection, router.request_context():
        new = connection.scalar(sa.text("INSERT INTO item (name) VALUES ('own') RETURNING id"))
        with router.request_context():
            assert connection.scalar(sa.text("SELECT pg_is_in_recovery()"))
        assert connection.scalar(sa.text("SELECT lastval()")) == new
