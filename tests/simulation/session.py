"""A session of the model of PostgreSQL, and its transactions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from tests.simulation.answers import ENDS, Blocked, Commit, Refused, Rows, broken
from tests.simulation.settings import DEFAULTS, LEVELS, READ_COMMITTED, SERIALIZABLE, shown
from tests.simulation.statements import STATEMENTS, understood
from tests.simulation.synchronous import Wait
from tests.simulation.wal import Key, Line

if TYPE_CHECKING:
    from tests.simulation.postgres import Server

Values: TypeAlias = tuple[dict[str, str], dict[str, str]]
"""What was set for the session, and what for its transaction only."""


class Transaction:
    """One transaction, or a savepoint's part of one while it holds locks of its own."""

    __slots__ = (
        "_over", "deferrable", "failed", "frames", "id", "into", "isolation", "keys", "ops",
        "portal", "read_only", "session", "snapshot", "snapshot_taken", "top", "waiting",
        "writes", "wrote",
    )  # fmt: skip

    step = 0.01
    """Seconds until whoever waits for its locks shall look again."""

    def __init__(self, session: "Session", number: int, isolation: str, read_only: bool) -> None:
        self.session = session
        self.id = number
        self.isolation = isolation
        self.read_only = read_only
        self.deferrable = False
        self.failed = False
        self.wrote = False  # it has a number on the server, and so a record of its end
        self.snapshot: tuple[Line, int] | None = None
        self.snapshot_taken = False
        self.portal = False  # its last statement was a query that leaves its portal open
        self.waiting: Transaction | None = None
        self.writes: dict[Key, Any] = {}
        self.ops: list[str] = []
        self.keys: list[Key] = []
        self.frames: list[Frame] = []
        self.top: Transaction = self
        self.into: Transaction | None = None
        self._over = False

    @property
    def over(self) -> bool:
        """Whether what it had locked is free again."""
        return self._over or (self.into is not None and self.into.over)

    @property
    def sees_old_rows(self) -> bool:
        """Whether it holds a snapshot while it idles. In READ COMMITTED that of its last query
        where that had parameters: its portal, which has no name, stays until the next statement.
        """
        return not self.failed and (self.snapshot is not None or self.portal)

    @property
    def holder(self) -> "Transaction":
        """What new locks belong to."""
        return self.frames[-1].hold if self.frames else self

    def savepoint(self, name: str, values: Values) -> "Frame":
        """A savepoint of what it has done by now, with settings of `values`."""
        writes, ops = dict(self.writes), len(self.ops)
        return Frame(name, self.part(), writes, ops, self.read_only, values)

    def part(self) -> "Transaction":
        """A part that holds locks of its own."""
        part = Transaction(self.session, self.id, self.isolation, self.read_only)
        part.top = self
        return part

    def writes_now(self) -> None:
        """It gets a number on the server, and so does each part of it, and a record of its end."""
        self.wrote = True
        for frame in self.frames:
            frame.hold.wrote = True

    def vanish(self) -> None:
        """The server is killed: it leaves no record."""
        self.wrote = False
        for frame in self.frames:
            frame.hold.wrote = False

    def release(self, locks: dict[Key, "Transaction"]) -> None:
        """It is over: give up all locks."""
        for frame in self.frames:
            frame.hold.free(locks)
        self.free(locks)

    def free(self, locks: dict[Key, "Transaction"]) -> None:
        """Give up the locks that are its own."""
        for key in self.keys:
            locks.pop(key, None)
        self.keys = []
        self._over = True


@dataclass(slots=True)
class Frame:
    """A savepoint: its name, and all as it was then."""

    name: str
    hold: Transaction
    writes: dict[Key, Any]
    ops: int
    read_only: bool
    values: Values


