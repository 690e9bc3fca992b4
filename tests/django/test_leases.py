"""What an alias has lent comes back with its connection's end, beside plain Django's."""

import gc
import threading
from typing import Any
from weakref import ref

import pytest

from router.rules.context import request_context
from tests.conftest import Database
from tests.django.conftest import Connect

ROWS = 500

ONE_PLACE = {
    "CONN_MAX_AGE": 0,
    "OPTIONS": {"pool": {"min_size": 0, "max_size": 1, "timeout": 5.0}},
}

PLAIN = {"ENGINE": "django.db.backends.postgresql"}


@pytest.fixture
def rows(database: Database, connect: Connect) -> None:
    """More rows than a stream fetches at once, on every server."""
    database.execute(f"INSERT INTO shop_item (name) SELECT 'tea' FROM generate_series(1, {ROWS})")
    database.cluster.wait_caught_up()


def items() -> Any:
    from tests.django.shop.models import Item

    return Item.objects


def begun() -> Any:
    """A stream of which the first rows were fetched."""
    stream = items().iterator(chunk_size=10)
    next(stream)
    return stream


def close(wrapper: Any) -> None:
    """Close it whatever it is in, as Django's own end of a request does."""
    wrapper.in_atomic_block = False
    wrapper.close()


def cursors(wrapper: Any) -> int:
    """Server-side cursors of others that are left in the session `wrapper` uses now."""
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_cursors WHERE name LIKE '\\_django%%'", [])
        return int(cursor.fetchone()[0])


@pytest.mark.parametrize("within", [False, True], ids=["autocommit", "atomic"])
def test_an_open_stream_keeps_no_place(connect: Connect, rows: None, within: bool) -> None:
    """After close() the next user gets the pool's one connection, without the server-side cursors
    that were open on it, and those can be read no further."""
    from django.db import Error, transaction

    routed = connect(**ONE_PLACE)
    if within:
        transaction.atomic().__enter__()
    streams = [begun(), begun()]
    served = routed.connection.connection.checkout.last.node
    pid = routed.connection.connection.any.info.backend_pid
    close(routed.connection)
    pool = routed.connection.cluster._pools[served]
    assert pool.get_stats()["pool_available"] == 1
    with pool.connection() as back:
        assert back.info.backend_pid == pid
        assert back.autocommit
        assert back.execute("SELECT count(*) FROM pg_cursors WHERE is_holdable").fetchone() == (0,)
    for stream in streams:
        with pytest.raises(Error):
            list(stream)
    assert items().count() == ROWS
    close(routed.connection)
    assert pool.get_stats()["pool_available"] == 1


@pytest.mark.parametrize("engine", [{}, PLAIN], ids=["routed", "plain"])
def test_close_ends_a_transaction_with_its_streams(
    connect: Connect, rows: None, engine: dict[str, str]
) -> None:
    """A stream in atomic() ends with its connection, as in plain Django, and the place is free."""
    from django.db import Error, transaction

    routed = connect(start=not engine, **ONE_PLACE, **engine)
    transaction.atomic().__enter__()
    items().create(name="never")
    stream = begun()
    close(routed.connection)
    with pytest.raises(Error):
        list(stream)
    assert items().count() == ROWS
    assert cursors(routed.connection) == 0
    close(routed.connection)
    if engine:
        routed.connection.close_pool()


def test_a_stream_of_a_lost_session_keeps_no_place(connect: Connect, rows: None) -> None:
    """Nor does a stream whose server has ended the session: close() raises nothing."""
    routed = connect(**ONE_PLACE)
    stream = begun()
    facade = routed.connection.connection
    pid = facade.any.info.backend_pid
    served = facade.checkout.last.node
    facade.rest()  # as between two requests
    server = next(s for s in routed.cluster.servers if s.port == served.port)
    assert server.execute(f"SELECT pg_terminate_backend({pid}, 5000)") == [(True,)]
    close(routed.connection)
    for _ in range(3):
        with request_context():
            assert items().count() == ROWS
        close(routed.connection)
    del stream


@pytest.mark.filterwarnings("ignore:.*was deleted while still open:ResourceWarning")
@pytest.mark.parametrize("engine", [{}, PLAIN], ids=["routed", "plain"])
def test_a_thread_takes_its_connection_with_it(
    connect: Connect, rows: None, engine: dict[str, str]
) -> None:
    """Who ends without close() leaves no connection open, once the garbage collector has found
    Django's wrapper, as in plain Django."""
    from django.db import connection

    connect(start=not engine, **engine)
    used: list[Any] = []

    def work() -> None:
        assert items().count() == ROWS
        facade: Any = connection.connection
        used.append(ref(facade if engine else facade.any))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    gc.collect()
    assert [known() for known in used] == [None]
