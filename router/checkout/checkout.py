"""One checkout: it takes a node's connection when a statement needs one, and knows where it goes.

What SQLAlchemy, Django and the drivers' own pools have in common. It is written as if every
driver were blocking; an asynchronous adapter runs it in a greenlet.
"""

import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, Protocol, TypeVar

from router import registry
from router.checkout.node_connection import DEFAULTS, Characteristics, Life, NodeConnection
from router.errors import (
    CommitUnknown,
    NoReplicaAvailable,
    PrimaryUnavailable,
    RouterError,
    SessionRefused,
    TransactionLost,
)
from router.model import Node
from router.rules.blacklist import is_full
from router.rules.context import Pins, RoutingContext, current_context
from router.rules.decide import Decision, Reason, Transaction, acts_on_replica, why_not
from router.rules.journal import Entry, Journal
from router.rules.pgbouncer import advice, needs_session
from router.sql.intent import Intent, Kind, OnStandby, Verb

if TYPE_CHECKING:
    from router.cluster.router import Router

READ, WRITE, SESSION, NO_REPLICA = Kind.READ, Kind.WRITE, Kind.SESSION, Reason.NO_REPLICA
"""By names of their own: in Python 3.11 a member is slow to reach through its enumeration."""
_NOTHING: Iterator[int] = iter(())
UNKNOWN = Intent(Kind.WRITE, "not a statement the router can see", on_standby=OnStandby.UNSEEN)
BOUND = Intent(
    Kind.WRITE,
    "the driver connection was handed out",
    binds=True,
    on_standby=OnStandby.REFUSED,  # by itself it runs nothing
)
NO_TRANSACTION = frozenset(
    {Verb.BEGIN, Verb.COMMIT, Verb.ROLLBACK, Verb.COMMIT_PREPARED, Verb.ROLLBACK_PREPARED}
)
"""What must not, or need not, find a transaction open: a raw BEGIN is the transaction."""
LOGIN = frozenset({"28", "3D"})
"""Classes of SQLSTATEs by which a server refuses a login: who it is, and to which database.

Source: https://www.postgresql.org/docs/current/errcodes-appendix.html
"""
NOT_ON_REPLICA = frozenset({OnStandby.ACTS, OnStandby.UNSEEN})
"""What must not follow in a read-only transaction that is open on a replica."""
WITHOUT_TRANSACTION = ("AUTOCOMMIT", "READ COMMITTED")
"""Isolation levels under which a read is a snapshot of its own."""


SESSION_LOST = "with it what only its session had: give this connection back, and take another"
"""What is said where a checkout was bound to the connection that was lost."""

H = TypeVar("H", bound=NodeConnection)


class ConnectionSource(Protocol[H]):
    """The adapter's pools of connections, one for each node, as a checkout sees them."""

    @property
    def router(self) -> "Router":
        """Decides."""
        ...

    @property
    def driver_errors(self) -> tuple[type[Exception], ...]:
        """What the driver raises."""
        ...

    @property
    def default_isolation(self) -> str:
        """The isolation level of a connection on which none was set."""
        ...

    def start_router(self) -> None:
        """Start the Router; see `router.cluster.router.Router.start`."""
        ...

    def hold(self, node: Node) -> H:
        """A connection to `node`, taken from its pool."""
        ...

    def idle(self, node: Node) -> H | None:
        """As `hold`, of connections that are open and not in use; never opens one, nor waits."""
        ...

    def probe(self, held: H) -> None:
        """Probe a node over a connection held, and tell the Router; raises as the driver."""
        ...

    def reason(self, error: BaseException) -> str:
        """The error as one line for people: SQLSTATE and message, without secrets."""
        ...

    def sqlstate(self, error: BaseException) -> str:
        """The five-character code of an error, empty when the server sent none."""
        ...

    def translated(self, error: RouterError) -> Exception:
        """An error of the core's as the adapter's users expect it."""
        ...


class Asked(NamedTuple):
    """What a caller said of a statement, beside its text: a retry must not forget it.

    Attributes:
        explicit: the caller began the surrounding transaction.
        force: "primary", "replica" or "session", as the statement's options name it.
        stream: a server-side cursor is wanted.
    """

    explicit: bool = False
    force: str | None = None
    stream: bool = False


ALONE = Asked()


