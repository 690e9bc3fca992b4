"""One node's pooled connection while a checkout holds it, and how to leave it as it was found."""

import asyncio
import enum
from abc import ABC, abstractmethod
from typing import Any, Literal, NamedTuple

from router.connect.hangup import HangUp
from router.model import Node
from router.rules.blacklist import ENDED, LOST, among
from router.rules.journal import Entry, Journal, literal
from router.runtime import Runtime
from router.sql.intent import Intent, Kind


class Characteristics(NamedTuple):
    """Transaction settings made through the front door; None is the connection's default."""

    isolation: str | None = None
    read_only: bool | None = None
    deferrable: bool | None = None


DEFAULTS = Characteristics()

READ, WRITE = Kind.READ, Kind.WRITE
"""By names of their own: in Python 3.11 a member is slow to reach through its enumeration."""

PING = "SHOW transaction_read_only"
"""A query for asking whether a server answers. In an open transaction it takes no snapshot, so
that ``SET TRANSACTION`` may still follow, and in a failed one its error is an answer too."""


class Life(enum.Enum):
    """What became of asking a server over one connection."""

    ANSWERS = "it answers"
    ENDED = "the connection had ended"
    SILENT = "it said nothing in time"


class NodeConnection(ABC):
    """The pooled connection of `node` while a `router.checkout.checkout.Checkout` holds it.

    What differs between drivers and pools is abstract here. It may be `in_transaction` when it is
    taken, as a pool's listeners may leave it; that transaction is then the user's.
    """

    __slots__ = (
        "applied", "broken", "characteristics", "distrusted", "fresh", "in_transaction", "node",
        "spoilt", "streams", "wrote",
    )  # fmt: skip

    def __init__(self, node: Node, *, in_transaction: bool) -> None:
        self.node: Node = node
        self.in_transaction: bool = in_transaction
        self.broken: bool = False
        # It is broken, and whatever else its pool holds is no better.
        self.distrusted: bool = False
        # A statement left something in its session that nothing but its end undoes.
        self.spoilt: bool = False
        # A server-side cursor was opened in its transaction, and may have rows to be fetched.
        self.streams: bool = False
        # A write was sent, and its session knows what of: lastval(), and whatever a function or a
        # trigger left there unseen.
        self.wrote: bool = False
        # It was opened for the statement that runs: every new connection would meet the same.
        self.fresh: bool = False
        self.applied: list[Entry] = []
        self.characteristics: Characteristics = DEFAULTS

    def __repr__(self) -> str:
        state = " in transaction" * self.in_transaction
        return f"<{type(self).__name__} {self.node.name}{state}>"

    @property
    @abstractmethod
    def errors(self) -> tuple[type[Exception], ...]:
        """What the driver raises."""

    @property
    @abstractmethod
    def first_settings(self) -> dict[str, str]:
        """The first values of settings that were changed; kept while the connection lives."""

    @abstractmethod
    def autocommit(self, value: bool) -> None:
        """Switch autocommit to `value` unless it is so already; no transaction may be open."""

    @abstractmethod
    def run(self, sql: str, parameters: Any = None) -> None:
        """Run `sql` with `parameters`; nobody wants its rows."""

    @abstractmethod
    def ask(self, sql: str) -> tuple[Any, ...]:
        """The one row that the query `sql` gives."""

    @abstractmethod
    def look(self) -> bool:
        """Whether the server has a transaction open; corrects what the driver takes for true."""

    @abstractmethod
    def end(self, verb: Literal["commit", "rollback"]) -> None:
        """End the open transaction by `verb`, whoever began it."""

    @abstractmethod
    def characterise(self, wanted: Characteristics) -> None:
        """Make `wanted` the settings of the transactions to come."""

    def characterise_alone(self, wanted: Characteristics) -> None:
        """Make `wanted` hold in autocommit too, where a driver has to: most do not."""
        return

    @abstractmethod
    def report_failure(self, error: Any, cursor: Any = None) -> bool:
        """Whether `error`, raised from `cursor`, says that the server, or the way to it, is gone;
        if so, the node is blacklisted."""

    @abstractmethod
    def give_back(self) -> None:
        """Give it to its pool, to be used again."""

    @abstractmethod
    def discard(self, *, distrust: bool) -> None:
        """Close it; with `distrust`, idle connections of its pool are no better."""

    @abstractmethod
    def fileno(self) -> int:
        """The descriptor of its socket."""

    @abstractmethod
    def sqlstate(self, error: BaseException) -> str:
        """The five-character code of `error`, empty when the server sent none."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop it belongs to; None where its calls block the thread."""
        return None

    @property
    def in_autocommit(self) -> bool:
        """Whether `autocommit` would have nothing to do, and so nothing to wait for."""
        return False

    @property
    def busy(self) -> bool:
        """Whether its server runs, or has open, something not known here."""
        return False

    @property
    def running(self) -> bool:
        """Whether its server runs a statement, as far as the driver knows."""
        return False

    @property
    def unsure(self) -> bool:
        """Whether its server may still run a statement that an exception interrupted."""
        return self.busy

    @property
    def recovers(self) -> bool:
        """Whether the driver has had a statement that was just interrupted ended at the server, or
        will before it sends anything else."""
        return False

    def interrupted(self, intent: Intent) -> None:
        """A task's cancellation, or a signal, has ended the wait for the statement of `intent`,
        which may have run. It costs the connection unless it is known how that stands: what begins
        a transaction, or leaves something in the session, may have done so."""
        plain = intent.kind in (READ, WRITE) and not (intent.binds or intent.holds)
        if not plain or not self.recovers:
            self.broken = True

    @property
    def idle(self) -> bool:
        """Whether it can be given back as it is."""
        return self.in_autocommit and not (
            self.broken
            or self.spoilt
            or self.in_transaction
            or self.applied
            or self.characteristics != DEFAULTS
        )

    def answers(self, seconds: float, runtime: Runtime) -> Life:
        """Ask the server whether it is there; it may be silent for `seconds` of `runtime`. Unless
        it answers, this connection is of no use any more."""
        limit: HangUp | None = None
        errors: tuple[type[Exception], ...] = (*self.errors, OSError)
        try:
            limit = HangUp(self.fileno(), seconds, self.loop, runtime)
            with limit:
                if not self.in_transaction and not self.busy:
                    self.autocommit(True)
                self.ask(PING)
        except errors as error:
            state = self.sqlstate(error)
            if not state or state in ENDED or among(state, LOST):
                self.broken = True
                return Life.SILENT if limit is not None and limit.done else Life.ENDED
        except BaseException:
            self.broken = True
            raise
        if limit is not None and limit.done:  # just as it answered
            self.broken = True
        return Life.ANSWERS

    def replay(self, entries: list[Entry]) -> None:
        """Run those of `entries` that this connection has not run yet."""
        for entry in entries[len(self.applied) :]:
            if not entry.local:
                self.note_settings(entry.settings)
            self.run(entry.sql, entry.parameters)
            self.applied.append(entry)

    def note_settings(self, names: tuple[str, ...] | None) -> None:
        """Remember what the settings `names`, about to be changed, are now, to put them back
        later.

        Asked once per connection and setting; what a connect listener set counts as first value.
        What a value local to the transaction hid when it was changed stays unknown.
        """
        known = self.first_settings
        missing = [n for n in names or () if n not in known and not self._is_changed(n)]
        if missing:
            asked = ", ".join(f"current_setting({literal(n)}, true)" for n in missing)
            row = self.ask(f"SELECT {asked}")
            known.update((n, v or "") for n, v in zip(missing, row, strict=True))

    def _is_changed(self, name: str) -> bool:
        """Whether the setting `name` may have another value by now than its first."""
        return any(not e.settings or name in e.settings for e in self.applied)

    def restore_settings(self) -> bool:
        """Put back every session setting changed here; False where that cannot be done."""
        names: set[str] = set()
        for entry in self.applied:
            if not entry.settings or "session_authorization" in entry.settings:
                return False
            names.update(entry.settings)
        known = self.first_settings
        if not names <= known.keys():
            return False
        self.autocommit(True)
        # The role first: what it may not change, the login role may.
        ordered = sorted(names, key=lambda name: (name != "role", name))
        for name in ordered:
            value = known[name] or ("none" if name == "role" else "")
            self.run(f"SELECT set_config({literal(name)}, {literal(value)}, false)")
        return True

    def release(self, journal: Journal) -> None:
        """Give it back to its pool as it was taken, or throw it away. `journal` says what of the
        applied settings outlives the open transaction."""
        if self.broken or self.spoilt or self.running:
            # While its server runs a statement, whose rows nobody has fetched to the end, nothing
            # else can be sent on it, not even what would put it right.
            self.discard(distrust=self.distrusted)
            return
        try:
            if self.in_transaction:
                self.end("rollback")
                self.in_transaction = False
                self.applied = [e for e in self.applied if e in journal.committed()]
            if self.applied and not self.restore_settings():
                # Session settings reach no other user. Closing is the one undo that is always
                # right; a pool replaces the connection when it needs one.
                self.discard(distrust=False)
                return
            if self.characteristics != DEFAULTS:
                self.characterise(DEFAULTS)
        except self.errors:
            self.discard(distrust=True)
            return
        except BaseException:
            # Cancelled or interrupted half-way: nobody knows what was put back.
            self.discard(distrust=False)
            raise
        self.give_back()
