"""One checkout of a routed engine: a connection that takes real ones when a statement needs them.

`RoutedConnection` stands where SQLAlchemy expects the pool's proxy of a DBAPI connection. It holds
at most one connection to the primary and one to a replica.
"""

from collections import deque
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import exc
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.pool import PoolProxiedConnection
from sqlalchemy.pool.base import ResetStyle
from sqlalchemy.util.concurrency import in_greenlet

from router.classify import Intent, Kind, Verb
from router.context import Pins, RoutingContext, current_context
from router.decide import Decision, Reason, Transaction, why_not
from router.errors import CommitUnknown, NoReplicaAvailable, PrimaryUnavailable, RouterError
from router.journal import Entry, Journal
from router.model import Node
from router.sqlalchemy.connection import DEFAULTS, Characteristics, NodeConnection
from router.sqlalchemy.errors import PoolTimeout, translated
from router.sqlalchemy.raw import RoutedCursor, RoutedDBAPIConnection

if TYPE_CHECKING:
    from router.core import Router
    from router.sqlalchemy.pool import RoutingPool

UNKNOWN = Intent(Kind.WRITE, "not a statement the router can see")
BOUND = Intent(Kind.WRITE, "the driver connection was handed out", binds=True)
PEEK = Intent(Kind.READ, "the connection's own state is asked for")


NO_TRANSACTION = frozenset(
    {Verb.BEGIN, Verb.COMMIT, Verb.ROLLBACK, Verb.COMMIT_PREPARED, Verb.ROLLBACK_PREPARED}
)
"""What must not, or need not, find a transaction open: a raw BEGIN is the transaction."""


class Route:
    """One statement on its way: what it is, where it goes, and what it found there."""

    __slots__ = ("connection", "context", "decision", "fresh", "held", "intent", "sql")

    def __init__(
        self,
        connection: "RoutedConnection",
        sql: str,
        intent: Intent,
        held: NodeConnection,
        decision: Decision,
        context: RoutingContext,
        fresh: bool,
    ) -> None:
        self.connection: RoutedConnection = connection
        self.sql: str = sql
        self.intent: Intent = intent
        self.held: NodeConnection = held
        self.decision: Decision = decision
        self.context: RoutingContext = context
        # Nothing of the surrounding transaction has been sent to this node before.
        self.fresh: bool = fresh

    def begin(self) -> None:
        """The statement is about to be sent."""
        connection = self.connection
        connection.router.telemetry.decisions.mine()[
            self.held.node.name, self.decision.reason
        ] += 1
        if self.decision.pins:
            connection.writing(self.context, self.intent)

    def done(self, parameters: Any = None) -> None:
        """The statement has returned."""
        intent = self.intent
        if intent.kind is Kind.READ:
            if not self.context.root:
                self.connection.router.read(self.context, self.held.node)
            return
        self.connection.ran(self, parameters)


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


