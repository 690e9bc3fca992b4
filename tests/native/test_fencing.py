"""A primary that lives on after another server was promoted gets nothing more, by any pool."""

from typing import Any

import pytest

from router.errors import CommitUnknown, TransactionLost
from router.testing import Cluster
from tests.conftest import MakeCluster
from tests.fenced import INSERT, LOCK, ROWS, TABLE, UNTOUCHED, outcome, promoted
from tests.native.kit import DOORS, DRIVER_ERRORS


@pytest.fixture
def door(make_cluster: MakeCluster, way: str) -> Any:
    """A pool over a primary and a replica, which nobody probes unasked."""
    cluster = make_cluster(1)
    cluster.primary.execute(TABLE)
    cluster.wait_caught_up()
    options: Any = {"replicas": [r.url() for r in cluster.replicas], "max_size": 4}
    made: Any = DOORS[way](cluster.primary.url(), **{**options, **UNTOUCHED})
    made.cluster = cluster
    made.router.start()
    yield made
    made.close()


def test_nothing_new_is_sent_to_a_fenced_primary(door: Any) -> None:
    """Neither the next statement of an open transaction, nor its commit, nor what is bound to a
    session reaches the old primary, while single statements go on at the new one."""
    cluster: Cluster = door.cluster
    old, new = cluster.primary, cluster.replicas[0]

    def goes_on() -> None:
        with door.connection() as connection, door.transaction(connection):
            door.run(connection, INSERT)
            promoted(cluster, door.router)
            door.run(connection, INSERT)

    def commits() -> None:
        with door.connection() as connection, door.transaction(connection):
            door.run(connection, INSERT)
            with pytest.raises(TransactionLost, match="another server is the primary now"):
                goes_on()

    with door.connection() as bound, door.connection() as alone:
        door.run(bound, LOCK)
        door.run(alone, INSERT)
        with pytest.raises(TransactionLost, match="another server is the primary now"):
            commits()
        with pytest.raises(TransactionLost, match="only its session had"):
            door.run(bound, INSERT)
        with pytest.raises(DRIVER_ERRORS, match="session"):
            door.run(bound, INSERT)
        door.run(alone, INSERT)
    with door.connection() as connection, door.transaction(connection):
        door.run(connection, INSERT)
    assert (old.execute(ROWS), new.execute(ROWS)) == ([(1,)], [(3,)])


@pytest.mark.doors("asyncpg")
def test_a_prepared_statement_does_not_run_on_a_fenced_primary(door: Any) -> None:
    """What was prepared on a server that is followed no more is refused."""
    cluster: Cluster = door.cluster
    with door.connection() as connection:
        insert = door.loop(connection.prepare(INSERT))
        promoted(cluster, door.router)
        with pytest.raises(TransactionLost, match="only its session had"):
            door.loop(insert.fetch())
    assert cluster.primary.execute(ROWS) == [(0,)]


@pytest.mark.parametrize("how", ["transaction", "alone", "block"])
def test_a_commit_that_was_under_way_is_unknown(door: Any, how: str) -> None:
    """What a server acknowledges that was fenced meanwhile is CommitUnknown."""
    cluster: Cluster = door.cluster

    def commit() -> None:
        with door.connection() as connection:
            if how == "alone":
                door.run(connection, INSERT)
            elif how == "transaction" or not hasattr(connection, "pipeline"):
                with door.transaction(connection):
                    door.run(connection, INSERT)
            else:
                block = connection.pipeline()
                with door.loop.entered(block) if door.asynchronous else block:
                    door.run(connection, INSERT)

    error = outcome(cluster, door.router, commit)
    assert isinstance(error, CommitUnknown), repr(error)
    assert "another server became the primary" in str(error)
