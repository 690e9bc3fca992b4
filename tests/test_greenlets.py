"""The bridge between code that blocks and an event loop."""

import asyncio
import contextvars
import gc
import subprocess
import sys
import traceback
import weakref
from typing import Any

import pytest

from router.greenlets import await_only, greenlet_spawn, in_greenlet

SEEN: contextvars.ContextVar[str] = contextvars.ContextVar("SEEN", default="nothing")


async def echo(value: Any) -> Any:
    await asyncio.sleep(0)
    return value


async def fails(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


def test_blocking_code_waits_for_what_the_loop_awaits() -> None:
    """Results come back in the order of the waits, and arguments reach the code."""

    def code(first: int, *, second: int) -> list[int]:
        return [await_only(echo(first)), await_only(echo(second)), first + second]

    assert asyncio.run(greenlet_spawn(code, 1, second=2)) == [1, 2, 3]


def test_context_variables_are_the_callers() -> None:
    """Code in the greenlet sees what the caller set, and the caller what the code set."""

    def code() -> str:
        before = SEEN.get()
        await_only(echo(None))
        SEEN.set("set inside")
        return before

    async def main() -> tuple[str, str]:
        SEEN.set("set outside")
        return await greenlet_spawn(code), SEEN.get()

    assert asyncio.run(main()) == ("set outside", "set inside")
    assert SEEN.get() == "nothing"


def test_an_awaited_error_is_raised_where_the_code_waits() -> None:
    """The code can handle it, and one that goes through keeps the frames of both sides."""

    def handles() -> str:
        try:
            await_only(fails(ValueError("broken")))
        except ValueError as error:
            return f"{error}, {await_only(echo('then well'))}"
        return "nothing was raised"

    assert asyncio.run(greenlet_spawn(handles)) == "broken, then well"

    def lets_it_go() -> None:
        await_only(fails(ValueError("broken")))

    with pytest.raises(ValueError, match="broken") as raised:
        asyncio.run(greenlet_spawn(lets_it_go))
    frames = [frame.name for frame in traceback.extract_tb(raised.value.__traceback__)]
    assert {"fails", "lets_it_go", "await_only", "greenlet_spawn"} <= set(frames)


def test_cancelling_the_task_is_raised_in_the_code_which_may_wait_on() -> None:
    """A cancelled statement gives its connection back first, and that has to be waited for."""
    told = []

    def code() -> None:
        try:
            await_only(asyncio.sleep(60))
        except asyncio.CancelledError:
            told.append(await_only(echo("given back")))
            raise

    async def main() -> None:
        task = asyncio.create_task(greenlet_spawn(code))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert told == ["given back"]


def test_what_is_awaited_may_spawn_again() -> None:
    """A pool's hook that the code waits for runs blocking code of its own."""

    def inner(value: str) -> str:
        return "inner " + str(await_only(echo(value)))

    def outer() -> list[str]:
        return [await_only(greenlet_spawn(inner, "one")), await_only(echo("two"))]

    assert asyncio.run(greenlet_spawn(outer)) == ["inner one", "two"]


def test_many_wait_side_by_side() -> None:
    """Each greenlet goes on with its own result, whatever the order in which they come."""

    def code(number: int) -> int:
        await_only(asyncio.sleep(0.001 * (number % 7)))
        return number

    async def main() -> list[int]:
        return await asyncio.gather(*(greenlet_spawn(code, number) for number in range(100)))

    assert asyncio.run(main()) == list(range(100))


def test_waiting_elsewhere_is_refused() -> None:
    """Outside `greenlet_spawn` nobody would await: an error says so, and nothing is left over."""

    async def main() -> None:
        assert not in_greenlet()
        assert await greenlet_spawn(in_greenlet)
        with pytest.raises(RuntimeError, match="outside greenlet_spawn"):
            await_only(echo(1))  # never awaited: a warning, and so an error of this test

    asyncio.run(main())
    with pytest.raises(RuntimeError, match="outside greenlet_spawn"):
        await_only(echo(1))


class Thing:
    pass


@pytest.mark.parametrize("ending", ["returns", "raises", "cancelled", "dropped"])
def test_nothing_is_kept(ending: str) -> None:
    """What the code held is free when it has ended, without the garbage collector."""
    kept: list[weakref.ref[Thing]] = []

    def code() -> None:
        thing = Thing()
        kept.append(weakref.ref(thing))
        await_only(asyncio.sleep(60 if ending in ("cancelled", "dropped") else 0))
        if ending == "raises":
            raise LookupError
        await_only(echo(thing))

    async def main() -> None:
        if ending == "dropped":
            coroutine = greenlet_spawn(code)
            coroutine.send(None)
            coroutine.close()
            return
        task = asyncio.ensure_future(greenlet_spawn(code))
        await asyncio.sleep(0)
        if ending == "cancelled":
            task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()

    gc.collect()
    gc.disable()
    try:
        asyncio.run(main())
        assert [ref() for ref in kept] == [None]
    finally:
        gc.enable()


WITHOUT = """
import sys
sys.modules["greenlet"] = None
import router.psycopg
router.psycopg.ConnectionPool("postgresql://localhost/none", open=False)
try:
    {make}
except router.errors.ConfigError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("who", "make"),
    [
        (
            "AsyncConnectionPool",
            "router.psycopg.AsyncConnectionPool('postgresql://localhost/none')",
        ),
        (
            "router.asyncpg",
            "import router.asyncpg; router.asyncpg.create_pool('postgresql://localhost/none')",
        ),
    ],
)
def test_without_greenlet_the_asynchronous_pools_say_so(who: str, make: str) -> None:
    """The pools of threads work without it, and those of tasks name the extra in one line."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(make=make)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    wanted = f"{who}: the package greenlet is missing: install it, or pg-router[asyncio]\n"
    assert done.stdout == wanted
