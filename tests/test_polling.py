"""The monitor's event loop: tasks, events, timers, descriptors, and calls from other threads."""

import asyncio
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from router.polling import READ, WRITE, Cancelled, Loop, Select
from router.runtime import SYSTEM

PAST = 0.05


@pytest.fixture(params=["poll", "select"])
def loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    """A loop of this machine, whose lock the test's thread holds."""
    if request.param == "select":
        monkeypatch.setattr("router.polling.real_poll", Select)
    working = SYSTEM.lock(real=True)
    with working:
        yield SYSTEM.loop(working)


@contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two sockets that are connected."""
    near, far = socket.socketpair()
    with near, far:
        yield near, far


def test_tasks_take_turns(loop: Loop) -> None:
    """Each runs until it waits, in the order in which they were started; results are kept."""
    order: list[str] = []

    async def one(name: str) -> str:
        order.append(name)
        await loop.sleep(0)
        order.append(name)
        return name.upper()

    async def main() -> list[str]:
        tasks = [loop.spawn(one(name)) for name in "ab"]
        for task in tasks:
            assert await loop.ends(task)
        return [task.result() for task in tasks]

    assert loop.run(main()) == ["A", "B"]
    assert order == ["a", "b", "a", "b"]


def test_timers_go_off_in_their_order_and_not_before(loop: Loop) -> None:
    """Whoever sleeps less wakes first, and nobody earlier than he asked for."""
    order: list[float] = []

    async def sleeper(seconds: float) -> None:
        await loop.sleep(seconds)
        order.append(seconds)

    async def main() -> float:
        began = loop.time()
        for task in [loop.spawn(sleeper(seconds)) for seconds in (0.03, 0.01, 0.02)]:
            await loop.ends(task)
        return loop.time() - began

    assert loop.run(main()) >= 0.03
    assert order == [0.01, 0.02, 0.03]


def test_an_error_is_its_tasks_own(loop: Loop) -> None:
    """It is raised by whoever wants the result, and nowhere else."""

    async def fail() -> None:
        await loop.sleep(0)
        raise LookupError("mine")

    async def main() -> str:
        task = loop.spawn(fail())
        assert not await loop.ends(task, within=0)
        assert await loop.ends(task)
        with pytest.raises(LookupError, match="mine"):
            task.result()
        return "went on"

    assert loop.run(main()) == "went on"


def test_a_task_that_is_cancelled_clears_up_at_once(loop: Loop) -> None:
    """What it waits for is forgotten; it may even wait in its clearing up. One that never began
    never runs, and one that has ended stays as it is."""
    seen: list[str] = []

    async def worker(line: int, *, lingers: bool) -> None:
        try:
            await loop.ready(line, READ)
        finally:
            seen.append("cleared up")
            if lingers:
                await loop.sleep(0.01)
                seen.append("after a while")

    async def nothing() -> None:
        seen.append("began")

    async def main(*lines: int) -> None:
        quick, slow = (loop.spawn(worker(lines[n], lingers=bool(n))) for n in (0, 1))
        await loop.sleep(0)
        never = loop.spawn(nothing())
        for task in (quick, slow, never, never):
            task.cancel()
        assert [task.done for task in (quick, slow, never)] == [True, False, True]
        assert seen == ["cleared up", "cleared up"]
        assert await loop.ends(slow)
        assert quick.cancelled
        assert slow.cancelled
        with pytest.raises(Cancelled):
            quick.result()

    with pair() as (near, far):
        loop.run(main(near.fileno(), far.fileno()))
    assert seen == ["cleared up", "cleared up", "after a while"]


def test_who_cancels_the_one_that_waits_for_a_task_leaves_that_alone(loop: Loop) -> None:
    """A task goes on when whoever waits for its end is cancelled."""

    async def main() -> str:
        work = loop.spawn(loop.sleep(0.02))
        waits = loop.spawn(loop.ends(work))
        await loop.sleep(0)
        waits.cancel()
        assert not work.done
        return "over" if await loop.ends(work) and not work.cancelled else "cancelled"

    assert loop.run(main()) == "over"


def test_an_event_wakes_all_who_wait_and_who_come(loop: Loop) -> None:
    """Until it is cleared; whoever waits for a time learns whether it was set."""

    async def main() -> list[bool]:
        event = loop.event()
        early = loop.spawn(event.wait())
        late = loop.spawn(event.wait(within=PAST))
        assert not await event.wait(within=0.001)
        event.set()
        await loop.ends(early)
        await loop.ends(late)
        found = [early.result(), late.result(), await event.wait()]
        event.clear()
        return [*found, await event.wait(within=0.001)]

    assert loop.run(main()) == [True, True, True, False]


def test_a_descriptor_is_waited_for_in_either_direction(loop: Loop) -> None:
    """Until it is ready, or its time is over; a connection that ends is ready."""

    async def main(near: socket.socket, far: socket.socket) -> None:
        line = near.fileno()
        assert await loop.ready(line, WRITE)
        assert not await loop.ready(line, READ, loop.time() + 0.005)
        reading = loop.spawn(loop.ready(line, READ, loop.time() + 20))
        await loop.sleep(0)
        far.send(b"x")
        assert await loop.ends(reading, within=10)
        assert reading.result()
        near.recv(1)
        reading = loop.spawn(loop.ready(line, READ))
        await loop.sleep(0)
        near.shutdown(socket.SHUT_RDWR)
        assert await loop.ends(reading, within=10)

    with pair() as (near, far):
        loop.run(main(near, far))


def test_a_call_from_another_thread_wakes_the_loop(loop: Loop) -> None:
    """However many there are at once; before it runs they are kept, afterwards nothing happens."""
    count = 0

    def more() -> None:
        nonlocal count
        count += 1

    async def main() -> int:
        over = loop.event()

        def call() -> None:
            for _ in range(20_000):
                loop.call_soon_threadsafe(more)
            loop.call_soon_threadsafe(over.set)

        thread = threading.Thread(target=call)
        thread.start()
        assert await over.wait(within=60)
        thread.join()
        return count

    loop.call_soon_threadsafe(more)
    assert loop.run(main()) == 20_001
    loop.call_soon_threadsafe(more)
    assert count == 20_001


def test_what_blocks_is_done_beside(loop: Loop) -> None:
    """By a thread; the loop goes on meanwhile, and its result or error is the caller's. Given up,
    it ends unheard."""
    gate = threading.Event()

    def work() -> str:
        assert gate.wait(20)
        return threading.current_thread().name

    def fail() -> str:
        raise LookupError("there")

    async def main() -> str:
        given_up = loop.spawn(loop.beside(work, "nobody's"))
        task = loop.spawn(loop.beside(work, "a name"))
        assert not await loop.ends(task, within=0.001)
        given_up.cancel()
        gate.set()
        assert await loop.ends(task, within=20)
        with pytest.raises(LookupError, match="there"):
            await loop.beside(fail, "another")
        return task.result()

    assert loop.run(main()) == "a name"


def test_a_loop_holds_its_lock_except_while_it_waits() -> None:
    """So that a fork, which takes all locks, finds the thread at rest."""
    working = SYSTEM.lock(real=True)

    def is_free(timeout: float) -> bool:
        taken = working.acquire(timeout=timeout)
        if taken:
            working.release()
        return taken

    async def main() -> tuple[bool, bool]:
        waiting = await own.beside(lambda: is_free(10.0), "looks")
        looked: list[bool] = []
        thread = threading.Thread(target=lambda: looked.append(is_free(0.0)))
        thread.start()
        thread.join()  # the loop is at work, so the thread finds the lock held
        return waiting, looked[0]

    with working:
        own = SYSTEM.loop(working)
        assert own.run(main()) == (True, False)


def test_no_loop_of_asyncios_runs_there(loop: Loop) -> None:
    """Code that asks for one, as Django's ORM does, is told that there is none."""

    async def main() -> None:
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()

    loop.run(main())


