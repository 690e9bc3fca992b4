"""The router as a pool: the one an engine sees, with one real pool per node behind it.

Node pools share the facade's event dispatch and the one dialect, so ``connect`` and ``checkout``
listeners see real driver connections and the dialect is initialised once.
"""

from collections.abc import Callable
from typing import Any

from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.pool import Pool, QueuePool

from router.cluster.membership import Use
from router.cluster.router import Router
from router.config.config import Config
from router.model import Node
from router.sqlalchemy.checkout import EngineCheckout, RoutedConnection
from router.sqlalchemy.drivers import Driver
from router.sqlalchemy.opening import Creator
from router.sqlalchemy.source import EngineSource
from router.sqlalchemy.waiting import count


class RoutingPool(Pool):
    """A pool of pools: one per node, made when first used.

    Options that size a pool hold for each node's pool; its figures are sums over all of them.
    """

    def __init__(
        self,
        creator: Creator,
        # Not keyword-only: create_engine() looks for these among the positional ones.
        pool_size: int | None = None,
        max_overflow: int | None = None,
        timeout: float | None = None,
        use_lifo: bool | None = None,
        *,
        router: Router,
        config: Config,
        connect_to: Callable[[Node], Creator | None],
        connect_session_url: Callable[[], list[Creator]],
        poolclass: type[Pool] = QueuePool,
        recycle: int = -1,
        pre_ping: bool = False,
        reset_on_return: Any = True,
        **kw: Any,
    ) -> None:
        """Prepare; nothing is opened before the first statement.

        Args:
            creator: opens a connection to the configured primary.
            pool_size: connections each node's pool keeps.
            max_overflow: connections beyond that, opened under load.
            timeout: seconds to wait for a connection.
            use_lifo: take the connection used last.
            router: decides; one Router for the life of the engine.
            config: what the user asked for.
            connect_to: gives what opens a connection to a node; None where `creator` does.
            connect_session_url: gives what opens one to each host of ``session_url``.
            poolclass: the class of the node pools.
            recycle: seconds after which a connection is replaced.
            pre_ping: ask each connection whether it lives before it is used.
            reset_on_return: what a node's pool does to a connection that comes back.
            **kw: as `sqlalchemy.pool.Pool` takes them.
        """
        sizes = {"pool_size": pool_size, "max_overflow": max_overflow, "timeout": timeout,
                 "use_lifo": use_lifo}  # fmt: skip
        kept = {"recycle": recycle, "pre_ping": pre_ping, "reset_on_return": reset_on_return}
        options = {k: v for k, v in sizes.items() if v is not None} | kept
        options |= {"echo": kw.get("echo"), "logging_name": kw.get("logging_name")}
        self.source: EngineSource = EngineSource(
            router, config, connect_to, connect_session_url, poolclass, options
        )
        super().__init__(creator, **kept, **kw)
        self.source.creator = self._invoke_creator
        self.source.dispatch = self.dispatch
        self.source.reset_style = self._reset_on_return
        self._introduced = False

    @property
    def _dialect(self) -> Dialect:
        return self.source.dialect

    @_dialect.setter
    def _dialect(  # pyright: ignore[reportIncompatibleVariableOverride]
        self, dialect: Dialect
    ) -> None:
        self.source.speak(dialect)  # create_engine() sets it, once the pool is there

    @property
    def router(self) -> Router:
        """Decides; one Router for the life of the engine."""
        return self.source.router

    @property
    def driver(self) -> Driver:
        """As `router.sqlalchemy.drivers.DRIVERS` has it."""
        return self.source.driver

    def connect(self) -> RoutedConnection:
        """A checkout; no connection is taken before a statement needs one.

        Except the very first time: what SQLAlchemy knows of the server's version decides how
        statements are compiled, so the dialect has to meet a server before the first of them.
        That checkout keeps the connection, so listeners hear of it once.
        """
        source = self.source
        source.disposed = False
        routed = EngineCheckout(source)
        if not self._introduced:
            routed.introduce(source.ask_isolation)
            self._introduced = True
        return RoutedConnection(routed)

    def node_pool(self, node: Node) -> Pool:
        return self.source.node_pool(node)

    def recreate(self) -> "RoutingPool":
        """A new pool with the same options, Router and listeners."""
        source = self.source
        pool = type(self)(
            self._invoke_creator,
            **{**source.options, "echo": self.echo},
            router=source.router,
            config=source.config,
            connect_to=source.connect_to,
            connect_session_url=source.session_creators,
            poolclass=source.poolclass,
            dialect=source.dialect,
            _dispatch=self.dispatch,
        )
        pool._introduced = self._introduced
        pool.source.server_isolation = source.server_isolation
        pool.source.default_isolation = source.default_isolation
        pool.source.in_use = source.in_use
        return pool

    def dispose(self) -> None:
        self.source.dispose()

    def _invalidate(
        self, connection: Any, exception: BaseException | None = None, _checkin: bool = True
    ) -> None:
        """A statement failed by disconnect: distrust what the failed node's pool holds."""
        if not isinstance(connection, RoutedConnection):
            return
        for held in (connection.routed.primary, connection.routed.replica):
            if held is not None and held.broken:
                self.node_pool(held.node)._invalidate(held.fairy, exception, _checkin=False)

    def size(self) -> int:
        return self._sum("size")

    def status(self) -> str:
        lines = [f"{node.name}: {pool.status()}" for node, pool in self.source.pools().items()]
        return "\n".join(lines) or "no connection was needed yet"

    def _sum(self, method: str) -> int:
        """What the node pools' `method` counts, all together."""
        return sum(count(pool, method) for pool in self.source.pools().values())

    def checkedin(self) -> int:
        return self._sum("checkedin")

    def use(self) -> dict[Node, Use]:
        return self.source.use()

    def checkedout(self) -> int:
        return self._sum("checkedout")

    def overflow(self) -> int:
        return self._sum("overflow")

    def __repr__(self) -> str:
        return f"<RoutingPool {self.router!r}>"
