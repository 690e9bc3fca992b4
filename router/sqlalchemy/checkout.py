"""One checkout of a routed engine, in the place of the pool's proxy of a DBAPI connection."""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sqlalchemy import exc
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.pool import PoolProxiedConnection
from sqlalchemy.pool.base import ResetStyle
from sqlalchemy.util.concurrency import in_greenlet

from router.checkout import Checkout
from router.classify import Intent, Kind
from router.cursor import RoutedCursor
from router.model import Node
from router.sqlalchemy.connection import NodeConnection
from router.sqlalchemy.raw import RoutedDBAPIConnection

if TYPE_CHECKING:
    from router.sqlalchemy.pool import RoutingPool

PEEK = Intent(Kind.READ, "the connection's own state is asked for")


class CheckoutRecord:
    """Stands where SQLAlchemy expects the pool's record of one connection.

    Attributes:
        dbapi_connection: the checkout's, also when it is closed; None once it was invalidated.
    """

    __slots__ = ("dbapi_connection", "finalize_callback", "info", "record_info")

    def __init__(self, connection: "RoutedConnection") -> None:
        self.dbapi_connection: RoutedDBAPIConnection | None = RoutedDBAPIConnection(connection)
        self.finalize_callback: deque[Callable[[Any], None]] = deque()
        self.info: dict[str, Any] = {}
        self.record_info: dict[str, Any] = {}


class RoutedConnection(Checkout[NodeConnection], PoolProxiedConnection):
    """One checkout of a routed engine: at most one connection to the primary and one to a replica.

    Behaves as the pool's own proxy of a DBAPI connection does. Like that, it belongs to one
    thread or task at a time.
    """

    pool: "RoutingPool"  # pyright: ignore[reportIncompatibleVariableOverride]

    _record: CheckoutRecord | None = None
    _detached = False

    def closed_error(self) -> Exception:
        """What a statement gets after the checkout has ended."""
        return exc.InvalidRequestError(
            "this connection was closed or invalidated: take another one from the engine"
        )

    # -- the DBAPI connection's own methods ----------------------------------------------------

    def cursor(self, *args: Any, **kwargs: Any) -> DBAPICursor:
        """A cursor that is routed statement by statement."""

        def make(held: NodeConnection) -> Any:
            return held.dbapi.cursor(*args, **kwargs)

        stream = bool(args and args[0])
        return RoutedCursor(  # type: ignore[return-value]
            self, self.dbapi_connection, make, stream=stream
        )

    @property
    def dbapi_connection(self) -> Any:  # type: ignore[override]
        """A DBAPI connection whose cursors are routed; anything else binds it to the primary."""
        return self._connection_record.dbapi_connection if self.open else None

    @property
    def driver_connection(self) -> Any:  # type: ignore[override]
        """The driver's own connection to the primary. The checkout stays on it from now on."""
        if not self.open:
            return None
        held = self.primary if self.bound else None
        if held is None:
            if self.pool.dialect.is_async and not in_greenlet():
                raise exc.InvalidRequestError(
                    "an asynchronous connection to the primary cannot be taken here: await "
                    "connection.run_sync(lambda c: c.connection.driver_connection), or make the "
                    "engine with router.create_async_engine()"
                )
            held = self.bind_primary()
        return self.pool.dialect.get_driver_connection(held.dbapi)

    def __getattr__(self, key: str) -> Any:
        # Our own names only come here when a property of ours failed: say so, do not go on.
        if key.startswith("__") or hasattr(type(self), key):
            raise AttributeError(key)
        return getattr(self.dbapi_connection, key)

    # -- SQLAlchemy's pool interface -----------------------------------------------------------

    @property
    def _connection_record(self) -> CheckoutRecord:
        if self._record is None:
            self._record = CheckoutRecord(self)
        return self._record

    @property
    def info(self) -> dict[str, Any]:
        """A dictionary for the caller's own use; it lives as long as this checkout."""
        return self._connection_record.info

    @property
    def record_info(self) -> dict[str, Any] | None:
        """As `info`."""
        return self._connection_record.record_info

    @property
    def is_valid(self) -> bool:
        """Whether this checkout is open and was not invalidated."""
        return self.open

    @property
    def is_detached(self) -> bool:
        """Whether `detach` was called."""
        return self._detached

    def detach(self) -> None:
        """Take the primary's connection out of its pool; this checkout stays on it."""
        held = self.bind_primary()
        if self.replica is not None:
            self.drop(self.replica)
        held.fairy.detach()
        held.dbapi = held.fairy.dbapi_connection
        self._detached = True

    def invalidate(self, e: BaseException | None = None, soft: bool = False) -> None:
        """Throw away the connection that failed, or all when nobody says which."""
        helds = [h for h in (self.primary, self.replica) if h is not None]
        guilty = [h for h in helds if h.broken]
        if e is not None and not guilty and self.last is not None:
            guilty = [self.last]
        for held in helds:
            if e is None or held in guilty:
                held.fairy.invalidate(e, soft=soft)
                if soft:
                    held.fairy.close()
            else:
                held.release(self.journal)
        if self._record is not None:
            self._record.dbapi_connection = None
        self.finish()

    def close(self) -> None:
        """Give every connection back to its pool."""
        self._close_special()

    def _close_special(self, transaction_reset: bool = False) -> None:
        """Close, as SQLAlchemy's Connection does it.

        Args:
            transaction_reset: commit or rollback was called just before.
        """
        if not self.open:
            return
        try:
            if not transaction_reset:
                self._reset()
            if self._record is not None:
                for callback in list(self._record.finalize_callback):
                    callback(self.dbapi_connection)
                self._record.finalize_callback.clear()
        finally:
            self.release()

    def _reset(self) -> None:
        """What the pool's ``reset_on_return`` says, once for all connections held."""
        style = self.pool._reset_on_return
        try:
            if style is ResetStyle.reset_rollback:
                self.pool.dialect.do_rollback(self)
            elif style is ResetStyle.reset_commit:
                self.pool.dialect.do_commit(self)
        except self.pool.driver_errors as error:
            for held in (self.primary, self.replica):
                if held is not None and held.lost(error):
                    held.broken = True

    def session(self, node: Node) -> NodeConnection | None:
        """A connection to `node`, the primary, by ``session_url``."""
        return self.pool.session(node)

    def introduce(self) -> None:
        """Let the dialect meet a server, a replica if there is one, and stay there for reads."""
        try:
            route = self.route(None, explicit=False, intent=PEEK)
        except BaseException:
            self._close_special(transaction_reset=True)
            raise
        if route.fresh:
            route.held.in_transaction = False  # nothing was sent
        self.last: NodeConnection | None = None

    def peek(self, ask: Callable[[Any], Any]) -> Any:
        """`ask(real_connection)` with this checkout's settings in force, leaving no trace."""
        route = self.route(None, explicit=False, intent=PEEK)
        held = route.held
        if not route.fresh:
            return ask(held.dbapi)
        held.in_transaction = False  # nothing was sent: the transaction made ready is not begun
        held.autocommit(self.isolation == "AUTOCOMMIT")
        if held.characteristics != self.characteristics:
            held.characterise(self.characteristics)
        try:
            found = ask(held.dbapi)
            held.end("rollback")  # of what the driver began, in order to ask
        except BaseException:
            held.broken = True
            raise
        return found
