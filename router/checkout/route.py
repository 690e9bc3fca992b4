"""One statement on its way: what it is, where it goes, and what it found there."""

import re
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, ParamSpec, TypeVar

from router.checkout.node_connection import NodeConnection
from router.rules.context import RoutingContext
from router.rules.decide import READ, WRITE
from router.rules.decision import Decision
from router.sql.intent import Intent, Kind

if TYPE_CHECKING:
    from router.checkout.checkout import Checkout

P = ParamSpec("P")
R = TypeVar("R")
H = TypeVar("H", bound=NodeConnection)


class Asked(NamedTuple):
    """What a caller said of a statement, beside its text: a retry must not forget it.

    Attributes:
        explicit: the caller began the surrounding transaction.
        force: "primary", "replica" or "session", as the statement's options name it.
        stream: a server-side cursor is wanted.
        many: it comes with several sets of parameters.
    """

    explicit: bool = False
    force: str | None = None
    stream: bool = False
    many: bool = False


ALONE = Asked()


class Route(Generic[H]):
    """One statement on its way: what it is, where it goes, and what it found there.

    Attributes:
        checkout: whose statement it is.
        sql: its text.
        intent: what it does.
        held: the connection it runs on.
        decision: the rule that sent it there.
        context: whose request it is.
        fresh: nothing of the surrounding transaction has been sent to this node before.
        asked: what the caller said of it.
    """

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
        if self.intent.writes:
            self.held.wrote = True
        if decision.pins:
            checkout.writing(self.context, self.intent)

    def begin_rows(self) -> None:
        """As `begin`, where rows come or go one by one: until the last one its caller may do
        something else, or go away, so what it leaves in its session counts from now on."""
        self.begin()
        if self.intent.binds and self.decision.on_primary:
            self.checkout.bound = True
        self.note_left()

    def note_left(self) -> None:
        """Have its connection closed at the end if it leaves settings that nobody puts back."""
        if self.intent.kind is WRITE and self.intent.settings != ():
            self.held.spoilt = True

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
        """The statement has returned; it was sent with `parameters`."""
        intent = self.intent
        if intent.kind is READ:
            if not self.context.root:
                self.checkout.router.pinning.read(self.context, self.held.node)
            return
        self.checkout.ran(self, parameters)


def timed(route: Route[H], call: Callable[P, R]) -> Callable[P, R]:
    """`call`, which runs the statement of `route`, made to tell a balancer that wants to know how
    long it took, on whatever node it ran."""
    router = route.checkout.router
    if router.timed_balancer is None:
        return call

    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        node = route.held.node
        sent = router.sent(node)
        try:
            return call(*args, **kwargs)
        finally:
            router.answered(node, sent)

    return run
