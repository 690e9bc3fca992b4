"""Patches psycopg's pipeline: the same connection for event loops, which waits in greenlets."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

import psycopg

from router.checkout.retry import failed_fast_read, failed_midway, recover
from router.checkout.route import Route
from router.checkout.rows import NO_ROW, copies_out, read_ahead
from router.greenlets import await_only, greenlet_spawn
from router.psycopg.blocking import BlockingConnection, real_of
from router.psycopg.connection import Beginning, Connection
from router.psycopg.cursor import Lasting
from router.psycopg.facade import new_cursor
from router.psycopg.node_connection import PsycopgConnection
from router.psycopg.transaction import AsyncTransaction

if TYPE_CHECKING:
    from router.psycopg.pool import RoutedPool


class NotExecuted(psycopg.InterfaceError, AttributeError):
    """An attribute of a cursor that has executed nothing, which ``hasattr`` may ask for."""


class AsyncCursor(Beginning):
    """An asynchronous cursor like psycopg's, whose statements are routed one by one.

    Once something was executed, every attribute is the real cursor's.
    """

    @property
    def _owner(self) -> Connection:
        return self._connection.routed  # type: ignore[no-any-return]

    async def execute(self, query: Any, params: Any = None, **kwargs: Any) -> Self:
        """As psycopg's: run one statement where it belongs."""
        own = self.__dict__  # once: a class with __getattr__ is slow to look anything up in
        held = own["_of"]
        if (
            held is None
            or held is not (routed := own["_routed"]).primary
            or query.__class__ is not str
            or (context := routed.fast_read_on_primary(query)) is None
        ):
            await self._elsewhere(query, params, kwargs)
            return self
        driver = own["_real"].real
        try:
            # Keywords make a call slow, even empty ones.
            await (
                driver.execute(query, params, **kwargs)
                if kwargs
                else driver.execute(query, params)
            )
        except BaseException as error:
            failed_fast_read(routed, held, error, driver)
            raise
        if not context.root:
            routed.router.pinning.read(context, held.node)
        return self

    async def _elsewhere(self, query: Any, params: Any, kwargs: dict[str, Any]) -> None:
        """Run a statement for which the rules have to be asked: without a greenlet where it can
        be sent on a connection that is held, unless it fails."""
        route = self._ready(query) if isinstance(query, str) else None
        if route is None:
            await greenlet_spawn(self._run, "execute", query, params, kwargs)
            return
        route.begin()
        try:
            driver = self._on(route.held).real
            await (
                driver.execute(query, params, **kwargs)
                if kwargs
                else driver.execute(query, params)
            )
        except Exception as error:  # noqa: BLE001 - raised again unless the rules allow more

            def again(held: PsycopgConnection) -> None:
                self._send(held, "execute", query, params, kwargs)

            await greenlet_spawn(recover, route, error, self._real, again)
        except BaseException:
            route.held.interrupted(route.intent)
            raise
        route.done(params)

    def _ready(self, query: str) -> Route[PsycopgConnection] | None:
        """The route of `query`, where no preparation has to wait for a server."""
        checkout = self._routed
        if checkout.router.instrumented or self._stream:
            return None
        self._owner.beginning()
        route = checkout.route_without_waiting(query)
        # A real cursor on another node's connection would have to be closed first, which waits.
        fits = route is not None and (self._real is None or self._of is route.held)
        return route if fits else None

    def _fetching(self, real: Any) -> Any:
        return real.real

    async def executemany(self, query: Any, params_seq: Any, **kwargs: Any) -> None:
        """As psycopg's: run one statement for several sets of parameters."""
        await greenlet_spawn(self._run, "executemany", query, params_seq, kwargs)

    async def _driver(self) -> Any:
        real = self._real
        return (real if real is not None else await greenlet_spawn(self._bound)).real

    async def fetchone(self) -> Any:
        """The next row, None after the last."""
        return await (await self._driver()).fetchone()

    async def fetchmany(self, size: int = 0) -> list[Any]:
        """The next `size` rows."""
        return await (await self._driver()).fetchmany(size)  # type: ignore[no-any-return]

    async def fetchall(self) -> list[Any]:
        """All rows that are left."""
        return await (await self._driver()).fetchall()  # type: ignore[no-any-return]

    async def scroll(self, value: int, mode: str = "relative") -> None:
        """As psycopg's: move within the result."""
        await (await self._driver()).scroll(value, mode)

    async def stream(self, query: Any, params: Any = None, **kwargs: Any) -> AsyncIterator[Any]:
        """As psycopg's: iterate row by row over a query's result, from where the rules send it."""
        rows: Any = None
        first: Any = None

        def begin(cursor: Any) -> None:
            nonlocal rows, first
            rows = cursor.real.stream(query, params, **kwargs)
            first = await_only(anext(rows, NO_ROW))

        async with self._begun(query, params, begin):
            try:
                if first is not NO_ROW:
                    yield first
                async for row in rows:
                    yield row
            finally:
                await rows.aclose()

    @asynccontextmanager
    async def copy(self, statement: Any, params: Any = None, **kwargs: Any) -> AsyncIterator[Any]:
        """As psycopg's block around a COPY, where the rules send it."""
        copy: Any = None
        async with AsyncExitStack() as stack:

            def begin(cursor: Any) -> None:
                nonlocal copy
                block = _copying(cursor.real, statement, params, kwargs)
                copy = await_only(stack.enter_async_context(block))

            async with self._begun(statement, params, begin), stack.pop_all():
                yield copy

    @asynccontextmanager
    async def _begun(
        self, statement: Any, params: Any, begin: Callable[[Any], None]
    ) -> AsyncIterator[None]:
        """Around the rows of a statement that `begin` sends to the node it belongs to."""
        route = await greenlet_spawn(self._rows_of, statement, params, begin)
        try:
            yield
        except psycopg.Error as error:
            await greenlet_spawn(failed_midway, route, error, self._real)
            raise
        except asyncio.CancelledError:
            route.held.broken = True
            raise
        except GeneratorExit:
            await greenlet_spawn(route.failed)
            raise
        await greenlet_spawn(route.done, params)

    async def set_result(self, index: int) -> Self:
        """As psycopg's: move to one of several results."""
        await (await self._driver()).set_result(index)
        return self

    async def results(self) -> AsyncIterator[Self]:
        """Iterate over the results of several statements sent at once."""
        async for _ in (await self._driver()).results():
            yield self

    async def close(self) -> None:
        """Close the real cursor, if there is one."""
        await greenlet_spawn(super().close)

    @property
    def connection(self) -> "AsyncConnection":
        """The routed connection this cursor belongs to."""
        return self._connection  # type: ignore[no-any-return]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def __aiter__(self) -> AsyncIterator[Any]:
        async for row in await self._driver():
            yield row

    async def __anext__(self) -> Any:
        return await (await self._driver()).__anext__()

    def __getattr__(self, key: str) -> Any:
        if self._real is None and not key.startswith("__"):
            raise NotExecuted(f"{key}: nothing was executed by this cursor yet")
        return super().__getattr__(key)


