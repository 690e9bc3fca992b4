"""Two engines of one process over one cluster, each with a replica of its own.

Both are called by the primary's address, so a context has one pin for the two of them.
"""

import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import sqlalchemy as sa

import router
from router.sqlalchemy import RoutedEngine
from tests.sqlalchemy.kit import PORT, Routed

INSERT = sa.text("INSERT INTO item (name) VALUES ('x')")
COUNT = sa.text("SELECT count(*) FROM item")


@pytest.fixture
def engines(routed: Routed) -> list[RoutedEngine]:
    """One engine for each replica. Either replica is called "replica1" by its engine."""
    return [routed.another(replicas=[r.url(routed.dbname)]) for r in routed.cluster.replicas]


def ask(engine: RoutedEngine, statement: sa.TextClause) -> Any:
    with engine.connect() as connection:
        return connection.scalar(statement)


def until(holds: Callable[[], bool]) -> None:
    """Ask again: what ends a pin is a probe, and nobody awaits that."""
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("enter", [router.request_context, nullcontext], ids=["request", "root"])
def test_a_write_is_pinned_for_both(
    routed: Routed, engines: list[RoutedEngine], enter: Any
) -> None:
    """A write that the replica of one engine has replayed is not missed by the other engine, whose
    replica is behind; when that has replayed it too, the pin is forgotten."""
    near, far = routed.cluster.replicas
    one, two = engines
    with enter() as context:
        far.pause_replay()
        try:
            with one.begin() as connection:
                connection.execute(INSERT)
            until(lambda: ask(one, PORT) == near.port)
            assert [ask(engine, COUNT) for engine in (two, one)] == [1, 1]
            assert ask(two, PORT) == routed.cluster.primary.port
        finally:
            far.resume_replay()
        until(lambda: ask(two, PORT) == far.port)
        pins = (context or router.current_context()).pins
        until(lambda: ask(one, PORT) == near.port and not pins.get(one.router.cluster))


def test_no_read_of_one_is_older_than_the_others(
    routed: Routed, engines: list[RoutedEngine]
) -> None:
    """What a request has seen on one engine's replica it sees through the other engine as well,
    whose replica of the same name is behind."""
    near, far = routed.cluster.replicas
    one, two = engines
    far.pause_replay()
    try:
        routed.execute_on_primary("INSERT INTO item (name) VALUES ('x')")
        until(lambda: near.execute("SELECT count(*) FROM item", dbname=routed.dbname) == [(1,)])
        with router.request_context():
            assert (ask(one, PORT), ask(one, COUNT)) == (near.port, 1)
            assert ask(two, COUNT) == 1
    finally:
        far.resume_replay()
