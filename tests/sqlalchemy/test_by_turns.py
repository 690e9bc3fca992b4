"""What one checkout leaves to the next: connections to wait for, and nothing else."""

import gc
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import Session, sessionmaker

from router import request_context
from tests.sqlalchemy.kit import EVERY_DRIVER, PORT, SYNCHRONOUS, Routed, as_soon_as, insert

COUNT = sa.text("SELECT count(*) FROM item")
ONE = {"pool_size": 1, "max_overflow": 0}


def one_of(routed: Routed) -> list[str]:
    """The address of one replica alone."""
    return [routed.cluster.replicas[0].url(routed.dbname)]


@SYNCHRONOUS
def test_readers_that_write_and_writers_that_read_never_wait_for_each_other(
    routed: Routed,
) -> None:
    """With one connection to each node, requests that read and then write finish beside those
    that write and then read: nobody keeps a replica's connection while he waits for the
    primary's."""
    engine = routed.another(replicas=one_of(routed), pool_timeout=5, **ONE)
    with engine.connect() as connection:
        routed.await_replica(connection)
    both = threading.Barrier(2)

    def read_then_write() -> None:
        with request_context(), engine.connect() as connection:
            assert routed.served(connection) == "replica"
            both.wait(5)
            insert(connection)
            connection.commit()

    def write_then_read() -> None:
        with request_context(), engine.connect() as connection:
            insert(connection)
            connection.commit()
            both.wait(5)
            connection.execute(COUNT, execution_options={"router": "replica"})

    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(read_then_write), threads.submit(write_then_read)]:
            done.result(15)
    assert routed.count() == 2


@SYNCHRONOUS
def test_what_is_committed_through_the_facade_is_committed(routed: Routed) -> None:
    """A driver connection that was handed out can write again after a commit(), which commits that
    too, and the reads after it see it."""
    with request_context():
        raw = routed.engine.raw_connection()
        driver: Any = raw.driver_connection
        driver.execute("INSERT INTO item (name) VALUES ('one')")
        raw.commit()
        with routed.paused():
            driver.execute("INSERT INTO item (name) VALUES ('two')")
            raw.commit()
            raw.close()
            assert routed.count() == 2
            with routed.engine.connect() as connection:
                assert connection.execute(COUNT).scalar_one() == 2


class Enough(Exception):
    """As Celery's SoftTimeLimitExceeded: raised by a signal's handler."""


@pytest.fixture
def alarm() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise Enough

    before = signal.signal(signal.SIGALRM, ring)
    yield
    signal.signal(signal.SIGALRM, before)


@pytest.mark.doors("psycopg", "pg8000")
@pytest.mark.timeout(60, method="thread")  # the other way is by this signal
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_an_interrupted_read_leaves_nothing_to_the_next_user(routed: Routed, alarm: None) -> None:
    """A connection whose read an exception interrupted is not given to anybody else, and no node
    is blacklisted for it."""
    engine = routed.another(replicas=one_of(routed), **ONE)
    with engine.connect() as connection:
        assert routed.served(connection) == "replica"
    slow = sa.text("SELECT 'of another' FROM pg_sleep(20)")
    asleep = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = %s"
    main = threading.get_ident()
    with (
        engine.connect() as connection,
        as_soon_as(
            lambda: routed.cluster.replicas[0].execute(asleep, [routed.dbname]),
            lambda: signal.pthread_kill(main, signal.SIGALRM),
        ),
        pytest.raises(Enough),
    ):
        connection.execute(slow)
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT 'mine'")).scalar_one() == "mine"
        assert routed.served(connection) == "replica"
    assert not engine.router.blacklisted
    gc.collect()  # pg8000 leaves the socket of an interrupted read to it


