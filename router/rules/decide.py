"""The rules of routing, as one pure function: which nodes may run this statement, and why.

The rows of the rules table in ``docs/reference/rules.md`` carry the same numbers as the comments
here. Nothing in this module reads a clock, opens a socket or takes a lock.
"""

import enum
from collections.abc import Mapping
from dataclasses import replace
from math import inf
from typing import NamedTuple

from router.errors import NoReplicaAvailable, PrimaryUnavailable, ReplicaWriteRefused
from router.model import Node, Snapshot
from router.rules.blacklist import Entry
from router.rules.context import LastRead, Pin
from router.sql.intent import Intent, Kind, OnStandby


class Transaction(enum.Enum):
    """What surrounds a statement in its checkout."""

    NONE = "no transaction"  # or an autobegun one that has written nothing
    EXPLICIT = "explicit transaction"
    ISOLATED = "transaction above READ COMMITTED"  # whose reads share one snapshot
    READ_ONLY = "read-only transaction"
    ON_PRIMARY = "transaction open on the primary"
    ON_REPLICA = "transaction open on a replica"
    BOUND = "session bound to the primary"


class Reason(enum.Enum):
    """Why a statement went where it went: printed, counted and tested."""

    FORCED_PRIMARY = "the caller asked for the primary"
    FORCED_REPLICA = "the caller asked for a replica"
    TRANSACTION = "a transaction is open on the primary"
    BOUND = "the session holds something only the primary's session has"
    WRITE = "a write, or not positively a read"
    EXPLICIT = "an explicit transaction that is not read-only"
    READ_ONLY = "a read-only transaction"
    PIN_REPLICA = "pinned, and the replica has replayed the pin"
    PIN_PRIMARY = "pinned, and no replica has replayed the pin"
    MONOTONIC_PRIMARY = "no replica is as recent as the last read"
    READ = "a read"
    HELD = "a read in a transaction open on a replica"
    NO_REPLICA = "no replica is eligible"
    LAST_RESORT = "the primary is away, and a blacklisted replica answers probes"
    DRY_RUN = "a dry run: a replica would have served it"
    DRY_RUN_BEHIND = "a dry run: a replica that was behind would have served it"
    HEALED = "a replica refused it as a write"
    RETRIED = "the first node failed"

    def __str__(self) -> str:
        return self.value


# Counted with every statement; Enum's own is a call in Python.
Reason.__hash__ = object.__hash__  # type: ignore[method-assign]


class Decision(NamedTuple):
    """Where a statement may run.

    Attributes:
        nodes: the candidates; the balancer chooses among several, and a retry takes another.
        reason: the rule that applied.
        on_primary: whether the candidates are the primary.
        pins: the context must be pinned before the statement is sent.
    """

    nodes: tuple[Node, ...]
    reason: Reason
    on_primary: bool
    pins: bool = False


class View:
    """A snapshot together with a blacklist, with what every read asks of the two worked out once.

    Made anew when either of them is replaced; checking and using one View is what keeps a host
    list that changes between the check and the use from letting a stale read through.
    """

    __slots__ = (
        "any_read", "any_within", "out", "outdated", "replicas", "snapshot", "timeline",
        "write_within",
    )  # fmt: skip

    def __init__(self, snapshot: Snapshot, out: Mapping[str, Entry]) -> None:
        self.snapshot: Snapshot = snapshot
        self.timeline: int = snapshot.timeline
        self.out: Mapping[str, Entry] = out
        replicas = snapshot.replicas
        if out:
            replicas = tuple(n for n in replicas if n.name not in out)
        self.replicas: tuple[Node, ...] = replicas
        self.any_read: Decision | None = (
            Decision(replicas, Reason.READ, False) if replicas else None
        )
        # What is known of some node is from before: its connections are to be asked themselves.
        self.outdated: bool = any(report.obstacle for report in snapshot.reports.values())
        # For statements in a transaction open on the primary: what is no write, and writes.
        primary = snapshot.primary
        self.any_within: Decision | None = None
        self.write_within: Decision | None = None
        if primary is not None and not snapshot.doubted(primary.name):
            self.any_within = Decision((primary,), Reason.TRANSACTION, True)
            self.write_within = self.any_within._replace(pins=True)


