"""Patches psycopg's connections with their record: how psycopg connects, here and for Django."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from math import inf
from typing import Any

import psycopg
import psycopg_pool
from psycopg import IsolationLevel
from psycopg.pq import TransactionStatus

from router import registry
from router.cluster.gate import GivenUp, at_most, must_be_had, must_be_used
from router.cluster.router import Router
from router.config.server import Server
from router.connect.credentials import of_psycopg
from router.connect.driver import Driver
from router.connect.hangup import HangUp
from router.connect.parameters import for_probes
from router.connect.source import Connector, Source
from router.errors import NoReplicaAvailable, PrimaryUnavailable, RouterError
from router.model import Node, app_name
from router.psycopg import errors
from router.psycopg.node_connection import (
    ConnectionRecord,
    PsycopgConnection,
    alive,
    ask,
    loop_of,
    still_waits,
)

POOL_LOOK = 0.25
"""Seconds to wait for a node's pool between two looks at whether it can ever open a connection,
where probes are not let in."""

FIRST_LOOK = 2.0
"""The same where they are let in, as far as is known, and yet no connection was ever opened."""

CLOSING = -1
"""``max_waiting`` of a pool that is being closed: psycopg_pool refuses everybody by it."""

OPEN_LOOK = 0.05
"""Seconds to wait for an idle connection that another caller may have taken meanwhile."""

POOL_TIMEOUT = 30.0
"""Seconds; psycopg_pool's own default for ``timeout``."""

_LINE = "_router_line"
"""Attribute of psycopg's connection that holds its `ConnectionRecord`."""

_ADMITTED = "_pg_router_admitted"
"""Attribute of psycopg's connection, also where it has a `router.psycopg.blocking` wrapper: when
its server answered first (monotonic seconds)."""

PSYCOPG = Driver(
    errors=(psycopg.Error,),
    ask=ask,
    lost=lambda error, connection: bool(connection.closed),
    reached_by=of_psycopg,
    runs=lambda connection: connection.pgconn.transaction_status == TransactionStatus.ACTIVE,
)


