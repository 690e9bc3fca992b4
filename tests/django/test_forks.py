"""What a forked child has of its parent's connection: nothing."""

import os

from django.db import connection, transaction

from tests.django.conftest import Routed
from tests.django.test_rules import items
from tests.forks.kit import ended, fork


def session() -> int:
    """The server session that runs a statement now."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return int(cursor.fetchone()[0])


def test_an_atomic_block_stays_the_parents(routed: Routed) -> None:
    """A child forked inside atomic() is outside of it, on a session of its own; what it does, and
    that it leaves the block, is of no consequence to the parent's transaction."""
    done: list[int] = []
    block = transaction.atomic()

    def child() -> None:
        items().create(name="child")
        assert session() != mine
        with transaction.atomic():
            items().create(name="undone")
            transaction.set_rollback(True)

    def leaver() -> None:
        block.__exit__(None, None, None)
        assert done == []

    with block:
        items().create(name="parent")
        transaction.on_commit(lambda: done.append(os.getpid()))
        mine = session()
        assert ended(fork(child)) == "fine"
        assert ended(fork(leaver)) == "fine"
        assert session() == mine
    assert done == [os.getpid()]
    assert sorted(items().values_list("name", flat=True)) == ["child", "parent"]
