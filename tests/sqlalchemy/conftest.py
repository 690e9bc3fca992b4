"""Engines over the shared cluster, disposed of when the test ends."""

from collections.abc import Iterator
from typing import Any

import pytest

import router
from router.sqlalchemy import RoutedEngine
from router.testing import Cluster
from tests.sqlalchemy.kit import Routed


@pytest.fixture
def routed(cluster: Cluster, database: Any) -> Iterator[Routed]:
    """A routed engine over a fresh database with one table."""
    engines: list[RoutedEngine] = []

    def make(**options: Any) -> RoutedEngine:
        options.setdefault("replicas", [r.url(database.name) for r in cluster.replicas])
        options.setdefault("probe_interval", 0.2)
        url = options.pop("url", cluster.primary.url(database.name))
        engine = router.create_engine(url, **options)
        engines.append(engine)
        return engine

    yield Routed(cluster, database.name, make)
    for engine in engines:
        engine.dispose()
