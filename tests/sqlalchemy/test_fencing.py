"""A primary that lives on after another server was promoted gets nothing more."""

from typing import Any

import pytest
import sqlalchemy as sa

import router
from router.errors import CommitUnknown, TransactionLost
from router.sqlalchemy import RoutedEngine
from router.testing import Cluster, Proxy
from tests.conftest import MakeCluster
from tests.fenced import INSERT, LOCK, ROWS, TABLE, UNTOUCHED, outcome, promoted
from tests.sqlalchemy.kit import EVERY_DOOR

END_MONITOR = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE application_name = 'pg-router monitor'"
)


def engine_over(cluster: Cluster, door: str) -> RoutedEngine:
    cluster.primary.execute(TABLE)
    cluster.wait_caught_up()
    driver = door.removesuffix("_async")
    url = cluster.primary.url(driver=driver)
    replicas = [r.url() for r in cluster.replicas]
    if door == driver:
        return router.create_engine(url, replicas, **UNTOUCHED)
    engine: Any = router.create_async_engine(url, replicas, **UNTOUCHED).sync_engine
    return engine  # type: ignore[no-any-return]


@EVERY_DOOR
def test_nothing_new_is_sent_to_a_fenced_primary(
    make_cluster: MakeCluster, door: str, runner: Any
) -> None:
    """Once another server is followed, neither the next statement of an open transaction, nor its
    commit, nor what is bound to a session reaches the old one; with their ends each connection
    goes on at the new primary."""
    cluster = make_cluster(1)
    old, new = cluster.primary, cluster.replicas[0]
    engine = engine_over(cluster, door)
    insert, rows = sa.text(INSERT), sa.text(ROWS)
    try:
        with (
            engine.connect() as goes_on,
            engine.connect() as commits,
            engine.connect() as reads,
            engine.connect() as only_read,
            engine.connect().execution_options(isolation_level="AUTOCOMMIT") as bound,
            engine.connect().execution_options(isolation_level="AUTOCOMMIT") as alone,
        ):
            goes_on.execute(insert)
            commits.execute(insert)
            reads.execute(insert)
            with only_read.begin():
                only_read.execute(rows)
                bound.execute(sa.text(LOCK))
                alone.execute(insert)
                promoted(cluster, engine.router)
            with pytest.raises(TransactionLost, match="another server is the primary now"):
                goes_on.execute(insert)
            with pytest.raises(TransactionLost, match="another server is the primary now"):
                commits.commit()
            with pytest.raises(TransactionLost, match="another server is the primary now"):
                reads.execute(rows)
            for _ in range(2):
                with pytest.raises(TransactionLost, match="only its session had"):
                    bound.execute(insert)
                bound.rollback()
            alone.execute(insert)
            for connection in (goes_on, reads, only_read):
                connection.rollback()
                connection.execute(insert)
                connection.commit()
        assert old.execute(ROWS) == [(1,)]
        assert new.execute(ROWS) == [(5,)]
    finally:
        engine.dispose()


@pytest.mark.parametrize("how", ["commit", "COMMIT", "autocommit"])
def test_a_commit_that_was_under_way_is_unknown(make_cluster: MakeCluster, how: str) -> None:
    """A server that is fenced while it commits may acknowledge what is lost: CommitUnknown."""
    cluster = make_cluster(1)
    engine = engine_over(cluster, "psycopg")
    try:
        with engine.connect() as connection:
            if how != "commit":
                connection = connection.execution_options(isolation_level="AUTOCOMMIT")
            if how == "COMMIT":
                connection.exec_driver_sql("BEGIN")
            if how != "autocommit":
                connection.exec_driver_sql(INSERT)
            error = outcome(
                cluster,
                engine.router,
                connection.commit
                if how == "commit"
                else lambda: connection.exec_driver_sql("COMMIT" if how == "COMMIT" else INSERT),
            )
            assert isinstance(error, CommitUnknown)
            assert "another server became the primary" in str(error)
    finally:
        engine.dispose()


def test_behind_one_address_the_old_server_is_told_from_the_new(
    make_cluster: MakeCluster,
) -> None:
    """Where an address leads to the promoted server, open transactions and pooled connections
    that still lead to the old one are given up."""
    cluster = make_cluster(1)
    old, new = cluster.primary, cluster.replicas[0]
    old.execute(TABLE)
    cluster.wait_caught_up()
    with Proxy(old.host, old.port) as front:
        engine = router.create_engine(front.url(old.url()), [new.url()], **UNTOUCHED)
        try:
            with engine.connect() as idle, engine.connect() as within:
                for connection in (idle, within):
                    connection.exec_driver_sql(INSERT)
                idle.rollback()
                idle.close()
                new.promote()
                front.lead_to(new.host, new.port)
                old.execute(END_MONITOR)  # which still asks the old server
                engine.router.refresh()
                assert engine.router.snapshot.timeline == 2
                with pytest.raises(TransactionLost, match="another server is the primary now"):
                    within.exec_driver_sql(INSERT)
                for _ in range(3):
                    with engine.begin() as connection:
                        connection.exec_driver_sql(INSERT)
            assert (old.execute(ROWS), new.execute(ROWS)) == ([(0,)], [(3,)])
        finally:
            engine.dispose()
