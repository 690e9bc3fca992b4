"""A connection as asyncpg's users know it, whose statements are routed one by one."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Generator
from typing import TYPE_CHECKING, Any, Literal

import asyncpg
from asyncpg.transaction import Transaction
from sqlalchemy.util import await_only, greenlet_spawn

from router.checkout import Checkout, Route
from router.config import masked
from router.errors import RouterError, SessionRefused
from router.held import Characteristics, Held
from router.model import Node
from router.recovery import recover, timed

if TYPE_CHECKING:
    from router.asyncpg.pool import Pool
    from router.core import Router

DRIVER_ERRORS: tuple[type[Exception], ...] = (
    ConnectionError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)


class PoolTimeout(RouterError, TimeoutError):
    """No connection of a node's pool was free in time; the node itself may be well."""


class NodeConnection(Held):
    """One node's connection of asyncpg while a checkout holds it."""

    __slots__ = ("con", "nodes", "pool", "settings")

    def __init__(self, nodes: "Nodes", node: Node, pool: Any, con: Any) -> None:
        self.nodes: Nodes = nodes
        self.pool: Any = pool
        self.con: Any = con
        # A pool of asyncpg's resets what comes back to it: nothing outlives the checkout.
        self.settings: dict[str, str] = {}
        super().__init__(node, in_transaction=False)

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What the driver raises."""
        return self.nodes.driver_errors

    @property
    def first_settings(self) -> dict[str, str]:
        """Values that changed settings had when the connection was taken."""
        return self.settings

    def autocommit(self, value: bool) -> None:
        """Begin a transaction for False; asyncpg has no other mode than autocommit."""
        if not value:
            await_only(self.con.execute("BEGIN"))

    def run(self, sql: str, parameters: Any = None) -> None:
        """Run a statement whose rows nobody wants."""
        await_only(self.con.execute(sql, *(parameters or ())))

    def ask(self, sql: str) -> tuple[Any, ...]:
        """The one row a query gives."""
        return tuple(await_only(self.con.fetchrow(sql)))

    def look(self) -> bool:
        """Whether the server has a transaction open."""
        return bool(self.con.is_in_transaction())

    def end(self, verb: Literal["commit", "rollback"]) -> None:
        """End the open transaction, whoever began it."""
        await_only(self.con.execute(verb.upper()))

    def characterise(self, wanted: Characteristics) -> None:
        """Take note: asyncpg's transactions say in their BEGIN what they are."""
        self.characteristics: Characteristics = wanted

    def lost(self, error: Any, cursor: Any = None) -> bool:
        """Whether the server, or the way to it, is gone; if so, the node is blacklisted."""
        nodes = self.nodes
        state = nodes.sqlstate(error)
        closed = bool(self.con.is_closed()) or isinstance(error, ConnectionError)
        if not closed and not nodes.router.lost(state):
            return False
        self.broken: bool = (
            self.broken or closed or state[:2] == "08" or state in ("57P01", "57P02")
        )
        nodes.router.failed(self.node, nodes.reason(error))
        return True

    def give_back(self) -> None:
        """Give it to its pool, to be used again."""
        await_only(self.pool.release(self.con))

    def discard(self, *, distrust: bool) -> None:
        """Close it; with `distrust`, whatever else its pool holds is opened anew as well."""
        if not self.con.is_closed():
            self.con.terminate()
        await_only(self.pool.release(self.con))
        if distrust:
            await_only(self.pool.expire_connections())


class Nodes:
    """A pool's nodes as one checkout sees them, with the time it may wait for a connection."""

    __slots__ = ("pool", "router", "timeout")

    default_isolation = "AUTOCOMMIT"

    def __init__(self, pool: "Pool", timeout: float | None) -> None:
        self.pool: Pool = pool
        self.router: Router = pool.router
        self.timeout: float | None = timeout

    @property
    def driver_errors(self) -> tuple[type[Exception], ...]:
        """What asyncpg raises for a server's sake; never the time-out of a statement."""
        return DRIVER_ERRORS

    def start_router(self) -> None:
        """Start the Router, while the event loop runs on."""
        await_only(asyncio.to_thread(self.router.start))

    def hold(self, node: Node) -> NodeConnection:
        """A pooled connection to `node`.

        Raises:
            PoolTimeout: none was free in time; names the node and the cure.
        """
        pool = self.pool.node_pool(node)
        try:
            con = await_only(pool.acquire(timeout=self.timeout))
        except TimeoutError:
            raise PoolTimeout(
                f"{node}: no connection of its pool was free for {self.timeout:g} s: raise "
                "max_size, or hold connections for less time"
            ) from None
        return NodeConnection(self, node, pool, con)

    def probe(self, held: NodeConnection) -> None:
        """Probe a node over a connection held, and tell the Router."""
        await_only(self.pool.probe(held.node, held.con))

    def sqlstate(self, error: BaseException) -> str:
        """The five-character code of an error, empty when the server sent none."""
        return getattr(error, "sqlstate", None) or ""

    def reason(self, error: BaseException) -> str:
        """The error as one line for people: SQLSTATE and message, without secrets."""
        state = self.sqlstate(error)
        text = masked(" ".join(str(error).split())) or type(error).__name__
        return f"{state}: {text}" if state else text

    def translated(self, error: RouterError) -> Exception:
        """The core's own errors are this adapter's."""
        return error


