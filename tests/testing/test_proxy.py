"""The proxy does to real TCP connections what its methods say."""

import contextlib
import gc
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Iterator

import psycopg
import pytest

from router.testing import Cluster, Proxy


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(1 << 16):
            self.request.sendall(data)


@pytest.fixture
def echo() -> Iterator[tuple[str, int]]:
    """A server that says what it hears."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield server.server_address  # type: ignore[misc]
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(echo: tuple[str, int]) -> Iterator[Proxy]:
    with Proxy(*echo) as started:
        yield started


@pytest.fixture
def client(proxy: Proxy) -> Iterator[socket.socket]:
    """A connection through the proxy, in use."""
    with socket.create_connection((proxy.host, proxy.port), timeout=5) as connection:
        assert said(connection, b"hello") == b"hello"
        yield connection


def said(connection: socket.socket, data: bytes) -> bytes:
    connection.sendall(data)
    heard = b""
    while len(heard) < len(data):
        piece = connection.recv(1 << 16)
        assert piece, "the proxy closed the connection"
        heard += piece
    return heard


def await_closed(proxy: Proxy) -> None:
    deadline = time.monotonic() + 5
    while proxy.open_connections:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_it_forwards_both_ways(proxy: Proxy, client: socket.socket) -> None:
    """More than any buffer holds passes unchanged, to and fro."""
    data = bytes(range(256)) * 20000
    sender = threading.Thread(target=client.sendall, args=[data])
    sender.start()
    heard = b""
    while len(heard) < len(data):
        heard += client.recv(1 << 16)
    sender.join()
    assert heard == data
    assert proxy.bytes_sent == proxy.bytes_received == len(data) + len(b"hello")


def test_it_counts(proxy: Proxy, client: socket.socket) -> None:
    """Connections, bytes and round trips are counted; a goodbye is no round trip."""
    for _ in range(3):
        said(client, b"ab")
    assert (proxy.connections, proxy.open_connections) == (1, 1)
    assert (proxy.bytes_sent, proxy.bytes_received) == (11, 11)
    assert proxy.round_trips == 4
    client.close()
    await_closed(proxy)
    assert (proxy.connections, proxy.open_connections) == (1, 0)
    assert proxy.round_trips == 4


def test_half_a_close_is_forwarded(proxy: Proxy, client: socket.socket) -> None:
    """Who only stops speaking still hears the end of the answer."""
    client.sendall(b"last words")
    client.shutdown(socket.SHUT_WR)
    heard = b""
    while piece := client.recv(1 << 16):
        heard += piece
    assert heard == b"last words"
    await_closed(proxy)


def test_refuse(proxy: Proxy, client: socket.socket) -> None:
    """New connections are refused, existing ones go on, and heal() lets new ones in."""
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((proxy.host, proxy.port), timeout=5)
    assert said(client, b"still here") == b"still here"
    proxy.heal()
    with socket.create_connection((proxy.host, proxy.port), timeout=5) as fresh:
        assert said(fresh, b"again") == b"again"


def test_cut(proxy: Proxy, client: socket.socket) -> None:
    """Existing connections are reset, not closed; a new one works."""
    proxy.cut()
    assert proxy.open_connections == 0
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    with socket.create_connection((proxy.host, proxy.port), timeout=5) as fresh:
        assert said(fresh, b"again") == b"again"


def test_delay(proxy: Proxy, client: socket.socket) -> None:
    """Answers come late by the delay, in order, until heal()."""
    proxy.delay(0.2)
    begun = time.monotonic()
    client.sendall(b"slow")
    assert client.recv(4) == b"slow"
    assert time.monotonic() - begun >= 0.2
    client.sendall(b"late")
    time.sleep(0.05)  # so that "soon" meets "late" on its way
    proxy.heal()
    client.sendall(b"soon")
    heard = b""
    while len(heard) < 8:
        heard += client.recv(8)
    assert heard == b"latesoon"
    with pytest.raises(ValueError, match="delay=-1 is negative"):
        proxy.delay(-1)


def test_deaf(proxy: Proxy, client: socket.socket) -> None:
    """Connections stay open and are accepted, nothing passes; heal() delivers what was said."""
    proxy.deaf()
    client.sendall(b"anyone?")
    client.settimeout(0.1)
    with pytest.raises(TimeoutError):
        client.recv(1)
    with socket.create_connection((proxy.host, proxy.port), timeout=0.1) as fresh:
        fresh.sendall(b"hello?")
        with pytest.raises(TimeoutError):
            fresh.recv(1)
        proxy.heal()
        client.settimeout(5)
        fresh.settimeout(5)
        assert client.recv(7) == b"anyone?"
        assert fresh.recv(6) == b"hello?"


def test_a_dead_server_resets_the_client(echo: tuple[str, int]) -> None:
    """Where nobody listens behind the proxy, the client's connection is reset."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with Proxy("127.0.0.1", unused.getsockname()[1]) as proxy:
            # The reset may come before connect() has returned.
            with (
                pytest.raises(ConnectionResetError),
                socket.create_connection((proxy.host, proxy.port), timeout=5) as client,
            ):
                client.recv(1)
            await_closed(proxy)


