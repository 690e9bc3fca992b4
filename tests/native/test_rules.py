"""The rules table of the design by the drivers' own pools, on real servers.

Every assertion asks the server that executed the statement for its port, never the router.
"""

from contextlib import suppress
from typing import Any

import pytest

from router import request_context, using_primary, using_replica
from router.errors import ReplicaWriteRefused, TransactionLost
from router.sql.intent import Kind
from tests.conftest import Database
from tests.native.conftest import EVERY_WAY, MakePool
from tests.native.kit import DRIVER_ERRORS, PORT, Native
from tests.probing import until
from tests.rules.kit import NOT_READS

pytestmark = EVERY_WAY

INSERT = "INSERT INTO item (name) VALUES ('new')"


def test_row_1_the_caller_says_where(native: Native) -> None:
    """using_primary() and using_replica() decide; a write asked onto a replica is refused before
    it is sent."""
    with native.door.connection() as connection:
        with using_primary():
            assert native.served(connection) == "primary"
        with request_context(), native.cluster.replay_paused():
            native.door.run(connection, INSERT)
            assert native.served(connection) == "primary"
            with using_replica():
                assert native.served(connection) == "replica"
                with pytest.raises(ReplicaWriteRefused, match=r"INSERT.*using_replica"):
                    native.door.run(connection, INSERT)
    assert native.count() == 1


def test_row_2_a_transaction_is_on_the_primary_and_sees_its_own_rows(native: Native) -> None:
    """All of a transaction runs on the primary; a savepoint is undone by itself."""
    with request_context(), native.door.connection() as connection:
        with native.door.transaction(connection):
            assert native.served(connection) == "primary"
            native.door.run(connection, INSERT)
            with suppress(ZeroDivisionError), native.door.transaction(connection):
                native.door.run(connection, INSERT)
                raise ZeroDivisionError
            assert native.door.run(connection, "SELECT count(*) FROM item") == [(1,)]
        with suppress(ZeroDivisionError), native.door.transaction(connection):
            native.door.run(connection, INSERT)
            raise ZeroDivisionError
        native.settle()
        native.await_replica(connection)
    assert native.count() == 1


def test_a_commit_sent_as_text_is_read_after_it(native: Native) -> None:
    """A pin counts from the COMMIT of a transaction that was begun and ended by text, not from
    its statements, however long before that they were replayed."""
    with request_context(), native.door.connection() as connection:
        native.door.run(connection, "BEGIN")
        native.door.run(connection, INSERT)
        native.settle()
        with native.cluster.replay_paused():
            native.door.run(connection, "COMMIT")
            assert native.door.run(connection, "SELECT count(*) FROM item") == [(1,)]


def test_no_half_of_a_transaction_is_committed(native: Native) -> None:
    """When the connection is lost in a transaction and the code goes on, nothing more of that
    transaction runs, and nothing of it is committed."""

    def half(connection: Any) -> None:
        with native.door.transaction(connection):
            native.door.run(connection, INSERT)
            rows = native.door.run(connection, "SELECT pg_backend_pid()")
            native.database.execute(f"SELECT pg_terminate_backend({rows[0][0]})")
            with suppress(*DRIVER_ERRORS):
                native.door.run(connection, INSERT)
            native.door.run(connection, INSERT)

    with native.door.connection() as connection:
        with pytest.raises(TransactionLost, match="nothing of the open transaction") as caught:
            half(connection)
        assert isinstance(caught.value, DRIVER_ERRORS)
        assert native.count() == 0
        native.door.run(connection, INSERT)
        assert native.count() == 1


@pytest.mark.parametrize("sql", NOT_READS)
def test_row_3_what_is_not_positively_a_read_runs_on_the_primary(native: Native, sql: str) -> None:
    """Writes, locks, sequences and functions that are not known to be safe reach the primary."""
    native.database.execute(
        "CREATE FUNCTION no_such_volatility() RETURNS int LANGUAGE sql VOLATILE AS "
        "'SELECT 1 FROM (SELECT pg_advisory_xact_lock(1)) x'"
    )
    native.database.execute(INSERT)
    native.settle()
    with request_context():
        assert native.served(sql=sql) == "primary"