@SYNCHRONOUS
def test_a_users_error_in_a_checkout_listener_is_his_alone(routed: Routed) -> None:
    """What a listener raises for one request is raised there, and blacklists no node."""
    role = "nobody_has_this_role"

    def assume(dbapi: Any, *_: object) -> None:
        dbapi.execute(f"SET ROLE {role}")

    engine = routed.another()
    engine.connect().close()  # an engine's first looks at its dialect
    event.listen(engine, "checkout", assume)
    with engine.connect() as connection, pytest.raises(Exception, match=role):
        connection.execute(COUNT)
    assert not engine.router.blacklisted
    event.remove(engine, "checkout", assume)
    with engine.connect() as connection:
        assert routed.served(connection) == "replica"


@SYNCHRONOUS
def test_an_own_write_is_seen_within_a_transaction_on_a_replica(routed: Routed) -> None:
    """Pins come before the transaction that a setting has opened on a replica; the setting is
    there on the primary as well."""
    sessions = sessionmaker(routed.engine)

    @event.listens_for(sessions, "after_begin")
    def tenant(_: Session, __: Any, connection: sa.Connection) -> None:
        connection.execute(sa.text("SELECT set_config('app.tenant', '7', true)"))

    with request_context(), sessions() as reader:
        assert routed.served(reader) == "replica"
        with routed.paused():
            with sessions() as writer:
                insert(writer)
                writer.commit()
            assert reader.scalar(COUNT) == 1
            assert reader.scalar(sa.text("SELECT current_setting('app.tenant')")) == "7"


@EVERY_DRIVER
def test_a_chained_transaction_is_one(routed: Routed) -> None:
    """After COMMIT AND CHAIN the next transaction is open: what it writes is undone with it."""
    engine = routed.another(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for text in ("BEGIN", "-", "COMMIT AND CHAIN", "-", "ROLLBACK AND CHAIN", "-", "ROLLBACK"):
            insert(connection) if text == "-" else connection.exec_driver_sql(text)
    assert routed.count() == 1


@SYNCHRONOUS
def test_serializable_is_never_asked_of_a_replica(routed: Routed) -> None:
    """BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY runs on the primary: no standby knows it."""
    engine = routed.another(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY")
        assert routed.served(connection) == "primary"
        connection.exec_driver_sql("COMMIT")


@SYNCHRONOUS
def test_settings_made_again_and_again_are_brought_to_a_node_once(routed: Routed) -> None:
    """A connection kept for long replays the last value of a setting, and no more of them."""
    engine = routed.another(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for tenant in range(50):
            connection.exec_driver_sql(f"SET app.tenant = '{tenant}'")
            assert routed.served(connection) == "replica"
        checkout: Any = connection.connection
        assert len(checkout.routed.journal.entries) == 1
        insert(connection)
        assert connection.exec_driver_sql("SHOW app.tenant").scalar_one() == "49"
    with engine.connect() as connection:
        shown = sa.text("SELECT current_setting('app.tenant', true)")
        assert not connection.execute(shown).scalar_one()


@SYNCHRONOUS
def test_who_commits_sees_what_was_written(routed: Routed) -> None:
    """A write sent in an inner request's context and committed by the outer one is seen by it."""
    with request_context(), routed.engine.connect() as connection, routed.paused():
        with request_context():
            insert(connection)
        connection.commit()
        assert connection.execute(COUNT).scalar_one() == 1


@SYNCHRONOUS
def test_a_procedure_that_commits_and_fails_has_written(routed: Routed) -> None:
    """An own write is seen where a procedure has committed it before it raised, however long it
    ran."""
    routed.execute_on_primary(
        "CREATE PROCEDURE twice() LANGUAGE plpgsql AS $$ BEGIN "
        "PERFORM pg_sleep(0.4); INSERT INTO item (name) VALUES ('one'); COMMIT; "
        "RAISE 'no more'; END $$"
    )
    routed.settle()
    engine = routed.another(isolation_level="AUTOCOMMIT", probe_interval=0.05)
    with request_context(), engine.connect() as connection, routed.paused():
        with pytest.raises(sa.exc.DBAPIError, match="no more"):
            connection.exec_driver_sql("CALL twice()")
        engine.router.refresh()
        assert connection.execute(COUNT).scalar_one() == 1
        assert routed.name_of(connection.execute(PORT).scalar_one()) == "primary"
