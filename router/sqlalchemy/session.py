"""Patches SQLAlchemy's Session by a listener that learns who began a transaction."""

from typing import Any

from sqlalchemy import event, orm
from sqlalchemy.orm import SessionTransaction, SessionTransactionOrigin

from router.rules.context import Pins
from router.sqlalchemy.checkout import RoutedConnection


class Session(orm.Session):
    """An ORM session with pins of its own: its writes pin its own reads, and nobody else's.

    For programs without requests, where one session is one unit of work. A plain session shares
    the pins of the current routing context.

    Attributes:
        pins: what this session wrote; `Pins.clear` forgets it.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As SQLAlchemy's own session."""
        super().__init__(*args, **kwargs)
        self.pins: Pins = Pins()


def _after_begin(session: orm.Session, transaction: SessionTransaction, connection: Any) -> None:
    # A Session always calls Connection.begin(), so the connection alone cannot tell a transaction
    # the Session began by itself from one its user asked for; the Session's own can.
    proxy = connection.connection
    if proxy.__class__ is not RoutedConnection:
        return
    routed = proxy.routed
    # The last item says whether the Session opened the connection. One that was handed to it may
    # be in a transaction its owner began.
    if not transaction._connections[connection][3]:
        return
    if isinstance(session, Session):
        routed.pins = session.pins
    origin = transaction.origin
    if origin in (SessionTransactionOrigin.AUTOBEGIN, SessionTransactionOrigin.BEGIN):
        routed.autobegun = origin is SessionTransactionOrigin.AUTOBEGIN


def watch_sessions() -> None:
    """Listen to every Session of the process, once. Sessions of other engines are not touched."""
    if not event.contains(orm.Session, "after_begin", _after_begin):
        # Before the users' own, whose statements are routed by what is noted here.
        event.listen(orm.Session, "after_begin", _after_begin, insert=True)
