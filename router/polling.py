"""The monitor's event loop: coroutines of one thread that wait under one ``poll()``.

It is not asyncio's, because no loop of asyncio's may run where greenlets take one another for the
same thread, and because a simulation runs it on a scheduler of its own.
"""

import _socket as sockets  # which gevent does not patch
import contextlib
import heapq
import math
import select
import time
import types
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from itertools import count
from threading import RLock
from typing import Any, Generic, Protocol, TypeVar

from router.unpatched import Hub, original

T = TypeVar("T")

READ, WRITE = getattr(select, "POLLIN", 1), getattr(select, "POLLOUT", 4)
"""What `Loop.ready` may wait for; the same numbers on every system that has ``poll``."""


class Cancelled(BaseException):
    """Raised in a task where it waits: it was cancelled."""


class Task(Generic[T]):
    """A coroutine that a loop runs beside others.

    Attributes:
        done: it has ended.
        cancelled: it has ended because it was cancelled.
    """

    __slots__ = ("_error", "_followers", "_loop", "_result", "_turn", "_work", "cancelled", "done")

    def __init__(self, loop: "Loop", work: Coroutine[Any, Any, T]) -> None:
        self.done: bool = False
        self.cancelled: bool = False
        self._loop = loop
        self._work = work
        # Grows with each step. Whatever is to wake the task names the turn it was meant for; when
        # something else did so first, it is void.
        self._turn = 0
        self._followers: list[_Turn] = []
        self._result: Any = None
        self._error: BaseException | None = None

    def result(self) -> T:
        """What it returned; raises what it raised."""
        if self._error is not None:
            raise self._error
        result: T = self._result
        return result

    def cancel(self) -> None:
        """Raise `Cancelled` where it waits, now. The loop's thread alone may ask, in another
        task."""
        if not self.done:
            self._step(Cancelled())

    def _step(self, raised: BaseException | None = None) -> None:
        loop, self._turn = self._loop, self._turn + 1
        before, loop.current = loop.current, self
        try:
            if raised is None:
                self._work.send(None)
            else:
                self._work.throw(raised)
        except StopIteration as end:
            self._end(end.value, None)
        except BaseException as error:  # noqa: BLE001 - whoever wants the result gets it
            self.cancelled = isinstance(error, Cancelled)
            self._end(None, error)
        finally:
            loop.current = before

    def _end(self, result: Any, error: BaseException | None) -> None:
        self.done, self._result, self._error = True, result, error
        self._loop._ready.extend(self._followers)
        self._followers = []


_Turn = tuple[Task[Any], int]
"""A task, and the turn in which it waits."""


class Event:
    """What tasks of one loop wait for; that loop's thread sets it."""

    __slots__ = ("_loop", "_set", "_waiters")

    def __init__(self, loop: "Loop") -> None:
        self._loop = loop
        self._set = False
        self._waiters: list[_Turn] = []

    def set(self) -> None:
        """Wake all who wait, now and later."""
        self._set = True
        waiters, self._waiters = self._waiters, []
        self._loop._ready.extend(waiters)

    def clear(self) -> None:
        """Let those who come wait again."""
        self._set = False

    async def wait(self, within: float | None = None) -> bool:
        """Wait until it is set, `within` seconds at most; whether it is."""
        if not self._set:
            await self._loop._wait_among(self._waiters, within)
        return self._set


@types.coroutine
def _pause() -> Generator[None, None, None]:
    """Let others run until something wakes the calling task."""
    yield


