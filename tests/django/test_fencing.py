"""A primary that lives on after another server was promoted gets nothing more from Django."""

from typing import Any

import pytest

from router.errors import CommitUnknown, TransactionLost
from tests.conftest import Database, MakeCluster
from tests.django.conftest import Connect
from tests.fenced import INSERT, LOCK, ROWS, TABLE, UNTOUCHED, outcome, promoted


@pytest.fixture
def routed(make_cluster: MakeCluster, connect: Connect) -> Any:
    cluster = make_cluster(1)
    cluster.primary.execute(TABLE)
    cluster.wait_caught_up()
    return connect(Database(cluster, "postgres"), ROUTER=UNTOUCHED)


def run(sql: str) -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(sql)


def test_nothing_new_of_atomic_is_sent_to_a_fenced_primary(routed: Any) -> None:
    """The next statement of an atomic() block is refused, its end writes nothing there, and the
    thread's next statement runs on the new primary."""
    from django.db import transaction

    old, new = routed.cluster.primary, routed.cluster.replicas[0]

    def block() -> None:
        with transaction.atomic():
            run(INSERT)
            promoted(routed.cluster, routed.router)
            run(INSERT)

    with pytest.raises(TransactionLost, match="another server is the primary now"):
        block()
    run(INSERT)
    with transaction.atomic():
        run(INSERT)
    assert (old.execute(ROWS), new.execute(ROWS)) == ([(0,)], [(2,)])


def test_a_commit_of_atomic_is_not_sent_to_a_fenced_primary(routed: Any) -> None:
    """atomic() raises where its COMMIT would go to a server that is followed no more."""
    from django.db import transaction

    old, new = routed.cluster.primary, routed.cluster.replicas[0]

    def block() -> None:
        with transaction.atomic():
            run(INSERT)
            promoted(routed.cluster, routed.router)

    with pytest.raises(TransactionLost, match="another server is the primary now"):
        block()
    run(INSERT)
    assert (old.execute(ROWS), new.execute(ROWS)) == ([(0,)], [(1,)])


def test_what_is_bound_to_a_fenced_session_is_refused(routed: Any) -> None:
    """A thread whose session holds an advisory lock on the old primary writes nothing without it,
    until its connection is closed."""
    from django.db import connection

    old, new = routed.cluster.primary, routed.cluster.replicas[0]
    run(LOCK)
    promoted(routed.cluster, routed.router)
    for _ in range(2):
        with pytest.raises(TransactionLost, match="only its session had"):
            run(INSERT)
    connection.close()
    run(INSERT)
    assert (old.execute(ROWS), new.execute(ROWS)) == ([(0,)], [(1,)])


@pytest.mark.parametrize("atomic", [True, False])
def test_a_commit_that_was_under_way_is_unknown(routed: Any, atomic: bool) -> None:
    """What the old primary acknowledges after it was fenced is CommitUnknown."""
    from django.db import connection, transaction

    def commit() -> None:
        try:
            if atomic:
                with transaction.atomic():
                    run(INSERT)
            else:
                run(INSERT)
        finally:
            connection.close()

    error = outcome(routed.cluster, routed.router, commit)
    assert isinstance(error, CommitUnknown), repr(error)


def test_the_first_read_of_atomic_stays_on_the_primary(connect: Connect) -> None:
    """Its connection having died, it runs on a fresh one to the primary, not on a replica that
    lags: what is written next is computed from it."""
    from django.db import connection, transaction

    from router import request_context

    routed = connect()
    name = routed.database.name
    primary = routed.cluster.primary
    primary.execute("INSERT INTO shop_item (name) VALUES ('100')", dbname=name)
    routed.settle()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        pid = cursor.fetchone()[0]
    with routed.cluster.replay_paused():
        primary.execute("UPDATE shop_item SET name = '60'", dbname=name)
        primary.execute(f"SELECT pg_terminate_backend({pid}, 5000)", dbname=name)
        with request_context(), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT name FROM shop_item")
            assert cursor.fetchone() == ("60",)
            run("UPDATE shop_item SET name = '50'")
