"""What surrounds a statement in its checkout, and whether it has to begin a transaction."""

import enum
from typing import NamedTuple

from router.model import Node
from router.rules.decision import Decision, Policy
from router.sql.intent import Intent, Kind, Verb

NO_TRANSACTION = frozenset(
    {Verb.BEGIN, Verb.COMMIT, Verb.ROLLBACK, Verb.COMMIT_PREPARED, Verb.ROLLBACK_PREPARED}
)
"""Statements that need, or bear, no open transaction: a raw BEGIN is the transaction."""

WITHOUT_TRANSACTION = ("AUTOCOMMIT", "READ COMMITTED")
"""Isolation levels under which a read is a snapshot of its own."""


class Transaction(enum.Enum):
    """What surrounds a statement in its checkout."""

    NONE = "no transaction"  # or an autobegun one that has written nothing
    EXPLICIT = "explicit transaction"
    ISOLATED = "transaction above READ COMMITTED"  # whose reads share one snapshot
    READ_ONLY = "read-only transaction"
    ON_PRIMARY = "transaction open on the primary"
    ON_REPLICA = "transaction open on a replica"
    BOUND = "session bound to the primary"


class Situation(NamedTuple):
    """What surrounds one statement in its checkout, and what became of it so far.

    Attributes:
        transaction: what is open, or was asked for.
        replica: on which a transaction is open, else None.
        isolation: the level statements run at.
        stream: a server-side cursor is wanted, which lives in a transaction.
        settings_open: the open transaction has changed settings, which only it has.
        leaves: its own options send the statement to the primary, out of a transaction that is
            open on a replica.
        failed: nodes that failed this statement; the primary twice where a new connection failed
            it, or could not be opened.
    """

    transaction: Transaction = Transaction.NONE
    replica: Node | None = None
    isolation: str = "READ COMMITTED"
    stream: bool = False
    settings_open: bool = False
    leaves: bool = False
    failed: tuple[Node, ...] = ()


NOTHING = Situation()
"""Nothing is open, and nothing was asked for."""


def surrounding(
    isolation: str,
    *,
    on_primary: bool,
    on_replica: bool,
    bound: bool,
    declared: bool,
    read_only: bool,
    explicit: bool,
) -> Transaction:
    """What surrounds a statement at the level `isolation` whose checkout has a transaction open
    `on_primary` or `on_replica`, is `bound` to the primary's session, began the transaction by a
    ``BEGIN READ ONLY`` (`declared`), or was asked for `read_only` or `explicit` transactions."""
    if on_primary:
        return Transaction.ON_PRIMARY
    if bound:
        return Transaction.BOUND
    if declared:
        return Transaction.READ_ONLY
    if isolation == "AUTOCOMMIT":
        return Transaction.ON_REPLICA if on_replica else Transaction.NONE
    if isolation == "SERIALIZABLE":
        return Transaction.ISOLATED  # also if it is read-only: a standby refuses the level
    if read_only:
        return Transaction.READ_ONLY
    if isolation == "REPEATABLE READ":
        return Transaction.ISOLATED
    if on_replica:
        return Transaction.ON_REPLICA
    return Transaction.EXPLICIT if explicit else Transaction.NONE


def needs_transaction(
    intent: Intent, situation: Situation, decision: Decision, policy: Policy
) -> bool:
    """Whether the statement of `intent`, in `situation` and sent where `decision` says, has to
    find a transaction open there by `policy`.

    In a bound checkout it always has, as with a plain connection: what its session or its driver
    was told of the transactions to come, such as default_transaction_isolation, is not known here.
    """
    transaction, verb = situation.transaction, intent.verb
    if situation.isolation == "AUTOCOMMIT" or (verb is not None and verb in NO_TRANSACTION):
        return False
    alone = transaction is Transaction.NONE
    if transaction is Transaction.ON_PRIMARY:
        alone = not decision.on_primary  # a read sent elsewhere on purpose
    elif transaction is Transaction.EXPLICIT:
        alone = policy.lazy_transactions
    if not alone or intent.kind is not Kind.READ:
        return True
    return (
        situation.stream
        or intent.needs_transaction
        or situation.settings_open
        or policy.reads_in_transaction
    )
