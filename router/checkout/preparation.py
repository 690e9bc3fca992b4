"""What a statement has to find on its connection: a transaction, and the session's settings."""

from typing import TYPE_CHECKING, TypeVar

from router.checkout.node_connection import NodeConnection
from router.checkout.signals import note_asked
from router.errors import SessionRefused
from router.model import Node
from router.rules.decide import SESSION
from router.rules.decision import Reason
from router.rules.situation import Situation, needs_transaction

if TYPE_CHECKING:
    from router.checkout.checkout import Checkout
    from router.checkout.route import Route

H = TypeVar("H", bound=NodeConnection)


def prepared(route: "Route[H]", situation: Situation) -> bool:
    """Make the connection of `route` as its statement, in `situation`, expects it; False where it
    had died meanwhile, and the statement may go elsewhere.

    Raises:
        RouterError: a transaction cannot be begun there; as the adapter has it.
        Exception: what the driver raised, where the statement must not go elsewhere.
    """
    checkout, held, intent = route.checkout, route.held, route.intent
    if intent.server_local and not route.decision.on_primary:
        note_asked(route)
    transaction = needs_transaction(intent, situation, route.decision, checkout.router.policy)
    if transaction:
        _must_span(checkout, held.node)
    session = intent.kind is SESSION and not intent.local
    read_only = checkout.characteristics.read_only or held.characteristics.read_only
    if not (transaction or session or checkout.journal or read_only):
        if route.fresh:
            held.autocommit(True)
        return True
    try:
        _bring_up_to_date(checkout, held, transaction)
        if session:
            held.note_settings(intent.settings)
    except checkout.pool.driver_errors as error:
        if not held.report_failure(error) or not _may_go_elsewhere(route, situation):
            raise
        return False
    except BaseException:
        held.broken = True  # interrupted half-way: nobody knows what is set on it
        raise
    return _still_the_primary(route, situation)


def _still_the_primary(route: "Route[H]", situation: Situation) -> bool:
    """Whether what was prepared may run: settings were waited for, and another server may have
    become the primary meanwhile. Raises TransactionLost where something has run there already;
    as the adapter has it."""
    checkout, held = route.checkout, route.held
    if held is not checkout.primary or not checkout.superseded(held):
        return True
    if not route.fresh or checkout.bound or held.node in situation.failed:
        checkout.must_not_go_on(held)
    held.broken = held.distrusted = True
    return False


def _may_go_elsewhere(route: "Route[H]", situation: Situation) -> bool:
    """Whether a statement of which nothing was sent may run on another connection."""
    if not route.fresh or route.checkout.bound or route.held.node in situation.failed:
        return False
    return route.decision.reason is not Reason.NO_REPLICA  # else it was the last node left


def _bring_up_to_date(checkout: "Checkout[H]", held: H, transaction: bool) -> None:
    """Begin the transaction, and run what of the journal the connection has not run yet."""
    journal = checkout.journal
    if not held.in_transaction:
        if journal and len(held.applied) < len(journal.entries):
            held.autocommit(True)
            held.replay(journal.committed())
        if transaction:
            # Before characterise: in autocommit psycopg2 makes those settings of the session.
            held.autocommit(False)
            if held.characteristics != checkout.characteristics:
                held.characterise(checkout.characteristics)
            held.in_transaction = True
        else:
            held.autocommit(True)
            held.characterise_alone(checkout.characteristics)
    if journal and len(held.applied) < len(journal.entries):
        held.replay(journal.entries)


def _must_span(checkout: "Checkout[H]", node: Node) -> None:
    """Refuse a transaction where PgBouncer gives each statement a server session."""
    router = checkout.router
    if not router.pooled or checkout.dedicated:
        return
    server = router.servers.get(node)
    if server is not None and router.config.pooling(server) == "statement":
        raise checkout.pool.translated(
            SessionRefused(
                f"{node}: PgBouncer pools by statement there and refuses transactions: set "
                'isolation_level="AUTOCOMMIT", or let it pool by transaction'
            )
        )
