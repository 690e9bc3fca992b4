"""A user who sets, resets and rolls back the setting that his statements depend on, and what it
has to be at each of them."""

import random
from collections.abc import Callable
from typing import Any

import psycopg

Values = tuple[str, str | None]
"""What the setting is for the session, and for the transaction; None where that sets nothing."""


class Expected:
    """The value of one setting, by PostgreSQL's rules for transactions and savepoints."""

    def __init__(self) -> None:
        self._values: Values = ("", None)
        self._saved: list[Values] = []

    @property
    def value(self) -> str:
        """What a statement has to find."""
        session, local = self._values
        return session if local is None else local

    @property
    def nested(self) -> bool:
        """Whether a transaction is open."""
        return bool(self._saved)

    def put(self, value: str, *, local: bool) -> None:
        """It is set to `value`, for the session or only for the open transaction."""
        if not local:
            self._values = value, None
        elif self._saved:  # else it ends with its own statement
            self._values = self._values[0], value

    def begin(self) -> None:
        """A transaction or a savepoint begins."""
        self._saved.append(self._values)

    def end(self, *, keep: bool) -> None:
        """The transaction or savepoint that began last ends; without `keep` it is rolled back."""
        before = self._saved.pop()
        if not keep:
            self._values = before
        elif not self._saved:
            self._values = self._values[0], None


class Program:
    """Statements on one `connection`; `read` and `write` run one each, with the value they are to
    find."""

    def __init__(
        self,
        connection: Any,
        rand: random.Random,
        read: Callable[[str], Any],
        write: Callable[[str], Any],
    ) -> None:
        self._connection = connection
        self._rand = rand
        self._read = read
        self._write = write
        self._expected = Expected()
        self._open = False  # a transaction has begun by itself
        self._read_only = False
        self._autocommit = rand.random() < 0.25
        if self._autocommit:
            connection.autocommit = True

    def run(self) -> None:
        """Do some of all that, and leave the rest to the end of the connection's block."""
        for _ in range(self._rand.randint(2, 5)):
            self._some(depth=0)

    def _some(self, depth: int) -> None:
        rand, drawn = self._rand, self._rand.random()
        if drawn < 0.35:
            self._set()
        elif drawn < 0.75:
            self._use()
        elif drawn < 0.9 and depth < 3:
            self._block(depth)
        elif not depth and self._open:
            self._end(keep=rand.random() < 0.4)
            self._use()

    def _use(self) -> None:
        self._begins()
        writes = not self._read_only and self._rand.random() < 0.25
        do = self._write if writes else self._read
        do(self._expected.value)

    def _begins(self) -> None:
        if not self._autocommit and not self._open and not self._expected.nested:
            self._open = True
            self._expected.begin()

    def _set(self) -> None:
        rand, execute = self._rand, self._connection.execute
        self._begins()
        value, local = f"t{rand.randrange(5)}", rand.random() < 0.5
        drawn = rand.random()
        if drawn < 0.15:
            value, local = "", False
            execute("RESET app.tenant")
        elif drawn < 0.6:
            execute(f"SET {'LOCAL ' * local}app.tenant = '{value}'")
        else:
            execute(f"SELECT set_config('app.tenant', '{value}', {str(local).lower()})")
        self._expected.put(value, local=local)

    def _end(self, *, keep: bool) -> None:
        self._open = False
        self._expected.end(keep=keep)
        if keep:
            self._connection.commit()
        else:
            self._connection.rollback()

    def _block(self, depth: int) -> None:
        """A transaction or a savepoint, which is rolled back as often as not."""
        keep = self._rand.random() < 0.5
        alone = not self._open and not depth
        if alone and not self._autocommit and self._rand.random() < 0.3:
            self._connection.read_only = self._read_only = True
        with self._connection.transaction():
            self._expected.begin()
            for _ in range(self._rand.randint(1, 3)):
                self._some(depth + 1)
            self._expected.end(keep=keep)
            if not keep:
                raise psycopg.Rollback
