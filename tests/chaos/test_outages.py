"""With more callers than places nobody waits longer than it takes to detect what is wrong."""

import pytest

from tests.chaos.outages import DETECTION, FAULTS, run

CALLERS = 24
"""Threads; tasks are three times as many. Each node's pool has ten places."""
BUSY = 2.0
"""Seconds by which a machine that is busy with other tests may be late."""


@pytest.mark.slow
@pytest.mark.parametrize("door", ["SQLAlchemy, psycopg", "psycopg, async", "asyncpg", "Django"])
def test_a_frozen_replica_fails_no_read(door: str) -> None:
    """Its readers, those that wait for its answer and those that wait for its pool, read
    elsewhere once a probe has found it silent."""
    seen = run(door, FAULTS["freeze"]._replace(seconds=7.0), CALLERS)
    assert seen.failures == []
    assert seen.calls > 500
    assert seen.longest < DETECTION + 1.0 + BUSY


@pytest.mark.slow
@pytest.mark.parametrize("door", ["SQLAlchemy, psycopg", "asyncpg"])
def test_writers_learn_that_the_primary_is_frozen(door: str) -> None:
    """Whoever writes, or waits for his turn, is told once a second probe has found it silent: what
    may have been committed as unknown, what was not sent as refused."""
    seen = run(door, FAULTS["primary"]._replace(seconds=10.0), CALLERS)
    assert seen.longest < 2 * DETECTION + 1.0 + BUSY
    assert {kind for text in seen.failures for kind in [text.split()[3].rstrip(":")]} <= {
        "PrimaryUnavailable", "CommitUnknown", "TransactionLost", "OperationalError",
        "ConnectionDoesNotExistError",  # asyncpg's, of what was not sent any more
    }  # fmt: skip


@pytest.mark.slow
def test_a_deaf_replica_is_not_waited_for_while_it_is_connected_to() -> None:
    """With cold pools the first connections themselves go nowhere: callers give them up."""
    seen = run("SQLAlchemy, psycopg", FAULTS["deaf"]._replace(seconds=8.0), CALLERS)
    assert seen.failures == []
    assert seen.longest < DETECTION + 1.0 + BUSY