def test_a_loop_at_rest_computes_nothing(loop: Loop) -> None:
    """It sleeps in one call until its next timer; a time that nobody waits for wakes it not."""
    waits = 0
    wait = loop._wait

    def counted(seconds: float | None) -> None:
        nonlocal waits
        waits += 1
        wait(seconds)

    async def quick() -> None:
        pass

    async def main() -> None:
        assert await loop.ends(loop.spawn(quick()), within=0.01)
        await loop.sleep(PAST)

    loop._wait = counted  # type: ignore[method-assign]
    loop.run(main())
    assert waits <= 2


@pytest.mark.parametrize("waits_for", ["a timer", "an event"])
def test_another_thread_can_end_it(loop: Loop, waits_for: str) -> None:
    """By cancelling the task that it runs for, whatever that waits for."""
    main: list[Any] = []

    async def run() -> None:
        main.append(loop.current)
        if waits_for == "a timer":
            await loop.sleep(3600)
        await loop.event().wait()

    began = time.monotonic()
    timer = threading.Timer(0.02, lambda: loop.call_soon_threadsafe(lambda: main[0].cancel()))
    timer.start()
    with pytest.raises(Cancelled):
        loop.run(run())
    timer.join()
    assert time.monotonic() - began < 10


def test_its_numbers_are_the_systems() -> None:
    """`READ` and `WRITE` are what ``poll`` calls them."""
    assert (READ, WRITE) == (select.POLLIN, select.POLLOUT)
