"""Wait, wake and spawn for coroutines: the part of a `router.runtime.Runtime` that is asyncio's.

What asyncio offers beyond this (timeout, gather, to_thread) asks the running loop for time, turns
and threads. So whoever makes the loop rules it, and for our own threads that is `Tasks.loop`.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Tasks:
    """Wait, wake and spawn for coroutines, on the event loop that runs."""

    __slots__ = ()

    async def sleep(self, seconds: float) -> None:
        """Let other tasks run for `seconds`."""
        await asyncio.sleep(seconds)

    def event(self) -> asyncio.Event:
        """An event that a task waits for, and another task of the same loop sets."""
        return asyncio.Event()

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start `work` beside the caller, who keeps the task: the loop keeps it only weakly."""
        return asyncio.create_task(work)

    async def ends(self, task: "asyncio.Task[Any]", within: float | None = None) -> bool:
        """Wait `within` seconds at most, None for ever, until `task` has ended; whether it has. It
        is cancelled neither when the time is over nor when the caller is."""
        await asyncio.wait({task}, timeout=within)
        return task.done()

    def loop(self) -> asyncio.AbstractEventLoop:
        """An event loop for a thread without one, not yet running: a selector loop, as psycopg
        needs it; on Windows the default is another one."""
        return asyncio.SelectorEventLoop()


TASKS = Tasks()
