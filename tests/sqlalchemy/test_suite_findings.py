"""What SQLAlchemy's own test suite found, and the promises behind those of its tests that look
into what only a plain pool has."""

import copy
import io
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import exc

from tests.sqlalchemy.kit import EVERY_DOOR, SYNCHRONOUS, Routed, insert

pytestmark = EVERY_DOOR

PID = sa.text("SELECT pg_backend_pid()")


@pytest.mark.parametrize("how", ["close", "invalidate"])
def test_a_closed_checkout_takes_no_connection(routed: Routed, how: str) -> None:
    """What is kept of a closed checkout refuses to work: nobody would give its connection back."""
    raw: Any = routed.engine.raw_connection()
    handle, cursor = raw.dbapi_connection, raw.cursor()
    cursor.execute("INSERT INTO item (name) VALUES ('lost')")
    getattr(raw, how)()
    for use in (
        lambda: raw.cursor().execute("SELECT 1"),
        lambda: handle.cursor().execute("SELECT 1"),
        lambda: cursor.execute("SELECT 1"),
        lambda: handle.autocommit,
        raw.commit,
        handle.commit,
        raw.detach,
    ):
        with pytest.raises(exc.InvalidRequestError, match="closed or invalidated"):
            use()
    assert routed.engine.pool.checkedout() == 0
    assert routed.count() == 0


def test_a_checkout_has_one_dbapi_connection(routed: Routed) -> None:
    """Asked twice, a checkout names the same DBAPI connection; its record keeps it when closed."""
    with routed.engine.connect() as connection:
        fairy: Any = connection.connection
        record, handle = fairy._connection_record, fairy.dbapi_connection
        assert fairy.dbapi_connection is handle
        assert record.dbapi_connection is handle
    assert fairy.dbapi_connection is None
    assert record.dbapi_connection is handle


def test_an_invalidated_record_has_no_connection(routed: Routed) -> None:
    """An invalidated checkout's record has no connection any more, as a plain pool's has none."""
    with routed.engine.connect() as connection:
        fairy: Any = connection.connection
        record = fairy._connection_record
        connection.invalidate()
        assert record.dbapi_connection is None


