"""Nobody misses an own write, nor goes back in time, whatever happens to the replicas."""

from collections.abc import Iterator
from typing import Any

import pytest

from router.testing import Cluster
from tests.consistency.history import Operation, violations
from tests.consistency.run import DOORS, MODES, Run, world


@pytest.fixture(scope="module")
def harmed() -> Iterator[Cluster]:
    """A cluster of this module's own."""
    with world() as cluster:
        yield cluster


@pytest.fixture
def empty(harmed: Cluster) -> Cluster:
    """The same, with nothing in it."""
    harmed.primary.execute("TRUNCATE item")
    harmed.wait_caught_up()
    return harmed


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("door", DOORS)
def test_no_client_misses_a_write_or_goes_back(empty: Cluster, door: str, mode: str) -> None:
    """Over pausing, lagging and dying replicas every client reads its own writes, and no request
    reads an older state than before."""
    run = Run(empty, operations=4000, seed=3, door=door, mode=mode)
    assert run.play() == []
    assert not run.failures
    if mode == "request":
        assert run.served()["replica"] > 100


@pytest.mark.parametrize("door", DOORS)
def test_without_pins_the_judge_finds_violations(empty: Cluster, door: str) -> None:
    """The judge is awake: the same run with pins turned off is full of violations."""
    run = Run(empty, operations=600, seed=3, door=door, consistency="off")
    assert any("missed its own" in line for line in run.play())


def op(kind: Any, version: int, began: float, ended: float, context: int = 1) -> Operation:
    return Operation(context, kind, 7, version, began, ended)


@pytest.mark.parametrize(
    ("history", "found"),
    [
        ([op("write", 1, 0, 1), op("read", 1, 2, 3)], ""),
        ([op("write", 1, 0, 1), op("read", 0, 2, 3)], "missed its own"),
        ([op("write", 1, 0, 1), op("write", 2, 2, 3), op("read", 1, 4, 5)], "missed its own"),
        ([op("write", 1, 0, 3), op("read", 0, 1, 2)], ""),  # still under way
        ([op("write", 1, 0, 1), op("read", 0, 2, 3, context=2)], ""),  # somebody else's
        ([op("read", 2, 0, 1), op("read", 1, 2, 3)], "older than the earlier"),
        ([op("read", 2, 0, 3), op("read", 1, 1, 2)], ""),  # at the same time
        ([op("read", 2, 0, 1, 0), op("read", 1, 2, 3, 0)], ""),  # no promise outside requests
        ([op("write", 1, 0, 1, 0), op("read", 0, 2, 3, 0)], "missed its own"),
    ],
)
def test_the_judge(history: list[Operation], found: str) -> None:
    """What is a violation and what is not, on histories made by hand."""
    lines = list(violations(history))
    assert bool(lines) is bool(found)
    assert all(found in line for line in lines)
