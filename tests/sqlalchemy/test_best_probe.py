"""The connections that serve are the best probe: what a monitor meets refuses no write."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

import router
from router.sqlalchemy import RoutedEngine
from router.testing import Proxy
from tests.probing import computing, end_monitors, leave_no_room, role_for, slow_logins, until
from tests.sqlalchemy.kit import EVERY_DOOR, EVERY_DRIVER, PORT, Routed, insert

pytestmark = pytest.mark.slow

FAST = {"probe_interval": 0.1, "probe_timeout": 0.3}


def write(engine: RoutedEngine) -> None:
    with router.request_context(), engine.begin() as connection:
        insert(connection)


def read(routed: Routed, engine: RoutedEngine) -> str:
    with router.request_context(), engine.connect() as connection:
        return routed.served(connection)


def events(engine: RoutedEngine, *names: str) -> list[int]:
    """How often each of these happened."""
    return [engine.router.stats()["events"].get(name, 0) for name in names]


def restored(engine: RoutedEngine) -> None:
    """Wait for an answer to a probe of the primary that is asked from now on."""
    asked = time.monotonic()
    until(
        lambda: any(s.started > asked for s in engine.router.snapshot.samples[-1:]),
        engine.router.stats,
    )


@EVERY_DOOR
def test_a_server_that_is_slow_to_let_in_is_not_down(routed: Routed) -> None:
    """While a monitor that lost its session needs longer than probe_timeout for another, every
    write succeeds over the pool's, every read stays on a replica, and the monitor gets in."""
    engine = routed.another(**FAST)
    write(engine)
    routed.settle()
    # Each replica has an open connection, or a read may wait for one and find it just let in.
    until(
        lambda: (
            read(routed, engine) == "replica"
            and all(node.name in engine.pool.status() for node in engine.router.replicas)
        ),
        engine.pool.status,
    )
    with slow_logins(routed.cluster.servers, routed.dbname):
        began = time.monotonic()
        while time.monotonic() - began < 1.5:  # five times probe_timeout, less than a login takes
            write(engine)
            assert read(routed, engine) == "replica"
            time.sleep(0.05)
        assert events(engine, "unreachable", "degraded", "blacklisted") == [0, 0, 0]
        restored(engine)


def test_a_process_that_begins_while_logins_are_slow_writes(routed: Routed) -> None:
    """A first probe that needs longer than probe_timeout to get in does not refuse the writes,
    which are let in as late, and is answered in the end."""
    with slow_logins(routed.cluster.servers, routed.dbname):
        engine = routed.another(**FAST, start_timeout=1)
        write(engine)
        assert events(engine, "unreachable", "degraded") == [0, 0]
        restored(engine)


def test_an_answer_that_comes_too_late_is_waited_for(routed: Routed) -> None:
    """A server that answers each probe later than probe_timeout is asked on, over one connection,
    and not taken to be down, though nobody writes meanwhile."""
    primary = routed.cluster.primary
    with Proxy(primary.host, primary.port) as proxy:
        engine = routed.another(
            url=proxy.url(primary.url(routed.dbname)).replace(
                "postgresql:", "postgresql+psycopg:"
            ),
            replicas=[routed.cluster.replicas[0].url(routed.dbname)],
            **FAST,
        )
        write(engine)
        proxy.delay(0.45)
        restored(engine)
        opened = proxy.connections
        for _ in range(3):
            restored(engine)
        assert proxy.connections == opened
        write(engine)
        assert events(engine, "degraded") == [0]


def test_a_client_short_of_cpu_blames_no_server(routed: Routed) -> None:
    """Where each step of the monitor waits longer for the interpreter's lock than a probe may
    take, no server is taken to be down: no write is refused, and no replica loses its reads."""
    engine = routed.another(**FAST)
    write(engine)
    routed.settle()
    with computing(16):
        began, writes = time.monotonic(), 0
        while time.monotonic() - began < 4:
            write(engine)
            writes += 1
        assert writes
        assert len(engine.router.replicas) == 2
    assert events(engine, "degraded", "lagging", "blacklisted") == [0, 0, 0]


