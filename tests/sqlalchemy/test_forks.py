"""What a forked child has of its parent's engine: options and pins, and no connection."""

import asyncio
import os
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

import router
from router import TransactionLost
from tests.conftest import Database
from tests.forks.kit import ended, fork
from tests.sqlalchemy.kit import PORT, SYNCHRONOUS, Routed, insert

SYNCHRONOUS_DRIVERS = pytest.mark.doors("psycopg", "psycopg2", "pg8000")
PID = sa.text("SELECT pg_backend_pid()").execution_options(router="primary")
ROOT = Path(__file__).parents[2]


@SYNCHRONOUS_DRIVERS
def test_a_transaction_stays_the_parents(routed: Routed) -> None:
    """A child forked inside a transaction runs nothing of it, begins one of its own elsewhere,
    and the parent's commits as if nobody had forked."""
    engine = routed.engine

    def child() -> None:
        with pytest.raises(TransactionLost, match="forked"):
            insert(connection)
        with pytest.raises(TransactionLost, match="forked"):
            connection.commit()
        connection.rollback()
        connection.close()
        with engine.begin() as own:
            assert own.scalar(PID) != mine
            insert(own)

    with engine.connect() as connection:
        insert(connection)
        mine = connection.scalar(PID)
        assert ended(fork(child)) == "fine"
        insert(connection)
        assert connection.scalar(PID) == mine
        connection.commit()
    assert routed.count() == 3


@SYNCHRONOUS_DRIVERS
def test_a_connection_with_nothing_open_goes_on_in_the_child(routed: Routed) -> None:
    """Where reads alone were made, the same connection, or session, reads and writes in the child
    by server sessions of the child's own."""
    pid = sa.text("SELECT pg_backend_pid()").execution_options(router="replica")

    def child() -> None:
        assert session.scalar(pid) != theirs
        session.rollback()
        session.execute(sa.text("INSERT INTO item (name) VALUES ('child')"))
        session.commit()

    with Session(routed.engine) as session:
        assert routed.served(session) == "replica"
        theirs = session.scalar(pid)
        assert ended(fork(child)) == "fine"
        assert session.scalar(pid) == theirs
    assert routed.count() == 1


@SYNCHRONOUS
def test_a_child_within_a_request_sees_what_the_request_wrote(routed: Routed) -> None:
    """The pins of a request context hold in a child forked inside it."""

    def child() -> None:
        with routed.engine.connect() as connection:
            assert routed.served(connection) == "primary"

    with router.request_context(), routed.paused():
        with routed.engine.begin() as connection:
            insert(connection)
        assert ended(fork(child)) == "fine"


@SYNCHRONOUS_DRIVERS
def test_a_fork_while_another_thread_connects_for_the_first_time(routed: Routed) -> None:
    """SQLAlchemy's lock around an engine's first connection does not hang the child."""
    engine = routed.another()
    connecting, forked, parent = threading.Event(), threading.Event(), os.getpid()

    @sa.event.listens_for(engine, "first_connect")
    def wait(*_: Any) -> None:
        if os.getpid() == parent:
            connecting.set()
            forked.wait()

    def use() -> None:
        with engine.connect() as connection:
            connection.execute(PORT)

    thread = threading.Thread(target=use)
    thread.start()
    assert connecting.wait(10)
    pid = fork(use)
    forked.set()
    thread.join()
    assert ended(pid) == "fine"


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_an_asynchronous_engine_serves_the_childs_own_loop(
    driver: str, database: Database
) -> None:
    """Used on the parent's event loop, an engine is used on another one in the child, beside a
    transaction that stays the parent's."""
    database.execute("CREATE TABLE item (id serial PRIMARY KEY, name text NOT NULL)")
    url, replicas = database.primary_url(driver), database.replica_urls()

    async def child(engine: Any, open_there: Any, mine: int) -> None:
        with pytest.raises(TransactionLost, match="forked"):
            await open_there.execute(PORT)
        async with engine.begin() as own:
            assert await own.scalar(PID) != mine
            await own.run_sync(lambda c: insert(c))
        await engine.dispose()

    async def parent() -> None:
        engine = router.create_async_engine(url, replicas)
        async with engine.begin() as connection:
            await connection.run_sync(lambda c: insert(c))
            mine = await connection.scalar(PID)
            pid = fork(lambda: asyncio.run(child(engine, connection, mine)))
            assert await asyncio.to_thread(ended, pid) == "fine"
            await connection.run_sync(lambda c: insert(c))
            assert await connection.scalar(PID) == mine
        await engine.dispose()

    asyncio.run(parent())
    assert database.execute("SELECT count(*) FROM item") == [(3,)]


EXIT = """
import os, sys, warnings
import sqlalchemy as sa
import router

warnings.simplefilter("ignore", DeprecationWarning)
url, *replicas = sys.argv[1:]
engine = router.create_engine(url, replicas=replicas)
with engine.connect() as connection:
    connection.execute(sa.text("INSERT INTO item (name) VALUES ('parent')"))
    child = os.fork()
    if not child:
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    connection.commit()
engine.dispose()
"""


@SYNCHRONOUS_DRIVERS
def test_a_child_that_ends_ends_nothing_of_its_parents(routed: Routed, door: str) -> None:
    """A child that ends as programs do, by sys.exit inside the block, rolls nothing back."""
    servers = [routed.cluster.primary, *routed.cluster.replicas]
    urls = [server.url(routed.dbname, door) for server in servers]
    done = subprocess.run(
        [sys.executable, "-c", EXIT, *urls], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("0\n", "")
    assert routed.count() == 1


@SYNCHRONOUS_DRIVERS
def test_a_child_may_dispose_of_the_engine_either_way(routed: Routed) -> None:
    """As SQLAlchemy's documentation has it for a plain engine, or for short: the parent's
    connections live on, and the child makes its own."""

    def child(close: bool) -> None:
        routed.engine.dispose(close=close)
        with routed.engine.begin() as own:
            insert(own)

    with routed.engine.connect() as connection:
        mine = connection.scalar(PID)
    for close in (True, False):
        assert ended(fork(partial(child, close))) == "fine"
    with routed.engine.connect() as connection:
        assert connection.scalar(PID) == mine
    assert routed.count() == 2
