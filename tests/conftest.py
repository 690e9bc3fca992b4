"""One cluster for all tests that do no harm, clusters of their own for the others, and a fresh
database for each test that asks."""

import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import entry_points
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.configuration import set_hypothesis_home_dir
from pytest_postgresql.janitor import DatabaseJanitor

from router.testing import Cluster, Server

# Run from a tree that is not installed, pytest does not find our plugin by itself.
pytest_plugins = (
    [] if entry_points(group="pytest11", name="pg_router") else ["router.testing.pytest_plugin"]
)

# A shell has what it runs in the background ignore Ctrl-C, and so would each process we start: the
# tests that interrupt one would wait for it for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Its directory in the tree would be met by the next collection, and the warning is an error.
set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "pg-router-hypothesis")
# Enough to find a race in the pure core, quick enough for each run.
settings.register_profile(
    "quick",
    deadline=None,  # two busy cores: a slow example says nothing
    max_examples=60,
    database=None,
    derandomize=True,  # a run that passed passes again; search wider by hand, with more examples
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("quick")

# What these hold is the same whatever Python and SQLAlchemy they run on.
ONCE = {
    "chaos", "cli", "cluster", "consistency", "docker", "docs", "doctor", "failover", "forks",
    "gevent", "oracle", "rules", "shutdown", "simulation", "status", "test_house.py", "testing",
}  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what CI runs on one version only, and what on the oldest and the newest."""
    for item in items:
        if ONCE.intersection(item.path.relative_to(Path(__file__).parent).parts[:1]):
            item.add_marker("once")
        if {"cluster", "make_cluster"}.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("cluster")


MakeCluster = Callable[..., Cluster]
_numbers = count(1)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A primary and two replicas for everybody: leave it as you found it."""
    with Cluster() as started:
        yield started


@pytest.fixture
def make_cluster() -> Iterator[MakeCluster]:
    """Clusters to kill, promote and freeze in, with Cluster's own arguments."""
    with ExitStack() as stack:

        def make(*args: Any, **options: Any) -> Cluster:
            return stack.enter_context(Cluster(*args, **options))

        yield make


@dataclass(frozen=True, slots=True)
class Database:
    """A database of the shared cluster, present on every server."""

    cluster: Cluster
    name: str

    def primary_url(self, driver: str | None = None) -> str:
        return self.cluster.primary.url(self.name, driver)

    def replica_urls(self, driver: str | None = None) -> list[str]:
        return [replica.url(self.name, driver) for replica in self.cluster.replicas]

    def execute(self, sql: str, params: Any = None) -> list[tuple[Any, ...]]:
        """Run a statement on the primary."""
        return self.cluster.primary.execute(sql, params, self.name)

    def served_by(self, port: int) -> Server:
        """The server that answered inet_server_port() with `port`."""
        return self.cluster.server_at(port)


@pytest.fixture
def database(cluster: Cluster) -> Iterator[Database]:
    """A fresh database, dropped afterwards whatever the test did to the servers."""
    name = f"test{next(_numbers)}"
    cluster.heal()
    primary = cluster.primary
    janitor = DatabaseJanitor(user="postgres", host=primary.host, port=primary.port, dbname=name)
    with janitor:
        cluster.wait_caught_up()
        try:
            yield Database(cluster, name)
        finally:
            cluster.heal()
