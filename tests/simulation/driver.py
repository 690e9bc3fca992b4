"""psycopg's connections over a simulated network to simulated servers.

What a driver does is done here as psycopg does it: a transaction begins with the first statement
unless autocommit is on, an error that names an SQLSTATE is of psycopg's class for that, a socket
that was closed shows at the next use and not before, and who waits for an answer waits until
something comes, however long that is.
"""

import math
import random
from collections.abc import Mapping
from itertools import count
from typing import Any, Self

import psycopg
from psycopg import IsolationLevel
from psycopg.pq import TransactionStatus

from router.connect.probe import PROBE_SQL, ROLE_SQL
from router.polling import Cancelled, Loop
from router.sql.queries import STAMP
from tests.simulation.answers import NOTHING
from tests.simulation.bouncer import Bouncer, Client
from tests.simulation.half_open import HalfOpen
from tests.simulation.postgres import Blocked, Refused, Rows, Server, Session, World
from tests.simulation.scheduler import Scheduler, Waiter
from tests.simulation.synchronous import Wait

IDLE, ACTIVE, INTRANS = (
    TransactionStatus.IDLE, TransactionStatus.ACTIVE, TransactionStatus.INTRANS,
)  # fmt: skip
INERROR, UNKNOWN = TransactionStatus.INERROR, TransactionStatus.UNKNOWN

CONNECT = 130.0
"""Seconds psycopg waits for a connection unless told otherwise.

Source: https://www.psycopg.org/psycopg3/docs/api/connections.html
"""

_classes: dict[str, type[psycopg.Error]] = {}


def error_of(refused: Refused) -> psycopg.Error:
    """Psycopg's exception for what a server refused."""
    kind = _classes.get(refused.sqlstate)
    if kind is None:
        try:
            kind = psycopg.errors.lookup(refused.sqlstate)
        except KeyError:
            kind = psycopg.OperationalError
        _classes[refused.sqlstate] = kind
    return kind(refused.text)


class Link:
    """The way from clients to one server.

    Attributes:
        deaf: nothing arrives, in either direction; open connections stay open.
        refuses: no new connection is let through.
        slow: seconds that each direction takes more.
        closed: sessions whose clients have gone while it was deaf.
    """

    def __init__(self) -> None:
        self.deaf = False
        self.refuses = False
        self.slow = 0.0
        self.closed: list[Session | Client] = []


class _Arrival:
    """What a task of the monitor's waits for; as a `Waiter`, woken from any thread of the
    scheduler."""

    __slots__ = ("_loop", "event")

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.event = loop.event()

    def wake(self) -> None:
        """Let it go on."""
        self._loop.call_soon_threadsafe(self.event.set)


class Network:
    """Between clients and the servers of `world`; its delays come from `rand`."""

    def __init__(self, scheduler: Scheduler, world: World, rand: random.Random) -> None:
        self.scheduler = scheduler
        self.world = world
        self.rand = rand
        self.servers: dict[int, Server] = {server.port: server for server in world.servers}
        self.links: dict[int, Link] = {port: Link() for port in self.servers}
        self.lines: dict[int, dict[int, Line]] = {port: {} for port in self.servers}
        self.numbers = count(1)
        self.trace: Any = None
        self.broke: Any = None
        self.left_behind: list[Session | Client] = []
        self.bouncers: dict[int, Bouncer] = {}

    def delay(self, link: Link) -> float:
        """Seconds for one direction."""
        return 0.0001 + 0.0004 * self.rand.random() + link.slow

    def stir(self, server: Server) -> None:
        """`server`, or the way to it, has changed: let whoever waits for it look again."""
        for line in list(self.lines[server.port].values()):
            line.stir()


