"""Who waits for a place in one node's pool, or for a connection that is being opened there."""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Protocol

from sqlalchemy import exc
from sqlalchemy.pool import Pool, PoolProxiedConnection
from sqlalchemy.util import await_only, greenlet_spawn

from router.cluster.gate import at_most, must_be_had, must_be_used
from router.cluster.router import Router
from router.connect.dialing import NothingOpen, may_open
from router.connect.errand import Errand
from router.model import Node
from router.runtime import Event

LOOK = 0.25
"""Seconds between two looks for a place of which nobody is told that it is free: its connection
was detached, or went back when nobody had closed it."""


class Signal(Protocol):
    """Wakes one who waits; set by any thread."""

    def set(self) -> None:
        """Wake him, now or when he waits next."""

    def wait(self, seconds: float) -> None:
        """Wait to be woken, `seconds` at most."""


class Queue:
    """Who waits for a place, first come, first served; and who opens a connection meanwhile."""

    __slots__ = ("_opening", "_waiting")

    def __init__(self) -> None:
        self._waiting: deque[Signal] = deque()
        self._opening: deque[Signal] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def enter(self, signal: Signal) -> None:
        """Wait behind all others, to be woken by `signal`."""
        self._waiting.append(signal)

    def leads(self, signal: Signal) -> bool:
        """Whether `signal` is that of the first who waits."""
        return bool(self._waiting) and self._waiting[0] is signal

    def opens(self, signal: Signal) -> None:
        """Open a connection; the next one leads, and may open another. A connection that comes
        back sooner is for both to take."""
        self._opening.append(signal)
        self._leave(self._waiting, signal)

    def opened(self, signal: Signal, *, waits: bool) -> None:
        """Open none any more; with `waits` wait again, before all others."""
        if waits:
            self._waiting.appendleft(signal)
        self._leave(self._opening, signal)

    def leave(self, signal: Signal) -> None:
        """Wait no more; the next one looks whether there is another place."""
        self._leave(self._waiting, signal)

    def _leave(self, those: deque[Signal], signal: Signal) -> None:
        with suppress(ValueError):
            those.remove(signal)
        self.wake()

    def wake(self) -> None:
        """A place may be free: the first ones look."""
        for those in (self._opening, self._waiting):
            if those:
                with suppress(IndexError):  # another thread was quicker
                    those[0].set()


