"""The router as a pool for psycopg: a real pool of psycopg_pool for each node behind it."""

import _thread
import asyncio
import inspect
import warnings
from abc import abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any, Self

import psycopg
import psycopg_pool
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from router import registry
from router.checkout.node_connection import Characteristics
from router.cluster.membership import Use
from router.cluster.monitor import Monitor
from router.cluster.router import Router
from router.config.config import Config
from router.config.options import OPTIONS
from router.config.server import CHOOSING, Server
from router.connect import credentials
from router.connect.parameters import budgeted, prepared_refused, to_one_server
from router.errors import ConfigError, RouterError
from router.messages import did_you_mean, one_line
from router.model import Node
from router.psycopg.connection import Connection, Defaults
from router.psycopg.errors import PoolClosed, PoolTimeout, PrimaryUnavailable
from router.psycopg.node_connection import ConnectionRecord
from router.psycopg.source import POOL_LOOK, POOL_TIMEOUT, PsycopgConnector, anew, left_behind
from router.rules.pgbouncer import check_startup
from router.runtime import SYSTEM, Runtime

ConnInfo = str | Config | Callable[[], str | Awaitable[str]]
"""How a pool is told where to connect."""
Kwargs = Mapping[str, Any] | Callable[[], Mapping[str, Any] | Awaitable[Mapping[str, Any]]] | None
"""How it is told what else ``psycopg.connect`` shall be given."""

_numbers = count(1)

_SQLALCHEMYS: dict[str, str] = {
    "pool_size": "min_size and max_size",
    "max_overflow": "max_size",
    "pool_timeout": "timeout",
    "pool_recycle": "max_lifetime",
    "pool_pre_ping": "check=ConnectionPool.check_connection",
    "echo": "the logger psycopg",
}
"""Options of SQLAlchemy's pools, and those that do the same here."""


