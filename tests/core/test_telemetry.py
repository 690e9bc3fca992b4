"""Counters that take no lock, and events that reach the log and the hooks."""

import gc
import logging
import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from router.telemetry import Tally, Telemetry


def test_threads_count_without_losing_any() -> None:
    """The total is exact while threads count and after they have ended."""
    tally, start, stop = Tally(), threading.Barrier(9), threading.Event()

    def work() -> None:
        mine = tally.mine()
        start.wait()
        for i in range(2000):
            mine["all"] += 1
            mine[i % 7] += 1
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
        mine = tally.mine()
        for i in range(20_000):
            mine["node", i] += 1
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    while not done.is_set():
        tally.total()
    thread.join()
    assert len(tally.total()) == 20_000


def test_what_ended_threads_counted_is_folded() -> None:
    """A thread that ended keeps its counts but no memory of its own, however many there were."""
    tally = Tally()

    def work() -> None:
        tally.mine()["x"] += 1

    for _ in range(50):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    tally.mine()["x"] += 1
    assert tally.total() == Counter(x=51)
    assert [thread for thread, _ in tally._live] == [threading.current_thread()]
    assert tally.total() == Counter(x=51)


def test_a_total_is_a_copy() -> None:
    """Changing a total changes no count."""
    tally = Tally()
    tally.mine()["x"] += 1
    tally.total()["x"] += 100
    gc.collect()
    assert tally.total() == Counter(x=1)


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
