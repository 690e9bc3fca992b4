"""Engines over the shared cluster, disposed of when the test ends.

A test is written once, against SQLAlchemy's synchronous interface. For an asynchronous door it
runs as SQLAlchemy runs its own code there: in a greenlet over an event loop.
"""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
from sqlalchemy.util import greenlet_spawn

import router
from router.sqlalchemy import RoutedEngine
from router.testing import Cluster
from tests.pgbouncer import bouncer
from tests.sqlalchemy.kit import THROUGH, Routed


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test at each door its nearest mark ``doors`` names."""
    if "door" in metafunc.fixturenames:
        mark = metafunc.definition.get_closest_marker("doors")
        metafunc.parametrize("door", mark.args if mark else ["psycopg"], indirect=True)


@pytest.fixture
def door(request: pytest.FixtureRequest) -> str:
    """The driver, with "_async" behind it for the asynchronous engine; see `kit.DOORS`."""
    return str(request.param)


@pytest.fixture
def runner(door: str) -> Iterator[asyncio.Runner | None]:
    """The event loop of an asynchronous door."""
    if not door.partition(THROUGH)[0].endswith("_async"):
        yield None
        return
    with asyncio.Runner() as started:
        yield started


@pytest.fixture
def routed(
    cluster: Cluster, database: Any, door: str, runner: asyncio.Runner | None
) -> Iterator[Routed]:
    """A routed engine over a fresh database with one table."""
    engines: list[RoutedEngine] = []
    door, through, _ = door.partition(THROUGH)
    driver = door.removesuffix("_async")
    stack = ExitStack()
    primary: str = cluster.primary.url(database.name)
    replicas = [r.url(database.name) for r in cluster.replicas]
    if through:
        primary, replicas = stack.enter_context(bouncer(cluster, database.name))

    def make(**options: Any) -> RoutedEngine:
        options.setdefault("replicas", replicas)
        if through:
            options.setdefault("pgbouncer", True)
        options.setdefault("probe_interval", 0.2)
        url = options.pop("url", primary.replace("postgresql:", f"postgresql+{driver}:", 1))
        engine: Any
        if runner is None:
            engine = router.create_engine(url, **options)
        else:
            engine = router.create_async_engine(url, **options).sync_engine
        engines.append(engine)
        return engine  # type: ignore[no-any-return]

    yield Routed(cluster, database.name, make, door)
    for engine in engines:
        if runner is None:
            engine.dispose()
        else:
            runner.run(greenlet_spawn(engine.dispose))
    stack.close()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run the test of an asynchronous door in a greenlet."""
    runner = pyfuncitem.funcargs.get("runner")
    if not isinstance(runner, asyncio.Runner):
        return None
    wanted = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    runner.run(greenlet_spawn(partial(pyfuncitem.obj, **wanted)))
    return True