class RoutedPool(PsycopgConnector):
    """What is the same for threads and for event loops.

    Attributes:
        config: which servers, and how to route.
        router: decides.
        name: for messages and logs; the nodes' pools have the node's name behind it.
        defaults: how the user wants new connections; a guess until the first was configured.
        characteristics: the same, as a checkout has it.
        timeout: seconds to wait for a connection of a node's pool.
        lent: what is in use, and to which node it leads.
    """

    _pool_class: Any
    _connection_class: Any
    _runtime: Runtime = SYSTEM
    _loop: asyncio.AbstractEventLoop | None = None

    def __init__(
        self, conninfo: ConnInfo, replicas: object, kwargs: Kwargs,
        min_size: int, max_size: int | None, configure: Callable[[Any], Any] | None,
        name: str | None, timeout: float, options: dict[str, Any],
    ) -> None:  # fmt: skip
        """Prepare, and open nothing: `conninfo`, `replicas`, `kwargs`, `min_size`, `max_size`,
        `configure`, `name`, `timeout` and `options` are as `ConnectionPool` has them. Raises
        ConfigError: an option is unknown or malformed; names it and the cure."""
        ours = {key: options.pop(key) for key in list(options) if key in OPTIONS}
        self._options: dict[str, Any] = _of_pool(self._pool_class, options)
        self._given: Callable[[], Any] | None = kwargs if callable(kwargs) else None
        self._kwargs: dict[str, Any] = {} if self._given else _mapping(kwargs)
        self._told: Callable[[], Any] | None = None
        if callable(conninfo):
            self._told, conninfo = conninfo, str(credentials.made(conninfo))
        self.renews: bool = bool(self._given or self._told)
        if self.renews and not callable(anew(dict)):
            raise ConfigError("conninfo, kwargs: a function needs psycopg_pool 3.3: upgrade it")
        self.config: Config = _config(conninfo, replicas, ours)
        self.min_size: int
        self.max_size: int
        self.min_size, self.max_size = _sizes(self.config, min_size, max_size)
        self.name: str = name or f"router-{next(_numbers)}"
        self.timeout: float = timeout
        self.distrusted: dict[Node, float] = {}
        self.refused: dict[Node, ConfigError] = {}
        self.unmade: dict[Node, ConfigError] = {}
        self._configure: Callable[[Any], Any] | None = configure
        self._autocommit: bool = bool(self._kwargs.get("autocommit", False))
        self._learn(Defaults(autocommit=self._autocommit))
        self._learnt: bool = configure is None and self._given is None
        self.begin()
        self._opened = False
        self._closed = False
        router = Router(self.config, runtime=self._runtime)
        self.join(router, Monitor(router, self.monitor_arguments))

    def __repr__(self) -> str:
        state = "closed " if self.closed else ""
        return f"<{type(self).__name__} {state}{self.name!r} of {self.router!r}>"

    def arguments(self, server: Server) -> dict[str, Any]:
        """What psycopg needs to connect to `server`. Raises ConfigError: PgBouncer would refuse
        one of the parameters, or prepared statements; and what the user's functions raise."""
        given = {key: value for key, value in self.kwargs.items() if value is not None}
        self._autocommit = bool(given.get("autocommit", False))
        unprepared = self.config.unprepared(server)
        where = f"{server.host}:{server.port}/{server.dbname}"
        if self.config.pooling(server) != "off":
            check_startup({**server.params, **given}, where)
        if unprepared and given.get("prepare_threshold") is not None:
            raise prepared_refused(f"{where}: prepare_threshold")
        found = {**self.config.libpq(), **self._reached(server), **given}
        if unprepared:
            found["prepare_threshold"] = None
        return to_one_server(found, server, self.config, timeout_given="connect_timeout" in given)

    def verify(self, server: Server) -> None:
        """As the base class has it."""
        if not self.renews:
            self.arguments(server)

    def _named(self, node: Node) -> Any:
        """As `named`, in the form in which psycopg_pool takes it."""
        return anew(partial(self._made_anew, node)) if self.renews else self.named(node)

    def _made_anew(self, node: Node) -> dict[str, Any]:
        """As `named`, by the user's functions; keep what they raise for callers that wait."""
        try:
            found = self.named(node)
        except Exception as error:
            # Raised in one of psycopg_pool's workers, which would only log it, again and again.
            why = f"conninfo, kwargs: {node}: your function raised {type(error).__name__}: "
            own = isinstance(error, ConfigError)
            self.unmade[node] = ConfigError(str(error) if own else why + one_line(error))
            raise
        self.unmade.pop(node, None)
        return found

    @property
    def conninfo(self) -> str:
        """How to reach the present primary, past PgBouncer where there is a way: for code that
        opens a connection of its own, as Procrastinate's listener does. Raises
        PrimaryUnavailable: there is none."""
        primary = self.router.primary
        if primary is None:
            raise PrimaryUnavailable("there is no primary now")
        dedicated = self.config.sessions() if self.router.shares_sessions(primary) else ()
        server = next(iter(dedicated), None) or self.server(primary)
        return make_conninfo(**{**self.config.libpq(), **self._reached(server)})

    def _reached(self, server: Server) -> dict[str, Any]:
        """What libpq needs to connect to `server`; what the user's ``conninfo`` tells now is that
        of each server which is not said to differ."""
        own = server.connect_args()
        if self._told is None:
            return own
        primary = self.config.primary.connect_args()
        said = str(credentials.made(self._told, self._loop))
        told = _without_address(_config(said, (), {}).primary.connect_args())
        if own.get("user") != primary.get("user"):
            told.pop("password", None)
        differs = {key: value for key, value in own.items() if value != primary.get(key)}
        return {**own, **told, **differs}

    @property
    def kwargs(self) -> dict[str, Any]:
        """What was given for ``psycopg.connect``; what a function gives now."""
        if self._given is None:
            return dict(self._kwargs)
        return _mapping(credentials.made(self._given, self._loop))

    @property
    def connection_class(self) -> Any:
        """The class of the nodes' connections: psycopg's own, or what was given."""
        return self._options.get("connection_class") or self._connection_class

    @abstractmethod
    def start_router(self) -> None:
        """Start the Router, without holding up others meanwhile."""

    @abstractmethod
    def configure(self, connection: Any) -> None:
        """Do with a new connection what the user's ``configure`` says, and learn from it."""

    def _learn(self, defaults: Defaults) -> None:
        self.defaults: Defaults = defaults
        self.characteristics: Characteristics = defaults.characteristics()

    def prepared(self, connection: Any) -> None:
        """Learn how the user's ``configure`` left a `connection`; make it the checkout's."""
        if not self._learnt:
            if self._configure is None:
                connection.autocommit = self._autocommit
            self._learn(Defaults.of(connection))
            self._learnt = True
        connection.autocommit = True
        for key in ("read_only", "deferrable"):
            if getattr(connection, key) is not None:
                setattr(connection, key, None)

    @abstractmethod
    def node_pool(self, node: Node) -> Any:
        """The pool of psycopg_pool's for `node`, made and opened when first asked for.

        Raises:
            PoolClosed: this pool is closed.
            NoReplicaAvailable: the node has left the cluster.
        """

    def single(self, node: Node) -> ConnectionRecord:
        """A connection to `node` that ends with its use, for a checkout lent before the pool was
        closed.

        Raises:
            NoReplicaAvailable: the node has left the cluster.
            psycopg.Error: it cannot be reached.
        """
        connection = self.dial(self.named(node))
        try:
            self.admitted(node, connection)
        except BaseException:
            connection.close()
            raise
        return ConnectionRecord(connection, None, self.router.clock())

    def dropped(self, line: ConnectionRecord, _: object) -> None:
        """Close the connection of `line`, whose user has dropped it without giving it back, and
        say so: psycopg_pool itself would be one place short for ever.

        The garbage collector calls this in any thread and in the middle of anything, such as
        psycopg_pool with its lock in hand. So what needs a lock is left to `aside`."""
        node = self.lent.pop(line, None)
        if node is None:
            return  # it was the parent's of this process
        with suppress(RuntimeError):  # the process ends, or the event loop has
            self.aside(line.end)
        warnings.warn(
            f"{node}: a connection was deleted while {self.name} had lent it. Please use 'with' "
            "or 'putconn()' to give it back",
            ResourceWarning,
            stacklevel=2,
        )

    @abstractmethod
    def aside(self, call: Callable[[], object]) -> None:
        """Have `call` done soon, where it may wait. Takes no lock. Raises RuntimeError: it is too
        late for that."""

    def idle_connection(
        self, node: Node, trusted: Callable[[ConnectionRecord], bool]
    ) -> ConnectionRecord | None:
        """A connection of the pool of `node` where there is nothing to wait for, and which is
        `trusted` without being asked whether it lives; else None."""
        return None

    def _made(self, node: Node, admit: Any) -> Any:
        if self.closed:
            raise PoolClosed(f"{self.name} is closed: open another one")
        return self._pool_class(
            kwargs=self._named(node),
            min_size=self.min_size,
            max_size=self.max_size,
            open=False,
            configure=admit,
            name=f"{self.name}-{node.name}",
            timeout=self.timeout,
            **self._options,
        )

    def admitted(self, node: Node, connection: Any) -> None:
        """As `admit`, by the user's ``configure``; keep a refusal for callers that wait."""
        try:
            self.admit(node, connection, self.configure)
        except ConfigError as error:
            # Raised in one of psycopg_pool's workers, which would only log it, again and again.
            self.refused[node] = ConfigError(str(error))
            if (pool := self._pools.get(node)) is not None:
                self.give_up(node, pool)
            raise
        self.refused.pop(node, None)

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def checkedout(self) -> int:
        """Connections in use, all nodes together."""
        return len(self.lent)

    def use(self) -> dict[Node, Use]:
        """The connections to each node."""
        # Psycopg_pool's own figures count those it tries to make to a dead server as well.
        busy = Counter(self.lent.copy().values())
        idle = {n: p.get_stats()["pool_available"] for n, p in self._pools.copy().items()}
        return {node: Use(busy[node], idle.get(node, 0)) for node in {*busy, *idle}}

    def get_stats(self) -> dict[str, int]:
        """The sums of psycopg_pool's own figures over all nodes' pools."""
        return _summed(self.get_node_stats())

    def get_node_stats(self) -> dict[str, dict[str, int]]:
        """Psycopg_pool's own figures, by node."""
        return {node.name: pool.get_stats() for node, pool in list(self._pools.items())}

    def pop_stats(self) -> dict[str, int]:
        """As `get_stats`, and begin to count again from zero."""
        pools = list(self._pools.items())
        return _summed({node.name: pool.pop_stats() for node, pool in pools})

    def empty(self, nodes: Iterable[Node], timeout: float) -> str:
        """The error's text when no pool of `nodes` could be filled in `timeout` seconds."""
        names = ", ".join(sorted(map(str, nodes)))
        return (
            f"{self.name}: after {timeout:g} s no node has its {self.min_size} connections "
            f"({names}): look whether the servers answer and admit so many"
        )

    def _begin(self) -> None:
        """Be open from now on. Raises PoolClosed: it was closed before."""
        if self._closed:
            raise PoolClosed(f"{self.name} was closed: make another pool")
        self._opened = True

    def _must_be_mine(self, pool: object, connection: object) -> None:
        if pool is not self:
            raise ValueError(f"can't return {connection!r} to {self.name}: it is another pool's")

    def resized(self, min_size: int, max_size: int | None) -> list[Any]:
        """Note `min_size` and `max_size` as those of each node's pool; the pools there are."""
        self.min_size, self.max_size = _sizes(self.config, min_size, max_size)
        return list(self._pools.values())

    def _must_be_open(self) -> None:
        if self._closed:
            raise PoolClosed(f"{self.name} is closed: open another one")
        if not self._opened:
            raise PoolClosed(f"{self.name} is not open yet: open() it, or enter it by with")

    def after_fork(self) -> None:
        """In a forked child: leave every connection to the parent, neither used nor closed. The
        child makes pools, with workers, when it needs them."""
        for pool in self._pools.values():
            left_behind(pool)
        registry.leave_to_parent(self._pools, self.lent)
        self.begin()
        self.opened.clear()


