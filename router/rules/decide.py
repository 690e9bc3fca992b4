"""The rules of routing, as one pure function: which nodes may run this statement, and why.

The rows of the rules table in ``docs/reference/rules.md`` carry the same numbers as the comments
here. Nothing in this module reads a clock, opens a socket or takes a lock. A retry asks the same
function, with the nodes that failed in the situation.
"""

from math import inf

from router import errors
from router.errors import PrimaryUnavailable, ReplicaWriteRefused
from router.model import Node, Snapshot
from router.rules.context import LastRead, Pin, Pins
from router.rules.decision import Decision, Policy, Reason
from router.rules.pin import as_recent, caught_up, shows_less
from router.rules.situation import Situation, Transaction
from router.rules.view import View
from router.sql.intent import Intent, Kind, OnStandby, Verb

READ, WRITE, SESSION = Kind.READ, Kind.WRITE, Kind.SESSION
"""By names of their own: in Python 3.11 a member is slow to reach through its enumeration."""

NOT_ON_REPLICA = frozenset({OnStandby.ACTS, OnStandby.UNSEEN})
"""What must not follow in a read-only transaction that is open on a replica."""


def decide(
    intent: Intent,
    situation: Situation,
    view: View,
    policy: Policy,
    *,
    now: float,
    pin: Pin | None = None,
    last: LastRead | None = None,
    force: str | None = None,
) -> Decision:
    """Apply the rules table, first match first.

    Args:
        intent: what the statement does.
        situation: what surrounds it, and which nodes have failed it.
        view: the cluster as last seen.
        policy: the options that change the rules.
        now: monotonic seconds.
        pin: the context's pin, with its position where one is known.
        last: where the context read last; None outside a request context.
        force: "primary" or "replica" when the caller said so.

    Raises:
        ReplicaWriteRefused: a write was asked onto a replica, or would act there in silence, in a
            read-only transaction.
        TransactionLost: its read-only transaction is open on a replica that follows another
            server.
        PrimaryUnavailable: only the primary may run it, and there is none.
        NoReplicaAvailable: no replica is eligible and ``fallback="error"``, or no node is left.
    """
    transaction, failed = situation.transaction, situation.failed
    if situation.replica is not None:
        held = _go_on(intent, situation, view, policy, now, pin, last, force)
        if held is not None:
            return held
    if force is not None:  # row 1
        return _forced(force, intent, view, policy, now, failed)
    if transaction is Transaction.ON_PRIMARY:  # row 2
        return _within(intent.kind, view, now)
    if transaction is Transaction.BOUND:
        return _primary(view, Reason.BOUND, now, pins=intent.writes, held=True)
    if transaction is not Transaction.READ_ONLY:
        if intent.kind is not READ and intent.kind is not SESSION:  # row 3
            if not _begins_read_only(intent):
                return _primary(view, _no_read(intent), now, pins=intent.writes)
            transaction = Transaction.READ_ONLY
        elif (reason := _stays(intent, transaction, policy)) is not None:  # rows 4 and 5a
            return _primary(view, reason, now)
        elif transaction is Transaction.ON_REPLICA and (left := _left(view.replicas, failed)):
            return Decision(left, Reason.HELD, False)
    reason = Reason.READ_ONLY if transaction is Transaction.READ_ONLY else Reason.READ  # row 5
    return _among_replicas(intent, reason, view, policy, now, pin, last, failed)


def _among_replicas(
    intent: Intent,
    reason: Reason,
    view: View,
    policy: Policy,
    now: float,
    pin: Pin | None,
    last: LastRead | None,
    failed: tuple[Node, ...],
) -> Decision:
    """Rows 5 to 8: a replica may run it, if one shows what its context has written and read."""
    replicas = view.replicas
    if pin is not None and policy.consistency != "off":  # row 6
        replicas = caught_up(view, pin, policy, now)
        if not replicas:
            return _primary(view, Reason.PIN_PRIMARY, now)
        if reason is Reason.READ and len(replicas) < len(view.replicas):
            reason = Reason.PIN_REPLICA
    if last is not None and replicas:
        # Like a pin, whatever `fallback` says: it is about load, not about going back in time.
        replicas = as_recent(view, replicas, last)
        if not replicas:
            return _primary(view, Reason.MONOTONIC_PRIMARY, now)
    replicas = _left(replicas, failed)
    if intent.kind is WRITE and intent.on_standby is not OnStandby.REFUSED:
        return _unknown_write(intent, reason, replicas, view, policy, now, failed)
    if not replicas:  # row 8
        return _fallback(view, policy, now, last, failed)
    if reason is Reason.READ and replicas is view.replicas and view.any_read is not None:
        return view.any_read  # row 7, the hot path: nothing is allocated
    return Decision(replicas, reason, False)


