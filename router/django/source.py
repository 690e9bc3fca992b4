"""Where connections come from: what one process knows of a database, and what one wrapper keeps.

A `DjangoConnector` is shared by every thread's wrapper of one alias: it has the Router, and where
``OPTIONS["pool"]`` asks for it a pool of psycopg_pool for each node. A `DjangoSource` belongs to
one wrapper.
"""

import gc
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import ref

import psycopg
from django.core.exceptions import ImproperlyConfigured
from psycopg.pq import TransactionStatus

from router import registry
from router.cluster.membership import Use
from router.cluster.monitor import Monitor
from router.cluster.router import Router
from router.config.config import Config
from router.config.server import Server
from router.connect.parameters import to_one_server
from router.django import bouncer, errors
from router.errors import ConfigError
from router.model import Node
from router.psycopg import source
from router.psycopg.node_connection import ConnectionRecord, PsycopgConnection
from router.psycopg.source import POOL_LOOK, POOL_TIMEOUT, PsycopgConnector, anew

if TYPE_CHECKING:
    from router.django.base import DatabaseWrapper

_KEYS = ("ENGINE", "HOST", "PORT", "USER", "PASSWORD", "NAME", "OPTIONS", "REPLICAS", "ROUTER",
         "TIME_ZONE", "CONN_HEALTH_CHECKS")  # fmt: skip


_SETTINGS = {"host": "HOST", "port": "PORT", "user": "USER", "password": "PASSWORD",
             "dbname": "NAME"}  # fmt: skip
"""What Django calls a part of an address."""


class DjangoConnector(PsycopgConnector):
    """What the wrappers of one alias share in one process.

    Attributes:
        alias: the key in ``DATABASES``.
        config: what its settings say.
        router: decides.
    """

    def __init__(self, wrapper: "DatabaseWrapper") -> None:
        """Read the settings of `wrapper`, any thread's; nothing is opened. Raises
        django.core.exceptions.ImproperlyConfigured: a key is unknown or malformed."""
        self.alias: str = wrapper.alias
        settings = {**wrapper.settings_dict, "OPTIONS": dict(wrapper.settings_dict["OPTIONS"])}
        try:
            self.config: Config = Config.from_django(settings, self.alias)
            bouncer.check(self.config, settings, self.alias)
        except ConfigError as error:
            raise ImproperlyConfigured(str(error)) from None
        # Never connected: any thread asks it for connection parameters.
        self._model: DatabaseWrapper = type(wrapper)(settings, self.alias)
        self.renews: bool = wrapper.renews()
        self.pooled: Any = settings["OPTIONS"].get("pool")
        if self.pooled and settings.get("CONN_MAX_AGE", 0) != 0:
            raise ImproperlyConfigured("Pooling doesn't support persistent connections.")
        self.health_checks: bool = bool(settings.get("CONN_HEALTH_CHECKS"))
        self.router: Router = Router(self.config)
        self.router.use_monitor(Monitor(self.router, self.monitor_arguments))
        self.begin()
        self.opened = {}
        self._lock = registry.lock()
        self.router.membership.attach(self)
        self.router.gate.always(self.unused)
        registry.renew(self)

    def begin(self) -> None:
        """As the base class has it."""
        super().begin()
        # Held weakly: a thread that ends without closing its wrapper's connection takes the
        # wrapper with it, and the garbage collector then closes the connection.
        self._used: dict[ref[ConnectionRecord], Node] = {}

    def uses(self, node: Node, line: ConnectionRecord) -> None:
        """Note that a wrapper uses `line`, a connection to `node`, until `released`."""
        used = self._used
        used[ref(line, lambda gone: used.pop(gone, None))] = node

    def released(self, line: ConnectionRecord) -> None:
        """Note that no wrapper uses `line` any more."""
        self._used.pop(ref(line), None)

    def lends(self, node: Node) -> bool:
        """As the base class has it."""
        return node in self._used.copy().values()

    def under_way(self, node: Node) -> list[Any]:
        """As the base class has it."""
        lines = [known() for known, used in self._used.copy().items() if used is node]
        return [line.dbapi for line in lines if line is not None]

    def arguments(self, server: Server) -> dict[str, Any]:
        """What psycopg needs to connect to `server`: Django's own parameters, and the server's
        where its settings differ from the primary's."""
        own, primary = server.connect_args(), self.config.primary.connect_args()
        differs = {key: value for key, value in own.items() if value != primary.get(key)}
        model = self._model
        if differs and self.renews:
            # What a subclass makes, such as a token, is for one host and user.
            differs = {key: differs[key] for key in differs.keys() - {"password"}}
            settings = {theirs: own[key] for key, theirs in _SETTINGS.items() if key in own}
            model = type(model)({**model.settings_dict, **settings}, self.alias)
        found = {**self.config.libpq(), **model.get_connection_params(), **differs}
        return to_one_server(found, server, self.config)

    def connect(self, node: Node, configure: Callable[[Any], object]) -> Any:
        """A new connection to `node`, in autocommit, on which `configure` sets time zone and role.

        Raises:
            NoReplicaAvailable: the node has left, or keeps another attempt waiting.
            psycopg.Error: it cannot be reached.
        """
        return self.open_to(
            node,
            lambda: self.dial(self.named(node)),
            lambda connection: self.admit(node, connection, configure),
        )

    def pool(self, node: Node) -> Any:
        """The node's pool, made and opened when first asked for; None without OPTIONS["pool"]."""
        if not self.pooled:
            return None
        pool = self._pools.get(node)
        if pool is not None:
            return pool
        from psycopg_pool import ConnectionPool

        given = {} if self.pooled is True else dict(self.pooled)
        model = self._model
        with self._lock:
            pool = self._pools.get(node)
            if pool is None:
                pool = ConnectionPool(
                    kwargs=anew(partial(self.named, node)) if self.renews else self.named(node),
                    open=False,
                    configure=lambda c: self.admit(node, c, model._configure_connection),
                    check=ConnectionPool.check_connection if self.health_checks else None,
                    **{"name": f"{self.alias}-{node.name}", **given},
                )
                pool.open()
                self._pools[node] = pool
        if node not in self.router.servers:
            self.retire(node)
        return pool

    def use(self) -> dict[Node, Use]:
        """What the nodes' pools keep; each wrapper's `DjangoSource` says what it holds."""
        pools = self._pools.copy().items()
        return {node: Use(0, pool.get_stats()["pool_available"]) for node, pool in pools}

    def retire(self, node: Node) -> None:
        """Close idle connections to `node` now, those in use when they come back."""
        pool = self._pools.pop(node, None)
        if pool is not None:
            self.shut(node, pool)
            pool.close(timeout=POOL_LOOK)

    def close(self) -> None:
        """Close the nodes' pools and stop the monitor; the next statement starts anew."""
        for node in list(self._pools):
            self.retire(node)
        self.router.close()

    def after_fork(self) -> None:
        """In a forked child: leave the pools to the parent, neither used nor closed."""
        for pool in self._pools.values():
            source.left_behind(pool)
        registry.leave_to_parent(self._pools, [known() for known in self._used])
        self.begin()
        self.opened.clear()