class Waits:
    """How callers of an engine wait: `asynchronous`, in greenlets of tasks, or in threads. What
    comes late is given to `give_back`."""

    def __init__(
        self,
        router: Router,
        give_back: Callable[[PoolProxiedConnection], object],
        *,
        asynchronous: bool,
    ) -> None:
        self._router = router
        self._give_back = give_back
        self._asynchronous = asynchronous
        self._queues: dict[Node, Queue] = {}
        self._running: set[asyncio.Task[None]] = set()

    def queue(self, node: Node) -> Queue:
        """Those who wait for a place in the pool of `node`."""
        queue = self._queues.get(node)
        return self._queues.setdefault(node, Queue()) if queue is None else queue

    def freed(self, node: Node) -> None:
        """A connection to `node` was given back, or closed."""
        queue = self._queues.get(node)
        if queue is not None:
            queue.wake()

    def connection(
        self, node: Node, pool: Callable[[], Pool], seconds: float
    ) -> PoolProxiedConnection | None:
        """A connection to `node` of its `pool`, None where all were in use for `seconds`. Raises
        GivenUp, and the driver's errors."""
        if not self.queue(node) and (found := self._free(node, pool(), None)) is not None:
            return found
        return self._turn(node, pool, seconds)

    def _free(self, node: Node, pool: Pool, signal: Signal | None) -> PoolProxiedConnection | None:
        """A connection of `pool`, which is that of `node`, None where all are in use. One that has
        to be opened is waited for as long as the node is used; `signal` is the caller's who waits
        in the queue."""
        try:
            if count(pool, "checkedin") or len(self._router.servers) < 2:
                return connected(pool)
            return self._opened(node, pool, signal) if _may_grow(pool) else None
        except exc.TimeoutError:
            return None

    def _turn(
        self, node: Node, pool: Callable[[], Pool], seconds: float
    ) -> PoolProxiedConnection | None:
        """A connection of the `pool` of `node` when there is one, in the order of those who wait;
        None after `seconds`. Raises GivenUp."""
        router, queue, signal = self._router, self.queue(node), self._signal()
        clock, gate = router.clock, router.gate
        until = clock() + at_most(seconds)
        queue.enter(signal)
        number = gate.watch(node, signal.set)
        try:
            while True:
                must_be_used(node, router.view, clock())
                if queue.leads(signal):
                    found = self._free(node, pool(), signal)
                    if found is not None:
                        return found
                left = until - clock()
                if left <= 0:
                    must_be_had(node)
                    return None
                signal.wait(min(left, LOOK))
        finally:
            gate.leave(number)
            queue.leave(signal)

    def _opened(self, node: Node, pool: Pool, mine: Signal | None) -> PoolProxiedConnection:
        """A connection of `pool` that a thread or task of its own opens, or one that comes back
        sooner; what comes when the caller has another, or has given up, the pool keeps."""

        def late(fairy: PoolProxiedConnection) -> None:
            self._give_back(fairy)
            self.freed(node)

        router, queue, signal = self._router, self.queue(node), mine or self._signal()
        errand = Errand(partial(connected, pool), signal.set, late)
        number = router.gate.watch(node, signal.set)
        queue.opens(signal)
        try:
            self._send(errand)
            while not errand.done:
                must_be_used(node, router.view, router.clock())
                if (back := _idle(pool)) is not None:
                    if errand.give_up():
                        return back
                    late(back)
                else:
                    signal.wait(60.0)
        except BaseException:
            if errand.give_up():
                raise
        finally:
            router.gate.leave(number)
            queue.opened(signal, waits=mine is not None)
        return errand.take()

    def _send(self, errand: Errand[PoolProxiedConnection]) -> None:
        if self._asynchronous:
            task = self._router.runtime.tasks.spawn(greenlet_spawn(errand.run))
            # The event loop itself keeps no strong reference to a task that nobody awaits.
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            return
        context = copy_context()  # what connect listeners may ask for
        self._router.runtime.spawn(lambda: context.run(errand.run), "pg-router connects")

    def _signal(self) -> Signal:
        if self._asynchronous:
            return _OfTask(self._router.runtime.tasks.event())
        return _OfThread(self._router.runtime.event())


class _OfThread:
    __slots__ = ("_event",)

    def __init__(self, event: Event) -> None:
        self._event = event

    def set(self) -> None:
        self._event.set()

    def wait(self, seconds: float) -> None:
        self._event.wait(seconds)
        self._event.clear()


class _OfTask:
    __slots__ = ("_coming", "_event", "_loop")

    def __init__(self, event: asyncio.Event) -> None:
        self._event = event
        self._loop = asyncio.get_running_loop()
        self._coming = False  # a call that sets the event is on its way: one is enough

    def set(self) -> None:
        if not self._coming:
            self._coming = True
            with suppress(RuntimeError):  # the loop was closed
                self._loop.call_soon_threadsafe(self._come)

    def _come(self) -> None:
        self._coming = False
        self._event.set()

    def wait(self, seconds: float) -> None:
        await_only(self._wait(seconds))
        self._event.clear()

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()


def connected(pool: Pool) -> PoolProxiedConnection:
    """A connection of `pool`, or the driver's own error: SQLAlchemy wraps that of a server that is
    lost while the dialect meets its very first one, by statements."""
    try:
        return pool.connect()
    except exc.DBAPIError as error:
        raise (error.orig or error) from error


def _idle(pool: Pool) -> PoolProxiedConnection | None:
    """A connection of `pool` that is open and not in use, if there is one."""
    if not count(pool, "checkedin"):
        return None
    token = may_open.set(False)
    try:
        return connected(pool)
    except (NothingOpen, exc.TimeoutError):
        return None  # another caller was quicker
    finally:
        may_open.reset(token)


def _may_grow(pool: Pool) -> bool:
    """Whether `pool` may open another connection."""
    limit = getattr(pool, "_max_overflow", -1)
    return bool(limit < 0 or count(pool, "overflow") < limit)


def count(pool: Pool, method: str) -> int:
    """What the `method` of `pool` counts."""
    return int(getattr(pool, method, int)())  # a NullPool counts nothing