class PsycopgConnector(Connector, ABC):
    """The servers of one Router, as psycopg connects to them.

    Attributes:
        served: nodes to which their pool has opened a connection.
        server_isolation: what ``default_transaction_isolation`` is on a new connection, by the
            settings of server, database, role or the user; None until there was one.
    """

    driver: Driver = PSYCOPG
    server_isolation: str | None = None

    def begin(self) -> None:
        """Have no pools yet."""
        self.served: set[Node] = set()
        self.lent: dict[ConnectionRecord, Node] = {}
        self._pools: dict[Node, Any] = {}
        self._away: set[Node] = set()
        self._renewing = registry.lock()

    def under_way(self, node: Node) -> Iterable[Any]:
        """As the base class has it."""
        return [line.dbapi for line, used in self.lent.copy().items() if used is node]

    def unused(self, node: Node) -> None:
        """As the base class has it; and nobody waits in the node's pool any longer."""
        pool, known = self._pools.get(node), self.router.snapshot.reports.get(node.name)
        if pool is not None:
            self.give_up(node, pool)
            if known is not None and not known.ok:
                self._away.add(node)
        super().unused(node)

    def give_up(self, node: Node, pool: Any) -> None:
        """Let nobody wait any longer for a connection to `node` of psycopg_pool's `pool`; any
        thread. Its own names: `_waiting` holds those who wait, and `fail` ends that."""
        with pool._lock:
            waiting = [each for each in pool._waiting if still_waits(each)]
        for each in waiting:
            each.fail(GivenUp(node))

    def shut(self, node: Node, pool: Any) -> None:
        """Let nobody join the queue of psycopg_pool's `pool`, that of `node`, to be closed next.
        Closing tells those who wait, but not who has just found it open and joins them after."""
        self.served.discard(node)
        pool.max_waiting = CLOSING

    def renew(self, node: Node, pool: Any) -> None:
        """Retire `pool`, which is that of `node`, if it has none but connections that it failed to
        make while the node was away: it doubles the pause after each attempt, up to minutes."""
        known = self.router.snapshot.reports.get(node.name)
        if node not in self._away or known is None or not known.ok:
            return
        with self._renewing:
            # Of several callers who saw that, one retires it.
            if node not in self._away or self._pools.get(node) is not pool:
                return
            self._away.discard(node)
            if not self.lends(node):
                self.retire(node)

    def lends(self, node: Node) -> bool:
        """Whether somebody has a connection to `node`."""
        return node in self.lent.copy().values()

    @abstractmethod
    def arguments(self, server: Server) -> dict[str, Any]:
        """What psycopg needs to connect to `server`."""

    @abstractmethod
    def retire(self, node: Node) -> None:
        """Close idle connections to `node` now, those in use when they come back; any thread."""

    def monitor_arguments(self, node: Node) -> dict[str, Any]:
        """What the monitor needs to connect to `node`."""
        return for_probes(self.arguments(self.router.servers[node]))

    def dial(self, arguments: dict[str, Any]) -> Any:
        """A new connection of psycopg, by its `arguments`."""
        return psycopg.connect(**arguments)

    def named(self, node: Node) -> dict[str, Any]:
        """As `arguments`, with a name by which the server's own views show the node's use."""
        return {"fallback_application_name": app_name(node), **self.arguments(self.server(node))}

    def connect_session_url(self, node: Node, configure: Callable[[Any], object]) -> Any:
        """A new connection to `node`, the primary, by ``session_url``, on which `configure` was
        called; None without that option. Raises as `first_of_sessions`."""

        def admit(connection: Any) -> str:
            problem = self.why_not_primary(node, connection)
            if not problem:
                configure(connection)
            return problem

        def way(server: Server) -> Callable[[], Any]:
            return lambda: self.dial(self.arguments(server))

        return self.first_of_sessions(node, map(way, self.config.sessions()), admit)

    def admit(self, node: Node, connection: Any, configure: Callable[[Any], object]) -> None:
        """Ask the server of a new `connection` what it is, before anything is trusted to it,
        for it is taken for `node`'s; then `configure` it."""
        if len(self.router.servers) > 1:
            self.probe_over(node, connection)
        configure(connection)
        if self.server_isolation is None:
            (level,) = ask(connection, "SELECT current_setting('default_transaction_isolation')")
            self.server_isolation = level.upper()
        self.server(node)
        self.check_schemas(node, connection)
        self.note_opened(id(connection.pgconn))
        setattr(connection, _ADMITTED, self.router.clock())
        self.served.add(node)


