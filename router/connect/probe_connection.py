"""The connection the monitor asks over: libpq's, on the monitor's own event loop."""

import _socket as sockets  # which gevent does not patch
from collections.abc import Mapping
from typing import Any, Self

import psycopg
from psycopg.adapt import Transformer
from psycopg.conninfo import (
    conninfo_attempts,
    conninfo_to_dict,
    make_conninfo,
    timeout_from_conninfo,
)
from psycopg.errors import error_from_result, finish_pgconn
from psycopg.pq import ConnStatus, ExecStatus, PGconn, PollingStatus
from psycopg.pq.abc import PGconn as AnyPGconn

from router.connect.addresses import resolved
from router.connect.hangup import hang_up, unread
from router.polling import READ, WRITE, Loop


class ProbeConnection:
    """A connection in autocommit, in UTF-8, for one question after the other.

    Given up half-way, it is of no more use: close it.

    Attributes:
        heard: since when the server has said nothing (the loop's time): when the last question
            left, or something came.
    """

    def __init__(self, pgconn: AnyPGconn, loop: Loop) -> None:
        self.heard: float = float("inf")
        self._pgconn = pgconn
        self._loop = loop

    @classmethod
    async def connect(cls, loop: Loop, arguments: Mapping[str, Any]) -> Self:
        """Connect by `arguments` of psycopg's ``connect``, as psycopg does it: to one address
        after the other, each for ``connect_timeout`` at most. Raises psycopg.Error."""
        # A database in SQL_ASCII would choose no encoding, and psycopg give its text as bytes.
        params = conninfo_to_dict("", **{**arguments, "client_encoding": "UTF8"})
        timeout = timeout_from_conninfo(params)
        failed: list[tuple[psycopg.Error, str]] = []
        for attempt in conninfo_attempts(await resolved(loop, params, timeout)):
            try:
                return cls(await _opened(loop, make_conninfo("", **attempt), timeout), loop)
            except psycopg.Error as error:
                where = (f"{key}: {attempt.get(key)!r}" for key in ("host", "port", "hostaddr"))
                failed.append((error, ", ".join(where)))
        last = failed[-1][0]
        if len(failed) == 1:
            raise last
        lines = [str(last), "Multiple connection attempts failed. All failures were:"]
        lines.extend(f"- {where}: {error}" for error, where in failed)
        raise type(last)("\n".join(lines), pgconn=last.pgconn)

    async def ask(self, sql: bytes) -> tuple[Any, ...]:
        """The first row that `sql` gives. Raises psycopg.Error."""
        rows = await self.query(sql)
        return rows[0]

    async def query(self, sql: bytes) -> list[tuple[Any, ...]]:
        """The rows that `sql`, of which several statements are one transaction, gives in the end.
        Raises psycopg.Error."""
        pgconn, loop = self._pgconn, self._loop
        self.heard = float("inf")
        pgconn.send_query(sql)
        while pgconn.flush():
            await loop.ready(pgconn.socket, WRITE)
        self.heard = loop.time()
        last = None
        while True:
            while pgconn.is_busy():
                await loop.ready(pgconn.socket, READ)
                pgconn.consume_input()
                self.heard = loop.time()
            result = pgconn.get_result()
            if result is None:
                break
            if last is None or last.status != ExecStatus.FATAL_ERROR:
                last = result
        assert last is not None
        if last.status == ExecStatus.FATAL_ERROR:
            raise error_from_result(last)
        loads = Transformer()
        loads.set_pgresult(last)
        return loads.load_rows(0, last.ntuples, tuple)

    def hang_up(self) -> None:
        """Close the socket for both sides; a question under way fails."""
        if not self.closed:
            line = sockets.socket(fileno=self._pgconn.socket)
            hang_up(line)
            line.detach()  # libpq closes it

    @property
    def closed(self) -> bool:
        """Whether it is of no more use."""
        return self._pgconn.status == ConnStatus.BAD

    @property
    def unread(self) -> bool:
        """Whether something that the server said has not been read yet."""
        return not self.closed and unread(self._pgconn.socket)

    def close(self) -> None:
        """Say goodbye, and close the socket."""
        self._pgconn.finish()


async def _opened(loop: Loop, conninfo: str, seconds: float) -> AnyPGconn:
    """A connection by `conninfo`, within `seconds`. Raises psycopg.Error, with psycopg's texts."""
    until = loop.time() + seconds
    pgconn = PGconn.connect_start(conninfo.encode())
    try:
        while True:
            if pgconn.status == ConnStatus.BAD:
                raise _failed("connection is bad", pgconn)
            status = pgconn.connect_poll()
            if status == PollingStatus.OK:
                pgconn.nonblocking = 1
                return pgconn
            if status == PollingStatus.FAILED:
                raise _failed("connection failed", pgconn)
            event = READ if status == PollingStatus.READING else WRITE
            if not await loop.ready(pgconn.socket, event, until):
                raise psycopg.errors.ConnectionTimeout("connection timeout expired")
    except BaseException:
        pgconn.finish()
        raise


def _failed(what: str, pgconn: AnyPGconn) -> psycopg.OperationalError:
    message = pgconn.get_error_message("utf-8")
    return psycopg.OperationalError(f"{what}: {message}", pgconn=finish_pgconn(pgconn))
