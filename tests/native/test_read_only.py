"""A read-only transaction on a replica, by the drivers' own pools."""

from typing import Any

import pytest

from router import request_context
from router.errors import ReplicaWriteRefused
from tests.native.kit import DRIVER_ERRORS, Native

LOCK = "SELECT pg_advisory_lock(1)"


def test_what_would_act_on_a_replica_is_not_sent(native: Native) -> None:
    """An advisory lock raises ReplicaWriteRefused there, and the transaction goes on."""
    door = native.door
    with request_context(), door.connection() as connection:
        for first in (True, False):
            with door.transaction(connection, read_only=True):
                if not first:
                    assert native.served(connection) == "replica"
                with pytest.raises(ReplicaWriteRefused, match="would act and not be refused"):
                    door.run(connection, LOCK)
                assert native.served(connection) == "replica"


def test_what_a_standby_refuses_fails_as_postgresql_fails_it(native: Native) -> None:
    """A write in a read-only transaction is sent, and comes back with SQLSTATE 25006."""
    door = native.door

    def block(connection: Any) -> None:
        with door.transaction(connection, read_only=True):
            door.run(connection, "INSERT INTO item (name) VALUES ('new')")

    with request_context(), door.connection() as connection:
        with pytest.raises(DRIVER_ERRORS) as caught:
            block(connection)
        assert getattr(caught.value, "sqlstate", None) == "25006"


@pytest.mark.doors("asyncpg")
def test_asyncpgs_other_ways_are_held_to_it(native: Native) -> None:
    """In a read-only transaction on a replica a lock is neither prepared nor read by a cursor,
    while a table is copied out."""
    door = native.door

    async def forget(data: bytes) -> None: ...

    async def open_cursor(connection: Any) -> None:
        await connection.cursor(LOCK)

    with (
        request_context(),
        door.connection() as connection,
        door.transaction(connection, read_only=True),
    ):
        with pytest.raises(ReplicaWriteRefused):
            door.loop(connection.prepare(LOCK))
        with pytest.raises(ReplicaWriteRefused):
            door.loop(open_cursor(connection))
        assert door.loop(connection.copy_from_table("item", output=forget)) == "COPY 0"
        assert native.served(connection) == "replica"
