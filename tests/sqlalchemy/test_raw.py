"""What is done below SQLAlchemy, and what a pool gets back after it."""

import gc
from typing import Any

import pytest
import sqlalchemy as sa
from psycopg.sql import SQL, Identifier

import router
from router import request_context
from tests.sqlalchemy.kit import EVERY_DOOR, EVERY_DRIVER, Routed, insert

ADD = "INSERT INTO item (name) VALUES ('unseen')"


@pytest.mark.doors("psycopg", "psycopg2")
def test_a_named_cursor_is_a_stream_however_it_is_named(routed: Routed) -> None:
    """A server-side cursor gets the transaction it needs, its name by position or keyword."""
    for args, keywords in ((("c",), {}), ((), {"name": "c"})):
        raw: Any = routed.engine.raw_connection()
        cursor = raw.cursor(*args, **keywords)
        cursor.execute("SELECT generate_series(1, 3)")
        assert len(cursor.fetchall()) == 3
        cursor.close()
        raw.close()


@pytest.mark.doors("asyncpg_async")
def test_a_server_side_cursor_of_asyncpg_is_a_stream(routed: Routed) -> None:
    """A server-side cursor of asyncpg's dialect gets the transaction it needs."""
    raw: Any = routed.engine.raw_connection()
    cursor = raw.cursor(server_side=True)
    cursor.execute("SELECT generate_series(1, 3)")
    assert len(cursor.fetchall()) == 3
    raw.close()


@pytest.mark.doors("psycopg", "psycopg2", "psycopg_async")
@pytest.mark.parametrize("how", ["close", "close after a rollback", "invalidate the replica's"])
def test_an_open_transaction_never_enters_the_pool(routed: Routed, how: str) -> None:
    """What a driver connection began unseen is rolled back with its checkout: its locks end, and
    the next user does not commit it."""
    engine = routed.another(pool_size=1, max_overflow=0)
    connection = engine.connect()
    driver = connection.connection.driver_connection
    routed_dbapi: Any = connection.connection.routed.primary.dbapi
    assert driver is not None
    connection.connection.commit()
    cursor = routed_dbapi.cursor()
    cursor.execute("BEGIN" if routed_dbapi.autocommit else "SELECT 1")
    cursor.execute(ADD)
    cursor.close()
    connection.connection.routed.primary.in_transaction = False
    if how == "close after a rollback":
        connection.connection._close_special(transaction_reset=True)
    elif how == "close":
        connection.close()
    else:
        connection.scalar(sa.text("SELECT 1").execution_options(router="replica"))
        connection.connection.routed.replica.broken = True
        connection.invalidate(RuntimeError("the replica's is lost"))
        connection.close()
    with engine.begin() as another:
        insert(another)
    assert routed.count() == 1


@EVERY_DRIVER
def test_a_write_in_the_raw_connections_autocommit_is_pinned_past_its_end(routed: Routed) -> None:
    """A write by a raw connection that was switched to autocommit is committed when it returns,
    and its pin knows; switched back, the write is part of a transaction."""
    engine = routed.engine
    raw: Any = engine.raw_connection()
    with router.request_context() as context:
        raw.dbapi_connection.autocommit = True
        began = engine.router.clock()
        raw.cursor().execute("INSERT INTO item (name) SELECT 'slow' FROM (SELECT pg_sleep(0.2)) s")
        pin = context.pins.get(engine.router.cluster)
        assert pin is not None
        assert pin.at - began >= 0.2
        assert routed.count() == 1
        raw.dbapi_connection.autocommit = False
        raw.cursor().execute(ADD)
        raw.rollback()
        raw.close()
    assert routed.count() == 1


@pytest.mark.doors("psycopg", "psycopg2", "pg8000")
@pytest.mark.parametrize("role", ["primary", "replica"])
def test_a_connection_nobody_closed_comes_back_as_it_was(routed: Routed, role: str) -> None:
    """The garbage collector gives a connection back without the isolation level and the read-only
    mode its last user had asked for."""
    replica = routed.cluster.replicas[0].url(routed.dbname)
    engine = routed.another(replicas=[replica], pool_size=1, max_overflow=0)
    mode = sa.text(
        "SELECT current_setting('transaction_isolation'), "
        "current_setting('default_transaction_read_only'), pg_backend_pid()"
    ).execution_options(router=role)

    def forget() -> int:
        connection = engine.connect().execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )
        isolation, _, pid = connection.execute(mode).one()
        assert isolation == "repeatable read"
        return int(pid)

    pid = forget()
    gc.collect()
    with engine.connect() as connection:
        assert tuple(connection.execute(mode).one()) == ("read committed", "off", pid)
        insert(connection)
        assert connection.execute(mode).one()[1] == "off"
        connection.commit()
    assert routed.count() == 1


@EVERY_DOOR
def test_a_closed_connection_leaves_the_pool_nothing_to_put_back(routed: Routed) -> None:
    """What a checkout put back itself when it was closed is not put back once more by the pool."""
    engine = routed.another(pool_size=1, max_overflow=0)
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        connection.scalar(sa.text("SELECT 1"))
        held = connection.connection.routed.last
        record = held.fairy._connection_record
        assert len(record.finalize_callback) == 1
    assert len(record.finalize_callback) == 0


@pytest.mark.doors("psycopg")
def test_a_raw_cursor_streams_and_copies_from_a_replica(routed: Routed) -> None:
    """Both are reads that bind nothing; a stream that nobody reads to its end keeps no connection
    from being given back."""
    with request_context():
        raw = routed.engine.raw_connection()
        cursor: Any = raw.cursor()
        assert (
            routed.name_of(next(iter(cursor.stream("SELECT inet_server_port()")))[0]) == "replica"
        )
        with cursor.copy("COPY (SELECT inet_server_port()) TO STDOUT") as copy:
            assert [routed.name_of(int(row[0])) for row in copy.rows()] == ["replica"]
        cursor.execute("SELECT inet_server_port()")
        assert routed.name_of(cursor.fetchone()[0]) == "replica"
        rows = cursor.stream("SELECT generate_series(1, 100000)")
        assert next(rows) == (1,)
        raw.close()
        with routed.engine.connect() as connection:
            assert routed.served(connection) == "replica"


@pytest.mark.doors("psycopg")
def test_what_only_the_driver_takes_is_read_too(routed: Routed) -> None:
    """exec_driver_sql() takes bytes and composed SQL, as over a plain engine."""
    for query in (
        b"SELECT inet_server_port()",
        SQL("SELECT inet_server_port() FROM {}").format(Identifier("pg_class")),
    ):
        with request_context(), routed.engine.connect() as connection:
            found: Any = connection.exec_driver_sql(query).scalars().first()  # type: ignore[arg-type]
            assert routed.name_of(found) == "replica"
            assert routed.served(connection) == "replica"
