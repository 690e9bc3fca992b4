"""What ``django.db.connection.connection`` is: psycopg's facade, with several behind it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

from django.db.backends.postgresql.base import CursorMixin
from psycopg.pq import TransactionStatus

from router.checkout.node_connection import Characteristics
from router.django.source import DjangoSource
from router.psycopg import facade
from router.psycopg.cursor import Cursor, Lasting
from router.psycopg.facade import PEEK
from router.psycopg.node_connection import PsycopgConnection, alive


class _Cursor(Cursor):
    callproc: Any = CursorMixin.callproc  # executes a SELECT, routed like any other


class _Stream(_Cursor):
    """A server-side cursor. While it is open, its connection goes to no other user of a pool; when
    Django's connection is closed, it is closed as well."""

    def _replaced(self, held: PsycopgConnection) -> Any:
        before, had = self._of, self._real
        real = super()._replaced(held)
        if before is not None and had is not None:
            _source(before).stream_ended(before.line, had)
        held.line.streams.add(real)
        return real

    def close(self) -> None:
        held, real = self._of, self._real
        try:
            super().close()
        finally:
            if real is not None and held is not None:
                _source(held).stream_ended(held.line, real)


def _source(held: PsycopgConnection) -> DjangoSource:
    assert isinstance(held.nodes, DjangoSource)
    return held.nodes


class _LastingStream(Lasting, _Stream):
    """A cursor WITH HOLD that Django did not ask for itself."""


class RoutedConnection(facade.RoutedConnection[DjangoSource]):
    """A wrapper's connection, which lasts as long as Django keeps it."""

    cursor_class: type[Cursor] = _Cursor
    stream_class: type[Cursor] = _Stream
    lasting_class: type[Cursor] = _LastingStream

    def __init__(self, nodes: DjangoSource) -> None:
        """Take connections from `nodes`, the wrapper's; none before something is executed."""
        super().__init__(nodes)
        self.declared: bool = False
        self.checkout.explicit = True

    def _is_within(self) -> bool:
        return self.in_transaction

    def apply_mode(self) -> None:
        """Tell the checkout what the statements to come are part of."""
        self.checkout.explicit = not self._autocommit
        alone = Characteristics("AUTOCOMMIT")
        self.checkout.characteristics = alone if self._autocommit else self._of_transactions()

    def _of_transactions(self) -> Characteristics:
        return Characteristics(self._level(), self.declared or self._read_only, self._deferrable)

    def hold_session(self) -> None:
        """Stay on a server session of its own, past a PgBouncer, until this is closed. Raises
        SessionRefused: ``session_url`` does not lead to the primary."""
        route = self.checkout.route(None, explicit=False, force="session", intent=PEEK)
        if route.fresh:
            route.held.in_transaction = False  # nothing was sent

    @property
    def unfinished(self) -> bool:
        """Whether a transaction or a statement was left open, whoever began it."""
        return self.in_transaction or any(
            status not in (TransactionStatus.IDLE, TransactionStatus.UNKNOWN)
            for status in self._statuses()
        )

    def _statuses(self) -> list[int]:
        held = [h for h in self.holding if h is not None]
        return [h.dbapi.pgconn.transaction_status for h in held]

    def rest(self) -> None:
        """Between two requests: give the replica back, so that the next one's reads choose
        among all of them, and a connection to the primary older than its last interruption, so
        that it is asked whether it lives."""
        primary, replica = self.holding
        if replica is not None:
            self.checkout.drop(replica)
        if primary is not None and self.nodes.interrupted(primary.node, primary.line):
            self.checkout.drop(primary)

    def usable(self) -> bool:
        """Ask the servers that are held, and drop a dead one's connection: whether nothing was
        lost that only that connection had, and no transaction has failed."""
        checkout = self.checkout
        self.nodes.doubt()
        lost = False
        for held in self.holding:
            if held is None or (not held.broken and alive(held.dbapi)):
                continue
            held.broken = True
            lost = lost or held.in_transaction or (held is checkout.primary and checkout.bound)
            checkout.drop(held)
        failed = TransactionStatus.INERROR in self._statuses()
        return not lost and not self.closed and not failed

    def configured(self, configure: Callable[[Any], bool]) -> bool:
        """Configure again by `configure` what is held, and close what is kept: whether any
        connection was changed."""
        self.nodes.empty()
        changed = [configure(held.dbapi) for held in self.holding if held is not None]
        return any(changed)

    def close(self) -> None:
        """Close every connection, or give it back to its node's pool."""
        if self.closed:
            return
        self.closed = True
        # A setting ends with a connection that is closed; a pool's connection is put right.
        try:
            self.checkout.release()
        finally:
            self.nodes.close()

    def abandon(self) -> None:
        """In a forked child: be closed, with nothing said on the parent's sockets."""
        self.closed = True
        self.checkout.after_fork()
        self.checkout.open = False

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
        held = self.checkout.bind_primary()
        if not held.in_transaction:
            held.characterise(self._of_transactions())  # psycopg puts them into its BEGIN
        with self.checkout.unseen(), held.dbapi.transaction(*args, **kwargs) as block:
            yield block