class DjangoSource(source.PsycopgSource):
    """One wrapper's connections, by node: the pools of its checkout.

    Attributes:
        cluster: shared with other wrappers.
        router: decides.
        isolation: the level ``OPTIONS["isolation_level"]`` asks for.
    """

    own_errors: Any = errors
    sizes: str = "max_size in OPTIONS['pool']"

    def __init__(self, wrapper: "DatabaseWrapper", cluster: DjangoConnector) -> None:
        super().__init__(cluster, wrapper.configured_isolation)
        self.cluster: DjangoConnector = cluster
        self._configure: Callable[[Any], object] = wrapper._configure_connection
        if isinstance(cluster.pooled, Mapping):
            self.timeout = float(cluster.pooled.get("timeout", POOL_TIMEOUT))
        self._kept: dict[Node, ConnectionRecord] = {}
        self._unchecked: set[Node] = set()
        self._held: dict[ConnectionRecord, Node] = {}
        # Given back, and not to their pools yet, for server-side cursors that are open there.
        self._streaming: set[ConnectionRecord] = set()
        self._closed = False
        self.router.membership.attach(self)
        registry.renew(self)

    def configure(self, connection: Any) -> object:
        return self._configure(connection)

    def held_by(self, node: Node, line: ConnectionRecord) -> PsycopgConnection:
        held = super().held_by(node, line)
        self._held[line] = node
        self.cluster.uses(node, line)
        return held

    def line(self, node: Node) -> ConnectionRecord:
        pool = self.cluster.pool(node)
        if pool is None:
            line = self._kept.pop(node, None)
            if line is not None:
                if self._lives(node, line):
                    return line
                line.dbapi.close()
            connection = self.cluster.connect(node, self._configure)
            return ConnectionRecord(connection, None, self.router.clock())
        if not pool._pool:
            self.cluster.renew(node, pool)
            pool = self.cluster.pool(node)
        line = self.from_pool(pool, node, self.timeout)
        if self._lives(node, line):
            return line
        pool.putconn(line.dbapi)
        pool.check()
        return self.from_pool(pool, node, self.timeout)

    def open_line(self, node: Node) -> ConnectionRecord | None:
        pool = self.cluster.pool(node)
        if pool is not None:
            return self.open_in(pool)
        line = self._kept.pop(node, None)
        return None if line is None or line.dbapi.closed else line

    def _lives(self, node: Node, line: ConnectionRecord) -> bool:
        if line.dbapi.closed:
            return False
        if not self.interrupted(node, line) and node not in self._unchecked:
            return True
        self._unchecked.discard(node)
        return self.lives(line)

    def give_back(self, node: Node, line: ConnectionRecord) -> None:
        self._held.pop(line, None)
        self.cluster.released(line)
        if line.pool is not None:
            if line.streams:
                self._streaming.add(line)
            else:
                self._put(line)
            return
        left = self._closed or node not in self.router.servers
        unwanted = left or line.dedicated or node in self._kept
        if (unwanted and not line.streams) or not _put_right(line.dbapi):
            line.dbapi.close()
        else:
            self._kept[node] = line

    def _put(self, line: ConnectionRecord) -> None:
        if not _put_right(line.dbapi):
            line.dbapi.close()  # its pool makes another
        line.pool.putconn(line.dbapi)

    def stream_ended(self, line: ConnectionRecord, cursor: Any) -> None:
        """Note that `cursor`, a server-side one on `line`, was closed, now or before."""
        line.streams.discard(cursor)
        if line in self._streaming and not line.streams:
            self._streaming.remove(line)
            self._put(line)

    def _end_streams(self) -> None:
        """Close the server-side cursors for which connections were kept out of their pools: as it
        ends, each gives its connection back."""
        for line in list(self._streaming):
            for cursor in list(line.streams):
                try:
                    cursor.close()
                except psycopg.Error:
                    line.dbapi.close()
                finally:
                    self.stream_ended(line, cursor)

    def discard(self, node: Node, line: ConnectionRecord, *, distrust: bool) -> None:
        """As the base class has it."""
        self._held.pop(line, None)
        self.cluster.released(line)
        line.dbapi.close()
        if line.pool is not None:
            line.pool.putconn(line.dbapi)
        if distrust:
            self._unchecked.add(node)

    def use(self) -> dict[Node, Use]:
        """The connections to each node. A connection is in use where something runs or a
        transaction is open: Django keeps the others between requests."""
        idle = (TransactionStatus.IDLE, TransactionStatus.UNKNOWN)
        found = dict.fromkeys(self._kept.copy(), Use(0, 1))
        for line, node in self._held.copy().items():
            busy = line.dbapi.pgconn.transaction_status not in idle
            before = found.get(node, Use())
            found[node] = Use(before.busy + busy, before.idle + (not busy))
        return found

    def doubt(self) -> None:
        """Ask each connection that is kept whether it lives, before it is used again."""
        self._unchecked.update(self._kept)

    def retire(self, node: Node) -> None:
        """Close the idle connection to `node`; one in use is closed when it comes back."""
        line = self._kept.pop(node, None)
        if line is not None:
            line.dbapi.close()

    def close(self) -> None:
        """Close what is kept, and whatever comes back from now on."""
        self._closed = True
        try:
            self._end_streams()
        finally:
            self.empty()

    def empty(self) -> None:
        """Close what is kept."""
        for node in list(self._kept):
            self.retire(node)

    def after_fork(self) -> None:
        """In a forked child: leave every connection to the parent, neither used nor closed."""
        registry.leave_to_parent(self._kept, self._held, self._streaming)
        self._kept, self._held, self._streaming = {}, {}, set()


