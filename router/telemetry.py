"""What the Router says of itself: named events, counters without a lock, optional hooks.

Events go through structlog into the standard library's logger ``router``, so both kinds of users
see them and nobody gets output they did not configure. No event ever carries SQL parameters.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import TYPE_CHECKING, Any

from router import registry

if TYPE_CHECKING:
    from structlog.stdlib import BoundLogger

BURST = 10
"""How often the same event of the same node is logged within `WINDOW`; all are counted."""

WINDOW = 60.0
"""Seconds in which `BURST` counts."""

DEBUG = 10
"""The level of that name in the standard library's logging."""

Hook = Callable[[str, Mapping[str, Any]], None]
"""Called with an event's name and fields; must not block."""


class Tally(dict[Any, Iterator[int]]):
    """Counts by key: ``next(tally[key])`` counts one more. That is one call in C, so threads lose
    nothing and need no lock."""

    def __init__(self) -> None:
        super().__init__()
        self._looked: Counter[Any] = Counter()
        self._lock = registry.lock()

    def __missing__(self, key: Any) -> Iterator[int]:
        return self.setdefault(key, count())

    def total(self) -> Counter[Any]:
        """How often each key was counted."""
        with self._lock:
            total: Counter[Any] = Counter()
            # A copy first, in one C call: another thread may add a key meanwhile.
            for key, counter in self.copy().items():
                # To look is to count; what earlier looks counted is taken off.
                if number := next(counter) - self._looked[key]:
                    total[key] = number
                self._looked[key] += 1
            return total


class Telemetry:
    """Emits events and keeps the counts of one Router, or of a `PinCarrier`, which has no cluster.

    `cluster` is a field of every event. Without a `clock`, which gives monotonic seconds, nothing
    is held back from the log.

    Attributes:
        decisions: statements by (node name, reason).
        counts: everything else by name: healed, retried, blacklisted …
        hooks: called for every event; add your own.
    """

    def __init__(self, cluster: str, clock: Callable[[], float] | None = None) -> None:
        self.cluster = cluster
        self._clock = clock
        # By event and node: when the window began, and how often since. Races lose a count.
        self._logged: dict[tuple[str, object], tuple[float, int]] = {}
        self.decisions: Tally = Tally()
        self.counts: Tally = Tally()
        self.hooks: list[Hook] = []
        self._logger: BoundLogger | None = None

    def event(self, name: str, /, level: str = "info", **fields: Any) -> None:
        """Log `name` with `fields` at `level`, `BURST` at most, and call the hooks."""
        next(self.counts[name])
        held_back = self._held_back(name, fields.get("node"))
        if held_back is not None:
            more = {"suppressed": held_back} if held_back else {}
            getattr(self.prepare(), level)(name, **fields, **more)
        for hook in self.hooks:
            hook(name, fields)

    def detail(self, name: str, **fields: Any) -> None:
        """Count `name`, which every write causes; log it and `fields` at level debug."""
        next(self.counts[name])
        logger = self.prepare()
        if logger.isEnabledFor(DEBUG):
            logger.debug(name, **fields)

    def _held_back(self, name: str, node: object) -> int | None:
        """How many were kept from the log since the last one there; None to keep this one."""
        if self._clock is None:
            return 0
        now, key = self._clock(), (name, node)
        began, count = self._logged.get(key, (now, 0))
        spared = 0
        if now - began >= WINDOW:
            spared = max(0, count - BURST)
            began, count = now, 0
        self._logged[key] = (began, count + 1)
        return None if count >= BURST else spared

    def prepare(self) -> "BoundLogger":
        """Load structlog, which takes a third of a second, before somebody waits for an event."""
        if self._logger is not None:
            return self._logger
        import logging

        import structlog

        # Our own processor chain: a library must not depend on, nor change, the user's global one.
        logger: BoundLogger = structlog.wrap_logger(
            logging.getLogger("router"),
            processors=[
                structlog.stdlib.filter_by_level,
                structlog.processors.LogfmtRenderer(
                    key_order=["event", "cluster"], drop_missing=True, bool_as_flag=False
                ),
            ],
            wrapper_class=structlog.stdlib.BoundLogger,
            cache_logger_on_first_use=True,
        )
        self._logger = logger.bind(cluster=self.cluster) if self.cluster else logger.bind()
        return self._logger