class Route(Generic[H]):
    """One statement on its way: what it is, where it goes, and what it found there."""

    __slots__ = ("asked", "checkout", "context", "decision", "fresh", "held", "intent", "sql")

    def __init__(
        self,
        checkout: "Checkout[H]",
        sql: str,
        intent: Intent,
        held: H,
        decision: Decision,
        context: RoutingContext,
        fresh: bool,
        asked: Asked = ALONE,
    ) -> None:
        self.checkout: Checkout[H] = checkout
        self.sql: str = sql
        self.intent: Intent = intent
        self.held: H = held
        self.decision: Decision = decision
        self.context: RoutingContext = context
        # Nothing of the surrounding transaction has been sent to this node before.
        self.fresh: bool = fresh
        self.asked: Asked = asked

    def comment(self) -> str:
        """Where the statement goes and why, for the option ``sql_comment``.

        Source: https://google.github.io/sqlcommenter/spec/
        """
        node = re.sub(r"[^\w.-]", "_", self.held.node.name)
        return f" /*router_node='{node}',router_reason='{self.decision.reason.name.lower()}'*/"

    def begin(self) -> None:
        """The statement is about to be sent."""
        checkout, decision = self.checkout, self.decision
        next(checkout.router.decisions[self.held.node.name, decision.reason])
        if decision.pins:
            checkout.writing(self.context, self.intent)

    def failed(self) -> None:
        """The statement has raised, here and wherever else it was tried."""
        checkout, held, intent = self.checkout, self.held, self.intent
        if intent.kind is Kind.TRANSACTION and held.in_transaction and not held.broken:
            # A COMMIT that a deferred constraint refused has ended its transaction all the same.
            with suppress(*checkout.pool.driver_errors):
                held.in_transaction = held.look()
        if not held.in_transaction:
            # A procedure may have committed before it raised.
            checkout.written()

    def done(self, parameters: Any = None) -> None:
        """The statement has returned."""
        intent = self.intent
        if intent.kind is READ:
            if not self.context.root:
                self.checkout.router.read(self.context, self.held.node)
            return
        self.checkout.ran(self, parameters)