def _unknown_write(
    intent: Intent,
    reason: Reason,
    replicas: tuple[Node, ...],
    view: View,
    policy: Policy,
    now: float,
    failed: tuple[Node, ...],
) -> Decision:
    """Row 5, for what a standby is not known to refuse. Nothing is open yet, so what nobody knows
    may as well begin on the primary, and never on a replica as the last resort."""
    if not replicas:
        return _substitute(view, policy, now, failed)
    if intent.on_standby is OnStandby.ACTS:
        raise acts_on_replica(intent)
    return _primary(view, reason, now)


# -- rows 2 and 7 at once, for what most statements are; a property test holds them to `decide` --


def one_more(kind: Kind, view: View, primary: Node, timeline: int) -> Decision | None:
    """Row 2, for a statement of this `kind` in the transaction that is open on `primary` by
    `view`; None where `decide` has to be asked. `timeline` is the primary's when that connection
    was taken."""
    if kind is READ:
        decision = view.any_within
    elif kind is WRITE:
        decision = view.write_within
    else:
        return None
    if decision is None or decision.nodes[0] is not primary or view.timeline != timeline:
        return None
    return decision


def read_alone(
    intent: Intent, view: View, pins: Pins, cluster: str, held: Node | None
) -> Decision | None:
    """Row 7, for the read `intent` that nothing surrounds, in a context whose `pins` hold none for
    `cluster`: any replica of `view`, or the one `held`; None where `decide` has to be asked."""
    decision = view.any_read
    if (
        intent.kind is not READ
        or decision is None
        or intent.needs_transaction
        or intent.server_local
        or intent.hint is not None
        or pins.by_cluster
        or pins.arrived
        or (held is not None and held not in decision.nodes)
    ):
        return None
    if pins.reads and (last := pins.reads.get(cluster)) is not None:
        report = view.snapshot.reports.get(last.node.name)
        if last.node is not held or report is None or report.since > last.at:
            return None
    return decision


def _go_on(
    intent: Intent,
    situation: Situation,
    view: View,
    policy: Policy,
    now: float,
    pin: Pin | None,
    last: LastRead | None,
    force: str | None,
) -> Decision | None:
    """Where the statement goes if a transaction open on a replica decides that; else None."""
    node = situation.replica
    if node is None or (situation.leaves and intent.kind is not Kind.TRANSACTION):
        return None
    if situation.transaction is Transaction.READ_ONLY:  # whose session it is that answers
        return _in_read_only(intent, node, view, situation.isolation)
    if situation.transaction is not Transaction.ON_REPLICA:
        return None
    if intent.kind is READ:
        if force == "primary" or (force is None and _is_the_primarys(intent, policy)):
            return None
        if node.name in view.snapshot.strays:
            return _substitute(view, policy, now, situation.failed)
        if force is None and shows_less(node, view, policy, pin, last, now):
            return _primary(view, Reason.PIN_PRIMARY, now)
    elif intent.kind is not SESSION and intent.verb not in (Verb.COMMIT, Verb.ROLLBACK):
        return None
    return Decision((node,), Reason.HELD, False)


def _in_read_only(intent: Intent, node: Node, view: View, isolation: str) -> Decision:
    """Row 5, once the transaction is open on `node`: nothing leaves it."""
    must_not_act(intent)
    if intent.kind is READ:
        must_follow(node, view.snapshot, isolation)
    return Decision((node,), Reason.READ_ONLY, False)


