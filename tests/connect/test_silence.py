"""Whose statements are given up when a server is silent."""

import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from router.cluster.router import Router
from router.config.config import Config
from router.config.server import Server
from router.connect.driver import Driver
from router.connect.source import Connector
from router.model import Report


class Connection:
    """A driver's connection, at whose other end a socket of ours tells what becomes of it."""

    def __init__(self, *, autocommit: bool = True, runs: bool = True) -> None:
        self.line, self.other = socket.socketpair()
        self.other.settimeout(5)
        self.autocommit = autocommit
        self.runs = runs

    def fileno(self) -> int:
        return self.line.fileno()

    def close(self) -> None:
        self.line.close()
        self.other.close()

    @property
    def hung_up(self) -> bool:
        """Whether somebody has shut it down."""
        self.other.setblocking(False)
        try:
            return self.other.recv(1) == b""
        except BlockingIOError:
            return False


class Source(Connector):
    """All connections lead to the same node."""

    driver = Driver(
        errors=(OSError,), ask=lambda *_: (), lost=lambda *_: True, runs=lambda c: bool(c.runs)
    )

    def __init__(self, config: Config) -> None:
        self.config = config
        self.router = Router(config)
        self.router.gate.always(self.unused)
        self.connections: list[Any] = []

    def under_way(self, node: object) -> list[Any]:
        return self.connections


@pytest.fixture
def alone() -> Iterator[Connection]:
    """A connection on which a read runs that is part of no transaction."""
    connection = Connection()
    yield connection
    connection.close()


@pytest.fixture
def within() -> Iterator[Connection]:
    """A connection on which a statement of a transaction runs."""
    connection = Connection(autocommit=False)
    yield connection
    connection.close()


@pytest.fixture
def idle() -> Iterator[Connection]:
    """A connection in use on which nothing runs now."""
    connection = Connection(runs=False)
    yield connection
    connection.close()


def probe_in_vain(source: Source, **found: Any) -> None:
    """Let a probe of the replica fail, as `found` says."""
    now = source.router.clock()
    report = Report("replica1", now, error="no answer", silent_since=now)
    source.router.observe(replace(report, **found))


def test_a_read_alone_is_given_up_after_one_probe(
    alone: Connection, within: Connection, idle: Connection
) -> None:
    """It runs elsewhere; what is part of a transaction fails by it, after a second probe. A
    connection on which nothing runs is left."""
    source = Source(Config.build(Server("p"), ["a"]))
    source.connections = [alone, within, idle]
    probe_in_vain(source)
    assert [c.hung_up for c in source.connections] == [True, False, False]
    probe_in_vain(source)
    assert [c.hung_up for c in source.connections] == [True, True, False]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"give_up_silent": False}, {}),
        ({"pgbouncer": "transaction"}, {}),
        ({"pgbouncer": "session"}, {}),
        ({}, {"silent_since": None}),
        (
            {},
            {"error": "slow to let us in", "silent_since": None, "obstacle": "slow to let us in"},
        ),
    ],
)
def test_else_nothing_is_given_up(
    alone: Connection, options: dict[str, Any], found: dict[str, object]
) -> None:
    """Not where the user says so, not behind a PgBouncer, whose queue is as silent, and not where
    the server has answered, or nobody knows."""
    source = Source(Config.build(Server("p"), ["a"], **options))
    source.connections = [alone]
    for _ in range(3):
        probe_in_vain(source, **found)
    assert not alone.hung_up
