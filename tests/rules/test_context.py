"""Whose reads these are: contexts in blocks, decorators, tasks and threads."""

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from router.model import Lsn, Node
from router.rules.context import (
    ROOT,
    Block,
    LastRead,
    Pin,
    Pins,
    RoutingContext,
    current_context,
    request_context,
    unpin,
    using_primary,
    using_replica,
    without_pinning,
)

BLOCKS: list[tuple[Callable[[], Block], Callable[[RoutingContext], bool]]] = [
    (request_context, lambda c: not c.root and c.force is None),
    (using_primary, lambda c: c.force == "primary"),
    (using_replica, lambda c: c.force == "replica"),
    (without_pinning, lambda c: not c.pinning),
]
each_block = pytest.mark.parametrize(
    ("block", "holds"), BLOCKS, ids=[make.__name__ for make, _ in BLOCKS]
)


@pytest.fixture(autouse=True)
def clean_root() -> Iterator[None]:
    """No test starts inside a block or with pins of another, and none leaves any behind."""
    assert current_context() is ROOT
    ROOT.pins.clear()
    yield
    assert current_context() is ROOT
    ROOT.pins.clear()


# -- the four ways in --------------------------------------------------------------------------


@each_block
def test_a_with_block(block: Callable[[], Block], holds: Callable[[RoutingContext], bool]) -> None:
    """The context holds inside the block, is the one it gives, and is gone after it."""
    with block() as given:
        assert current_context() is given
        assert holds(given)
    assert current_context() is ROOT


@each_block
def test_an_async_with_block(
    block: Callable[[], Block], holds: Callable[[RoutingContext], bool]
) -> None:
    """``async with`` does what ``with`` does."""

    async def main() -> None:
        async with block() as given:
            await asyncio.sleep(0)
            assert current_context() is given
            assert holds(given)
        assert current_context() is ROOT

    asyncio.run(main())


@each_block
def test_a_decorated_function(
    block: Callable[[], Block], holds: Callable[[RoutingContext], bool]
) -> None:
    """Each call runs in a block of its own, and the function keeps its name and results."""
    decorate = block()
    seen = []

    @decorate
    def view(depth: int, *, more: int = 0) -> int:
        """Its words."""
        seen.append(current_context())
        assert holds(current_context())
        return depth + more + (view(depth - 1) if depth else 0)

    assert view(2, more=10) == 13
    assert current_context() is ROOT
    assert len({id(context) for context in seen}) == 3
    assert (view.__name__, view.__doc__) == ("view", "Its words.")


@each_block
def test_a_decorated_coroutine_function(
    block: Callable[[], Block], holds: Callable[[RoutingContext], bool]
) -> None:
    """A coroutine is inside the block while it runs, however many run at once."""
    seen = []

    @block()
    async def view(me: int) -> int:
        mine = current_context()
        seen.append(mine)
        assert holds(mine)
        await asyncio.sleep(0)
        assert current_context() is mine
        return me

    async def main() -> list[int]:
        coroutine = view(0)
        assert current_context() is ROOT  # calling is not running
        return [await coroutine, *await asyncio.gather(view(1), view(2))]

    assert asyncio.run(main()) == [0, 1, 2]
    assert len({id(context) for context in seen}) == 3


@each_block
def test_an_exception_ends_the_block(
    block: Callable[[], Block], holds: Callable[[RoutingContext], bool]
) -> None:
    """After an exception the context before is back, in a block and in a decorated function."""

    @block()
    def fails() -> None:
        assert holds(current_context())
        raise LookupError("inside")

    with pytest.raises(LookupError), block():
        raise LookupError("inside")
    assert current_context() is ROOT
    with pytest.raises(LookupError):
        fails()
    assert current_context() is ROOT


def test_a_block_entered_twice_is_refused_and_serves_again_once_left() -> None:
    """One block object is in one place at a time; left, it may be entered again."""
    block = using_primary()
    with block:
        with pytest.raises(RuntimeError, match="already entered; call the function again"):
            block.__enter__()
        assert current_context().force == "primary"
    with block:
        assert current_context().force == "primary"


# -- generators --------------------------------------------------------------------------------


@using_primary()
def decorated() -> Iterator[str | None]:
    try:
        heard = yield current_context().force
        yield heard
    except KeyError:
        yield f"caught in {current_context().force}"
    finally:
        seen.append(current_context().force)


seen: list[str | None] = []


