"""Runs a failed statement again where the rules allow it: `router.rules.retry` says where."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from router.checkout.node_connection import NodeConnection
from router.errors import CommitUnknown
from router.model import Node
from router.rules.decision import Reason
from router.rules.retry import (
    READ_ONLY_SERVER,
    STALE_PLAN,
    Failure,
    may_be_committed,
    may_run_again,
)
from router.sql.classifier import refused
from router.sql.intent import Intent, Kind

if TYPE_CHECKING:
    from router.checkout.checkout import Checkout
    from router.checkout.route import Route

H = TypeVar("H", bound=NodeConnection)

FAST_READ = Intent(Kind.READ, "a read in the transaction open on the primary")


def recover(
    route: "Route[H]", error: BaseException, cursor: Any, attempt: Callable[[H], None]
) -> None:
    """Run the failed statement of `route` again by `attempt`, given a connection, where it may;
    else raise `error`, raised from `cursor`. The route's node becomes the one that succeeded."""
    pool = route.checkout.pool
    failed: tuple[Node, ...] = ()
    try:
        while True:
            failed = (*failed, route.held.node)
            _noticed(
                route.checkout, route.held, error, cursor, on_primary=route.decision.on_primary
            )
            again = None
            if isinstance(error, pool.driver_errors):
                again = _again(route, error, failed)
            if again is None:
                route.failed()
                if isinstance(error, pool.driver_errors) and _may_be_committed(route, error):
                    raise _unknown(route, error) from error
                raise error
            route.held, route.decision, route.fresh = again.held, again.decision, again.fresh
            route.intent = again.intent
            route.begin()
            try:
                attempt(again.held)
            except pool.driver_errors as next_error:
                error, cursor = next_error, None
            except BaseException:
                again.held.interrupted(route.intent)
                raise
            else:
                if again.decision.reason is Reason.HEALED:
                    # Only now: what the primary refuses as well is no misroute, but an error.
                    _heal(route, error)
                return
    finally:
        # This frame is in the traceback of what it raises. In a circle with that error, the
        # checkout would be given back when the garbage collector finds it, and not at once.
        del error


def _may_be_committed(route: "Route[H]", error: Exception) -> bool:
    """Whether nobody knows if the write of `route`, which is its own transaction, was committed
    before its connection ended with `error`."""
    held, pool = route.held, route.checkout.pool
    if not (route.intent.writes and held.broken) or held.in_transaction:
        return False
    return may_be_committed(pool.sqlstate(error), str(error))


def _unknown(route: "Route[H]", error: Exception) -> Exception:
    pool = route.checkout.pool
    return pool.translated(
        CommitUnknown(
            f"{route.held.node}: the connection broke while a write ran that is its own "
            "transaction, so it may have been committed or not: look before you repeat it "
            f"({pool.reason(error)})"
        )
    )


def failed_fast_read(
    checkout: "Checkout[H]", held: H, error: BaseException, cursor: Any = None
) -> None:
    """A read of `checkout` by `fast_read_on_primary` failed on `held`, the primary's connection:
    `error`, which is to be raised again, came from `cursor`."""
    held.fresh = False
    if isinstance(error, Exception):
        _noticed(checkout, held, error, cursor, on_primary=True)
    else:
        held.interrupted(FAST_READ)


def failed_midway(route: "Route[H]", error: BaseException, cursor: Any) -> None:
    """The statement of `route`, whose rows come or go one by one, failed with `error`, raised from
    `cursor` and to be raised again: rows may have been delivered. The next time it goes to the
    primary, where a standby has refused it."""
    if route.held.report_failure(error, cursor):
        return
    failure = _failure(route, error)
    why = may_run_again(route.intent, failure, (failure.node,), fresh=True, bound=False)
    if why is Reason.HEALED:
        _heal(route, error)


def _noticed(
    checkout: "Checkout[H]", held: H, error: BaseException, cursor: Any, *, on_primary: bool
) -> None:
    """Blacklist the node of `held` if `error`, raised from `cursor`, says that it is gone."""
    pool = checkout.pool
    if not isinstance(error, pool.driver_errors):
        # A signal's handler may have raised it while the server is still at the statement. In a
        # transaction that shows at its end.
        if not held.in_transaction and held.unsure:
            held.broken = True
        return
    if held.report_failure(error, cursor):
        return
    refused = pool.sqlstate(error) == READ_ONLY_SERVER
    if refused and on_primary and not checkout.is_read_only():
        why = "refused a write: it is read-only, or a replica now"
        checkout.router.health.failed(held.node, why)


def _again(route: "Route[H]", error: Any, failed: tuple[Node, ...]) -> "Route[H] | None":
    """The same statement routed once more, None when it must not run again. The rules get all that
    was asked of it at first: the read that opens an explicit transaction stays on the primary, for
    what is written next is computed from it."""
    checkout, held = route.checkout, route.held
    router, pool = checkout.router, checkout.pool
    failure = _failure(route, error)
    bound = checkout.bound and held is checkout.primary
    reason = may_run_again(route.intent, failure, failed, fresh=route.fresh, bound=bound)
    if reason is None or (reason is Reason.RETRIED and len(failed) > len(router.snapshot.nodes)):
        return None
    if failure.stale:
        # So are all connections of its pool that prepared the statement before some DDL.
        held.broken = held.distrusted = True
    intent = route.intent
    if reason is Reason.HEALED:
        intent = refused(intent, f"a replica refused it ({failure.state})")
    else:
        router.telemetry.event(
            "retried", level="info", node=held.node.name, reason=pool.reason(error)
        )
    checkout.drop(held)
    again = checkout.route(route.sql, **route.asked._asdict(), intent=intent, failed=failed)
    on_primary = failure.on_primary and again.decision.on_primary
    if again.held.node in failed and not on_primary:
        return None
    again.decision = again.decision._replace(reason=reason)
    return again


def _heal(route: "Route[H]", error: Any) -> None:
    """Remember that a standby refused the statement of `route` with `error`."""
    pool = route.checkout.pool
    route.checkout.router.catalog.heal(route.sql, pool.sqlstate(error), pool.reason(error))


def _failure(route: "Route[H]", error: Any) -> Failure:
    """What became of the statement, as the rules expect it."""
    checkout, held = route.checkout, route.held
    state = checkout.pool.sqlstate(error)
    stale = getattr(getattr(error, "diag", None), "source_function", None) == STALE_PLAN
    return Failure(
        held.node,
        route.decision.on_primary,
        state,
        gone=stale or held.broken or checkout.router.health.is_disconnect(state),
        stale=stale,
        read_only=checkout.is_read_only(),
    )
