"""What the pages' snippets run on: a fresh database with one table, on live replicas."""

from typing import Any

import pytest

from router.testing import Cluster


@pytest.fixture
def primary_url(cluster: Cluster, database: Any) -> str:
    """The primary's URL; its database holds the table ``item``."""
    cluster.primary.execute(
        "CREATE TABLE item (id serial PRIMARY KEY, name text NOT NULL)", dbname=database.name
    )
    cluster.wait_caught_up()
    return cluster.primary.url(database.name)


@pytest.fixture
def replica_urls(cluster: Cluster, database: Any) -> list[str]:
    """The URLs of two replicas."""
    return [replica.url(database.name) for replica in cluster.replicas]
