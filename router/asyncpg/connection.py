"""A connection as asyncpg's users know it, whose statements are routed one by one."""

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

import asyncpg
from asyncpg import transaction as asyncpg_transaction
from sqlalchemy.util import await_only, greenlet_spawn

from router.asyncpg.checkout import AsyncpgCheckout
from router.asyncpg.errors import SessionRefused
from router.asyncpg.listeners import Kind as Watched
from router.asyncpg.listeners import as_own
from router.asyncpg.node_connection import CLOSING, DRIVER_ERRORS, AsyncpgConnection
from router.asyncpg.prepared import PreparedStatement
from router.asyncpg.source import AsyncpgSource
from router.checkout.checkout import READ, Route
from router.checkout.retry import failed_fast_read, recover, timed
from router.sql.classifier import Intent, Kind, OnStandby

if TYPE_CHECKING:
    from router.asyncpg.pool import Pool

PEEK = Intent(Kind.READ, "a session of its own is wanted")
COPY_OUT = Intent(Kind.WRITE, "COPY of a table", on_standby=OnStandby.DOUBTED)
COPY_IN = Intent(Kind.WRITE, "COPY FROM", on_standby=OnStandby.REFUSED)

_EVERY_NODES = (
    "{}: it would hold for one node's connection only, and for whoever has that next: use "
    "create_pool(init=…), which is called with each new connection"
)


