"""One node's connection of asyncpg's while a checkout holds it. Runs in a greenlet."""

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Literal

import asyncpg

from router.checkout.node_connection import Characteristics, NodeConnection
from router.greenlets import await_only
from router.model import Node

if TYPE_CHECKING:
    from router.asyncpg.source import AsyncpgSource

DRIVER_ERRORS: tuple[type[Exception], ...] = (
    ConnectionError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
"""What asyncpg raises for a server's sake; never the time-out of a statement."""

CLOSING = 5.0
"""Seconds a server has to acknowledge that a statement was cancelled and a session ends."""


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
        return ask(self.con, sql)

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
        closed = self.gone or isinstance(error, ConnectionError)
        return self.nodes.report_failure(self, error, gone=closed)

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


def ask(con: Any, sql: str) -> tuple[Any, ...]:
    """The one row a query gives."""
    return tuple(await_only(con.fetchrow(sql)))


async def _closed(con: Any) -> None:
    # Whatever it raises, asyncpg has then aborted the connection and told its pool.
    with contextlib.suppress(TimeoutError, *DRIVER_ERRORS):
        await con.close(timeout=CLOSING)