class Loop:
    """Runs coroutines, each until it waits. What it waits in, and the clock, are a subclass's.

    All but `call_soon_threadsafe` is for the thread that runs it.

    Attributes:
        current: the task whose turn it is.
    """

    def __init__(self) -> None:
        self.current: Task[Any] | None = None
        self._ready: deque[_Turn] = deque()
        self._calls: deque[Callable[[], object]] = deque()
        self._timers: list[tuple[float, int, _Turn]] = []
        self._order = count()

    # -- what a subclass has -------------------------------------------------------------------

    def time(self) -> float:
        """The time (monotonic seconds)."""
        raise NotImplementedError

    def _wait(self, seconds: float | None) -> None:
        """Wait until a descriptor is ready or `_wake` is called, `seconds` at most."""
        raise NotImplementedError

    def _wake(self) -> None:
        """End the wait, or the next one. Any thread."""
        raise NotImplementedError

    async def ready(self, line: int, event: int, until: float = math.inf) -> bool:
        """Wait until the descriptor `line` is ready to `READ` or `WRITE`, as `event` says, or has
        an error; not longer than `until` (by `time`). Whether it is."""
        raise NotImplementedError

    def outside_soon(self, call: Callable[[], object]) -> None:
        """Have `call` done, which touches what is the application's, and must neither block nor
        raise."""
        call()

    async def outside(self, call: Callable[[], T]) -> T:
        """What `call` returns, which touches what is the application's. It must not block."""
        return call()

    def _start(self, call: Callable[[], object], name: str) -> None:
        """Start a thread called `name` that runs `call`."""
        raise NotImplementedError

    # -- what coroutines do --------------------------------------------------------------------

    def spawn(self, work: Coroutine[Any, Any, T]) -> Task[T]:
        """Start `work` beside the caller."""
        task = Task(self, work)
        self._ready.append((task, 0))
        return task

    def event(self) -> Event:
        """An event for its tasks."""
        return Event(self)

    async def sleep(self, seconds: float) -> None:
        """Let others run for `seconds`."""
        self._turn_of_caller(seconds)
        await _pause()

    async def ends(self, task: Task[Any], within: float | None = None) -> bool:
        """Wait `within` seconds at most, None for ever, until `task` has ended; whether it has. It
        goes on when the time is over, and its error is its own."""
        if not task.done:
            await self._wait_among(task._followers, within)
        return task.done

    async def _wait_among(self, waiters: list[_Turn], within: float | None) -> None:
        """Wait, `within` seconds at most, until somebody wakes `waiters`, who may be others'."""
        turn = self._turn_of_caller(within)
        waiters.append(turn)
        try:
            await _pause()
        finally:
            if turn in waiters:
                waiters.remove(turn)

    async def beside(self, call: Callable[[], T], name: str) -> T:
        """What `call` returns, which may block: a thread of its own runs it, called `name`. Given
        up, that ends when it ends."""
        over, told = self.event(), list[T]()
        failed: list[BaseException] = []

        def run() -> None:
            try:
                told.append(call())
            except BaseException as error:  # noqa: BLE001 - raised where it is awaited
                failed.append(error)
            self.call_soon_threadsafe(over.set)

        self._start(run, name)
        await over.wait()
        if failed:
            raise failed[0]
        return told[0]

    # -- who runs it ---------------------------------------------------------------------------

    def call_soon_threadsafe(self, call: Callable[[], object]) -> None:
        """Have the loop's thread do `call`. Any thread may ask; nothing happens when it ended."""
        self._calls.append(call)
        self._wake()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` returns, run in the calling thread. Tasks that are left go no further."""
        main, ready, calls = self.spawn(work), self._ready, self._calls
        while True:
            while ready:
                task, turn = ready.popleft()
                if task._turn == turn:
                    task._step()
            if main.done:
                return main.result()
            self._wait(0 if calls else self._until_next())
            while calls:
                calls.popleft()()
            now, timers = self.time(), self._timers
            while timers and timers[0][0] <= now:
                ready.append(heapq.heappop(timers)[2])

    def _until_next(self) -> float | None:
        """Seconds until the next timer that somebody still waits for; None where there is none."""
        timers = self._timers
        while timers:
            when, _, (task, turn) = timers[0]
            if task._turn == turn:
                return max(0.0, when - self.time())
            heapq.heappop(timers)
        return None

    def _turn_of_caller(self, within: float | None = None) -> _Turn:
        """The wait that the calling task begins, to be ended after `within` seconds."""
        task = self.current
        assert task is not None
        turn = (task, task._turn)
        if within is not None:
            heapq.heappush(self._timers, (self.time() + within, next(self._order), turn))
        return turn


class Poll(Protocol):
    """As ``select.poll()``."""

    def register(self, fd: int, eventmask: int, /) -> None:
        """Look at `fd` too."""

    def unregister(self, fd: int, /) -> None:
        """Look at `fd` no more."""

    def poll(self, timeout: float | None = ..., /) -> list[tuple[int, int]]:
        """The descriptors that are ready, within `timeout` (milliseconds)."""
        ...


class Select:
    """A `Poll` for systems that have only ``select``; it knows no descriptors beyond 1023."""

    def __init__(self) -> None:
        self._events: dict[int, int] = {}

    def register(self, fd: int, eventmask: int, /) -> None:
        """Look at `fd` too."""
        self._events[fd] = eventmask

    def unregister(self, fd: int, /) -> None:
        """Look at `fd` no more."""
        del self._events[fd]

    def poll(self, timeout: float | None = None, /) -> list[tuple[int, int]]:
        """The descriptors that are ready, within `timeout` (milliseconds)."""
        read = [fd for fd, event in self._events.items() if event == READ]
        write = [fd for fd, event in self._events.items() if event == WRITE]
        seconds = None if timeout is None else timeout / 1000
        found = original("select", "select")(read, write, write, seconds)
        return [(fd, self._events[fd]) for fd in {*found[0], *found[1], *found[2]}]


def real_poll() -> Poll:
    """A new `Poll` of this system's, whatever gevent has patched."""
    if hasattr(select, "poll"):
        made: Poll = original("select", "poll")()
        return made
    return Select()


class PollLoop(Loop):
    """A `Loop` of the real world.

    `working` is held by the thread that runs it, and let go while that waits: a fork, which takes
    all locks, finds it at rest. `spawn_thread` starts a thread by a call and a name. With a `hub`
    the thread that runs it is no greenlet, and what is the application's is done by those of that
    hub.
    """

    def __init__(
        self,
        working: RLock,
        spawn_thread: Callable[[Callable[[], object], str], object],
        hub: Hub | None = None,
    ) -> None:
        super().__init__()
        self._working = working
        self._spawn_thread = spawn_thread
        self._hub = hub
        self._poll = real_poll()
        self._lines: dict[int, _Turn | None] = {}  # None: it is ready
        self._woken: sockets.socket | None = None
        self._waker: sockets.socket | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """As the base class has it; `working` is held."""
        # Objects of the C module: closed, they refuse. A bare number may be another file by then.
        self._woken, self._waker = sockets.socketpair()
        try:
            for end in (self._woken, self._waker):
                end.setblocking(False)
            self._poll.register(self._woken.fileno(), READ)
            return super().run(work)
        finally:
            self._woken.close()
            self._waker.close()

    def time(self) -> float:
        """The time (monotonic seconds): the machine's, as ``poll`` counts it."""
        return time.monotonic()

    def _wait(self, seconds: float | None) -> None:
        timeout = None if seconds is None else math.ceil(seconds * 1000)
        self._working.release()
        try:
            found = self._poll.poll(timeout)
        finally:
            self._working.acquire()
        for line, _ in found:
            turn = self._lines.get(line)
            if turn is not None:
                self._lines[line] = None
                self._ready.append(turn)
            elif self._woken is not None and line == self._woken.fileno():
                with contextlib.suppress(BlockingIOError):
                    self._woken.recv(4096)

    def _wake(self) -> None:
        # It is awake anyway where its buffer is full, and was closed where it has ended.
        if (waker := self._waker) is not None:
            with contextlib.suppress(OSError):
                waker.send(b"\0")

    async def ready(self, line: int, event: int, until: float = math.inf) -> bool:
        """As the base class has it."""
        turn = self._turn_of_caller(None if until == math.inf else until - self.time())
        self._lines[line] = turn
        self._poll.register(line, event)
        try:
            await _pause()
            return self._lines[line] is None
        finally:
            del self._lines[line]
            self._poll.unregister(line)

    def _start(self, call: Callable[[], object], name: str) -> None:
        if self._hub is None:
            self._spawn_thread(call, name)
        else:
            self._hub.call(call)

    def outside_soon(self, call: Callable[[], object]) -> None:
        """As the base class has it."""
        if self._hub is None:
            call()
        else:
            self._hub.call(call)

    async def outside(self, call: Callable[[], T]) -> T:
        """As the base class has it; a greenlet's work where there is a hub."""
        return call() if self._hub is None else await self.beside(call, "")