class Connection:
    """What `router.asyncpg.Pool.acquire` gives: an asyncpg connection, routed.

    Outside a transaction each statement goes where the rules say. A transaction runs on the
    primary, one with ``readonly=True`` on a replica. It belongs to one task at a time.
    """

    def __init__(self, pool: "Pool", timeout: float | None = None) -> None:
        """Prepare; nothing is taken before a statement needs it.

        Args:
            pool: where node connections come from.
            timeout: seconds to wait for a node's pool; None waits for ever.
        """
        self._pool: Pool = pool
        self.timeout: float | None = timeout
        self._nodes: AsyncpgSource = AsyncpgSource(pool, timeout)
        self._routed: AsyncpgCheckout = AsyncpgCheckout(self._nodes)
        # What asyncpg's own Transaction asks a connection for.
        self._top_xact: Any = None
        self._pool_release_ctr: int = 0
        self._protocol: Connection = self
        self._ids: int = 0
        self._busy: bool = False
        self._heard: dict[tuple[str, Callable[..., Any]], Callable[..., Any]] = {}

    def __repr__(self) -> str:
        return f"<router.asyncpg.Connection {self._routed!r}>"

    def _get_unique_id(self, prefix: str) -> str:
        self._ids += 1
        return f"__router_{prefix}_{self._ids:x}__"

    # -- statements ----------------------------------------------------------------------------

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        """Run one or several statements; the last one's status.

        Raises:
            RouterError: nowhere to run it; says which node and why.
        """
        return str(await self._sent("execute", query, args, {"timeout": timeout}))

    async def executemany(self, command: str, args: Any, *, timeout: float | None = None) -> None:
        """Run a statement once for each set of arguments, all or none of them."""
        # What can be walked through but once cannot be sent a second time.
        again = isinstance(args, list | tuple)
        await self._sent("executemany", command, (args,), {"timeout": timeout}, again=again)

    def fetch(self, query: str, *args: Any, **kw: Any) -> Coroutine[Any, Any, Any]:
        """The rows of a query, as asyncpg's records."""
        return self._sent("fetch", query, args, kw)

    def fetchrow(self, query: str, *args: Any, **kw: Any) -> Coroutine[Any, Any, Any]:
        """The first row of a query, None without one."""
        return self._sent("fetchrow", query, args, kw)

    def fetchval(self, query: str, *args: Any, **kw: Any) -> Coroutine[Any, Any, Any]:
        """One value of the first row, None without a row."""
        return self._sent("fetchval", query, args, kw)

    async def fetchmany(self, query: str, args: Any, **kw: Any) -> Any:
        """The rows of a statement run once for each set of arguments."""
        again = isinstance(args, list | tuple)
        return await self._sent("fetchmany", query, (args,), kw, again=again)

    async def copy_from_query(self, query: str, *args: Any, **kw: Any) -> str:
        """Copy the rows of a query out, from the node the query is routed to."""
        return str(await self._sent("copy_from_query", query, args, kw, again=False))

    async def copy_from_table(self, table_name: str, **kw: Any) -> str:
        """Copy a table out, from the primary."""
        return str(await self._unseen(COPY_OUT, "copy_from_table", table_name, **kw))

    async def copy_to_table(self, table_name: str, **kw: Any) -> str:
        """Copy into a table."""
        return str(await self._unseen(COPY_IN, "copy_to_table", table_name, **kw))

    async def copy_records_to_table(self, table_name: str, **kw: Any) -> str:
        """Copy records into a table."""
        return str(await self._unseen(COPY_IN, "copy_records_to_table", table_name, **kw))

    def cursor(self, query: str, *args: Any, **kw: Any) -> "CursorFactory":
        """A cursor over a query, where the open transaction is; as asyncpg's, it needs one."""
        return CursorFactory(self, query, args, kw)

    async def prepare(self, query: str, **kw: Any) -> PreparedStatement:
        """A prepared statement on the primary; it has all that asyncpg's have.

        It belongs to one server session, so this connection stays with the primary from now on.
        Within a read-only transaction on a replica it is prepared there, and ends with that.

        Raises:
            SessionRefused: PgBouncer pools by transaction there, and ``session_url`` is not given.
        """

        def call(held: AsyncpgConnection) -> PreparedStatement:
            real = await_only(held.con.prepare(query, **kw))
            return PreparedStatement(self._routed, held, query, real)

        if (replica := self._reading_only()) is not None:
            self._routed.must_not_act(self._routed.router.intent(query))
            made: PreparedStatement = await self._spawned(self._sessions, replica, call)
        else:
            made = await self._spawned(self._bound, "prepare", call)
        return made

    async def add_listener(self, channel: str, callback: Callable[..., Any]) -> None:
        """Call `callback` for notifications on a channel, which only the primary sends.

        This connection stays with the primary from now on.

        Raises:
            SessionRefused: PgBouncer pools by transaction there, and ``session_url`` is not given.
            asyncpg.InterfaceError: a read-only transaction is open on a replica.
        """
        heard = as_own(self, callback)

        def call(held: AsyncpgConnection) -> None:
            await_only(held.con.add_listener(channel, heard))

        await self._spawned(self._bound, "LISTEN", call)
        self._heard[channel, callback] = heard

    async def remove_listener(self, channel: str, callback: Callable[..., Any]) -> None:
        """Call `callback` no more for that channel."""
        heard = self._heard.pop((channel, callback), None)
        primary = self._routed.primary
        if heard is not None and primary is not None:
            await primary.con.remove_listener(channel, heard)

    async def primary_connection(self) -> Any:
        """The connection of asyncpg's to the primary, on which this one stays from now on.

        For whatever is not routed: what is done with it cannot be seen.

        Raises:
            asyncpg.InterfaceError: a read-only transaction is open on a replica.
        """
        return (await self._spawned(self._bound, "", lambda held: held)).con

    def _reading_only(self) -> AsyncpgConnection | None:
        """The replica on which a read-only transaction is open, which takes what comes."""
        primary, replica = self._routed.primary, self._routed.replica
        if replica is None or not replica.in_transaction:
            return None
        return None if primary is not None and primary.in_transaction else replica

    def _bound(self, what: str, call: Callable[[AsyncpgConnection], Any]) -> Any:
        routed = self._routed
        if self._reading_only() is not None:
            raise asyncpg.InterfaceError(
                f"{what or 'primary_connection'}: a read-only transaction is open on a replica, "
                "and this needs the primary: do it before that transaction, or on a connection of "
                "its own"
            )
        primary = routed.router.primary
        if (
            what
            and primary is not None
            and routed.router.shares_sessions(primary)
            and not routed.dedicated
        ):
            try:
                routed.route(None, explicit=False, force="session", intent=PEEK)
            except SessionRefused:
                raise SessionRefused(
                    f"{what} needs a server session of its own, and PgBouncer gives none by "
                    "transaction: give session_url, which leads past PgBouncer"
                ) from None
        return self._sessions(routed.bind_primary(), call)

    def _sessions(self, held: AsyncpgConnection, call: Callable[[AsyncpgConnection], Any]) -> Any:
        held.touched = True
        try:
            return call(held)
        except DRIVER_ERRORS as error:
            # Nothing else ends the session: what timed out or was cancelled asyncpg sees to.
            held.report_failure(error)
            raise

    # -- transactions --------------------------------------------------------------------------

    def transaction(
        self, *, isolation: Any = None, readonly: bool = False, deferrable: bool = False
    ) -> "Transaction":
        """A transaction of asyncpg's own: on the primary, with `readonly` on a replica."""
        return Transaction(self, isolation, readonly, deferrable)

    def is_in_transaction(self) -> bool:
        """Whether a transaction is open on a node held."""
        routed = self._routed
        return any(h is not None and h.in_transaction for h in (routed.primary, routed.replica))

    # -- what is looked at ---------------------------------------------------------------------

    def is_closed(self) -> bool:
        """Whether it was given back, or the server session ended that it depends on."""
        return not self._routed.open or self._routed.gone

    def _held(self) -> list[AsyncpgConnection]:
        routed = self._routed
        return [held for held in (routed.primary, routed.replica) if held is not None]

    def _one(self, what: str) -> Any:
        routed = self._routed
        for held in self._held():
            if held.in_transaction or (routed.bound and held is routed.primary):
                return held.con
        raise asyncpg.InterfaceError(
            f"{what}: statements of this connection may run in several server sessions: ask "
            "within a transaction, or after add_listener or prepare"
        )

    def get_server_pid(self) -> int:
        """The server process of the session this connection is bound to, or in a transaction in.

        Raises:
            asyncpg.InterfaceError: its statements may run in several.
        """
        return int(self._one("get_server_pid").get_server_pid())

    def get_settings(self) -> Any:
        """The settings of that session; raises as `get_server_pid`."""
        return self._one("get_settings").get_settings()

    def get_server_version(self) -> Any:
        """The version of the servers, as any that was connected to says.

        Raises:
            asyncpg.InterfaceError: none was connected to yet.
        """
        if self._pool.version is None:
            raise asyncpg.InterfaceError("no server was connected to yet: execute something first")
        return self._pool.version

    async def reload_schema_state(self) -> None:
        """Have types looked up anew, by every node's connection that is held."""
        for held in self._held():
            await held.con.reload_schema_state()

    # -- what is told --------------------------------------------------------------------------

    def add_log_listener(self, callback: Callable[..., Any]) -> None:
        """Call `callback` with what servers have to say about this connection's statements."""
        self._watch("log_listener", callback, as_own(self, callback))

    def remove_log_listener(self, callback: Callable[..., Any]) -> None:
        """Call it no more."""
        self._unwatch("log_listener", callback)

    def add_query_logger(self, callback: Callable[..., Any]) -> None:
        """Call `callback` after each statement, on whatever node it ran."""
        self._watch("query_logger", callback, callback)

    def remove_query_logger(self, callback: Callable[..., Any]) -> None:
        """Call it no more."""
        self._unwatch("query_logger", callback)

    @contextlib.contextmanager
    def query_logger(self, callback: Callable[..., Any]) -> Iterator[None]:
        """As `add_query_logger`, for the length of a block."""
        self.add_query_logger(callback)
        try:
            yield
        finally:
            self.remove_query_logger(callback)

    def add_termination_listener(self, callback: Callable[..., Any]) -> None:
        """Call `callback` when the server session ends that this connection depends on.

        That is the one it listens, prepared or locked in; any other is replaced unseen.
        """
        own = as_own(self, callback)

        def ended(con: Any) -> Any:
            routed = self._routed
            primary = routed.primary
            bound = routed.bound and primary is not None and primary.con is con
            return own(con) if bound or routed.gone else None

        if inspect.iscoroutinefunction(callback):

            async def later(con: Any) -> None:
                if (waits := ended(con)) is not None:
                    await waits

            self._watch("termination_listener", callback, later)
        else:
            self._watch("termination_listener", callback, ended)

    def remove_termination_listener(self, callback: Callable[..., Any]) -> None:
        """Call it no more."""
        self._unwatch("termination_listener", callback)

    def _watch(self, kind: Watched, callback: Any, told: Any) -> None:
        listeners = self._nodes.listeners
        listeners.remove(kind, callback, [held.con for held in self._held()])
        listeners.add(kind, callback, told)
        for held in self._held():
            getattr(held.con, f"add_{kind}")(told)

    def _unwatch(self, kind: Watched, callback: Any) -> None:
        self._nodes.listeners.remove(kind, callback, [held.con for held in self._held()])

    # -- what cannot be had --------------------------------------------------------------------

    async def set_type_codec(self, *args: Any, **kw: Any) -> NoReturn:
        """Refused: use the pool's ``init``."""
        raise asyncpg.UnsupportedClientFeatureError(_EVERY_NODES.format("set_type_codec"))

    async def reset_type_codec(self, *args: Any, **kw: Any) -> NoReturn:
        """Refused: use the pool's ``init``."""
        raise asyncpg.UnsupportedClientFeatureError(_EVERY_NODES.format("reset_type_codec"))

    async def set_builtin_type_codec(self, *args: Any, **kw: Any) -> NoReturn:
        """Refused: use the pool's ``init``."""
        raise asyncpg.UnsupportedClientFeatureError(_EVERY_NODES.format("set_builtin_type_codec"))

    # -- on their way --------------------------------------------------------------------------

    async def _sent(
        self, method: str, query: str, args: Any, kw: dict[str, Any], *, again: bool = True
    ) -> Any:
        routed = self._routed
        context = routed.fast_read_on_primary(query)
        if context is not None and (held := routed.primary) is not None:
            try:
                send = getattr(held.con, method)
                # Spread arguments make a call slow, empty ones too.
                result = await (send(query, *args, **kw) if args or kw else send(query))
            except BaseException as error:
                failed_fast_read(routed, held, error)
                raise
            if not context.root:
                routed.router.read(context, held.node)
            return result
        if not routed.router.instrumented:
            route = routed.route_without_waiting(query)
            if route is not None:
                return await self._at_once(route, method, query, args, kw, again=again)

        def call(held: AsyncpgConnection, text: str = query) -> Any:
            return await_only(getattr(held.con, method)(text, *args, **kw))

        return await self._spawned(self._run, query, call, args, again)

    async def _at_once(
        self,
        route: Route[AsyncpgConnection],
        method: str,
        query: str,
        args: Any,
        kw: dict[str, Any],
        *,
        again: bool,
    ) -> Any:
        """A statement for which nothing has to be prepared: no greenlet, unless it fails."""
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
            held.broken = True
            raise
        if route.intent.kind is not READ:
            held.touched = True
        route.done(args)
        return result

    async def _unseen(self, intent: Intent, method: str, *args: Any, **kw: Any) -> Any:
        def call(held: AsyncpgConnection, text: str = "") -> Any:
            return await_only(getattr(held.con, method)(*args, **kw))

        return await self._spawned(self._run, None, call, None, False, intent)

    async def _spawned(self, run: Callable[..., Any], *args: Any) -> Any:
        """`run` in a greenlet, one at a time: two would each take a connection of the same node.

        Raises:
            asyncpg.InterfaceError: another task has this connection do something; as asyncpg's.
        """
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
        self,
        sql: str | None,
        call: Callable[..., Any],
        args: Any,
        again: bool,
        intent: Intent | None = None,
    ) -> Any:
        routed = self._routed
        # As asyncpg's Transaction sends them.
        if sql in ("COMMIT;", "ROLLBACK;") and self.is_in_transaction():
            routed.commit() if sql == "COMMIT;" else routed.rollback()
            return sql[:-1]
        route: Route[AsyncpgConnection] = routed.route(sql, explicit=False, intent=intent)
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
            route.held.broken = True
            raise
        route.done(args)
        return result

    # -- its end -------------------------------------------------------------------------------

    async def close(self, *, timeout: float | None = None) -> None:
        """Give it back to the pool."""
        await self._pool.release(self, timeout=timeout)

    def terminate(self) -> None:
        """Close the nodes' connections at once; what is open on them is rolled back."""
        for held in self._held():
            if not held.gone:
                held.con.terminate()
        self._pool_release_ctr += 1
        self._routed.finish()
        self._pool.returned(self)

    def get_reset_query(self) -> str:
        """Empty: node connections are reset as they go back to their pools."""
        return ""

    async def reset(self, *, timeout: float | None = None) -> None:
        """Make it as new: what is open is rolled back, and nothing stays of settings, cursors,
        locks, listeners and log listeners.

        Args:
            timeout: seconds; None waits for ever.
        """
        if not self._routed.open:
            raise self._routed.closed_error()
        async with asyncio.timeout(timeout):
            await self._give_back()
        self._nodes.listeners.forget("log_listener")
        self._top_xact = None
        self._routed = AsyncpgCheckout(self._nodes)

    async def _close(self) -> None:
        """Give every node's connection back; what is open is rolled back."""
        self._pool_release_ctr += 1
        try:
            await self._give_back()
        finally:
            self._pool.returned(self)

    async def _give_back(self) -> None:
        routed = self._routed
        if self._heard:
            routed.open = False
            await self._pool.to_its_end(self._fall_silent(routed))
            return
        replica = routed.replica
        if routed.primary is None and (replica is None or replica.idle):
            routed.finish()
            if replica is not None:
                await replica.put()
            return
        await greenlet_spawn(routed.release)

    async def _fall_silent(self, routed: AsyncpgCheckout) -> None:
        """Listen no more, of which asyncpg's pool would warn, and give back whatever comes."""
        try:
            async with asyncio.timeout(CLOSING):
                for channel, callback in list(self._heard):
                    with contextlib.suppress(*DRIVER_ERRORS):
                        await self.remove_listener(channel, callback)
        except TimeoutError:
            if routed.primary is not None:
                routed.primary.broken = True
        finally:
            await greenlet_spawn(routed.release)


