"""The session state a checkout has built up, so that no statement runs on a node that lacks it.

Pure bookkeeping: adapters run the entries. What a rollback undoes on the server is dropped here
too, so a node taken later is given exactly what is in force.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from router.sql.intent import Intent, Kind, OnStandby

ACTS = frozenset({"role", "session_authorization"})
"""Settings that decide what else may be set."""


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One statement that changed session state. Compared by identity: the same text may recur.

    Attributes:
        sql: the statement.
        parameters: its parameters as the driver takes them, None for none.
        local: it ends with the transaction (``SET LOCAL``, ``set_config(…, true)``).
        settings: names of the settings it changes, None when they cannot be told.
    """

    sql: str
    parameters: Any
    local: bool
    settings: tuple[str, ...] | None = None


def entries(
    sql: str, intent: Intent, parameters: Any, *, many: bool, ask: Callable[[str], tuple[Any, ...]]
) -> Iterator[Entry]:
    """What the statement `sql`, which has been run and does `intent`, adds to a journal.

    Args:
        sql: its text.
        intent: what it does, of the kind SESSION.
        parameters: with which it was run, as the driver takes them.
        many: they are several sets, of which each was run.
        ask: asks for a row where it was run. What was computed must not be computed again, for
            another node may come to another result.
    """
    names, local = intent.settings, intent.local
    if not intent.computed or names is None:
        for each in parameters if many else (parameters,):
            yield Entry(sql, _kept(each), local, names)
        return
    asked = ", ".join(f"current_setting({literal(n)}, true)" for n in names)
    found = {n: v for n, v in zip(names, ask(f"SELECT {asked}"), strict=True) if v is not None}
    if found:  # else no row called set_config()
        said = str(local).lower()
        calls = ", ".join(
            f"set_config({literal(n)}, {literal(v)}, {said})" for n, v in found.items()
        )
        yield Entry(f"SELECT {calls}", None, local, tuple(found))


def _kept(parameters: Any) -> Any:
    """`parameters` as they are now, whatever their owner changes in them later."""
    if isinstance(parameters, dict | list):
        return parameters.copy()
    return parameters


def literal(text: str) -> str:
    """`text` as a literal in SQL."""
    quoted = text.replace("'", "''")
    return f"'{quoted}'" if "\\" not in text else "E'" + quoted.replace("\\", "\\\\") + "'"


def streamed(intent: Intent, *, rows: bool = True) -> Intent:
    """`intent`, with `rows` that of a statement whose rows are asked for one by one.

    A setting is made when a row is asked for, if one ever is, so no journal can say what is in
    force. As for a DECLARE CURSOR, its session is kept; and it ends after that with the settings,
    which nobody puts back.
    """
    if not rows or intent.kind is not Kind.SESSION:
        return intent
    sets = not intent.local
    there = OnStandby.ACTS if sets else OnStandby.DOUBTED
    return Intent(
        Kind.WRITE, f"{intent.reason}, row by row", binds=sets, holds=sets,
        settings=intent.settings if sets else (), on_standby=there,
    )  # fmt: skip


class Journal:
    """The statements in force, in order, with the marks of the open transaction and savepoints."""

    __slots__ = ("_savepoints", "_start", "entries")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._start: int | None = None
        self._savepoints: list[tuple[str, int]] = []

    def __bool__(self) -> bool:
        return bool(self.entries)

    @property
    def in_transaction(self) -> bool:
        """Whether something was added since the transaction began, so it must be a real one."""
        return self._start is not None

    def committed(self) -> list[Entry]:
        """What was in force before the open transaction began."""
        return self.entries if self._start is None else self.entries[: self._start]

    def add(self, entry: Entry, *, transactional: bool) -> Entry:
        """Remember `entry`, a statement that has been run. A rollback undoes it if
        `transactional`, so not in autocommit."""
        if transactional and self._start is None:
            self._start = len(self.entries)
        self.entries.append(entry)
        return entry

    def superseded(self) -> list[Entry]:
        """Entries whose settings later entries have set again; none in a transaction, which may be
        rolled back. One that sets for whom the session acts stays, unless nothing was done in
        between."""
        if self._start is not None or self._savepoints:
            return []
        found: list[Entry] = []
        later: set[str] = set()
        following: Entry | None = None
        for entry in reversed(self.entries):
            names = entry.settings
            if names is None:
                later.clear()  # it may depend on any that stands before it
            elif not entry.local:
                acts = not ACTS.isdisjoint(names)
                if later.issuperset(names) and not (
                    acts and (following is None or ACTS.isdisjoint(following.settings or ()))
                ):
                    found.append(entry)
                    continue
                later.update(names)
            following = entry
        return found

    def forget(self, entries: list[Entry]) -> None:
        """Leave out `entries`, as `superseded` gave them."""
        self.entries = [e for e in self.entries if e not in entries]

    def savepoint(self, name: str) -> None:
        """The savepoint called `name` was set."""
        self._savepoints.append((name, len(self.entries)))

    def rollback_to(self, name: str) -> None:
        """Forget what was added since the savepoint called `name`; the savepoint itself stays."""
        for i in range(len(self._savepoints) - 1, -1, -1):
            if self._savepoints[i][0] == name:
                del self.entries[self._savepoints[i][1] :]
                del self._savepoints[i + 1 :]
                return

    def release(self, name: str) -> None:
        """The savepoint `name` is gone, what came since stays; an older `name` counts again."""
        for i in range(len(self._savepoints) - 1, -1, -1):
            if self._savepoints[i][0] == name:
                del self._savepoints[i:]
                return

    def commit(self) -> None:
        """The transaction was committed: what is local to it ends, the rest stays."""
        self.entries = [e for e in self.entries if not e.local]
        self._start = None
        self._savepoints.clear()

    def rollback(self) -> None:
        """The transaction was rolled back, and all it set with it."""
        if self._start is not None:
            del self.entries[self._start :]
            self._start = None
        if self._savepoints:
            self._savepoints.clear()
