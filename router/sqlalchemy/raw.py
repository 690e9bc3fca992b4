"""Routing for those who go below SQLAlchemy: ``raw_connection()``."""

from typing import TYPE_CHECKING, Any

from sqlalchemy import exc
from sqlalchemy.util.concurrency import in_greenlet

from router.sqlalchemy.node_connection import DbapiConnection

if TYPE_CHECKING:
    from router.sqlalchemy.checkout import EngineCheckout


class RoutedDBAPIConnection:
    """What ``.dbapi_connection`` of a routed checkout is: cursors, commit and rollback are routed,
    and everything else is the primary's driver connection, on which the checkout then stays.

    It knows nothing of the `RoutedConnection` that keeps it: in a circle, one that nobody closed
    would give its connections back when the garbage collector finds it, and not at once.
    """

    __slots__ = ("routed",)

    def __init__(self, routed: "EngineCheckout") -> None:
        object.__setattr__(self, "routed", routed)

    routed: "EngineCheckout"

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        def make(held: DbapiConnection) -> Any:
            return held.dbapi.cursor(*args, **kwargs)

        # A cursor with a name is the server's; asyncpg's dialect asks for one by another word.
        named = args[0] if args else kwargs.get("name") or kwargs.get("server_side")
        routed = self.routed
        return routed.pool.driver.cursor(routed, self, make, stream=bool(named))

    def commit(self) -> None:
        """Commit on the primary. Raises MissingGreenlet: it would have to wait, outside
        SQLAlchemy's greenlets."""
        self._must_be_able_to_wait()
        self.routed.commit()

    def rollback(self) -> None:
        """Roll back whatever is open. Raises as `commit`."""
        self._must_be_able_to_wait()
        self.routed.rollback()

    def _must_be_able_to_wait(self) -> None:
        # Before anything is noted: a transaction that could not be ended is still open.
        if self.routed.pool.dialect.is_async and not in_greenlet():
            raise exc.MissingGreenlet(
                "an asynchronous connection was used where nothing can be awaited: use await "
                "connection.commit() or rollback(), or connection.run_sync()"
            )

    def close(self) -> None:
        self.routed.close(self)

    def tpc_begin(self, xid: Any) -> None:
        self.routed.bind_primary().dbapi.tpc_begin(xid)

    def tpc_prepare(self) -> None:
        self.routed.bind_primary().dbapi.tpc_prepare()

    def tpc_commit(self, *xid: Any) -> None:
        self._end_tpc("tpc_commit", xid)

    def tpc_rollback(self, *xid: Any) -> None:
        self._end_tpc("tpc_rollback", xid)

    def _end_tpc(self, method: str, xid: tuple[Any, ...]) -> None:
        routed = self.routed
        held = routed.bind_primary()
        try:
            getattr(held.dbapi, method)(*xid)
            if method == "tpc_commit":
                routed.acknowledge()
        finally:
            held.in_transaction = routed.pool.driver.in_transaction(held.dbapi)
            routed.written()
            routed.bound = False
            if method == "tpc_commit":
                routed.commit()
            else:
                routed.rollback()

    def __getattr__(self, key: str) -> Any:
        if key.startswith("__"):
            raise AttributeError(key)
        return getattr(self.routed.bind_primary().dbapi, key)

    def __setattr__(self, key: str, value: Any) -> None:
        routed = self.routed
        held = routed.bind_primary()
        setattr(held.dbapi, key, value)
        if key != "autocommit":
            return
        # From now on each write of the cursors is a commit of its own, or is one no longer: a pin
        # has to know when a write was committed.
        held.in_transaction = routed.pool.driver.in_transaction(held.dbapi)
        routed.committing_each(bool(held.dbapi.autocommit))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RoutedDBAPIConnection) and other.routed is self.routed

    def __hash__(self) -> int:
        return hash(self.routed)

    def __repr__(self) -> str:
        return f"<RoutedDBAPIConnection of {self.routed!r}>"
