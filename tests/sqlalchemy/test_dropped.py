"""Checkouts that nobody closed, beside plain SQLAlchemy's, while the garbage collector is off."""

import asyncio
import gc
import re
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine as plain_create_async_engine
from sqlalchemy.util import greenlet_spawn

import router
from router.sqlalchemy.checkout import RoutedConnection
from tests.conftest import Database
from tests.sqlalchemy.kit import Routed, insert

BLOCKING = pytest.mark.doors("psycopg", "psycopg2", "pg8000")

READ = "SELECT count(*) FROM item"
WRITE = "INSERT INTO item (name) VALUES ('new')"

Use = Callable[[Any], None]


@pytest.fixture(autouse=True)
def _uncollected() -> Iterator[None]:
    """Nothing is left to the garbage collector while a test runs."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@contextmanager
def beside(routed: Routed) -> Iterator[tuple[Any, Any]]:
    """A plain engine on the primary, and the routed one."""
    url = sa.make_url(routed.cluster.primary.url(routed.dbname))
    plain = sa.create_engine(url.set(drivername=f"postgresql+{routed.door}"))
    yield plain, routed.engine
    plain.dispose()


def unused(engine: Any) -> None:
    engine.raw_connection()


def read(engine: Any) -> None:
    raw = engine.raw_connection()
    cursor = raw.cursor()
    cursor.execute(READ)
    cursor.fetchone()


def written(engine: Any) -> None:
    raw = engine.raw_connection()
    raw.cursor().execute(WRITE)


def read_and_written(engine: Any) -> None:
    raw = engine.raw_connection()
    cursor = raw.cursor()
    cursor.execute(READ)
    raw.commit()
    cursor.execute(WRITE)
    raw.cursor().execute(READ)


def read_failed(engine: Any) -> None:
    raw = engine.raw_connection()
    with suppress(engine.dialect.loaded_dbapi.Error):
        raw.cursor().execute("SELECT nothing FROM item")


def write_failed(engine: Any) -> None:
    raw = engine.raw_connection()
    cursor = raw.cursor()
    cursor.execute(WRITE)
    with suppress(engine.dialect.loaded_dbapi.Error):
        cursor.execute("INSERT INTO nothing VALUES (1)")


def begun_by_text(engine: Any) -> None:
    raw: Any = engine.raw_connection()
    cursor = raw.cursor()
    if isinstance(raw, RoutedConnection):
        cursor.execute("BEGIN")  # else the driver has sent one
    cursor.execute(WRITE)


def looked_at(engine: Any) -> None:
    raw: Any = engine.raw_connection()
    raw.info["seen"] = True
    assert raw.dbapi_connection == raw.dbapi_connection
    raw.dbapi_connection.cursor().execute(READ)
    assert raw.driver_connection is not None


def connected(engine: Any) -> None:
    engine.connect()


def partly_fetched(engine: Any) -> None:
    raw = engine.raw_connection()
    cursor = raw.cursor()
    cursor.execute("SELECT generate_series(1, 1000)")
    cursor.fetchone()


def back_at_once(routed: Routed, use: Use) -> None:
    with beside(routed) as engines:
        for engine in engines:
            use(engine)
            assert engine.pool.checkedout() == 0
            with engine.begin() as connection:
                insert(connection)
        assert routed.count() == 2
        assert routed.engine.pool.source.lent == {}


@BLOCKING
@pytest.mark.parametrize(
    "use",
    [
        unused, read, written, read_and_written, begun_by_text, looked_at, connected,
        partly_fetched,
    ],
)  # fmt: skip
def test_a_dropped_connection_is_back_at_once(routed: Routed, use: Use) -> None:
    """A connection of which the last reference goes is back in its pool at once, rolled back, as
    with plain SQLAlchemy; no garbage collector is waited for."""
    back_at_once(routed, use)


@pytest.mark.doors("psycopg", "psycopg2")
@pytest.mark.parametrize("use", [read_failed, write_failed])
def test_an_error_holds_no_connection(routed: Routed, use: Use) -> None:
    """So is one whose statement has failed. pg8000's own frames hold what they raise, and so the
    connection, with a plain engine as well."""
    back_at_once(routed, use)


@BLOCKING
def test_a_listener_that_may_execute_holds_no_connection(routed: Routed) -> None:
    """A statement that a ``do_execute`` listener has seen leaves no circle behind: its connection
    is back in its pool at once, as with plain SQLAlchemy."""
    with beside(routed) as engines:
        for engine in engines:
            sa.event.listen(engine, "do_execute", lambda *_: None)
            with engine.connect() as connection:
                result = connection.execute(sa.text(READ))
                result.scalar()
            assert engine.pool.checkedout() == 0
            context = weakref.ref(result.context)
            del connection, result
            assert context() is None


@BLOCKING
def test_a_dropped_connection_that_met_a_dead_replica_is_back_at_once(routed: Routed) -> None:
    """So is one whose read has found its replica dead, and run elsewhere."""
    replica = routed.cluster.replicas[0]
    engine: Any = routed.another(replicas=[replica.url(routed.dbname)], probe_interval=30)
    replica.stop("immediate")
    try:
        read(engine)
        assert engine.pool.checkedout() == 0
    finally:
        replica.start()


@BLOCKING
def test_what_a_dropped_connection_has_set_reaches_nobody(routed: Routed) -> None:
    """The next user of the pool finds none of the settings of a connection that was dropped."""
    engine = routed.another(pool_size=1, max_overflow=0)
    raw = engine.raw_connection()
    cursor = raw.cursor()
    cursor.execute("SET work_mem = '65kB'")
    raw.commit()
    cursor.execute(READ)
    cursor.execute(WRITE)
    del raw, cursor
    with engine.connect() as connection:
        for role in ("primary", "replica"):
            asked = sa.text("SHOW work_mem").execution_options(router=role)
            assert connection.scalar(asked) != "65kB"


@BLOCKING
def test_what_was_written_unseen_is_pinned_past_the_drop(routed: Routed) -> None:
    """Who was given the driver's connection may have committed until its checkout was dropped."""
    engine = routed.engine
    with router.request_context() as context:
        raw = engine.raw_connection()
        driver: Any = raw.driver_connection
        driver.cursor().execute(WRITE)
        driver.commit()
        before = engine.router.clock()
        del raw, driver
        pin = context.pins.get(engine.router.cluster)
        assert pin is not None
        assert pin.at >= before


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_a_dropped_asynchronous_connection_is_told_of_as_by_sqlalchemy(
    database: Database, driver: str
) -> None:
    """Where an event loop would be needed to roll back, each connection is closed at once, and
    SQLAlchemy's own warning says so."""
    database.execute("CREATE TABLE item (id serial PRIMARY KEY, name text NOT NULL)")
    database.cluster.wait_caught_up()
    url = database.primary_url(driver)

    async def told(engine: Any) -> list[str]:
        raw = await engine.raw_connection()
        cursor = await greenlet_spawn(raw.cursor)
        await greenlet_spawn(cursor.execute, WRITE)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del raw, cursor
            assert engine.pool.checkedout() == 0
            said = [re.sub(r"<.*>", "", str(warning.message)) for warning in caught]
        async with engine.connect() as connection:
            assert await connection.scalar(sa.text(READ)) == 0
        await engine.dispose()
        return said

    async def scenario() -> None:
        plain = await told(plain_create_async_engine(url))
        ours = await told(router.create_async_engine(url, database.replica_urls()))
        assert ours == plain
        assert "garbage collector is trying to clean up" in ours[0]

    asyncio.run(scenario())
