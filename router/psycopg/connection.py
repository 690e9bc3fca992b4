"""A connection of a routed pool: psycopg's, whose statements go where the rules say."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Self
from weakref import ref

import psycopg
from psycopg import IsolationLevel

from router.checkout.node_connection import Characteristics
from router.checkout.route import Route
from router.errors import RouterError
from router.model import Node
from router.psycopg import cursor, facade, source
from router.psycopg.facade import PEEK
from router.psycopg.node_connection import ConnectionRecord, PsycopgConnection
from router.psycopg.transaction import Block, Transaction

if TYPE_CHECKING:
    from router.psycopg.pool import RoutedPool


@dataclass(frozen=True, slots=True)
class Defaults:
    """How the user's ``kwargs`` and ``configure`` leave a new connection."""

    autocommit: bool = False
    isolation_level: IsolationLevel | None = None
    read_only: bool | None = None
    deferrable: bool | None = None

    @classmethod
    def of(cls, connection: Any) -> Self:
        """As psycopg's `connection` is now."""
        its = connection
        return cls(its.autocommit, its.isolation_level, its.read_only, its.deferrable)

    def characteristics(self) -> Characteristics:
        """The same as a checkout's `Characteristics`."""
        if self.autocommit:
            return Characteristics("AUTOCOMMIT")
        level = self.isolation_level
        named = None if level is None else level.name.replace("_", " ")
        return Characteristics(named, self.read_only, self.deferrable)


class PoolSource(source.PsycopgSource):
    """The connections of one checkout, taken from the nodes' pools."""

    def __init__(self, pool: "RoutedPool", timeout: float) -> None:
        super().__init__(pool, pool.defaults.isolation_level)
        self.pool: RoutedPool = pool
        self.timeout: float = timeout
        self.undo: list[tuple[Any, Callable[[], object]]] = []

    def start_router(self) -> None:
        """Start the Router, in a thread where an event loop must not wait."""
        if not self.pool.closed:  # a pool that was closed has stopped it
            self.pool.start_router()

    def refused(self, node: Node) -> RouterError | None:
        """Why new connections to `node` are refused here, though its server answers."""
        return self.pool.refused.get(node) or self.pool.unmade.get(node)

    def configure(self, connection: Any) -> object:
        """As the base class has it: by the pool's ``configure``."""
        return self.pool.configure(connection)

    def line(self, node: Node) -> ConnectionRecord:
        """As the base class has it: of the node's pool, asked whether it lives if the node was
        away."""
        if self.pool.closed:
            return self.pool.single(node)
        pool = self.pool.node_pool(node)
        if not pool._pool:
            self.pool.renew(node, pool)
            pool = self.pool.node_pool(node)
        while True:
            line = self.from_pool(pool, node, self.timeout)
            if self._trusted(node, line):
                return line
            # A connection that is found dead is thrown away, so this ends with a new one.
            self.pool.lent[line] = node
            try:
                if self.lives(line):
                    return line
            except BaseException:
                self.discard(node, line, distrust=False)
                raise
            self.discard(node, line, distrust=False)

    def open_line(self, node: Node) -> ConnectionRecord | None:
        """As the base class has it: of the node's pool."""
        pool = None if self.pool.closed else self.pool.node_pool(node)
        return None if pool is None else self.open_in(pool)

    def idle_connection(self, node: Node) -> PsycopgConnection | None:
        """A connection to `node` that lies ready in its pool and needs not be asked whether it
        lives."""
        taken = self.pool.idle_connection(node, lambda line: self._trusted(node, line))
        return None if taken is None else self.held_by(node, taken)

    def _trusted(self, node: Node, line: ConnectionRecord) -> bool:
        distrusted = self.pool.distrusted
        doubted = distrusted and distrusted.get(node, line.proven) > line.proven
        return not line.dbapi.closed and not doubted and not self.interrupted(node, line)

    def held_by(self, node: Node, line: ConnectionRecord) -> PsycopgConnection:
        """As the base class has it; the pool counts it as lent, until it is given back or
        dropped."""
        self.pool.lent[line] = node
        held = super().held_by(node, line)
        line.borrower = ref(held, partial(self.pool.dropped, line))
        return held

    def give_back(self, node: Node, line: ConnectionRecord) -> None:
        """As the base class has it: to its pool, without what this checkout set on it."""
        self.pool.lent.pop(line, None)
        line.borrower = None
        if line.pool is None:
            line.dbapi.close()
            return
        try:
            if self.undo:
                self._undone(line)
            if line.dbapi.autocommit is not True and not line.dbapi.closed:
                line.dbapi.autocommit = True
        except BaseException:
            self.discard(node, line, distrust=False)
            raise
        line.pool.putconn(line.dbapi)

    def discard(self, node: Node, line: ConnectionRecord, *, distrust: bool) -> None:
        """As the base class has it; `distrust` has every connection that is as old asked before
        its use."""
        self.pool.lent.pop(line, None)
        line.borrower = None
        if distrust:
            self.pool.distrusted[node] = self.router.clock()
        if self.undo:
            self._undone(line, forget=True)
        line.end()

    def change(self, dbapi: Any, do: Callable[[], object], undo: Callable[[], object]) -> None:
        """Change `dbapi` by `do`, and by `undo` change it back before its pool gets it back."""
        do()
        self.undo.append((dbapi, undo))

    def _undone(self, line: ConnectionRecord, *, forget: bool = False) -> None:
        for dbapi, undo in reversed(self.undo):
            if dbapi is line.dbapi and not forget:
                undo()
        self.undo = [each for each in self.undo if each[0] is not line.dbapi]


