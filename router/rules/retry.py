"""What a failed statement may still do, as a table: a read runs elsewhere, a write is never sent
twice.

Which SQLSTATEs say that a server is gone stands in `router.rules.blacklist`.
"""

from typing import NamedTuple

from router.model import Node
from router.rules.blacklist import LOST, among
from router.rules.decision import Reason
from router.sql.intent import Intent, Kind

REFUSED_BY_STANDBY = frozenset({"25006", "0A000", "55000"})
"""SQLSTATEs read_only_sql_transaction, feature_not_supported and object_not_in_prerequisite_state:
what a standby answers to a statement that only the primary can run."""

READ_ONLY_SERVER = "25006"
"""SQLSTATE read_only_sql_transaction: a primary that answers so is none any more."""

CONFLICT = frozenset({"40001", "40P01"})
"""SQLSTATEs serialization_failure and deadlock_detected: what a standby answers when replay had to
cancel the query.

Source: https://www.postgresql.org/docs/current/hot-standby.html#HOT-STANDBY-CONFLICT
"""

STALE_PLAN = "RevalidateCachedQuery"
"""Where the server raises "cached plan must not change result type", whose SQLSTATE is 0A000 too.

Source: https://github.com/postgres/postgres/blob/REL_18_STABLE/src/backend/utils/cache/plancache.c
"""

LOGIN = frozenset({"28", "3D"})
"""Classes of SQLSTATEs by which a server refuses a login: invalid_authorization_specification and
invalid_catalog_name.

Source: https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

INTERNAL = "XX000"
"""SQLSTATE internal_error: what Pgpool-II answers whoever connects while it cannot reach its
server."""


class Failure(NamedTuple):
    """How a statement failed on one node.

    Attributes:
        node: where.
        on_primary: the rules had sent it to the primary.
        state: the SQLSTATE, empty when the server sent none.
        gone: the server, or the way to it, is gone, or its connection is of no use any more.
        stale: its prepared statement was made before some DDL.
        read_only: its transaction was declared read-only: what is refused there is refused.
    """

    node: Node
    on_primary: bool
    state: str = ""
    gone: bool = False
    stale: bool = False
    read_only: bool = False


class Row(NamedTuple):
    """One kind of failure after which a read may run again.

    Attributes:
        reason: why it then goes where it goes.
        states: SQLSTATEs of the failure; None for any failure of a connection.
        anywhere: on the primary too, not on replicas only.
    """

    reason: Reason
    states: frozenset[str] | None
    anywhere: bool = False


TABLE = (
    # A standby refused it, so that it was not executed: on the primary it runs for the first time.
    Row(Reason.HEALED, REFUSED_BY_STANDBY),
    # The connection broke, or its server is gone: another node, or a fresh connection there.
    Row(Reason.RETRIED, None, anywhere=True),
    # Replay on the standby had to cancel it.
    Row(Reason.RETRIED, CONFLICT),
)
"""First match first. Whatever is in no row is the caller's error."""


def may_run_again(
    intent: Intent, failure: Failure, failed: tuple[Node, ...], *, fresh: bool, bound: bool
) -> Reason | None:
    """Why a statement that has raised may run once more; None where its error is the caller's.

    A read runs again only when nothing of it was delivered and no transaction was open, at most
    once on each replica, and once more on the primary over a fresh connection.

    Args:
        intent: what the statement does.
        failure: how it failed last.
        failed: every node it has failed on, in order, the last one too.
        fresh: nothing of the surrounding transaction had been sent to the node before.
        bound: the connection's session had something of its own, which is gone with it.
    """
    if intent.kind not in (Kind.READ, Kind.SESSION) or not fresh or bound:
        return None
    if failure.on_primary and failed.count(failure.node) > 1:
        return None
    for row in TABLE:
        if failure.on_primary and not row.anywhere:
            continue
        if row.reason is Reason.HEALED and (failure.stale or failure.read_only):
            continue
        if failure.gone if row.states is None else failure.state in row.states:
            return row.reason
    return None


CLOSED = ("connection is closed", "connection already closed", "released back to the pool")
"""What drivers say of a connection that was closed on this side: nothing was sent over it."""


def may_be_committed(state: str, text: str) -> bool:
    """Whether nobody knows what became of a statement whose connection ended with an error, by its
    SQLSTATE and its `text`.

    A server that ends a connection itself says so by an SQLSTATE, and holds that back while it
    commits: nothing was committed. Class 08 and XX come from poolers.
    """
    if state and state[:2] not in ("08", "XX"):
        return False
    return not any(said in text for said in CLOSED)


def cannot_connect(state: str, lost: frozenset[str] = LOST) -> bool:
    """Whether an error says that the server cannot be reached or lets nobody in; else it comes
    from what the user does with each new or taken connection. `state` is the SQLSTATE, empty when
    the server sent none; `lost` are SQLSTATEs, and classes of them, that blacklist."""
    return not state or state == INTERNAL or among(state, LOGIN) or among(state, lost)
