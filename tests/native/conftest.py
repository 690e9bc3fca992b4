"""Pools of the drivers' own over a fresh database, by every door."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import uvloop

from router.rules.context import ROOT
from tests.conftest import Database
from tests.native.kit import DOORS, Native
from tests.pgbouncer import bouncer

THROUGH = "-pgbouncer"
ON_UVLOOP = "-uvloop"
ASYNCHRONOUS = [name for name, door in DOORS.items() if door.asynchronous]
EVERY_WAY = pytest.mark.doors(
    *DOORS,
    *(pytest.param(door + THROUGH, marks=pytest.mark.slow) for door in DOORS),
    *(pytest.param(door + ON_UVLOOP, marks=pytest.mark.slow) for door in ASYNCHRONOUS),
)
"""Straight to the servers, through a PgBouncer that pools by transaction, and on uvloop."""

MakePool = Callable[..., Any]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test by each door that its nearest mark ``doors`` names, by default straight."""
    if "way" in metafunc.fixturenames:
        mark = metafunc.definition.get_closest_marker("doors")
        metafunc.parametrize("way", mark.args if mark else list(DOORS), indirect=True)


@pytest.fixture(autouse=True)
def no_monitor_left() -> Iterator[None]:
    """Every pool was closed, or closed itself; else later tests would count its monitor."""
    before = set(threading.enumerate())
    yield
    left = set(threading.enumerate()) - before
    assert not [thread for thread in left if "pg-router monitor" in thread.name]


@pytest.fixture
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make_pool(database: Database, way: str) -> Iterator[MakePool]:
    """Makes pools over the fresh database, closed with the test."""
    database.execute("CREATE TABLE item (id serial PRIMARY KEY, name text NOT NULL)")
    database.cluster.wait_caught_up()
    with ExitStack() as stack:
        primary, replicas = database.primary_url(), database.replica_urls()
        through: dict[str, Any] = {}
        if way.endswith(THROUGH):
            primary, replicas = stack.enter_context(bouncer(database.cluster, database.name))
            through = {"pgbouncer": True}
        on_uvloop = way.endswith(ON_UVLOOP)
        if on_uvloop:
            through = {"loop": uvloop.new_event_loop}

        def make(url: str = primary, **options: Any) -> Any:
            given = {"replicas": replicas, **through, **options}
            door: Any = DOORS[way.removesuffix(THROUGH).removesuffix(ON_UVLOOP)](url, **given)
            stack.callback(door.close)
            assert not on_uvloop or door.loop.kind is uvloop.Loop
            return door

        yield make
    ROOT.pins.clear()


@pytest.fixture
def native(database: Database, make_pool: MakePool) -> Native:
    return Native(database, make_pool)
