"""The connection the monitor asks over."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from psycopg import AsyncConnection
from psycopg.adapt import Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus

from router.connect.hangup import hang_up, unread


class ProbeConnection(AsyncConnection[tuple[Any, ...]]):
    """A connection that hangs up when its query is given up.

    psycopg would ask the server to cancel the query first. A server that is deaf answers no such
    request: psycopg waits ten seconds for it, and with a libpq older than 17 it waits without end
    in ``PQcancel``, holding the interpreter's lock, so that every thread of the process stands
    still (seen with psycopg 3.2.2 and the libpq 16 in its wheel).

    Attributes:
        heard: since when the server has said nothing (the event loop's time): when the last
            question left, or something came.
    """

    heard: float = float("inf")

    async def ask(self, sql: bytes) -> tuple[Any, ...]:
        """The one row that `sql` gives, without the cursor that psycopg would make for each. Given
        up half-way, it leaves the connection of no use. Raises psycopg.Error."""
        pgconn, loop = self.pgconn, asyncio.get_running_loop()
        self.heard = float("inf")
        pgconn.send_query(sql)
        while pgconn.flush():
            await _ready(pgconn.socket, loop.add_writer, loop.remove_writer)
        self.heard = loop.time()
        results = []
        while True:
            while pgconn.is_busy():
                await _ready(pgconn.socket, loop.add_reader, loop.remove_reader)
                pgconn.consume_input()
                self.heard = loop.time()
            result = pgconn.get_result()
            if result is None:
                break
            results.append(result)
        if results[0].status != ExecStatus.TUPLES_OK:
            raise error_from_result(results[0])
        loads = Transformer(self)
        loads.set_pgresult(results[0])
        row = loads.load_row(0, tuple)
        assert row is not None
        return row

    def hang_up(self) -> None:
        """Close the socket for both sides; a query under way fails, and psycopg sees it closed."""
        if self.closed:
            return
        line = socket.socket(fileno=self.fileno())
        hang_up(line)
        line.detach()  # libpq closes it

    @property
    def unread(self) -> bool:
        """Whether something that the server said has not been read yet."""
        return not self.closed and unread(self.fileno())

    async def cancel_safe(self, *, timeout: float = 30.0) -> None:  # noqa: ASYNC109 - psycopg's name
        """Hang up; `timeout` has no effect, as nothing is waited for."""
        self.hang_up()


async def _ready(line: int, add: Callable[..., object], remove: Callable[[int], object]) -> None:
    """Wait until the event loop says what `add` asks for of the socket `line`."""
    answered = asyncio.get_running_loop().create_future()
    add(line, _wake, answered)
    try:
        await answered
    finally:
        remove(line)


def _wake(answered: "asyncio.Future[None]") -> None:
    if not answered.done():
        answered.set_result(None)
