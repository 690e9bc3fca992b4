"""What ``django.db.connection.connection`` is: one psycopg connection to look at, several
behind it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import psycopg
from django.db.backends.postgresql.base import CursorMixin
from psycopg.adapt import AdaptersMap
from psycopg.pq import TransactionStatus
from psycopg.types import TypeInfo, TypesRegistry

from router.checkout import Checkout
from router.classify import Intent, Kind
from router.cursor import RoutedCursor, text_of
from router.django.connection import NodeConnection, alive
from router.model import Node

if TYPE_CHECKING:
    from router.django.nodes import Nodes

PEEK = Intent(Kind.READ, "the connection's own state is asked for")


class DjangoCheckout(Checkout[NodeConnection]):
    """A wrapper's checkout, which lasts as long as Django keeps the connection."""

    def closed_error(self) -> Exception:
        """What a statement gets after the connection was closed, as from psycopg."""
        return psycopg.OperationalError("the connection is closed")

    def session(self, node: Node) -> NodeConnection | None:
        """A connection to `node`, the primary, by ``session_url``."""
        nodes: Nodes = self.pool  # type: ignore[assignment]
        return nodes.session(node)


class _Cursor(RoutedCursor[NodeConnection]):
    """Refuses to be used after it was closed, executed before or not, as psycopg's does."""

    def close(self) -> None:
        super().close()
        object.__setattr__(self, "_closed", True)

    @property
    def closed(self) -> bool:
        """Whether it was closed, or its connection was."""
        return "_closed" in self.__dict__ or (self._real is not None and bool(self._real.closed))

    def _replaced(self, held: NodeConnection) -> Any:
        if "_closed" in self.__dict__:
            raise psycopg.InterfaceError("the cursor is closed")
        return super()._replaced(held)

    def callproc(self, name: Any, args: Any = None) -> Any:
        """Call a function; routed like any other statement."""
        call: Any = CursorMixin.callproc
        return call(self, name, args)

    @contextmanager
    def copy(self, statement: Any, params: Any = None, **kwargs: Any) -> Iterator[Any]:
        """Psycopg's block around a COPY, where the rules send it."""
        routed = self._routed
        route = routed.route(text_of(statement), explicit=routed.explicit)
        cursor = self._on(route.held)
        route.begin()
        try:
            with cursor.copy(statement, params, **kwargs) as copy:
                yield copy
        except psycopg.Error as error:
            route.held.lost(error, cursor)
            raise
        route.done(params)


class _Stream(_Cursor):
    """A server-side cursor. While it is open, its connection goes to no other user of a pool."""

    def _replaced(self, held: NodeConnection) -> Any:
        before, had = self._of, self._real
        real = super()._replaced(held)
        if before is not None and had is not None:
            before.nodes.streaming(before.line, -1)
        held.nodes.streaming(held.line, 1)
        return real

    def close(self) -> None:
        held, real = self._of, self._real
        was_open = real is not None and not real.closed
        try:
            super().close()
        finally:
            if was_open and held is not None:
                held.nodes.streaming(held.line, -1)


