"""A statement whose connection died runs again only where the rules sent it at first."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from router import request_context, using_primary
from router.errors import TransactionLost
from tests.sqlalchemy.kit import EVERY_DOOR, EVERY_DRIVER, Routed

PID = sa.text("SELECT pg_backend_pid()")
BALANCE = sa.text("SELECT name::int FROM item")
UPDATE = sa.text("UPDATE item SET name = CAST(:balance AS text)")

pytestmark = EVERY_DRIVER


def pooled(routed: Routed, connection: Any) -> int:
    """The server process of the primary's connection that `connection` leaves in the pool."""
    with using_primary():
        pid: int = connection.scalar(PID)
    return pid


def end(routed: Routed, pid: int) -> None:
    """End a session on the primary, of which nobody hears before the next statement on it."""
    routed.execute_on_primary(f"SELECT pg_terminate_backend({pid}, 5000)")


@contextmanager
def lagging(routed: Routed) -> Iterator[None]:
    """A balance of 60 on the primary, and of 100 on every replica, whose pooled connection to the
    primary is dead."""
    routed.execute_on_primary("INSERT INTO item (name) VALUES ('100')")
    routed.settle()
    with routed.engine.connect() as connection:
        pid = pooled(routed, connection)
    with routed.paused():
        routed.execute_on_primary("UPDATE item SET name = '60'")
        end(routed, pid)
        yield


def spend(connection: Any) -> None:
    """What loses an update where it reads on a replica."""
    balance = connection.scalar(BALANCE)
    connection.execute(UPDATE, {"balance": str(balance - 10)})


def test_the_first_read_of_an_explicit_transaction_stays_on_the_primary(routed: Routed) -> None:
    """Its pooled connection having died, it runs on a fresh one to the primary, and what is
    written next is computed from what the primary says."""
    with lagging(routed), request_context(), Session(routed.engine) as session, session.begin():
        spend(session)
    assert routed.cluster.primary.execute(str(BALANCE), dbname=routed.dbname) == [(50,)]
    assert routed.engine.router.stats()["events"]["retried"] == 1


def test_a_read_that_asked_for_the_primary_gets_it_again(routed: Routed) -> None:
    """An execution option that names the primary is not forgotten when a statement runs again."""
    with lagging(routed), request_context(), routed.engine.connect() as connection:
        options = {"router": "primary"}
        assert connection.scalar(BALANCE, execution_options=options) == 60


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_an_isolation_level_is_not_forgotten(routed: Routed, level: str) -> None:
    """A transaction whose level keeps it on the primary is retried there, at that level."""
    with lagging(routed), request_context(), routed.engine.connect() as connection:
        connection = connection.execution_options(isolation_level=level)
        with connection.begin():
            assert connection.scalar(BALANCE) == 60
            assert connection.scalar(sa.text("SHOW transaction_isolation")) == level.lower()


@pytest.mark.doors(*EVERY_DOOR.args)
def test_a_setting_that_opens_an_explicit_transaction_stays_on_the_primary(
    routed: Routed,
) -> None:
    """SET LOCAL as its first statement is retried on the primary, and so is what follows it."""
    with lagging(routed), request_context(), routed.engine.begin() as connection:
        connection.execute(sa.text("SET LOCAL app.tenant = '7'"))
        spend(connection)
        assert connection.scalar(sa.text("SELECT current_setting('app.tenant')")) == "7"
    assert routed.cluster.primary.execute(str(BALANCE), dbname=routed.dbname) == [(50,)]


def test_what_only_the_lost_session_had_is_not_taken_for_granted(routed: Routed) -> None:
    """A read of a checkout that holds a session advisory lock fails when its connection dies, and
    nothing runs without the lock in that checkout afterwards."""
    engine = routed.engine.execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT pg_advisory_lock(1)"))
        driver: Any = connection.dialect.dbapi
        cursor: Any = connection.connection.cursor()
        cursor.execute("SELECT pg_backend_pid()")
        end(routed, cursor.fetchone()[0])
        with pytest.raises(driver.Error):
            cursor.execute("SELECT inet_server_port()")
        with pytest.raises(TransactionLost, match="only its session had"):
            cursor.execute("SELECT inet_server_port()")
        connection.invalidate()
