"""One scheduler for everything that is concurrent in a simulation: its turns and its clock.

Threads are greenlets here. One runs until it waits; who goes on next is drawn by the seed. When
nobody can, the clock moves to the next moment that somebody waits for. So a run takes as long as
its computing, and the same seed gives the same run.
"""

import asyncio
import heapq
import math
import random
from collections import deque
from collections.abc import Callable
from contextvars import Context
from itertools import count
from types import TracebackType
from typing import Any

import greenlet

from router.polling import Loop
from router.runtime import Runtime
from router.tasks import Tasks

START = 10.0
"""Seconds the clock shows at first."""


class Waiter:
    """A thread that waits; whoever calls `wake` first ends that."""

    __slots__ = ("_scheduler", "_thread", "woken")

    def __init__(self, scheduler: "Scheduler") -> None:
        self._scheduler = scheduler
        self._thread: Any = greenlet.getcurrent()
        self.woken = False

    def wake(self) -> bool:
        """Let it go on; whether it still waited."""
        thread = self._thread
        if thread is None:
            return False
        self._thread = None
        self.woken = True
        self._scheduler.ready.append(thread)
        return True

    def expire(self) -> None:
        """Let it go on because its time is over."""
        thread = self._thread
        if thread is not None:
            self._thread = None
            self._scheduler.ready.append(thread)


def wake_one(waiters: "deque[Waiter]") -> None:
    """Let the first of `waiters` go on that still waits."""
    while waiters and not waiters.popleft().wake():
        pass


def current() -> Any:
    """The `SimThread` that runs, None outside of any."""
    return getattr(greenlet.getcurrent(), "thread", None)


class Stuck(Exception):
    """Nobody can go on any more."""


class Scheduler:
    """Runs threads one after another, in an order drawn from `rand`.

    Attributes:
        now: the only clock (seconds).
        ready: threads that can go on.
        threads: names of threads that have not ended.
        crashes: what threads raised that nobody caught.
        switches: how often a thread went on.
    """

    def __init__(self, rand: random.Random) -> None:
        self.rand = rand
        self.now: float = START
        self.ready: list[Any] = []
        self.threads: dict[Any, str] = {}
        self.crashes: list[tuple[str, BaseException]] = []
        self.switches = 0
        self._timers: list[tuple[float, int, Callable[[], object]]] = []
        self._order = count()
        self._hub: Any = None
        self._drawn = rand.random
        self._deadline = math.inf
        self._stuck = ""

    def clock(self) -> float:
        """The time (seconds)."""
        return self.now

    def at(self, when: float, call: Callable[[], object]) -> None:
        """Do `call`, which must not wait, at `when` (seconds)."""
        heapq.heappush(self._timers, (when, next(self._order), call))

    def spawn(self, call: Callable[[], object], name: str) -> "SimThread":
        """Start a thread that runs `call`."""
        return SimThread(self, call, name)

    def run(self, thread: "SimThread", limit: float) -> None:
        """Let threads run until `thread` has ended; for `limit` seconds of the clock at most.

        Raises:
            Stuck: the time is over, or nobody is left who could go on.
        """
        self._hub = greenlet.getcurrent()
        self._deadline = self.now + limit
        while thread.is_alive():
            following = self._next()
            if following is None:
                raise Stuck(self._stuck)
            following.switch()

    def _next(self) -> Any:
        """The thread whose turn is now, the clock moved on where nobody could; None: stuck."""
        ready, timers = self.ready, self._timers
        while not ready:
            if not timers:
                self._stuck = "nobody is left who could go on"
                return None
            when, _, call = timers[0]
            if when > self._deadline:
                names = ", ".join(self.threads.values())
                self._stuck = f"not over at {self._deadline:g} s: {names}"
                return None
            heapq.heappop(timers)
            if when > self.now:
                self.now = when
            call()
        n = len(ready)
        if n > 1 and (i := int(self._drawn() * n)) < n - 1:
            ready[i], ready[-1] = ready[-1], ready[i]
        self.switches += 1
        return ready.pop()

    # -- what threads do -----------------------------------------------------------------------

    def switch(self) -> None:
        """Let others run until somebody has made the calling thread ready."""
        me = greenlet.getcurrent()
        if me is self._hub:
            raise RuntimeError("the scheduler itself must not wait")
        loop = asyncio._get_running_loop()
        if loop is not None:
            # One real thread runs all simulated ones: each has its own running event loop.
            asyncio._set_running_loop(None)
        following = self._next()
        if following is not me:
            # Straight to the other thread: by way of the hub it would be two switches.
            (self._hub if following is None else following).switch()
        if loop is not None:
            asyncio._set_running_loop(loop)

    def sleep(self, seconds: float) -> None:
        """Wait for `seconds`."""
        waiter = Waiter(self)
        self.at(self.now + max(0.0, seconds), waiter.expire)
        self.switch()

    def pause(self) -> None:
        """Let any other thread that can go on do so first."""
        if self.ready:
            self.ready.append(greenlet.getcurrent())
            self.switch()

    def preempt(self) -> None:
        """Another thread that is ready may get its turn here, as threads do at any moment."""
        if self._drawn() < 0.2:
            self.pause()

    def wait(self, waiters: "deque[Waiter] | list[Waiter]", timeout: float | None) -> bool:
        """Wait among `waiters` to be woken, `timeout` seconds at most; whether it was."""
        waiter = Waiter(self)
        waiters.append(waiter)
        if timeout is not None:
            self.at(self.now + max(0.0, timeout), waiter.expire)
        self.switch()
        if not waiter.woken and waiter in waiters:
            waiters.remove(waiter)
        return waiter.woken


