"""Patches psycopg's pipeline, and behaves as psycopg's connection: one facade, several behind."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import psycopg
from psycopg.adapt import AdaptersMap
from psycopg.pq import TransactionStatus
from psycopg.types import TypeInfo, TypesRegistry

from router.checkout.checkout import Checkout
from router.checkout.cursor import RoutedCursor
from router.model import Node
from router.psycopg.cursor import Cursor
from router.psycopg.modes import Modes
from router.psycopg.node_connection import PsycopgConnection
from router.psycopg.source import PsycopgSource
from router.rules.decision import Decision
from router.sql.intent import Intent, Kind

PEEK = Intent(Kind.READ, "the connection's own state is asked for")


class PsycopgCheckout(Checkout[PsycopgConnection]):
    """A checkout of connections of psycopg."""

    _blocks: int = 0

    def closed_error(self) -> Exception:
        """What a statement gets after the connection was closed, as from psycopg."""
        return psycopg.OperationalError("the connection is closed")

    def session(self, node: Node) -> PsycopgConnection | None:
        """A connection to `node`, the primary, by ``session_url``."""
        nodes: PsycopgSource = self.pool  # type: ignore[assignment]
        return nodes.session(node)

    def idle_connection(self, decision: Decision) -> PsycopgConnection | None:
        """A connection to one of the `decision`'s nodes, where there is nothing to wait for."""
        nodes: PsycopgSource = self.pool  # type: ignore[assignment]
        if nodes.registered or nodes.isolation is not None:
            return None
        return nodes.idle_connection(self.router.pick(decision.nodes))

    @contextmanager
    def unseen(self, *, asks: bool = True) -> Iterator[None]:
        """A block in which the driver commits by itself: what is written in it is pinned again
        behind it, also when it raised. With `asks` the commit's position may be waited for
        here."""
        self._blocks += 1
        wrote = returned = False
        try:
            yield
            returned = True
        finally:
            self._blocks -= 1
            wrote = self.perhaps_committed(acknowledged=returned)
            if wrote and asks:
                self.ask_position()
        if wrote and self.primary is not None:
            self.must_count(self.primary)

    def perhaps_committed(self, *, acknowledged: bool = False) -> bool:
        """Pin to after this moment, for the driver may have committed, unless the server still has
        a transaction open; `acknowledged`: it has committed, if anything was written.

        Returns:
            whether the commit's position may be asked for.
        """
        primary = self.primary
        if primary is not None and not primary.dbapi.closed and primary.look():
            if not self._blocks:
                primary.in_transaction = True  # begun unseen: its end pins
            return False
        wrote = bool(self._writers)
        if acknowledged:
            self.acknowledge()
        self.written()
        return wrote

    def acknowledge(self) -> None:
        """As the base class has it, but not before the commit."""
        if not self._blocks:
            super().acknowledge()

    def written(self) -> None:
        """As the base class has it; in a block of the driver's own the commit is still to come."""
        if not self._blocks:
            super().written()
            return
        kept = self._writers, self._ddl, self._may_be_ddl
        super().written()
        self._writers, self._ddl, self._may_be_ddl = kept

    def ask_position(self) -> None:
        """As the base class has it, but not before the commit."""
        if not self._blocks:
            super().ask_position()


N = TypeVar("N", bound=PsycopgSource)


def new_cursor(held: PsycopgConnection) -> Any:
    """A cursor as the connection that is `held` makes it."""
    return held.dbapi.cursor()