class _Checkout(Checkout[NodeConnection]):
    def closed_error(self) -> Exception:
        error: Exception = asyncpg.InterfaceError(
            "this connection was given back to the pool: acquire another one"
        )
        return error


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
        self._routed: _Checkout = _Checkout(Nodes(pool, timeout))
        # What asyncpg's own Transaction asks a connection for.
        self._top_xact: Any = None
        self._pool_release_ctr: int = 0
        self._protocol: Connection = self
        self._ids: int = 0
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
        return str(await self._sent("execute", query, args, timeout=timeout))

    async def executemany(self, command: str, args: Any, *, timeout: float | None = None) -> None:
        """Run a statement once for each set of arguments, all or none of them."""
        # What can be walked through but once cannot be sent a second time.
        again = isinstance(args, list | tuple)
        await self._sent("executemany", command, (args,), again=again, timeout=timeout)

    async def fetch(self, query: str, *args: Any, timeout: float | None = None, **kw: Any) -> Any:
        """The rows of a query, as asyncpg's records."""
        return await self._sent("fetch", query, args, timeout=timeout, **kw)

    async def fetchrow(
        self, query: str, *args: Any, timeout: float | None = None, **kw: Any
    ) -> Any:
        """The first row of a query, None without one."""
        return await self._sent("fetchrow", query, args, timeout=timeout, **kw)

    async def fetchval(
        self, query: str, *args: Any, timeout: float | None = None, **kw: Any
    ) -> Any:
        """One value of the first row, None without a row."""
        return await self._sent("fetchval", query, args, timeout=timeout, **kw)

    async def copy_from_query(self, query: str, *args: Any, **kw: Any) -> str:
        """Copy the rows of a query out, from the node the query is routed to."""
        return str(await self._sent("copy_from_query", query, args, again=False, **kw))

    async def copy_from_table(self, table_name: str, **kw: Any) -> str:
        """Copy a table out, from the primary."""
        return str(await self._unseen("copy_from_table", table_name, **kw))

    async def copy_to_table(self, table_name: str, **kw: Any) -> str:
        """Copy into a table."""
        return str(await self._unseen("copy_to_table", table_name, **kw))

    async def copy_records_to_table(self, table_name: str, **kw: Any) -> str:
        """Copy records into a table."""
        return str(await self._unseen("copy_records_to_table", table_name, **kw))

    def cursor(self, query: str, *args: Any, **kw: Any) -> "CursorFactory":
        """A cursor over a query, where the open transaction is; as asyncpg's, it needs one."""
        return CursorFactory(self, query, args, kw)

    async def prepare(self, query: str, **kw: Any) -> Any:
        """A prepared statement of asyncpg's own, on the primary.

        It belongs to one server session, so this connection stays with the primary from now on.

        Raises:
            SessionRefused: PgBouncer pools by transaction there.
        """

        def call(held: NodeConnection) -> Any:
            return await_only(held.con.prepare(query, **kw))

        return await greenlet_spawn(self._bound, "prepare", call)

    async def add_listener(self, channel: str, callback: Callable[..., Any]) -> None:
        """Call `callback` for notifications on a channel, which only the primary sends.

        This connection stays with the primary from now on.

        Raises:
            SessionRefused: PgBouncer pools by transaction there.
        """

        def heard(_con: Any, pid: int, name: str, payload: str) -> Any:
            return callback(self, pid, name, payload)

        def call(held: NodeConnection) -> None:
            await_only(held.con.add_listener(channel, heard))

        await greenlet_spawn(self._bound, "LISTEN", call)
        self._heard[channel, callback] = heard

    async def remove_listener(self, channel: str, callback: Callable[..., Any]) -> None:
        """Call `callback` no more for that channel."""
        heard = self._heard.pop((channel, callback), None)
        primary = self._routed.primary
        if heard is not None and primary is not None:
            await primary.con.remove_listener(channel, heard)

    def _bound(self, what: str, call: Callable[[NodeConnection], Any]) -> Any:
        primary = self._routed.router.primary
        if primary is not None and self._routed.router.pools(primary):
            raise SessionRefused(
                f"{what} needs a server session of its own, and PgBouncer gives none by "
                "transaction: use a pool made from session_url, which leads past PgBouncer"
            )
        held = self._routed.bind_primary()
        try:
            return call(held)
        except DRIVER_ERRORS as error:
            held.lost(error)
            raise
        except BaseException:
            held.broken = True
            raise

    def transaction(
        self, *, isolation: Any = None, readonly: bool = False, deferrable: bool = False
    ) -> Transaction:
        """A transaction of asyncpg's own: on the primary, with `readonly` on a replica."""
        return Transaction(self, isolation, readonly, deferrable)

    def is_in_transaction(self) -> bool:
        """Whether a transaction is open on a node held."""
        routed = self._routed
        return any(h is not None and h.in_transaction for h in (routed.primary, routed.replica))

    def is_closed(self) -> bool:
        """Whether it was given back to its pool."""
        return not self._routed._open

    # -- on their way --------------------------------------------------------------------------

    async def _sent(
        self, method: str, query: str, args: Any, *, again: bool = True, **kw: Any
    ) -> Any:
        route = self._routed.ready(query)
        if route is not None and not self._routed.router.watching:
            return await self._within(route, method, args, kw)

        def call(held: NodeConnection) -> Any:
            return await_only(getattr(held.con, method)(query, *args, **kw))

        return await greenlet_spawn(self._run, query, call, args, again)

    async def _within(
        self, route: Route[NodeConnection], method: str, args: Any, kw: dict[str, Any]
    ) -> Any:
        """A statement for which nothing has to be prepared: no greenlet, half the time."""
        route.begin()
        try:
            result = await getattr(route.held.con, method)(route.sql, *args, **kw)
        except Exception as error:
            # In a transaction nothing runs again: this only tells the Router of a lost server.
            await greenlet_spawn(recover, route, error, None, _never)
            raise
        except BaseException:
            route.held.broken = True
            raise
        route.done(args)
        return result

    async def _unseen(self, method: str, *args: Any, **kw: Any) -> Any:
        def call(held: NodeConnection) -> Any:
            return await_only(getattr(held.con, method)(*args, **kw))

        return await greenlet_spawn(self._run, None, call, None, False)

    def _run(
        self, sql: str | None, call: Callable[[NodeConnection], Any], args: Any, again: bool
    ) -> Any:
        routed = self._routed
        # As asyncpg's Transaction sends them.
        if sql in ("COMMIT;", "ROLLBACK;") and self.is_in_transaction():
            routed.commit() if sql == "COMMIT;" else routed.rollback()
            return sql[:-1]
        route: Route[NodeConnection] = routed.route(sql, explicit=False)
        result: Any = None

        def run(held: NodeConnection) -> None:
            nonlocal result
            result = call(held)

        run = timed(route, run)
        route.begin()
        try:
            run(route.held)
        except Exception as error:  # noqa: BLE001 - raised again unless the rules allow more
            if not again:
                route.fresh = False  # of what it copies, rows may have been delivered
            recover(route, error, None, run)
        except BaseException:
            route.held.broken = True
            raise
        route.done(args)
        return result

    async def _close(self) -> None:
        """Give every node's connection back; what is open is rolled back."""
        self._pool_release_ctr += 1
        for channel, callback in list(self._heard):
            # asyncpg's pool warns of listeners that were left.
            with contextlib.suppress(*DRIVER_ERRORS):
                await self.remove_listener(channel, callback)
        await greenlet_spawn(self._routed.release)


def _never(held: NodeConnection) -> None:
    raise AssertionError(held)


class CursorFactory:
    """A cursor that is awaited, or iterated over with ``async for``, as asyncpg's."""

    __slots__ = ("_args", "_connection", "_kw", "_query")

    def __init__(self, connection: Connection, query: str, args: Any, kw: dict[str, Any]) -> None:
        self._connection: Connection = connection
        self._query: str = query
        self._args: Any = args
        self._kw: dict[str, Any] = kw

    async def _real(self) -> Any:
        def make(held: NodeConnection) -> Any:
            return held.con.cursor(self._query, *self._args, **self._kw)

        return await greenlet_spawn(self._connection._run, self._query, make, self._args, False)

    def __await__(self) -> Generator[Any, None, Any]:
        return self._open().__await__()

    async def _open(self) -> Any:
        return await (await self._real())

    async def __aiter__(self) -> AsyncIterator[Any]:
        async for row in await self._real():
            yield row