class SimThread:
    """A thread; as `threading.Thread`, begun."""

    def __init__(self, scheduler: Scheduler, call: Callable[[], object], name: str) -> None:
        self.name = name
        self.scheduler = scheduler
        self._call = call
        self._ended = SimEvent(scheduler)
        self._greenlet: Any = greenlet.greenlet(self._run)
        self._greenlet.gr_context = Context()
        self._greenlet.thread = self
        scheduler.threads[self._greenlet] = name
        scheduler.ready.append(self._greenlet)

    def _run(self) -> None:
        scheduler, me = self.scheduler, self._greenlet
        try:
            self._call()
        except greenlet.GreenletExit:
            raise
        except BaseException as error:
            scheduler.crashes.append((self.name, error))
        finally:
            scheduler.threads.pop(me, None)
            self._ended.set()
            me.parent = scheduler._hub

    def is_alive(self) -> bool:
        """Whether it still runs."""
        return not self._ended.is_set()

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended, `timeout` seconds at most."""
        self._ended.wait(timeout)


class SimEvent:
    """As `threading.Event`."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._set = False
        self._waiters: list[Waiter] = []

    def is_set(self) -> bool:
        """Whether it was set."""
        return self._set

    def set(self) -> None:
        """Wake all who wait, now and later."""
        self._set = True
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.wake()

    def clear(self) -> None:
        """Let those who come wait again."""
        self._set = False

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, `timeout` seconds at most; whether it is."""
        if not self._set and (timeout is None or timeout > 0):
            self._scheduler.wait(self._waiters, timeout)
        return self._set


class SimLock:
    """A reentrant lock; as `threading.RLock`."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._owner: Any = None
        self._depth = 0
        self._waiters: deque[Waiter] = deque()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it; whether it was got."""
        me = greenlet.getcurrent()
        if self._owner is me:
            self._depth += 1
            return True
        scheduler = self._scheduler
        if scheduler.ready:
            scheduler.preempt()
        while self._owner is not None:
            if not blocking:
                return False
            if not scheduler.wait(self._waiters, None if timeout < 0 else timeout):
                return False
        self._owner, self._depth = me, 1
        return True

    def release(self) -> None:
        """Give it back."""
        if self._owner is not greenlet.getcurrent():
            raise RuntimeError("cannot release a lock that another thread holds")
        self._depth -= 1
        if not self._depth:
            self._owner = None
            if self._waiters:
                wake_one(self._waiters)

    def _is_owned(self) -> bool:
        return self._owner is greenlet.getcurrent()

    __enter__ = acquire

    def __exit__(self, *_: object) -> None:
        self.release()


class SimCondition:
    """As `threading.Condition`."""

    def __init__(self, scheduler: Scheduler, lock: SimLock | None = None) -> None:
        self._scheduler = scheduler
        self._lock = lock or SimLock(scheduler)
        self._waiters: deque[Waiter] = deque()
        self.acquire = self._lock.acquire
        self.release = self._lock.release

    def __enter__(self) -> bool:
        return self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Let go of the lock until notified, `timeout` seconds at most; whether it was."""
        self._lock.release()
        try:
            return self._scheduler.wait(self._waiters, timeout)
        finally:
            self._lock.acquire()

    def notify(self, n: int = 1) -> None:
        """Wake `n` of those who wait."""
        while n and self._waiters:
            n -= self._waiters.popleft().wake()

    def notify_all(self) -> None:
        """Wake all who wait."""
        self.notify(len(self._waiters))


