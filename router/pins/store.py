"""Pins kept for a caller by name, where no cookie or header can carry them.

`router.redis` has the stores for several processes; `MemoryPinStore` serves one.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from router import registry
from router.pins.token import merged
from router.runtime import SYSTEM

DOUBT = 10.0
"""Seconds until a store that came back is back for every process: longer than a `Breaker` stays
open, because a process saves nothing while its breaker is open."""


class PinStore(Protocol):
    """What keeps pins by caller. Write your own by following `router.pins.token.merged`.

    Either method may raise anything when the store cannot be reached: the caller is then treated
    as pinned from that moment, and the request goes on.
    """

    def load(self, who: str) -> Mapping[str, str]:
        """The fields saved for `who`, empty when there are none."""
        ...

    def save(self, who: str, fields: Mapping[str, str], ttl: float) -> None:
        """Merge `fields` into what is saved for `who`, to be forgotten after `ttl` seconds."""
        ...


class AsyncPinStore(Protocol):
    """`PinStore` with coroutine functions."""

    async def load(self, who: str) -> Mapping[str, str]:
        """See `PinStore.load`."""
        ...

    async def save(self, who: str, fields: Mapping[str, str], ttl: float) -> None:
        """See `PinStore.save`."""
        ...


class MemoryPinStore:
    """Pins of the callers of one process. Never blocks."""

    def __init__(self, *, clock: Callable[[], float] = SYSTEM.clock) -> None:
        """Start empty; `clock` gives monotonic seconds."""
        self._clock = clock
        self._lock = registry.lock()
        # Re-inserted at every save, so that with one ttl the first is the first to end.
        self._saved: dict[str, tuple[float, dict[str, str]]] = {}

    def load(self, who: str) -> Mapping[str, str]:
        """The fields saved for `who`, empty when there are none."""
        until, fields = self._saved.get(who, (0.0, {}))
        return fields if self._clock() < until else {}

    def save(self, who: str, fields: Mapping[str, str], ttl: float) -> None:
        """Merge `fields` into what is saved for `who`, to be forgotten after `ttl` seconds."""
        now = self._clock()
        with self._lock:
            until, before = self._saved.pop(who, (0.0, {}))
            self._saved[who] = (now + ttl, merged(before if now < until else {}, fields, ttl))
            while self._saved:
                first = next(iter(self._saved))
                if self._saved[first][0] > now:
                    break
                del self._saved[first]

    def __len__(self) -> int:
        return len(self._saved)


class Breaker:
    """Stops asking a server that keeps failing, and tries it again after a while."""

    def __init__(self, failures: int = 3, cooldown: float = 5.0) -> None:
        """Let everything through.

        Args:
            failures: failures in a row after which it opens; 0 never opens.
            cooldown: seconds it stays open before one call is let through to see.
        """
        self.failures: int = failures
        self.cooldown: float = cooldown
        self._failed = 0
        self._closed_from = float("-inf")
        self._lock = registry.lock()

    def allows(self, now: float) -> bool:
        """Whether to ask the server at `now` (monotonic seconds)."""
        if self._failed < self.failures or not self.failures:
            return True
        with self._lock:
            if now < self._closed_from:
                return False
            self._closed_from = now + self.cooldown  # the others wait for this one's answer
            return True

    def failed(self, now: float) -> None:
        """The server did not answer, at `now` (monotonic seconds)."""
        with self._lock:
            self._failed += 1
            self._closed_from = now + self.cooldown

    def succeeded(self) -> None:
        """The server answered."""
        self._failed = 0
