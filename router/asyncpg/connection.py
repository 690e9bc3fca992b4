"""A connection as asyncpg's users know it, whose statements are routed one by one."""

import asyncio
import contextlib
import inspect
from collections.abc import Callable, Coroutine, Generator, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import asyncpg
from asyncpg import transaction as asyncpg_transaction

from router.asyncpg.checkout import AsyncpgCheckout
from router.asyncpg.errors import SessionRefused
from router.asyncpg.listeners import Kind as Watched
from router.asyncpg.listeners import as_own
from router.asyncpg.node_connection import CLOSING, DRIVER_ERRORS, AsyncpgConnection
from router.asyncpg.prepared import PreparedStatement
from router.asyncpg.source import AsyncpgSource
from router.asyncpg.statements import Statements
from router.greenlets import await_only, greenlet_spawn
from router.sql.intent import Intent, Kind

if TYPE_CHECKING:
    from router.asyncpg.pool import Pool

PEEK = Intent(Kind.READ, "a session of its own is wanted")


def _refused(method: str) -> Callable[..., Coroutine[Any, Any, NoReturn]]:
    async def refuse(self: "Connection", *args: Any, **kw: Any) -> NoReturn:
        """Refused: use the pool's ``init``."""
        raise asyncpg.UnsupportedClientFeatureError(
            f"{method}: it would hold for one node's connection only, and for whoever has that "
            "next: use create_pool(init=…), which is called with each new connection"
        )

    return refuse


def _remover(kind: Watched) -> Callable[["Connection", Callable[..., Any]], None]:
    def remove(self: "Connection", callback: Callable[..., Any]) -> None:
        """Call `callback` no more."""
        self._nodes.listeners.remove(kind, callback, [held.con for held in self._held()])

    return remove


class Connection(Statements):
    """What `router.asyncpg.Pool.acquire` gives: an asyncpg connection, routed.

    Outside a transaction each statement goes where the rules say. A transaction runs on the
    primary, one with ``readonly=True`` on a replica. It belongs to one task at a time.
    """

    def __init__(self, pool: "Pool", timeout: float | None = None) -> None:
        """Take node connections from `pool`, waiting `timeout` seconds for each, None for ever;
        none before a statement needs it."""
        super().__init__()
        self._pool: Pool = pool
        self.timeout: float | None = timeout
        self._nodes: AsyncpgSource = AsyncpgSource(pool, timeout)
        self._routed: AsyncpgCheckout = AsyncpgCheckout(self._nodes)
        # Attributes that asyncpg's own Transaction asks a connection for.
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

    async def prepare(self, query: str, **kw: Any) -> PreparedStatement:
        """Prepare `query` on the primary; the statement has all that asyncpg's have.

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
        """Call `callback` for notifications on a `channel`, which only the primary sends.

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
        """Call `callback` no more for that `channel`."""
        heard = self._heard.pop((channel, callback), None)
        primary = self._routed.primary
        if heard is not None and primary is not None:
            await primary.con.remove_listener(channel, heard)

    async def primary_connection(self) -> Any:
        """Asyncpg's connection to the primary, on which this one stays from now on.

        It is for statements that are not to be routed, which the router then does not see.

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
        shared = primary is not None and routed.router.shares_sessions(primary)
        if what and shared and not routed.dedicated:
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
            # Only these end the session: asyncpg itself cancels what timed out or was cancelled.
            held.report_failure(error)
            raise

    def transaction(
        self, *, isolation: Any = None, readonly: bool = False, deferrable: bool = False
    ) -> "Transaction":
        """As asyncpg's, with its `isolation`, `readonly` and `deferrable`: on the primary, a
        `readonly` one on a replica."""
        return Transaction(self, isolation, readonly, deferrable)

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
        """The process ID of the server session that this connection is bound to, or has a
        transaction open in.

        Raises:
            asyncpg.InterfaceError: its statements may run in several sessions.
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
        """Have every node's connection that is held look up types again."""
        for held in self._held():
            await held.con.reload_schema_state()

    def add_log_listener(self, callback: Callable[..., Any]) -> None:
        """Call `callback` with the messages that servers send for this connection's statements."""
        self._watch("log_listener", callback, as_own(self, callback))

    def add_query_logger(self, callback: Callable[..., Any]) -> None:
        """Call `callback` after each statement, on whatever node it ran."""
        self._watch("query_logger", callback, callback)

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

        That is the session it listens, prepared or locked in; any other is replaced unseen."""
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

    def _watch(self, kind: Watched, callback: Any, told: Any) -> None:
        listeners = self._nodes.listeners
        listeners.remove(kind, callback, [held.con for held in self._held()])
        listeners.add(kind, callback, told)
        for held in self._held():
            getattr(held.con, f"add_{kind}")(told)

    remove_log_listener = _remover("log_listener")
    remove_query_logger = _remover("query_logger")
    remove_termination_listener = _remover("termination_listener")

    set_type_codec = _refused("set_type_codec")
    reset_type_codec = _refused("reset_type_codec")
    set_builtin_type_codec = _refused("set_builtin_type_codec")

    async def close(self, *, timeout: float | None = None) -> None:
        """Give it back to the pool, within `timeout` seconds."""
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
        """Make it as new, within `timeout` seconds: what is open is rolled back, and nothing
        stays of settings, cursors, locks, listeners and log listeners."""
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


class Transaction(asyncpg_transaction.Transaction):
    """Asyncpg's, corrected: that one takes itself for open before its BEGIN has been sent."""

    __slots__ = ()

    async def start(self) -> None:  # noqa: D102 - asyncpg's
        connection: Any = self._connection
        try:
            await super().start()
        except BaseException:
            if connection._top_xact is self and not connection.is_in_transaction():
                connection._top_xact = None
            raise


class Acquiring:
    """What `Pool.acquire` returns: awaited or entered, it is a connection."""

    __slots__ = ("_connection", "_pool", "_timeout")

    def __init__(self, pool: "Pool", timeout: float | None) -> None:
        super().__init__()
        self._pool: Pool = pool
        self._timeout: float | None = timeout
        self._connection: Connection | None = None

    def __await__(self) -> Generator[Any, None, Connection]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> Connection:
        self._connection = await self._pool.connection(self._timeout)
        return self._connection

    async def __aexit__(self, *exc: object) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await self._pool.release(connection)
