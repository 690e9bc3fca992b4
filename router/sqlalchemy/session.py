"""Tells a transaction an ORM Session began by itself from one its user asked for.

A Session always calls ``Connection.begin()``, so the connection alone cannot tell the two apart;
the Session's own transaction can.
"""

from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction, SessionTransactionOrigin

from router.sqlalchemy.checkout import RoutedConnection


def _after_begin(session: Session, transaction: SessionTransaction, connection: Any) -> None:
    if transaction.origin is not SessionTransactionOrigin.AUTOBEGIN:
        return
    routed = connection.connection
    if routed.__class__ is not RoutedConnection:
        return
    # The last item says whether the Session opened the connection. One that was handed to it may
    # be in a transaction its owner began.
    if transaction._connections[connection][3]:
        routed.autobegun = True


def watch_sessions() -> None:
    """Listen to every Session of the process, once. Sessions of other engines are not touched."""
    if not event.contains(Session, "after_begin", _after_begin):
        event.listen(Session, "after_begin", _after_begin)
