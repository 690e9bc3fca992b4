"""Hosts that swallow connections, and what the router says to the driver of time-outs."""

import gc
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

import router
from router.testing import Proxy
from tests.sqlalchemy.kit import EVERY_DRIVER, PORT, Routed, insert

THREADS, READS = 20, 5


@contextmanager
def deaf(proxy: Proxy) -> Iterator[None]:
    """The host accepts connections and says nothing."""
    proxy.deaf()
    yield


@contextmanager
def full(proxy: Proxy) -> Iterator[None]:
    """The host drops what asks for a connection: a listener's queue is full."""
    proxy.refuse()
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((proxy.host, proxy.port))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((proxy.host, proxy.port))
        yield


@pytest.mark.parametrize("black_hole", [deaf, full])
def test_a_black_hole_costs_one_time_out_once(
    routed: Routed, black_hole: Callable[[Proxy], Any]
) -> None:
    """Of twenty threads that want to read at once, one waits for the time-out; all get their
    rows, and nobody waits again."""
    near, far = routed.cluster.replicas
    with Proxy(far.host, far.port) as proxy:
        engine = routed.another(
            replicas=[near.url(routed.dbname), proxy.url(far.url(routed.dbname))],
            balance="round_robin",
            connect_timeout=2,
            probe_interval=60,
            pool_size=THREADS,
        )
        with router.using_primary(), engine.connect() as connection:
            connection.execute(PORT)
        assert {n.name for n in engine.router.replicas} == {"replica1", "replica2"}
        waits: list[float] = []
        start = threading.Barrier(THREADS)

        def work() -> None:
            start.wait()
            for _ in range(READS):
                started = time.monotonic()
                with router.request_context(), engine.connect() as connection:
                    assert connection.scalar(PORT) in {near.port, routed.cluster.primary.port}
                waits.append(time.monotonic() - started)

        with black_hole(proxy):
            threads = [threading.Thread(target=work) for _ in range(THREADS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert len(waits) == THREADS * READS
        assert len([w for w in waits if w > 1.9]) == 1
        assert engine.router.stats()["events"]["blacklisted"] == 1


def parameters(engine: sa.Engine) -> dict[str, str]:
    """What libpq was told for the primary's connection, beside its own defaults."""
    with engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        return dict(driver.info.get_parameters())


def test_connections_give_up_and_notice_dead_hosts_by_default(
    routed: Routed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every node's connections have a connect time-out and TCP keepalives of 30/10/3."""
    monkeypatch.delenv("PGCONNECT_TIMEOUT", raising=False)
    found = parameters(routed.another(connect_timeout=2.5))
    assert found["connect_timeout"] == "3"
    alive = ("keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout")
    assert [found[key] for key in alive] == ["30", "10", "3", "60000"]


def test_the_kernel_keeps_replica_connections_alive_as_told(routed: Routed) -> None:
    """The options reach the socket of a connection to a replica."""
    engine = routed.another()
    seen: list[Any] = []
    sa.event.listen(engine, "connect", lambda dbapi, record: seen.append(dbapi))
    with router.request_context(), engine.connect() as connection:
        assert routed.served(connection) == "replica"
        ports = {s.port for s in routed.cluster.replicas}
        (dbapi,) = [c for c in seen if c.info.port in ports][:1]
        with socket.socket(fileno=socket.dup(dbapi.fileno())) as tcp:
            assert tcp.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30


def test_what_the_user_says_wins(routed: Routed, monkeypatch: pytest.MonkeyPatch) -> None:
    """connect_args, the URL's query and libpq's variable go before the router's defaults."""
    given = {"connect_timeout": 7, "keepalives_idle": 11}
    found = parameters(routed.another(connect_args=given))
    assert (found["connect_timeout"], found["keepalives_idle"]) == ("7", "11")
    assert found["keepalives_count"] == "3"
    url = routed.cluster.primary.url(routed.dbname) + "?connect_timeout=8&keepalives=0"
    found = parameters(routed.another(url=url))
    assert (found["connect_timeout"], found["keepalives"]) == ("8", "0")
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "9")
    assert parameters(routed.another())["connect_timeout"] == "9"


def test_pool_recycle_replaces_old_connections_on_every_node(routed: Routed) -> None:
    """With pool_recycle=0 no server session serves two checkouts, on replica and primary."""
    engine = routed.another(pool_recycle=0)
    pid = sa.text("SELECT pg_backend_pid()")
    seen = []
    for _ in range(3):
        for role in ("primary", "replica"):
            with engine.connect() as connection:
                seen.append(connection.scalar(pid.execution_options(router=role)))
        time.sleep(0.002)  # SQLAlchemy compares wall-clock times
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("role", ["primary", "replica"])
def test_pre_ping_replaces_what_the_server_ended(routed: Routed, role: str) -> None:
    """With pool_pre_ping a session the server ended costs no statement and blacklists nobody."""
    engine = routed.another(pool_pre_ping=True, probe_interval=60)
    pid = sa.text("SELECT pg_backend_pid(), inet_server_port()").execution_options(router=role)
    with engine.connect() as connection:
        first, port = connection.execute(pid).one()
    server = routed.cluster.server_at(port)
    server.execute("SELECT pg_terminate_backend(%s, 5000)", [first])
    for _ in range(4):
        with engine.connect() as connection:
            if role == "primary":
                insert(connection)
            assert connection.execute(pid).one()[0] != first
    assert not engine.router.blacklisted


def test_dispose_during_a_checkout_lets_it_finish(routed: Routed) -> None:
    """dispose() with connections in use breaks none of them, and the engine goes on after."""
    engine = routed.another()
    with router.request_context(), engine.connect() as connection:
        insert(connection)
        engine.dispose()
        insert(connection)
        connection.commit()
    with router.request_context(), engine.connect() as connection:
        assert routed.served(connection) == "replica"
    assert routed.count() == 2


@EVERY_DRIVER
# pg8000's, whose close() raises where the socket is dead, and leaves that open.
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
)
def test_a_replica_may_die_at_any_byte_of_an_engines_first_checkout(routed: Routed) -> None:
    """Whatever an engine asks its first server before the first statement, the dialect's questions
    and the listeners' included: where that server dies meanwhile, another one is asked."""
    far, near = routed.cluster.replicas

    def listener(dbapi: Any, _: Any) -> None:
        cursor = dbapi.cursor()
        cursor.execute("SELECT 1")
        cursor.close()
        dbapi.rollback()

    with Proxy(far.host, far.port) as proxy:

        def first_read(dies_after: int | None) -> int:
            """Read once by a new engine; the bytes that the proxied replica has said for it."""
            proxy.heal()
            engine = routed.another(
                replicas=[proxy.url(far.url(routed.dbname)), near.url(routed.dbname)],
                balance=lambda nodes: min(nodes, key=lambda node: node.name),
                probe_interval=60,
            )
            sa.event.listen(engine, "connect", listener)
            before = proxy.bytes_received
            if dies_after is not None:
                proxy.die_after(dies_after)
            with router.request_context(), engine.connect() as connection:
                found = connection.scalar(PORT)
            assert found in {far.port, near.port}
            said = proxy.bytes_received - before
            engine.dispose()
            return said

        said = first_read(None)
        for dies_after in range(0, said, max(said // 12, 1)):
            first_read(dies_after)
    gc.collect()  # what pg8000 left open is told here, and not in another test
