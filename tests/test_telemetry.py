"""Counters that take no lock, and events that reach the log and the hooks."""

import logging
import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from router.cluster.router import Router
from router.config.config import Config
from router.model import Lsn, Report, Role
from router.rules.context import RoutingContext
from router.telemetry import Tally, Telemetry


def test_threads_count_without_losing_any() -> None:
    """The total is exact while threads count and after they have ended."""
    tally, start, stop = Tally(), threading.Barrier(9), threading.Event()

    def work() -> None:
        start.wait()
        for i in range(2000):
            next(tally["all"])
            next(tally[i % 7])
        stop.wait()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    start.wait()
    seen = [tally.total()["all"] for _ in range(200)]
    assert seen == sorted(seen)
    stop.set()
    for thread in threads:
        thread.join()
    assert tally.total()["all"] == 16_000
    assert sum(tally.total()[i] for i in range(7)) == 16_000


def test_reading_while_keys_appear_never_fails() -> None:
    """New keys added by one thread do not disturb another that sums them up."""
    tally, done = Tally(), threading.Event()

    def work() -> None:
        for i in range(20_000):
            next(tally["node", i])
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    while not done.is_set():
        tally.total()
    thread.join()
    assert len(tally.total()) == 20_000


def test_to_look_counts_nothing() -> None:
    """However often a total is taken, it says the same; changing one changes no count; and what
    was never counted is not in it."""
    tally = Tally()
    next(tally["x"])
    assert tally["y"] is tally["y"]
    for _ in range(3):
        total = tally.total()
        assert total == Counter(x=1)
        total["x"] += 100
    next(tally["x"])
    assert tally.total() == Counter(x=2)


def test_an_event_is_logged_counted_and_told(caplog: pytest.LogCaptureFixture) -> None:
    """One event reaches the logger "router" with the cluster's name, the counts and each hook."""
    telemetry = Telemetry("db.example:5432/app")
    told: list[tuple[str, Mapping[str, Any]]] = []
    telemetry.hooks.append(lambda name, fields: told.append((name, fields)))
    with caplog.at_level(logging.INFO, logger="router"):
        telemetry.event("blacklisted", level="warning", node="a", reason="08006")
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("router", "WARNING")
    assert record.getMessage() == (
        "event=blacklisted cluster=db.example:5432/app node=a reason=08006"
    )
    assert told == [("blacklisted", {"node": "a", "reason": "08006"})]
    assert telemetry.counts.total() == Counter(blacklisted=1)


def test_an_event_below_the_users_level_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody gets output they did not configure; the count goes on."""
    telemetry = Telemetry("c")
    with caplog.at_level(logging.ERROR, logger="router"):
        telemetry.event("restored", node="a")
    assert caplog.records == []
    assert telemetry.counts.total() == Counter(restored=1)


def test_a_flood_of_one_event_is_held_back(caplog: pytest.LogCaptureFixture) -> None:
    """Ten lines a minute for each event and node, then one that says how many were left out;
    counts and hooks miss none."""
    now = [0.0]
    telemetry, seen = Telemetry("c", lambda: now[0]), []
    telemetry.hooks.append(lambda name, fields: seen.append(name))
    with caplog.at_level(logging.INFO, "router"):
        for _ in range(500):
            telemetry.event("retried", node="a")
            now[0] += 0.01
        telemetry.event("retried", node="b")
        assert len(caplog.messages) == 10 + 1
        now[0] = 60.0
        telemetry.event("retried", node="a")
    assert "suppressed=490" in caplog.messages[-1]
    assert len(seen) == telemetry.counts.total()["retried"] == 502


def test_details_are_told_to_who_asks(caplog: pytest.LogCaptureFixture) -> None:
    """What happens with every write is counted, and logged where level debug is let through."""
    telemetry = Telemetry("c")
    with caplog.at_level(logging.INFO, "router"):
        telemetry.detail("pin_set")
        assert caplog.messages == []
    with caplog.at_level(logging.DEBUG, "router"):
        telemetry.detail("pin_set")
    assert caplog.messages == ["event=pin_set cluster=c"]
    assert telemetry.counts.total()["pin_set"] == 2


class Told:
    """A router over reports made by hand, and the events it tells."""

    def __init__(self, **options: Any) -> None:
        self.now = 100.0
        config = Config.from_url("postgresql://p/d", replicas=["a"], name="one", **options)
        self.router = Router(config, clock=lambda: self.now)
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.router.telemetry.hooks.append(lambda name, f: self.told.append((name, dict(f))))

    def probe(self, primary: int | None, replica: int | None, lag: float = 0.0) -> list[str]:
        """Report positions, None for no answer; the events that gave."""
        self.now += 1.0
        del self.told[:]
        for name, lsn, role in (
            ("primary", primary, Role.PRIMARY),
            ("replica1", replica, Role.REPLICA),
        ):
            if lsn is None:
                self.router.observe(Report(name, self.now, error="refused"))
            else:
                seconds = lag if role is Role.REPLICA else None
                self.router.observe(Report(name, self.now, role, Lsn(lsn), 1, lag_seconds=seconds))
        return [name for name, _ in self.told]


def test_a_replica_that_falls_behind_is_told_of_once() -> None:
    """Out for lag and back again are one event each; a dead replica is not said to lag."""
    told = Told(max_lag_seconds=5)
    assert told.probe(1000, 1000) == []
    told.probe(90_000_000, 1000, 2.0)
    told.now += 10
    assert told.probe(99_000_000, 1000, 12.0) == ["lagging"]
    assert told.told[0][1] == {"node": "replica1", "seconds": 12.0, "bytes": 98_999_000}
    assert told.probe(99_000_000, 1000, 13.0) == []
    assert told.probe(99_000_000, 99_000_000) == ["caught_up"]
    assert told.probe(99_000_000, None) == []
    assert told.probe(99_000_000, None) == ["unreachable"]


def test_the_end_of_writing_and_its_return_are_told() -> None:
    """Without a primary that answers the cluster is degraded, once, until it can be written."""
    told = Told()
    told.probe(1000, 1000)
    assert told.probe(None, 1000) == []
    assert told.probe(None, 1000) == ["unreachable", "degraded"]
    assert told.probe(None, 1000) == []
    assert told.probe(1000, 1000) == ["reachable", "writable"]


def test_a_pins_life_is_told() -> None:
    """Set at the write, satisfied when a read finds that every replica has replayed it."""
    told = Told()
    told.probe(1000, 1000)
    read = told.router.intent("SELECT 1")
    context = RoutingContext()
    told.router.pinning.wrote(context, done=False)
    told.router.pinning.wrote(context, done=True)
    counts = told.router.telemetry.counts
    assert counts.total() == Counter(pin_set=1)
    told.probe(2000, 2000)
    assert not told.router.decide(read, context=context).on_primary
    assert counts.total() == Counter(pin_set=1, pin_satisfied=1)
    assert told.told == []


def test_who_watches_stops_nothing() -> None:
    """An observer that raises is told of, and the report is taken in all the same."""
    told, seen = Told(), []
    told.router.observers += [lambda router: 1 / 0, lambda router: seen.append(router)]  # type: ignore[list-item]
    assert told.probe(1000, 1000) == ["observer_failed", "observer_failed"]
    assert "ZeroDivisionError" in told.told[0][1]["error"]
    assert seen == [told.router, told.router]
    assert told.router.snapshot.replicas
