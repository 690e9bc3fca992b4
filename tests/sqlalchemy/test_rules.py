"""The rules table of the design, one scenario per row, on real servers.

Every assertion asks the server that executed the statement for its port, never the router.
"""

import time

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

import router
from router import request_context
from router.errors import NoReplicaAvailable, ReplicaWriteRefused
from tests.rules.kit import NOT_READS
from tests.sqlalchemy.kit import EVERY_WAY, PORT, Routed, insert

pytestmark = EVERY_WAY

OPEN = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
    "AND state LIKE 'idle in transaction%'"
)


# Row 1: the caller said so.


def test_row_1_using_primary_sends_a_read_to_the_primary(routed: Routed) -> None:
    """A read inside using_primary() runs on the primary."""
    with routed.engine.connect() as connection, router.using_primary():
        assert routed.served(connection) == "primary"


def test_row_1_using_replica_sends_a_pinned_read_to_a_replica(routed: Routed) -> None:
    """A read inside using_replica() runs on a replica even right after a write."""
    with routed.paused(), routed.engine.connect() as connection:
        insert(connection)
        connection.commit()
        assert routed.served(connection) == "primary"
        with router.using_replica():
            assert routed.served(connection) == "replica"


@pytest.mark.parametrize("level", ["statement", "connection", "engine"])
def test_row_1_execution_options_name_the_role(routed: Routed, level: str) -> None:
    """execution_options(router="primary") holds for a statement, a connection or an engine."""
    engine: sa.Engine = routed.engine
    statement = PORT
    if level == "engine":
        engine = engine.execution_options(router="primary")
    with engine.connect() as connection:
        if level == "connection":
            connection = connection.execution_options(router="primary")
        if level == "statement":
            statement = statement.execution_options(router="primary")
        assert routed.name_of(connection.execute(statement).scalar_one()) == "primary"
    with routed.engine.connect() as connection:
        assert routed.served(connection) == "replica"


def test_row_1_a_write_asked_onto_a_replica_is_refused_before_it_is_sent(routed: Routed) -> None:
    """A write with router="replica" raises ReplicaWriteRefused and reaches no server."""
    with routed.engine.connect() as connection:
        with pytest.raises(ReplicaWriteRefused, match=r"INSERT.*using_replica"):
            insert(connection, router="replica")
        connection.rollback()
        with pytest.raises(sa.exc.InvalidRequestError), router.using_replica():
            insert(connection)
    assert routed.count() == 0


# Row 2: a transaction is open on the primary.


def test_row_2_reads_after_a_write_stay_on_the_primary_until_the_transaction_ends(
    routed: Routed,
) -> None:
    """A read sees the uncommitted row of its own transaction, on the primary."""
    with routed.engine.connect() as connection:
        insert(connection)
        assert routed.served(connection) == "primary"
        assert connection.scalar(sa.text("SELECT count(*) FROM item")) == 1
        connection.rollback()
        routed.settle()
        assert routed.served(connection) == "replica"
    assert routed.count() == 0


# Row 3: a write, or anything not positively a read.


@pytest.mark.parametrize("sql", NOT_READS)
def test_row_3_what_is_not_positively_a_read_runs_on_the_primary(routed: Routed, sql: str) -> None:
    """Writes, locks, sequences and functions that are not known to be safe reach the primary."""
    routed.execute_on_primary(
        "CREATE OR REPLACE FUNCTION no_such_volatility() RETURNS int LANGUAGE sql VOLATILE "
        "AS 'SELECT 1 FROM (SELECT pg_advisory_xact_lock(1)) x'",
        "INSERT INTO item (name) VALUES ('locked')",
    )
    routed.settle()
    with routed.engine.connect() as connection:
        port, *_ = connection.execute(sa.text(sql)).one()
        assert routed.name_of(port) == "primary"


def test_row_3_the_context_is_pinned_before_the_write_is_sent(routed: Routed) -> None:
    """While a write is still running, a read of the same context already stays on the primary."""
    # Never probed meanwhile: a probe between the pin and the statement may end the one, of which
    # there is another at the commit.
    engine = routed.another(probe_interval=60)
    with (
        routed.paused(),
        router.request_context() as context,
        engine.connect() as writer,
        engine.connect() as reader,
    ):
        assert routed.served(reader) == "replica"
        insert(writer)  # not committed
        assert context.pins.get(engine.router.cluster) is not None
        assert routed.served(reader) == "primary"


def test_row_3_a_write_is_rolled_back_as_a_whole(routed: Routed) -> None:
    """The transaction that begins at the first write is a real one."""
    with routed.engine.connect() as connection:
        routed.served(connection)
        insert(connection)
        insert(connection)
        connection.rollback()
    assert routed.count() == 0