@pytest.mark.doors("psycopg", "asyncpg_async", "pg8000")
def test_a_server_that_is_full_has_answered(routed: Routed) -> None:
    """With too_many_connections for the monitor, and for each new connection of the pools, writes
    and reads go on over those that are open, and nothing is blacklisted."""
    role = role_for(routed.cluster, routed.dbname)
    engine = as_role(routed, role)
    write(engine)
    routed.settle()
    for _ in range(20):
        read(routed, engine)
    leave_no_room(routed.cluster, routed.dbname, role)
    until(lambda: events(engine, "probe_refused") == [3], engine.router.stats)
    for _ in range(10):
        write(engine)
    until(lambda: read(routed, engine) == "replica")
    with router.request_context(), engine.connect() as first, engine.connect() as second:
        assert routed.served(first) == "replica"
        assert routed.served(second) == "primary"  # there is no room for a second one of ours
    assert engine.router.blacklisted == {}
    assert events(engine, "unreachable", "degraded", "blacklisted") == [0, 0, 0]
    routed.execute_on_primary(f"ALTER ROLE {role} CONNECTION LIMIT -1")
    restored(engine)


def as_role(routed: Routed, role: str, **options: Any) -> RoutedEngine:
    """An engine of the role's, with the test's driver."""
    driver = routed.door.removesuffix("_async")
    urls = [s.url(routed.dbname).replace("postgres@", f"{role}@") for s in routed.cluster.servers]
    url = urls[0].replace("postgresql:", f"postgresql+{driver}:", 1)
    return routed.another(url=url, replicas=urls[1:], **FAST, **options)


def test_a_monitor_that_is_refused_its_login_refuses_no_write(routed: Routed) -> None:
    """Where its role may not log in any more, writes and reads go on over the connections that
    are open, which tell how far behind a replica is; that is said once; and with the role's return
    probes go on."""
    role = role_for(routed.cluster, routed.dbname)
    engine = as_role(routed, role, max_lag_seconds=0.5)
    write(engine)
    routed.settle()
    for _ in range(20):
        read(routed, engine)
    routed.execute_on_primary(f"ALTER ROLE {role} NOLOGIN")
    routed.cluster.wait_caught_up()
    end_monitors(routed.cluster.servers, routed.dbname)
    until(lambda: events(engine, "probe_refused") == [3], engine.router.stats)
    began = time.monotonic()
    while time.monotonic() - began < 1.5:  # three times max_lag_seconds
        write(engine)
        assert read(routed, engine) == "replica"
        time.sleep(0.05)
    assert events(engine, "unreachable", "degraded", "blacklisted") == [0, 0, 0]
    assert events(engine, "probe_refused") == [3]
    with routed.paused():
        write(engine)
        until(lambda: read(routed, engine) == "primary")
    routed.execute_on_primary(f"ALTER ROLE {role} LOGIN")
    restored(engine)


@contextmanager
def refusing(routed: Routed) -> Iterator[tuple[RoutedEngine, Proxy]]:
    """An engine with an open connection to a primary that takes no new ones, and whose monitor
    has lost its session."""
    primary = routed.cluster.primary
    with Proxy(primary.host, primary.port) as proxy:
        driver = routed.door.removesuffix("_async")
        url = proxy.url(primary.url(routed.dbname))
        engine = routed.another(
            url=url.replace("postgresql:", f"postgresql+{driver}:", 1),
            replicas=[routed.cluster.replicas[0].url(routed.dbname)],
            **FAST,
        )
        write(engine)
        proxy.refuse()
        # The session of the fixture's own engine goes too, and is back at once.
        end_monitors([primary], routed.dbname)
        doubted(engine)
        yield engine, proxy


def doubted(engine: RoutedEngine) -> None:
    """Wait until the primary has answered no probe for long enough to be taken to be down."""
    until(lambda: engine.router.snapshot.doubted("primary"), engine.router.stats)


