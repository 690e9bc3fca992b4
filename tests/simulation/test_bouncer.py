"""What a PgBouncer that pools by transaction does to its clients, in the model."""

import time
from collections.abc import Callable
from random import Random

import psycopg
import pytest

from router.testing import Cluster
from tests.pgbouncer import bouncer as running
from tests.simulation.bouncer import QUERY_WAIT_TIMEOUT, Bouncer
from tests.simulation.postgres import APPEND, ONE, TENANT, Blocked, Refused, World


@pytest.fixture
def bouncer() -> Bouncer:
    world = World(Random(1))
    world.advance(1.0)
    return Bouncer(world.servers[0], 1)


def test_a_connection_is_lent_for_a_transaction(bouncer: Bouncer) -> None:
    one, two = bouncer.login(1.0), bouncer.login(1.0)
    one.execute("BEGIN", None, 1.0)
    with pytest.raises(Blocked) as waits:
        two.execute(ONE, None, 1.0)
    assert not waits.value.by.over
    one.execute("COMMIT", None, 1.1)
    assert waits.value.by.over
    assert two.execute(ONE, None, 1.1).rows == [(1,)]
    assert len(bouncer.server.sessions) == 1


def test_those_who_wait_are_served_in_the_order_they_came(bouncer: Bouncer) -> None:
    one, two, three = (bouncer.login(1.0) for _ in range(3))
    one.execute("BEGIN", None, 1.0)
    for waiting in (two, three):
        with pytest.raises(Blocked):
            waiting.execute(ONE, None, 1.0)
    one.execute("COMMIT", None, 1.1)
    with pytest.raises(Blocked):
        three.execute(ONE, None, 1.1)
    two.execute(ONE, None, 1.1)
    three.execute(ONE, None, 1.1)


def test_a_setting_of_the_session_is_the_next_clients(bouncer: Bouncer) -> None:
    one, two = bouncer.login(1.0), bouncer.login(1.0)
    one.execute("SET app.tenant = 't1'", None, 1.0)
    assert two.execute(TENANT, None, 1.0).rows == [("t1",)]


def test_who_waits_for_too_long_is_turned_away(bouncer: Bouncer) -> None:
    one, two = bouncer.login(1.0), bouncer.login(1.0)
    one.execute("BEGIN", None, 1.0)
    with pytest.raises(Blocked) as waits:
        two.execute(ONE, None, 1.0)
    late = 1.0 + QUERY_WAIT_TIMEOUT
    bouncer.server.world.advance(late)
    assert waits.value.by.over
    with pytest.raises(Refused, match="query_wait_timeout") as refused:
        two.execute(ONE, None, late)
    assert (refused.value.sqlstate, refused.value.ends, two.open) == ("08P01", True, False)


def test_a_paused_one_lends_nothing(bouncer: Bouncer) -> None:
    client = bouncer.login(1.0)
    bouncer.paused = True
    with pytest.raises(Blocked) as waits:
        client.execute(ONE, None, 1.0)
    assert not waits.value.by.over
    bouncer.paused = False
    assert waits.value.by.over
    client.execute(ONE, None, 1.0)


def test_a_client_outlasts_a_server_connection_that_it_does_not_have(bouncer: Bouncer) -> None:
    server, idle, busy = bouncer.server, bouncer.login(1.0), bouncer.login(1.0)
    idle.execute(ONE, None, 1.0)
    busy.execute("BEGIN", None, 1.0)
    server.kill(1.1)
    server.start(1.1)
    server.world.advance(2.0)
    assert (idle.open, busy.open, busy.why) == (True, False, "08P01")
    idle.execute(ONE, None, 2.0)


def test_a_client_hears_of_the_end_of_its_session_what_that_has_said(bouncer: Bouncer) -> None:
    client = bouncer.login(1.0)
    client.execute("BEGIN", None, 1.0)
    (session,) = bouncer.server.sessions.values()
    bouncer.server.terminate(session, "57P01", 1.1)
    assert (client.open, client.why) == (False, "57P01")


def test_who_comes_after_one_that_found_no_server_is_turned_away(bouncer: Bouncer) -> None:
    server, first = bouncer.server, bouncer.login(1.0)
    server.kill(1.0)
    with pytest.raises(Blocked):
        first.execute(ONE, None, 1.0)
    with pytest.raises(Refused, match="server login has been failing"):
        bouncer.login(1.1).execute(ONE, None, 1.1)
    first.close(1.2)
    server.start(1.2)
    server.world.advance(3.0)
    with pytest.raises(Refused, match="server login has been failing"):
        bouncer.login(3.0).execute(ONE, None, 3.0)
    bouncer.login(3.0).execute(ONE, None, 3.0)


def test_a_transaction_ends_with_its_client(bouncer: Bouncer) -> None:
    server, client = bouncer.server, bouncer.login(1.0)
    client.execute("BEGIN", None, 1.0)
    client.execute(APPEND, {"op": "gone"}, 1.0)
    client.close(1.1)
    assert (server.sessions, server.world.commits, bouncer.idle) == ({}, [], [])


def test_a_restart_ends_all_connections(bouncer: Bouncer) -> None:
    client = bouncer.login(1.0)
    client.execute(ONE, None, 1.0)
    bouncer.restart(1.1)
    assert (client.open, bouncer.clients, bouncer.server.sessions) == (False, [], {})


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_real_one_does_the_same(make_cluster: Callable[..., Cluster]) -> None:
    """By one server connection: who waits, what leaks, and who hears of a server's end how."""
    cluster = make_cluster(0)
    cluster.start()
    primary = cluster.primary
    with running(cluster, "postgres", pool_size=1) as (url, _):

        def client() -> psycopg.Connection[tuple[object, ...]]:
            return psycopg.connect(url, autocommit=True, prepare_threshold=None)

        def ends(client: psycopg.Connection[tuple[object, ...]]) -> str | None:
            with pytest.raises(psycopg.OperationalError) as error:
                client.execute(ONE.encode())
            assert client.closed
            return error.value.sqlstate

        one, two = client(), client()
        one.execute("SET work_mem = '5MB'")
        assert two.execute("SHOW work_mem").fetchone() == ("5MB",)
        one.execute("BEGIN")
        assert ends(two) == "08P01"  # query_wait_timeout

        primary.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <>"
                        " pg_backend_pid() AND backend_type = 'client backend'")  # fmt: skip
        time.sleep(0.3)
        assert ends(one) == "57P01"

        one, idle = client(), client()
        one.execute("BEGIN")
        primary.kill()
        time.sleep(0.3)
        # A backend whose postmaster is gone may say so before it is killed itself.
        assert ends(one) in ("08P01", "57P01")
        assert ends(idle) == "08P01"  # query_wait_timeout
        assert ends(client()) == "08P01"  # at once