def test_row_4_a_pinned_reader_sees_what_it_wrote(native: Native) -> None:
    """With replay paused a request reads its own write from the primary, others read replicas;
    once it is replayed the request reads replicas again."""
    with native.cluster.replay_paused():
        with request_context():
            native.run(INSERT)
            assert native.run("SELECT count(*) FROM item") == [(1,)]
            assert native.served() == "primary"
        with request_context():
            assert native.run("SELECT count(*) FROM item") == [(0,)]
            assert native.served() == "replica"
    with request_context():
        native.run(INSERT)
        native.settle()
        native.await_replica()
        assert native.run("SELECT count(*) FROM item") == [(2,)]


def test_row_5_a_read_only_transaction_is_on_a_replica_unless_pinned(native: Native) -> None:
    """A transaction declared READ ONLY runs on a replica, after a write on the primary."""
    with request_context(), native.door.connection() as connection:
        with native.door.transaction(connection, read_only=True):
            assert native.served(connection) == "replica"
        with native.cluster.replay_paused():
            native.door.run(connection, INSERT)
            with native.door.transaction(connection, read_only=True):
                assert native.served(connection) == "primary"


def test_row_7_reads_leave_the_primary_alone(native: Native) -> None:
    """Reads one after the other hold one connection to a replica, and none to the primary."""
    with native.door.connection() as connection:
        for _ in range(20):
            assert native.served(connection) == "replica"
        assert native.door.in_use() == 1
        ((node, _),) = [(n, u) for n, u in native.door.router.use().items() if u.busy]
        assert node != "primary"
    assert native.door.in_use() == 0
    assert native.door.router.use()[node].idle >= 1


@pytest.mark.doors("psycopg", "psycopg_async")
def test_settings_made_are_there_wherever_a_statement_runs(native: Native) -> None:
    """What SET changed on one node holds on every other this connection uses, and is gone with
    it."""
    ask = "SELECT current_setting('app.tenant', true), inet_server_port()"
    with request_context(), native.door.connection() as connection:
        native.door.run(connection, "SET app.tenant = '7'")
        tenant, port = native.door.run(connection, ask)[0]
        assert (tenant, native.role(port)) == ("7", "replica")
        native.door.run(connection, INSERT)
        with using_primary():
            tenant, port = native.door.run(connection, ask)[0]
        assert (tenant, native.role(port)) == ("7", "primary")
    for force in (using_primary, using_replica):
        with force():
            assert native.run(ask)[0][0] in ("", None)


@pytest.mark.doors("psycopg", "psycopg_async")
def test_a_setting_made_over_a_local_one_reaches_nobody_else(native: Native) -> None:
    """SET after SET LOCAL in one transaction: what the local value hid is not known, so nothing
    that was set is left for the next user of the connection."""
    ask = "SELECT current_setting('app.tenant', true)"
    with native.door.connection() as connection:
        with native.door.transaction(connection):
            native.door.run(connection, "SET LOCAL app.tenant = '7'")
            native.door.run(connection, "SET app.tenant = '8'")
            assert native.door.run(connection, ask) == [("8",)]
        with native.door.transaction(connection):
            native.door.run(connection, "SET app.tenant = '9'")
    with using_primary():
        assert native.run(ask)[0][0] in ("", None)


@pytest.mark.doors("psycopg")
def test_a_setting_made_once_more_is_put_back_where_only_the_first_was(native: Native) -> None:
    """A replica's connection that has run SET LOCAL and SET, and not the SET that followed on the
    primary, is given back without any."""
    ask = "SELECT current_setting('app.tenant', true)"
    with native.door.connection() as connection:
        connection.autocommit = False
        native.door.run(connection, "SET LOCAL app.tenant = '7'")
        native.door.run(connection, "SET app.tenant = '8'")
        assert native.served(connection) == "replica"
        native.door.run(connection, INSERT)
        native.door.run(connection, "SET app.tenant = '9'")
    for force in (using_primary, using_replica):
        with force():
            # As often as a pool has connections, which it lends in turn.
            found = {native.run(ask)[0][0] for _ in range(20)}
            assert not found & {"7", "8", "9"}


