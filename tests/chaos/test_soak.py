"""What a process holds after many checkouts under faults is what it held before."""

import pytest

from tests.chaos.soak import grown, soak


@pytest.mark.slow
@pytest.mark.timeout(170)
def test_nothing_piles_up_while_servers_fail_and_threads_fork() -> None:
    """Descriptors, threads, memory and the servers' sessions are back where they were, and with
    the engine closed no session is left."""
    before, after, closed = soak("SQLAlchemy, psycopg", 2000)
    assert grown(before, after) == {}
    assert closed["backends"] == 3  # those that count, one on each server
    assert closed["descriptors"] < before["descriptors"]
