"""A session that avoids a PgBouncer which gives its clients none of their own."""

from typing import TYPE_CHECKING, TypeVar

from router.checkout.node_connection import NodeConnection
from router.errors import SessionRefused
from router.rules.context import current_context
from router.rules.decide import SESSION
from router.rules.pgbouncer import advice, needs_session
from router.sql.intent import Intent

if TYPE_CHECKING:
    from router.checkout.checkout import Checkout

H = TypeVar("H", bound=NodeConnection)


def with_session(checkout: "Checkout[H]", intent: Intent, force: str | None) -> str | None:
    """What is forced for `intent`, by `force`, once `checkout` has a session that avoids PgBouncer
    where it needs one; without one raises SessionRefused, as the adapter has it."""
    wanted = force == "session"
    if checkout.router.pooled and not checkout.dedicated and (wanted or needs_session(intent)):
        _use_session_url(checkout, intent, force)
    if not wanted:
        return force
    return None if checkout.dedicated else "primary"


def _use_session_url(checkout: "Checkout[H]", intent: Intent, force: str | None) -> None:
    """Hold a connection by ``session_url`` for what must not stay in a shared session."""
    router, pool = checkout.router, checkout.pool
    primary, wanted = router.primary, force == "session"
    # What stays in one session runs on the primary; settings are for any node.
    anywhere = intent.kind is SESSION and not wanted
    if primary is not None and not router.shares_sessions(primary) and not anywhere:
        return
    replica, held = checkout.replica, checkout.primary
    on_replica = force or current_context().force
    if primary is None or on_replica == "replica" or (replica and replica.in_transaction):
        raise pool.translated(SessionRefused(advice(intent)))
    if held is not None and held.in_transaction:
        late = "; or make it the first statement of its transaction"
        more = late if router.config.session_url is not None else ""
        raise pool.translated(SessionRefused(advice(intent) + more))
    session = checkout.session(primary)
    if session is None:
        raise pool.translated(SessionRefused(advice(intent)))
    if checkout.primary is not None:
        checkout.drop(checkout.primary)
    checkout.primary, checkout.timeline = session, router.view.timeline
    checkout.dedicated = checkout.bound = True
