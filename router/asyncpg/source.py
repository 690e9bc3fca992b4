"""Where asyncpg's connections come from: a real pool for each node, as a checkout asks it.

Runs in a greenlet unless a docstring says otherwise.
"""

import asyncio
import contextlib
import functools
from collections.abc import Coroutine, Mapping
from contextvars import ContextVar
from math import inf
from typing import Any

import asyncpg

from router import registry
from router.asyncpg.errors import PoolClosed, PoolTimeout, translated
from router.asyncpg.listeners import Listeners
from router.asyncpg.node_connection import DRIVER_ERRORS, AsyncpgConnection, ask, released
from router.asyncpg.options import CONNECTING, arguments, checked
from router.cluster.gate import GivenUp, at_most, must_be_had
from router.cluster.membership import Use
from router.cluster.monitor import Monitor
from router.cluster.router import Router
from router.config.config import Config
from router.config.server import Server
from router.connect import credentials
from router.connect.dialing import NothingOpen, may_open
from router.connect.driver import Driver
from router.connect.source import Connector, Source
from router.errors import RouterError
from router.greenlets import await_only, greenlet_spawn
from router.model import Node, app_name

ASYNCPG = Driver(
    errors=DRIVER_ERRORS,
    ask=ask,
    # Whatever is not the server's own answer ends the connection, or will at once.
    lost=lambda error, con: not isinstance(error, asyncpg.PostgresError) or con.is_closed(),
    close=lambda con: await_only(con.close()),
    abort=lambda con: con.terminate(),
    fileno=lambda con: int(con._transport.get_extra_info("socket").fileno()),
    alone=lambda con: not con.is_in_transaction(),
    reached_by=credentials.of_asyncpg,
)


class Acquiring:
    """A connection that a task waits for, in the place of a caller who may give up meanwhile.

    Attributes:
        connects: a place was free, and a connection is being opened.
    """

    def __init__(self) -> None:
        self.connects: bool = False


_acquiring: ContextVar[Acquiring | None] = ContextVar("pg_router_acquiring", default=None)