class SimQueue:
    """As `queue.Queue`, without a bound."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._items: deque[Any] = deque()
        self._waiters: deque[Waiter] = deque()

    def put_nowait(self, item: Any) -> None:
        """Add an item."""
        self._items.append(item)
        wake_one(self._waiters)

    def get(self) -> Any:
        """Wait for an item."""
        while not self._items:
            self._scheduler.wait(self._waiters, None)
        return self._items.popleft()


class _Wait:
    """What the one thread of an event loop waits in."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._waiters: list[Waiter] = []
        self._woken = False

    def wait(self, timeout: float | None) -> None:
        if self._woken or (timeout is not None and timeout <= 0):
            self._scheduler.pause()
        else:
            self._scheduler.wait(self._waiters, timeout)
        self._woken = False

    def wake(self) -> None:
        self._woken = True
        while self._waiters:
            self._waiters.pop().wake()


class SimPollLoop(Loop):
    """The monitor's event loop in a simulated thread."""

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__()
        self._scheduler = scheduler
        self._waits = _Wait(scheduler)

    def time(self) -> float:
        return self._scheduler.now

    def _wait(self, seconds: float | None) -> None:
        self._waits.wait(seconds)

    def _wake(self) -> None:
        self._waits.wake()

    def _start(self, call: Callable[[], object], name: str) -> None:
        self._scheduler.spawn(call, name)


class SimLoop(asyncio.BaseEventLoop):
    """An event loop in a simulated thread: its clock, waits and threads are the scheduler's."""

    _ready: deque[Any]
    _scheduled: list[Any]
    _stopping: bool

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__()
        self._clock_resolution = 1e-6  # what rounding may leave of a time-out
        self._scheduler = scheduler
        self._waits = _Wait(scheduler)

    def time(self) -> float:
        return self._scheduler.now

    def _run_once(self) -> None:
        """As asyncio's, without what only sockets and debugging need."""
        ready, scheduled, scheduler = self._ready, self._scheduled, self._scheduler
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)._scheduled = False
        timeout: float | None = None
        if ready or self._stopping:
            timeout = 0
        elif scheduled:
            # Time goes on while a program looks at it: one that waits for less than the clock can
            # tell would look for ever.
            timeout = max(scheduled[0]._when - scheduler.now, self._clock_resolution)
        self._waits.wait(timeout)
        until = scheduler.now + (0.0 if ready else self._clock_resolution)
        while scheduled and scheduled[0]._when < until:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            ready.append(handle)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()

    def _write_to_self(self) -> None:
        self._waits.wake()

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, call: Any, *args: Any
    ) -> Any:
        """Run `call` in a thread of its own."""
        future = self.create_future()

        def tell(set_: Callable[[Any], object], what: Any) -> None:
            if not future.cancelled():
                set_(what)

        def run() -> None:
            set_: Callable[[Any], object] = future.set_result
            result: Any
            try:
                result = call(*args)
            except BaseException as error:
                set_, result = future.set_exception, error
            if not self.is_closed():
                self.call_soon_threadsafe(tell, set_, result)

        self._scheduler.spawn(run, "executor")
        return future


class SimTasks(Tasks):
    """For coroutines, on a loop of the scheduler's."""

    __slots__ = ("_scheduler",)

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def loop(self) -> asyncio.AbstractEventLoop:
        """An event loop for the calling thread."""
        return SimLoop(self._scheduler)


class SimRuntime(Runtime):
    """The scheduler as the house's `Runtime`."""

    __slots__ = ("_tasks", "scheduler")

    def __init__(self, scheduler: Scheduler, rand: random.Random) -> None:
        super().__init__(clock=scheduler.clock, rand=rand.random)
        self.scheduler = scheduler
        self._tasks = SimTasks(scheduler)

    @property
    def tasks(self) -> Tasks:
        """The same for coroutines."""
        return self._tasks

    def sleep(self, seconds: float) -> None:
        """Block the calling thread for `seconds`."""
        self.scheduler.sleep(seconds)

    def lock(self, *, real: bool = False) -> Any:
        """A reentrant lock."""
        return SimLock(self.scheduler)

    def event(self) -> SimEvent:
        """An event for threads."""
        return SimEvent(self.scheduler)

    def condition(self) -> SimCondition:
        """A lock to wait on."""
        return SimCondition(self.scheduler)

    def spawn(self, call: Callable[[], object], name: str) -> SimThread:
        """Start a thread that runs `call`."""
        return self.scheduler.spawn(call, name)

    spawn_real = spawn

    def loop(self, working: Any) -> Loop:
        """The monitor's event loop; nothing forks here, so it never lets go of `working`."""
        return SimPollLoop(self.scheduler)

    def current(self) -> object:
        """The thread that asks."""
        return current()


__all__ = [
    "Scheduler", "SimCondition", "SimEvent", "SimLock", "SimLoop", "SimQueue",
    "SimRuntime", "SimThread", "Stuck", "Waiter",
]  # fmt: skip
