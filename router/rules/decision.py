"""What the rules say of one statement, why, and the options that change them."""

import enum
from typing import NamedTuple

from router.model import Node


class Reason(enum.Enum):
    """Why a statement went where it went: printed, counted and tested."""

    FORCED_PRIMARY = "the caller asked for the primary"
    FORCED_REPLICA = "the caller asked for a replica"
    TRANSACTION = "a transaction is open on the primary"
    BOUND = "the session holds something only the primary's session has"
    WRITE = "a write"
    ACTS = "not a read: a replica would not refuse what it does"
    UNKNOWN = "not surely a read: nobody knows what it does"
    EXPLICIT = "an explicit transaction that is not read-only"
    SERVER_LOCAL = "a read whose answer is the server's own"
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
        nodes: the candidates; the balancer chooses among several.
        reason: the rule that applied.
        on_primary: whether the candidates are the primary.
        pins: the context must be pinned before the statement is sent.
    """

    nodes: tuple[Node, ...]
    reason: Reason
    on_primary: bool
    pins: bool = False


class Policy(NamedTuple):
    """The options that change the rules.

    Attributes:
        consistency: "lsn", "time" or "off".
        pin_duration: seconds a pin lasts in "time" mode.
        fallback: whether reads may use the primary when no replica is eligible.
        lazy_transactions: explicit transactions start on the primary only at their first write.
        reads_in_transaction: reads begin a transaction, as writes do.
        any_server_local: reads whose answer is the server's own are reads like others.
    """

    consistency: str = "lsn"
    pin_duration: float = 5.0
    fallback: bool = True
    lazy_transactions: bool = False
    reads_in_transaction: bool = False
    any_server_local: bool = False