# Row 4: an explicit transaction that is not read-only.


def test_row_4_engine_begin_is_the_primary(routed: Routed) -> None:
    """A read in engine.begin() runs on the primary, before any write."""
    with routed.engine.begin() as connection:
        assert routed.served(connection) == "primary"


def test_row_4_connection_begin_is_the_primary(routed: Routed) -> None:
    """A read in connection.begin() runs on the primary."""
    with routed.engine.connect() as connection, connection.begin():
        assert routed.served(connection) == "primary"


def test_row_4_session_begin_is_the_primary(routed: Routed) -> None:
    """A read in session.begin() runs on the primary; in an autobegun session on a replica."""
    with Session(routed.engine) as session, session.begin():
        assert routed.served(session) == "primary"
    with Session(routed.engine) as session:
        assert routed.served(session) == "replica"


def test_row_4_a_raw_begin_is_the_primary(routed: Routed) -> None:
    """After a BEGIN sent as text, reads run on the primary until COMMIT."""
    with routed.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("BEGIN"))
        assert routed.served(connection) == "primary"
        connection.execute(sa.text("COMMIT"))
        assert routed.served(connection) == "replica"


def test_row_4_a_savepoint_is_the_primary(routed: Routed) -> None:
    """begin_nested() begins a real transaction on the primary."""
    with routed.engine.connect() as connection:
        with connection.begin_nested():
            assert routed.served(connection) == "primary"
            insert(connection)
        connection.commit()
    assert routed.count() == 1


def test_row_4_two_phase_is_the_primary(routed: Routed) -> None:
    """A two-phase transaction runs on the primary and commits there once."""
    with routed.engine.connect() as connection:
        transaction = connection.begin_twophase()
        assert routed.served(connection) == "primary"
        insert(connection)
        transaction.prepare()
        transaction.commit()
    assert routed.count() == 1


def test_a_prepared_transaction_is_found_again(routed: Routed) -> None:
    """Whoever recovers asks the primary: a standby that has replayed PREPARE shows nothing."""
    with routed.engine.connect() as connection:
        transaction = connection.begin_twophase()
        insert(connection)
        transaction.prepare()
        connection.invalidate()
    routed.cluster.wait_caught_up()
    router.unpin()
    with routed.engine.connect() as connection:
        assert transaction.xid in connection.recover_twophase()
        connection.commit_prepared(transaction.xid, recover=True)
    assert routed.count() == 1


def test_the_commit_of_a_prepared_transaction_pins(routed: Routed) -> None:
    """What another session prepared is this one's write once this one commits it."""
    routed.execute_on_primary(
        "BEGIN; INSERT INTO item (name) VALUES ('x'); PREPARE TRANSACTION 'theirs'"
    )
    routed.cluster.wait_caught_up()
    alone = routed.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    with routed.paused(), alone as connection:
        connection.exec_driver_sql("COMMIT PREPARED 'theirs'")
        assert connection.exec_driver_sql("SELECT count(*) FROM item").scalar_one() == 1


def test_asking_for_the_isolation_level_leaves_no_transaction_open(routed: Routed) -> None:
    """A driver begins a transaction to ask; whoever has the connection next is not in it."""
    with routed.engine.connect() as connection:
        connection.get_isolation_level()
    for server in routed.cluster.servers:
        with psycopg.connect(server.conninfo(routed.dbname)) as observer:
            (open_now,) = observer.execute(OPEN).fetchone() or (None,)
            assert open_now == 0


@pytest.mark.parametrize("level", ["SERIALIZABLE", "REPEATABLE READ"])
def test_row_4_isolation_above_read_committed_is_the_primary(routed: Routed, level: str) -> None:
    """REPEATABLE READ that may write, and SERIALIZABLE, run on the primary."""
    with routed.engine.connect().execution_options(isolation_level=level) as connection:
        assert routed.served(connection) == "primary"
        assert connection.get_isolation_level() == level


def test_row_4_serializable_is_the_primary_even_when_read_only(routed: Routed) -> None:
    """A standby refuses SERIALIZABLE, so a read-only one runs on the primary as well."""
    options = {"isolation_level": "SERIALIZABLE", "postgresql_readonly": True}
    with routed.engine.connect().execution_options(**options) as connection:
        assert routed.served(connection) == "primary"


def test_row_4_lazy_transactions_read_on_a_replica_before_their_first_write(
    routed: Routed,
) -> None:
    """With transactions="lazy" engine.begin() reads on a replica and writes on the primary."""
    engine = routed.another(transactions="lazy")
    with engine.begin() as connection:
        assert routed.served(connection) == "replica"
        insert(connection)
        assert routed.served(connection) == "primary"
    assert routed.count() == 1


