"""Blocking code on an event loop: run in a greenlet, while the loop awaits what it waits for.

`greenlet_spawn` starts such code from a coroutine, and `await_only` is how it waits. Both do what
SQLAlchemy's functions of these names do, so that its native pools need not load SQLAlchemy.
"""

from collections.abc import Awaitable, Callable
from inspect import iscoroutine
from typing import TYPE_CHECKING, Any, TypeVar

from router.errors import ConfigError

if TYPE_CHECKING:
    from greenlet import getcurrent, greenlet
else:
    try:
        from greenlet import getcurrent, greenlet
    except ImportError:  # it comes with an extra; `require` says with which
        getcurrent, greenlet = None, object

T = TypeVar("T")


class _Spawned(greenlet):
    """A greenlet of `greenlet_spawn`: its parent awaits what it switches there with."""


def require(who: str) -> None:
    """Raise ConfigError, which names the extra to install, where `who` lacks the package
    greenlet."""
    if getcurrent is None:
        raise ConfigError(
            f"{who}: the package greenlet is missing: install it, or pg-router[asyncio]"
        )


def in_greenlet() -> bool:
    """Whether the code that asks may call `await_only`."""
    return getcurrent is not None and type(getcurrent()) is _Spawned


def await_only(awaitable: Awaitable[T]) -> T:
    """The result of `awaitable`, awaited by the event loop while the calling code stands still.
    Outside `greenlet_spawn` it raises RuntimeError, and closes a coroutine."""
    current = getcurrent()
    if type(current) is not _Spawned:
        if iscoroutine(awaitable):
            awaitable.close()  # else Python warns that it was never awaited
        raise RuntimeError("await_only: called outside greenlet_spawn, where nobody awaits")
    # One of these always has a parent.
    found: T = current.parent.switch(awaitable)  # pyright: ignore[reportOptionalMemberAccess]
    return found


async def greenlet_spawn(call: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """What ``call(*args, **kwargs)`` returns, run in a greenlet where it may use `await_only`.

    It sees and sets the caller's context variables. What an awaited call raises, and the task's
    cancellation, is raised in `call` where it waits.
    """
    driver = getcurrent()
    spawned = _Spawned(call, driver)
    spawned.gr_context = driver.gr_context
    switched: Any = spawned.switch(*args, **kwargs)
    while not spawned.dead:
        try:
            found = await switched
        except BaseException as error:  # noqa: BLE001 - the called code's to handle
            # With its traceback, which greenlet would drop otherwise.
            switched = spawned.throw(type(error), error, error.__traceback__)
        else:
            switched = spawned.switch(found)
    result: T = switched
    return result
