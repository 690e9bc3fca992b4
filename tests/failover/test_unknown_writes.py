"""A write that is its own transaction, and whose connection ends while it runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import pytest

import router
from router.testing import Server
from tests.conftest import MakeCluster
from tests.failover.kit import NAMES, Door, doors, prepare, until
from tests.native.kit import DRIVER_ERRORS

ALONE = tuple(name for name in NAMES if "engine" not in name)
"""Doors whose statements are transactions of their own unless told otherwise."""

SLOW = "INSERT INTO item (name) SELECT 'slow' FROM pg_sleep(60)"
ENDED = "INSERT INTO item (name) SELECT 'ended' WHERE pg_terminate_backend(pg_backend_pid())"


@contextmanager
def killed_while_it_runs(server: Server, sql: str) -> Iterator[None]:
    """Kill `server` once it runs `sql` in the block, and start it again afterwards."""
    running = "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query = %s"

    def kill() -> None:
        until(lambda: server.execute(running, [sql]), "it runs")
        server.kill()

    thread = Thread(target=kill)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        server.start()


def answering(door: Door) -> None:
    """Wait until `door` has seen the primary answer."""
    door.router.refresh()
    until(lambda: not door.misses("primary"), f"{door.name} reaches the primary")


def test_nobody_knows_what_became_of_a_write_whose_server_is_gone(
    make_cluster: MakeCluster,
) -> None:
    """It raises CommitUnknown, which is the driver's own error for a lost connection too; it is
    not sent again, and the next one goes through."""
    cluster = make_cluster(1)
    prepare(cluster)
    primary = cluster.primary
    with doors(cluster, only=ALONE) as opened:
        for door in opened:
            answering(door)
            with killed_while_it_runs(primary, SLOW):
                with pytest.raises(router.CommitUnknown, match="look before you repeat") as raised:
                    door.run(SLOW)
                assert door.name == "Django" or isinstance(raised.value, DRIVER_ERRORS)
            answering(door)
            door.write()
        assert cluster.primary.execute("SELECT DISTINCT name FROM item") == [("mine",)]


def test_what_the_server_itself_ended_was_not_committed(make_cluster: MakeCluster) -> None:
    """With its SQLSTATE, 57P01, nothing is unknown: the driver's error is raised as it is. (From
    asyncpg nobody learns it.)"""
    cluster = make_cluster(1)
    prepare(cluster)
    with doors(cluster, only=[name for name in ALONE if name != "asyncpg"]) as opened:
        for door in opened:
            with pytest.raises(Exception, match="terminating connection") as raised:
                door.run(ENDED)
            assert not isinstance(raised.value, router.CommitUnknown), door.name
            door.write()
        assert cluster.primary.execute("SELECT DISTINCT name FROM item") == [("mine",)]
