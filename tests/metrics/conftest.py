"""One engine, on a fresh database with two live replicas."""

from collections.abc import Iterator

import pytest

import router
from router.sqlalchemy import RoutedEngine
from tests.conftest import Database


@pytest.fixture
def engine(database: Database) -> Iterator[RoutedEngine]:
    made = router.create_engine(
        database.primary_url("psycopg"), database.replica_urls(), name="one"
    )
    made.router.start()
    yield made
    made.dispose()