class Line:
    """One connection's socket, and the server's session behind it."""

    __slots__ = (
        "bouncer", "ended", "half_open", "hung_up", "known", "link", "network", "number",
        "opened", "process", "scheduler", "sent", "server", "session", "waiter",
    )  # fmt: skip

    def __init__(self, network: Network, port: int, process: Any = None) -> None:
        self.process = process
        self.sent = 0.0
        self.network = network
        self.scheduler = network.scheduler
        self.server = network.servers[port]
        self.link = network.links[port]
        self.bouncer = network.bouncers.get(port)
        self.number = next(network.numbers)
        self.session: Session | Client | None = None
        self.waiter: Waiter | _Arrival | None = None
        self.hung_up = False
        self.half_open: HalfOpen | None = None
        self.ended = False  # the client's side knows that it is closed
        self.opened = 0.0
        self.known = IDLE  # what the last answer said of the transaction

    def stir(self) -> None:
        """Let its user look again."""
        waiter = self.waiter
        if waiter is not None:
            waiter.wake()

    def pause(self, timeout: float | None) -> None:
        """Wait for `timeout` seconds, or until something changes."""
        scheduler = self.scheduler
        waiter = self.waiter = Waiter(scheduler)
        if timeout is not None:
            scheduler.at(scheduler.now + max(0.0, timeout), waiter.expire)
        scheduler.switch()
        self.waiter = None

    @property
    def quiet(self) -> bool:
        """Whether neither side hears of the other now."""
        if self.link.deaf or self.half_open is not None:
            return True
        return self.server.frozen and self.bouncer is None

    @property
    def cut(self) -> bool:
        """Whether the client would read the end of the stream."""
        if self.hung_up:
            return True
        if self.half_open is not None:
            return self.scheduler.now >= self.half_open.ends
        session = self.session
        # A process that is killed has its sockets closed by its machine, over a working network.
        if session is None or session.open or self.link.deaf:
            return False
        return not self.server.frozen or not self.server.running or self.bouncer is not None

    def travel(self) -> None:
        """Spend the time one direction takes, and wait for as long as nothing arrives."""
        scheduler = self.scheduler
        until = scheduler.now + self.network.delay(self.link)
        while not self.cut:
            if scheduler.now < until:
                self.pause(until - scheduler.now)
            elif self.quiet:
                self.pause(None)
            else:
                return
        if self.hung_up or scheduler.now >= until:
            return
        self.pause(until - scheduler.now)

    def open(self, user: str, timeout: float) -> None:
        """Connect. Raises psycopg.OperationalError."""
        scheduler, server, bouncer = self.scheduler, self.server, self.bouncer
        until = scheduler.now + timeout
        where = f'connection to server at "{server.host}", port {server.port} failed'
        steps = 2 + (server.auth_delay > 0 and bouncer is None)
        for step in range(steps):
            arrives = scheduler.now + (
                server.auth_delay if step == 2 else self.network.delay(self.link)
            )
            while scheduler.now < arrives or (self.quiet and (step or self.link.deaf)):
                if scheduler.now >= until:
                    raise psycopg.errors.ConnectionTimeout("connection timeout expired")
                wait = until if scheduler.now >= arrives else min(arrives, until)
                self.pause(wait - scheduler.now)
                if self.hung_up:
                    raise psycopg.OperationalError("connection failed: given up")
            if self.link.refuses or not (server.running or bouncer):
                raise psycopg.OperationalError(
                    f"connection failed: {where}: Connection refused\n"
                    "\tIs the server running on that host and accepting TCP/IP connections?"
                )
        self.network.world.advance(scheduler.now)
        try:
            self.session = (bouncer or server).login(scheduler.now, user=user)
        except Refused as refused:
            # libpq tells no SQLSTATE of a login that was refused.
            raise psycopg.OperationalError(
                f"connection failed: {where}: FATAL:  {refused.text}"
            ) from None
        self.opened = scheduler.now
        self.network.lines[server.port][self.number] = self

    def ask(self, texts: list[tuple[str, Any]]) -> Rows:
        """Send `texts` with their parameters, and await the answer to the last.

        Raises:
            psycopg.Error: as psycopg.
        """
        self.send()
        self.travel()
        session = self.session
        assert session is not None
        failed: Refused | None = None
        rows, answered = NOTHING, False
        if not self.cut:
            for sql, params in texts:
                try:
                    rows = self._run(session, sql, params)
                except Refused as refused:
                    failed = refused
                    break
            answered = session.open or rows is not NOTHING
            if answered:
                self.known = INERROR if session.failed else (
                    INTRANS if session.in_transaction else IDLE)  # fmt: skip
        self.travel()
        try:
            self.must_have_answered(failed, answered=answered)
        except psycopg.Error:
            if self.ended and self.network.broke is not None:
                self.network.broke(self, texts[-1][1])
            raise
        return rows

    def send(self) -> None:
        """Something leaves for the server."""
        scheduler = self.scheduler
        self.sent = scheduler.now
        if self.half_open is not None:
            self.half_open.send(scheduler.now)
            scheduler.at(self.half_open.ends, self.stir)

    def must_have_answered(self, failed: Refused | None, *, answered: bool) -> None:
        """Raise as psycopg does what the server `failed` with, or that it has gone. A session
        that is ended, and not killed, has sent what it `answered` before."""
        session = self.session
        assert session is not None
        unheard = self.hung_up or self.half_open is not None
        if failed is not None and not unheard:
            if failed.ends:
                self.close()
            raise error_of(failed)
        if self.cut:
            why = "" if unheard else session.why
            if answered and len(why) == 5:
                return  # the answer had left before: the next statement meets the end
            self.close()
            if len(why) == 5:  # an SQLSTATE: the server said so before it closed
                raise error_of(Refused(why, "terminating connection", ends=True))
            raise psycopg.OperationalError(
                "server closed the connection unexpectedly\n\tThis probably means the server "
                "terminated abnormally\n\tbefore or while processing the request."
            )

    def _run(self, session: Session | Client, sql: str, params: Any) -> Rows:
        scheduler, world = self.scheduler, self.network.world
        while True:
            world.advance(scheduler.now)
            if not session.open:
                return NOTHING
            try:
                rows = session.execute(sql, params, scheduler.now)
            except Blocked as blocked:
                while not blocked.by.over and not self.cut:
                    self.pause(blocked.by.step)
                    world.advance(scheduler.now)
                if self.cut:
                    by = blocked.by  # its answer left when a standby had flushed the commit
                    return by.rows if isinstance(by, Wait) and by.confirmed else NOTHING
                continue
            if self.network.trace is not None:
                self.network.trace(self, sql, params)
            return rows

    def close(self) -> None:
        """Close the client's side."""
        if self.ended:
            return
        self.ended = True
        self.network.lines[self.server.port].pop(self.number, None)
        session = self.session
        if session is not None and session.open:
            # A machine that hears nothing keeps the session.
            if not self.link.deaf and self.half_open is None:
                session.close(self.scheduler.now)
                return
            self.network.left_behind.append(session)
            if self.half_open is None:
                self.link.closed.append(session)
            if self.bouncer is not None and isinstance(session, Client):
                self.bouncer.leave_queue(session)  # what it asked is run for nobody

    def hang_up(self) -> None:
        """Shut the socket down for both sides."""
        self.hung_up = True
        self.stir()


