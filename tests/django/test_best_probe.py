"""The connections that serve are the best probe, through Django."""

import time
from typing import Any

import pytest
from django.db import close_old_connections, transaction

from router import PrimaryUnavailable, request_context
from router.testing import Proxy
from tests.conftest import Database
from tests.django.conftest import Connect, Routed
from tests.probing import end_monitors, slow_logins, until

pytestmark = pytest.mark.slow

FAST = {"probe_interval": 0.1, "probe_timeout": 0.3}
POOLED = pytest.mark.parametrize("pooled", [False, True])


def options(pooled: bool) -> dict[str, Any]:
    """Settings with connections kept by the thread, or in a pool for each node."""
    if not pooled:
        return {"CONN_MAX_AGE": None}
    # Django's checks of a pool are psycopg_pool's, which know no time-out.
    return {"CONN_MAX_AGE": 0, "CONN_HEALTH_CHECKS": True, "OPTIONS": {"pool": {"min_size": 1}}}


def write(routed: Routed) -> None:
    """One request that writes."""
    close_old_connections()
    with request_context(), routed.connection.cursor() as cursor:
        cursor.execute("INSERT INTO shop_item (name) VALUES ('new')")
    close_old_connections()


def read(routed: Routed) -> str:
    """The role of the server that serves one request that reads."""
    close_old_connections()
    with request_context():
        served = routed.served()
    close_old_connections()
    return served


def doubted(routed: Routed) -> None:
    """Wait until the primary has answered no probe for long enough to be taken to be down."""
    until(lambda: routed.router.snapshot.doubted("primary"), routed.router.stats)


def test_a_server_that_is_slow_to_let_in_is_not_down(database: Database, connect: Connect) -> None:
    """While a monitor that lost its session needs longer than probe_timeout for another, every
    write succeeds over the connection that is kept, and every read stays on a replica."""
    routed = connect(ROUTER=FAST)
    write(routed)
    routed.settle()
    for _ in range(20):  # a connection to each replica
        assert read(routed) == "replica"
    with slow_logins(database.cluster.servers, database.name):
        began = time.monotonic()
        while time.monotonic() - began < 1.5:  # five times probe_timeout, less than a login takes
            write(routed)
            assert read(routed) == "replica"
            time.sleep(0.05)
        assert {"unreachable", "degraded", "blacklisted"}.isdisjoint(
            routed.router.stats()["events"]
        )


@POOLED
def test_writes_go_on_over_open_connections(
    database: Database, connect: Connect, pooled: bool
) -> None:
    """A primary that takes no new connections, the monitor's too, is written to over the one that
    is open, however long probes fail, and within atomic(); when that falls silent too one write
    waits for probe_timeout, and the next ones are refused at once."""
    server = database.cluster.primary
    with Proxy(server.host, server.port) as proxy:
        replicas = [{"HOST": r.host, "PORT": r.port} for r in database.cluster.replicas]
        routed = connect(PORT=proxy.port, REPLICAS=replicas, ROUTER=FAST, **options(pooled))
        write(routed)
        proxy.refuse()
        end_monitors([server], database.name)
        for _ in range(3):
            doubted(routed)
            write(routed)
        with request_context(), transaction.atomic(), routed.connection.cursor() as cursor:
            cursor.execute("INSERT INTO shop_item (name) VALUES ('new')")
            doubted(routed)
            cursor.execute("INSERT INTO shop_item (name) VALUES ('new')")
        proxy.deaf()
        doubted(routed)
        took = []
        for _ in range(3):
            began = time.monotonic()
            with (
                pytest.raises(PrimaryUnavailable, match=r"has not answered for \d"),
                request_context(),
                routed.connection.cursor() as cursor,
            ):
                cursor.execute("INSERT INTO shop_item (name) VALUES ('new')")
            took.append(time.monotonic() - began)
        assert took[0] < 5 * 0.3 + 1  # more than 0.3 s only where this process finds no CPU
        assert max(took[1:]) < 0.25
        proxy.heal()
        until(lambda: routed.router.snapshot.writable, routed.router.stats)
        write(routed)


@POOLED
def test_a_session_that_a_server_ended_speaks_for_itself(
    database: Database, connect: Connect, pooled: bool
) -> None:
    """Connections to replicas that a server has ended while they were kept cost no node its reads,
    and no caller an error."""
    routed = connect(ROUTER=FAST, **options(pooled) | {"CONN_HEALTH_CHECKS": False})
    for _ in range(20):
        read(routed)
    ours = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND starts_with(application_name, 'pg-router replica')"
    )
    for replica in database.cluster.replicas:
        assert replica.execute(ours, dbname=database.name)
    served = [read(routed) for _ in range(6)]
    assert served[1:] == ["replica"] * 5
    assert routed.router.blacklisted == {}
    assert "blacklisted" not in routed.router.stats()["events"]
