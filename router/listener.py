"""LISTEN on the primary, wherever it is: one connection that comes back after every loss."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from router import registry
from router.cluster.router import Router
from router.config.config import Config
from router.config.options import own_query
from router.config.server import Server
from router.config.urls import url_parts, url_text
from router.errors import ConfigError, ListenerFailed, PrimaryUnavailable, SessionRefused
from router.messages import one_line
from router.model import Node
from router.rules.pgbouncer import SHARED
from router.runtime import SYSTEM
from router.target import router_of

if TYPE_CHECKING:
    from psycopg import Notify

    from router.connect.hangup_connection import HangUpConnection

CHECK_INTERVAL = 0.25
"""Seconds between two looks at whether the primary is still the one listened to."""

KEPT = 1000
"""Notifications taken from the server before somebody wants them; others wait there."""

LONGEST_NAME = 63
"""Bytes of a channel's name; PostgreSQL would cut a longer one.

Source: https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-IDENTIFIERS
"""


@dataclass(frozen=True, slots=True)
class Notification:
    """What a NOTIFY sent.

    Attributes:
        channel: its channel.
        payload: its text, empty where there was none.
        pid: process id of the server session that sent it.
        node: name of the node it came from.
    """

    channel: str
    payload: str
    pid: int
    node: str


@dataclass(frozen=True, slots=True)
class ListenerHealth:
    """How a listener stands since its last change.

    Attributes:
        listening: whether notifications arrive. Those sent while it was False are lost, as
            PostgreSQL keeps them for nobody: look for what you may have missed when it turns True.
        node: name of the node listened to, or that was lost; empty where there is no primary.
        reason: why it is not listening, empty if it is.
        failures: attempts that failed since it last listened.
        retry_in: seconds until the next one; less, should another primary appear.
    """

    listening: bool
    node: str = ""
    reason: str = ""
    failures: int = 0
    retry_in: float = 0.0


def listen(target: object, *channels: str, **options: Any) -> "Listener":
    """A `Listener` to `channels` of `target`, with the `options` of its constructor."""
    return Listener(target, *channels, **options)


class Listener:
    """Notifications of some channels, from whichever node is the primary.

    ``with`` and ``for`` in a thread, ``async with`` and ``async for`` on an event loop. It belongs
    to the thread or the loop that entered it; `stop` may be called from anywhere.
    """

    def __init__(
        self,
        target: object,
        *channels: str,
        on_health: Callable[[ListenerHealth], object] | None = None,
        exit_on_failure: bool = False,
        session_url: str | None = None,
        backoff: float = 0.1,
        backoff_max: float = 30.0,
        rand: Callable[[], float] = SYSTEM.rand,
    ) -> None:
        """Prepare; nothing is connected to before the block is entered.

        Args:
            target: a routed engine, a `Router`, a `Config`, or the primary's URL.
            *channels: their names, as they are: ``"Jobs"`` and ``"jobs"`` are two.
            on_health: called with each change, from the thread or loop that listens.
            exit_on_failure: raise `ListenerFailed` when the connection cannot be made or is lost,
                so that the process ends and a supervisor starts it anew. Otherwise it is made
                again, with growing pauses.
            session_url: where to listen in place of the primary's own address, such as past a
                PgBouncer; by default the option of that name. What it leaves out is the
                primary's. With several hosts, libpq finds the primary among them.
            backoff: pause after the first failure (seconds), doubled with each further one.
            backoff_max: the longest pause (seconds).
            rand: floats in [0, 1): a pause is shortened by up to a half at random.

        Raises:
            ConfigError: no channel is named, a name is too long, or the target is none.
            SessionRefused: PgBouncer shares the primary's sessions, and there is no session URL.
        """
        if not channels:
            raise ConfigError("channels: none is named: give one or more")
        for name in channels:
            if not 0 < len(name.encode()) <= LONGEST_NAME or "\0" in name:
                raise ConfigError(
                    f"channels: {name!r} is no name of 1 to {LONGEST_NAME} bytes: shorten it"
                )
        if not 0 < backoff <= backoff_max:
            raise ConfigError(f"backoff={backoff:g}: give more than 0 and at most backoff_max")
        self.channels: tuple[str, ...] = channels
        self.router: Router
        self.router, self._owned = router_of(target)
        self.health: ListenerHealth = ListenerHealth(False, reason="not begun")
        self._on_health = on_health
        self._exit_on_failure = exit_on_failure
        self._opener = _Opener(self.router, channels, session_url)
        self._backoff = backoff
        self._backoff_max = backoff_max
        self._rand = rand
        self._runner: asyncio.Runner | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopped = False
        registry.renew(self)

    def __repr__(self) -> str:
        health = self.health
        state = f"listening to {health.node}" if health.listening else health.reason
        return f"<Listener {', '.join(self.channels)}: {state}>"

    # -- on an event loop ----------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self._begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end()

    def __aiter__(self) -> AsyncIterator[Notification]:
        return self._each()

    async def _each(self) -> AsyncIterator[Notification]:
        while (found := await self.aget()) is not None:
            yield found

    async def aget(self, timeout: float | None = None) -> Notification | None:  # noqa: ASYNC109
        """The next notification; None when there is none in time, or after `stop`.

        Args:
            timeout: seconds; None waits without end.

        Raises:
            ListenerFailed: the connection failed, with ``exit_on_failure``.
        """
        if (task := self._task) is None:
            raise RuntimeError("the listener is not running: use it in a with block")
        try:
            async with asyncio.timeout(timeout):
                while not self._arrived:
                    if task.done():
                        task.result()
                    if self._stopped:
                        return None
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return None
        self._room.release()
        return self._arrived.popleft()

    # -- in a thread ---------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._runner = asyncio.Runner(loop_factory=self.router.runtime.tasks.loop)
        try:
            self._runner.run(self._begin())
        except BaseException:
            self._runner.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        runner = self._runner
        if runner is None:
            return  # it belongs to the process this one was forked from
        try:
            runner.run(self._end())
        finally:
            self._runner = None
            runner.close()

    def __iter__(self) -> Iterator[Notification]:
        while (found := self.get()) is not None:
            yield found

    def get(self, timeout: float | None = None) -> Notification | None:
        """As `aget`, in a thread."""
        if self._runner is None:
            raise RuntimeError("the listener is not running: use it in a with block")
        return self._runner.run(self.aget(timeout))

    def stop(self) -> None:
        """End the iteration, once what has arrived was taken. A signal handler may call it."""
        self._stopped = True
        if (loop := self._loop) is not None:
            with suppress(RuntimeError):  # closed between the look and the call
                loop.call_soon_threadsafe(self._news.set)

    def after_fork(self) -> None:
        """In a forked child: leave the connection and the loop to the parent, which listens on."""
        if self._task is not None:
            registry.leave_to_parent(self._runner, self._loop, self._task)
            self._runner = self._loop = self._task = None
            self.health = ListenerHealth(False, reason="begun before a fork, in the parent")

    async def _begin(self) -> None:
        if self._task is not None:
            raise RuntimeError("the listener is running already: make another one")
        self._loop = asyncio.get_running_loop()
        self._stopped = False
        self._arrived: deque[Notification] = deque()
        self._room = asyncio.Semaphore(KEPT)
        self._news = self.router.runtime.tasks.event()
        try:
            await asyncio.to_thread(self.router.start)
            self._task = self.router.runtime.tasks.spawn(self._listen())
            self._task.add_done_callback(lambda _: self._news.set())
            # Once entered, the block listens, or has tried to: what is sent from now on arrives.
            await self._news.wait()
            if self._task.done():
                self._task.result()
        except BaseException:
            await self._end()
            raise

    async def _end(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await self.router.runtime.tasks.ends(task)
            if not task.cancelled():
                task.exception()  # the iteration has raised it, or nobody asked
        self._loop = None
        if self._owned:
            await asyncio.to_thread(self.router.close)

    async def _listen(self) -> None:
        failures = 0
        while True:
            node = self.router.primary
            name = node.name if node is not None else ""
            try:
                connection, first = await self._opener.open(node)
            except Exception as error:  # noqa: BLE001 - the driver's, the resolver's, ours
                reason, failures = one_line(error), failures + 1
            else:
                try:
                    failures = 0
                    self._tell(ListenerHealth(True, name))
                    reason = await self._receive(connection, node, first)
                finally:
                    await connection.close()
            # At once after a loss: most often the server, or another one, is there.
            pause = self._backoff * 2 ** min(failures - 1, 30) if failures else 0.0
            pause = min(pause, self._backoff_max) * (1 - self._rand() / 2)
            self._tell(ListenerHealth(False, name, reason, failures, pause))
            if self._exit_on_failure:
                raise ListenerFailed(
                    f"{node or 'primary'}: the connection that listens failed: {reason}. Start "
                    "the process anew, or leave exit_on_failure out to connect again"
                )
            await self._pause(pause, node)

    async def _receive(
        self, connection: "HangUpConnection", node: Node | None, first: "list[Notify]"
    ) -> str:
        """Take what arrives until the connection ends; returns why it ended."""
        import psycopg

        while first:
            await self._keep(first.pop(0), node)
        try:
            while True:
                async for found in connection.notifies(timeout=CHECK_INTERVAL):
                    await self._keep(found, node)
                if self.router.primary != node:
                    return "the primary is another node now"
                if node is None or self.router.snapshot.doubted(node.name) is None:
                    continue
                # What listens is the best probe: the monitor's connection may be the one at fault.
                if not await self._answers(connection, first):
                    return "it answers no probe"
                self.router.health.vouch(node)
                while first:
                    await self._keep(first.pop(0), node)
        except psycopg.Error as error:
            return one_line(error)

    async def _answers(self, connection: "HangUpConnection", arrived: "list[Notify]") -> bool:
        """Whether the server answers in ``probe_timeout``; notifications go into `arrived`."""
        import psycopg

        patience = self.router.config.probe_timeout
        limit = asyncio.get_running_loop().call_later(patience, connection.hang_up)
        connection.add_notify_handler(arrived.append)
        try:
            await connection.execute("SELECT 1")
        except psycopg.Error:
            return False
        finally:
            limit.cancel()
            connection.remove_notify_handler(arrived.append)
        return True

    async def _keep(self, found: "Notify", node: Node | None) -> None:
        await self._room.acquire()
        name = node.name if node is not None else ""
        self._arrived.append(Notification(found.channel, found.payload, found.pid, name))
        self._news.set()

    async def _pause(self, seconds: float, node: Node | None) -> None:
        """Wait before the next attempt; not when a primary appears that was not tried."""
        until = self.router.clock() + seconds
        while (left := until - self.router.clock()) > 0:
            if self.router.primary not in (None, node):
                return
            await self.router.runtime.tasks.sleep(min(left, CHECK_INTERVAL))

    def _tell(self, health: ListenerHealth) -> None:
        known, self.health = self.health, health
        self._news.set()
        channels = list(self.channels)
        if health.listening:
            self.router.telemetry.event("listening", node=health.node, channels=channels)
        elif known.listening or known.reason != health.reason:
            self.router.telemetry.event(
                "listener_lost",
                level="warning",
                node=health.node,
                channels=channels,
                reason=health.reason,
            )
        if self._on_health is not None:
            self._on_health(health)


class _Opener:
    """Opens the connection that listens: to the primary, or where ``session_url`` leads."""

    def __init__(self, router: Router, channels: tuple[str, ...], session_url: str | None) -> None:
        config = router.config
        session_url = session_url or config.session_url
        self._router = router
        self._channels = channels
        self._session = None if session_url is None else _session(session_url, config)
        if self._session is None:
            _refuse_shared(config, config.primary)

    async def open(self, node: Node | None) -> "tuple[HangUpConnection, list[Notify]]":
        """A connection to `node`, the primary, that listens, and what has arrived on it so far."""
        from psycopg import sql

        from router.connect.hangup_connection import HangUpConnection

        if self._session is not None:
            arguments = dict(self._session)
        elif node is not None:
            _refuse_shared(self._router.config, self._router.servers[node])
            arguments = dict(self._router.connect_args(node))
        else:
            raise PrimaryUnavailable("no node is known to be the primary")
        arguments.setdefault("application_name", "pg-router listener")
        connection = await HangUpConnection.connect(**arguments, autocommit=True)
        first: list[Notify] = []
        # Between a channel's LISTEN and notifies() psycopg hands what arrives to handlers.
        connection.add_notify_handler(first.append)
        try:
            if self._session is not None:
                await self._same_database(connection)
            for channel in self._channels:
                await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
        except BaseException:
            await connection.close()
            raise
        connection.remove_notify_handler(first.append)
        return connection, first

    async def _same_database(self, connection: "HangUpConnection") -> None:
        """Raise ConfigError if ``session_url`` led `connection` to another database than the
        primary's, where no notification of that arrives."""
        wanted = self._router.snapshot.database
        cursor = await connection.execute("SELECT current_database()::text")
        ((found,),) = await cursor.fetchall()
        if wanted and found != wanted:
            raise ConfigError(
                f"session_url: the database there is {found!r}, and the primary's {wanted!r}: "
                "name the primary's"
            )


def _refuse_shared(config: Config, server: Server) -> None:
    """Raise SessionRefused where PgBouncer gives the session that listens to others."""
    if (mode := config.pooling(server)) in SHARED:
        raise SessionRefused(
            f"{server.host}:{server.port}: LISTEN needs a server session of its own, and "
            f"PgBouncer gives none by {mode}: give session_url, which leads past PgBouncer"
        )


def _session(url: object, config: Config) -> Mapping[str, Any]:
    """What psycopg takes for `url`, a ``session_url``; libpq finds the primary among its hosts."""
    import psycopg
    from psycopg.conninfo import make_conninfo

    text = url_text(url, "session_url")
    servers = config.but(session_url=text).sessions()
    _, params = own_query(url_parts(text, "session_url").get("params", {}))
    found = {
        **config.libpq(),
        "target_session_attrs": "read-write",
        **servers[0].connect_args(),
        **params,
        "host": ",".join(server.host for server in servers),
        "port": ",".join(str(server.port) for server in servers),
    }
    try:
        make_conninfo(**found)
    except psycopg.ProgrammingError as error:
        raise ConfigError(f"session_url: {one_line(error)}") from None
    return found
