"""What the router knows of a statement: the `Intent`, and the values it is made of."""

import enum
from collections.abc import Callable
from dataclasses import dataclass


class Kind(enum.Enum):
    """What a statement is to the router."""

    READ = "read"
    WRITE = "write"
    SESSION = "session"
    TRANSACTION = "transaction"


class Verb(enum.Enum):
    """Which transaction control; SET is ``SET TRANSACTION …``."""

    BEGIN = "BEGIN"
    COMMIT = "COMMIT"
    ROLLBACK = "ROLLBACK"
    SAVEPOINT = "SAVEPOINT"
    RELEASE = "RELEASE"
    ROLLBACK_TO = "ROLLBACK TO"
    PREPARE = "PREPARE TRANSACTION"
    COMMIT_PREPARED = "COMMIT PREPARED"
    ROLLBACK_PREPARED = "ROLLBACK PREPARED"
    SET = "SET TRANSACTION"


class OnStandby(enum.Enum):
    """What becomes of a statement that is no read, in a read-only transaction on a standby."""

    REFUSED = "the standby refuses it by itself, before anything of it acts"
    DOUBTED = "it names a relation or type that is not in the catalog as last read"
    UNSEEN = "nobody knows what it calls"
    ACTS = "it acts there in silence, or may"


@dataclass(frozen=True, slots=True)
class Intent:
    """What a statement does.

    Attributes:
        kind: what it is to the router.
        reason: what in the statement decided, printable.
        binds: it leaves something only that server session has (a temporary table, a session
            advisory lock, PREPARE, LISTEN …), or takes it away from the journal's sight.
        holds: it binds for certain, as the statement itself says; not by what a function might do.
        local: of SESSION: what it sets ends with the transaction.
        settings: of SESSION: the settings it changes, in lower case; None when any may be. Of a
            WRITE that binds: those that must not stay behind in its session.
        verb: of TRANSACTION: which.
        read_only: the declared mode, None when nothing was declared.
        isolation: the declared level, in upper case, None when nothing was declared.
        needs_transaction: it works in a real transaction block only.
        ddl: it changes what the catalog says.
        no_transaction: it cannot run in a transaction block.
        on_standby: of WRITE: what a standby would make of it.
        server_local: of READ: its answer describes the server or the session that gives it, such
            as a process id, locks or counters, so that another node's would be another one.
        signals: it signals a process, by an id that means something on one server only.
        parameters: the parameters that decide what it does, by position from 0 or by name, and
            are not looked at yet: those that say what a set_config() sets, and for how long.
        computed: of SESSION: what it sets is not known before it has run, and need not be the same
            if it runs again.
        hint: "primary" or "replica" where a comment of the statement says so; the latter of a READ
            only.
    """

    kind: Kind
    reason: str
    binds: bool = False
    holds: bool = False
    local: bool = False
    settings: tuple[str, ...] | None = ()
    verb: Verb | None = None
    read_only: bool | None = None
    isolation: str | None = None
    needs_transaction: bool = False
    ddl: bool = False
    no_transaction: bool = False
    on_standby: OnStandby = OnStandby.ACTS
    server_local: bool = False
    signals: bool = False
    parameters: tuple[int | str, ...] = ()
    computed: bool = False
    hint: str | None = None

    @property
    def writes(self) -> bool:
        """Whether there is something to be read afterwards that was not there before."""
        return self.kind is Kind.WRITE or self.verb is Verb.COMMIT_PREPARED

    @property
    def may_be_ddl(self) -> bool:
        """Whether what it runs, of which nobody knows all, may change what the catalog says: SQL
        put together at run time, a text that does not parse, a transaction prepared before."""
        unknown = self.kind is Kind.WRITE and (self.binds or self.on_standby is OnStandby.UNSEEN)
        return unknown or self.verb is Verb.COMMIT_PREPARED


Rule = Callable[[str], Intent | Kind | None]
"""A user's own rule: it takes a statement's text and returns what that does, or None to leave the
answer to the grammar."""
