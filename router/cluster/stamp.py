"""When the primary is asked for the stamp of its catalog, which shows DDL that nobody saw."""

from math import inf

from router.model import Lsn

INTERVAL = 0.5
"""Seconds between two stamps, where they cost little: each round of probes at rest has one."""

SHARE = 0.1
"""Of one core of the primary: what the stamps of all processes may take together."""

LONGEST = 60.0
"""Seconds between two stamps at most, whatever they cost."""

SLOW = 0.5
"""Seconds that a stamp counts for which the server did not give in time, twice as many each
further time."""


class StampPace:
    """Asks as often as it is cheap, and only where the primary has written something."""

    def __init__(self) -> None:
        self._asked = -inf
        self._took = 0.0
        self._processes = 1
        self._doubted = False
        self._lsn: Lsn | None = None

    @property
    def gap(self) -> float:
        """Seconds between two stamps at least, so that those of all processes keep to `SHARE`."""
        return min(LONGEST, self._took * self._processes / SHARE)

    def doubt(self) -> None:
        """DDL may have been run unseen: the next stamp is asked for as soon as it may be."""
        self._doubted = True

    def due(self, lsn: Lsn | None, now: float) -> bool:
        """Whether to ask at `now` (monotonic seconds) a primary that has written up to `lsn`, None
        where it does not say."""
        if lsn is not None and lsn == self._lsn:
            return False
        pause = self.gap if self._doubted else max(INTERVAL, self.gap)
        return now >= self._asked + pause

    def asking(self, lsn: Lsn | None, now: float) -> None:
        """It is asked for now; the primary had written up to `lsn` before."""
        self._asked, self._lsn, self._doubted = now, lsn, False

    def answered(self, took: float, processes: int) -> None:
        """It took so many seconds, and so many `processes` ask the same server."""
        self._took, self._processes = took, max(1, processes)

    def failed(self, *, slow: bool) -> None:
        """There was no answer; with `slow` because the server took too long for it."""
        self._lsn = None
        if slow:
            self._took = max(SLOW, 2 * self._took)