class Session:
    """One session on `server`. `why` says how it ended: "closed", "killed", or the SQLSTATE."""

    __slots__ = (
        "_asynchronous", "_custom", "_deferrable", "_last", "_local", "_reset", "_saved", "_set",
        "_waits", "alone", "awaited", "cancelled_until", "changed", "default_read_only", "ended",
        "id", "isolation", "open", "plain", "server", "transaction", "user", "why", "world",
    )  # fmt: skip

    def __init__(
        self, server: "Server", number: int, user: str, settings: Mapping[str, str]
    ) -> None:
        self.server = server
        self.world = server.world
        self.id = number
        self.user = user
        self.open = True
        self.why = ""
        self.ended = 0.0
        self.transaction: Transaction | None = None
        self.alone: Transaction | None = None  # of a statement in autocommit that is blocked
        self.awaited: Wait | None = None  # what its last commit waits for
        self._last: Refused | None = None
        self.cancelled_until = 0.0  # until when the next query meets a conflict
        self._custom: set[str] = set()
        self._reset: dict[str, str] = {}
        # Both are replaced whole, so that what a savepoint remembers stays as it was.
        self._set: dict[str, str] = {}
        self._local: dict[str, str] = {}
        self._saved: Values = (self._set, self._local)
        for name, value in settings.items():
            known = self._name(name)
            self._reset[known] = shown(known, value)
        self._settings_changed()

    def __repr__(self) -> str:
        return f"<Session {self.id} on {self.server.name} {self.why or 'open'}>"

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction block is open, be it a failed one."""
        return self.transaction is not None

    @property
    def failed(self) -> bool:
        """Whether the open transaction block can only be rolled back."""
        return self.transaction is not None and self.transaction.failed

    @property
    def read_only(self) -> bool:
        """Whether what runs next may not write."""
        if self.transaction is not None:
            return self.transaction.read_only
        return self.server.recovering or self.default_read_only

    @property
    def settings(self) -> dict[str, str]:
        """What differs from the session's start."""
        return {**self._set, **self._local}

    def execute(
        self, sql: str, params: Mapping[str, Any] | Sequence[Any] | None, now: float, op: str = ""
    ) -> Rows:
        """Run one statement. Raises Refused, or Blocked: see there."""
        if not self.open:
            refused, self._last = self._last, None
            raise refused or broken()
        if self.awaited is not None:
            return self._go_on(self.awaited)
        statement = STATEMENTS.get(sql) or understood(sql)
        transaction = self.transaction
        if transaction is None:
            return self._answer(statement.run(self, params, now, op))
        if transaction.failed and not statement.ends:
            text = (
                "current transaction is aborted, commands ignored until end of transaction block"
            )
            raise Refused("25P02", text)
        transaction.portal = False
        try:
            rows = statement.run(self, params, now, op)
            transaction.portal = statement.query and bool(params)
            return self._answer(rows)
        except Refused as refused:
            if refused.ends:
                self._last = None
            elif self.transaction is transaction:
                self._fail(transaction, now)
            raise

    def _answer(self, rows: Rows) -> Rows:
        """The answer `rows`, once no commit waits for a standby."""
        if self.awaited is None:
            return rows
        self.awaited.rows = rows
        raise Blocked(self.awaited)

    def _go_on(self, awaited: Wait) -> Rows:
        if not awaited.over:
            raise Blocked(awaited)
        self.awaited = None
        return awaited.rows

    def cancel(self, now: float) -> Refused:
        """Cancel the statement that is blocked; returns the error it gets."""
        if self.transaction is not None:
            self._fail(self.transaction, now)
        if self.alone is not None:
            self.undo(self.alone, now)
            self.alone = None
        return Refused("57014", "canceling statement due to user request")

    def cancel_next(self, now: float) -> None:
        """The query that runs in the next second meets a recovery conflict."""
        self.cancelled_until = now + 1.0

    def meet_conflict(self, now: float) -> None:
        """Refused where a conflict cancels the query that now runs."""
        met, self.cancelled_until = now <= self.cancelled_until, 0.0
        if not met or not self.server.recovering:
            return
        if self.transaction is not None and self.transaction.frames:
            # To abort the inner transaction would not be enough.
            self.server.terminate(self, "40001", now)
            raise Refused("40001", ENDS["40001"], ends=True)
        raise Refused("40001", "canceling statement due to conflict with recovery")

    def close(self, now: float) -> None:
        """The client went away."""
        if self.open:
            self.end("closed", None, now)

    def end(self, why: str, last: Refused | None, now: float, *, vanish: bool = False) -> None:
        """End it; its transaction is rolled back, or with `vanish` just gone."""
        if not self.open:
            return
        self.open = False
        self.why = why
        self.ended = now
        self._last = last
        for transaction in (self.transaction, self.alone):
            if transaction is not None:
                if vanish:
                    transaction.vanish()
                self.undo(transaction, now)
        # A commit that waits for a standby does so without its client too.
        self.transaction = self.alone = self.awaited = None
        self.server.sessions.pop(self.id, None)

    # -- transactions -----------------------------------------------------------------------

    def new_transaction(self) -> Transaction:
        """A transaction as the session's settings have it; it is not open yet."""
        read_only = self.default_read_only or self.server.recovering
        number = self.world.number()
        transaction = Transaction(self, number, self.isolation, read_only)
        transaction.deferrable = self._deferrable
        return transaction

    def take_snapshot(self, transaction: Transaction) -> tuple[Line, int]:
        """What a statement of `transaction` sees."""
        server = self.server
        transaction.snapshot_taken = True
        if transaction.isolation is READ_COMMITTED:
            return server.line, server.position
        if transaction.snapshot is None:
            if transaction.isolation is SERIALIZABLE:
                if server.recovering:
                    raise Refused("0A000", "cannot use serializable mode in a hot standby")
                if transaction.read_only and transaction.deferrable:
                    self._await_safe_snapshot()
            transaction.snapshot = (server.line, server.position)
        return transaction.snapshot

    def _await_safe_snapshot(self) -> None:
        for session in self.server.sessions.values():
            other = session.transaction
            if other is None or other.over or other.read_only or session is self:
                continue
            if other.isolation is SERIALIZABLE and other.snapshot is not None:
                raise Blocked(other)

    def commit(self, transaction: Transaction, now: float) -> int:
        """Commit; returns where the WAL of the server then ends."""
        server = self.server
        if transaction.wrote:
            end = server.append()
            commit = Commit(
                transaction.id, server.name, server.line.number, end, now, transaction.writes,
                tuple(transaction.ops),
            )  # fmt: skip
            self.world.committed(commit, server.line)
            (server.flush_later if self._asynchronous else server.flush)(end, now)
            if self._waits and self.world.synchronous:
                self.awaited = server.await_standby(commit, transaction)
                return server.end
        transaction.release(server.locks)
        return server.end

    def undo(self, transaction: Transaction, now: float) -> None:
        """Roll back what `transaction` did, and free its locks."""
        server = self.server
        for frame in reversed(transaction.frames):
            self._abort(frame.hold, now)
        wrote = transaction.wrote
        end = self._abort(transaction, now)
        if wrote:
            server.flush_later(end, now)
        transaction.writes, transaction.ops = {}, []
        transaction.waiting = None

    def _abort(self, part: Transaction, now: float) -> int:
        """Free the locks of a transaction, or of a part of one; its record is no commit."""
        server = self.server
        if part.wrote:
            part.wrote = False
            server.line.ends.append(server.append())
            server.line.whens.append(now)
        part.free(server.locks)
        return server.end

    def _fail(self, transaction: Transaction, now: float) -> None:
        """A statement in `transaction` failed: its locks are free at once, or those taken since
        the last savepoint."""
        transaction.failed = True
        transaction.waiting = None
        if transaction.frames:
            self.unwind(transaction, len(transaction.frames) - 1, now)
        else:
            self.undo(transaction, now)

    def unwind(self, transaction: Transaction, at: int, now: float) -> None:
        """Undo what was done since the savepoint `at`."""
        for frame in reversed(transaction.frames[at:]):
            self._abort(frame.hold, now)
        frame = transaction.frames[at]
        transaction.writes = dict(frame.writes)
        del transaction.ops[frame.ops :]
        frame.hold = transaction.part()

    def enter(self, transaction: Transaction) -> None:
        """The transaction block `transaction` is open."""
        self.transaction = transaction
        self._saved = self.values

    def leave(self, *, keep: bool) -> None:
        """No transaction block is open any more; settings made in it stay with `keep`."""
        self.transaction = None
        self.values = (self._set, {}) if keep else self._saved

    # -- settings ---------------------------------------------------------------------------

    @property
    def values(self) -> Values:
        """What was set."""
        return self._set, self._local

    @values.setter
    def values(self, values: Values) -> None:
        if self._set is not values[0] or self._local or values[1]:
            self._set, self._local = values
            self._settings_changed()

    def _name(self, name: str) -> str:
        """`name` as it is kept. Refused where the server knows no such setting."""
        known = name.lower()
        if known in DEFAULTS:
            return known
        if "." in known:
            self._custom.add(known)
            return known
        raise Refused("42704", f'unrecognized configuration parameter "{name}"')

    def _get(self, name: str) -> str | None:
        """The value of the setting `name`, None where there is none."""
        for values in (self._local, self._set, self._reset, DEFAULTS):
            if name in values:
                return values[name]
        return "" if name in self._custom else None

    def show(self, name: str) -> str | None:
        """What SHOW gives for `name`, None where the server knows no such setting."""
        name = name.lower()
        if name == "transaction_read_only":
            return "on" if self.read_only else "off"
        transaction = self.transaction
        if name == "transaction_isolation":
            return self.isolation if transaction is None else transaction.isolation
        if name == "transaction_deferrable":
            on = self._deferrable if transaction is None else transaction.deferrable
            return "on" if on else "off"
        return self._get(name)

    def put(self, name: str, value: str | None, local: bool) -> str:
        """Set `name`, to its first value where `value` is None; returns what it then is."""
        known = self._name(name)
        if value is not None:
            value = shown(known, value)
        if local and self.transaction is None:
            return self._first(known) if value is None else value
        kept = {n: v for n, v in self._local.items() if n != known}
        if local:
            self._local = {**kept, known: self._first(known) if value is None else value}
        else:
            self._local = kept
            before = {n: v for n, v in self._set.items() if n != known}
            changed = value is not None and value != self._first(known)
            self._set = {**before, known: value} if changed and value is not None else before
        self._settings_changed()
        return self._get(known) or ""

    def _first(self, name: str) -> str:
        return self._reset.get(name, DEFAULTS.get(name, ""))

    def _settings_changed(self) -> None:
        self.changed = tuple(sorted(self.settings.items()))
        self.isolation = LEVELS[self._get("default_transaction_isolation") or READ_COMMITTED]
        self.default_read_only = self._get("default_transaction_read_only") == "on"
        self.plain = self.isolation is not SERIALIZABLE
        self._deferrable = self._get("default_transaction_deferrable") == "on"
        committing = self._get("synchronous_commit")
        self._asynchronous = committing == "off"
        self._waits = committing not in ("off", "local")