class AsyncpgConnector(Connector):
    """The servers of one Router, as asyncpg connects to them: an asyncpg pool for each.

    Attributes:
        unclean: connections, by node and server process, that have to be reset.
        closing: it was closed, or is being closed: no more connections are lent.
        version: of a server that was connected to, None before.
    """

    driver: Driver = ASYNCPG

    def __init__(self, config: Config, options: dict[str, Any]) -> None:
        """Prepare, and open nothing: `config` says which servers and how to route; `options`
        are those of `asyncpg.create_pool`, for each node's pool. Raises ConfigError: an option
        is unknown or malformed; names it and the cure."""
        self.config: Config = config
        self._options: dict[str, Any] = checked(config, options)
        self._user_reset: Any = self._options.pop("reset", None)
        self._user_connect: Any = self._options.pop("connect", None) or asyncpg.connect
        self.unclean: set[tuple[Node, int]] = set()
        self.version: Any = None
        self._pools: dict[Node, Any] = {}
        self.closing: bool = False
        self._closed: bool = False
        self._ending: set[asyncio.Future[Any]] = set()
        self._router_loop: asyncio.AbstractEventLoop | None = None
        self.renews: bool = self._user_connect is not asyncpg.connect or callable(
            self._options.get("password")
        )
        router = Router(config)
        self.join(router, Monitor(router, self.monitor_arguments))

    def _same_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._router_loop is None:
            self._router_loop = loop
        elif self._router_loop is not loop:
            raise asyncpg.InterfaceError(
                "the pool belongs to another event loop: make one pool in each loop"
            )

    async def to_its_end(self, work: Coroutine[Any, Any, None]) -> None:
        """Await `work`, which goes on when the caller is cancelled meanwhile."""
        task = self.router.runtime.tasks.spawn(work)
        # The event loop itself keeps no strong reference to a task that nobody awaits any more.
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        await asyncio.shield(task)

    def comes_late(self, pool: Any, task: "asyncio.Task[Any]", acquiring: Acquiring) -> None:
        """Give a connection back to `pool` that `task` opens for nobody any more; one that waits
        for a place gives up."""
        if not acquiring.connects:
            task.cancel()

        def give_back(task: "asyncio.Task[Any]") -> None:
            if not task.cancelled() and task.exception() is None:
                keep(self.router.runtime.tasks.spawn(_released(pool, task.result())))

        def keep(task: "asyncio.Task[Any]") -> None:
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

        keep(task)
        task.add_done_callback(give_back)

    def arguments(self, server: Server) -> dict[str, Any]:
        """What `asyncpg.connect` needs to reach `server`."""
        return arguments(self.config, server, self._options)

    def monitor_arguments(self, node: Node) -> Mapping[str, Any]:
        """What psycopg needs to reach `node`. Raises what the user's functions raise."""
        server, loop = self.router.servers[node], self._router_loop
        found = self.config.libpq() | server.connect_args()
        given = self.arguments(server)
        if self._user_connect is not asyncpg.connect:
            found |= credentials.awaited(self._reached_by(given), loop)
            return found
        if callable(given.get("password")):
            found["password"] = credentials.made(given["password"], loop)
        return found

    async def _reached_by(self, given: dict[str, Any]) -> Mapping[str, Any]:
        """By which parameters the user's ``connect`` reaches where the arguments `given` lead."""
        connection = await self._user_connect(given.pop("dsn"), **given)
        try:
            return ASYNCPG.reached_by(connection)
        finally:
            connection.terminate()

    def node_pool(self, node: Node) -> Any:
        """The asyncpg pool for `node`, made when first asked for.

        Raises:
            PoolClosed: this pool is closed.
            NoReplicaAvailable: the node has left the cluster.
        """
        pool = self._pools.get(node)
        if pool is not None:
            return pool
        if self._closed:
            raise PoolClosed("the pool is closed: make another one")
        server = self.server(node)

        async def connect(*args: Any, **kw: Any) -> Any:
            if (acquiring := _acquiring.get()) is not None:
                acquiring.connects = True
            return await greenlet_spawn(self._connect, node, args, kw)

        of_pool = {k: v for k, v in self._options.items() if k not in CONNECTING}
        pool = asyncpg.create_pool(
            **{**self.arguments(server), **of_pool, "min_size": 0},
            connect=connect,
            reset=self._user_reset or functools.partial(self._put_right, node),
        )
        # With nothing to open yet it gets ready in one step: no other task meets half a pool.
        with contextlib.suppress(StopIteration):
            next(pool.__await__())
        self._pools[node] = pool
        return pool

    async def _put_right(self, node: Node, con: Any) -> None:
        """Reset a connection that comes back, unless it was only read from: that spares a round
        trip.

        Where there is a ``setup`` always: what that sets is meant for the user who acquired it."""
        which = (node, con.get_server_pid())
        if which in self.unclean or self._options.get("setup"):
            self.unclean.discard(which)
            await con.reset()

    def _connect(self, node: Node, args: Any, kw: dict[str, Any]) -> Any:
        if not may_open.get():
            raise NothingOpen
        settings = {"application_name": app_name(node), **(kw.get("server_settings") or {})}
        con = self.open_to(
            node,
            lambda: self._dial(args, {**kw, "server_settings": settings}),
            lambda con: self._admit(node, con),
            lambda seconds: await_only(self.router.runtime.tasks.sleep(seconds)),
        )
        self.note_opened((node, con.get_server_pid()))
        return con

    def _dial(self, args: Any, kw: dict[str, Any]) -> Any:
        """A new asyncpg connection."""
        try:
            return await_only(self._user_connect(*args, **kw))
        except OSError as error:
            # A connect that takes too long is a TimeoutError, as a busy pool's error is.
            raise ConnectionError(str(error) or "it does not answer in time") from error

    def _admit(self, node: Node, con: Any) -> None:
        """Ask a new connection's server what it is, before anything is trusted to it."""
        self.probe_over(node, con)
        self.version = con.get_server_version()
        self.check_schemas(node, con)

    def connect_session_url(self, node: Node) -> Any:
        """A new connection to `node`, the primary, by ``session_url``; None without one. Raises
        as `first_of_sessions`."""

        def admit(con: Any) -> str:
            problem = self.why_not_primary(node, con)
            if not problem and (init := self._options.get("init")):
                await_only(init(con))
            return problem

        sessions = self.config.sessions()

        def way(server: Server) -> Any:
            given = self.arguments(server)
            return functools.partial(self._dial, (given.pop("dsn"),), given)

        return self.first_of_sessions(node, map(way, sessions), admit)

    def retire(self, node: Node) -> None:
        """Close the pool of `node`, which left; a connection in use is closed when it comes
        back. Any thread."""
        pool, loop = self._pools.pop(node, None), self._router_loop
        if pool is not None and loop is not None and not loop.is_closed():
            asyncio.run_coroutine_threadsafe(pool.close(), loop)

    def under_way(self, node: Node) -> list[Any]:
        """As the base class has it. By asyncpg's own names: its holders know who uses them."""
        pool = self._pools.get(node)
        holders = [] if pool is None else pool._holders
        return [holder._con for holder in holders if holder._in_use and holder._con is not None]

    def retired(self, node: Node, pool: Any) -> bool:
        """Whether `pool`, which was that of `node`, has been closed by `retire` since."""
        return self._pools.get(node) is not pool

    def use(self) -> dict[Node, Use]:
        """The connections to each node."""
        sizes = {n: (p.get_size(), p.get_idle_size()) for n, p in self._pools.copy().items()}
        return {node: Use(size - idle, idle) for node, (size, idle) in sizes.items()}

    def after_fork(self) -> None:
        """In a forked child: leave every connection, and the event loop, to the parent. The
        next event loop that uses this pool is its loop."""
        registry.leave_to_parent(self._pools, self._ending, self._router_loop)
        self._pools, self._ending, self.unclean, self._router_loop = {}, set(), set(), None
        self.opened.clear()