class Beginning(cursor.Closing):
    """With the first statement a transaction may begin, as psycopg's do without autocommit."""

    @property
    def _owner(self) -> "Connection":
        return self._connection  # type: ignore[no-any-return]

    def _run(self, method: str, query: Any, params: Any, kwargs: dict[str, Any]) -> Any:
        self._owner.beginning()
        return super()._run(method, query, params, kwargs)

    def _rows_of(
        self, statement: Any, params: Any, begin: Callable[[Any], None]
    ) -> Route[PsycopgConnection]:
        self._owner.beginning()
        return super()._rows_of(statement, params, begin)


class Cursor(Beginning, cursor.Cursor):
    """A cursor like psycopg's, whose statements are routed one by one."""

    def __next__(self) -> Any:
        return next(self._real if self._real is not None else self._bound())


class LastingCursor(cursor.Lasting, Cursor):
    """A server-side cursor that outlives its transaction."""


_UNTIL = "When set, it holds for every node's connection until this one is given back."


def _assigned(key: str, about: str) -> property:
    """An attribute of psycopg's connection that is the same for every node."""

    def get(self: "Connection") -> Any:
        return getattr(self.any, key)

    return property(get, lambda self, value: self.assign(key, value), doc=f"{about} {_UNTIL}")


def _number(key: str, about: str) -> property:
    def get(self: "Connection") -> int | None:
        found: int | None = getattr(self.any, key)
        return found

    return property(get, lambda self, value: self.assign(key, value), doc=f"{about} {_UNTIL}")


