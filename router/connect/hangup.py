"""A limit for a question whose driver knows none: when the server is silent, this hangs up.

A driver that blocks waits for an answer as long as the socket is open. Its other side shut down,
the socket ends as if the server had closed it, and the driver raises.
"""

import _socket
import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Self

from router.connect.patience import Patience
from router.polling import READ, real_poll
from router.runtime import SYSTEM, Runtime


class HangUp:
    """Shuts the socket `fileno` down when the server is silent for `seconds`, unless its block
    ends.

    `loop` is the event loop that must not be blocked meanwhile, None where a thread may watch.

    Attributes:
        done: whether it has done so; the connection is then of no more use.
    """

    def __init__(
        self,
        fileno: int,
        seconds: float,
        loop: asyncio.AbstractEventLoop | None = None,
        runtime: Runtime = SYSTEM,
    ) -> None:
        self.done: bool = False
        # A descriptor of its own: the driver's may be closed at any moment, and its number given
        # to another file.
        self._line = socket.fromfd(fileno, -1, -1, -1)
        self._seconds = seconds
        self._loop = loop
        self._runtime = runtime
        self._over = runtime.event()
        self._lock = runtime.lock()
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        self._patience = Patience(self._seconds, self._runtime.clock())
        if self._loop is not None:
            self._timer = self._loop.call_later(self._patience.step, self._look)
        else:
            self._runtime.spawn(self._wait, "pg-router patience")
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        with self._lock:
            self._over.set()
            self._line.close()

    def _wait(self) -> None:
        while not self._over.wait(self._patience.step):
            if self._ends():
                return

    def _look(self) -> None:
        if self._loop is not None and not self._ends():
            self._timer = self._loop.call_later(self._patience.step, self._look)

    def _ends(self) -> bool:
        with self._lock:
            if self._over.is_set():
                return True
            if not self._patience.ends(self._runtime.clock(), unread=unread(self._line)):
                return False
            self.done = True
            hang_up(self._line)
            return True


def interrupt(fileno: Callable[[], int], runs: Callable[[], bool]) -> None:
    """Hang up on the server at the socket `fileno` if a statement `runs` there, in whatever
    thread; whoever waits for its answer gets an error."""
    with contextlib.suppress(Exception):  # whatever the driver raises when it closes it just now
        number = fileno()
        with socket.fromfd(number, -1, -1, -1) as line:
            # Closed before it was copied, its number may be another file's by now.
            if fileno() == number and runs():
                hang_up(line)


def hang_up(line: _socket.socket) -> None:
    """Shut the socket `line` down for both sides: whoever waits for it gets an error."""
    with contextlib.suppress(OSError):  # the other side was quicker
        line.shutdown(socket.SHUT_RDWR)


def unread(line: socket.socket | int) -> bool:
    """Whether something lies there to be read from the socket `line`, its end included."""
    poll = real_poll()
    poll.register(line if isinstance(line, int) else line.fileno(), READ)
    return bool(poll.poll(0))
