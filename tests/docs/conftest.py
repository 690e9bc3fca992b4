"""What the pages' snippets run on: a fresh database with one table, on live replicas."""

from typing import Any

import pytest


@pytest.fixture
def primary_url(database: Any) -> str:
    """The primary's URL; its database holds the table ``item``."""
    database.execute("CREATE TABLE item (id serial PRIMARY KEY, name text NOT NULL)")
    database.cluster.wait_caught_up()
    return str(database.primary_url())


@pytest.fixture
def replica_urls(database: Any) -> list[str]:
    """The URLs of two replicas."""
    return list(database.replica_urls())