class Policy(NamedTuple):
    """The options that change the rules.

    Attributes:
        consistency: "lsn", "time" or "off".
        pin_duration: seconds a pin lasts in "time" mode.
        fallback: whether reads may use the primary when no replica is eligible.
        lazy_transactions: explicit transactions start on the primary only at their first write.
    """

    consistency: str = "lsn"
    pin_duration: float = 5.0
    fallback: bool = True
    lazy_transactions: bool = False


def resolved(pin: Pin, snapshot: Snapshot) -> Pin | None:
    """`pin` with a WAL position on the current timeline, or None while none is known.

    Any position sampled on the primary after the commit returned bounds the commit from above.
    Positions of different timelines are not comparable, so after a promotion the bound is taken
    anew from the new primary. A pin of a timeline yet to come is from a process that has met the
    new primary already; until this one does, no position of the old one covers it.
    """
    if pin.lsn is not None and pin.timeline == snapshot.timeline:
        return pin
    if pin.timeline > snapshot.timeline:
        return None
    lsn = snapshot.bound(pin.at)
    return None if lsn is None else replace(pin, lsn=lsn, timeline=snapshot.timeline)


def expired(pin: Pin, snapshot: Snapshot, policy: Policy, now: float) -> bool:
    """Whether `pin` can be forgotten: its time is over, or every replica has replayed it.

    A replica that is out now counts too: it may come back with an older state.
    """
    if policy.consistency == "time":
        return pin.waited(now) >= policy.pin_duration
    if pin.lsn is None or pin.timeline != snapshot.timeline:
        return False
    lsn = pin.lsn
    return all(
        (at := snapshot.replayed(n.name)) is not None and at >= lsn
        for n in snapshot.nodes
        if n is not snapshot.primary
    )


