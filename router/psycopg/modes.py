"""What the transactions to come shall be, by attributes that psycopg's connection has."""

from typing import Any

import psycopg
from psycopg import IsolationLevel


class Modes:
    """Autocommit, isolation level, read-only and deferrable: changed between transactions."""

    _autocommit: bool = False
    _isolation: Any = None
    _read_only: bool | None = None
    _deferrable: bool | None = None

    def apply_mode(self) -> None:
        """Tell the checkout what the statements to come are part of."""
        raise NotImplementedError

    def _must_be_open(self) -> None:
        """Raise as psycopg does where the connection is closed."""
        raise NotImplementedError

    def _is_within(self) -> bool:
        """Whether a transaction is open, in which nothing of this may change."""
        raise NotImplementedError

    def _change(self, attribute: str, kept: str, value: Any) -> None:
        self._must_be_open()
        if self._is_within():
            raise psycopg.ProgrammingError(
                f"can't change {attribute!r} now: a transaction is open: commit or roll back"
            )
        setattr(self, kept, value)
        self.apply_mode()

    @property
    def autocommit(self) -> bool:
        """Whether a statement outside a block is a transaction of its own."""
        return self._autocommit

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        self._change("autocommit", "_autocommit", bool(value))

    @property
    def isolation_level(self) -> IsolationLevel | None:
        """Of the transactions to come; None is the server's default."""
        return self._isolation  # type: ignore[no-any-return]

    @isolation_level.setter
    def isolation_level(self, value: IsolationLevel | int | None) -> None:
        level = None if value is None else IsolationLevel(value)
        self._change("isolation_level", "_isolation", level)

    @property
    def read_only(self) -> bool | None:
        """Whether the transactions to come are READ ONLY, and so run on a replica."""
        return self._read_only

    @read_only.setter
    def read_only(self, value: bool | None) -> None:
        self._change("read_only", "_read_only", None if value is None else bool(value))

    @property
    def deferrable(self) -> bool | None:
        """Whether the transactions to come are DEFERRABLE."""
        return self._deferrable

    @deferrable.setter
    def deferrable(self, value: bool | None) -> None:
        self._change("deferrable", "_deferrable", None if value is None else bool(value))
