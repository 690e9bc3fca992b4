"""Fixtures for projects that test against a real primary with real replicas.

Nothing of PostgreSQL is imported or started before a test asks for a fixture.
"""

import sys
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from router.testing.cluster import Cluster, Server

_TAIL = 30  # lines of each server's log shown with a failed test
_BEGAN: "pytest.StashKey[dict[Server, int]]" = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the command line or the ini file of `parser` say how many replicas there are, and of
    which PostgreSQL."""
    text = "replicas of the pg_cluster fixture (default 2)"
    parser.addini("pg_cluster_replicas", text, default="2")
    group = parser.getgroup("pg-router")
    group.addoption("--pg-cluster-replicas", type=int, default=None, metavar="N", help=text)
    text = "the version of the pg_cluster fixture's PostgreSQL, such as 16 (default: the wheel's)"
    parser.addini("pg_cluster_version", text, default="")
    group.addoption("--pg-cluster-version", default=None, metavar="VERSION", help=text)


@pytest.fixture(scope="session")
def pg_cluster(pytestconfig: pytest.Config) -> "Iterator[Cluster]":
    """A primary and streaming replicas for the whole session, as `pytestconfig` counts them."""
    from router.testing.cluster import Cluster

    asked = _asked(pytestconfig, "pg_cluster_replicas")
    try:
        replicas = int(asked)
    except ValueError:
        raise pytest.UsageError(
            f"pg_cluster_replicas={asked!r} is not a number: use 0 or more"
        ) from None
    try:
        made = Cluster(replicas, version=_asked(pytestconfig, "pg_cluster_version") or None)
    except ValueError as error:
        raise pytest.UsageError(f"pg_cluster_version: {error}") from None
    with made as cluster:
        yield cluster


def _asked(config: pytest.Config, name: str) -> Any:
    """What the command line says of the option `name`, else the ini file."""
    said = config.getoption(name)
    return config.getini(name) if said is None else said


def _servers() -> "list[Server]":
    # Looked up, not imported: where no cluster was started there is nothing to show.
    module = sys.modules.get("router.testing.cluster")
    return [s for cluster in module.running for s in cluster.servers] if module else []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Note where the servers' logs end before `item`, a test."""
    item.stash[_BEGAN] = {server: server.log_size for server in _servers()}
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to the report on `item`, a failed test, what the servers wrote meanwhile."""
    report = yield
    if report.failed:
        began = item.stash.get(_BEGAN, {})
        for server in _servers():
            if text := server.log(_TAIL, since=began.get(server, 0)):
                report.sections.append((f"log of {server!r}", text))
    return report