def test_the_dialect_rolls_back_what_comes_back(
    routed: Routed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether anything is open or not, a checkout is reset by the dialect's do_rollback, which a
    dialect of the user's own may have extended."""
    dialect: Any = routed.engine.dialect
    asked: list[Any] = []
    plain = dialect.do_rollback

    def rolls_back(connection: Any) -> None:
        asked.append(connection)
        plain(connection)

    monkeypatch.setattr(dialect, "do_rollback", rolls_back)
    raw = routed.engine.raw_connection()
    raw.cursor().execute("SELECT 1")
    raw.close()
    assert raw in asked


def test_a_cursor_method_put_in_place_is_used(routed: Routed) -> None:
    """Who replaces one checkout's cursor() gets every statement of it, as on a plain engine."""
    asked = []
    with routed.engine.connect() as connection:
        fairy: Any = connection.connection
        real = fairy.cursor

        def cursor(*args: Any, **kwargs: Any) -> Any:
            asked.append(args)
            return real(*args, **kwargs)

        fairy.cursor = cursor
        assert routed.served(connection) == "replica"  # it is routed all the same
        assert len(asked) == 1


@pytest.mark.parametrize("whole_pool", [True, False])
def test_a_disconnect_invalidates_what_handle_error_says(routed: Routed, whole_pool: bool) -> None:
    """A broken connection distrusts its node's other ones, unless handle_error says not to."""
    engine = routed.engine

    @sa.event.listens_for(engine, "handle_error")
    def say(context: Any) -> None:
        context.invalidate_pool_on_disconnect = whole_pool

    def pids() -> list[int]:
        connections = [engine.connect() for _ in range(3)]
        try:
            return [c.execution_options(router="primary").scalar(PID) for c in connections]
        finally:
            for connection in connections:
                connection.close()

    before = pids()
    with engine.connect() as connection:
        pid = connection.execution_options(router="primary").scalar(PID)
        assert pid in before
        routed.execute_on_primary(f"SELECT pg_terminate_backend({pid}, 5000)")
        with pytest.raises(exc.DBAPIError) as caught:
            insert(connection)
    assert caught.value.connection_invalidated
    kept = set(before) & set(pids())
    assert kept == (set() if whole_pool else set(before) - {pid})


def test_the_first_checkout_keeps_the_connection_it_met_the_server_with(routed: Routed) -> None:
    """Pool listeners hear of an engine's first connection once, and its check-in comes at the
    end."""
    engine, heard = routed.another(), []
    for name in ("connect", "checkout", "checkin"):
        sa.event.listen(engine, name, lambda *_, name=name: heard.append(name))
    with engine.connect() as connection:
        assert routed.served(connection) == "replica"
        assert heard == ["connect", "checkout"]
    assert heard == ["connect", "checkout", "checkin"]


@SYNCHRONOUS
@pytest.mark.parametrize("autocommit", [True, False])
def test_what_a_do_connect_listener_made_is_left_as_it_is(
    routed: Routed, autocommit: bool
) -> None:
    """A connection from a do_connect listener may be in autocommit, or in a transaction."""
    import psycopg

    engine, found = routed.another(), []

    @sa.event.listens_for(engine, "do_connect")
    def make(_dialect: Any, _record: Any, args: Any, parameters: Any) -> Any:
        made = psycopg.connect(*args, **parameters, autocommit=autocommit)
        made.execute("SET search_path = pg_catalog")
        return made

    @sa.event.listens_for(engine, "connect", insert=True)
    def see(made: Any, _record: Any) -> None:
        found.append((made.autocommit, made.info.transaction_status.name))

    with engine.connect() as connection:
        insert_here = sa.text("INSERT INTO public.item (name) VALUES ('new')")
        assert routed.served(connection) == "replica"
        connection.execute(insert_here)
        connection.commit()
    assert found == [(autocommit, "IDLE" if autocommit else "INTRANS")] * 2
    assert routed.count() == 1


@pytest.mark.parametrize("close", [True, False])
def test_dispose_closes_idle_connections_if_asked(routed: Routed, close: bool) -> None:
    """dispose(close=False), as after a fork, leaves the connections of the engine copied alone."""

    def pid(engine: sa.Engine) -> Any:
        with engine.begin() as connection:
            return connection.scalar(PID)

    engine = routed.engine
    before = pid(engine)
    other = copy.copy(engine)
    other.dispose(close=close)
    assert pid(other) != before
    assert (pid(engine) == before) is not close
    other.dispose()


def test_a_connect_listener_runs_before_the_dialect_is_initialised(
    routed: Routed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connect listener put first runs on each real connection before anybody else uses it."""
    engine = routed.another()
    order: list[str] = []
    initialize = engine.dialect.initialize

    def initialised(connection: sa.Connection) -> None:
        order.append("initialize")
        initialize(connection)

    monkeypatch.setattr(engine.dialect, "initialize", initialised)

    @sa.event.listens_for(engine, "connect", insert=True)
    def first(*_: Any) -> None:
        order.append("connect")

    with engine.connect():
        assert order == ["connect", "initialize"]
        with engine.begin() as connection:
            connection.execute(PID)
    assert order == ["connect", "initialize", "connect"]


@pytest.mark.doors("pg8000")
def test_a_drivers_own_keywords_reach_it(routed: Routed) -> None:
    """What a driver's execute takes beside parameters reaches it, as pg8000's stream does, alone
    and within a transaction; and nothing it was not given, such as None for parameters."""
    raw: Any = routed.engine.raw_connection()
    cursor = raw.cursor()
    for _ in range(2):
        told = io.StringIO()
        cursor.execute("COPY (SELECT 'copied') TO STDOUT", stream=told)
        assert told.getvalue() == "copied\n"
        cursor.execute("INSERT INTO item (name) VALUES ('first')")
    raw.rollback()
    raw.close()
