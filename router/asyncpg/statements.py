"""Statements of a routed asyncpg connection, each sent where the rules say."""

import os
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from typing import Any

import asyncpg

from router.asyncpg.checkout import AsyncpgCheckout
from router.asyncpg.node_connection import AsyncpgConnection
from router.checkout.retry import failed_fast_read, failed_midway, recover
from router.checkout.route import Route, timed
from router.greenlets import await_only, greenlet_spawn
from router.rules.decide import READ
from router.sql.intent import Intent, Kind, OnStandby

COPY_OUT = Intent(Kind.WRITE, "COPY of a table", on_standby=OnStandby.DOUBTED)
COPY_IN = Intent(Kind.WRITE, "COPY FROM", on_standby=OnStandby.REFUSED)


MANY = frozenset({"executemany", "fetchmany"})
"""Methods that run a statement once for each set of arguments."""


def always() -> bool:
    """A statement may be sent again, as most may."""
    return True


def never() -> bool:
    """A statement may be sent once only."""
    return False


class Taken:
    """What takes the rows of a COPY, the user's `output` as asyncpg knows it, and whether it has
    taken any: until then the COPY may run elsewhere."""

    def __init__(self, output: Any) -> None:
        self._output: Any = output
        self._took: bool = False

    def nothing(self) -> bool:
        """Whether it has taken nothing yet."""
        return not self._took

    def output(self) -> Any:
        """What asyncpg is given in its place. A path it opens, and empties, each time itself."""
        if isinstance(self._output, str | bytes | os.PathLike):
            return self._output
        if hasattr(self._output, "write"):
            return self
        return self._take if callable(self._output) else self._output

    def write(self, data: bytes) -> Any:
        """Have a file take `data`."""
        self._took = True
        return self._output.write(data)

    async def _take(self, data: bytes) -> None:
        self._took = True
        await self._output(data)