class ConnectionPool(RoutedPool):
    """`psycopg_pool.ConnectionPool` whose reads go to replicas and whose writes go to the primary.

    It has one pool of psycopg_pool for each node; every size and hook holds for each of them.

    Example:
        >>> pool = ConnectionPool(
        ...     "postgresql://app@db1/shop", replicas=["db2", "db3"]
        ... )  # doctest: +SKIP
        >>> with pool.connection() as connection:  # doctest: +SKIP
        ...     connection.execute("SELECT count(*) FROM item").fetchone()
    """

    _pool_class: Any = psycopg_pool.ConnectionPool
    _connection_class: Any = psycopg.Connection
    check_connection: Callable[[psycopg.Connection[Any]], None] = staticmethod(
        psycopg_pool.ConnectionPool.check_connection
    )

    def __init__(
        self, conninfo: ConnInfo = "", *, replicas: object = (),
        kwargs: Kwargs = None, min_size: int = 4, max_size: int | None = None,
        open: bool = True,  # noqa: A002 - psycopg_pool's own name
        configure: Callable[[psycopg.Connection[Any]], None] | None = None,
        name: str | None = None, timeout: float = POOL_TIMEOUT, **options: Any,
    ) -> None:  # fmt: skip
        """Prepare the nodes' pools, and open them.

        Args:
            conninfo: the primary's URL or libpq's ``key=value`` text; several hosts are several
                nodes. Or a whole `Config`; or a function that gives the text: it is called now,
                for the addresses, and for each new connection, also the monitor's, for the rest.
            replicas: URLs, ``host:port`` texts, or mappings of what differs from the primary.
            kwargs: of ``psycopg.connect``, for every node's connections; or a function that gives
                them anew for each, also the monitor's.
            min_size: connections each node's pool keeps open.
            max_size: connections each node's pool may have; None is `min_size`.
            open: whether to open now; else by `open`, or by ``with``.
            configure: called with each new psycopg connection.
            name: for messages and logs.
            timeout: seconds to wait for a connection of a node's pool.
            **options: those of `router.config.Config`, and the others of psycopg_pool
                (``check``, ``reset``, ``max_waiting``, ``max_lifetime``, ``max_idle``,
                ``reconnect_timeout``, ``reconnect_failed``, ``num_workers``,
                ``connection_class``).

        Raises:
            ConfigError: an option is unknown or malformed; names it and the cure.
        """
        self._lock = registry.lock()
        super().__init__(
            conninfo, replicas, kwargs, min_size, max_size, configure, name, timeout, options
        )
        if open:
            self.open()

    def open(self, wait: bool = False, timeout: float = 30.0) -> None:
        """Open the nodes' pools; their connections are made in the background.

        Args:
            wait: until each node that answers has its `min_size` connections.
            timeout: seconds to wait for that.

        Raises:
            PoolClosed: it was closed before.
            PoolTimeout: as `wait`.
        """
        self._begin()
        for node in list(self.router.servers):
            self.node_pool(node)
        if wait:
            self.wait(timeout)

    def wait(self, timeout: float = 30.0) -> None:
        """Wait, `timeout` seconds at most, until each node that answers has its `min_size`
        connections.

        Raises:
            PoolTimeout: no node has them in time; the pool is closed, as psycopg_pool does it.
        """
        self._must_be_open()
        until = self.router.clock() + timeout
        self.router.start()
        missing: list[Node] = []
        for node in list(self.router.servers):
            try:
                _filled(self.node_pool(node), self.min_size, until, self.router, node)
            except psycopg_pool.PoolTimeout:
                missing.append(node)
        if len(missing) == len(self.router.servers):
            self.close()
            raise PoolTimeout(self.empty(missing, timeout))

    def close(self, timeout: float = 5.0) -> None:
        """Close the nodes' pools, waiting `timeout` seconds for their worker threads, and stop
        the Router's monitor. A connection in use goes on, and is closed when it comes back."""
        self._closed = True
        for node in list(self._pools):
            pool = self._pools.pop(node)
            self.shut(node, pool)
            pool.close(timeout=timeout)
        self.router.close()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def resize(self, min_size: int, max_size: int | None = None) -> None:
        """Change `min_size` and `max_size` of each node's pool."""
        for pool in self.resized(min_size, max_size):
            pool.resize(self.min_size, self.max_size)

    def check(self) -> None:
        """Ask every idle connection whether it lives; replace those that do not."""
        for pool in list(self._pools.values()):
            pool.check()

    def drain(self) -> None:
        """Replace every connection, those in use when they come back; since psycopg_pool 3.3."""
        for pool in list(self._pools.values()):
            pool.drain()

    def connection(self, timeout: float | None = None) -> "Lease":
        """A routed connection for the length of a ``with`` block, which ends in COMMIT or
        ROLLBACK.

        Args:
            timeout: seconds each statement may wait for a connection of its node's pool.

        Raises:
            PoolClosed: the pool is closed.
        """
        return Lease(self, timeout)

    def getconn(self, timeout: float | None = None) -> Connection:
        """A routed connection, as `connection` lends for `timeout` seconds; give it back by
        `putconn`."""
        self._must_be_open()
        timeout = self.timeout if timeout is None else timeout
        if not self._learnt or self.server_isolation is None:
            self._look(timeout)
        return Connection(self, timeout)

    def putconn(self, connection: Connection) -> None:
        """Take a connection back; what is open on it is rolled back.

        Raises:
            ValueError: it is another pool's.
        """
        self._must_be_mine(getattr(connection, "pool", None), connection)
        connection.close()

    def _look(self, timeout: float) -> None:
        """Have a first connection configured, to learn what ``configure`` does, and the
        isolation level of transactions for which nobody says one."""
        with suppress(psycopg.Error, RouterError):
            first = Connection(self, timeout)
            try:
                _ = first.any
            finally:
                first.close()

    def start_router(self) -> None:
        """Start the Router."""
        self.router.start()

    def configure(self, connection: Any) -> None:
        """As the base class has it."""
        if self._configure is not None:
            connection.autocommit = self._autocommit
            self._configure(connection)
        self.prepared(connection)

    def aside(self, call: Callable[[], object]) -> None:
        """As the base class has it: in a thread of its own."""
        # A threading.Thread's start would wait until it runs, which a gevent hub must not.
        _thread.start_new_thread(call, ())

    def node_pool(self, node: Node) -> Any:
        """As the base class has it; whichever thread asks first makes it."""
        pool = self._pools.get(node)
        if pool is not None:
            return pool
        with self._lock:
            pool = self._pools.get(node)
            if pool is None:
                pool = self._made(node, partial(self.admitted, node))
                pool.open()
                self._pools[node] = pool
        if node not in self.router.servers:
            self.retire(node)
        return pool

    def retire(self, node: Node) -> None:
        """As the base class has it."""
        pool = self._pools.pop(node, None)
        if pool is not None:
            self.shut(node, pool)
            pool.close(timeout=POOL_LOOK)