def _put_right(connection: Any) -> bool:
    """Switch a `connection` that comes back to autocommit, as new ones are. False where a
    transaction is still open on it: nobody knows whose."""
    if connection.pgconn.transaction_status != TransactionStatus.IDLE:
        return False
    if not connection.autocommit:
        connection.autocommit = True
    return True


def cluster_of(wrapper: "DatabaseWrapper") -> DjangoConnector:
    """The one `DjangoConnector` of this process for the alias and settings of `wrapper`. Raises
    django.core.exceptions.ImproperlyConfigured: as `DjangoConnector`."""
    settings = tuple(repr(wrapper.settings_dict.get(name)) for name in _KEYS)
    key = (wrapper.alias, type(wrapper), wrapper.timezone_name, settings)
    with _lock:
        found = _clusters.get(key)
        if found is None:
            found = _clusters[key] = DjangoConnector(wrapper)
        return found


def leave(dbname: str) -> None:
    """Close what this process has open to the database `dbname`, under whatever alias: a
    database with sessions can be neither dropped nor copied."""
    with _lock:
        found = [c for c in _clusters.values() if c.config.primary.dbname == dbname]
    for cluster in found:
        cluster.close()
    # A connection attempt of a probe that was given up ends with its frames, and the exception
    # that ended the probe keeps those in a cycle.
    gc.collect()


_clusters: dict[tuple[object, ...], DjangoConnector] = {}
_lock = registry.lock()