@EVERY_DRIVER
def test_writes_go_on_over_open_connections(routed: Routed) -> None:
    """A primary that takes no new connections, the monitor's too, while the pool's serve, is
    written to however long probes fail; that it is down, and up, is told once, not with each
    write; and when the last of those breaks, writes are refused at once, saying since when."""
    with refusing(routed) as (engine, proxy):
        names = ("unreachable", "degraded", "reachable", "writable")
        # The monitor's thread tells of it once everybody can see it.
        until(lambda: events(engine, *names) == [1, 1, 0, 0], engine.router.stats)
        for _ in range(3):
            write(engine)
            write(engine)
            doubted(engine)
        assert events(engine, *names) == [1, 1, 1, 1]
        with engine.begin() as connection:
            insert(connection)
            doubted(engine)
            insert(connection)  # in the middle of a transaction
        proxy.cut()
        doubted(engine)
        began = time.monotonic()
        for _ in range(3):
            with pytest.raises(router.PrimaryUnavailable, match=r"has not answered for \d"):
                write(engine)
        assert time.monotonic() - began < 1
        assert engine.router.snapshot.down("primary")
        proxy.heal()
        until(lambda: engine.router.snapshot.writable, engine.router.stats)
        write(engine)


@EVERY_DRIVER
def test_a_frozen_primary_keeps_one_write_waiting_and_no_more(routed: Routed) -> None:
    """A primary that says nothing over an open connection either costs probe_timeout; after that
    writes are refused at once, in the middle of a transaction too; thawed, it is written to."""
    engine = routed.another(**FAST, pool_pre_ping=True)
    write(engine)
    open_one = engine.connect()
    transaction = open_one.begin()
    insert(open_one)
    primary = routed.cluster.primary
    primary.freeze()
    try:
        until(lambda: engine.router.snapshot.down("primary"), engine.router.stats)
        took = []
        for _ in range(4):
            began = time.monotonic()
            with pytest.raises(router.PrimaryUnavailable, match=r"has not answered for \d"):
                write(engine)
            took.append(time.monotonic() - began)
        assert took[0] < 5 * 0.3 + 1  # more than 0.3 s only where this process finds no CPU
        assert max(took[1:]) < 0.25
        with pytest.raises(router.PrimaryUnavailable):
            insert(open_one)
    finally:
        primary.thaw()
    until(lambda: engine.router.snapshot.writable, engine.router.stats)
    transaction.rollback()
    open_one.close()
    write(engine)


@EVERY_DOOR
def test_a_session_that_a_server_ended_speaks_for_itself(routed: Routed) -> None:
    """Connections to replicas that idle_session_timeout has ended in the pool cost no node its
    reads, and no caller an error."""
    role = role_for(routed.cluster, routed.dbname)
    routed.execute_on_primary(f"ALTER ROLE {role} SET idle_session_timeout = '300ms'")
    routed.cluster.wait_caught_up()
    engine = as_role(routed, role)
    for _ in range(20):
        read(routed, engine)
    idle = (
        "SELECT count(*) FROM pg_stat_activity WHERE usename = %s "
        "AND application_name <> 'pg-router monitor'"
    )
    replicas = routed.cluster.replicas
    until(lambda: all(replica.execute(idle, [role]) == [(0,)] for replica in replicas))
    served = [read(routed, engine) for _ in range(6)]
    assert served[1:] == ["replica"] * 5
    assert engine.router.blacklisted == {}
    assert events(engine, "blacklisted") == [0]


@EVERY_DOOR
def test_a_replica_whose_new_connections_end_as_well_is_blacklisted(routed: Routed) -> None:
    """One pooled connection that was ended blacklists no node; a replica that takes no new one in
    its place, before any probe has met it, is blacklisted."""
    replica = routed.cluster.replicas[0]
    with Proxy(replica.host, replica.port) as proxy:
        engine = routed.another(
            replicas=[proxy.url(replica.url(routed.dbname))], probe_interval=60
        )
        with router.request_context(), engine.connect() as connection:
            assert routed.served(connection) == "replica"
            proxy.cut()
            assert routed.served(connection) in ("primary", "replica")
        assert engine.router.blacklisted == {}
        proxy.refuse()
        proxy.cut()
        for _ in range(2):
            with router.request_context(), engine.connect() as connection:
                assert connection.execute(PORT).scalar_one()
        until(lambda: not engine.router.replicas)


def test_a_checkout_listener_hears_of_a_connection_that_was_tried(routed: Routed) -> None:
    """What a checkout listener sets is set as well on a connection over which a doubted primary
    was asked first."""
    with refusing(routed) as (engine, _):
        heard = []
        sa.event.listen(engine, "checkout", lambda dbapi, *_: heard.append(dbapi))
        write(engine)
        assert len(heard) == 1
        write(engine)
        assert len(heard) == 2