def test_a_dry_run_keeps_everything_on_the_primary(make_pool: MakePool, database: Any) -> None:
    """dry_run says what replicas would have served, and has the primary serve it."""
    native = Native(database, lambda: make_pool(dry_run=True))
    with request_context():
        assert native.served() == "primary"
    assert "would have" in str(native.door.router.dry_run_report())


def test_a_comment_says_node_and_reason(make_pool: MakePool, database: Any) -> None:
    """With sql_comment the server sees where the statement was sent and why."""
    native = Native(database, lambda: make_pool(sql_comment=True))
    rows = native.run("SELECT current_query()")
    assert "router_node='replica" in rows[0][0]


def test_a_hint_in_the_text_says_where(native: Native) -> None:
    """A comment sends one statement to the primary, or a read to a replica whatever the pin, in
    a transaction too; it sends no write to a replica. The caller's block yields to it."""
    primary, replica = f"/* router: primary */ {PORT}", f"{PORT} /* router: replica */"
    with request_context(), native.door.connection() as connection:
        assert native.served(connection) == "replica"
        assert native.served(connection, primary) == "primary"
        native.await_replica(connection)
        with native.cluster.replay_paused():
            native.door.run(connection, f"{INSERT} /* router: replica */")
            assert native.served(connection) == "primary"
            assert native.served(connection, replica) == "replica"
            with native.door.transaction(connection):
                native.door.run(connection, INSERT)
                assert native.served(connection, replica) == "replica"
                assert native.served(connection) == "primary"
            with using_replica():
                assert native.served(connection, primary) == "primary"
            with using_primary():
                assert native.served(connection, replica) == "replica"
    assert native.count() == 2


def test_what_the_primary_refuses_too_is_no_misroute(native: Native) -> None:
    """An error that standby and primary both raise is the caller's, and nothing is learnt of it:
    once a view was populated it is read from a replica."""
    router = native.door.router
    native.database.execute("CREATE MATERIALIZED VIEW late AS SELECT 1 AS id WITH NO DATA")
    native.settle()
    router.monitor.refresh_catalog()
    late = "SELECT inet_server_port() FROM late"
    until(lambda: router.intent(late).kind is Kind.READ)
    for sql in (late, "SELECT count(DISTINCT id) OVER () FROM item"):
        for _ in range(2):
            with pytest.raises(DRIVER_ERRORS):
                native.run(sql)
    assert "healed" not in router.stats()["events"]
    assert router.classifier.stats()["learnt"] == 0
    native.database.execute("REFRESH MATERIALIZED VIEW late")
    native.settle()
    with request_context():
        assert native.served(sql=late) == "replica"


def test_what_was_healed_is_known_until_the_catalog_changes(
    database: Database, make_pool: MakePool
) -> None:
    """What a standby refused is healed once, in texts too that differ in a comment or constant;
    with another catalog it is judged anew."""
    native = Native(database, lambda: make_pool(read_functions=["sneaky"]))
    router = native.door.router
    native.database.execute(
        "CREATE FUNCTION sneaky(int) RETURNS int LANGUAGE sql AS "
        "$$ INSERT INTO item (name) VALUES ('s') RETURNING inet_server_port() $$"
    )
    native.settle()
    for i in range(30):
        assert native.served(sql=f"SELECT sneaky({i}) /* trace {i} */") == "primary"
    assert router.stats()["events"]["healed"] == 1
    assert native.count() == 30
    native.database.execute("CREATE OR REPLACE FUNCTION sneaky(int) RETURNS int LANGUAGE sql AS "
                            "$$ SELECT inet_server_port() $$")  # fmt: skip
    native.settle()
    router.monitor.refresh_catalog()
    until(lambda: not router.classifier.stats()["learnt"])
    with request_context():
        assert native.served(sql="SELECT sneaky(1) /* trace 1 */") == "replica"
