"""What ``django.db.connection.connection`` is: one psycopg connection to look at, several
behind it."""

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
    def callproc(self, name: Any, args: Any = None) -> Any:
        """Call a function; routed like any other statement."""
        call: Any = CursorMixin.callproc
        return call(self, name, args)


class _Stream(_Cursor):
    """A server-side cursor. While it is open, its connection goes to no other user of a pool."""

    def _replaced(self, held: PsycopgConnection) -> Any:
        before, had = self._of, self._real
        real = super()._replaced(held)
        if before is not None and had is not None:
            _streaming(before, -1)
        _streaming(held, 1)
        return real

    def close(self) -> None:
        held, real = self._of, self._real
        was_open = real is not None and not real.closed
        try:
            super().close()
        finally:
            if was_open and held is not None:
                _streaming(held, -1)


def _streaming(held: PsycopgConnection, step: int) -> None:
    nodes = held.nodes
    assert isinstance(nodes, DjangoSource)
    nodes.streaming(held.line, step)


class _LastingStream(Lasting, _Stream):
    """One WITH HOLD that Django did not ask for itself."""


class RoutedConnection(facade.RoutedConnection[DjangoSource]):
    """A wrapper's connection, which lasts as long as Django keeps it."""

    cursor_class: type[Cursor] = _Cursor
    stream_class: type[Cursor] = _Stream
    lasting_class: type[Cursor] = _LastingStream

    def __init__(self, nodes: DjangoSource) -> None:
        """Prepare; nothing is opened before something is executed.

        Args:
            nodes: the wrapper's connections.
        """
        super().__init__(nodes)
        self.declared: bool = False
        self.checkout.explicit = True

    # -- transactions --------------------------------------------------------------------------

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
        """Stay on a session of one's own, past a PgBouncer, until this is closed.

        Raises:
            SessionRefused: ``session_url`` does not lead to the primary.
        """
        route = self.checkout.route(None, explicit=False, force="session", intent=PEEK)
        if route.fresh:
            route.held.in_transaction = False  # nothing was sent

    @property
    def unfinished(self) -> bool:
        """Whether a transaction or a statement was left open, by whatever road it was begun."""
        finished = (TransactionStatus.IDLE, TransactionStatus.UNKNOWN)
        held = [h for h in self.holding if h is not None]
        return any(
            h.in_transaction or h.dbapi.pgconn.transaction_status not in finished for h in held
        )

    def rest(self) -> None:
        """Between two requests: let the next one's reads choose among the replicas anew, and have
        a connection to the primary that is older than its last interruption asked whether it
        lives."""
        primary, replica = self.holding
        if replica is not None:
            self.checkout.drop(replica)
        if primary is not None and self.nodes.interrupted(primary.node, primary.line):
            self.checkout.drop(primary)

    def usable(self) -> bool:
        """Ask the servers that are held; a dead one's connection is dropped.

        Returns:
            whether nothing was lost with it that only that connection had, and no transaction
            has failed.
        """
        checkout = self.checkout
        self.nodes.doubt()
        lost = False
        for held in self.holding:
            if held is None or (not held.broken and alive(held.dbapi)):
                continue
            held.broken = True
            lost = lost or held.in_transaction or (held is checkout.primary and checkout.bound)
            checkout.drop(held)
        return not lost and not self.closed and not self._failed()

    def _failed(self) -> bool:
        failed = TransactionStatus.INERROR
        held = [h for h in self.holding if h is not None]
        return any(h.dbapi.pgconn.transaction_status == failed for h in held)

    def configured(self, configure: Callable[[Any], bool]) -> bool:
        """Configure what is held anew; what is kept is opened anew when it is needed.

        Returns:
            whether any connection was changed.
        """
        self.nodes.empty()
        changed = [configure(held.dbapi) for held in self.holding if held is not None]
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
            held.characterise(self._of_transactions())  # psycopg's BEGIN says them
        with self.checkout.unseen(), held.dbapi.transaction(*args, **kwargs) as block:
            yield block
