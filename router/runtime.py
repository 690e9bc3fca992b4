"""Clock, wait, wake, lock, spawn and chance: what is concurrent has it from a `Runtime`.

`SYSTEM` is the real one. Under gevent its threads are gevent's, because each function is looked up
when it is called; only the monitor's is a real one. A simulation passes its own to `Router`, whose
clock is then the only one, and whose seed decides who goes on next: everything the router does can
be replayed.

This is for code that blocks, in a thread or a greenlet. `Runtime.tasks` has it for coroutines of
the user's event loop, and `Runtime.loop` makes the one that the monitor's coroutines run on.
"""

import random
import threading
import time
from collections.abc import Callable
from threading import RLock
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from router import registry, unpatched
from router.polling import Loop, PollLoop

if TYPE_CHECKING:
    from router.tasks import Tasks

_own = random.Random()  # an application that seeds Python's keeps its sequence
# Forked workers must not all draw the same replica in step.
registry.first_in_child(_own.seed)


class Event(Protocol):
    """Wakes whoever waits for it; as `threading.Event`."""

    def is_set(self) -> bool:
        """Whether it was set."""
        ...

    def set(self) -> None:
        """Wake all who wait, now and later. Any thread may call it."""

    def clear(self) -> None:
        """Let those who come wait again."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, for `timeout` seconds at most; whether it is."""
        ...


class Condition(Protocol):
    """A lock, in a ``with`` block, whose holder may wait for the next notice."""

    def __enter__(self) -> bool:
        """Take the lock."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        """Give it back."""

    def wait(self, timeout: float | None = None) -> bool:
        """Let go of the lock until notified, `timeout` seconds at most; whether it was."""
        ...

    def notify_all(self) -> None:
        """Wake all who wait now."""


class Thread(Protocol):
    """A thread that `Runtime.spawn` started; as `threading.Thread`."""

    def is_alive(self) -> bool:
        """Whether it still runs."""
        ...

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended, for `timeout` seconds at most."""


class Runtime:
    """The real one: threads, asyncio, and this machine's clocks.

    Attributes:
        clock: monotonic seconds.
        rand: floats in [0, 1).
    """

    __slots__ = ("clock", "rand")

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        rand: Callable[[], float] = _own.random,
    ) -> None:
        self.clock: Callable[[], float] = clock
        self.rand: Callable[[], float] = rand

    @property
    def tasks(self) -> "Tasks":
        """The same for coroutines. It loads asyncio, which blocking code does not need."""
        from router.tasks import TASKS

        return TASKS

    def sleep(self, seconds: float) -> None:
        """Block the calling thread for `seconds`."""
        time.sleep(seconds)

    def lock(self, *, real: bool = False) -> "RLock":
        """A reentrant lock that a forked child has new; see `router.registry.lock`."""
        return registry.lock(real=real)

    def event(self) -> Event:
        """An event for threads. No fork renews it: it belongs to what a child forgets."""
        return threading.Event()

    def condition(self) -> Condition:
        """A lock to wait on. No fork renews it: it belongs to what a child forgets."""
        return threading.Condition()

    def spawn(self, call: Callable[[], object], name: str) -> Thread:
        """Start a daemon thread that runs `call`; debuggers show its `name`."""
        thread = threading.Thread(target=call, name=name, daemon=True)
        thread.start()
        return thread

    def spawn_real(self, call: Callable[[], object], name: str) -> Thread:
        """As `spawn`, but a thread even where gevent makes greenlets of threads. There `call` must
        touch nothing that greenlets do, except by `router.polling.Loop.outside`."""
        if unpatched.threads_are_greenlets():
            return unpatched.RealThread(call)
        return self.spawn(call, name)

    def loop(self, working: "RLock") -> Loop:
        """An event loop, not yet running, for a thread that `spawn_real` starts. `working`, a real
        lock, is held by that thread, and let go while it waits: a fork finds it at rest."""
        hub = unpatched.Hub() if unpatched.threads_are_greenlets() else None
        return PollLoop(working, self.spawn, hub)

    def current(self) -> object:
        """The thread that asks: in a thread that was started here, what that returned."""
        return unpatched.RealThread.current() or threading.current_thread()


SYSTEM = Runtime()
"""For whoever has no Router to ask, and unless a Router is given another one."""
