"""read_only() on a replica: what a standby would not refuse is refused before it is sent."""

import pytest

from router import request_context
from router.errors import ReplicaWriteRefused
from tests.django.conftest import Routed


def run(sql: str) -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(sql)


def test_an_advisory_lock_is_not_taken_on_a_replica(routed: Routed) -> None:
    """It raises ReplicaWriteRefused, first or later in the block, and the thread goes on."""
    from router.django import read_only

    for first in (True, False):
        with request_context(), read_only():
            if not first:
                assert routed.served() == "replica"
            with pytest.raises(ReplicaWriteRefused, match="would act and not be refused"):
                run("SELECT pg_advisory_lock(1)")
        assert routed.served() == "replica"


def test_a_write_fails_as_postgresql_fails_it(routed: Routed) -> None:
    """An INSERT in read_only() is sent, and comes back with SQLSTATE 25006."""
    from django.db import InternalError

    from router.django import read_only

    with (
        request_context(),
        pytest.raises(InternalError, match="read-only transaction"),
        read_only(),
    ):
        run("INSERT INTO shop_item (name) VALUES ('new')")