@asynccontextmanager
async def _copying(
    cursor: Any, statement: Any, params: Any, kwargs: dict[str, Any]
) -> AsyncIterator[Any]:
    async with cursor.copy(statement, params, **kwargs) as copy:
        if copies_out(cursor):
            read_ahead(copy, await copy.read())
        yield copy


class AsyncLastingCursor(Lasting, AsyncCursor):
    """A server-side cursor that outlives its transaction."""


class AsyncConnection:
    """What `AsyncConnectionPool.connection` gives: psycopg's AsyncConnection, routed.

    Where statements go is as with `router.psycopg.Connection`. It belongs to one task at a time.
    """

    routed: Connection

    def __init__(self, pool: "RoutedPool", timeout: float) -> None:
        """Take connections from `pool`, waiting `timeout` seconds for a node's; none before
        something is executed."""
        self.__dict__["routed"] = Connection(pool, timeout)

    def __repr__(self) -> str:
        return f"<AsyncConnection of {self.routed.checkout!r}>"

    def cursor(self, *args: Any, **kwargs: Any) -> AsyncCursor:
        """A cursor that is routed statement by statement; arguments as psycopg's."""
        checkout = self.routed.checkout
        if not args and not kwargs:
            return AsyncCursor(checkout, self, new_cursor)
        stream = bool(args or kwargs.get("name"))
        kind = AsyncLastingCursor if kwargs.get("withhold") else AsyncCursor
        return kind(checkout, self, lambda held: held.dbapi.cursor(*args, **kwargs), stream=stream)

    async def execute(self, query: Any, params: Any = None, **kwargs: Any) -> AsyncCursor:
        """As psycopg's: run one statement, routed; the cursor."""
        return await self.cursor().execute(query, params, **kwargs)

    async def commit(self) -> None:
        """Commit on the primary; end what is open on a replica."""
        await greenlet_spawn(self.routed.commit)

    async def rollback(self) -> None:
        """Roll back whatever is open."""
        await greenlet_spawn(self.routed.rollback)

    def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> AsyncTransaction:
        """As psycopg's: a block that is one transaction, or a savepoint within one."""
        return AsyncTransaction(self.routed, savepoint_name, force_rollback)

    @asynccontextmanager
    async def pipeline(self) -> AsyncIterator[Any]:
        """Psycopg's pipeline, on the primary: what is in it is seen too late to be routed."""
        primary = await greenlet_spawn(self.routed.primary_connection)
        checkout = self.routed.checkout
        try:
            with checkout.unseen(asks=False):
                async with primary.real.pipeline() as pipeline:
                    sync = pipeline.sync

                    async def synced() -> None:
                        try:
                            await sync()
                        finally:
                            checkout.perhaps_committed()

                    pipeline.sync = synced
                    try:
                        yield pipeline
                    finally:
                        pipeline.sync = sync
        finally:
            if checkout.router.pinning.asks_position and not self.routed.in_transaction:
                await greenlet_spawn(checkout.ask_position)

    @property
    def autocommit(self) -> bool:
        """Whether a statement outside ``transaction()`` is a transaction of its own."""
        return self.routed.autocommit

    async def set_autocommit(self, value: bool) -> None:
        """Change `autocommit` to `value`; no transaction may be open."""
        self.routed.set_autocommit(value)

    @property
    def isolation_level(self) -> Any:
        """Of the transactions to come; None is the server's default."""
        return self.routed.isolation_level

    async def set_isolation_level(self, value: Any) -> None:
        """Change `isolation_level` to `value`; no transaction may be open."""
        self.routed.set_isolation_level(value)

    @property
    def read_only(self) -> bool | None:
        """Whether the transactions to come are READ ONLY, and so run on a replica."""
        return self.routed.read_only

    async def set_read_only(self, value: bool | None) -> None:
        """Change `read_only` to `value`; no transaction may be open."""
        self.routed.set_read_only(value)

    @property
    def deferrable(self) -> bool | None:
        """Whether the transactions to come are DEFERRABLE."""
        return self.routed.deferrable

    async def set_deferrable(self, value: bool | None) -> None:
        """Change `deferrable` to `value`; no transaction may be open."""
        self.routed.set_deferrable(value)

    async def notifies(self, **kwargs: Any) -> AsyncIterator[psycopg.Notify]:
        """Iterate over notifications, which only the primary sends; arguments as psycopg's."""
        primary = await greenlet_spawn(self.routed.session_connection)
        async for notify in primary.real.notifies(**kwargs):
            yield notify

    def add_notice_handler(self, callback: Callable[[Any], object]) -> None:
        """Call `callback` for notices of whatever server runs a statement."""
        self.routed.add_notice_handler(callback)

    def cancel(self) -> None:
        """Cancel the statement that is under way, wherever it runs."""
        self.routed.cancel()

    async def cancel_safe(self, *, timeout: float = 30.0) -> None:
        """As `cancel`, without holding up the event loop; waits `timeout` seconds at most."""
        for connection in self.routed.running():
            await connection.real.cancel_safe(timeout=timeout)

    async def primary_connection(self) -> "psycopg.AsyncConnection[Any]":
        """The connection of psycopg to the primary, on which everything stays from now on."""
        primary = await greenlet_spawn(self.routed.primary_connection)
        return real_of(primary)  # type: ignore[no-any-return]

    @property
    def closed(self) -> bool:
        """Whether it was given back."""
        return self.routed.closed

    @property
    def broken(self) -> bool:
        """Always False: a connection that breaks is replaced."""
        return False

    def __setattr__(self, key: str, value: Any) -> None:
        if key in _ASSIGNED:
            self.routed.assign(key, value)
        elif key in _AWAITED:
            raise AttributeError(f"{key!r} of an asynchronous connection: await set_{key}()")
        elif hasattr(psycopg.AsyncConnection, key) or key in _LOOKED_AT:
            raise AttributeError(
                f"{key!r} of a routed connection: set it on await primary_connection()"
            )
        else:
            object.__setattr__(self, key, value)

    def __getattr__(self, key: str) -> Any:
        if key.startswith("__"):
            raise AttributeError(key)
        for held in (self.routed.checkout.last, *self.routed.holding):
            if held is not None and not held.broken and held in self.routed.holding:
                connection = held.dbapi
                if isinstance(connection, BlockingConnection) and key in _LOOKED_AT:
                    return getattr(connection.real, key)
        raise AttributeError(
            f"{key} of a routed connection: which node's? Execute something first, or ask that of "
            "await primary_connection()"
        )

    async def close(self) -> None:
        """Give every node's connection back; what is open is rolled back."""
        if self.routed.idle:
            self.routed.close()
        else:
            await greenlet_spawn(self.routed.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await self.leave(kind)

    async def leave(self, kind: type[BaseException] | None) -> None:
        """Commit, or after an exception of `kind` roll back: what the end of a ``with`` block
        does."""
        checkout = self.routed.checkout
        if checkout.primary is not None or checkout.journal or self.routed.in_transaction:
            await greenlet_spawn(self.routed.leave, kind)
        else:
            self.routed.leave(kind)


_AWAITED = frozenset({"autocommit", "deferrable", "isolation_level", "read_only"})
_ASSIGNED = frozenset(
    {"cursor_factory", "prepare_threshold", "prepared_max", "row_factory", "server_cursor_factory"}
)
_LOOKED_AT = _ASSIGNED | {"adapters", "connection", "info", "pgconn"}
"""Attributes that are the same for every node, or of interest for the one used last."""
