"""Clock, wait, wake, spawn and chance, and that a Router has all of them from its Runtime."""

import asyncio
import multiprocessing
import random
import threading
import time
from collections.abc import Callable

import pytest

from router.cluster.health import ATTEMPT_STEP
from router.cluster.router import Router
from router.config.config import Config
from router.errors import NoReplicaAvailable
from router.runtime import SYSTEM, Runtime

CONFIG = Config.from_url("postgresql://app@db1/shop", ["db2"])


class Simulated(Runtime):
    """Its clock moves when somebody sleeps, and only then."""

    __slots__ = ("now",)

    def __init__(self) -> None:
        super().__init__(clock=lambda: self.now, rand=lambda: 0.5)
        self.now = 1000.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_router_waits_by_the_clock_it_was_given() -> None:
    """Who waits for another caller's connection waits in the Runtime, by its clock alone."""
    runtime = Simulated()
    router = Router(CONFIG, runtime=runtime)
    assert router.clock is runtime.clock
    (replica,) = (node for node in router.servers if node != router.primary)
    with (
        router.health.connecting(replica),
        pytest.raises(NoReplicaAvailable, match="keeps another"),
        router.health.connecting(replica),
    ):
        raise AssertionError("the second caller connected as well")
    assert 0.25 < runtime.now - 1000 <= 0.25 + 2 * ATTEMPT_STEP


def test_a_statement_asks_the_machines_clock_without_a_detour() -> None:
    """By default a Router's clock is the standard library's function itself."""
    assert Router(CONFIG).clock is time.monotonic
    assert Router(CONFIG, clock=time.perf_counter).runtime.clock is time.perf_counter


def test_what_is_patched_later_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gevent may patch the standard library after the router was imported."""
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    SYSTEM.sleep(7.0)
    assert slept == [7.0]
    makers: dict[str, Callable[[], object]] = {
        "Event": SYSTEM.event,
        "Condition": SYSTEM.condition,
    }
    for name, make in makers.items():
        monkeypatch.setattr(f"threading.{name}", lambda: "patched")
        assert make() == "patched"


def test_a_spawned_thread_keeps_no_process_from_ending() -> None:
    """It runs what it is told, knows itself, and is a daemon."""
    found: list[object] = []
    over = SYSTEM.event()

    def work() -> None:
        found.extend((SYSTEM.current(), threading.current_thread().daemon))
        over.set()

    thread = SYSTEM.spawn(work, "a name")
    assert over.wait(10)
    thread.join(10)
    assert found == [thread, True]
    assert not thread.is_alive()


def test_a_task_is_waited_for_without_taking_part_in_its_fate() -> None:
    """It goes on when the time is over, and its error is its own."""

    async def fail() -> None:
        await SYSTEM.tasks.sleep(0.02)
        raise LookupError

    async def main() -> None:
        task = SYSTEM.tasks.spawn(fail())
        assert not await SYSTEM.tasks.ends(task, within=0.0)
        assert await SYSTEM.tasks.ends(task)
        assert isinstance(task.exception(), LookupError)

    with asyncio.Runner(loop_factory=SYSTEM.tasks.loop) as runner:
        runner.run(main())


def test_an_application_that_seeds_keeps_its_sequence() -> None:
    """Drawing here takes nothing from Python's own generator."""
    random.seed(7)
    wanted = [random.random() for _ in range(3)]
    random.seed(7)
    found = []
    for _ in range(3):
        SYSTEM.rand()
        found.append(random.random())
    assert found == wanted


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_forked_children_draw_each_their_own() -> None:
    """Two children of one process do not draw alike."""
    fork = multiprocessing.get_context("fork")
    queue = fork.SimpleQueue()
    children = [fork.Process(target=lambda: queue.put(SYSTEM.rand())) for _ in range(2)]
    for child in children:
        child.start()
    drawn = {queue.get() for _ in children}
    for child in children:
        child.join(10)
    assert len(drawn) == 2