def _forced(
    force: str, intent: Intent, view: View, policy: Policy, now: float, failed: tuple[Node, ...]
) -> Decision:
    """Row 1: the caller said where."""
    if force == "primary":
        return _primary(view, Reason.FORCED_PRIMARY, now, pins=intent.writes)
    if intent.kind is WRITE:
        does, further = _ASKED_ONTO_REPLICA[_no_read(intent)]
        if intent.signals:
            does, further = "the statement signals a process", _SIGNALLED
        raise ReplicaWriteRefused(
            f"a replica was asked for, but {does} ({intent.reason}): "
            f"run it outside using_replica(), or drop router='replica'{further}"
        )
    replicas = _left(view.replicas, failed)
    if not replicas:
        return _fallback(view, policy, now, None, failed)
    return Decision(replicas, Reason.FORCED_REPLICA, False)


_ASKED_ONTO_REPLICA = {
    Reason.WRITE: ("the statement writes", ""),
    Reason.ACTS: ("the statement would act there, and not be refused", ""),
    Reason.UNKNOWN: (
        "nobody knows whether the statement only reads",
        ", or list its function in read_functions if it is harmless",
    ),
}
"""What is said of a statement that is no read where a replica was asked for, and the cure."""

_SIGNALLED = (
    "; that signals a process of the primary: for one of a replica connect to that server itself"
)


def _is_the_primarys(intent: Intent, policy: Policy) -> bool:
    """Row 5a: whether the answer to `intent` is the server's own, and the primary's is meant."""
    return intent.server_local and not policy.any_server_local


def _stays(intent: Intent, transaction: Transaction, policy: Policy) -> Reason | None:
    """Why a read or a setting stays on the primary for what it is, or for what surrounds it."""
    if transaction is Transaction.ISOLATED or (
        transaction is Transaction.EXPLICIT and not policy.lazy_transactions
    ):  # row 4
        return Reason.EXPLICIT
    return Reason.SERVER_LOCAL if _is_the_primarys(intent, policy) else None


def _within(kind: Kind, view: View, now: float) -> Decision:
    """Row 2: one more statement in the transaction open on the primary."""
    within = view.write_within if kind is WRITE else view.any_within
    return within or _primary(view, Reason.TRANSACTION, now, held=True)


def _begins_read_only(intent: Intent) -> bool:
    """Whether it begins a transaction that a replica may run: no standby knows SERIALIZABLE."""
    begins = intent.kind is Kind.TRANSACTION and bool(intent.read_only)
    return begins and intent.isolation != "SERIALIZABLE"


def _no_read(intent: Intent) -> Reason:
    """Why `intent` is no read, by what a standby would make of it."""
    if intent.kind is not WRITE or intent.on_standby is OnStandby.REFUSED:
        return Reason.WRITE
    return Reason.ACTS if intent.on_standby is OnStandby.ACTS else Reason.UNKNOWN


def _left(nodes: tuple[Node, ...], failed: tuple[Node, ...]) -> tuple[Node, ...]:
    return tuple(n for n in nodes if n not in failed) if failed else nodes


def must_not_act(intent: Intent) -> None:
    """Raise ReplicaWriteRefused if `intent`, in a read-only transaction on a replica, is no read,
    and a standby is not known to refuse it: the replica would run it in silence."""
    if intent.kind is WRITE and intent.on_standby in NOT_ON_REPLICA:
        raise acts_on_replica(intent)


def must_follow(node: Node, snapshot: Snapshot, isolation: str) -> None:
    """Raise TransactionLost for one more read in a read-only transaction at `isolation` if `node`,
    a replica, by `snapshot` follows lastingly another server than the primary."""
    stray = snapshot.strays.get(node.name)
    # A snapshot that was taken before shows nothing of what the other server has done since.
    if stray is None or not stray.lasting or isolation == "REPEATABLE READ":
        return
    raise errors.TransactionLost(
        f"{node} does not follow the primary: {stray.why}: roll the read-only transaction "
        "back, and begin anew"
    )


