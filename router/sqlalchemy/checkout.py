"""One checkout of a routed engine, in the place of the pool's proxy of a DBAPI connection."""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sqlalchemy import exc
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.pool import PoolProxiedConnection
from sqlalchemy.pool.base import ResetStyle
from sqlalchemy.util.concurrency import in_greenlet

from router.checkout.checkout import Checkout
from router.checkout.retry import recover
from router.model import Node
from router.sql.intent import Intent, Kind
from router.sqlalchemy.node_connection import DbapiConnection
from router.sqlalchemy.raw import RoutedDBAPIConnection

if TYPE_CHECKING:
    from router.sqlalchemy.source import EngineSource

PEEK = Intent(Kind.READ, "the connection's own state is asked for")
ROLLBACK, COMMIT = ResetStyle.reset_rollback, ResetStyle.reset_commit


class CheckoutRecord:
    """Stands where SQLAlchemy expects the pool's record of one connection.

    Attributes:
        dbapi_connection: the checkout's, also when it is closed; None once it was invalidated.
    """

    __slots__ = ("dbapi_connection", "finalize_callback", "info", "record_info")

    def __init__(self, routed: "EngineCheckout") -> None:
        self.dbapi_connection: RoutedDBAPIConnection | None = RoutedDBAPIConnection(routed)
        self.finalize_callback: deque[Callable[[Any], None]] = deque()
        self.info: dict[str, Any] = {}
        self.record_info: dict[str, Any] = {}


class EngineCheckout(Checkout[DbapiConnection]):
    """Where the statements of one checkout of a routed engine go.

    It is an object of its own because `RoutedConnection` asks a driver's connection for names it
    does not know, and every attribute of a class with ``__getattr__`` is slow to look up."""

    pool: "EngineSource"  # pyright: ignore[reportIncompatibleVariableOverride]

    # The isolation level in force again when the driver connection's autocommit is switched off.
    _otherwise: str | None = None

    def closed_error(self) -> Exception:
        return exc.InvalidRequestError(
            "this connection was closed or invalidated: take another one from the engine"
        )

    def session(self, node: Node) -> DbapiConnection | None:
        """A connection to `node`, the primary, by ``session_url``."""
        return self.pool.session(node)

    def given(self, sql: str, intent: Intent, parameters: Any, *, many: bool) -> Intent:
        """As the base class has it; `parameters` may be the execution context they are in."""
        sets = getattr(parameters, "router_sets", None)
        if sets is not None:
            parameters, many = sets(), True
        return super().given(sql, intent, parameters, many=many)

    def introduce(self, meet: Callable[[Any], None]) -> None:
        """Let the dialect meet a server by `meet`, which is given the driver's connection: to a
        replica if there is one, where this checkout's reads then stay."""
        try:
            self.peek(meet)
        except BaseException:
            self.release()
            raise
        self.last: DbapiConnection | None = None

    def committing_each(self, value: bool) -> None:
        """Note that the driver connection's autocommit was switched to `value`. Switched off, it
        leaves the isolation level that was in force before, as with the driver itself."""
        now = self.characteristics.isolation
        if value and self.isolation != "AUTOCOMMIT":
            self._otherwise = now
            self.characterise(isolation="AUTOCOMMIT")
        elif not value and self.isolation == "AUTOCOMMIT":
            level, self._otherwise = self._otherwise, None
            if level is None and self.pool.default_isolation == "AUTOCOMMIT":
                level = self.pool.server_isolation
            self.characterise(isolation=level)

    def after_fork(self) -> None:
        """As the base class has it, and nothing is rolled back on the parent's connections when
        the child ends."""
        for held in (self.primary, self.replica):
            record: Any = None if held is None else held.fairy._connection_record
            if record is not None:
                record.fairy_ref = None  # which tells the pool that somebody uses the connection
        super().after_fork()

    def close(
        self, connection: Any, record: CheckoutRecord | None = None, *, reset: bool = True
    ) -> None:
        """End this checkout as a pool ends one that comes back as `connection`: by a `reset`, and
        by the callbacks of its `record`."""
        if not self.open:
            return
        try:
            if reset:
                self._reset(connection)
            if record is not None:
                for callback in list(record.finalize_callback):
                    callback(record.dbapi_connection)
                record.finalize_callback.clear()
        finally:
            if self.primary is not None:
                self.look_again()
            self.release()

    def _reset(self, connection: Any) -> None:
        """Do what the pool's ``reset_on_return`` says, once for all connections held."""
        pool = self.pool
        style = pool.reset_style
        try:
            if style is ROLLBACK:
                pool.dialect.do_rollback(connection)
            elif style is COMMIT:
                pool.dialect.do_commit(connection)
        except pool.driver_errors as error:
            for held in (self.primary, self.replica):
                if held is not None and held.report_failure(error):
                    held.broken = True

    def __del__(self) -> None:
        """Nobody closed it. The pools take the connections back when their last reference goes,
        which is now: by SQLAlchemy's own hook, which warns where an event loop would be needed."""
        for held in (self.primary, self.replica):
            if held is not None:
                held.forsake()
        if self._writers or self._ddl:
            self.written()

    def look_again(self) -> None:
        """Notice a transaction that the driver opened on the primary's connection unseen.

        Given back, the connection would have the next user commit it."""
        primary = self.primary
        if primary is None or primary.in_transaction or primary.broken:
            return
        try:
            primary.in_transaction = self.pool.driver.in_transaction(primary.dbapi)
        except self.pool.driver_errors:
            primary.broken = True

    def peek(self, ask: Callable[[Any], Any]) -> Any:
        """`ask(real_connection)` with this checkout's settings in force, leaving no trace; asked
        elsewhere where that server is lost meanwhile, as any read is."""
        route = self.route(None, explicit=False, intent=PEEK)
        if not route.fresh:
            return ask(route.held.dbapi)
        found: Any = None

        def attempt(held: DbapiConnection) -> None:
            nonlocal found
            found = self._peeked(held, ask)

        try:
            try:
                attempt(route.held)
            except self.pool.driver_errors as error:
                recover(route, error, None, attempt)
        except BaseException:
            route.held.broken = True  # with what the driver began on it, in order to ask
            raise
        return found

    def _peeked(self, held: DbapiConnection, ask: Callable[[Any], Any]) -> Any:
        held.in_transaction = False  # route() only noted a transaction: no BEGIN was sent
        held.autocommit(self.isolation == "AUTOCOMMIT")
        wanted = self.characteristics
        if wanted.isolation == "AUTOCOMMIT":
            # Switched on just now. As a level, asyncpg's dialect could not switch it off again.
            wanted = wanted._replace(isolation=held.characteristics.isolation)
        if held.characteristics != wanted:
            held.characterise(wanted)
        found = ask(held.dbapi)
        held.end("rollback")  # of what the driver began, in order to ask
        return found