_LEVELS = {level: level.name.replace("_", " ") for level in IsolationLevel}


class _Info:
    """What psycopg has as ``pgconn`` and as ``info``, as far as it is asked for."""

    encoding = "utf-8"

    def __init__(self, connection: "SimConnection") -> None:
        self._connection = connection

    @property
    def transaction_status(self) -> TransactionStatus:
        return self._connection.status


class SimConnection:
    """A connection as psycopg's blocking one."""

    network: Network  # set while a simulation runs
    process: Any = None

    def __init__(self, line: Line) -> None:
        self.line = line
        self.pgconn = self.info = _Info(self)
        self.prepare_threshold: int | None = 5
        self._autocommit = False
        self._level: IsolationLevel | None = None
        self._read_only: bool | None = None
        self._deferrable: bool | None = None
        self._active = False

    @classmethod
    def connect(cls, conninfo: str = "", **kwargs: Any) -> Self:
        """As psycopg's."""
        port = int(kwargs["port"])
        line = Line(cls.network, port, cls.process)
        timeout = float(kwargs.get("connect_timeout") or CONNECT)
        line.open(kwargs.get("user") or "app", max(2.0, timeout))
        made = cls(line)
        made._autocommit = bool(kwargs.get("autocommit"))
        return made

    # -- state ---------------------------------------------------------------------------------

    @property
    def status(self) -> TransactionStatus:
        """What libpq knows of the transaction."""
        if self.line.ended:
            return UNKNOWN
        if self._active:
            return ACTIVE
        return self.line.known

    @property
    def closed(self) -> bool:
        """Whether the client's side is closed."""
        return self.line.ended

    @property
    def broken(self) -> bool:
        """As `closed`: nobody closes a connection here and uses it after that."""
        return self.line.ended

    def fileno(self) -> int:
        """A number for its socket."""
        if self.line.ended:
            raise psycopg.OperationalError("the connection is closed")
        return self.line.number

    def _settle(self, what: str, value: Any) -> None:
        if self.status != IDLE:
            name = TransactionStatus(self.status).name
            if self.line.ended:
                raise psycopg.OperationalError("the connection is closed")
            raise psycopg.ProgrammingError(
                f"can't change {what!r} now: connection in transaction status {name}"
            )
        setattr(self, f"_{what}", value)

    @property
    def autocommit(self) -> bool:
        """As psycopg's."""
        return self._autocommit

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        self._settle("autocommit", bool(value))

    @property
    def isolation_level(self) -> IsolationLevel | None:
        """As psycopg's."""
        return self._level

    @isolation_level.setter
    def isolation_level(self, value: IsolationLevel | None) -> None:
        self._settle("level", value)

    @property
    def read_only(self) -> bool | None:
        """As psycopg's."""
        return self._read_only

    @read_only.setter
    def read_only(self, value: bool | None) -> None:
        self._settle("read_only", value)

    @property
    def deferrable(self) -> bool | None:
        """As psycopg's."""
        return self._deferrable

    @deferrable.setter
    def deferrable(self, value: bool | None) -> None:
        self._settle("deferrable", value)

    # -- statements ----------------------------------------------------------------------------

    def cursor(self, name: str = "", *, row_factory: Any = None, **_: Any) -> "SimCursor":
        """As psycopg's."""
        if self.line.ended:
            raise psycopg.OperationalError("the connection is closed")
        return SimCursor(self)

    def execute(self, sql: Any, params: Any = None, **_: Any) -> "SimCursor":
        """As psycopg's."""
        return self.cursor().execute(sql, params)

    def exchange(self, sql: str, params: Any, *, begins: bool) -> Rows:
        """Send one statement, in a transaction where it `begins` one; its rows."""
        if self.line.ended:
            raise psycopg.OperationalError("the connection is closed")
        if self._active:
            raise psycopg.ProgrammingError("another command is already in progress")
        texts = [(sql, params)]
        if begins and not self._autocommit and self.status == IDLE:
            texts.insert(0, (self._begin(), None))
        self._active = True
        try:
            return self.line.ask(texts)
        finally:
            self._active = False

    def _begin(self) -> str:
        parts = ["BEGIN"]
        if self._level is not None:
            parts.append(f"ISOLATION LEVEL {_LEVELS[self._level]}")
        if self._read_only is not None:
            parts.append("READ ONLY" if self._read_only else "READ WRITE")
        if self._deferrable is not None:
            parts.append("DEFERRABLE" if self._deferrable else "NOT DEFERRABLE")
        return " ".join(parts)

    def commit(self) -> None:
        """As psycopg's."""
        self._end("COMMIT")

    def rollback(self) -> None:
        """As psycopg's."""
        self._end("ROLLBACK")

    def _end(self, verb: str) -> None:
        if self.line.ended:
            raise psycopg.OperationalError("the connection is closed")
        if self.status != IDLE:
            self.exchange(verb, None, begins=False)

    def close(self) -> None:
        """As psycopg's."""
        self.line.close()

    def cancel(self) -> None:
        """Nothing here is cancelled from outside."""

    def __repr__(self) -> str:
        state = "closed" if self.closed else TransactionStatus(self.status).name
        return f"<SimConnection {self.line.number} to {self.line.server.name} [{state}]>"


