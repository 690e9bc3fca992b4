"""The event loop of a thread of the house's own."""

import asyncio
import selectors
from threading import RLock


class Loop(asyncio.SelectorEventLoop):
    """A selector loop, as psycopg needs it; on Windows the default is another one."""

    def __init__(self, working: "RLock") -> None:
        """Prepare.

        Args:
            working: held by the thread the loop runs in; let go while the loop waits.
        """
        super().__init__(_Selector(working))


class _Selector(selectors.DefaultSelector):
    def __init__(self, working: "RLock") -> None:
        super().__init__()
        self._working = working

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._working.release()
        try:
            return super().select(timeout)
        finally:
            self._working.acquire()