# Row 5: a transaction declared read-only.


def test_row_5_a_read_only_transaction_is_one_replica(routed: Routed) -> None:
    """All reads of a transaction declared read-only run on one replica, in one transaction."""
    with routed.engine.connect().execution_options(postgresql_readonly=True) as connection:
        first = connection.execute(PORT).scalar_one()
        began = connection.scalar(sa.text("SELECT now()"))
        assert routed.name_of(first) == "replica"
        assert all(connection.execute(PORT).scalar_one() == first for _ in range(8))
        assert connection.scalar(sa.text("SELECT now()")) == began


def test_row_5_repeatable_read_declared_read_only_is_one_replica(routed: Routed) -> None:
    """REPEATABLE READ declared read-only runs on one replica and keeps one snapshot."""
    options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with routed.engine.connect().execution_options(**options) as connection:
        assert routed.served(connection) == "replica"
        before = connection.scalar(sa.text("SELECT count(*) FROM item"))
        routed.execute_on_primary("INSERT INTO item (name) VALUES ('later')")
        routed.cluster.wait_caught_up()
        assert connection.scalar(sa.text("SELECT count(*) FROM item")) == before


def test_row_5_a_write_in_a_read_only_transaction_fails_as_postgresql_fails_it(
    routed: Routed,
) -> None:
    """A write in a read-only transaction gets SQLSTATE 25006 and is not healed."""
    with routed.engine.connect().execution_options(postgresql_readonly=True) as connection:
        with pytest.raises(sa.exc.DBAPIError, match="read-only") as raised:
            insert(connection)
        assert raised.value.orig is not None
        assert routed.engine.pool.driver.sqlstate(raised.value.orig) == "25006"
    assert routed.count() == 0
    assert "healed" not in routed.engine.router.stats()["events"]


def test_row_5_a_raw_begin_read_only_is_one_replica(routed: Routed) -> None:
    """BEGIN READ ONLY sent as text opens the transaction on a replica."""
    with routed.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("BEGIN READ ONLY"))
        first = connection.execute(PORT).scalar_one()
        assert routed.name_of(first) == "replica"
        assert all(connection.execute(PORT).scalar_one() == first for _ in range(4))
        connection.execute(sa.text("COMMIT"))


# Row 6: a read while the context is pinned.


def test_row_6_a_pinned_read_is_the_primary_until_a_replica_has_replayed_the_write(
    routed: Routed,
) -> None:
    """While replay is paused a writer reads on the primary; once it caught up, on a replica."""
    with router.request_context(), Session(routed.engine) as session:
        with routed.paused():
            insert(session)
            session.commit()
            assert routed.served(session) == "primary"
            assert session.scalar(sa.text("SELECT count(*) FROM item")) == 1
            session.rollback()
        routed.await_replica(session)
        assert session.scalar(sa.text("SELECT count(*) FROM item")) == 1


def test_row_6_only_a_replica_that_has_replayed_the_pin_is_used(routed: Routed) -> None:
    """With one replica paused, a pinned read goes to the other and never to the paused one."""
    paused, caught_up = routed.cluster.replicas
    paused.pause_replay()
    try:
        with router.request_context(), routed.engine.connect() as connection:
            insert(connection)
            connection.commit()
            routed.await_replica(connection)
            for _ in range(20):
                assert connection.execute(PORT).scalar_one() == caught_up.port
                connection.rollback()
    finally:
        paused.resume_replay()


def test_row_6_another_request_is_not_pinned(routed: Routed) -> None:
    """One user's write does not send another user's reads to the primary."""
    with routed.paused():
        with router.request_context(), routed.engine.begin() as connection:
            insert(connection)
        with router.request_context(), routed.engine.connect() as connection:
            assert routed.served(connection) == "replica"


def test_row_6_time_mode_pins_for_its_duration(routed: Routed) -> None:
    """With consistency="time" reads stay on the primary for pin_duration, lag or no lag."""
    engine, ahead = routed.another(consistency="time", pin_duration=60), [0.0]
    engine.router.clock = lambda: time.monotonic() + ahead[0]
    with router.request_context(), engine.connect() as connection:
        insert(connection)
        connection.commit()
        routed.cluster.wait_caught_up()
        assert routed.served(connection) == "primary"
        ahead[0] = 61
        engine.router.refresh()  # reports of before are old now
        routed.await_replica(connection)


def test_row_6_consistency_off_never_pins(routed: Routed) -> None:
    """With consistency="off" a read right after a commit may use a replica."""
    engine = routed.another(consistency="off")
    with routed.paused(), engine.connect() as connection:
        insert(connection)
        connection.commit()
        assert routed.served(connection) == "replica"


