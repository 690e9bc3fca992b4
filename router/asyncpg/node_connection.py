"""One node's connection of asyncpg while a checkout holds it. Runs in a greenlet."""

# ruff: noqa: D102 - the base class documents the methods

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Literal

import asyncpg

from router.checkout.node_connection import Characteristics, NodeConnection
from router.greenlets import await_only
from router.model import Node
from router.sql.intent import Intent

if TYPE_CHECKING:
    from router.asyncpg.source import AsyncpgSource

DRIVER_ERRORS: tuple[type[Exception], ...] = (
    ConnectionError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError
)  # fmt: skip
"""What asyncpg raises because of a server or of the way to it; never a statement's time-out."""

CLOSING = 5.0
"""Seconds a server has to acknowledge that a statement was cancelled and a session ends."""


class AsyncpgConnection(NodeConnection):
    """One node's connection while a checkout holds it.

    Attributes:
        con: asyncpg's own connection.
        pool: the node's asyncpg pool, None for a session past PgBouncer.
        touched: something may have been left in its session.
        cancelled: asyncpg may still wait for its server to give a cancelled statement up.
    """

    __slots__ = ("cancelled", "con", "nodes", "pool", "settings", "touched")

    def __init__(self, nodes: "AsyncpgSource", node: Node, pool: Any, con: Any) -> None:
        self.nodes: AsyncpgSource = nodes
        self.pool: Any = pool
        self.con: Any = con
        # A connection that comes back is reset: no setting outlives the checkout.
        self.settings: dict[str, str] = {}
        self.touched: bool = False
        self.cancelled: bool = False
        nodes.listeners.listen_on(con)
        super().__init__(node, in_transaction=False)

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        return DRIVER_ERRORS

    @property
    def first_settings(self) -> dict[str, str]:
        return self.settings

    @property
    def in_autocommit(self) -> bool:
        return True

    def autocommit(self, value: bool) -> None:
        if not value:  # asyncpg knows no other mode than autocommit
            await_only(self.con.execute("BEGIN"))

    def run(self, sql: str, parameters: Any = None) -> None:
        self.touched = True
        await_only(self.con.execute(sql, *(parameters or ())))

    def ask(self, sql: str) -> tuple[Any, ...]:
        return ask(self.con, sql)

    def look(self) -> bool:
        return bool(self.con.is_in_transaction())

    @property
    def recovers(self) -> bool:
        # Asyncpg asks the server to cancel what was interrupted, and waits for its end before it
        # sends anything else. Nobody waits so for a server that is known to be silent.
        router = self.nodes.router
        return not self.gone and router.view.uses(self.node, router.clock())

    def interrupted(self, intent: Intent) -> None:
        super().interrupted(intent)
        self.touched = self.cancelled = True

    def end(self, verb: Literal["commit", "rollback"]) -> None:
        if verb == "rollback":
            self._roll_back()
        else:
            await_only(self.con.execute("COMMIT"))

    def _roll_back(self) -> None:
        if self.gone:
            return  # by the server, when the connection went
        try:
            await_only(self.con.execute("ROLLBACK", timeout=CLOSING if self.cancelled else None))
        except TimeoutError:
            if not self.cancelled:
                raise
            self.broken = True  # what waits is to be told of its cancellation, and not of this

    def characterise(self, wanted: Characteristics) -> None:
        """Only note `wanted`: asyncpg's transactions say in their BEGIN what they are."""
        self.characteristics: Characteristics = wanted

    def report_failure(self, error: Any, cursor: Any = None) -> bool:
        closed = self.gone or isinstance(error, ConnectionError)
        return self.nodes.report_failure(self, error, gone=closed)

    def fileno(self) -> int:
        return int(self.con._transport.get_extra_info("socket").fileno())

    def sqlstate(self, error: BaseException) -> str:
        return self.nodes.sqlstate(error)

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        return asyncio.get_running_loop()

    @property
    def gone(self) -> bool:
        """Whether it is closed."""
        return gone(self.con)

    def give_back(self) -> None:
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
        if self.cancelled:
            await self.nodes.pool.to_its_end(_recovered(self.pool, self.con))
        else:
            await released(self.pool, self.con)

    def discard(self, *, distrust: bool) -> None:
        """Close it; where `distrust` says that the server was gone, have its pool replace the
        others."""
        self.nodes.listeners.leave(self.con)
        if gone := self.gone:
            if self.pool is not None:
                await_only(released(self.pool, self.con))
        elif self.distrusted:
            self.con.terminate()
        else:
            # A statement may be cancelled that is still under way at the server: asyncpg's close()
            # waits until it has ended there, terminate() would leave it running.
            await_only(self.nodes.pool.to_its_end(_closed(self.con)))
        if distrust and (gone or self.distrusted) and self.pool is not None:
            await_only(self.pool.expire_connections())


def ask(con: Any, sql: str) -> tuple[Any, ...]:
    """The one row that the query `sql` gives on `con`."""
    return tuple(await_only(con.fetchrow(sql)))


def gone(con: Any) -> bool:
    """Whether `con` is closed."""
    try:
        return bool(con.is_closed())
    except asyncpg.InterfaceError:
        return True  # broken, and so its pool has taken it back already


async def released(pool: Any, con: Any, within: float | None = None) -> None:
    """Give `con` back to asyncpg's `pool`, where it may be already; with `within` it is closed
    when that takes longer (seconds)."""
    try:
        await pool.release(con, timeout=within)
    except asyncpg.InternalClientError:
        # release() sees that the connection is in use, and gives it back in a task that begins one
        # step of the event loop later. If the server ends the connection in that step, its place
        # is free by then, and that task takes this for an error of asyncpg's own.
        if not gone(con):
            raise


async def _recovered(pool: Any, con: Any) -> None:
    # Where release() raises, asyncpg has aborted the connection already, and told its pool.
    with contextlib.suppress(TimeoutError, *DRIVER_ERRORS):
        await released(pool, con, CLOSING)


async def _closed(con: Any) -> None:
    # Where close() raises, asyncpg has aborted the connection already, and told its pool.
    with contextlib.suppress(TimeoutError, *DRIVER_ERRORS):
        await con.close(timeout=CLOSING)
