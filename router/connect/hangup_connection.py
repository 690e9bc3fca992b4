"""psycopg's asynchronous connection, made fit for servers that fall silent."""

import socket
from typing import Any

from psycopg import AsyncConnection

from router.connect.hangup import hang_up


class HangUpConnection(AsyncConnection[tuple[Any, ...]]):
    """A connection that hangs up when its query is given up.

    psycopg would ask the server to cancel the query first. A server that is deaf answers no such
    request: psycopg waits ten seconds for it, and with a libpq older than 17 it waits without end
    in ``PQcancel``, holding the interpreter's lock, so that every thread of the process stands
    still (seen with psycopg 3.2.2 and the libpq 16 in its wheel).
    """

    def hang_up(self) -> None:
        """Close the socket for both sides; a query under way fails, and psycopg sees it closed."""
        if self.closed:
            return
        line = socket.socket(fileno=self.fileno())
        hang_up(line)
        line.detach()  # libpq closes it

    async def cancel_safe(self, *, timeout: float = 30.0) -> None:  # noqa: ASYNC109 - psycopg's name
        """Hang up; `timeout` has no effect, as nothing is waited for."""
        self.hang_up()
