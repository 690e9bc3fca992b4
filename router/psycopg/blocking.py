"""Patches psycopg's connections with their wrapper: an asynchronous driver, as the core sees it.

Every call that waits switches to the event loop, out of the greenlet the core runs in.
"""

import asyncio
import functools
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Self

import psycopg

from router.cluster.gate import GivenUp
from router.greenlets import await_only, greenlet_spawn, in_greenlet
from router.model import Node
from router.psycopg.node_connection import still_waits
from router.runtime import SYSTEM


def _waited(name: str) -> Callable[..., Any]:
    """The real object's method `name`, waited for."""

    def method(self: "_Blocking", *args: Any, **kwargs: Any) -> Any:
        return await_only(getattr(self.real, name)(*args, **kwargs))

    return method


class _Blocking:
    """Passes on to `real` whatever is not defined here."""

    real: Any

    def __init__(self, real: Any) -> None:
        self.__dict__["real"] = real

    def __getattr__(self, key: str) -> Any:
        return getattr(self.real, key)

    def __setattr__(self, key: str, value: Any) -> None:
        setattr(self.real, key, value)

    close: Callable[..., Any] = _waited("close")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.real!r}>"


class BlockingCursor(_Blocking):
    """A cursor of an asynchronous connection."""

    executemany: Callable[..., Any] = _waited("executemany")
    fetchone: Callable[..., Any] = _waited("fetchone")

    def execute(self, *args: Any, **kwargs: Any) -> "BlockingCursor":
        """As the real one's, waited for."""
        await_only(self.real.execute(*args, **kwargs))
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class BlockingConnection(_Blocking):
    """An asynchronous connection."""

    commit: Callable[..., Any] = _waited("commit")
    rollback: Callable[..., Any] = _waited("rollback")

    def cursor(self, *args: Any, **kwargs: Any) -> BlockingCursor:
        """A cursor whose calls are waited for."""
        return BlockingCursor(self.real.cursor(*args, **kwargs))

    def execute(self, *args: Any, **kwargs: Any) -> BlockingCursor:
        """As the real one's, waited for."""
        return BlockingCursor(await_only(self.real.execute(*args, **kwargs)))

    def __setattr__(self, key: str, value: Any) -> None:
        if key in ("autocommit", "isolation_level", "read_only", "deferrable"):
            await_only(getattr(self.real, f"set_{key}")(value))
        elif key.startswith("_router"):
            self.__dict__[key] = value
        else:
            setattr(self.real, key, value)


class BlockingPool(_Blocking):
    """An asynchronous pool of psycopg_pool's."""

    open: Callable[..., Any] = _waited("open")

    def getconn(self, timeout: float) -> BlockingConnection:
        """As the real one's, waited for `timeout` seconds; the same object for a connection as
        long as it lives."""
        return self._kept(await_only(self.real.getconn(timeout=timeout)))

    def idle_connection(
        self, trusted: Callable[[BlockingConnection], bool]
    ) -> BlockingConnection | None:
        """The connection that lies ready and is the next to be given, where nobody has to be
        waited for and `trusted`, which is asked first, agrees."""
        ready = getattr(self.real, "_pool", None)  # psycopg_pool's private deque of idle ones
        first: BlockingConnection | None = ready[0].__dict__.get(_KEPT) if ready else None
        if first is None or not trusted(first):
            return None
        getting = self.real.getconn(timeout=1.0)
        try:
            getting.send(None)
        except StopIteration as given:
            if given.value is first.real:
                return first
            self.putconn(self._kept(given.value))
        except psycopg.Error:
            pass  # it is being closed
        else:
            getting.close()  # before the pool's lock, which another task has: nothing was taken
        return None

    def give_up(self, node: Node) -> None:
        """Let nobody wait any longer for a connection to `node`; in the event loop."""
        for waiting in list(self.real._waiting):
            if still_waits(waiting):
                _begun(waiting.fail(GivenUp(node)))

    def _kept(self, real: Any) -> BlockingConnection:
        found: BlockingConnection | None = real.__dict__.get(_KEPT)
        if found is None:
            found = BlockingConnection(real)
            setattr(real, _KEPT, found)
        return found

    def putconn(self, connection: BlockingConnection) -> None:
        """As the real one's, waited for.

        Psycopg_pool loses a `connection` whose task is cancelled while it is put back, so that
        task must not be cancelled."""
        task = _begun(self.real.putconn(connection.real))
        if task is not None and in_greenlet():
            await_only(asyncio.shield(task))


_KEPT = "_router_blocking"
"""Attribute of psycopg's connection that holds its one `BlockingConnection`."""

_ending: set["asyncio.Future[Any]"] = set()
"""Tasks that nobody awaits, or perhaps not to their end: the event loop itself keeps no strong
reference to a task."""


def _spawned(work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
    task = SYSTEM.tasks.spawn(work)
    _ending.add(task)
    task.add_done_callback(_ending.discard)
    return task


def _begun(work: Coroutine[Any, Any, Any]) -> "asyncio.Task[None] | None":
    """Do `work` as far as nothing has to be waited for, which nearly always is all of it; the task
    that does the rest, if there is any."""
    try:
        waits_for = work.send(None)
    except StopIteration:
        return None
    return _spawned(_rest(work, waits_for))


def beside(call: Callable[[], object]) -> None:
    """Have `call`, which waits as the core does, done by a task of the event loop that runs."""

    async def work() -> None:
        await greenlet_spawn(call)

    _spawned(work())


async def _rest(begun: Any, waits_for: Any) -> None:
    """Finish the coroutine `begun`, which was begun by hand and waits for `waits_for`."""
    await _Rest(begun, waits_for)


class _Rest:
    def __init__(self, begun: Any, waits_for: Any) -> None:
        self._begun = begun
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, None]:
        waits_for = self._waits_for
        while True:
            try:
                yield waits_for
            except BaseException as error:  # noqa: BLE001 - the coroutine's to handle
                step = functools.partial(self._begun.throw, error)
            else:
                step = functools.partial(self._begun.send, None)
            try:
                waits_for = step()
            except StopIteration:
                return


def dial(arguments: dict[str, Any]) -> BlockingConnection:
    """A new asynchronous connection, by psycopg's `arguments`."""
    return BlockingConnection(await_only(psycopg.AsyncConnection.connect(**arguments)))


def real_of(connection: Any) -> Any:
    """The driver's own object behind `connection`, or that itself where nothing wraps it."""
    return connection.real if isinstance(connection, _Blocking) else connection