class Lease:
    """What `ConnectionPool.connection` gives, to be entered by ``with``."""

    __slots__ = ("_connection", "_pool", "_timeout")

    def __init__(self, pool: ConnectionPool, timeout: float | None) -> None:
        self._pool: ConnectionPool = pool
        self._timeout: float | None = timeout

    def __enter__(self) -> Connection:
        self._connection: Connection = self._pool.getconn(self._timeout)
        return self._connection

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._connection.leave(kind)
        finally:
            self._connection.close()


def _filled(pool: Any, min_size: int, until: float, router: Router, node: Node) -> None:
    """Wait for a pool to have its connections; unlike its own ``wait`` this does not close it."""
    while not full(pool.get_stats(), min_size):
        if router.clock() >= until or silent(router, node):
            raise psycopg_pool.PoolTimeout(pool.name)
        router.runtime.sleep(0.02)


def silent(router: Router, node: Node) -> bool:
    """Whether `node` of `router` does not answer while another node does, so that nobody waits
    for it."""
    reports = router.snapshot.reports
    known = reports.get(node.name)
    return known is not None and not known.ok and any(each.ok for each in reports.values())


def full(stats: Mapping[str, int], min_size: int) -> bool:
    """Whether as many connections were made, by the `stats`, as `min_size` says; a pool leaves
    zeros out of its figures."""
    made = stats.get("connections_num", 0) - stats.get("connections_errors", 0)
    return made >= min_size and bool(stats.get("pool_available") or stats.get("requests_num"))