def test_a_closed_proxy_says_so(echo: tuple[str, int]) -> None:
    """Closing may be repeated, cuts what is open, and faults then have no meaning."""
    proxy = Proxy(*echo)
    proxy.start()
    proxy.deaf()
    with socket.create_connection((proxy.host, proxy.port), timeout=5) as client:
        client.sendall(b"x")
        while not proxy.open_connections:
            time.sleep(0.001)
        proxy.close()
        proxy.close()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with pytest.raises(RuntimeError, match="not running"):
        proxy.cut()
    assert "closed" in repr(proxy)


def test_it_leaves_no_socket_to_who_comes_as_it_closes(
    echo: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a proxy has accepted by the time it closes or cuts, it closes."""
    left: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", left.append)
    for round_ in range(100):
        with Proxy(*echo) as proxy, contextlib.ExitStack() as clients:
            calling = threading.Thread(target=call_and_leave, args=[proxy, clients])
            calling.start()
            if round_ % 2:
                proxy.cut()
            proxy.close()
            calling.join()
    gc.collect()
    assert not left


def call_and_leave(proxy: Proxy, clients: contextlib.ExitStack) -> None:
    for _ in range(5):
        client = clients.enter_context(socket.socket())
        client.setblocking(False)
        client.connect_ex((proxy.host, proxy.port))


def test_repr_shows_the_faults(proxy: Proxy) -> None:
    """A proxy's repr tells what it does to connections, and nothing of URLs."""
    assert repr(proxy).endswith(", forwarding>")
    proxy.refuse()
    proxy.deaf()
    proxy.delay(0.5)
    assert repr(proxy).endswith(", refusing, deaf, delay 0.5 s>")


def test_postgresql_speaks_through_it(cluster: Cluster) -> None:
    """A server's URL leads through the proxy, and a query is one round trip."""
    primary = cluster.primary
    with Proxy(primary.host, primary.port) as proxy:
        url = proxy.url(primary.url("postgres"))
        with psycopg.connect(url, autocommit=True) as connection:
            before = proxy.round_trips
            row = connection.execute("SELECT inet_server_port()").fetchone()
            assert row == (primary.port,)
            assert proxy.round_trips == before + 1
            proxy.cut()
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")


def test_url_keeps_all_but_the_address(proxy: Proxy) -> None:
    """User, password, database and options of a URL survive the rewriting."""
    given = "postgresql+psycopg://me:p%40ss@db.example:5432/app?connect_timeout=3"
    wanted = f"postgresql+psycopg://me:p%40ss@127.0.0.1:{proxy.port}/app?connect_timeout=3"
    assert proxy.url(given) == wanted
