"""One checkout: it takes a node's connection when a statement needs one, and knows where it goes.

What SQLAlchemy, Django and the drivers' own pools have in common. It is written as if every
driver were blocking; an asynchronous adapter runs it in a greenlet.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

from router.checkout.dedicated import with_session
from router.checkout.intents import UNKNOWN, Intents
from router.checkout.node_connection import NodeConnection
from router.checkout.preparation import prepared
from router.checkout.route import ALONE, Asked, Route
from router.checkout.transaction import BOUND
from router.cluster.gate import GivenUp
from router.connect.dialing import patient
from router.errors import NoReplicaAvailable, PrimaryUnavailable, RouterError
from router.model import Node
from router.rules.context import RoutingContext, current_context
from router.rules.decide import READ, must_follow, must_not_act, one_more, read_alone
from router.rules.decision import Decision, Reason
from router.rules.journal import streamed
from router.rules.pgbouncer import needs_session
from router.rules.situation import WITHOUT_TRANSACTION, Situation, surrounding
from router.sql.intent import Intent

GOES_ON = frozenset({Reason.HELD, Reason.READ_ONLY})
"""Why a statement runs in the transaction that is open on a replica."""

ASKED_AGAIN = 3
"""Times the rules are asked where nobody waits for the primary that they chose."""

NO_REPLICA = Reason.NO_REPLICA
"""By a name of its own: in Python 3.11 a member is slow to reach through its enumeration."""

_NOTHING: Iterator[int] = iter(())

H = TypeVar("H", bound=NodeConnection)


class Checkout(Intents[H]):
    """At most one connection to the primary and one to a replica, and where statements go.

    It belongs to one thread or task at a time.
    """

    replica: H | None
    last: H | None
    bound: bool
    slow: tuple[Node, ...]
    # The last decision of `fast_read_on_primary`, and the counter of such decisions.
    _within: Decision | None = None
    _counted: Iterator[int] = _NOTHING

    def route(
        self,
        sql: str | None,
        *,
        explicit: bool,
        force: str | None = None,
        stream: bool = False,
        many: bool = False,
        parameters: Any = None,
        intent: Intent | None = None,
        failed: tuple[Node, ...] = (),
    ) -> Route[H]:
        """Choose the node for one statement and get a connection to it ready.

        Args:
            sql: the statement's text, None when it cannot be seen.
            explicit: the surrounding transaction was begun by the caller.
            force: "primary", "replica" or "session" when the statement's options say so; the
                last is the primary, not by way of a PgBouncer that shares its sessions.
            stream: a server-side cursor is wanted, which lives in a transaction.
            many: there are several sets of parameters.
            parameters: with which it is to be run, as the adapter has them; `given` reads them.
            intent: what the statement does, when that is known already.
            failed: nodes that have failed this statement.

        Raises:
            RouterError: nowhere to run it, says which node and why; as the adapter has it.
            Exception: this checkout is closed; as `closed_error` has it.
        """
        router = self.router
        if not self.open or not router.started:
            self._start()
        text = sql or ""
        if intent is None:
            classifier = router.classifier
            intent = UNKNOWN if sql is None else classifier.known.get(sql) or classifier(sql)
            if intent.parameters:
                intent = self.given(text, intent, parameters, many=many)
        forced = force
        if router.pooled or force == "session":
            forced = with_session(self, intent, force)
        context = current_context()
        if self.pins is not None:
            context = RoutingContext(self.pins, force=context.force, pinning=context.pinning)
        if forced is None and not failed:
            at_once = self._at_once(text, intent, context, not explicit and not stream, True)
            if at_once is not None:
                return at_once
        intent = streamed(intent, rows=stream)  # which the short way above leaves alone
        asked = Asked(explicit, force, stream, many)
        situation = self._situation(asked, failed)
        self.slow = ()
        held, decision = self._hold(intent, situation, forced, context)
        route = Route(self, text, intent, held, decision, context, not held.in_transaction, asked)
        if prepared(route, situation):
            held.streams |= stream
            self.last = held
            return route
        return self._elsewhere(route, failed)

    def _start(self) -> None:
        """Make sure that this checkout is open, and its Router started."""
        self._must_be_open()
        if not self.router.started:
            with self._translating():
                self.pool.start_router()

    def _elsewhere(self, route: Route[H], failed: tuple[Node, ...]) -> Route[H]:
        """The statement of `route` routed once more: its pooled connection has died meanwhile, and
        nothing was sent. Another replica may run it, or the primary on a fresh connection."""
        held = route.held
        self.drop(held)
        failed = (*failed, held.node)
        return self.route(route.sql, **route.asked._asdict(), intent=route.intent, failed=failed)

    @contextmanager
    def _translating(self) -> Iterator[None]:
        """Raise the errors of the core as the adapter has them."""
        try:
            yield
        except RouterError as error:
            raise self.pool.translated(error) from error

    def _situation(self, asked: Asked, failed: tuple[Node, ...]) -> Situation:
        """What surrounds a statement now, as the rules take it."""
        primary, replica = self.primary, self.replica
        open_on = replica.node if replica is not None and replica.in_transaction else None
        isolation = self.isolation
        transaction = surrounding(
            isolation,
            on_primary=primary is not None and primary.in_transaction,
            on_replica=open_on is not None,
            bound=self.bound,
            declared=self.declared_read_only,
            read_only=bool(self.characteristics.read_only),
            explicit=asked.explicit,
        )
        in_transaction = self.journal.in_transaction
        leaves = asked.force is not None and asked.force != "replica"
        return Situation(
            transaction, open_on, isolation, asked.stream, in_transaction, leaves, failed
        )

    def _hold(
        self,
        intent: Intent,
        situation: Situation,
        force: str | None,
        context: RoutingContext,
        failure: BaseException | None = None,
    ) -> tuple[H, Decision]:
        """A connection to a node the rules choose; they choose again where it gives none."""
        asked = 0
        while True:
            try:
                decision = self._decide(intent, situation, force, context)
            except RouterError as error:
                if self.slow:
                    return self._hold_patiently(intent, situation, force, context, failure)
                self._refused(error, failure)
            if decision.on_primary:
                node = decision.nodes[0]
                try:
                    return self.hold_primary(node), decision
                except GivenUp as error:
                    # Another server may be the primary by now, or the rules say why there is none.
                    asked += 1
                    if asked < ASKED_AGAIN:
                        continue
                    failure = self.pool.translated(PrimaryUnavailable(str(error)))
                    if decision.reason is not NO_REPLICA:
                        raise failure from None
                except PrimaryUnavailable as error:
                    if decision.reason is not NO_REPLICA:
                        raise
                    failure = error
                # Without a new connection it counts as failed twice.
                situation = situation._replace(failed=(*situation.failed, node))
            else:
                if decision.reason in GOES_ON and situation.replica is not None:
                    held = self.replica  # on which the transaction is open
                    if held is not None and decision.nodes == (held.node,):
                        held.fresh = False
                        return held, decision
                held, node, why = self.hold_replica(decision.nodes)
                if held is not None:
                    return held, decision
                failure = why or failure
            situation = situation._replace(failed=(*situation.failed, node))

    def _hold_patiently(
        self,
        intent: Intent,
        situation: Situation,
        force: str | None,
        context: RoutingContext,
        failure: BaseException | None,
    ) -> tuple[H, Decision]:
        """As `_hold`, where nodes are left that keep a connection waiting which somebody else
        opens there: since no other node is left, it is waited for."""
        slow, self.slow = self.slow, ()
        failed = tuple(node for node in situation.failed if node not in slow)
        token = patient.set(True)
        try:
            return self._hold(intent, situation._replace(failed=failed), force, context, failure)
        finally:
            patient.reset(token)

    def _refused(self, error: RouterError, failure: BaseException | None) -> NoReturn:
        """Raise what a caller gets where the rules know no node, or none that is left."""
        if failure is not None and isinstance(error, NoReplicaAvailable):
            raise failure  # of the last node that was tried: it says more
        if self.primary is not None and self.superseded(self.primary):
            self.must_not_go_on(self.primary)
        raise self.pool.translated(error) from failure or error

    def _decide(
        self, intent: Intent, situation: Situation, force: str | None, context: RoutingContext
    ) -> Decision:
        """What the rules say; a primary that probes call down is asked before it is refused."""
        router = self.router
        try:
            return router.decide(intent, situation, force=force, context=context)
        except PrimaryUnavailable:
            if not self.vouched():
                raise
        return router.decide(intent, situation, force=force, context=context)

    # -- shortcuts, by the rules' own ----------------------------------------------------------

    def fast_read_on_primary(self, sql: str) -> RoutingContext | None:
        """Whose read `sql` is, if it is one more in the transaction open on the primary, and
        counted; None where the rules have to look.

        The shortest path there is, for what a transaction mostly consists of: nothing is prepared
        or pinned before it, and nothing of it runs again. The caller runs it on `primary`; see
        `router.checkout.retry.failed_fast_read` and `Pinning.read` for what follows.
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
        if intent.kind is not READ or intent.hint is not None:
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
        """As `route`, for `sql` where nothing has to be prepared that an event loop would wait
        for; None where `route` has to look."""
        router = self.router
        if not self.open or not router.started or self.pins is not None:
            return None
        replica = self.replica
        if replica is not None and not replica.in_autocommit:
            return None
        intent = router.classifier(sql)
        if intent.parameters or (router.pooled and needs_session(intent)):
            return None
        return self._at_once(sql, intent, current_context(), not self.explicit, False)

    def _at_once(
        self, sql: str, intent: Intent, context: RoutingContext, alone: bool, take: bool
    ) -> Route[H] | None:
        """The route of what most statements are: one more in the transaction open on the primary,
        or a read by itself where `alone` allows it; None where all of the rules have to be asked.
        Unless it may `take` a connection, which may have to be waited for, it uses an idle one."""
        if self.journal.entries or context.force:
            return None
        view, primary = self.router.view, self.primary
        if primary is not None and primary.in_transaction:
            return self._one_more(sql, intent, context, primary)
        if not alone or not self._unsurrounded():
            return None
        held = self.replica
        if held is not None and (held.broken or held.in_transaction):
            return None
        node = None if held is None else held.node
        decision = read_alone(intent, view, context.pins, self.router.cluster, node)
        if decision is None:
            return None
        if held is None:
            taken = self._hold_any(intent, decision, context) if take else self._idle(decision)
            if taken is None:
                return None
            held, decision = taken
        else:
            held.fresh = False
        fresh = not held.in_transaction
        if fresh:
            held.autocommit(True)
        self.last = held
        return Route(self, sql, intent, held, decision, context, fresh)

    def _one_more(
        self, sql: str, intent: Intent, context: RoutingContext, primary: H
    ) -> Route[H] | None:
        decision = one_more(intent.kind, self.router.view, primary.node, self.timeline)
        if decision is None or primary.broken or intent.hint is not None:
            return None
        self.last = primary
        primary.fresh = False
        return Route(self, sql, intent, primary, decision, context, False)

    def _unsurrounded(self) -> bool:
        """Whether nothing was set, bound or declared that a read by itself would have to mind."""
        if self.bound or self.declared_read_only or not self.router.reads_alone:
            return False
        isolation, read_only, _ = self.characteristics
        return not read_only and (isolation or self.pool.default_isolation) in WITHOUT_TRANSACTION

    def _hold_any(
        self, intent: Intent, decision: Decision, context: RoutingContext
    ) -> tuple[H, Decision]:
        """A connection to any of the decision's nodes, else wherever the rules say."""
        self.slow = ()
        held, node, why = self.hold_replica(decision.nodes)
        if held is not None:
            return held, decision
        situation = self._situation(ALONE, (node,))
        return self._hold(intent, situation, None, context, why)

    def _idle(self, decision: Decision) -> tuple[H, Decision] | None:
        if self.router.view.outdated or (held := self.idle_connection(decision)) is None:
            return None
        self.replica = held
        return held, decision

    def idle_connection(self, decision: Decision) -> H | None:
        """A connection to a node of `decision` without waiting, by adapters that can tell."""
        return None

    def must_not_act(self, intent: Intent) -> None:
        """As `router.rules.decide.must_not_act` for `intent`, the error as the adapter has it."""
        with self._translating():
            must_not_act(intent)

    def must_follow(self, node: Node) -> None:
        """As `router.rules.decide.must_follow` for `node`, the error as the adapter has it."""
        with self._translating():
            must_follow(node, self.router.view.snapshot, self.isolation)

    def bind_primary(self) -> H:
        """Tie this checkout to the primary: what its user does next cannot be seen."""
        route = self.route(None, explicit=True, intent=BOUND)
        route.decision = route.decision._replace(reason=Reason.BOUND)
        route.begin()
        # A read-only transaction stays where it is, and ties this checkout to nothing.
        self.bound = self.bound or route.held is self.primary
        return route.held
