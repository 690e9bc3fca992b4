"""One node's connection of asyncpg's while a checkout holds it. Runs in a greenlet."""

import asyncio
import contextlib
from contextvars import ContextVar
from math import inf
from typing import TYPE_CHECKING, Any, Literal

import asyncpg

from router.asyncpg.errors import PoolClosed, PoolTimeout, translated
from router.asyncpg.listeners import Listeners
from router.checkout.checkout import Checkout
from router.checkout.node_connection import DEFAULTS, Characteristics, NodeConnection
from router.checkout.route import Route
from router.checkout.words import in_words
from router.errors import RouterError
from router.greenlets import await_only
from router.model import Node

if TYPE_CHECKING:
    from router.asyncpg.pool import Pool
    from router.cluster.router import Router

DRIVER_ERRORS: tuple[type[Exception], ...] = (
    ConnectionError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
"""What asyncpg raises for a server's sake; never the time-out of a statement."""

FRESH = 1.0
"""Seconds for which a connection that a pool opened counts as opened for whoever takes it."""

may_open: ContextVar[bool] = ContextVar("pg_router_may_open", default=True)
"""Whether pools may open connections now, or only give those that are open."""

CLOSING = 5.0
"""Seconds a server has to acknowledge that a statement was cancelled and a session ends."""


class NothingOpen(Exception):
    """A pool has no connection that is open."""


class AsyncpgConnection(NodeConnection):
    """One node's connection while a checkout holds it.

    Attributes:
        con: asyncpg's own connection.
        pool: the node's pool of asyncpg's, None for a session past PgBouncer.
        touched: something may have been left in its session.
    """

    __slots__ = ("con", "nodes", "pool", "settings", "touched")

    def __init__(self, nodes: "AsyncpgSource", node: Node, pool: Any, con: Any) -> None:
        self.nodes: AsyncpgSource = nodes
        self.pool: Any = pool
        self.con: Any = con
        # What comes back is reset: no setting outlives the checkout.
        self.settings: dict[str, str] = {}
        self.touched: bool = False
        nodes.listeners.listen_on(con)
        super().__init__(node, in_transaction=False)

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What the driver raises."""
        return DRIVER_ERRORS

    @property
    def first_settings(self) -> dict[str, str]:
        """Values that changed settings had when the connection was taken."""
        return self.settings

    @property
    def in_autocommit(self) -> bool:
        """True: asyncpg has no other mode, and nothing to wait for."""
        return True

    def autocommit(self, value: bool) -> None:
        """Begin a transaction for False."""
        if not value:
            await_only(self.con.execute("BEGIN"))

    def run(self, sql: str, parameters: Any = None) -> None:
        """Run a statement whose rows nobody wants."""
        self.touched = True
        await_only(self.con.execute(sql, *(parameters or ())))

    def ask(self, sql: str) -> tuple[Any, ...]:
        """The one row a query gives."""
        return tuple(await_only(self.con.fetchrow(sql)))

    def look(self) -> bool:
        """Whether the server has a transaction open."""
        return bool(self.con.is_in_transaction())

    def end(self, verb: Literal["commit", "rollback"]) -> None:
        """End the open transaction, whoever began it."""
        if verb == "rollback" and self.gone:
            return  # by the server, when the connection went
        await_only(self.con.execute(verb.upper()))

    def characterise(self, wanted: Characteristics) -> None:
        """Take note: asyncpg's transactions say in their BEGIN what they are."""
        self.characteristics: Characteristics = wanted

    def report_failure(self, error: Any, cursor: Any = None) -> bool:
        """Whether the server, or the way to it, is gone; if so, the node is blacklisted."""
        nodes = self.nodes
        state = nodes.sqlstate(error)
        closed = self.gone or isinstance(error, ConnectionError)
        if not closed and not nodes.router.health.is_disconnect(state):
            return False
        if closed or state[:2] == "08" or state in ("57P01", "57P02"):
            self.broken: bool = True
            self.distrusted: bool = True
        nodes.router.health.ended(self.node, state, nodes.reason(error), fresh=self.fresh)
        return True

    def fileno(self) -> int:
        """The descriptor of its socket."""
        return int(self.con._transport.get_extra_info("socket").fileno())

    def sqlstate(self, error: BaseException) -> str:
        """The five-character code of an error, empty when the server sent none."""
        return self.nodes.sqlstate(error)

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The one it runs on."""
        return asyncio.get_running_loop()

    @property
    def gone(self) -> bool:
        """Whether it is closed."""
        try:
            return bool(self.con.is_closed())
        except asyncpg.InterfaceError:
            return True  # its pool has taken it back already, as asyncpg does with what broke

    @property
    def idle(self) -> bool:
        """Whether it can be given back as it is."""
        return not (
            self.broken
            or self.spoilt
            or self.in_transaction
            or self.applied
            or self.characteristics != DEFAULTS
        )

    def give_back(self) -> None:
        """Give it to its pool, to be used again."""
        if self.pool is None:
            self.nodes.listeners.leave(self.con)
            await_only(self.con.close())
            return
        await_only(self.put())

    async def put(self) -> None:
        """As `give_back`, on an event loop; asyncpg itself keeps it from being cancelled."""
        self.nodes.listeners.leave(self.con)
        if self.touched and not self.gone:
            self.nodes.pool.unclean.add((self.node, self.con.get_server_pid()))
        await self.pool.release(self.con)

    def discard(self, *, distrust: bool) -> None:
        """Close it; where the server was gone, whatever else its pool holds is opened anew too."""
        self.nodes.listeners.leave(self.con)
        if gone := self.gone:
            if self.pool is not None:
                await_only(self.pool.release(self.con))
        elif self.distrusted:
            self.con.terminate()
        else:
            # A statement may be cancelled that is still under way at the server: asyncpg's close()
            # waits until it has ended there, terminate() would leave it running.
            await_only(self.nodes.pool.to_its_end(_closed(self.con)))
        if distrust and (gone or self.distrusted) and self.pool is not None:
            await_only(self.pool.expire_connections())


async def _closed(con: Any) -> None:
    # Whatever it raises, asyncpg has then aborted the connection and told its pool.
    with contextlib.suppress(TimeoutError, *DRIVER_ERRORS):
        await con.close(timeout=CLOSING)


class AsyncpgSource:
    """A pool's nodes as one checkout sees them, with the time it may wait for a connection."""

    __slots__ = ("listeners", "pool", "router", "timeout")

    default_isolation = "AUTOCOMMIT"

    def __init__(self, pool: "Pool", timeout: float | None) -> None:
        self.pool: Pool = pool
        self.router: Router = pool.router
        self.timeout: float | None = timeout
        self.listeners: Listeners = Listeners()

    @property
    def driver_errors(self) -> tuple[type[Exception], ...]:
        """What asyncpg raises for a server's sake; never the time-out of a statement."""
        return DRIVER_ERRORS

    def start_router(self) -> None:
        """Start the Router, while the event loop runs on."""
        await_only(asyncio.to_thread(self.router.start))

    def hold(self, node: Node) -> AsyncpgConnection:
        """A pooled connection to `node`.

        Raises:
            PoolTimeout: none was free in time; names node, size and cure.
        """
        pool = self.pool.node_pool(node)
        began = 0.0 if self.timeout is None else self.router.clock()
        try:
            con = await_only(pool.acquire(timeout=self.timeout))
        except TimeoutError:
            if self.timeout is None or self.router.clock() - began < 0.9 * self.timeout:
                # A statement of the hook setup= took longer than command_timeout.
                raise ConnectionError(f"{node} does not answer in time") from None
            raise PoolTimeout(
                f"{node}: none of its pool's {pool.get_max_size()} connections was free for "
                f"{self.timeout:g} s: {self.pool.config.relief('max_size')}"
            ) from None
        except asyncpg.InterfaceError:
            if self.pool.is_closing():
                raise PoolClosed("the pool is closed: make another one") from None
            raise
        held = AsyncpgConnection(self, node, pool, con)
        if (opened := self.pool.opened) and opened.pop((node, con.get_server_pid()), -inf) > (
            self.router.clock() - FRESH
        ):
            held.fresh = True
        return held

    def idle(self, node: Node) -> AsyncpgConnection | None:
        """As `hold`, of connections that are open and not in use; never opens one, nor waits."""
        pool = self.pool.node_pool(node)
        token = may_open.set(False)
        try:
            if pool.get_idle_size():
                # Another task may be quicker; nobody waits longer for its connection than that.
                con = await_only(pool.acquire(timeout=self.pool.config.probe_timeout))
                return AsyncpgConnection(self, node, pool, con)
        except (NothingOpen, TimeoutError, asyncpg.InterfaceError):
            pass
        finally:
            may_open.reset(token)
        return None

    def session(self, node: Node) -> AsyncpgConnection | None:
        """A connection to `node`, the primary, by ``session_url``; None without that."""
        con = await_only(self.pool.connect_session_url(node))
        return None if con is None else AsyncpgConnection(self, node, None, con)

    def probe(self, held: AsyncpgConnection) -> None:
        """Probe a node over a connection held, and tell the Router."""
        await_only(self.pool.probe(held.node, held.con))

    def sqlstate(self, error: BaseException) -> str:
        """The five-character code of an error, empty when the server sent none."""
        return getattr(error, "sqlstate", None) or ""

    def reason(self, error: BaseException) -> str:
        """The error as one line for people: SQLSTATE and message, without secrets."""
        return in_words(self.sqlstate(error), error)

    def translated(self, error: RouterError) -> Exception:
        """An error of the core's that is asyncpg's as well."""
        return translated(error)


class AsyncpgCheckout(Checkout[AsyncpgConnection]):
    """A checkout of asyncpg's connections."""

    @property
    def gone(self) -> bool:
        """Whether the server session ended that this checkout had bound itself to."""
        held = self.primary
        return self.bound and (held is None or held.broken or held.gone)

    def route(self, sql: str | None, **how: Any) -> Route[AsyncpgConnection]:
        """As `Checkout.route`; refuses to go on in another session than it was bound to."""
        if self.open and self.gone:
            raise asyncpg.InterfaceError(
                "the server session that this connection listened, prepared or locked in has "
                "ended: acquire another one"
            )
        return super().route(sql, **how)

    def closed_error(self) -> Exception:
        """What a statement gets after the connection was given back, as from asyncpg."""
        error: Exception = asyncpg.InterfaceError(
            "this connection was given back to the pool: acquire another one"
        )
        return error

    def session(self, node: Node) -> AsyncpgConnection | None:
        """A connection to `node`, the primary, by ``session_url``."""
        nodes: AsyncpgSource = self.pool  # type: ignore[assignment]
        return nodes.session(node)
