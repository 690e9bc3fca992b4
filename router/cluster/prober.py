"""One node as the monitor asks it: a connection, and a question that may outlast a round.

A question without an answer is waited for in the next round as well. Were it given up and asked
again, a server that needs longer than a round to let somebody in, or a PgBouncer that serves
others before us, would never be heard.
"""

import contextlib
import math
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from router.cluster.router import Router
from router.connect.patience import Patience
from router.connect.probe import NO_POSITION, PROBE_SQL, ROLE_SQL, report
from router.messages import one_line
from router.model import Node, Report
from router.polling import Loop, Task
from router.rules.blacklist import refuses_login
from router.sql.queries import MONITORS

if TYPE_CHECKING:
    from router.connect.probe_connection import ProbeConnection

ConnectArgs = Callable[[Node], Mapping[str, Any]]
"""Gives the keyword arguments of ``psycopg.AsyncConnection.connect`` for a node."""

LOOK = 0.05
"""Seconds between two looks at an answer that has come, but was not read yet."""

_PROBE, _ROLE = PROBE_SQL.encode(), ROLE_SQL.encode()


class Unasked(Exception):
    """A function of the user's, such as one that fetches a password, gave no arguments to connect
    with: nobody has asked the server."""


class Prober:
    """Asks one node, where `connect_args` lead, on the monitor's `loop`."""

    def __init__(
        self, router: Router, loop: Loop, node: Node, connect_args: Callable[[], Any]
    ) -> None:
        self.router: Router = router
        self.node: Node = node
        self._loop = loop
        self.connection: ProbeConnection | None = None
        self._connected = False  # there was one before
        self._reconnected = -math.inf  # when it was replaced, by the router's clock
        self._connect_args: Callable[[], Mapping[str, Any]] = connect_args
        self._asking: Task[Report] | None = None
        self._beside: Task[tuple[Any, ...]] | None = None  # of `ask_beside`
        self._asked = 0.0  # when the last question was sent, by the router's clock
        # The last connection got no answer: if the server does not let the next one in, it is
        # still silent; otherwise it would only be slow.
        self._silent = False
        self._refused = False
        # This process had no time to look at a connection for half of what it may take to open.
        self._busy = False
        self._patience: Patience | None = None

    async def probe(self) -> Report | None:
        """Ask, or await the last answer, for ``probe_timeout``; None where that is no news."""
        loop, router = self._loop, self.router
        began, started = loop.time(), router.clock()
        asking = self._asking
        if asking is None:
            asking = self._asking = loop.spawn(self._ask())
        if not await self._ends(asking, began):
            return self._overdue(began, started)
        self._asking = None
        if asking.cancelled:
            return None  # dropped: the node has left, or moved
        try:
            found = asking.result()
        except Exception as error:  # noqa: BLE001 - whatever it is, the node did not answer
            self._close()
            failed = error
            return await loop.outside(lambda: self._failed(failed, started))
        self._silent = self._refused = False
        return found

    async def ask_beside(self, sql: bytes, within: float) -> tuple[Any, ...] | None:
        """The row that `sql` gives, asked over the connection that has just told how the server
        is; None where that is gone.

        Raises:
            TimeoutError: there is no answer `within` so many seconds. The next probe is asked
                behind it, so that a server that fell silent meanwhile is seen to be.
            psycopg.Error: the server refuses.
        """
        connection = self.connection
        if connection is None or self._asking is not None:
            return None
        self._beside = asking = self._loop.spawn(connection.ask(sql))
        if not await self._loop.ends(asking, within=within):
            self._asking = self._loop.spawn(self._ask_behind(asking))
            raise TimeoutError(f"no answer within {within:g} s")
        return asking.result()

    async def _ask_behind(self, asking: Task[tuple[Any, ...]]) -> Report:
        await self._loop.ends(asking)
        return await self._ask()

    def drop(self) -> None:
        """Give up the question that is out, and close the connection."""
        for asking in (self._asking, self._beside):
            if asking is not None:
                asking.cancel()
        self._asking = self._beside = None
        self._close()

    def _close(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()

    async def _ends(self, asking: Task[Report], began: float) -> bool:
        """Whether `asking` ends before the server was silent for ``probe_timeout`` since the
        question left; the time this process needs to send it, and to read the answer, does not
        count."""
        loop, seconds = self._loop, self.router.config.probe_timeout
        until = began + seconds
        while True:
            if await loop.ends(asking, within=max(0.0, until - loop.time())):
                return True
            connection, now = self.connection, loop.time()
            if connection is None:
                return False
            heard = min(connection.heard, now)  # not sent yet: it begins now
            if now < max(began, heard) + seconds:
                until = max(began, heard) + seconds
            elif connection.unread:
                until = now + LOOK
            else:
                return False

    def _overdue(self, began: float, started: float) -> Report | None:
        """What it means that there is no answer in time."""
        name, config = self.node.name, self.router.config
        silent = f"no answer to a probe within {config.probe_timeout:g} s"
        connection = self.connection
        if connection is not None:
            if began - connection.heard > config.connect_timeout:
                # That way may lead nowhere any more: the task goes on with a new connection.
                self._silent = True
                connection.hang_up()
            # A statement that succeeded after the question had left says nothing of the silence
            # since; an answer to the question, which is as old as that, says all.
            since = max(self._asked, self.router.clock() - config.probe_timeout)
            return Report(name, self._asked, error=silent, silent_since=since)
        if self._silent:
            return Report(name, started, error=silent, silent_since=started)
        return self._no_news(started, "a connection for probes is still being opened")

    def _no_news(self, started: float, why: str) -> Report | None:
        """What it means that nothing is known: a node that was taken to be down stays so."""
        known = self.router.snapshot.reports.get(self.node.name)
        if known is not None and not known.ok and not known.obstacle:
            return None
        return Report(self.node.name, started, error=why, obstacle=why)

    def _failed(self, error: Exception, started: float) -> Report | None:
        """What it means that asking ended with `error`."""
        import psycopg

        name = self.node.name
        text = one_line(error)
        if isinstance(error, Unasked) or (
            isinstance(error, psycopg.Error) and refuses_login(error.sqlstate or "", text)
        ):
            self._silent = False
            if not self._refused:
                self._refused = True
                self.router.telemetry.event(
                    "probe_refused",
                    level="warning",
                    node=name,
                    reason=text,
                    advice="statements go on over the connections that are open, by what the last "
                    "probe found: let the monitor's role in again",
                )
            return Report(name, started, error=text, obstacle=text)
        if isinstance(error, psycopg.errors.ConnectionTimeout):
            if self._busy:
                return self._no_news(started, text)
            # It takes as long as several probes.
            return Report(name, started, error=text, failures=2, silent_since=started)
        return Report(name, started, error=text)

    async def _ask(self) -> Report:
        import psycopg

        known = self.connection
        try:
            return await self._query()
        except psycopg.OperationalError:
            if known is None:
                raise
        # The connection had died since the last probe; that says little about the server now.
        self._close()
        await self._loop.outside(lambda: self.router.health.interrupted(self.node))
        return await self._query()

    async def _query(self) -> Report:
        import psycopg

        connection = self.connection
        if connection is None:
            connection = self.connection = await self._connect()
            if self._connected:
                self._reconnected = self.router.clock()
            self._connected = True
        started = self._asked = self.router.clock()
        try:
            row = await connection.ask(_PROBE)
        except psycopg.Error as error:
            if error.sqlstate not in NO_POSITION:
                raise
            row = await connection.ask(_ROLE)
        return report(self.node.name, started, row, self._reconnected)

    async def _connect(self) -> "ProbeConnection":
        """A new connection, within ``connect_timeout``. Its loop keeps that time, but does not
        know for how long nobody looked: see `_failed`."""
        loop = self._loop
        try:
            arguments = dict(await loop.outside(self._connect_args))
        except Exception as error:
            raise Unasked(one_line(error)) from error
        limit = self._limit(arguments)
        if not arguments.get("connect_timeout"):
            # Arguments of another driver may not name it, and psycopg's default is 130 s.
            arguments["connect_timeout"] = math.ceil(limit)
        patience = self._patience
        if patience is None:
            patience = self._patience = Patience(limit / 2, loop.time())
        patience.begin(loop.time())
        self._busy = True
        looking = loop.spawn(self._look(patience))
        try:
            connection = await connect(loop, arguments)
        finally:
            looking.cancel()
            if not self._busy:
                self._patience = None
        self._patience = None
        return connection

    async def _look(self, patience: Patience) -> None:
        while True:
            await self._loop.sleep(patience.step)
            if patience.ends(self._loop.time()):
                self._busy = False
                return

    def _limit(self, arguments: Mapping[str, Any]) -> float:
        """Seconds after which a connection is given up."""
        text = arguments.get("connect_timeout") or os.environ.get("PGCONNECT_TIMEOUT") or ""
        with contextlib.suppress(ValueError):
            return max(2.0, float(text))
        return self.router.config.connect_timeout


async def connect(loop: Loop, arguments: Mapping[str, Any]) -> "ProbeConnection":
    """A connection to ask over, by `arguments` of psycopg's ``connect``; raises psycopg.Error."""
    from router.connect.probe_connection import ProbeConnection

    given = {"application_name": MONITORS, **arguments}
    return await ProbeConnection.connect(loop, given)
