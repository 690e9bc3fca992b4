"""What a failed statement may still do: a read runs elsewhere, a write is never sent twice."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from router.checkout.node_connection import NodeConnection
from router.model import Node
from router.rules.decide import Reason
from router.sql.classifier import Intent, Kind

if TYPE_CHECKING:
    from router.checkout.checkout import Checkout, Route

P = ParamSpec("P")
R = TypeVar("R")
H = TypeVar("H", bound=NodeConnection)

REFUSED_BY_STANDBY = frozenset({"25006", "0A000", "55000"})
"""What a standby answers to a statement that only the primary can run."""

CONFLICT = frozenset({"40001", "40P01"})
"""What a standby answers when replay had to cancel the query.

Source: https://www.postgresql.org/docs/current/hot-standby.html#HOT-STANDBY-CONFLICT
"""


STALE_PLAN = "RevalidateCachedQuery"
"""Where the server raises "cached plan must not change result type", whose SQLSTATE is 0A000 too.

Source: https://github.com/postgres/postgres/blob/REL_18_STABLE/src/backend/utils/cache/plancache.c
"""


def recover(
    route: "Route[H]",
    error: BaseException,
    cursor: Any,
    attempt: Callable[[H], None],
) -> None:
    """Run a failed read elsewhere, or raise `error`.

    A read runs again only when nothing of it was delivered and no transaction was open, and
    at most once on each node. A write is never sent twice: one that a standby refused was
    not executed, so running it on the primary is the first time.

    Args:
        route: the statement; its node is replaced by the one that succeeded.
        error: what the driver raised.
        cursor: the cursor it was raised from.
        attempt: runs the statement on a connection.
    """
    pool = route.checkout.pool
    tried: list[Node] = []
    while True:
        tried.append(route.held.node)
        on_primary = route.decision.on_primary
        _noticed(route.checkout, route.held, error, cursor, on_primary=on_primary)
        again = None
        if isinstance(error, pool.driver_errors):
            again = _again(route, error, tried)
        if again is None:
            route.failed()
            raise error
        route.held, route.decision, route.fresh = again.held, again.decision, again.fresh
        route.intent = again.intent
        route.begin()
        try:
            attempt(again.held)
            return
        except pool.driver_errors as next_error:
            error, cursor = next_error, None
        except BaseException:
            again.held.broken = True
            raise


def timed(route: "Route[H]", call: Callable[P, R]) -> Callable[P, R]:
    """`call`, which runs the statement, made to tell a balancer that asks for it how long it
    took, on whatever node it ran."""
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


def failed_fast_read(
    connection: "Checkout[H]", held: H, error: BaseException, cursor: Any = None
) -> None:
    """A statement of `Checkout.fast_read_on_primary` was not run; `error` is to be raised again.

    Args:
        connection: the checkout whose statement failed.
        held: the primary's connection.
        error: what was raised.
        cursor: the cursor it was raised from.
    """
    held.fresh = False
    if isinstance(error, Exception):
        _noticed(connection, held, error, cursor, on_primary=True)
    else:
        held.broken = True  # cancelled: the server may still be at it


def _noticed(
    connection: "Checkout[H]", held: H, error: BaseException, cursor: Any, *, on_primary: bool
) -> None:
    """Blacklist the node if the error says that the server or the way to it is gone.

    Args:
        connection: the checkout whose statement failed.
        held: where it ran.
        error: what was raised.
        cursor: the cursor it was raised from.
        on_primary: the rules had sent it to the primary.
    """
    pool = connection.pool
    if not isinstance(error, pool.driver_errors):
        # A signal's handler may have raised it while the server is still at the statement. In a
        # transaction that shows at its end.
        if not held.in_transaction and held.unsure:
            held.broken = True
        return
    if held.report_failure(error, cursor):
        return
    refused = pool.sqlstate(error) == "25006"
    if refused and on_primary and not connection.is_read_only():
        connection.router.failed(held.node, "refused a write: it is read-only, or a replica now")


def _again(route: "Route[H]", error: Any, tried: list[Node]) -> "Route[H] | None":
    """The same read prepared once more, None when it must not run again.

    The rules choose the node, by all that was asked of the statement at first: the read that
    opens an explicit transaction stays on the primary, for what is written next is computed from
    it. There it gets a fresh connection, once.
    """
    intent = route.intent
    if intent.kind not in (Kind.READ, Kind.SESSION) or not route.fresh:
        return None
    connection = route.checkout
    held, router, pool = route.held, connection.router, connection.pool
    if connection.bound and held is connection.primary:
        return None  # what only its session had is gone with it, and no other connection has it
    on_replica = not route.decision.on_primary
    if not on_replica and tried.count(held.node) > 1:
        return None
    state = pool.sqlstate(error)
    stale = getattr(getattr(error, "diag", None), "source_function", None) == STALE_PLAN
    if stale:
        # As are all of its pool that prepared the statement before some DDL.
        held.broken = held.distrusted = True
    if on_replica and state in REFUSED_BY_STANDBY and not stale and not connection.is_read_only():
        router.heal(route.sql, state, pool.reason(error))
        reason = Reason.HEALED
        intent = Intent(Kind.WRITE, f"a replica refused it ({state})")
    elif held.broken or router.is_disconnect(state) or (on_replica and state in CONFLICT):
        if len(tried) > len(router.snapshot.nodes):
            return None
        router.telemetry.event(
            "retried", level="info", node=held.node.name, reason=pool.reason(error)
        )
        reason = Reason.RETRIED
    else:
        return None
    connection.drop(held)
    fell_back = not on_replica and route.decision.reason in (Reason.NO_REPLICA, Reason.RETRIED)
    if fell_back and not router.replicas and not router.last_resort(route.context):
        return None  # the primary was the last node left
    again = connection.route(route.sql, **route.asked._asdict(), intent=intent, avoid=tuple(tried))
    if again.held.node in tried and not (again.decision.on_primary and not on_replica):
        return None
    again.decision = again.decision._replace(reason=reason)
    return again
