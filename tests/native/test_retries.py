"""A statement whose connection died runs again only where the rules sent it at first."""

from contextlib import ExitStack

import pytest

from router import request_context, using_primary
from tests.conftest import Database
from tests.native.conftest import MakePool
from tests.native.kit import DRIVER_ERRORS, Native


def test_the_first_read_of_a_transaction_stays_on_the_primary(native: Native, way: str) -> None:
    """Its pooled connection having died, a replica that lags does not answer in its place: the
    primary does on a fresh connection, or there is an error."""
    door = native.door
    native.database.execute("INSERT INTO item (name) VALUES ('100')")
    native.settle()
    with using_primary():
        pid = native.run("SELECT pg_backend_pid()")[0][0]
    found = []
    with native.cluster.replay_paused():
        native.database.execute("UPDATE item SET name = '60'")
        native.database.execute(f"SELECT pg_terminate_backend({pid}, 5000)")
        for _ in range(2):
            with request_context(), door.connection() as connection:
                try:
                    with door.transaction(connection):
                        found += door.run(connection, "SELECT name FROM item")
                except DRIVER_ERRORS:
                    assert way == "asyncpg"  # which sends BEGIN as a statement of its own
    assert set(found) == {("60",)}


@pytest.mark.parametrize("replicas", [True, False])
def test_a_read_outlives_all_connections_to_all_servers(
    database: Database, make_pool: MakePool, replicas: bool
) -> None:
    """Every connection to every server was cut, those in the pools and the monitor's: a read finds
    a new one, on the primary too where it has come for want of a replica and meets an old one."""
    native = Native(database, lambda: make_pool(max_size=4))
    router = native.door.router
    if not replicas:
        for node in router.replicas:
            router.blacklist(node.name, "a test")
    cut = (
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        f"WHERE datname = '{native.database.name}' AND pid <> pg_backend_pid()"
    )
    for _ in range(3):
        with ExitStack() as stack:  # pools have two old connections each
            for _ in range(2):
                connection = stack.enter_context(native.door.connection())
                with using_primary():
                    native.served(connection)
                native.served(connection)
        for server in native.cluster.servers:
            server.execute(cut)
        for _ in range(3):
            native.run("SELECT 1")