# Row 7: any other read.


def test_row_7_a_read_goes_to_a_replica_without_a_transaction(routed: Routed) -> None:
    """A plain read runs on a replica in autocommit: no transaction is left open there."""
    with routed.engine.connect() as connection:
        assert routed.served(connection) == "replica"
        held = connection.connection.routed.replica
        assert held is not None
        assert not routed.engine.pool.driver.in_transaction(held.dbapi)


def test_row_7_a_checkout_keeps_its_replica(routed: Routed) -> None:
    """Reads of one checkout stay on the replica it holds."""
    with routed.engine.connect() as connection:
        ports = {connection.execute(PORT).scalar_one() for _ in range(30)}
        connection.commit()
        ports |= {connection.execute(PORT).scalar_one() for _ in range(30)}
    assert len(ports) == 1


def test_row_7_checkouts_spread_over_the_replicas(routed: Routed) -> None:
    """Both replicas serve reads."""
    ports = set()
    for _ in range(60):
        with routed.engine.connect() as connection:
            ports.add(connection.execute(PORT).scalar_one())
    assert ports == {replica.port for replica in routed.cluster.replicas}


def test_row_7_reads_in_transaction_keeps_the_old_way(routed: Routed) -> None:
    """With reads_in_transaction=True two reads of one session share now(), on a replica."""
    engine = routed.another(reads_in_transaction=True)
    with engine.connect() as connection:
        assert routed.served(connection) == "replica"
        now = sa.text("SELECT now()")
        assert connection.scalar(now) == connection.scalar(now)


def test_row_7_a_server_side_cursor_reads_on_a_replica(routed: Routed) -> None:
    """stream_results opens its cursor, and the transaction that needs, on a replica."""
    with routed.engine.connect().execution_options(stream_results=True) as connection:
        rows = connection.execute(
            sa.text("SELECT inet_server_port() FROM generate_series(1, 500)")
        )
        assert {routed.name_of(port) for (port,) in rows} == {"replica"}


# Row 8: no replica is eligible.


def test_row_8_without_an_eligible_replica_reads_use_the_primary(routed: Routed) -> None:
    """With every replica blacklisted, reads go to the primary."""
    shut = routed.another()
    with shut.connect() as connection:
        assert routed.served(connection) == "replica"
    for node in shut.router.replicas:
        shut.router.health.failed(node, "test")
    with shut.connect() as connection:
        assert routed.served(connection) == "primary"


def test_row_8_fallback_error_raises_instead(routed: Routed) -> None:
    """With fallback="error" the read fails, naming each replica and why it is out."""
    shut = routed.another(fallback="error")
    with shut.connect() as connection:
        assert routed.served(connection) == "replica"
    for node in shut.router.replicas:
        shut.router.health.failed(node, "pulled by hand")
    with shut.connect() as connection:
        with pytest.raises(NoReplicaAvailable, match=r"replica1: blacklisted: pulled by hand"):
            connection.execute(PORT)
        with pytest.raises(sa.exc.OperationalError):
            connection.execute(PORT)


def test_without_replicas_everything_works_on_the_primary(routed: Routed) -> None:
    """An engine with no replicas given reads and writes on the primary."""
    engine = routed.another(replicas=[])
    with engine.connect() as connection:
        assert routed.served(connection) == "primary"
        insert(connection)
        connection.commit()
        assert routed.served(connection) == "primary"
    assert routed.count() == 1


def test_a_hint_in_the_text_says_where(routed: Routed) -> None:
    """A comment sends a read to the primary, or to a replica whatever the pin, also as a prefix
    of SQLAlchemy's own; no write goes to a replica by it, and an option wins over it."""
    port = sa.select(sa.func.inet_server_port())
    primary, replica = (port.prefix_with(f"/* router: {n} */") for n in ("primary", "replica"))

    def served(connection: sa.Connection, statement: sa.Executable) -> str:
        return routed.name_of(connection.scalar(statement))

    with request_context(), routed.engine.connect() as connection:
        assert served(connection, primary) == "primary"
        assert served(connection, primary.execution_options(router="replica")) == "replica"
        with routed.cluster.replay_paused():
            connection.execute(
                sa.text("INSERT INTO item (name) VALUES ('new') /* router: replica */")
            )
            connection.commit()
            assert served(connection, port) == "primary"
            assert served(connection, replica) == "replica"
            assert served(connection, replica) == "replica"
    off = routed.another(hints=False)
    with request_context(), off.connect() as connection:
        assert served(connection, primary) == "replica"