def _recovered(
    route: Route[AsyncpgConnection],
    error: Exception,
    call: Callable[[AsyncpgConnection], Any],
    again: bool,
) -> Any:
    result: Any = None

    def attempt(held: AsyncpgConnection) -> None:
        nonlocal result
        result = call(held)

    if not again:
        route.fresh = False  # of what it copies, rows may have been delivered
    recover(route, error, None, attempt)
    return result


class Transaction(asyncpg_transaction.Transaction):
    """asyncpg's, which takes itself for open before its BEGIN has been sent."""

    __slots__ = ()

    async def start(self) -> None:
        """Enter the transaction or savepoint block."""
        connection: Any = self._connection
        try:
            await super().start()
        except BaseException:
            if connection._top_xact is self and not connection.is_in_transaction():
                connection._top_xact = None
            raise


class CursorFactory:
    """A cursor that is awaited, or iterated over with ``async for``, as asyncpg's."""

    __slots__ = ("_args", "_connection", "_kw", "_query")

    def __init__(self, connection: Connection, query: str, args: Any, kw: dict[str, Any]) -> None:
        self._connection: Connection = connection
        self._query: str = query
        self._args: Any = args
        self._kw: dict[str, Any] = kw

    async def _real(self) -> Any:
        def make(held: AsyncpgConnection, text: str = "") -> Any:
            return held.con.cursor(self._query, *self._args, **self._kw)

        connection = self._connection
        run = connection._run
        return await connection._spawned(run, self._query, make, self._args, False)

    def __await__(self) -> Generator[Any, None, Any]:
        return self._open().__await__()

    async def _open(self) -> Any:
        return await (await self._real())

    async def __aiter__(self) -> AsyncIterator[Any]:
        async for row in await self._real():
            yield row


class Acquiring:
    """What `Pool.acquire` returns: awaited or entered, it is a connection."""

    __slots__ = ("_connection", "_pool", "_timeout")

    def __init__(self, pool: "Pool", timeout: float | None) -> None:
        self._pool: Pool = pool
        self._timeout: float | None = timeout
        self._connection: Connection | None = None

    def __await__(self) -> Generator[Any, None, Connection]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> Connection:
        self._connection = await self._pool.connection(self._timeout)
        return self._connection

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await self._pool.release(connection)