def acts_on_replica(intent: Intent) -> ReplicaWriteRefused:
    """The error for `intent` in a read-only transaction on a standby, which would run it."""
    cure = ", or list its function in read_functions if it is harmless"
    if intent.signals:
        cure = _SIGNALLED
    return ReplicaWriteRefused(
        f"a read-only transaction runs on a replica, where this ({intent.reason}) would act and "
        f"not be refused: run it outside that transaction{cure}"
    )


def _primary(
    view: View, reason: Reason, now: float, *, pins: bool = False, held: bool = False
) -> Decision:
    snapshot = view.snapshot
    primary = snapshot.primary
    if primary is None:
        raise PrimaryUnavailable(
            f"no server has been the primary for {now - snapshot.changed:.1f} s: promote a "
            f"replica, or start the old primary again (replicas seen: {_names(snapshot.replicas)})"
        )
    if primary.name in snapshot.reports and (report := snapshot.doubted(primary.name)):
        raise PrimaryUnavailable(
            f"{primary} has not answered for {now - report.since:.1f} s: {report.error}; "
            "start it again, or promote a replica "
            f"(replicas seen: {_names(snapshot.replicas)})"
        )
    # A transaction open there already may finish, or fail by itself.
    if view.out and not held and (entry := view.out.get(primary.name)) and entry.primary:
        if entry.until == inf:
            raise PrimaryUnavailable(
                f"{primary} is blacklisted: {entry.reason}; "
                f"let it back in with Router.restore({primary.name!r})"
            )
        if not entry.due(now):
            raise PrimaryUnavailable(
                f"{primary} is blacklisted for another {entry.until - now:.1f} s: "
                f"{entry.reason}; wait, or give it blacklist_duration=0"
            )
    return Decision((primary,), reason, True, pins)


def _names(nodes: tuple[Node, ...]) -> str:
    return ", ".join(n.name for n in nodes) or "none"


def dry(view: View, node: Node, now: float) -> Decision:
    """The decision of a dry run in `view` at `now` (monotonic seconds), in place of one for the
    replica `node`; raises PrimaryUnavailable where there is no primary."""
    behind = view.snapshot.lag_bytes(node.name)
    return _primary(view, Reason.DRY_RUN_BEHIND if behind else Reason.DRY_RUN, now)


def last_resort(view: View, last: LastRead | None) -> tuple[Node, ...]:
    """Replicas of `view` for a read without a pin that the primary cannot serve either, as recent
    as the `last` read. They are blacklisted for what clients met, and yet answer probes: better
    than an error. A node that was taken out by hand stays out."""
    out = view.out
    replicas = view.snapshot.replicas
    found = tuple(n for n in replicas if (e := out.get(n.name)) is None or e.until != inf)
    return found if last is None else as_recent(view, found, last)


def _fallback(
    view: View, policy: Policy, now: float, last: LastRead | None, failed: tuple[Node, ...]
) -> Decision:
    """Row 8: no replica is eligible, or left: the primary, else a replica as the last resort."""
    try:
        return _substitute(view, policy, now, failed)
    except errors.NodeUnavailable:
        if not policy.fallback:
            raise
        primary = view.snapshot.primary
        if nodes := _left(last_resort(view, last), failed):
            return Decision(nodes, Reason.LAST_RESORT, False)
        if primary is None or not failed or primary in failed or primary.name in view.out:
            raise
    # Probes call the primary down, and all else has failed the statement: it may be back.
    return Decision((primary,), Reason.NO_REPLICA, True)


def _substitute(view: View, policy: Policy, now: float, failed: tuple[Node, ...]) -> Decision:
    """The primary in the place of replicas, unless it has failed the statement twice: the first
    connection may have been an old one."""
    if not policy.fallback:
        raise errors.NoReplicaAvailable(
            f"no replica is eligible ({view.why_no_reads()}) and fallback='error' forbids the "
            "primary"
        )
    primary = view.snapshot.primary
    if primary is not None and failed.count(primary) > 1:
        raise errors.NoReplicaAvailable(f"no node is left to run it: {view.why_no_reads()}")
    return _primary(view, Reason.NO_REPLICA, now)