class PsycopgSource(Source):
    """One checkout's connections, by node: its `ConnectionSource`.

    Attributes:
        isolation: the level of a connection on which none was set; None is the server's default.
        timeout: seconds to wait for a connection of a node's pool.
        own_errors: the module of the adapter's errors.
        sizes: the setting that says how many connections a node's pool has.
        registered: done with each connection that is held: adapters, notice handlers.
    """

    driver: Driver = PSYCOPG
    own_errors: Any = errors
    sizes: str = "max_size"
    timeout: float = POOL_TIMEOUT

    def __init__(self, servers: PsycopgConnector, isolation: IsolationLevel | None) -> None:
        self.servers: PsycopgConnector = servers
        self.router: Router = servers.router
        self.isolation: IsolationLevel | None = isolation
        self.registered: list[Callable[[Any], object]] = []

    @property
    def default_isolation(self) -> str:
        """The isolation level of a connection on which none was set."""
        level = self.isolation
        if level is None:
            return self.servers.server_isolation or "READ COMMITTED"
        return level.name.replace("_", " ")

    def start_router(self) -> None:
        """Start the Router; see `router.cluster.router.Router.start`."""
        self.router.start()

    def translated(self, error: RouterError) -> Exception:
        """The adapter's own counterpart of the core's `error`."""
        return self.own_errors.translated(error)  # type: ignore[no-any-return]

    def busy(self, node: Node, size: int) -> Exception:
        """The error where all `size` connections of the pool of `node` were in use for too
        long."""
        error: Exception = self.own_errors.PoolTimeout(
            f"{node}: none of its pool's {size} connections was free for {self.timeout:g} s: "
            f"{self.servers.config.relief(self.sizes)}"
        )
        return error

    def crowded(self, node: Node, waiting: int) -> Exception:
        """The error where `waiting` others wait for the pool of `node`, and no more may."""
        error: Exception = self.own_errors.TooManyRequests(
            f"{node}: {waiting} wait for its pool's connections already: raise max_waiting or "
            f"{self.sizes}"
        )
        return error

    def refused(self, node: Node) -> RouterError | None:
        """Why new connections to `node` are refused here, though its server answers."""
        return None

    def hold(self, node: Node) -> PsycopgConnection:
        """A connection to `node`, for the checkout.

        A connection older than the node's last interruption is asked whether it lives.

        Raises:
            RouterError: they are all in use; names the node and the cure.
        """
        return self.held_by(node, self.line(node))

    def idle_connection(self, node: Node) -> PsycopgConnection | None:
        """As `hold`, where there is nothing to wait for; else None."""
        return None

    def session(self, node: Node) -> PsycopgConnection | None:
        """A connection to `node`, the primary, by ``session_url``, closed after its use; None
        without that. Raises as `PsycopgConnector.connect_session_url`."""
        connection = self.servers.connect_session_url(node, self.configure)
        if connection is None:
            return None
        line = ConnectionRecord(connection, None, self.router.clock())
        line.dedicated = True
        return self.held_by(node, line)

    def held_by(self, node: Node, line: ConnectionRecord) -> PsycopgConnection:
        """Prepare `line`, a connection to `node` that was taken for a checkout."""
        if self.isolation is not None:
            line.dbapi.isolation_level = self.isolation
        for register in self.registered:
            register(line.dbapi)
        held = PsycopgConnection(self, node, line)
        if (servers := self.servers).opened and servers.is_fresh(id(line.dbapi.pgconn)):
            held.fresh = True
        return held

    @abstractmethod
    def configure(self, connection: Any) -> object:
        """Do with a new connection what the user wants done."""

    @abstractmethod
    def line(self, node: Node) -> ConnectionRecord:
        """A connection to `node` that lives. Raises as `hold`."""

    def probe(self, held: PsycopgConnection) -> None:
        """Probe a node over a connection held, and tell the Router."""
        self.servers.probe_over(held.node, held.dbapi)

    @abstractmethod
    def open_line(self, node: Node) -> ConnectionRecord | None:
        """A connection to `node` that is open and not in use, if there is one."""

    def idle(self, node: Node) -> PsycopgConnection | None:
        """As `hold`, of connections that are open and not in use; never opens one, nor waits."""
        line = self.open_line(node)
        return None if line is None else self.held_by(node, line)

    @abstractmethod
    def give_back(self, node: Node, line: ConnectionRecord) -> None:
        """Keep `line` for the next statement on `node`, or give it to its pool."""

    @abstractmethod
    def discard(self, node: Node, line: ConnectionRecord, *, distrust: bool) -> None:
        """Close `line`, a connection to `node`; with `distrust` the next one kept is asked
        before its use."""

    def interrupted(self, node: Node, line: ConnectionRecord) -> bool:
        """Whether `node` was away since `line` was last known to live."""
        known = self.router.view.snapshot.reports.get(node.name)
        return known is not None and line.proven < known.since

    def lives(self, line: ConnectionRecord) -> bool:
        """Ask the server of `line` whether it lives."""
        if line.dbapi.closed or not alive(line.dbapi):
            return False
        line.proven = self.router.clock()
        return True

    def from_pool(self, pool: Any, node: Node, timeout: float) -> ConnectionRecord:
        """A connection to `node` of its `pool`, for which to wait `timeout` seconds at most,
        and no longer once nothing is sent to the node any more: see `give_up`. Raises
        RouterError: none was free in time, or GivenUp."""
        clock = self.router.clock
        until = clock() + at_most(timeout)
        while True:
            look = self._look(node, pool)
            if not pool._pool:
                must_be_used(node, self.router.view, clock())
            try:
                dbapi = pool.getconn(timeout=max(0.0, min(look, until - clock())))
            except GivenUp:
                if (refused := self.refused(node)) is not None:
                    raise refused from None
                raise
            except psycopg_pool.TooManyRequests:
                if pool.max_waiting == CLOSING:
                    raise GivenUp(node) from None
                raise self.crowded(node, pool.max_waiting) from None
            except psycopg_pool.PoolClosed:
                raise GivenUp(node) from None  # it was retired, and another one may be there
            except psycopg_pool.PoolTimeout:
                must_be_used(node, self.router.view, clock())
                if why := self._hopeless(node, pool):
                    cannot = PrimaryUnavailable if self.router.primary is node else (
                        NoReplicaAvailable)  # fmt: skip
                    raise self.translated(cannot(f"{node} {why}")) from None
                if (refused := self.refused(node)) is not None:
                    raise refused from None
                if clock() < until:
                    continue
                must_be_had(node)
                raise self.busy(node, pool.max_size) from None
            return self._taken(pool, dbapi)

    def _look(self, node: Node, pool: Any) -> float:
        """Seconds after which a caller leaves the queue of `pool`, that of `node`, to look whether
        it can ever open a connection. Others are before him when he is back, and with
        ``max_waiting`` he may not get in again."""
        if node in self.servers.served or pool.max_waiting:
            return inf
        known = self.router.snapshot.reports.get(node.name)
        return POOL_LOOK if known is not None and known.obstacle else FIRST_LOOK

    def _hopeless(self, node: Node, pool: Any) -> str:
        """Why nobody will get a connection of `pool`, as a predicate; empty where one may."""
        known, stats = self.router.snapshot.reports.get(node.name), pool.get_stats()
        # Where none was ever opened, there is none that somebody could give back.
        never = 0 < stats.get("connections_num", 0) <= stats.get("connections_errors", 0)
        return f"lets nobody in: {known.obstacle}" if known and known.obstacle and never else ""

    def _taken(self, pool: Any, dbapi: Any) -> ConnectionRecord:
        line = line_of(dbapi)
        if line is None:
            # It may have lain in its pool since, and its server have gone meanwhile.
            line = ConnectionRecord(dbapi, pool, getattr(dbapi, _ADMITTED, self.router.clock()))
            setattr(dbapi, _LINE, line)
        return line

    def open_in(self, pool: Any) -> ConnectionRecord | None:
        """A connection of psycopg_pool's `pool` that is open and not in use, if there is one;
        none is opened, and none waited for."""
        for _ in range(pool.get_stats().get("pool_available", 0)):
            try:
                # By psycopg_pool's own names: its check= asks the server, which may be silent.
                if not pool._check:
                    return self._taken(pool, pool.getconn(timeout=OPEN_LOOK))
                seconds = self.router.config.probe_timeout
                with HangUp(pool._pool[0].fileno(), seconds, loop_of(pool), self.router.runtime):
                    return self._taken(pool, pool.getconn(timeout=OPEN_LOOK))
            except (psycopg.Error, OSError, IndexError):
                continue
        return None


def anew(make: Callable[[], Any]) -> Any:
    """What psycopg_pool takes for the arguments that `make` makes for each connection: that
    function; before version 3.3, as with Django's own pool, what it makes now."""
    return make if hasattr(psycopg_pool.ConnectionPool, "_resolve_kwargs") else make()


def left_behind(pool: Any) -> None:
    """In a forked child: mark the `pool` of psycopg_pool, which is the parent's, as closed, so
    that its finaliser does nothing: it would stop workers that are no more, by queues one of
    them may have locked."""
    pool._closed = True


def line_of(connection: Any) -> ConnectionRecord | None:
    """What is known of `connection`, psycopg's, if it was taken from a pool before."""
    return connection.__dict__.get(_LINE)  # type: ignore[no-any-return]
