"""Engines over the shared cluster, disposed of when the test ends."""

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

import router
from router.testing import Cluster
from tests.sqlalchemy.kit import Routed


@pytest.fixture
def routed(cluster: Cluster, database: Any) -> Iterator[Routed]:
    """A routed engine over a fresh database with one table."""
    engines: list[sa.Engine] = []

    def make(**options: Any) -> sa.Engine:
        options.setdefault("replicas", [r.url(database.name) for r in cluster.replicas])
        options.setdefault("probe_interval", 0.2)
        url = options.pop("url", cluster.primary.url(database.name))
        engine = router.create_engine(url, **options)
        engines.append(engine)
        return engine

    yield Routed(cluster, database.name, make)
    for engine in engines:
        engine.dispose()