def decide(
    intent: Intent,
    transaction: Transaction,
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
        transaction: what surrounds it.
        view: the cluster as last seen.
        policy: the options that change the rules.
        now: monotonic seconds.
        pin: the context's pin, with its position where one is known.
        last: where the context read last; None outside a request context.
        force: "primary" or "replica" when the caller said so.

    Raises:
        ReplicaWriteRefused: a write was asked onto a replica, or would act there in silence, in a
            read-only transaction.
        PrimaryUnavailable: only the primary may run it, and there is none.
        NoReplicaAvailable: no replica is eligible and ``fallback="error"``.
    """
    read = intent.kind is Kind.READ or intent.kind is Kind.SESSION
    if force is not None:  # row 1
        if force == "primary":
            return _primary(view, Reason.FORCED_PRIMARY, now, pins=intent.writes)
        if intent.kind is Kind.WRITE:
            raise ReplicaWriteRefused(
                f"a replica was asked for, but the statement writes ({intent.reason}): "
                "run it outside using_replica(), or drop router='replica'"
            )
        if not view.replicas:
            return _fallback(view, policy, now, None)
        return Decision(view.replicas, Reason.FORCED_REPLICA, False)
    if transaction is Transaction.ON_PRIMARY:  # row 2
        within = view.write_within if intent.kind is Kind.WRITE else view.any_within
        return within or _primary(view, Reason.TRANSACTION, now, held=True)
    if transaction is Transaction.BOUND:
        return _primary(view, Reason.BOUND, now, pins=intent.writes, held=True)
    if transaction is not Transaction.READ_ONLY:
        if not read:  # row 3
            serializable = intent.isolation == "SERIALIZABLE"  # which no standby knows
            if intent.kind is Kind.TRANSACTION and intent.read_only and not serializable:
                transaction = Transaction.READ_ONLY
            else:
                return _primary(view, Reason.WRITE, now, pins=intent.writes)
        elif transaction is Transaction.ISOLATED or (
            transaction is Transaction.EXPLICIT and not policy.lazy_transactions
        ):  # row 4
            return _primary(view, Reason.EXPLICIT, now)
        elif transaction is Transaction.ON_REPLICA and view.replicas:
            return Decision(view.replicas, Reason.HELD, False)
    reason = Reason.READ_ONLY if transaction is Transaction.READ_ONLY else Reason.READ  # row 5
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
    if intent.kind is Kind.WRITE and intent.on_standby is not OnStandby.REFUSED:
        if replicas and intent.on_standby is OnStandby.ACTS:
            raise acts_on_replica(intent)
        if replicas or policy.fallback:
            # Nothing is open yet, so what nobody knows may as well begin on the primary.
            return _primary(view, reason if replicas else Reason.NO_REPLICA, now)
    if not replicas:  # row 8
        return _fallback(view, policy, now, last)
    if reason is Reason.READ and replicas is view.replicas and view.any_read is not None:
        return view.any_read  # row 7, the hot path: nothing is allocated
    return Decision(replicas, reason, False)


def acts_on_replica(intent: Intent) -> ReplicaWriteRefused:
    """The error for what a standby would run in a read-only transaction, and must not."""
    return ReplicaWriteRefused(
        f"a read-only transaction runs on a replica, where this ({intent.reason}) would act and "
        "not be refused: run it outside that transaction, or list its function in read_functions "
        "if it is harmless"
    )


def caught_up(view: View, pin: Pin, policy: Policy, now: float) -> tuple[Node, ...]:
    """The eligible replicas on which `pin` is satisfied."""
    if policy.consistency == "time":
        return view.replicas if pin.waited(now) >= policy.pin_duration else ()
    snapshot, lsn = view.snapshot, pin.lsn
    if lsn is None or pin.timeline != snapshot.timeline:
        return ()
    found = tuple(
        n for n in view.replicas if (at := snapshot.replayed(n.name)) is not None and at >= lsn
    )
    return view.replicas if len(found) == len(view.replicas) else found


def as_recent(view: View, replicas: tuple[Node, ...], last: LastRead) -> tuple[Node, ...]:
    """Those of `replicas` that show nothing older than what the context has read already.

    The replica it read from last, while eligible and without a break since. Otherwise those that
    have replayed what the primary had written by then: what the last one reports now counts for
    nothing, for it may have crashed and come back with less than was read from it.
    """
    snapshot = view.snapshot
    report = snapshot.reports.get(last.node.name)
    if report is not None and report.since <= last.at and last.node in replicas:
        return (last.node,)
    floor = snapshot.bound(last.at)
    if floor is None:
        # Where no server tells a position, to stay on one replica is all that can be done.
        return replicas if snapshot.blind() else ()
    return tuple(
        n for n in replicas if (at := snapshot.replayed(n.name)) is not None and at >= floor
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
    # What is open there already may finish, or fail by itself.
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
    """The decision of a dry run in place of one for the replica `node`.

    Raises:
        PrimaryUnavailable: there is no primary.
    """
    behind = view.snapshot.lag_bytes(node.name)
    return _primary(view, Reason.DRY_RUN_BEHIND if behind else Reason.DRY_RUN, now)


def last_resort(view: View, last: LastRead | None) -> tuple[Node, ...]:
    """Replicas for a read without a pin that the primary cannot serve either.

    They are blacklisted for what clients met, and yet answer probes: better than an error. One
    that was taken out by hand stays out.
    """
    out = view.out
    found = tuple(
        n for n in view.snapshot.replicas if (e := out.get(n.name)) is None or e.until != inf
    )
    return found if last is None else as_recent(view, found, last)


def _fallback(view: View, policy: Policy, now: float, last: LastRead | None) -> Decision:
    if not policy.fallback:
        raise NoReplicaAvailable(
            f"no replica is eligible ({why_not(view)}) and fallback='error' forbids the primary"
        )
    try:
        return _primary(view, Reason.NO_REPLICA, now)
    except PrimaryUnavailable:
        if nodes := last_resort(view, last):
            return Decision(nodes, Reason.LAST_RESORT, False)
        raise


def why_not(view: View) -> str:
    """One line saying of each node other than the primary why it takes no reads."""
    snapshot = view.snapshot
    parts = []
    for node in snapshot.nodes:
        if node is snapshot.primary:
            continue
        report = snapshot.reports.get(node.name)
        entry = view.out.get(node.name)
        if entry is not None:
            why = f"blacklisted: {entry.reason}"
        elif report is None:
            why = "not probed yet"
        elif report.error:
            why = report.error
        elif foreign := snapshot.foreign(node.name):
            why = f"it {foreign}"
        elif node.name in snapshot.strays:
            why = f"does not follow the primary: {snapshot.strays[node.name].why}"
        else:
            why = "behind or not a replica"
        parts.append(f"{node.name}: {why}")
    return "; ".join(parts) or "none configured"