class RoutedConnection(Modes, Generic[N]):
    """Behaves as a connection of psycopg does where its users look.

    Cursors, commit and rollback are routed. Types and adapters registered here are registered on
    each node's connection. Any other attribute is that of a connection to the primary, on which
    everything then stays.
    """

    cursor_class: type[Cursor] = Cursor
    stream_class: type[Cursor] = Cursor
    lasting_class: type[Cursor] = Cursor
    closed: bool = False
    _adapters: "_Adapters | None" = None

    def __init__(self, nodes: N) -> None:
        """Take connections from `nodes`; none before something is executed."""
        self.nodes: N = nodes
        self.checkout: PsycopgCheckout = PsycopgCheckout(nodes)
        self._isolation = nodes.isolation

    def cursor(self, *args: Any, **kwargs: Any) -> RoutedCursor[PsycopgConnection]:
        """A cursor that is routed statement by statement; arguments as psycopg's."""
        if not args and not kwargs:
            return self.cursor_class(self.checkout, self, new_cursor)
        if kwargs.get("withhold"):
            # The cursor outlives its transaction, after which a replica is given back.
            return self.lasting_class(
                self.checkout, self, lambda held: held.dbapi.cursor(*args, **kwargs), stream=True
            )
        stream = bool(args or kwargs.get("name"))
        return self.cursor_by(lambda dbapi: dbapi.cursor(*args, **kwargs), stream=stream)

    def cursor_by(
        self, make: Callable[[Any], Any], *, stream: bool
    ) -> RoutedCursor[PsycopgConnection]:
        """A routed cursor, which `make` makes on a connection of psycopg; `stream` for a
        server-side one."""
        kind = self.stream_class if stream else self.cursor_class
        return kind(self.checkout, self, lambda held: make(held.dbapi), stream=stream)

    def execute(self, query: Any, params: Any = None, **kwargs: Any) -> Any:
        """As psycopg's, routed: run one statement; the cursor."""
        return self.cursor().execute(query, params, **kwargs)

    def primary_connection(self) -> Any:
        """The connection of psycopg to the primary, on which everything stays from now on."""
        return self.checkout.bind_primary().dbapi

    @contextmanager
    def pipeline(self) -> Iterator[Any]:
        """Psycopg's pipeline, on the primary: what is in it is seen too late to be routed."""
        primary = self.primary_connection()
        with self.checkout.unseen(), primary.pipeline() as pipeline:
            sync = pipeline.sync

            def synced() -> None:
                try:
                    sync()
                finally:
                    self.checkout.perhaps_committed()

            pipeline.sync = synced
            try:
                yield pipeline
            finally:
                pipeline.sync = sync

    def tpc_commit(self, xid: Any = None) -> None:
        """As psycopg's `tpc_commit`: end a transaction that was prepared, or begun by
        ``tpc_begin``."""
        primary = self.primary_connection()
        with self.checkout.unseen():
            primary.tpc_commit(xid)

    def _level(self) -> str | None:
        return None if self._isolation is None else self._isolation.name.replace("_", " ")

    @property
    def in_transaction(self) -> bool:
        """Whether a server has a transaction open for this connection."""
        primary, replica = self.checkout.primary, self.checkout.replica
        if primary is not None and primary.in_transaction:
            return True
        return replica is not None and replica.in_transaction

    @property
    def holding(self) -> tuple[PsycopgConnection | None, PsycopgConnection | None]:
        """The connections that are taken now: the primary's and a replica's."""
        return self.checkout.primary, self.checkout.replica

    def commit(self) -> None:
        """Commit on the primary; end what is open on a replica."""
        self.checkout.commit()

    def rollback(self) -> None:
        """Roll back whatever is open."""
        self._must_be_open()
        self.checkout.rollback()

    def _must_be_open(self) -> None:
        if self.closed:
            raise self.checkout.closed_error()

    def running(self) -> list[Any]:
        """Psycopg's connections on which a statement is under way now; no connection is taken."""
        held = (h.dbapi for h in self.holding if h is not None)
        return [c for c in held if c.pgconn.transaction_status == TransactionStatus.ACTIVE]

    def cancel(self) -> None:
        """Cancel the statement that is under way, wherever it runs; from any thread."""
        for connection in self.running():
            connection.cancel()

    def cancel_safe(self, *, timeout: float = 30.0) -> None:
        """As `cancel`, encrypted where the connection is; waits `timeout` seconds at most."""
        for connection in self.running():
            connection.cancel_safe(timeout=timeout)

    @property
    def any(self) -> Any:
        """A connection of psycopg, to look at: the one used last, or one for reads."""
        checkout = self.checkout
        for held in (checkout.last, *self.holding):
            if held is not None and not held.broken and held in self.holding:
                return held.dbapi
        last = checkout.last
        route = checkout.route(None, explicit=False, intent=PEEK)
        if route.fresh:
            route.held.in_transaction = False  # nothing was sent
        checkout.last = last
        return route.held.dbapi

    @property
    def info(self) -> Any:
        """About the connection used last, or one for reads."""
        return self.any.info

    @property
    def connection(self) -> Any:
        """As psycopg's ``AdaptContext`` has it."""
        return self.any

    @property
    def broken(self) -> bool:
        """Always False: a connection that breaks is replaced."""
        return False

    @property
    def adapters(self) -> AdaptersMap:
        """Types and adapters; what is registered here is registered on every node's connection."""
        if self._adapters is None:
            self._adapters = _Adapters(self)
        return self._adapters

    def register(self, call: Callable[[Any], object]) -> None:
        """Do `call` with each node's connection, those to come included."""
        self.nodes.registered.append(call)
        for held in self.holding:
            if held is not None:
                call(held.dbapi)

    def __getattr__(self, key: str) -> Any:
        if key.startswith("__"):
            raise AttributeError(key)
        return getattr(self.checkout.bind_primary().dbapi, key)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.checkout!r}>"


class _Adapters(AdaptersMap):
    """Passes every registration on to the nodes' connections."""

    def __init__(self, facade: RoutedConnection[Any]) -> None:
        super().__init__(facade.any.adapters)
        self._facade = facade
        self.types: TypesRegistry = _Types(self.types, facade)

    def register_dumper(self, cls: Any, dumper: Any) -> None:
        """As psycopg's."""
        super().register_dumper(cls, dumper)
        self._facade.register(lambda c: c.adapters.register_dumper(cls, dumper))

    def register_loader(self, oid: Any, loader: Any) -> None:
        """As psycopg's."""
        super().register_loader(oid, loader)
        self._facade.register(lambda c: c.adapters.register_loader(oid, loader))


class _Types(TypesRegistry):
    def __init__(self, template: TypesRegistry, facade: RoutedConnection[Any]) -> None:
        super().__init__(template)
        self._facade = facade

    def add(self, info: TypeInfo) -> None:
        super().add(info)
        self._facade.register(lambda c: c.adapters.types.add(info))
