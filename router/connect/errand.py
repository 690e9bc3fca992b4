"""A connection that is opened for somebody who may give up meanwhile; if he does, it comes late.

Whoever opens a connection himself stands before a silent server for as long as ``connect_timeout``
allows, although probes have found out long before that another one serves.
"""

from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


class Errand(Generic[T]):
    """What `do` opens, to be run once, in a thread or task of its own.

    `tell` is called when it has ended, `late` with what was opened for nobody any more. Every
    method may be called from any thread.
    """

    __slots__ = ("_do", "_error", "_found", "_given_up", "_late", "_lock", "_tell", "done")

    def __init__(
        self, do: Callable[[], T], tell: Callable[[], object], late: Callable[[T], object]
    ) -> None:
        self._do = do
        self._tell = tell
        self._late = late
        self._lock = Lock()
        self._given_up = False
        self._found: list[T] = []
        self._error: BaseException | None = None
        self.done: bool = False

    def run(self) -> None:
        """Open it."""
        try:
            self._found.append(self._do())
        except BaseException as error:  # noqa: BLE001 - it is raised where somebody waits for it
            self._error = error
        with self._lock:
            self.done = True
            given_up = self._given_up
        if given_up and self._found:
            self._late(self._found.pop())
        self._tell()

    def give_up(self) -> bool:
        """Let what is opened come late; False if it was opened already: `take` it then."""
        with self._lock:
            self._given_up = not self.done
            return self._given_up

    def take(self) -> T:
        """What was opened, once it is `done`. Raises what opening it raised."""
        error, self._error = self._error, None
        if error is not None:
            raise error
        return self._found.pop()