def _ready(pool: Any) -> bool:
    """Whether asyncpg's `pool` has a connection that is open and not in use. By its own names:
    `_queue` gives the holder that was put there last."""
    holders = pool._queue._queue
    if not holders:
        return False
    holder = holders[-1]
    return bool(holder.is_connected() and holder._generation == pool._generation)


async def _acquire(pool: Any, timeout: float | None, acquiring: Acquiring) -> Any:
    _acquiring.set(acquiring)
    return await pool.acquire(timeout=timeout)


async def _released(pool: Any, con: Any) -> None:
    with contextlib.suppress(TimeoutError, *DRIVER_ERRORS):
        await released(pool, con)


class _Unused:
    """Tells a task of the event loop `loop` that its node is not used any more.

    Attributes:
        future: done then.
    """

    __slots__ = ("_loop", "_told", "future")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.future: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._told = False

    def tell(self) -> None:
        """It is not used; any thread. Once is enough, though views change while the loop works."""
        if not self._told:
            self._told = True
            with contextlib.suppress(RuntimeError):  # the loop was closed
                self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


class AsyncpgSource(Source):
    """A pool's nodes as one checkout sees them, with the time it may wait for a connection."""

    __slots__ = ("listeners", "pool", "router", "timeout")

    driver = ASYNCPG
    default_isolation = "AUTOCOMMIT"

    def __init__(self, pool: AsyncpgConnector, timeout: float | None) -> None:
        self.pool: AsyncpgConnector = pool
        self.router: Router = pool.router
        self.timeout: float | None = timeout
        self.listeners: Listeners = Listeners()

    def start_router(self) -> None:
        """Start the Router, while the event loop runs on."""
        await_only(asyncio.to_thread(self.router.start))

    def hold(self, node: Node) -> AsyncpgConnection:
        """A pooled connection to `node`. Raises PoolTimeout: none was free in time; names node,
        size and cure."""
        pool = self.pool.node_pool(node)
        began = 0.0 if self.timeout is None else self.router.clock()
        try:
            limit = at_most(inf if self.timeout is None else self.timeout)
            con = await_only(self._acquired(node, pool, None if limit == inf else limit))
        except TimeoutError:
            must_be_had(node)
            if self.timeout is None or self.router.clock() - began < 0.9 * self.timeout:
                # A statement of the hook setup= took longer than command_timeout.
                raise ConnectionError(f"{node} does not answer in time") from None
            raise PoolTimeout(
                f"{node}: none of its pool's {pool.get_max_size()} connections was free for "
                f"{self.timeout:g} s: {self.pool.config.relief('max_size')}"
            ) from None
        except asyncpg.InterfaceError:
            if self.pool.closing:
                raise PoolClosed("the pool is closed: make another one") from None
            if self.pool.retired(node, pool):
                return self.hold(node)  # its name leads to another server now
            raise
        held = AsyncpgConnection(self, node, pool, con)
        if self.pool.opened and self.pool.is_fresh((node, con.get_server_pid())):
            held.fresh = True
        return held

    async def _acquired(self, node: Node, pool: Any, timeout: float | None) -> Any:
        """A connection of `pool`, which is that of `node`, in `timeout` seconds. One that is not
        there at once is waited for as long as the node is used. Raises GivenUp."""
        if _ready(pool) or len(self.router.servers) < 2:
            return await pool.acquire(timeout=timeout)
        router, acquiring, unused = self.router, Acquiring(), _Unused(asyncio.get_running_loop())
        task = router.runtime.tasks.spawn(_acquire(pool, timeout, acquiring))
        number = router.gate.watch(node, unused.tell)
        try:
            if router.view.uses(node, router.clock()):
                await asyncio.wait({task, unused.future}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self.pool.comes_late(pool, task, acquiring)
            raise
        finally:
            router.gate.leave(number)
        if task.done():
            return task.result()
        self.pool.comes_late(pool, task, acquiring)
        raise GivenUp(node)

    def idle(self, node: Node) -> AsyncpgConnection | None:
        """As `hold`, of connections that are open and not in use; never opens one, nor waits."""
        pool = self.pool.node_pool(node)
        token = may_open.set(False)
        try:
            if pool.get_idle_size():
                # Another task may take it first; then nobody waits longer than a probe may take.
                con = await_only(pool.acquire(timeout=self.pool.config.probe_timeout))
                return AsyncpgConnection(self, node, pool, con)
        except (NothingOpen, TimeoutError, asyncpg.InterfaceError):
            pass
        finally:
            may_open.reset(token)
        return None

    def session(self, node: Node) -> AsyncpgConnection | None:
        """A connection to `node`, the primary, by ``session_url``; None without that."""
        con = self.pool.connect_session_url(node)
        return None if con is None else AsyncpgConnection(self, node, None, con)

    def probe(self, held: AsyncpgConnection) -> None:
        """Probe a node over a connection held, and tell the Router."""
        self.pool.probe_over(held.node, held.con)

    def translated(self, error: RouterError) -> Exception:
        """The asyncpg counterpart of the core's `error`."""
        return translated(error)