def test_a_decorated_generator_has_the_context_only_while_it_runs() -> None:
    """Between its steps its caller's context is in place, also when it is sent to or closed."""
    seen.clear()
    with request_context() as request:
        steps: Any = decorated()
        assert next(steps) == "primary"
        assert current_context() is request
        assert steps.send("hello") == "hello"
        assert steps.throw(KeyError()) == "caught in primary"
        assert current_context() is request
        steps.close()
        assert current_context() is request
        assert list(decorated()) == ["primary", None]
        assert current_context() is request
    assert seen == ["primary", "primary"]


def test_a_decorated_async_generator_has_the_context_only_while_it_runs() -> None:
    """The same for ``async for``, and for one that is closed half-way."""
    ended: list[str | None] = []

    @using_replica()
    async def steps() -> AsyncIterator[str | None]:
        try:
            heard = yield current_context().force
            yield heard
        except KeyError:
            yield "caught"
        finally:
            ended.append(current_context().force)

    async def scenario() -> None:
        with request_context() as request:
            running: Any = steps()
            assert await anext(running) == "replica"
            assert current_context() is request
            assert await running.asend("hello") == "hello"
            assert await running.athrow(KeyError()) == "caught"
            await running.aclose()
            assert [item async for item in steps()] == ["replica", None]
            assert current_context() is request

    asyncio.run(scenario())
    assert ended == ["replica", "replica"]


def suspended() -> Iterator[None]:
    with request_context():
        yield


def test_a_block_left_out_of_turn_puts_no_ended_context_back() -> None:
    """A generator suspended in a block and closed in a later request leaves that request alone,
    and when generators end in the order they began, none of their contexts stays."""
    stray = suspended()
    next(stray)
    with request_context() as request:
        stray.close()  # type: ignore[attr-defined]
        assert current_context() is request
    assert current_context() is ROOT
    first, second = suspended(), suspended()
    next(first)
    next(second)
    first.close()  # type: ignore[attr-defined]
    second.close()  # type: ignore[attr-defined]
    assert current_context() is ROOT


# -- nesting -----------------------------------------------------------------------------------


def test_the_inner_block_decides_and_the_outer_is_back_after_it() -> None:
    """Blocks nest: the innermost force counts, and what an outer one said otherwise stays."""
    with request_context() as request, without_pinning(), using_replica():
        assert (current_context().force, current_context().pinning) == ("replica", False)
        with using_primary():
            assert (current_context().force, current_context().pinning) == ("primary", False)
        assert current_context().force == "replica"
        assert current_context().pins is request.pins


def test_pins_are_shared_with_the_blocks_inside() -> None:
    """A pin set inside ``using_primary()`` holds after that block, in the same request."""
    with request_context() as request:
        with using_primary() as inner:
            inner.pins.set("c", Pin(1.0))
        assert request.pins.get("c") == Pin(1.0)


def test_a_request_inside_a_request_has_pins_of_its_own() -> None:
    """A nested request neither sees nor leaves pins in the one around it."""
    with request_context() as outer:
        outer.pins.set("c", Pin(1.0))
        with request_context() as inner:
            assert inner.pins.get("c") is None
            inner.pins.set("c", Pin(2.0))
        assert outer.pins.get("c") == Pin(1.0)


def test_outside_any_request_one_root_context_is_shared() -> None:
    """Threads without a request share the root's pins: no write of this process is missed."""
    found = []

    def work() -> None:
        with using_primary() as context:
            found.append((context.root, context.pins.get("c")))

    current_context().pins.set("c", Pin(1.0))
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(True, Pin(1.0))]


# -- tasks and threads -------------------------------------------------------------------------


def test_a_pin_set_in_a_child_task_or_thread_is_seen_by_the_parent() -> None:
    """Tasks, ``gather`` and ``to_thread`` share the pins of the request they are started in."""

    def write(name: str) -> None:
        current_context().pins.set(name, Pin(1.0))

    async def awrite(name: str) -> None:
        await asyncio.sleep(0)
        write(name)

    async def main() -> set[str]:
        async with request_context() as request:
            await asyncio.gather(awrite("gather1"), awrite("gather2"))
            await asyncio.to_thread(write, "thread")
            await asyncio.create_task(awrite("task"))
            return set(request.pins.by_cluster)

    assert asyncio.run(main()) == {"gather1", "gather2", "thread", "task"}
    assert ROOT.pins.by_cluster == {}


