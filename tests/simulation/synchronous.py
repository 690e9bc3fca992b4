"""Commits that wait until a standby has flushed them: ``synchronous_standby_names = 'ANY 1 (*)'``.

Such a commit is in the WAL, and a standby may show it; on its primary nobody sees it, and its
locks are held, until a standby has it or its session is told to give up.

Source: https://www.postgresql.org/docs/current/warm-standby.html#SYNCHRONOUS-REPLICATION
"""

from typing import TYPE_CHECKING

from tests.simulation.answers import NOTHING, Rows

if TYPE_CHECKING:
    from tests.simulation.session import Transaction
    from tests.simulation.wal import Key

FIRST_STEP, LAST_STEP = 0.002, 0.05


class Wait:
    """What the commit of `transaction` waits for, whose record ends at `lsn`.

    Attributes:
        rows: the answer to its statement.
        over: it waits no more.
        ended: since when it does not (seconds).
        confirmed: because a standby has flushed it.
    """

    __slots__ = ("_step", "_transaction", "confirmed", "ended", "lsn", "over", "rows")

    def __init__(self, lsn: int, transaction: "Transaction") -> None:
        self.lsn = lsn
        self.rows: Rows = NOTHING
        self.over = self.confirmed = False
        self.ended = 0.0
        self._transaction = transaction
        self._step = FIRST_STEP

    def end(self, now: float, locks: "dict[Key, Transaction]", *, confirmed: bool) -> None:
        """Let it go on, without its `locks`."""
        self.over, self.ended, self.confirmed = True, now, confirmed
        self._transaction.release(locks)

    @property
    def step(self) -> float:
        """Seconds until whoever waits for it shall look again."""
        step, self._step = self._step, min(LAST_STEP, self._step * 1.5)
        return step
