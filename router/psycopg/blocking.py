"""An asynchronous driver as the driver-neutral core sees it: every call that waits switches to
the event loop, out of the greenlet the core runs in."""

import asyncio
import functools
from collections.abc import Callable, Generator
from typing import Any, Self

import psycopg

from router.greenlets import await_only, in_greenlet
from router.runtime import SYSTEM


class _Blocking:
    """Passes on whatever is not said here."""

    real: Any

    def __init__(self, real: Any) -> None:
        self.__dict__["real"] = real

    def __getattr__(self, key: str) -> Any:
        return getattr(self.real, key)

    def __setattr__(self, key: str, value: Any) -> None:
        setattr(self.real, key, value)

    def close(self) -> None:
        """Close it, and wait for that."""
        await_only(self.real.close())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.real!r}>"


class BlockingCursor(_Blocking):
    """A cursor of an asynchronous connection."""

    def execute(self, *args: Any, **kwargs: Any) -> "BlockingCursor":
        """As the real one's, waited for."""
        await_only(self.real.execute(*args, **kwargs))
        return self

    def executemany(self, *args: Any, **kwargs: Any) -> None:
        """As the real one's, waited for."""
        await_only(self.real.executemany(*args, **kwargs))

    def fetchone(self) -> Any:
        """As the real one's, waited for."""
        return await_only(self.real.fetchone())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class BlockingConnection(_Blocking):
    """An asynchronous connection."""

    def cursor(self, *args: Any, **kwargs: Any) -> BlockingCursor:
        """A cursor whose calls are waited for."""
        return BlockingCursor(self.real.cursor(*args, **kwargs))

    def execute(self, *args: Any, **kwargs: Any) -> BlockingCursor:
        """As the real one's, waited for."""
        return BlockingCursor(await_only(self.real.execute(*args, **kwargs)))

    def commit(self) -> None:
        """As the real one's, waited for."""
        await_only(self.real.commit())

    def rollback(self) -> None:
        """As the real one's, waited for."""
        await_only(self.real.rollback())

    def __setattr__(self, key: str, value: Any) -> None:
        if key in ("autocommit", "isolation_level", "read_only", "deferrable"):
            await_only(getattr(self.real, f"set_{key}")(value))
        elif key.startswith("_router"):
            self.__dict__[key] = value
        else:
            setattr(self.real, key, value)


class BlockingPool(_Blocking):
    """An asynchronous pool of psycopg_pool's."""

    def getconn(self, timeout: float) -> BlockingConnection:
        """As the real one's, waited for; the same object for a connection as long as it lives."""
        return self._kept(await_only(self.real.getconn(timeout=timeout)))

    def idle_connection(
        self, trusted: Callable[[BlockingConnection], bool]
    ) -> BlockingConnection | None:
        """The connection that lies ready and is the next to be given, if it can be taken without
        waiting for anybody.

        Args:
            trusted: asked before it is taken.
        """
        ready = getattr(self.real, "_pool", None)  # by psycopg_pool's own name for them
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

    def _kept(self, real: Any) -> BlockingConnection:
        found: BlockingConnection | None = real.__dict__.get(_KEPT)
        if found is None:
            found = BlockingConnection(real)
            setattr(real, _KEPT, found)
        return found

    def putconn(self, connection: BlockingConnection) -> None:
        """As the real one's, waited for.

        Psycopg_pool loses a connection whose task is cancelled while it is put back, so that is
        not to be cancelled.
        """
        putting = self.real.putconn(connection.real)
        try:
            waits_for = putting.send(None)
        except StopIteration:
            return  # nothing to wait for, as nearly always: no task is needed
        task = SYSTEM.tasks.spawn(_rest(putting, waits_for))
        if in_greenlet():
            await_only(asyncio.shield(task))
        else:
            _ending.add(task)
            task.add_done_callback(_ending.discard)

    def open(self) -> None:
        """As the real one's, waited for."""
        await_only(self.real.open())

    def close(self, timeout: float = 5.0) -> None:
        """As the real one's, waited for."""
        await_only(self.real.close(timeout=timeout))


_KEPT = "_router_blocking"

_ending: set["asyncio.Future[None]"] = set()
"""What gives connections back while nobody waits for it, kept from the garbage collector."""


async def _rest(begun: Any, waits_for: Any) -> None:
    """What is left of a coroutine that was begun by hand and waits for something."""
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
    """A new asynchronous connection."""
    return BlockingConnection(await_only(psycopg.AsyncConnection.connect(**arguments)))


def real_of(connection: Any) -> Any:
    """The driver's own object behind one of these, or the object itself."""
    return connection.real if isinstance(connection, _Blocking) else connection
