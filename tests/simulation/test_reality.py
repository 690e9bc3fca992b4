"""The model of PostgreSQL that the simulation runs on answers as real servers do."""

from collections.abc import Callable

import pytest

from router.testing import Cluster
from tests.simulation.real_cluster import RealCluster
from tests.simulation.reality import (
    CANCELLED,
    DEADLOCK,
    ENDED,
    FAULTS,
    STRANDED,
    WAIT,
    Tally,
    play,
)

HISTORIES = 120
"""About a minute. More by hand: ``python -m tests.simulation.reality --seed 1000``."""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_model_answers_as_real_servers_do(make_cluster: Callable[..., Cluster]) -> None:
    tally = Tally()
    with RealCluster(make_cluster) as real:
        play(real, range(1, HISTORIES + 1), tally)
    expected = {name for name, _ in FAULTS} | {WAIT, DEADLOCK, ENDED, CANCELLED, STRANDED}
    assert expected - tally.faults.keys() == set(), f"no history had these: {tally}"
