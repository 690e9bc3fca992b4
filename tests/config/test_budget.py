"""The arithmetic of connections, with the examples of the documents it was learned from."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.config import budget
from router.config.budget import Demand, Line, Room
from router.config.config import Config
from router.errors import ConfigError

URI = "postgresql://app@p/db"


def test_mediafusions_example() -> None:
    """50 connections for 3 workers with a read URI are pools of 8."""
    environ = {"POSTGRES_URI": URI, "POSTGRES_READ_URI": "postgresql://app@r/db"}
    environ |= {"DB_MAX_CONNECTIONS": "50", "GUNICORN_WORKERS": "3"}
    config = Config.from_mediafusion(environ)
    assert budget.share(50, 3, 2) == 8
    assert config.pool_options() == {"pool_size": 8, "max_overflow": 0}


def test_horsies_example() -> None:
    """A worker with the default pools and 8 processes holds 3 + 2 + 2 + 8 × 2 = 23 connections."""
    assert budget.horsies_worker(processes=8) == 3 + 2 + 2 + 8 * 2 == 23
    assert budget.horsies_worker(processes=8, task_code=4) == 27


@given(st.integers(1, 10_000), st.integers(1, 64), st.integers(1, 9))
def test_pools_never_exceed_the_budget(maximum: int, workers: int, nodes: int) -> None:
    """All pools together stay within it, and with one connection more each they would not."""
    if maximum < workers * nodes:
        with pytest.raises(ConfigError, match=f"give {workers * nodes} or more"):
            budget.share(maximum, workers, nodes)
        return
    size = budget.share(maximum, workers, nodes)
    assert size * workers * nodes <= maximum < (size + 1) * workers * nodes


def test_a_server_sees_every_workers_pool_and_monitor() -> None:
    """What a server may see is each process's pool and its monitor's connection, and the rest."""
    demand = Demand(workers=3, pool_size=8, max_overflow=0, extra=5)
    assert demand.on(1) == 3 * (8 + 0 + 1) + 5
    assert demand.sum(1) == "3 × (8 + 0 + 1) + 5 = 32"
    assert demand.sum(2) == "3 × 2 nodes × (8 + 0 + 1) + 5 = 59"


@pytest.mark.parametrize(("size", "overflow"), [(0, 10), (5, -1)])
def test_a_pool_without_a_limit_fits_nowhere(size: int, overflow: int) -> None:
    """SQLAlchemy's "no limit" is over every server's."""
    demand = Demand(1, size, overflow)
    assert not demand.bounded
    assert Line("h:5432", ("primary",), None, demand.sum(1), Room(1000)).over


def test_what_is_said_of_a_server() -> None:
    """Reserved slots do not count, who is over is named with the cure, the silent are not over."""
    fits = Line("a:1", ("primary",), 97, "97", Room(100, 3))
    over = Line("b:1", ("replica1",), 98, "98", Room(100, 3))
    silent = Line("c:1", ("replica2",), 98, "98", None, "refused")
    assert (fits.over, over.over, silent.over) == (False, True, False)
    assert str(fits) == "a:1 (primary): 97; max_connections 100 − 3 reserved = 97: fits"
    assert str(over).endswith(": over")
    assert str(silent).endswith("not asked: refused")
    assert budget.cure([fits, silent]) == ""
    assert re.match("b:1: lower max_connections", budget.cure([fits, over, silent]))


def test_the_defaults_are_sqlalchemys() -> None:
    """Where nothing is said of pools, SQLAlchemy's own sizes are counted."""
    from inspect import signature

    from sqlalchemy import QueuePool

    parameters = signature(QueuePool.__init__).parameters
    assert parameters["pool_size"].default == budget.POOL_SIZE
    assert parameters["max_overflow"].default == budget.MAX_OVERFLOW
    assert Config.from_url(URI).demand() == Demand()
