"""How isolated transactions are, however that was said, and whatever came between."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from router.errors import RouterError
from tests.sqlalchemy.kit import EVERY_DRIVER, Routed, insert

RR = "REPEATABLE READ"
SET_SESSION = f"SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL {RR}"
IN_FORCE = sa.text(
    "SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only'), "
    "current_setting('transaction_deferrable')"
)


def there_and_back(connection: Any) -> None:
    """Switch the driver connection's autocommit on, use it, and switch it off."""
    driver = connection.connection.dbapi_connection
    driver.autocommit = True
    connection.exec_driver_sql("VACUUM item")
    driver.autocommit = False
    connection.rollback()


def one_snapshot(routed: Routed, connection: Any) -> bool:
    """Whether two reads agree though another client has written between them."""
    count = sa.text("SELECT count(*) FROM item")
    before = connection.scalar(count)
    routed.execute_on_primary("INSERT INTO item (name) VALUES ('between')")
    routed.cluster.wait_caught_up()
    return bool(before == connection.scalar(count))


@EVERY_DRIVER
def test_autocommit_there_and_back_leaves_what_was_in_force(routed: Routed) -> None:
    """A driver connection that was switched to autocommit and back has transactions as isolated,
    read-only and deferrable as before, and the next checkout has none of it."""
    options = {
        "isolation_level": "SERIALIZABLE",
        "postgresql_readonly": True,
        "postgresql_deferrable": True,
    }
    with routed.engine.connect().execution_options(**options) as connection:
        for _ in range(2):
            there_and_back(connection)
            with connection.begin():
                assert connection.execute(IN_FORCE).one() == ("serializable", "on", "on")
        assert connection.get_isolation_level() == "SERIALIZABLE"
    with routed.engine.begin() as connection:
        assert connection.execute(IN_FORCE).one() == ("read committed", "off", "off")


@EVERY_DRIVER
def test_autocommit_there_and_back_leaves_the_engines_level(routed: Routed) -> None:
    """The level create_engine() was given holds after autocommit for reads, too: they share a
    transaction, explicit or not."""
    with routed.another(isolation_level=RR).connect() as connection:
        there_and_back(connection)
        with connection.begin():
            assert one_snapshot(routed, connection)
        assert one_snapshot(routed, connection)


@EVERY_DRIVER
def test_a_level_set_for_the_session_holds_for_reads(routed: Routed) -> None:
    """Reads after a SET that makes the session's transactions REPEATABLE READ share one, as they
    do on a plain engine."""
    with routed.engine.connect() as connection:
        connection.exec_driver_sql(SET_SESSION)
        connection.commit()
        with connection.begin():
            assert one_snapshot(routed, connection)
        assert one_snapshot(routed, connection)


def by_sql(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute(SET_SESSION)
    cursor.close()
    connection.commit()


def by_attribute(connection: Any, _record: Any) -> None:
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ


@pytest.mark.parametrize("listener", [by_sql, by_attribute])
def test_a_level_that_a_connect_listener_sets_holds_for_reads(
    routed: Routed, listener: Callable[[Any, Any], None]
) -> None:
    """Reads of an autobegun Session share a transaction where a connect listener has made that
    REPEATABLE READ, also after the engine was disposed of."""
    engine = routed.another()
    sa.event.listen(engine, "connect", listener)
    for _ in range(2):
        with Session(engine) as session:
            assert one_snapshot(routed, session)
        engine.dispose()


def test_a_lazy_transaction_above_read_committed_has_one_snapshot(routed: Routed) -> None:
    """With transactions="lazy" REPEATABLE READ is no less than without."""
    engine = routed.another(transactions="lazy", isolation_level=RR)
    with engine.begin() as connection:
        assert one_snapshot(routed, connection)


@pytest.mark.doors("pg8000")
def test_a_ping_leaves_no_transaction_behind(routed: Routed) -> None:
    """With pool_pre_ping a level set afterwards is in force, and in autocommit a write is
    committed, though the driver begins a transaction for its ping."""
    engine = routed.another(pool_pre_ping=True)
    with engine.begin() as connection:
        insert(connection)  # a connection that is pinged when it is taken again
    with engine.connect().execution_options(isolation_level=RR) as connection, connection.begin():
        assert connection.execute(IN_FORCE).one()[0] == "repeatable read"
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        insert(connection)
        assert routed.count() == 2


@pytest.mark.doors("pg8000")
def test_read_only_holds_in_autocommit_where_the_driver_has_it_so(routed: Routed) -> None:
    """A write on a connection in autocommit that was declared read-only fails with this driver,
    as on a plain engine."""
    options = {"isolation_level": "AUTOCOMMIT", "postgresql_readonly": True}
    with (
        routed.engine.connect().execution_options(**options) as connection,
        pytest.raises(sa.exc.DBAPIError, match="25006"),
    ):
        insert(connection)
    with routed.engine.begin() as connection:
        insert(connection)
    assert routed.count() == 1


@pytest.mark.doors("psycopg", "asyncpg_async")
def test_what_a_read_only_transaction_sets_reaches_nobody_else(routed: Routed) -> None:
    """A level that a standby refuses, set for a replica's session, ends with that checkout: the
    next one reads there."""
    replica = routed.cluster.replicas[0].url(routed.dbname)
    engine = routed.another(replicas=[replica], pool_size=1, max_overflow=0)
    with (
        engine.connect().execution_options(postgresql_readonly=True) as connection,
        suppress(RouterError),  # it may be refused as well
    ):
        assert routed.served(connection) == "replica"
        connection.exec_driver_sql(SET_SESSION.replace(RR, "SERIALIZABLE"))
        connection.commit()
    with engine.connect() as connection:
        assert routed.served(connection) == "replica"