def test_a_thread_started_by_hand_shares_the_request_by_copying_the_context() -> None:
    """`copy_context().run` carries the request into a thread; a bare one gets the root."""
    found: dict[str, RoutingContext] = {}
    with request_context() as request:
        carried = contextvars.copy_context()
        threads = [
            threading.Thread(
                target=carried.run, args=(lambda: found.update(copied=current_context()),)
            ),
            threading.Thread(target=lambda: found.update(bare=current_context())),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found["copied"] is request
    assert found["bare"] is ROOT


def test_a_force_does_not_leak_to_siblings_or_to_the_parent() -> None:
    """A block in one task is seen neither by another task of the request nor by its parent."""

    async def forced(inside: asyncio.Event, leave: asyncio.Event) -> str | None:
        with using_primary():
            inside.set()
            await leave.wait()
            return current_context().force

    async def sibling(inside: asyncio.Event, leave: asyncio.Event) -> str | None:
        await inside.wait()
        force = current_context().force
        leave.set()
        return force

    async def main() -> None:
        inside, leave = asyncio.Event(), asyncio.Event()
        with request_context() as request:
            results = await asyncio.gather(forced(inside, leave), sibling(inside, leave))
            assert list(results) == ["primary", None]
            assert current_context() is request
            assert request.force is None

    asyncio.run(main())


def test_requests_at_once_do_not_pin_each_other() -> None:
    """Many requests that write interleaved end each with its own pin only."""

    @request_context()
    async def request(me: int) -> set[str]:
        for _ in range(5):
            await asyncio.sleep(0)
            current_context().pins.set(f"c{me}", Pin(float(me)))
        return set(current_context().pins.by_cluster)

    async def main() -> list[set[str]]:
        return await asyncio.gather(*(request(me) for me in range(20)))

    assert asyncio.run(main()) == [{f"c{me}"} for me in range(20)]


# -- pins --------------------------------------------------------------------------------------


def test_the_newest_write_is_pinned() -> None:
    """Of two writes the later one's pin stays, in whatever order they are told."""
    pins = Pins()
    pins.set("c", Pin(2.0))
    pins.set("c", Pin(1.0))
    assert pins.get("c") == Pin(2.0)
    pins.set("c", Pin(3.0))
    assert pins.get("c") == Pin(3.0)
    assert pins.get("other") is None


def test_a_position_is_given_only_to_the_pin_it_was_asked_for() -> None:
    """A write that comes in while a position is looked up is not covered by it."""
    pins, old = Pins(), Pin(1.0)
    pins.set("c", old)
    newer = Pin(2.0)
    pins.set("c", newer)
    assert pins.resolve("c", old, Lsn(5), 1) == Pin(1.0, Lsn(5), 1)
    assert pins.get("c") is newer
    assert pins.resolve("c", newer, Lsn(9), 1) == pins.get("c") == Pin(2.0, Lsn(9), 1)


def test_clearing_a_pin_spares_a_newer_one() -> None:
    """A pin found satisfied is dropped only while it is still the pin."""
    pins, old = Pins(), Pin(1.0)
    pins.set("c", old)
    pins.set("c", Pin(2.0))
    pins.clear("c", old)
    assert pins.get("c") == Pin(2.0)
    pins.set("d", Pin(3.0))
    pins.clear("c")
    assert (pins.get("c"), pins.get("d")) == (None, Pin(3.0))
    pins.clear()
    assert pins.by_cluster == {}


def test_racing_writes_keep_the_newest() -> None:
    """Threads that pin at once leave the latest of all their pins."""
    pins, start = Pins(), threading.Barrier(8)

    def work(me: int) -> None:
        start.wait()
        for i in range(500):
            pins.set("c", Pin(float(i * 8 + me)))

    threads = [threading.Thread(target=work, args=(me,)) for me in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert pins.get("c") == Pin(499 * 8 + 7.0)


def test_unpin_forgets_the_pins_of_the_current_context_only() -> None:
    """`unpin()` frees this request and no other."""
    ROOT.pins.set("c", Pin(1.0))
    with request_context() as request:
        request.pins.set("c", Pin(2.0))
        unpin()
        assert request.pins.get("c") is None
    assert ROOT.pins.get("c") == Pin(1.0)


def test_its_repr_says_what_a_context_holds() -> None:
    """Printed, a context shows whether it is the root, its force and its pins, nothing else."""
    with request_context() as request, using_primary() as inner:
        request.pins.set("c", Pin(1.0))
        request.pins.reads["c"] = LastRead(Node("a", "h"), 1.0)
        assert repr(inner) == (
            "<RoutingContext force=primary Pins({'c': Pin(at=1.0, lsn=None, timeline=0)})>"
        )
    assert repr(ROOT) == "<root RoutingContext Pins({})>"
