"""Psycopg's transaction block over a routed connection."""

import contextlib
from enum import Enum
from typing import TYPE_CHECKING, Any, Self

import psycopg
from psycopg import sql
from psycopg.transaction import OutOfOrderTransactionNesting

from router.greenlets import greenlet_spawn

if TYPE_CHECKING:
    from router.psycopg.connection import Connection


class _Status(Enum):
    """How a block stands: psycopg's own, which it has since 3.3."""

    NOT_STARTED = "not_started"
    ACTIVE = "active"
    COMMITTED = "committed"
    FAILED = "failed"
    ROLLED_BACK_EXPLICITLY = "rolled_back_explicitly"
    ROLLED_BACK_WITH_ERROR = "rolled_back_with_error"


Status: Any = getattr(psycopg.Transaction, "Status", _Status)


class Block:
    """What is the same for threads and for event loops.

    Source: https://www.psycopg.org/psycopg3/docs/basic/transactions.html#transaction-contexts
    """

    def __init__(
        self, connection: "Connection", savepoint_name: str | None, force_rollback: bool
    ) -> None:
        self._connection: Connection = connection
        self.force_rollback: bool = force_rollback
        self.status: Any = Status.NOT_STARTED
        self._name: str = savepoint_name or ""
        self._saves: bool = False
        self._outer: bool = False

    @property
    def savepoint_name(self) -> str | None:
        """The name of the savepoint; empty for the transaction itself, as psycopg has it."""
        return self._name

    def __repr__(self) -> str:
        name = f" {self._name!r}" if self._name else ""
        return f"<{type(self).__name__}{name} ({self.status.value}) of {self._connection!r}>"

    def _enter(self) -> None:
        if self.status is not Status.NOT_STARTED:
            raise TypeError("transaction blocks can be used only once")
        connection = self._connection
        self._outer = not connection.begun and not connection.blocks
        if not self._outer and not self._name:
            self._name = f"_pg3_{len(connection.blocks) + 1}"
        self._saves = bool(self._name)
        connection.blocks.append(self)
        connection.apply_mode()
        self.status = Status.ACTIVE
        if self._saves:
            try:
                self._command("SAVEPOINT")
            except BaseException:
                self._left()
                self.status = Status.FAILED
                if self._outer:
                    connection.checkout.rollback()
                raise

    def _exit(self, error: BaseException | None) -> bool:
        """Commit or roll back; whether `error` ends here."""
        in_order = self._left()
        undo = error is not None or self.force_rollback
        explicit = isinstance(error, psycopg.Rollback) or (undo and error is None)
        self.status = (
            Status.COMMITTED if not undo
            else Status.ROLLED_BACK_EXPLICITLY if explicit
            else Status.ROLLED_BACK_WITH_ERROR
        )  # fmt: skip
        if not in_order:
            raise OutOfOrderTransactionNesting(f"a block inside it is still open: {self!r}")
        if not undo:
            self._end("commit", "RELEASE")
            return False
        # What fails while rolling back must not hide what went wrong first.
        with contextlib.suppress(Exception):
            self._end("rollback", "ROLLBACK TO", "RELEASE")
        named = error.transaction if isinstance(error, psycopg.Rollback) else self
        return isinstance(error, psycopg.Rollback) and (named is None or named is self)

    def _left(self) -> bool:
        blocks = self._connection.blocks
        in_order = bool(blocks) and blocks[-1] is self
        if self in blocks:
            del blocks[blocks.index(self) :]
        return in_order

    def _end(self, verb: str, *commands: str) -> None:
        """End the transaction, or its savepoint by `commands`."""
        if not self._outer:
            for command in commands:
                self._command(command)
            return
        try:
            getattr(self._connection.checkout, verb)()
        finally:
            self._connection.apply_mode()

    def _command(self, command: str) -> None:
        text = f"{command} {sql.Identifier(self._name).as_string(None)}"
        with self._connection.plain_cursor() as cursor:
            cursor.execute(text)


class Transaction(Block):
    """What `Connection.transaction` gives, to be entered by ``with``."""

    @property
    def connection(self) -> "Connection":
        """The connection whose transaction it is."""
        return self._connection

    def __enter__(self) -> Self:
        self._enter()
        return self

    def __exit__(self, _: object, error: BaseException | None, *__: object) -> bool:
        return self._exit(error)


class AsyncTransaction(Block):
    """What `AsyncConnection.transaction` gives, to be entered by ``async with``."""

    async def __aenter__(self) -> Self:
        await greenlet_spawn(self._enter)
        return self

    async def __aexit__(self, _: object, error: BaseException | None, *__: object) -> bool:
        return bool(await greenlet_spawn(self._exit, error))
