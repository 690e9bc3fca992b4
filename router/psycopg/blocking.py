"""An asynchronous driver as the driver-neutral core sees it: every call that waits switches to
the event loop, out of the greenlet the core runs in."""

import asyncio
from typing import Any, Self

import psycopg
from sqlalchemy.util import await_only


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
        real = await_only(self.real.getconn(timeout=timeout))
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
        put = asyncio.ensure_future(self.real.putconn(connection.real))
        await_only(asyncio.shield(put))

    def open(self) -> None:
        """As the real one's, waited for."""
        await_only(self.real.open())

    def close(self, timeout: float = 5.0) -> None:
        """As the real one's, waited for."""
        await_only(self.real.close(timeout=timeout))


_KEPT = "_router_blocking"


def dial(arguments: dict[str, Any]) -> BlockingConnection:
    """A new asynchronous connection."""
    return BlockingConnection(await_only(psycopg.AsyncConnection.connect(**arguments)))


def real_of(connection: Any) -> Any:
    """The driver's own object behind one of these, or the object itself."""
    return connection.real if isinstance(connection, _Blocking) else connection
