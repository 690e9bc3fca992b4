"""Pins beyond the rules table: positions asked for at the commit, by hand, and of one session."""

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import sessionmaker

import router
from router.rules.context import ROOT
from router.sqlalchemy import AsyncSession, RoutedEngine, Session
from tests.conftest import Database
from tests.sqlalchemy.kit import EVERY_DOOR, EVERY_DRIVER, PORT, Routed, insert


@pytest.fixture(autouse=True)
def free_root() -> Iterator[None]:
    """No test leaves a pin to the next."""
    yield
    ROOT.pins.clear()


def pin_of(engine: RoutedEngine) -> Any:
    return router.current_context().pins.get(engine.router.cluster)


@EVERY_DOOR
def test_pin_lsn_commit_knows_the_position_at_once(routed: Routed) -> None:
    """With pin_lsn="commit" the position is there when the commit returns, without any probe."""
    engine = routed.another(pin_lsn="commit", probe_interval=60, pin_probe_interval=60)
    with router.request_context(), routed.paused(), engine.connect() as connection:
        for commit in (True, False):  # in a transaction, and in autocommit
            connection.rollback()
            router.unpin()
            if commit:
                insert(connection)
                connection.commit()
            else:
                level = {"isolation_level": "AUTOCOMMIT"}
                insert(connection.execution_options(**level))
                connection.rollback()
            engine.router.decide(engine.router.intent("SELECT 1"))
            pin = pin_of(engine)
            (position,) = routed.cluster.primary.execute(
                "SELECT pg_current_wal_insert_lsn()::text"
            )[0]
            assert pin.lsn is not None
            assert pin.lsn <= router.model.Lsn.parse(position)
            assert routed.served(connection) == "primary"


def test_pin_lsn_sample_asks_nothing_of_the_writer(routed: Routed) -> None:
    """By default the write path asks for nothing, and the position comes with a later probe."""
    engine = routed.another(probe_interval=60)
    with routed.paused(), router.request_context(), engine.connect() as connection:
        assert routed.served(connection) == "replica"
        connection.rollback()
        monitor = engine.router.monitor
        assert monitor is not None
        monitor.stop()  # no probe may come between the commit and the look
        insert(connection)
        connection.commit()
        assert routed.served(connection) == "primary"
        assert pin_of(engine).lsn is None
        connection.rollback()
        engine.router.refresh()
        assert routed.served(connection) == "primary"
        assert pin_of(engine).lsn is not None


def test_pin_by_hand(routed: Routed) -> None:
    """pin() sends what follows to the primary until a replica is as new as that moment."""
    with router.request_context(), routed.engine.connect() as connection:
        with routed.paused():
            routed.execute_on_primary("INSERT INTO item (name) VALUES ('by another service')")
            assert routed.served(connection) == "replica"
            connection.rollback()
            router.pin()
            assert routed.served(connection) == "primary"
            connection.rollback()
            with router.request_context():
                assert routed.served(connection) == "replica"
        connection.rollback()
        routed.await_replica(connection)


def test_a_session_has_pins_of_its_own(routed: Routed) -> None:
    """A write in one router.sqlalchemy.Session pins that session, in any thread, and no other."""
    new = sessionmaker(routed.engine, class_=Session)
    with routed.paused(), new() as writer, new() as reader:
        insert(writer)
        writer.commit()
        assert routed.name_of(writer.scalar(PORT)) == "primary"
        assert routed.name_of(reader.scalar(PORT)) == "replica"
        writer.rollback()
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(writer.scalar(PORT)))
        thread.start()
        thread.join()
        assert routed.name_of(found[0]) == "primary"
        writer.rollback()
        with router.using_replica():
            assert routed.name_of(writer.scalar(PORT)) == "replica"
        writer.rollback()
        writer.pins.clear()
        assert routed.name_of(writer.scalar(PORT)) == "replica"
        assert pin_of(routed.engine) is None
    with router.using_primary(), new() as session:
        assert routed.name_of(session.scalar(PORT)) == "primary"


def test_an_async_session_has_pins_of_its_own(routed: Routed) -> None:
    """router.sqlalchemy.AsyncSession pins itself and no other session of the same task."""

    async def scenario() -> None:
        engine = router.create_async_engine(
            routed.cluster.primary.url(routed.dbname, "asyncpg"),
            [r.url(routed.dbname) for r in routed.cluster.replicas],
        )
        new = async_sessionmaker(engine, class_=AsyncSession)
        async with new() as writer, new() as reader:
            await writer.execute(sa.text("INSERT INTO item (name) VALUES ('new')"))
            await writer.commit()
            assert routed.name_of(await writer.scalar(PORT)) == "primary"
            assert routed.name_of(await reader.scalar(PORT)) == "replica"
            assert writer.pins.by_cluster
            assert not reader.pins.by_cluster
        await engine.dispose()

    with routed.paused():
        asyncio.run(scenario())


def test_without_positions_pins_last_their_time(database: Database) -> None:
    """A role that may not call the WAL functions gets time pins, and one event says so."""
    primary = database.cluster.primary
    functions = ("pg_current_wal_insert_lsn()", "pg_last_wal_replay_lsn()")
    database.execute("CREATE TABLE item (id serial PRIMARY KEY, name text NOT NULL)")
    database.execute("DROP ROLE IF EXISTS blind; CREATE ROLE blind LOGIN")
    database.execute("GRANT SELECT, INSERT ON item TO blind; GRANT USAGE ON item_id_seq TO blind")
    for function in functions:
        database.execute(f"REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC")
    database.cluster.wait_caught_up()
    url = sa.make_url(primary.url(database.name)).set(username="blind")
    replicas = [
        sa.make_url(u).set(username="blind").render_as_string(False)
        for u in database.replica_urls()
    ]
    engine = router.create_engine(url, replicas, pin_duration=60, probe_interval=0.1)
    ahead = [0.0]
    engine.router.clock = lambda: time.monotonic() + ahead[0]
    told: list[str] = []
    engine.router.telemetry.hooks.append(lambda name, _fields: told.append(name))
    primary_port = primary.port
    try:
        with router.request_context(), engine.connect() as connection:
            assert connection.scalar(PORT) != primary_port
            insert(connection)
            connection.commit()
            assert connection.scalar(PORT) == primary_port
            connection.rollback()
            ahead[0] = 61
            deadline = time.monotonic() + 10
            while connection.scalar(PORT) == primary_port:
                assert time.monotonic() < deadline
                connection.rollback()
        assert told == ["no_positions"]
    finally:
        engine.dispose()
        database.execute("DROP OWNED BY blind; DROP ROLE blind")


@EVERY_DRIVER
def test_a_commit_sent_as_text_pins_to_after_itself(routed: Routed) -> None:
    """What was probed between a write and its COMMIT, sent as text, ends no pin: the write is
    read back."""
    with router.request_context(), routed.engine.connect() as connection:
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.exec_driver_sql("BEGIN")
        insert(connection)
        routed.settle()
        with routed.paused():
            connection.exec_driver_sql("COMMIT")
            routed.engine.router.refresh()
            assert connection.scalar(sa.text("SELECT count(*) FROM item")) == 1