class Statements:
    """Runs statements with the names that asyncpg's connection has for it."""

    _routed: AsyncpgCheckout

    def __init__(self) -> None:
        self._busy: bool = False

    def is_in_transaction(self) -> bool:
        """Whether a transaction is open on a node held."""
        routed = self._routed
        return any(h is not None and h.in_transaction for h in (routed.primary, routed.replica))

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        """As asyncpg's: run one or several statements; the last one's status. Raises
        RouterError: nowhere to run it; says which node and why."""
        return str(await self._sent("execute", query, args, {"timeout": timeout}))

    async def executemany(self, command: str, args: Any, *, timeout: float | None = None) -> None:
        """As asyncpg's: run a statement once for each set of arguments, all or none of them."""
        # An iterator can be walked through once only, and so cannot be sent a second time.
        again = isinstance(args, list | tuple)
        sets = (self._routed.repeatable(command, args),)
        await self._sent("executemany", command, sets, {"timeout": timeout}, lambda: again)

    def fetch(self, query: str, *args: Any, **kw: Any) -> Coroutine[Any, Any, Any]:
        """As asyncpg's: the rows of `query` as its records."""
        return self._sent("fetch", query, args, kw)

    def fetchrow(self, query: str, *args: Any, **kw: Any) -> Coroutine[Any, Any, Any]:
        """The first row of a query, None without one."""
        return self._sent("fetchrow", query, args, kw)

    def fetchval(self, query: str, *args: Any, **kw: Any) -> Coroutine[Any, Any, Any]:
        """As asyncpg's: one value of the first row, None without a row."""
        return self._sent("fetchval", query, args, kw)

    async def fetchmany(self, query: str, args: Any, **kw: Any) -> Any:
        """As asyncpg's: the rows of a statement run once for each set of arguments."""
        again = isinstance(args, list | tuple)
        sets = (self._routed.repeatable(query, args),)
        return await self._sent("fetchmany", query, sets, kw, lambda: again)

    async def copy_from_query(self, query: str, *args: Any, output: Any, **kw: Any) -> str:
        """Copy the rows of a query out, from the node the query is routed to."""
        taken = Taken(output)
        kw["output"] = taken.output()
        return str(await self._sent("copy_from_query", query, args, kw, taken.nothing))

    async def copy_from_table(self, table_name: str, **kw: Any) -> str:
        """As asyncpg's: copy a table out, from the primary."""
        return str(await self._unseen(COPY_OUT, "copy_from_table", table_name, **kw))

    async def copy_to_table(self, table_name: str, **kw: Any) -> str:
        """As asyncpg's: copy into a table."""
        return str(await self._unseen(COPY_IN, "copy_to_table", table_name, **kw))

    async def copy_records_to_table(self, table_name: str, **kw: Any) -> str:
        """As asyncpg's: copy records into a table."""
        return str(await self._unseen(COPY_IN, "copy_records_to_table", table_name, **kw))

    def cursor(self, query: str, *args: Any, **kw: Any) -> "CursorFactory":
        """A cursor over a query, where the open transaction is; as asyncpg's, it needs one."""
        return CursorFactory(self, query, args, kw)

    async def _sent(
        self, method: str, query: str, args: Any, kw: dict[str, Any],
        again: Callable[[], bool] = always,
    ) -> Any:  # fmt: skip
        routed = self._routed
        context = routed.fast_read_on_primary(query)
        if context is not None and (held := routed.primary) is not None:
            try:
                send = getattr(held.con, method)
                # Spread arguments make a call slow, even empty ones.
                result = await (send(query, *args, **kw) if args or kw else send(query))
            except BaseException as error:
                failed_fast_read(routed, held, error)
                raise
            if not context.root:
                routed.router.pinning.read(context, held.node)
            return result
        if not routed.router.instrumented:
            route = routed.route_without_waiting(query)
            if route is not None:
                return await self._at_once(route, method, query, args, kw, again)

        def call(held: AsyncpgConnection, text: str = query) -> Any:
            return await_only(getattr(held.con, method)(text, *args, **kw))

        return await self._spawned(self._run, query, call, args, again, method in MANY)

    async def _at_once(
        self, route: Route[AsyncpgConnection], method: str, query: str, args: Any,
        kw: dict[str, Any], again: Callable[[], bool],
    ) -> Any:  # fmt: skip
        """Run a statement for which nothing has to be prepared: no greenlet, unless it fails."""
        held = route.held
        route.begin()
        try:
            send = getattr(held.con, method)
            result = await (send(query, *args, **kw) if args or kw else send(query))
        except Exception as error:  # noqa: BLE001 - raised again unless the rules allow more

            def call(held: AsyncpgConnection) -> Any:
                return await_only(getattr(held.con, method)(query, *args, **kw))

            result = await greenlet_spawn(_recovered, route, error, call, again)
        except BaseException:
            held.interrupted(route.intent)
            raise
        if route.intent.kind is not READ:
            held.touched = True
        route.done(args)
        return result

    async def _unseen(self, intent: Intent, method: str, *args: Any, **kw: Any) -> Any:
        def call(held: AsyncpgConnection, text: str = "") -> Any:
            return await_only(getattr(held.con, method)(*args, **kw))

        return await self._spawned(self._run, None, call, None, never, False, intent)

    async def _spawned(self, run: Callable[..., Any], *args: Any) -> Any:
        """`run` in a greenlet, one at a time: two would each take a connection of the same
        node. Raises asyncpg.InterfaceError: another task has this connection do something; as
        asyncpg's."""
        if self._busy:
            raise asyncpg.InterfaceError(
                "cannot perform operation: another operation is in progress"
            )
        self._busy = True
        try:
            return await greenlet_spawn(run, *args)
        finally:
            self._busy = False

    def _run(
        self, sql: str | None, call: Callable[..., Any], args: Any, again: Callable[[], bool],
        many: bool = False, intent: Intent | None = None,
    ) -> Any:  # fmt: skip
        routed = self._routed
        # Asyncpg's Transaction sends these two texts.
        if sql in ("COMMIT;", "ROLLBACK;") and self.is_in_transaction():
            routed.commit() if sql == "COMMIT;" else routed.rollback()
            return sql[:-1]
        args = args[0] if many else args
        route: Route[AsyncpgConnection] = routed.route(
            sql, explicit=False, many=many, parameters=args, intent=intent
        )
        commented = sql is not None and routed.router.config.sql_comment

        def run(held: AsyncpgConnection) -> Any:
            if route.intent.kind is not READ:
                held.touched = True
            return call(held, f"{sql}{route.comment()}") if commented else call(held)

        attempt = timed(route, run)
        route.begin()
        try:
            result = attempt(route.held)
        except Exception as error:  # noqa: BLE001 - raised again unless the rules allow more
            result = _recovered(route, error, attempt, again)
        except BaseException:
            route.held.interrupted(route.intent)
            raise
        route.done(args)
        return result


def _recovered(
    route: Route[AsyncpgConnection],
    error: Exception,
    call: Callable[[AsyncpgConnection], Any],
    again: Callable[[], bool],
) -> Any:
    result: Any = None

    def attempt(held: AsyncpgConnection) -> None:
        nonlocal result
        result = call(held)

    if not again():
        failed_midway(route, error, None)
        route.fresh = False
    recover(route, error, None, attempt)
    return result


class CursorFactory:
    """A cursor that is awaited, or iterated over with ``async for``, as asyncpg's."""

    __slots__ = ("_args", "_connection", "_kw", "_query")

    def __init__(self, connection: Statements, query: str, args: Any, kw: dict[str, Any]) -> None:
        self._connection: Statements = connection
        self._query: str = query
        self._args: Any = args
        self._kw: dict[str, Any] = kw

    async def _real(self) -> Any:
        def make(held: AsyncpgConnection, text: str = "") -> Any:
            return held.con.cursor(self._query, *self._args, **self._kw)

        connection, query, args = self._connection, self._query, self._args
        intent = connection._routed.intent_of(query, args, rows=True)
        run = connection._run
        return await connection._spawned(run, query, make, args, never, False, intent)

    def __await__(self) -> Generator[Any, None, Any]:
        return self._open().__await__()

    async def _open(self) -> Any:
        return await (await self._real())

    async def __aiter__(self) -> AsyncIterator[Any]:
        async for row in await self._real():
            yield row