class Checkout(Generic[H]):
    """At most one connection to the primary and one to a replica, and where statements go.

    It belongs to one thread or task at a time.
    """

    def __init__(self, pool: ConnectionSource[H]) -> None:
        """Prepare; no connection is taken before a statement needs one.

        Args:
            pool: where connections come from.
        """
        self.pool: ConnectionSource[H] = pool
        self.router: Router = pool.router
        self.open: bool = True
        self.primary: H | None = None
        self.replica: H | None = None
        self.last: H | None = None
        # The primary's timeline when its connection was taken, 0 when unknown.
        self.timeline: int = 0
        self.autobegun: bool = False
        # What a cursor that is routed by itself says of its transaction.
        self.explicit: bool = False
        self.bound: bool = False
        # Whether the primary's connection leads past a PgBouncer that shares its sessions.
        self.dedicated: bool = False
        self.declared_read_only: bool = False
        self.characteristics: Characteristics = DEFAULTS
        self.journal: Journal = Journal()
        # Those of a Session with a context of its own, in place of the current context's.
        self.pins: Pins | None = None
        self._writers: set[RoutingContext] = set()
        self._sent = 0.0  # when the last statement that writes, or its COMMIT, was sent
        self._ddl = False
        # The decision `inside` came to last, and what counts its like.
        self._within: Decision | None = None
        self._counted: Iterator[int] = _NOTHING
        # Whether something was open on it when this process was forked.
        self._forked = False
        registry.renew(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}{self.state()}>"

    def state(self) -> str:
        """What it holds, for people."""
        held = [h.node.name for h in (self.primary, self.replica) if h is not None]
        return f"{'' if self.open else ' closed'} holding {', '.join(held) or 'nothing'}"

    def closed_error(self) -> Exception:
        """What a statement gets after the checkout has ended."""
        return RuntimeError("this connection was given back: take another one")

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
    ) -> Route[H]:
        """Choose the node for one statement and get a connection to it ready.

        Args:
            sql: the statement's text, None when it cannot be seen.
            explicit: the surrounding transaction was begun by the caller.
            force: "primary", "replica" or "session" when the statement's options say so; the
                last is the primary, past a PgBouncer that shares its sessions.
            stream: a server-side cursor is wanted, which lives in a transaction.
            intent: what the statement does, when that is known already.
            avoid: nodes that have failed this statement.

        Raises:
            RouterError: nowhere to run it, says which node and why; as the adapter has it.
            Exception: this checkout is closed; as `closed_error` has it.
        """
        if not self.open:
            self._must_be_open()
        asked = Asked(explicit, force, stream) if explicit or force or stream else ALONE
        router = self.router
        if not router.started:
            try:
                self.pool.start_router()
            except RouterError as error:
                raise self.pool.translated(error) from error
        if intent is None:
            classifier = router.classifier
            intent = UNKNOWN if sql is None else classifier.known.get(sql) or classifier(sql)
        wanted = force == "session"
        if router.pooled and not self.dedicated and (wanted or needs_session(intent)):
            self._use_session_url(intent, force)
        if wanted:
            force = None if self.dedicated else "primary"
        context = current_context()
        if self.pins is not None:
            context = RoutingContext(self.pins, force=context.force, pinning=context.pinning)
        if force is None and not avoid:
            alone = not explicit and not stream
            at_once = self._at_once(sql or "", intent, context, alone, True)
            if at_once is not None:
                return at_once
        isolation = self.characteristics.isolation or self.pool.default_isolation
        situation = self._situation(explicit, isolation)
        settled, away = None, None
        if self.replica is not None:
            settled = self._settled(intent, situation, force)
            if settled is not None and intent.kind is READ:
                forced = force or context.force
                node, held_read = settled[0].node, settled[1].reason is Reason.HELD
                if node.name in router.view.snapshot.strays:
                    if held_read:
                        away = NO_REPLICA
                    else:
                        self.must_follow(node)
                elif held_read and not forced and router.behind(node, context):
                    away = Reason.PIN_PRIMARY
        if settled is not None and away is None:
            held, decision = settled
            held.fresh = False
        else:
            try:
                decision = self._decide(intent, situation, "primary" if away else force, context)
            except RouterError as error:
                if self.primary is not None and self._superseded(self.primary):
                    self.must_not_go_on(self.primary)
                raise self.pool.translated(error) from error
            if away is not None:
                decision = decision._replace(reason=away)
            held, decision = self._hold(decision, avoid, context)
        fresh = not held.in_transaction
        transaction = isolation != "AUTOCOMMIT" and self._needs_transaction(
            intent, situation, decision, stream
        )
        session = intent.kind is SESSION and not intent.local
        if transaction and router.pooled and not self.dedicated:
            self._must_span(held.node)
        read_only = self.characteristics.read_only or held.characteristics.read_only
        if transaction or session or self.journal or read_only:
            try:
                self._prepare(held, transaction)
                if session:
                    held.note_settings(intent.settings)
            except self.pool.driver_errors as error:
                lost = held.report_failure(error)
                if not lost or not fresh or self.bound or held.node in avoid:
                    raise
                if decision.reason is NO_REPLICA:
                    raise  # the primary was the last node left
                # A pooled connection that has died meanwhile, and nothing of the statement was
                # sent: another replica may run it, or the primary on a fresh connection.
                self.drop(held)
                return self.route(sql, **asked._asdict(), intent=intent, avoid=(*avoid, held.node))
            except BaseException:
                held.broken = True  # interrupted half-way: nobody knows what is set on it
                raise
        elif fresh:
            held.autocommit(True)
        self.last = held
        return Route(self, sql or "", intent, held, decision, context, fresh, asked)

    def _decide(
        self, intent: Intent, situation: Transaction, force: str | None, context: RoutingContext
    ) -> Decision:
        """What the rules say; a primary that probes call down is tried before it is refused."""
        router = self.router
        try:
            return router.decide(intent, situation, force=force, context=context)
        except PrimaryUnavailable:
            if not self._vouched():
                raise
        return router.decide(intent, situation, force=force, context=context)

    def _vouched(self) -> bool:
        """Whether the primary, which answers no probe, answers over a connection that is open;
        that one is then held.

        The connections that serve are the best probe: the monitor's own may be slow to open, or
        be let in no more. None is opened here. A server that is silent makes its caller wait for
        ``probe_timeout``, and is then down for all others for a while: see `Router.may_try`.
        """
        router, held = self.router, self.primary
        node = router.primary
        if node is None or router.snapshot.doubted(node.name) is None:
            return False
        if held is not None and (held.broken or held.node is not node):
            return False  # what is open there has to be ended first
        if not router.may_try(node):
            return False
        while True:
            if held is None and (held := self.pool.idle(node)) is None:
                router.silent(node, tried=False)
                return False
            try:
                life = held.answers(router.config.probe_timeout)
            except BaseException:
                if held is not self.primary:
                    held.release(self.journal)
                raise
            if life is Life.ANSWERS:
                router.vouch(node)
            elif life is Life.SILENT:
                router.silent(node, tried=True)
            if held is not self.primary:
                if life is Life.ANSWERS and not held.broken and self.primary is None:
                    self.primary, self.timeline = held, router.view.timeline
                else:
                    held.release(self.journal)
            elif held.broken and (held.in_transaction or self.bound):
                return False
            elif held.broken:
                self.drop(held)
            if life is not Life.ENDED:
                return life is Life.ANSWERS
            held = None

    def fast_read_on_primary(self, sql: str) -> RoutingContext | None:
        """Whether `sql` is one more read in the transaction open on the primary, which is counted.

        The shortest way there is, for what a transaction mostly consists of: nothing is prepared
        or pinned before it, and nothing of it runs again. It is to be run on `primary`; see
        `router.checkout.retry.failed_fast_read` and `Router.read` for what follows.

        Returns:
            whose read it is; None where the rules have to look.
        """
        primary, router = self.primary, self.router
        if (
            primary is None
            or not primary.in_transaction
            or primary.broken
            or router.instrumented
            or router.pooled
            or self.pins is not None
            or self.journal.entries
        ):
            return None
        decision, context = router.view.any_within, current_context()
        if decision is None or decision.nodes[0] is not primary.node or context.force:
            return None
        classifier = router.classifier
        intent = classifier.known.get(sql) or classifier(sql)
        if intent.kind is not READ:
            return None
        if decision is not self._within:
            if router.view.timeline != self.timeline:
                return None
            self._within = decision
            self._counted = router.decisions[primary.node.name, decision.reason]
        next(self._counted)
        self.last = primary
        return context

    def route_without_waiting(self, sql: str) -> Route[H] | None:
        """As `route`, where nothing has to be prepared that an event loop would wait for.

        Returns:
            None where `route` has to look.
        """
        router = self.router
        if not self.open or not router.started or self.pins is not None:
            return None
        replica = self.replica
        if replica is not None and not replica.in_autocommit:
            return None
        intent = router.classifier(sql)
        if router.pooled and needs_session(intent):
            return None
        return self._at_once(sql, intent, current_context(), not self.explicit, False)

    def _at_once(
        self, sql: str, intent: Intent, context: RoutingContext, alone: bool, take: bool
    ) -> Route[H] | None:
        """The route of what most statements are: one more in the transaction open on the primary
        (row 2 of the rules), or a read by itself (row 7).

        Args:
            sql: the statement's text.
            intent: what it does.
            context: the request's.
            alone: it may be a transaction of its own.
            take: it may wait for a connection; else it takes what is at hand.

        Returns:
            None where all of the rules have to be asked.
        """
        if self.journal.entries or context.force:
            return None
        view, kind, primary = self.router.view, intent.kind, self.primary
        decision: Decision | None
        if primary is not None and primary.in_transaction:
            if kind is READ:
                decision = view.any_within
            elif kind is WRITE:
                decision = view.write_within
            else:
                return None
            if (
                decision is None
                or decision.nodes[0] is not primary.node
                or view.timeline != self.timeline
                or primary.broken
            ):
                return None
            self.last = primary
            primary.fresh = False
            return Route(self, sql, intent, primary, decision, context, False)
        # Row 7, where nothing is pinned, set, bound or declared: any replica, or the one held.
        decision = view.any_read
        if (
            not alone
            or kind is not READ
            or decision is None
            or intent.needs_transaction
            or self.bound
            or self.declared_read_only
            or not self.router.reads_alone
        ):
            return None
        isolation, read_only, _ = self.characteristics
        if read_only or (isolation or self.pool.default_isolation) not in WITHOUT_TRANSACTION:
            return None
        pins, held = context.pins, self.replica
        if pins.by_cluster or pins.arrived:
            return None
        if held is not None and (
            held.broken or held.in_transaction or held.node not in decision.nodes
        ):
            return None
        if pins.reads and (last := pins.reads.get(self.router.cluster)) is not None:
            report = view.snapshot.reports.get(last.node.name)
            if held is None or last.node is not held.node:
                return None
            if report is None or report.since > last.at:
                return None
        if held is not None:
            held.fresh = False
        elif take:
            held, decision = self._hold(decision, (), context)
        elif not view.outdated and (held := self.idle_connection(decision)) is not None:
            self.replica = held
        else:
            return None
        fresh = not held.in_transaction
        if fresh:
            held.autocommit(True)
        self.last = held
        return Route(self, sql, intent, held, decision, context, fresh)

    def idle_connection(self, decision: Decision) -> H | None:
        """A connection to one of the decision's nodes, where there is nothing to wait for.

        An adapter that can tell says so by a method of its own.
        """
        return None

    def _use_session_url(self, intent: Intent, force: str | None) -> None:
        """Have a session of one's own, past PgBouncer, for what it would leave in another's.

        Raises:
            RouterError: there is none to be had; as the adapter has it.
        """
        router = self.router
        primary = router.primary
        wanted = force == "session"
        # What stays in one session runs on the primary; settings are for any node.
        anywhere = intent.kind is SESSION and not wanted
        if primary is not None and not router.shares_sessions(primary) and not anywhere:
            return
        replica = self.replica
        on_replica = force or current_context().force
        if primary is None or on_replica == "replica" or (replica and replica.in_transaction):
            raise self.pool.translated(SessionRefused(advice(intent)))
        if self.primary is not None and self.primary.in_transaction:
            late = "; or make it the first statement of its transaction"
            told = late if router.config.session_url is not None else ""
            raise self.pool.translated(SessionRefused(advice(intent) + told))
        held = self.session(primary)
        if held is None:
            raise self.pool.translated(SessionRefused(advice(intent)))
        if self.primary is not None:
            self.drop(self.primary)
        self.primary, self.timeline = held, router.view.timeline
        self.dedicated = self.bound = True

    def session(self, node: Node) -> H | None:
        """A connection to `node`, the primary, by `session_url`; None where there is no such URL.

        An adapter that knows how to connect there says so by a method of its own.
        """
        return None

    def _must_span(self, node: Node) -> None:
        """Refuse a transaction where PgBouncer gives each statement a server session."""
        server = self.router.servers.get(node)
        if server is not None and self.router.config.pooling(server) == "statement":
            raise self.pool.translated(
                SessionRefused(
                    f"{node}: PgBouncer pools by statement there and refuses transactions: set "
                    'isolation_level="AUTOCOMMIT", or let it pool by transaction'
                )
            )

    def _must_be_open(self) -> None:
        # A connection taken now would never be given back.
        if self._forked:
            raise self.pool.translated(
                TransactionLost(
                    "what is open on this connection belongs to the process that this one was "
                    "forked from: take another connection, and begin anew"
                )
            )
        if not self.open:
            raise self.closed_error()

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
            return Transaction.ISOLATED
        if self.characteristics.read_only:
            return Transaction.READ_ONLY
        if isolation == "REPEATABLE READ":
            return Transaction.ISOLATED
        if on_replica:
            return Transaction.ON_REPLICA
        return Transaction.EXPLICIT if explicit else Transaction.NONE

    def _settled(
        self, intent: Intent, situation: Transaction, force: str | None
    ) -> tuple[H, Decision] | None:
        """The connection an open transaction on a replica leaves no choice about."""
        replica = self.replica
        if replica is None or not replica.in_transaction or force == "primary":
            return None
        if situation is Transaction.READ_ONLY:
            self.must_not_act(intent)
            return replica, Decision((replica.node,), Reason.READ_ONLY, False)
        if situation is Transaction.ON_REPLICA and (
            intent.kind in (READ, SESSION) or intent.verb in (Verb.COMMIT, Verb.ROLLBACK)
        ):
            return replica, Decision((replica.node,), Reason.HELD, False)
        return None

    def must_not_act(self, intent: Intent) -> None:
        """Refuse what a replica would run in silence, in a read-only transaction open there.

        Raises:
            ReplicaWriteRefused: it is no read, and not known to be refused; as the adapter has it.
        """
        if intent.kind is WRITE and intent.on_standby in NOT_ON_REPLICA:
            raise self.pool.translated(acts_on_replica(intent))

    def must_follow(self, node: Node) -> None:
        """Refuse one more read in a read-only transaction on a replica that follows another server
        than the primary.

        Raises:
            TransactionLost: it does, lastingly; as the adapter has it.
        """
        stray = self.router.view.snapshot.strays.get(node.name)
        # A snapshot that was taken before shows nothing of what the other server has done since.
        if stray is None or not stray.lasting or self.isolation == "REPEATABLE READ":
            return
        raise self.pool.translated(
            TransactionLost(
                f"{node} does not follow the primary: {stray.why}: roll the read-only transaction "
                "back, and begin anew"
            )
        )

    def _needs_transaction(
        self, intent: Intent, situation: Transaction, decision: Decision, stream: bool
    ) -> bool:
        # Bound, this is as a plain connection: what its session or its driver was told of the
        # transactions to come, such as default_transaction_isolation, is not known here.
        none = situation is Transaction.NONE
        if situation is Transaction.ON_PRIMARY:
            none = not decision.on_primary  # a read sent elsewhere on purpose
        elif situation is Transaction.EXPLICIT:
            none = self.router.policy.lazy_transactions
        verb = intent.verb
        if not none:
            return verb is None or verb not in NO_TRANSACTION
        if intent.kind is READ:
            return (
                stream
                or intent.needs_transaction
                or self.journal.in_transaction
                or self.router.config.reads_in_transaction
            )
        return verb is None or verb not in NO_TRANSACTION

    def _hold(
        self, decision: Decision, avoid: Collection[Node], context: RoutingContext
    ) -> tuple[H, Decision]:
        """A connection to one of the decision's nodes; tries each until one can be reached."""
        if decision.on_primary and decision.reason is not NO_REPLICA:
            return self._hold_primary(decision.nodes[0]), decision
        router = self.router
        failure: BaseException | None = None
        if not decision.on_primary:
            held, failure = self._hold_replica(decision.nodes, avoid)
            if held is not None:
                return held, decision
        primary = router.primary
        if router.policy.fallback:
            if primary is not None and primary not in avoid:
                decision = Decision((primary,), Reason.NO_REPLICA, True)
                try:
                    return self._hold_primary(primary), decision
                except PrimaryUnavailable as error:
                    failure = error
            tried = (*avoid, *decision.nodes)
            nodes = tuple(n for n in router.last_resort(context) if n not in tried)
            held, _ = self._hold_replica(nodes, ())
            if held is not None:
                return held, Decision(nodes, Reason.LAST_RESORT, False)
        if failure is not None:
            raise failure
        raise self.pool.translated(
            NoReplicaAvailable(f"no node is left to run it: {why_not(router.view)}")
        )

    def _hold_replica(
        self, nodes: tuple[Node, ...], avoid: Collection[Node]
    ) -> tuple[H | None, BaseException | None]:
        """A connection to one of `nodes`, or None and why the last of them gave none."""
        router, held = self.router, self.replica
        if avoid:
            nodes = tuple(n for n in nodes if n not in avoid)
        failure: BaseException | None = None
        while nodes:
            if held is not None:
                held.fresh = False
                if held.node in nodes and not held.broken:
                    return held, None
                held.release(self.journal)
                held = self.replica = None
            node = nodes[0] if len(nodes) == 1 else router.balance(nodes)
            try:
                held = self.pool.hold(node)
            except NoReplicaAvailable as error:
                failure = self.pool.translated(error)
                nodes = tuple(n for n in nodes if n is not node)
                continue
            except RouterError:
                raise  # a pool's time-out may be a driver's error as well, and busy is not broken
            except self.pool.driver_errors as error:
                if not self._unreachable(error):
                    raise
                failure, reason = error, self.pool.reason(error)
                if not is_full(self.pool.sqlstate(error), reason):
                    router.failed(node, reason)
                nodes = tuple(n for n in nodes if n is not node)
                continue
            if self.replica is not None:
                # Another thread or task has used this checkout meanwhile, and took one too.
                held.release(self.journal)
                held = self.replica
                continue
            if router.view.outdated and not self._asked(held):
                held.release(self.journal)
                held = None
                nodes = tuple(n for n in nodes if n is not node)
                continue
            known = router.view.snapshot
            if node not in known.replicas and node is not known.primary:
                # The probe every new connection makes found it changed under us.
                held.release(self.journal)
                held = None
                nodes = tuple(n for n in nodes if n is not node)
                continue
            self.replica = held
            return held, None
        return None, failure

    def _asked(self, held: H) -> bool:
        """Have a node's own connection ask what the monitor cannot, who is not let in.

        Returns:
            whether it answered, or had not to be asked.
        """
        report = self.router.view.snapshot.reports.get(held.node.name)
        if report is None or not report.obstacle or held.in_transaction or held.busy:
            return True
        try:
            held.autocommit(True)
            self.pool.probe(held)
        except self.pool.driver_errors as error:
            held.broken = True
            held.report_failure(error)
            return False
        except BaseException:
            held.broken = True
            if held is not self.primary:
                held.release(self.journal)
            raise
        return True

    def _hold_primary(self, node: Node) -> H:
        held, router = self.primary, self.router
        if held is not None:
            self.must_not_go_on(held)
            held.fresh = False
            if not held.broken and (held.node is node or held.in_transaction or self.bound):
                if not router.view.outdated or self._asked(held):
                    self.timeline = self.timeline or router.view.timeline
                    return held
                self.must_not_go_on(held)
            self.drop(held)
        elif self.bound:
            raise self.pool.translated(
                TransactionLost(f"{node}: the connection was lost, and {SESSION_LOST}")
            )
        replica = self.replica
        if (
            replica is not None
            and not replica.in_transaction
            and (replica.broken or not replica.busy)
        ):
            # Nobody waits for the primary's pool with a replica's connection in hand: those who
            # wait for that one might hold the primary's, and all would wait for each other.
            self.drop(replica)
        try:
            held = self.pool.hold(node)
        except RouterError:
            raise
        except self.pool.driver_errors as error:
            if not self._unreachable(error):
                raise
            reason = self.pool.reason(error)
            cure = "Start it, or correct its address in url"
            if is_full(self.pool.sqlstate(error), reason):
                cure = "Make the pools smaller, or raise max_connections there"
            else:
                router.failed(node, reason)
            raise self.pool.translated(
                PrimaryUnavailable(f"{node} cannot be reached: {reason}. {cure}")
            ) from error
        if self.primary is not None:
            # Another thread or task has used this checkout meanwhile, and took one too.
            held.release(self.journal)
            return self._hold_primary(node)
        if router.view.outdated and not self._asked(held):
            held.release(self.journal)
            return self._hold_primary(node)  # which ends with a new connection, or none
        if router.primary is not node:
            held.release(self.journal)
            raise self.pool.translated(
                PrimaryUnavailable(f"{node} is not the primary any more: try again")
            )
        self.primary, self.timeline = held, router.view.timeline
        return held

    def _unreachable(self, error: BaseException) -> bool:
        """Whether `error` says that the server cannot be reached or lets nobody in; else it is of
        something the user has done with each new or taken connection."""
        state = self.pool.sqlstate(error)
        return not state or state[:2] in LOGIN or self.router.is_disconnect(state)

    def must_not_go_on(self, held: H) -> None:
        """Refuse to run the rest of a transaction by itself, or on a server that was replaced.

        Raises:
            TransactionLost: the first part went with a connection, or with a primary that is
                followed no more; as the adapter has it.
        """
        fenced = self._superseded(held)
        if fenced:
            # Closed, not given back: whoever had it next would write there again.
            held.broken = held.distrusted = True
        if not held.broken or not (held.in_transaction or self.bound):
            return
        lost = SESSION_LOST
        if held.in_transaction:
            lost = "nothing of the open transaction was committed: roll it back, and begin anew"
        why = "another server is the primary now" if fenced else "the connection was lost"
        raise self.pool.translated(TransactionLost(f"{held.node}: {why}, and {lost}"))

    def _superseded(self, held: H) -> bool:
        """Whether `held`, the primary's connection, leads to a server that was replaced."""
        return self.router.view.snapshot.superseded(held.node, self.timeline)

    def must_count(self, held: H) -> None:
        """Say that a commit which `held` has just acknowledged may have been for nothing.

        Raises:
            CommitUnknown: its server was replaced meanwhile; as the adapter has it.
        """
        if held is not self.primary or not self._superseded(held):
            return
        held.broken = held.distrusted = True
        raise self.pool.translated(
            CommitUnknown(
                f"{held.node}: another server became the primary while this was committed here, "
                "so the new one may have it or not: look before you repeat it"
            )
        )

    def _prepare(self, held: H, transaction: bool) -> None:
        """Bring `held` into the state the statement expects: transaction, settings, journal."""
        if not held.in_transaction:
            journal = self.journal
            if journal and len(held.applied) < len(journal.entries):
                held.autocommit(True)
                held.replay(journal.committed())
            if transaction:
                # First, for in autocommit psycopg2 makes them settings of the session.
                held.autocommit(False)
                if held.characteristics != self.characteristics:
                    held.characterise(self.characteristics)
                held.in_transaction = True
            else:
                held.autocommit(True)
                held.characterise_alone(self.characteristics)
        if self.journal and len(held.applied) < len(self.journal.entries):
            held.replay(self.journal.entries)

    # -- what statements did -------------------------------------------------------------------

    def writing(self, context: RoutingContext, intent: Intent) -> None:
        """A write is about to be sent: pin first, so that no read slips between."""
        self.router.wrote(context, done=False)
        self._sent = self.router.clock()
        self._writers.add(context)
        if intent.ddl:
            self._ddl = True
            self.router.ddl()

    def ran(self, route: Route[H], parameters: Any) -> None:
        """A statement other than a read has returned: take over what it changed."""
        intent, held = route.intent, route.held
        if intent.binds and route.decision.on_primary:
            self.bound = True
        elif intent.holds:
            # In a read-only transaction on a replica, which binds nobody: its pool's next user
            # must not find the prepared statement, or the isolation level a standby refuses.
            held.spoilt = True
        kind = intent.kind
        if kind is SESSION:
            transactional = held.in_transaction
            if transactional or not intent.local:
                entry = Entry(route.sql, parameters, intent.local, intent.settings)
                held.applied.append(self.journal.add(entry, transactional=transactional))
                if not transactional:
                    self._tidy()
        elif kind is Kind.TRANSACTION:
            self._controlled(intent, held, route.sql)
        if not held.in_transaction and intent.writes and not (self.bound and held.busy):
            self.router.heard(held.node)
            self.acknowledge()
            self.written()
            self.must_count(held)
            self.ask_position()

    def _controlled(self, intent: Intent, held: H, sql: str) -> None:
        verb = intent.verb
        if verb in (Verb.BEGIN, Verb.SET) and intent.read_only:
            self.declared_read_only = True
        elif verb is Verb.SAVEPOINT:
            self.journal.savepoint(_savepoint_name(sql))
        elif verb is Verb.RELEASE:
            self.journal.release(_savepoint_name(sql))
        elif verb is Verb.ROLLBACK_TO:
            self.journal.rollback_to(_savepoint_name(sql))
            replica = self.replica
            if replica not in (None, held) and len(replica.applied) > len(self.journal.entries):
                self.drop(replica)  # the savepoint, and so its end, is not known there
            del held.applied[len(self.journal.entries) :]
        held.in_transaction = held.look()
        if held.in_transaction and verb in (Verb.COMMIT, Verb.ROLLBACK):
            self._chained(verb)
            return
        if verb in (Verb.COMMIT, Verb.COMMIT_PREPARED, Verb.PREPARE):
            self.commit()
        elif verb is Verb.ROLLBACK:
            self.rollback()

    def _chained(self, verb: Verb) -> None:
        """After COMMIT AND CHAIN, or ROLLBACK: the next transaction is open already."""
        if verb is Verb.COMMIT:
            self.acknowledge()
            self.written()
            self.journal.commit()
        else:
            self.journal.rollback()
        self._forget()

    def acknowledge(self) -> None:
        """What was written is committed, and the primary has said so; `written` follows."""
        primary = self.primary
        if self._writers and not (primary is not None and self._superseded(primary)):
            self.router.acknowledged(self._sent)

    def written(self) -> None:
        """What was written is committed, or may be: pin to after this moment."""
        for context in self._writers:
            self.router.wrote(context, done=True)
        self._writers.clear()
        if self._ddl:
            self._ddl = False
            self.router.ddl()

    def ask_position(self) -> None:
        """With ``pin_lsn="commit"``: learn where the commit stands, over its own connection."""
        primary = self.primary
        if primary is None or not self.router.asks_position:
            return
        try:
            primary.autocommit(True)
            self.pool.probe(primary)
        except self.pool.driver_errors as error:
            # The write is done: its pin waits for the monitor instead.
            primary.report_failure(error)
        except BaseException:
            primary.broken = True
            raise

    def is_read_only(self) -> bool:
        """Whether the open transaction was declared read-only."""
        return bool(self.declared_read_only or self.characteristics.read_only)

    # -- the end of a transaction --------------------------------------------------------------

    def commit(self) -> None:
        """Commit on the primary; end what is open on the replica.

        Raises:
            Exception: this checkout is closed; that rolled back.
        """
        self._must_be_open()
        self._look_at_bound()
        wrote = bool(self._writers)
        if wrote and self.pins is None and (context := current_context()).pinning:
            self._writers.add(context)  # who commits is to see it too
        try:
            if (primary := self.primary) is not None and primary.in_transaction:
                try:
                    if not wrote and not primary.broken and self._superseded(primary):
                        # It has only read there: nothing is lost, and nothing more is sent.
                        primary.broken = primary.distrusted = True
                    else:
                        self.must_not_go_on(primary)
                        self._sent = self.router.clock()
                        primary.end("commit")
                        self.router.heard(primary.node)
                        self.acknowledge()
                except RouterError:
                    raise  # an adapter's may be its driver's as well
                except self.pool.driver_errors as error:
                    if not primary.report_failure(error):
                        raise
                    self.drop(primary)
                    raise self.pool.translated(
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
                    self.written()
                if wrote:
                    self.must_count(primary)
            elif wrote:
                # By a COMMIT sent as text, which has returned: its position is past all samples.
                self.acknowledge()
                self.written()
                if primary is not None:
                    self.must_count(primary)
            self._end_replica("commit")
            if wrote:
                self.ask_position()
        except BaseException:
            self.journal.rollback()
            raise
        else:
            self.journal.commit()
            self._tidy()
        finally:
            self._ended()

    def _look_at_bound(self) -> None:
        """Take over a transaction begun on a driver connection that was handed out, which only
        its server knows of."""
        primary = self.primary
        if not self.bound or primary is None or primary.broken or primary.in_transaction:
            return
        with suppress(*self.pool.driver_errors):
            primary.in_transaction = primary.busy
        if primary.in_transaction:
            self.writing(current_context(), BOUND)

    def _tidy(self) -> None:
        """Forget settings that were set again since, by those who hold them too."""
        journal = self.journal
        before = len(journal.entries)
        if before < 2:
            return
        gone = journal.superseded()
        if not gone:
            return
        helds = [held for held in (self.primary, self.replica) if held is not None]
        for held in helds:
            # One that has not run the later ones has the first to put back.
            if len(held.applied) < before and any(e in gone for e in held.applied):
                return
        journal.forget(gone)
        for held in helds:
            held.applied = [e for e in held.applied if e not in gone]

    def rollback(self) -> None:
        """Roll back whatever is open."""
        replica = self.replica
        if self.primary is None and not (replica and (replica.in_transaction or replica.applied)):
            # As nearly all reads end, and once more where their connections are given back.
            self.journal.rollback()
            self.autobegun = self.declared_read_only = False
            return
        self._look_at_bound()
        try:
            if (primary := self.primary) is not None and primary.in_transaction:
                try:
                    if not primary.broken:  # else it ends with its connection
                        primary.end("rollback")
                        self.router.heard(primary.node)
                except BaseException:
                    primary.broken = True
                    raise
                finally:
                    primary.in_transaction = False
                    # The pin stays, which is safe; asking for a position now lets it end soon.
                    self.written()
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
            replica.end(how)
        except self.pool.driver_errors as error:
            # Nothing was written there: its loss must not fail the caller's transaction.
            replica.report_failure(error)
            replica.broken = True
        except BaseException:
            replica.broken = True
            raise

    def _ended(self) -> None:
        self.autobegun = False
        self.declared_read_only = False
        self._forget()

    def _forget(self) -> None:
        entries = self.journal.entries
        for held in (self.primary, self.replica):
            if held is not None and held.applied:
                held.applied = [e for e in held.applied if e in entries]

    def bind_primary(self) -> H:
        """Tie this checkout to a connection to the primary, since what is done with it next
        cannot be seen."""
        route = self.route(None, explicit=True, intent=BOUND)
        route.decision = route.decision._replace(reason=Reason.BOUND)
        route.begin()
        # A read-only transaction stays where it is, and ties this checkout to nothing.
        self.bound = self.bound or route.held is self.primary
        return route.held

    def release(self) -> None:
        """End this checkout: give every connection back; what is open is rolled back."""
        primary, replica = self.primary, self.replica
        self.open = False
        self.primary = self.replica = self.last = None
        try:
            if replica is not None:
                replica.release(self.journal)
        finally:
            if primary is not None:
                primary.release(self.journal)
            if self._writers or self._ddl:
                self.written()  # ended with a transaction open: rolled back, or lost

    def finish(self) -> None:
        """No statement is taken from now on."""
        self.open = False
        self.primary = self.replica = self.last = None
        if self._writers or self._ddl:
            self.written()

    def after_fork(self) -> None:
        """In a forked child: leave to the parent what is held, and what is open there.

        With nothing open, this checkout takes connections of the child's own from now on.
        """
        helds = [held for held in (self.primary, self.replica) if held is not None]
        if any(held.in_transaction for held in helds) or self.bound:
            self._forked, self.open = True, False
        registry.leave_to_parent(*helds)
        self.primary = self.replica = self.last = None
        self._writers.clear()
        self._ddl = False

    def drop(self, held: H) -> None:
        """Give back one of the connections held before the checkout ends."""
        primary = held is self.primary
        if primary:
            self.primary = None
            self.dedicated = False
        elif held is self.replica:
            self.replica = None
        try:
            held.release(self.journal)
        finally:
            if primary:
                self.written()  # or lost with it

    # -- characteristics -----------------------------------------------------------------------

    @property
    def isolation(self) -> str:
        """The isolation level statements of this checkout run at."""
        return self.characteristics.isolation or self.pool.default_isolation

    def characterise(self, **changed: Any) -> None:
        """Remember settings from ``execution_options``; a node gets them when it is taken."""
        self.characteristics = self.characteristics._replace(**changed)


def _savepoint_name(sql: str) -> str:
    return sql.rstrip().rstrip(";").split()[-1].strip('"')