class RoutedConnection(PoolProxiedConnection):
    """One checkout of a routed engine: at most one connection to the primary and one to a replica.

    Behaves as the pool's own proxy of a DBAPI connection does. Like that, it belongs to one
    thread or task at a time.

    Attributes:
        routed: knows where statements go, and holds the connections.
    """

    # Others may set what they like on it, as SQLAlchemy's own tests replace `cursor`.
    __slots__ = ("__dict__", "_detached", "_record", "routed")

    def __init__(self, routed: EngineCheckout) -> None:
        self.routed: EngineCheckout = routed
        self._record: CheckoutRecord | None = None
        self._detached = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__}{self.routed.state()}>"

    def cursor(self, *args: Any, **kwargs: Any) -> DBAPICursor:
        made: DBAPICursor = RoutedDBAPIConnection(self.routed).cursor(*args, **kwargs)
        return made

    def commit(self) -> None:
        self.routed.commit()

    def rollback(self) -> None:
        self.routed.rollback()

    @property
    def dbapi_connection(self) -> Any:  # type: ignore[override]
        """A DBAPI connection whose cursors are routed; anything else binds it to the primary."""
        return self._connection_record.dbapi_connection if self.routed.open else None

    @property
    def driver_connection(self) -> Any:  # type: ignore[override]
        """The driver's own connection to the primary. The checkout stays on it from now on."""
        if not self.routed.open:
            return None
        routed = self.routed
        held = routed.primary if routed.bound else None
        if held is None:
            if routed.pool.dialect.is_async and not in_greenlet():
                raise exc.InvalidRequestError(
                    "an asynchronous connection to the primary cannot be taken here: await "
                    "connection.run_sync(lambda c: c.connection.driver_connection), or make the "
                    "engine with router.create_async_engine()"
                )
            held = routed.bind_primary()
        return routed.pool.dialect.get_driver_connection(held.dbapi)

    def __getattr__(self, key: str) -> Any:
        # Our own names only come here when a property of ours failed: say so, do not go on.
        if key.startswith("__") or hasattr(type(self), key):
            raise AttributeError(key)
        return getattr(self.dbapi_connection, key)

    @property
    def _connection_record(self) -> CheckoutRecord:
        if self._record is None:
            self._record = CheckoutRecord(self.routed)
        return self._record

    @property
    def info(self) -> dict[str, Any]:
        """A dictionary for the caller's own use; it lives as long as this checkout."""
        return self._connection_record.info

    @property
    def record_info(self) -> dict[str, Any] | None:
        return self._connection_record.record_info

    @property
    def is_valid(self) -> bool:
        return self.routed.open

    @property
    def is_detached(self) -> bool:
        return self._detached

    def detach(self) -> None:
        """Take the primary's connection out of its pool; this checkout stays on it."""
        routed = self.routed
        held = routed.bind_primary()
        if routed.replica is not None:
            routed.drop(routed.replica)
        held.fairy.detach()
        held.dbapi = held.fairy.dbapi_connection
        self._detached = True

    def invalidate(self, e: BaseException | None = None, soft: bool = False) -> None:
        """Throw away the connection that failed with `e`, or all where no error says which; `soft`
        lets the pool close them when they are next used."""
        routed = self.routed
        routed.look_again()
        helds = [h for h in (routed.primary, routed.replica) if h is not None]
        guilty = [h for h in helds if h.broken]
        if e is not None and not guilty and routed.last is not None:
            guilty = [routed.last]
        for held in helds:
            if e is None or held in guilty:
                held.fairy.invalidate(e, soft=soft)
                if soft:
                    held.fairy.close()
            else:
                held.release(routed.journal)
        if self._record is not None:
            self._record.dbapi_connection = None
        routed.finish()

    def close(self) -> None:
        self._close_special()

    def _close_special(self, transaction_reset: bool = False) -> None:
        """Close, as SQLAlchemy's Connection does it: without a reset where `transaction_reset`
        says that commit or rollback was called just before."""
        self.routed.close(self, self._record, reset=not transaction_reset)
