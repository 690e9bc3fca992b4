"""The connections that serve are the best probe, through the drivers' own pools."""

import time
from typing import Any

import pytest

from router import PrimaryUnavailable, request_context
from router.testing import Proxy
from tests.native.conftest import MakePool
from tests.native.kit import PORT, Native
from tests.probing import end_monitors, leave_no_room, role_for, slow_logins, until

pytestmark = pytest.mark.slow

FAST = {"probe_interval": 0.1, "probe_timeout": 0.3}
INSERT = "INSERT INTO item (name) VALUES ('new')"


def run(door: Any, sql: str) -> Any:
    with request_context(), door.connection() as connection:
        return door.run(connection, sql)


def events(door: Any, *names: str) -> list[int]:
    """How often each of these happened."""
    return [door.router.stats()["events"].get(name, 0) for name in names]


def doubted(door: Any) -> None:
    """Wait until the primary has answered no probe for long enough to be taken to be down."""
    until(lambda: door.router.snapshot.doubted("primary"), door.router.stats)


def test_a_server_that_is_slow_to_let_in_is_not_down(native: Native, make_pool: MakePool) -> None:
    """While a monitor that lost its session needs longer than probe_timeout for another, every
    write succeeds over the pool's, and every read stays on a replica."""
    door = make_pool(**FAST)
    door.router.start()
    run(door, INSERT)
    native.settle()
    assert native.role(run(door, PORT)[0][0]) == "replica"
    with slow_logins(native.cluster.servers, native.database.name):
        began = time.monotonic()
        while time.monotonic() - began < 1.5:  # five times probe_timeout, less than a login takes
            run(door, INSERT)
            assert native.role(run(door, PORT)[0][0]) == "replica"
            time.sleep(0.05)
        assert events(door, "unreachable", "degraded", "blacklisted") == [0, 0, 0]


def test_a_server_that_is_full_has_answered(native: Native, make_pool: MakePool) -> None:
    """With too_many_connections for the monitor, and for each new connection of the pools, writes
    and reads go on over those that are open, and nothing is blacklisted."""
    role = role_for(native.cluster, native.database.name)
    urls = [s.url(native.database.name) for s in native.cluster.servers]
    primary, *replicas = [url.replace("postgres@", f"{role}@") for url in urls]
    door = make_pool(primary, replicas=replicas, **FAST)
    door.router.start()
    run(door, INSERT)
    native.settle()
    for _ in range(20):
        run(door, PORT)
    leave_no_room(native.cluster, native.database.name, role)
    until(lambda: events(door, "probe_refused") == [3], door.router.stats)
    for _ in range(10):
        run(door, INSERT)
    until(lambda: native.role(run(door, PORT)[0][0]) == "replica")
    assert door.router.blacklisted == {}
    assert events(door, "unreachable", "degraded", "blacklisted") == [0, 0, 0]


@pytest.mark.parametrize("checked", [False, True])
def test_writes_go_on_over_open_connections(
    native: Native, make_pool: MakePool, way: str, checked: bool
) -> None:
    """A primary that refuses new connections, the monitor's too, while the pool's serve, is
    written to however long probes fail; when it falls silent over these as well one write waits
    for probe_timeout, and the next ones are refused at once."""
    options: dict[str, Any] = {}
    if checked:
        if way.startswith("asyncpg"):
            pytest.skip("asyncpg's pools ask no connection whether it lives")
        pool_class = type(native.door.pool)
        options["check"] = pool_class.check_connection
    server = native.cluster.primary
    with Proxy(server.host, server.port) as proxy:
        replicas = native.database.replica_urls()
        url = proxy.url(native.database.primary_url())
        door = make_pool(url, replicas=replicas, **FAST, **options)
        door.router.start()
        run(door, INSERT)
        proxy.refuse()
        # The session of the fixture's own pool goes too, and is back at once.
        end_monitors([server], native.database.name)
        for _ in range(3):
            doubted(door)
            run(door, INSERT)
        assert events(door, "unreachable", "degraded", "reachable", "writable") == [1, 1, 1, 1]
        with door.connection() as connection, door.transaction(connection):
            door.run(connection, INSERT)
            doubted(door)
            door.run(connection, INSERT)
        proxy.deaf()
        doubted(door)
        took = []
        for _ in range(3):
            began = time.monotonic()
            with pytest.raises(PrimaryUnavailable, match=r"has not answered for \d"):
                run(door, INSERT)
            took.append(time.monotonic() - began)
        assert took[0] < 5 * 0.3 + 1  # more than 0.3 s only where this process finds no CPU
        assert max(took[1:]) < 0.25
        assert door.router.snapshot.down("primary")
        proxy.heal()
        until(lambda: door.router.snapshot.writable, door.router.stats)
        run(door, INSERT)


def test_a_session_that_a_server_ended_speaks_for_itself(
    native: Native, make_pool: MakePool
) -> None:
    """Connections to replicas that a server has ended in the pool cost no node its reads, and no
    caller an error."""
    door = make_pool(**FAST)
    door.router.start()
    for _ in range(20):
        run(door, PORT)
    ours = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND starts_with(application_name, 'pg-router replica')"
    )
    for server in native.cluster.replicas:
        assert server.execute(ours, dbname=native.database.name)
    served = [native.role(run(door, PORT)[0][0]) for _ in range(6)]
    assert served[1:] == ["replica"] * 5
    assert door.router.blacklisted == {}
    assert events(door, "blacklisted") == [0]
