"""A read-only transaction on a replica: what a standby would not refuse is refused before it."""

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from router import request_context, using_primary
from router.errors import ReplicaWriteRefused
from tests.sqlalchemy.kit import EVERY_DOOR, EVERY_DRIVER, PORT, Routed, insert

LOCKS = """SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND
           database = (SELECT oid FROM pg_database WHERE datname = current_database())"""
ACTING = [
    "SELECT pg_advisory_lock(1)",
    "SELECT pg_try_advisory_xact_lock(1) FROM item",
    "WITH l AS (SELECT pg_advisory_lock_shared(1)) SELECT * FROM l",
    "SELECT * FROM locking",
    "SELECT locks()",
    "DO $$ BEGIN PERFORM pg_advisory_lock(1); END $$",
    "SELECT 1; SELECT pg_advisory_lock(1)",
    "EXPLAIN ANALYZE SELECT pg_advisory_lock(1)",
    "DECLARE c CURSOR FOR SELECT pg_advisory_lock(1)",
    "SELECT dblink_exec('dbname=postgres', 'SELECT pg_advisory_lock(1)')",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = 0",
    "SELECT pg_stat_reset()",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "CHECKPOINT",
    "LOCK TABLE item IN ACCESS SHARE MODE",
]


@EVERY_DRIVER
def test_what_would_act_on_a_replica_is_not_sent(routed: Routed) -> None:
    """As the first statement of a read-only transaction and as a later one it raises
    ReplicaWriteRefused, the transaction goes on, and the replicas hold no lock."""
    routed.execute_on_primary(
        "CREATE VIEW locking AS SELECT pg_try_advisory_lock(1)",
        "CREATE FUNCTION locks() RETURNS void STABLE LANGUAGE sql AS 'SELECT pg_advisory_lock(1)'",
    )
    engine = routed.another()
    engine.router.refresh()
    with request_context(), engine.connect() as connection:
        connection = connection.execution_options(postgresql_readonly=True)
        for sql in ACTING:
            for first in (True, False):
                with connection.begin():
                    if not first:
                        assert routed.served(connection) == "replica"
                    with pytest.raises(ReplicaWriteRefused, match="would act and not be refused"):
                        connection.execute(sa.text(sql.replace(":", r"\:")))
                    assert routed.served(connection) == "replica"
        for replica in routed.cluster.replicas:
            assert replica.execute(LOCKS, dbname=routed.dbname) == [(0,)]


@EVERY_DRIVER
def test_what_a_standby_refuses_fails_as_postgresql_fails_it(routed: Routed) -> None:
    """A write in a read-only transaction is sent, and comes back with SQLSTATE 25006."""
    with request_context(), routed.engine.connect() as connection:
        connection = connection.execution_options(postgresql_readonly=True)
        for first in (True, False):
            with connection.begin() as transaction:
                if not first:
                    connection.execute(PORT)
                with pytest.raises(sa.exc.DBAPIError, match="read-only transaction"):
                    insert(connection)
                transaction.rollback()


def test_declared_by_a_statement_it_is_the_same(routed: Routed) -> None:
    """BEGIN READ ONLY as text, and SET TRANSACTION READ ONLY in a Session, keep locks off too."""
    lock = sa.text(ACTING[0])
    with request_context(), routed.engine.connect() as connection:
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.exec_driver_sql("BEGIN READ ONLY")
        with pytest.raises(ReplicaWriteRefused):
            connection.execute(lock)
        connection.exec_driver_sql("ROLLBACK")
        connection.execute(lock)  # outside, on the primary
    with request_context(), Session(routed.engine) as session:
        session.execute(sa.text("SET TRANSACTION READ ONLY"))
        with pytest.raises(ReplicaWriteRefused):
            session.execute(lock)


def test_what_nobody_knows_begins_on_the_primary(routed: Routed) -> None:
    """A function or table made a moment ago elsewhere runs on the primary, where nothing of the
    transaction is open; on a replica, a function that nobody knows is refused and a table read."""
    engine = routed.engine.execution_options(postgresql_readonly=True)
    with engine.connect() as connection:
        connection.execute(PORT)
    routed.execute_on_primary(
        "CREATE FUNCTION port() RETURNS int STABLE LANGUAGE sql AS 'SELECT inet_server_port()'",
        "CREATE VIEW ports AS SELECT inet_server_port() AS port",
    )
    routed.cluster.wait_caught_up()
    unknown, table = sa.text("SELECT port()"), sa.text("SELECT port FROM ports")
    for sql in (unknown, table):
        with request_context(), engine.begin() as connection:
            assert routed.name_of(connection.scalar(sql)) == "primary"
            assert routed.served(connection) == "primary"
    with request_context(), engine.begin() as connection:
        assert routed.served(connection) == "replica"
        with pytest.raises(ReplicaWriteRefused):
            connection.execute(unknown)
        assert routed.name_of(connection.scalar(table)) == "replica"


@EVERY_DOOR
def test_who_asks_for_the_primary_gets_it_beside_the_open_transaction(routed: Routed) -> None:
    """using_primary() reads on the primary while a transaction is open on a replica."""
    engine = routed.another(reads_in_transaction=True)
    with request_context(), engine.connect() as connection:
        assert routed.served(connection) == "replica"
        with using_primary():
            assert routed.served(connection) == "primary"
        connection.commit()


@EVERY_DRIVER
def test_nothing_leaves_a_read_only_transaction_for_using_primary(routed: Routed) -> None:
    """Within it a read stays on the replica, and a write is refused as elsewhere: it would stand
    outside the transaction that its caller may roll back."""
    with request_context(), routed.engine.connect() as connection:
        connection = connection.execution_options(postgresql_readonly=True)
        with connection.begin() as transaction:
            assert routed.served(connection) == "replica"
            with using_primary():
                assert routed.served(connection) == "replica"
                with pytest.raises(sa.exc.DBAPIError, match="read-only transaction"):
                    insert(connection)
            transaction.rollback()
    assert routed.cluster.primary.execute("SELECT count(*) FROM item", dbname=routed.dbname) == [
        (0,)
    ]