class Connection(facade.RoutedConnection[PoolSource]):
    """What `router.psycopg.ConnectionPool.connection` gives: psycopg's connection, routed.

    As with psycopg, a transaction begins with the first statement unless ``autocommit`` is on;
    yet reads before the first write run outside of it, on a replica. ``transaction()`` is on the
    primary, or on a replica where ``read_only`` is set. What is not routed is done on a connection
    to the primary, on which everything then stays. It belongs to one thread at a time.
    """

    cursor_class: type[cursor.Cursor] = Cursor
    stream_class: type[cursor.Cursor] = Cursor
    lasting_class: type[cursor.Cursor] = LastingCursor
    begun: bool = False

    def __init__(self, pool: "RoutedPool", timeout: float) -> None:
        """Take connections from `pool`, waiting `timeout` seconds for a node's; none before
        something is executed."""
        super().__init__(PoolSource(pool, timeout))
        self.pool: RoutedPool = pool
        self.blocks: list[Block] = []
        defaults = pool.defaults
        self._autocommit = defaults.autocommit
        self._isolation = defaults.isolation_level
        self._read_only = defaults.read_only
        self._deferrable = defaults.deferrable
        self.checkout.characteristics = pool.characteristics

    def beginning(self) -> None:
        """A statement is about to run: without autocommit a transaction begins with it."""
        if self.closed:
            self._must_be_open()
        if not self._autocommit and not self.blocks:
            self.begun = True

    def plain_cursor(self) -> Any:
        """A cursor for commands of our own, whose rows no factory of the user's makes."""
        return self.cursor_by(lambda dbapi: dbapi.cursor(), stream=False)

    def apply_mode(self) -> None:
        """Tell the checkout what the statements to come are part of."""
        alone = self._autocommit and not self.blocks
        self.checkout.explicit = bool(self.blocks)
        self.checkout.characterise(
            isolation="AUTOCOMMIT" if alone else self._level(),
            read_only=None if alone else self._read_only,
            deferrable=None if alone else self._deferrable,
        )

    def _is_within(self) -> bool:
        return self.in_transaction or bool(self.blocks)

    def set_autocommit(self, value: bool) -> None:
        """As psycopg's: the method version of the `autocommit` setter."""
        self.autocommit = value

    def set_isolation_level(self, value: IsolationLevel | int | None) -> None:
        """As psycopg's: the method version of the `isolation_level` setter."""
        self.isolation_level = value

    def set_read_only(self, value: bool | None) -> None:
        """As psycopg's: the method version of the `read_only` setter."""
        self.read_only = value

    def set_deferrable(self, value: bool | None) -> None:
        """As psycopg's: the method version of the `deferrable` setter."""
        self.deferrable = value

    def commit(self) -> None:
        """Commit on the primary; end what is open on a replica."""
        self._outside("commit")
        self.begun = False
        super().commit()

    def rollback(self) -> None:
        """Roll back whatever is open."""
        self._outside("rollback")
        self.begun = False
        super().rollback()

    def _outside(self, what: str) -> None:
        if self.blocks:
            raise psycopg.ProgrammingError(
                f"Explicit {what}() forbidden within a Transaction context: it ends with its block"
            )

    def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> Transaction:
        """As psycopg's: a block that is one transaction, or a savepoint within one, called
        `savepoint_name`; `force_rollback` undoes it in any case."""
        self._must_be_open()
        return Transaction(self, savepoint_name, force_rollback)

    def session_connection(self) -> Any:
        """Psycopg's connection to the primary, in a server session of its own."""
        self.checkout.route(None, explicit=False, force="session", intent=PEEK)
        return self.primary_connection()

    def primary_connection(self) -> Any:
        """Psycopg's connection to the primary, on which everything stays from now on."""
        self.beginning()
        return self.checkout.bind_primary().dbapi

    def notifies(self, **kwargs: Any) -> Iterator[psycopg.Notify]:
        """Iterate over notifications, which only the primary sends; arguments as psycopg's."""
        yield from self.session_connection().notifies(**kwargs)

    def add_notify_handler(self, callback: Callable[[psycopg.Notify], object]) -> None:
        """Call `callback` for notifications, which only the primary sends."""
        self.session_connection().add_notify_handler(callback)

    def add_notice_handler(self, callback: Callable[[Any], object]) -> None:
        """Call `callback` for notices of whatever server runs a statement."""

        def add(dbapi: Any) -> None:
            self.nodes.change(
                dbapi,
                lambda: dbapi.add_notice_handler(callback),
                lambda: dbapi.remove_notice_handler(callback),
            )

        self.register(add)

    def remove_notice_handler(self, callback: Callable[[Any], object]) -> None:
        """Refused: `callback` is called until the connection is given back."""
        raise psycopg.NotSupportedError(
            "a notice handler stays until the connection is given back to the pool"
        )

    def assign(self, key: str, value: Any) -> None:
        """Set the attribute `key` to `value` on every node's connection until it is given back."""

        def assign(dbapi: Any) -> None:
            old = getattr(dbapi, key)
            self.nodes.change(
                dbapi, lambda: setattr(dbapi, key, value), lambda: setattr(dbapi, key, old)
            )

        self.register(assign)

    row_factory: property = _assigned("row_factory", "Makes rows.")
    cursor_factory: property = _assigned("cursor_factory", "Makes cursors.")
    server_cursor_factory: property = _assigned("server_cursor_factory", "Makes server cursors.")
    prepare_threshold: property = _number(
        "prepare_threshold", "After how many executions a statement is prepared."
    )
    prepared_max: property = _number(
        "prepared_max", "How many prepared statements a node's connection keeps."
    )

    @property
    def idle(self) -> bool:
        """Whether it has nothing but a replica's connection that can be given back as it is."""
        checkout, undo = self.checkout, self.nodes.undo
        replica = checkout.replica
        return checkout.primary is None and not undo and (replica is None or replica.idle)

    def close(self) -> None:
        """Give every node's connection back; what is open is rolled back."""
        if self.closed:
            return
        self.closed = True
        self.blocks.clear()
        self.checkout.release()

    def leave(self, kind: type[BaseException] | None) -> None:
        """Commit, or after an exception of `kind` roll back: what the end of a ``with`` block
        does."""
        if self.closed:
            return
        checkout = self.checkout
        idle = checkout.open and checkout.primary is None and not checkout.journal
        if idle and not self.in_transaction:
            self.begun = False  # nothing but reads outside of any transaction
            self.blocks.clear()
            return
        if kind is None:
            self.commit()
            return
        self.blocks.clear()
        with suppress(psycopg.Error):  # what went wrong first counts
            self.checkout.rollback()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.leave(kind)