class RoutedConnection:
    """Behaves as a connection of psycopg does where Django and its libraries look.

    Cursors, autocommit, commit and rollback are routed. Types and adapters registered here are
    registered on each node's connection. Any other attribute is that of a connection to the
    primary, on which the wrapper then stays.
    """

    def __init__(self, nodes: "Nodes") -> None:
        self.nodes: Nodes = nodes
        self.checkout: DjangoCheckout = DjangoCheckout(nodes)
        self.closed: bool = False
        self.declared: bool = False
        self._autocommit = False
        self._isolation: Any = nodes.isolation
        self.checkout.explicit = True
        self._adapters: _Adapters | None = None

    # -- statements ----------------------------------------------------------------------------

    def cursor(self, *args: Any, **kwargs: Any) -> RoutedCursor[NodeConnection]:
        """A cursor that is routed statement by statement; arguments as psycopg's."""
        stream = bool(args or kwargs.get("name"))
        return self.cursor_by(lambda dbapi: dbapi.cursor(*args, **kwargs), stream=stream)

    def cursor_by(
        self, make: Callable[[Any], Any], *, stream: bool
    ) -> RoutedCursor[NodeConnection]:
        """A routed cursor.

        Args:
            make: a cursor on a connection of psycopg.
            stream: it is a server-side cursor.
        """
        kind = _Stream if stream else _Cursor
        return kind(self.checkout, self, lambda held: make(held.dbapi), stream=stream)

    def execute(self, query: Any, params: Any = None, **kwargs: Any) -> Any:
        """Run one statement, routed; the cursor."""
        return self.cursor().execute(query, params, **kwargs)

    # -- transactions --------------------------------------------------------------------------

    @property
    def autocommit(self) -> bool:
        """Whether a statement outside ``atomic()`` is a transaction of its own."""
        return self._autocommit

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        self._must_be_open()
        if self.in_transaction:
            raise psycopg.ProgrammingError(
                "can't change 'autocommit' now: a transaction is open: commit or roll back"
            )
        self._autocommit = value
        self.checkout.explicit = not value
        self.checkout.characterise(
            isolation="AUTOCOMMIT" if value else self._level(),
            read_only=True if self.declared and not value else None,
        )

    def _level(self) -> str | None:
        return None if self._isolation is None else self._isolation.name.replace("_", " ")

    @property
    def isolation_level(self) -> Any:
        """Of the transactions to come, as psycopg has it; None is the server's default."""
        return self._isolation

    @isolation_level.setter
    def isolation_level(self, value: Any) -> None:
        self._isolation = None if value is None else psycopg.IsolationLevel(value)
        if not self._autocommit:
            self.checkout.characterise(isolation=self._level())

    @property
    def in_transaction(self) -> bool:
        """Whether a server has a transaction open for this connection."""
        checkout = self.checkout
        return any(h is not None and h.in_transaction for h in _held(checkout))

    def commit(self) -> None:
        """Commit on the primary; end what is open on a replica."""
        self.checkout.commit()

    def rollback(self) -> None:
        """Roll back whatever is open."""
        self._must_be_open()
        self.checkout.rollback()

    def hold_session(self) -> None:
        """Stay on a session of one's own, past a PgBouncer, until this is closed.

        Raises:
            SessionRefused: ``session_url`` does not lead to the primary.
        """
        route = self.checkout.route(None, explicit=False, force="session", intent=PEEK)
        if route.fresh:
            route.held.in_transaction = False  # nothing was sent

    def rest(self) -> None:
        """Between two requests: let the next one's reads choose among the replicas anew."""
        replica = self.checkout.replica
        if replica is not None and not self.in_transaction:
            self.checkout.drop(replica)

    def usable(self) -> bool:
        """Ask the servers that are held; a dead one's connection is dropped.

        Returns:
            whether nothing was lost with it that only that connection had, and no transaction
            has failed.
        """
        checkout = self.checkout
        self.nodes.doubt()
        lost = False
        for held in _held(checkout):
            if held is None or (not held.broken and alive(held.dbapi)):
                continue
            held.broken = True
            lost = lost or held.in_transaction or (held is checkout.primary and checkout.bound)
            checkout.drop(held)
        return not lost and not self.closed and not self._failed()

    def _failed(self) -> bool:
        failed = TransactionStatus.INERROR
        held = [h for h in _held(self.checkout) if h is not None]
        return any(h.dbapi.pgconn.transaction_status == failed for h in held)

    def configured(self, configure: Callable[[Any], bool]) -> bool:
        """Configure what is held anew; what is kept is opened anew when it is needed.

        Returns:
            whether any connection was changed.
        """
        self.nodes.empty()
        changed = [configure(held.dbapi) for held in _held(self.checkout) if held is not None]
        return any(changed)

    def close(self) -> None:
        """Close every connection, or give it back to its node's pool."""
        if self.closed:
            return
        self.closed = True
        # What is set on it goes with a connection that is closed; one of a pool is put right.
        try:
            self.checkout.release()
        finally:
            self.nodes.close()

    def abandon(self) -> None:
        """Forget what a forked child inherited: its sockets are the parent's."""
        self.closed = True
        _abandoned.append((self.checkout.primary, self.checkout.replica))
        self.checkout.finish()

    def _must_be_open(self) -> None:
        if self.closed:
            raise self.checkout.closed_error()

    # -- what is looked at ---------------------------------------------------------------------

    @property
    def any(self) -> Any:
        """A connection of psycopg, to be looked at: the one used last, or one for reads."""
        checkout = self.checkout
        for held in (checkout.last, *_held(checkout)):
            if held is not None and not held.broken and held in _held(checkout):
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
        """Always False: what breaks is replaced."""
        return False

    @property
    def adapters(self) -> AdaptersMap:
        """What is registered here is registered on every node's connection."""
        if self._adapters is None:
            self._adapters = _Adapters(self)
        return self._adapters

    def register(self, call: Callable[[Any], None]) -> None:
        """Do `call` with each node's connection, those to come included."""
        self.nodes.registered.append(call)
        for held in _held(self.checkout):
            if held is not None:
                call(held.dbapi)

    def __getattr__(self, key: str) -> Any:
        if key.startswith("__"):
            raise AttributeError(key)
        return getattr(self.checkout.bind_primary().dbapi, key)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.rollback() if kind else self.commit()
        finally:
            self.close()

    @contextmanager
    def transaction(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Psycopg's own block, on the primary."""
        with self.checkout.bind_primary().dbapi.transaction(*args, **kwargs) as block:
            yield block

    def __repr__(self) -> str:
        return f"<RoutedConnection of {self.checkout!r}>"


_abandoned: list[object] = []
"""What forked children inherited, kept referenced so that nothing of it is ever finalised."""


def _held(checkout: DjangoCheckout) -> tuple[NodeConnection | None, NodeConnection | None]:
    return checkout.primary, checkout.replica


class _Adapters(AdaptersMap):
    """Passes every registration on to the nodes' connections."""

    def __init__(self, facade: RoutedConnection) -> None:
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
    def __init__(self, template: TypesRegistry, facade: RoutedConnection) -> None:
        super().__init__(template)
        self._facade = facade

    def add(self, info: TypeInfo) -> None:
        super().add(info)
        self._facade.register(lambda c: c.adapters.types.add(info))