class SimCursor:
    """A cursor as psycopg's."""

    def __init__(self, connection: SimConnection) -> None:
        self._connection = connection
        self._rows: list[tuple[Any, ...]] = []
        self._at = 0
        self.result: Rows | None = None
        self.closed = False
        self.rowcount = -1
        self.description: Any = None

    def execute(self, sql: Any, params: Any = None, **_: Any) -> Self:
        """As psycopg's."""
        text = sql if isinstance(sql, str) else sql.decode() if isinstance(sql, bytes) else (
            sql.as_string(None))  # fmt: skip
        self.result = result = self._connection.exchange(text, params, begins=True)
        self._rows, self._at, self.rowcount = result.rows, 0, result.rowcount
        self.description = () if result.rows else None
        return self

    def fetchone(self) -> Any:
        """As psycopg's."""
        if self._at >= len(self._rows):
            return None
        self._at += 1
        return self._rows[self._at - 1]

    def fetchall(self) -> list[Any]:
        """As psycopg's."""
        rest, self._at = self._rows[self._at :], len(self._rows)
        return rest

    def fetchmany(self, size: int = 1) -> list[Any]:
        """As psycopg's."""
        rest = self._rows[self._at : self._at + size]
        self._at += len(rest)
        return rest

    def close(self) -> None:
        """As psycopg's."""
        self.closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SimProbeConnection:
    """As `router.connect.probe_connection.ProbeConnection`, of one node."""

    def __init__(self, line: Line, loop: Loop) -> None:
        self._line = line
        self._loop = loop
        self.heard: float = math.inf

    @classmethod
    async def connect(cls, loop: Loop, arguments: Mapping[str, Any]) -> "SimProbeConnection":
        """A connection to ask over. Raises psycopg.Error."""
        line = Line(SimConnection.network, int(arguments["port"]))
        timeout = max(2.0, float(arguments.get("connect_timeout") or CONNECT))
        try:
            await loop.beside(lambda: line.open("monitor", timeout), "connecting")
        except Cancelled:
            line.hang_up()
            line.close()
            raise
        return cls(line, loop)

    async def ask(self, sql: bytes) -> tuple[Any, ...]:
        """The one row that `sql` gives. Raises psycopg.Error."""
        if sql == STAMP:  # no world changes its catalog
            await self.ask(b"SELECT 1")
            return "simulated", 1
        if self._line.ended:
            raise psycopg.OperationalError("the connection is closed")
        line = self._line
        self.heard = line.scheduler.now
        line.send()
        text = PROBE_SQL if sql == _PROBE else ROLE_SQL if sql == _ROLE else sql.decode()
        try:
            await self._travel()
            session = line.session
            assert session is not None
            failed: Refused | None = None
            rows, answered = NOTHING, False
            if not line.cut:
                try:
                    rows = await self._run(session, text)
                except Refused as refused:
                    failed = refused
                answered = session.open
            await self._travel()
        except Cancelled:
            line.hang_up()
            line.close()
            raise
        line.must_have_answered(failed, answered=answered)
        self.heard = line.scheduler.now
        row: tuple[Any, ...] = rows.rows[0]
        return row

    async def _run(self, session: Session | Client, text: str) -> Rows:
        """As `Line._run`: behind a PgBouncer it waits for its turn."""
        line = self._line
        scheduler, world = line.scheduler, line.network.world
        while True:
            world.advance(scheduler.now)
            try:
                return session.execute(text, None, scheduler.now)
            except Blocked as blocked:
                while not blocked.by.over and not line.cut:
                    await self._loop.sleep(blocked.by.step)
                    world.advance(scheduler.now)
                if line.cut:
                    return NOTHING

    async def _travel(self) -> None:
        """As `Line.travel`, for a task: without a thread for each probe."""
        line = self._line
        scheduler = line.scheduler
        until = scheduler.now + line.network.delay(line.link)
        while not line.cut and (scheduler.now < until or line.quiet):
            arrival = line.waiter = _Arrival(self._loop)
            try:
                await arrival.event.wait(
                    within=until - scheduler.now if scheduler.now < until else None
                )
            finally:
                line.waiter = None

    def hang_up(self) -> None:
        """Close the socket for both sides."""
        self._line.hang_up()

    @property
    def unread(self) -> bool:
        """Nothing lies unread: an answer is taken when it comes."""
        return False

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._line.ended

    def close(self) -> None:
        """Close it."""
        self._line.close()


_PROBE, _ROLE = PROBE_SQL.encode(), ROLE_SQL.encode()