def _of_pool(pool_class: Any, options: dict[str, Any]) -> dict[str, Any]:
    """The `options` that psycopg_pool takes beside those that we name."""
    known = set(inspect.signature(pool_class).parameters) - {"conninfo"}
    for key in options:
        if key == "close_returns":
            raise ConfigError("close_returns: close() always gives connections back: leave it out")
        if key not in known:
            raise ConfigError(f"unknown option {key!r}{did_you_mean(key, (*OPTIONS, *known))}")
    return options


def _without_address(parts: Mapping[str, Any]) -> dict[str, Any]:
    """What is left of `parts`, libpq's parameters, where the Router says which server."""
    address = ("host", "hostaddr", "port", "service", *CHOOSING)
    return {key: value for key, value in parts.items() if key not in address}


def _mapping(kwargs: Any) -> dict[str, Any]:
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise ConfigError("kwargs: expected a mapping of connection parameters")
    found = dict(kwargs or {})
    for key in ("host", "hostaddr", "port"):
        if found.pop(key, None) is not None:
            raise ConfigError(
                f"kwargs: {key} would send every node's connections to one server: put it into "
                "conninfo and replicas"
            )
    return found


def _config(conninfo: str | Config, replicas: object, options: dict[str, Any]) -> Config:
    if isinstance(conninfo, Config):
        if replicas:
            options["replicas"] = replicas
        found = conninfo.but(**options) if options else conninfo
    elif "://" in conninfo:
        found = Config.from_url(conninfo, replicas, **options)
    else:
        try:
            parts = conninfo_to_dict(conninfo)
        except psycopg.ProgrammingError as error:
            raise ConfigError(f"conninfo: {str(error).strip()}") from None
        own = ("host", "port", "user", "password", "dbname")
        said: dict[str, object] = {key: parts.pop(key) for key in own if key in parts}
        if parts.get("hostaddr"):
            raise ConfigError("conninfo: hostaddr: put the address into host")
        if parts:
            said["params"] = {key: str(value) for key, value in parts.items()}
        if replicas:
            said["replicas"] = replicas
        found = Config.from_mapping(said, **options)
    for key, instead in _SQLALCHEMYS.items():
        if getattr(found, key) is not None:
            raise ConfigError(f"{key}: psycopg_pool has {instead}: use that")
    return found


def _sizes(config: Config, min_size: int, max_size: int | None) -> tuple[int, int]:
    """Sizes of each node's pool, by the budget where there is one."""
    size = budgeted(config, max_size)
    if config.max_connections is not None and size is not None:
        min_size = min(min_size, size)
    return min_size, min_size if size is None else size


def _summed(stats: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for each in stats.values():
        found.update(each)
    return dict(found)