class RoutedConnection(PoolProxiedConnection):
    """One checkout of a routed engine: at most one connection to the primary and one to a replica.

    Behaves as the pool's own proxy of a DBAPI connection does. Like that, it belongs to one
    thread or task at a time.
    """

    def __init__(self, pool: "RoutingPool") -> None:
        self.pool: RoutingPool = pool
        self.router: Router = pool.router
        self.primary: NodeConnection | None = None
        self.replica: NodeConnection | None = None
        self.last: NodeConnection | None = None
        self.autobegun: bool = False
        self.bound: bool = False
        self.declared_read_only: bool = False
        self.characteristics: Characteristics = DEFAULTS
        self.journal: Journal = Journal()
        # Those of a Session with a context of its own, in place of the current context's.
        self.pins: Pins | None = None
        self._record: CheckoutRecord | None = None
        self._writers: set[RoutingContext] = set()
        self._ddl = False
        self._open = True
        self._detached = False

    def __repr__(self) -> str:
        held = [h.node.name for h in (self.primary, self.replica) if h is not None]
        state = "" if self._open else " closed"
        return f"<RoutedConnection{state} holding {', '.join(held) or 'nothing'}>"

    # -- where statements go -------------------------------------------------------------------

    def route(
        self,
        sql: str | None,
        *,
        explicit: bool,
        force: str | None = None,
        stream: bool = False,
        intent: Intent | None = None,
        avoid: Collection[Node] = (),
    ) -> Route:
        """Choose the node for one statement and get a connection to it ready.

        Args:
            sql: the statement's text, None when it cannot be seen.
            explicit: the surrounding transaction was begun by the caller.
            force: "primary" or "replica" when the statement's options say so.
            stream: a server-side cursor is wanted, which lives in a transaction.
            intent: what the statement does, when that is known already.
            avoid: nodes that have failed this statement.

        Raises:
            sqlalchemy.exc.OperationalError: nowhere to run it; says which node and why.
            sqlalchemy.exc.InvalidRequestError: this checkout is closed.
        """
        self._must_be_open()
        router = self.router
        if not router.started:
            try:
                self.pool.start_router()
            except RouterError as error:
                raise translated(error) from error
        if intent is None:
            intent = UNKNOWN if sql is None else router.intent(sql)
        context = current_context()
        if self.pins is not None:
            context = RoutingContext(self.pins, force=context.force, pinning=context.pinning)
        isolation = self.characteristics.isolation or self.pool.default_isolation
        situation = self._situation(explicit, isolation)
        settled = None
        if self.replica is not None:
            settled = self._settled(intent, situation, force)
        if settled is not None:
            held, decision = settled
        else:
            try:
                decision = router.decide(intent, situation, force=force, context=context)
            except RouterError as error:
                raise translated(error) from error
            held, decision = self._hold(decision, avoid)
        fresh = not held.in_transaction
        transaction = isolation != "AUTOCOMMIT" and self._needs_transaction(
            intent, situation, decision, stream
        )
        session = intent.kind is Kind.SESSION and not intent.local
        if transaction or session or self.journal:
            try:
                self._prepare(held, transaction)
                if session:
                    held.note_settings(intent.settings)
            except self.pool.dbapi_errors as error:
                if decision.on_primary or not fresh or not held.lost(error):
                    raise
                # A pooled connection to a replica that has died meanwhile: take another node.
                self.drop(held)
                return self.route(
                    sql,
                    explicit=explicit,
                    force=force,
                    stream=stream,
                    intent=intent,
                    avoid=(*avoid, held.node),
                )
            except BaseException:
                held.broken = True  # interrupted half-way: nobody knows what is set on it
                raise
        elif fresh:
            held.autocommit(True)
        self.last = held
        return Route(self, sql or "", intent, held, decision, context, fresh)

    def _must_be_open(self) -> None:
        # A connection taken now would never be given back.
        if not self._open:
            raise exc.InvalidRequestError(
                "this connection was closed or invalidated: take another one from the engine"
            )

    def _situation(self, explicit: bool, isolation: str) -> Transaction:
        primary, replica = self.primary, self.replica
        if primary is not None and primary.in_transaction:
            return Transaction.ON_PRIMARY
        if self.bound:
            return Transaction.BOUND
        on_replica = replica is not None and replica.in_transaction
        if self.declared_read_only:
            return Transaction.READ_ONLY
        if isolation == "AUTOCOMMIT":
            return Transaction.ON_REPLICA if on_replica else Transaction.NONE
        if isolation == "SERIALIZABLE":
            return Transaction.EXPLICIT
        if self.characteristics.read_only:
            return Transaction.READ_ONLY
        if isolation == "REPEATABLE READ":
            return Transaction.EXPLICIT
        if on_replica:
            return Transaction.ON_REPLICA
        return Transaction.EXPLICIT if explicit else Transaction.NONE

    def _settled(
        self, intent: Intent, situation: Transaction, force: str | None
    ) -> tuple[NodeConnection, Decision] | None:
        """The connection an open transaction on a replica leaves no choice about."""
        replica = self.replica
        if replica is None or not replica.in_transaction or force == "primary":
            return None
        if situation is Transaction.READ_ONLY:
            return replica, Decision((replica.node,), Reason.READ_ONLY, False)
        if situation is Transaction.ON_REPLICA and (
            intent.kind in (Kind.READ, Kind.SESSION) or intent.verb in (Verb.COMMIT, Verb.ROLLBACK)
        ):
            return replica, Decision((replica.node,), Reason.HELD, False)
        return None

    def _needs_transaction(
        self, intent: Intent, situation: Transaction, decision: Decision, stream: bool
    ) -> bool:
        none = situation is Transaction.NONE or situation is Transaction.BOUND
        if situation is Transaction.ON_PRIMARY:
            none = not decision.on_primary  # a read sent elsewhere on purpose
        elif situation is Transaction.EXPLICIT:
            none = self.router.policy.lazy_transactions
        if not none:
            return intent.verb not in NO_TRANSACTION
        if intent.kind is Kind.READ:
            return (
                stream
                or intent.needs_transaction
                or self.journal.in_transaction
                or self.router.config.reads_in_transaction
            )
        return intent.verb not in NO_TRANSACTION

    def _hold(
        self, decision: Decision, avoid: Collection[Node]
    ) -> tuple[NodeConnection, Decision]:
        """A connection to one of the decision's nodes; tries each until one can be reached."""
        router = self.router
        if decision.on_primary:
            return self._hold_primary(decision.nodes[0]), decision
        held = self.replica
        nodes = decision.nodes
        if avoid:
            nodes = tuple(n for n in nodes if n not in avoid)
        failure: BaseException | None = None
        while nodes:
            node = router.pick(nodes, held.node if held is not None else None)
            if held is not None:
                if held.node is node and not held.broken:
                    return held, decision
                held.release(self.journal)
                held = self.replica = None
            try:
                held = self._take(node)
            except NoReplicaAvailable as error:
                failure = translated(error)
                nodes = tuple(n for n in nodes if n is not node)
                continue
            except self.pool.dbapi_errors as error:
                failure = error
                router.failed(node, self.pool.reason(error))
                nodes = tuple(n for n in nodes if n is not node)
                continue
            if router.primary is not node and node not in router.snapshot.replicas:
                # The probe every new connection makes found it changed under us.
                held.release(self.journal)
                held = None
                nodes = tuple(n for n in nodes if n is not node)
                continue
            self.replica = held
            return held, decision
        primary = router.primary
        if router.policy.fallback and primary is not None and primary not in avoid:
            decision = Decision((primary,), Reason.NO_REPLICA, True)
            return self._hold_primary(primary), decision
        if failure is not None:
            raise failure
        raise translated(NoReplicaAvailable(f"no node is left to run it: {why_not(router.view)}"))

    def _hold_primary(self, node: Node) -> NodeConnection:
        held = self.primary
        if held is not None and not held.broken:
            if held.node is node or held.in_transaction or self.bound:
                return held
            held.release(self.journal)
        router = self.router
        self.primary = None
        try:
            held = self._take(node)
        except self.pool.dbapi_errors as error:
            reason = self.pool.reason(error)
            router.failed(node, reason)
            raise translated(
                PrimaryUnavailable(
                    f"{node} cannot be reached: {reason}. Start it, or correct its address in url"
                )
            ) from error
        if router.primary is not node:
            held.release(self.journal)
            raise translated(PrimaryUnavailable(f"{node} is not the primary any more: try again"))
        self.primary = held
        return held

    def _take(self, node: Node) -> NodeConnection:
        pool = self.pool
        try:
            fairy = pool.take(node)
        except exc.TimeoutError as error:
            raise PoolTimeout(f"{node}: {error}. {pool.cure()}") from error
        return NodeConnection(pool, node, fairy)

    def _prepare(self, held: NodeConnection, transaction: bool) -> None:
        """Bring `held` into the state the statement expects: transaction, settings, journal."""
        if not held.in_transaction:
            journal = self.journal
            if journal and len(held.applied) < len(journal.entries):
                held.autocommit(True)
                held.replay(journal.committed())
            if transaction:
                if held.characteristics != self.characteristics:
                    held.characterise(self.characteristics)
                held.autocommit(False)
                held.in_transaction = True
            else:
                held.autocommit(True)
        if self.journal and len(held.applied) < len(self.journal.entries):
            held.replay(self.journal.entries)

    # -- what statements did -------------------------------------------------------------------

    def writing(self, context: RoutingContext, intent: Intent) -> None:
        """A write is about to be sent: pin first, so that no read slips between."""
        self.router.wrote(context, done=False)
        self._writers.add(context)
        if intent.ddl:
            self._ddl = True
            self.router.ddl()

    def ran(self, route: Route, parameters: Any) -> None:
        """A statement other than a read has returned: take over what it changed."""
        intent, held = route.intent, route.held
        if intent.binds and route.decision.on_primary:
            self.bound = True
        kind = intent.kind
        if kind is Kind.SESSION:
            transactional = held.in_transaction
            if transactional or not intent.local:
                entry = Entry(route.sql, parameters, intent.local, intent.settings)
                held.applied.append(self.journal.add(entry, transactional=transactional))
        elif kind is Kind.TRANSACTION:
            self._controlled(intent, held, route.sql)
        if not held.in_transaction and kind is Kind.WRITE:
            self._written()
            self._ask_position()

    def _controlled(self, intent: Intent, held: NodeConnection, sql: str) -> None:
        verb = intent.verb
        if verb in (Verb.BEGIN, Verb.SET) and intent.read_only:
            self.declared_read_only = True
        elif verb is Verb.SAVEPOINT:
            self.journal.savepoint(_savepoint_name(sql))
        elif verb is Verb.RELEASE:
            self.journal.release(_savepoint_name(sql))
        elif verb is Verb.ROLLBACK_TO:
            self.journal.rollback_to(_savepoint_name(sql))
            del held.applied[len(self.journal.entries) :]
        held.in_transaction = self.pool.driver.in_transaction(held.dbapi)
        if not held.in_transaction:
            held.dbapi.rollback()  # for drivers that still believe in the one they began
        if verb in (Verb.COMMIT, Verb.COMMIT_PREPARED, Verb.PREPARE):
            self.commit()
        elif verb is Verb.ROLLBACK:
            self.rollback()

    def _written(self) -> None:
        """What was written is committed, or may be: pin to after this moment."""
        for context in self._writers:
            self.router.wrote(context, done=True)
        self._writers.clear()
        if self._ddl:
            self._ddl = False
            self.router.ddl()

    def _ask_position(self) -> None:
        """With ``pin_lsn="commit"``: learn where the commit stands, over its own connection."""
        primary = self.primary
        if primary is None or not self.router.asks_position:
            return
        try:
            primary.autocommit(True)
            self.pool.probe(primary.node, primary.dbapi)
        except self.pool.dbapi_errors as error:
            # The write is done: its pin waits for the monitor instead.
            primary.lost(error)
        except BaseException:
            primary.broken = True
            raise

    def is_read_only(self) -> bool:
        """Whether the open transaction was declared read-only."""
        return bool(self.declared_read_only or self.characteristics.read_only)

    # -- the DBAPI connection's own methods ----------------------------------------------------

    def commit(self) -> None:
        """Commit on the primary; end what is open on the replica.

        Raises:
            sqlalchemy.exc.InvalidRequestError: this checkout is closed; that rolled back.
        """
        self._must_be_open()
        wrote = bool(self._writers)
        try:
            if (primary := self.primary) is not None and primary.in_transaction:
                try:
                    self.pool.driver.end(primary.dbapi, "commit")
                except self.pool.dbapi_errors as error:
                    if not primary.lost(error):
                        raise
                    self.drop(primary)
                    raise translated(
                        CommitUnknown(
                            f"{primary.node}: the connection broke during COMMIT, so the "
                            "transaction may have been committed or not: look before you repeat "
                            f"it ({self.pool.reason(error)})"
                        )
                    ) from error
                except BaseException:
                    primary.broken = True
                    raise
                finally:
                    primary.in_transaction = False
                    # Also when it raised: the server may have committed all the same.
                    self._written()
            self._end_replica("commit")
            if wrote:
                self._ask_position()
        except BaseException:
            self.journal.rollback()
            raise
        else:
            self.journal.commit()
        finally:
            self._ended()

    def rollback(self) -> None:
        """Roll back whatever is open."""
        try:
            if (primary := self.primary) is not None and primary.in_transaction:
                try:
                    self.pool.driver.end(primary.dbapi, "rollback")
                except BaseException:
                    primary.broken = True
                    raise
                finally:
                    primary.in_transaction = False
                    # The pin stays, which is safe; asking for a position now lets it end soon.
                    self._written()
            self._end_replica("rollback")
        finally:
            self.journal.rollback()
            self._ended()

    def _end_replica(self, how: Literal["commit", "rollback"]) -> None:
        replica = self.replica
        if replica is None or not replica.in_transaction:
            return
        replica.in_transaction = False
        try:
            self.pool.driver.end(replica.dbapi, how)
        except self.pool.dbapi_errors as error:
            # Nothing was written there: its loss must not fail the caller's transaction.
            replica.broken = True
            self.router.failed(replica.node, self.pool.reason(error))
        except BaseException:
            replica.broken = True
            raise

    def _ended(self) -> None:
        self.autobegun = False
        self.declared_read_only = False
        entries = self.journal.entries
        for held in (self.primary, self.replica):
            if held is not None and held.applied:
                held.applied = [e for e in held.applied if e in entries]

    def cursor(self, *args: Any, **kwargs: Any) -> DBAPICursor:
        """A cursor that is routed statement by statement."""
        return RoutedCursor(self, args, kwargs)  # type: ignore[return-value]

    def bind_primary(self) -> NodeConnection:
        """Tie this checkout to a connection to the primary, since what is done with it next
        cannot be seen."""
        route = self.route(None, explicit=True, intent=BOUND)
        route.decision = route.decision._replace(reason=Reason.BOUND)
        route.begin()
        self.bound = True
        return route.held

    @property
    def dbapi_connection(self) -> Any:  # type: ignore[override]
        """A DBAPI connection whose cursors are routed; anything else binds it to the primary."""
        return self._connection_record.dbapi_connection if self._open else None

    @property
    def driver_connection(self) -> Any:  # type: ignore[override]
        """The driver's own connection to the primary. The checkout stays on it from now on."""
        if not self._open:
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
        return self._open

    @property
    def is_detached(self) -> bool:
        """Whether `detach` was called."""
        return self._detached

    def detach(self) -> None:
        """Take the primary's connection out of its pool; this checkout stays on it."""
        held = self.bind_primary()
        if (replica := self.replica) is not None:
            replica.release(self.journal)
            self.replica = None
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
        self._finish()

    def close(self) -> None:
        """Give every connection back to its pool."""
        self._close_special()

    def _close_special(self, transaction_reset: bool = False) -> None:
        """Close, as SQLAlchemy's Connection does it.

        Args:
            transaction_reset: commit or rollback was called just before.
        """
        if not self._open:
            return
        try:
            if not transaction_reset:
                self._reset()
            if self._record is not None:
                for callback in list(self._record.finalize_callback):
                    callback(self.dbapi_connection)
                self._record.finalize_callback.clear()
        finally:
            primary, replica = self.primary, self.replica
            self._finish()
            try:
                if replica is not None:
                    replica.release(self.journal)
            finally:
                if primary is not None:
                    primary.release(self.journal)
                if self._writers or self._ddl:
                    self._written()  # closed with a transaction open: rolled back, or lost

    def _reset(self) -> None:
        """What the pool's ``reset_on_return`` says, once for all connections held."""
        style = self.pool._reset_on_return
        try:
            if style is ResetStyle.reset_rollback:
                self.pool.dialect.do_rollback(self)
            elif style is ResetStyle.reset_commit:
                self.pool.dialect.do_commit(self)
        except self.pool.dbapi_errors as error:
            for held in (self.primary, self.replica):
                if held is not None and held.lost(error):
                    held.broken = True

    def _finish(self) -> None:
        self._open = False
        self.primary = self.replica = self.last = None

    def drop(self, held: NodeConnection) -> None:
        """Give back one of the connections held before the checkout ends."""
        if held is self.primary:
            self.primary = None
        elif held is self.replica:
            self.replica = None
        held.release(self.journal)

    # -- characteristics -----------------------------------------------------------------------

    @property
    def isolation(self) -> str:
        """The isolation level statements of this checkout run at."""
        return self.characteristics.isolation or self.pool.default_isolation

    def characterise(self, **changed: Any) -> None:
        """Remember settings from ``execution_options``; a node gets them when it is taken."""
        self.characteristics = self.characteristics._replace(**changed)

    def introduce(self) -> None:
        """Let the dialect meet a server, a replica if there is one, and stay there for reads."""
        try:
            route = self.route(None, explicit=False, intent=PEEK)
        except BaseException:
            self._close_special(transaction_reset=True)
            raise
        if route.fresh:
            route.held.in_transaction = False  # nothing was sent
        self.last = None

    def peek(self, ask: Callable[[Any], Any]) -> Any:
        """`ask(real_connection)` with this checkout's settings in force, leaving no trace."""
        route = self.route(None, explicit=False, intent=PEEK)
        held = route.held
        if not route.fresh:
            return ask(held.dbapi)
        held.in_transaction = False  # nothing was sent: the transaction made ready is not begun
        if held.characteristics != self.characteristics:
            held.characterise(self.characteristics)
        held.autocommit(self.isolation == "AUTOCOMMIT")
        return ask(held.dbapi)


def _savepoint_name(sql: str) -> str:
    return sql.rstrip().rstrip(";").split()[-1].strip('"')
