"""A statement whose connection died runs again only where the rules sent it at first."""

from router import request_context, using_primary
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
