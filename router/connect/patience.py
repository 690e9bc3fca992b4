"""How long a server has been silent, without the time in which its client was too busy to listen.

Time comes in as `now`; nothing here sleeps.
"""

STEPS = 10
"""Looks in the time a server is given."""

LATE = 0.03
"""Seconds by which a look may be late; if it is later, this process had no time for it before."""

LIMIT = 5
"""Looks at most, as a multiple of `STEPS`, however late they come."""


class Patience:
    """Counts the looks, one after each `step`, at which a server had still said nothing.

    The server may be silent for `seconds`, from `now` (monotonic seconds). A process whose threads
    compute waits for the interpreter's lock, and finds an answer late that was there all the time:
    what such a look does not find says nothing of the server.

    Attributes:
        step: seconds until the next look.
    """

    __slots__ = ("_due", "_left", "_looks", "step")

    def __init__(self, seconds: float, now: float) -> None:
        self.step: float = seconds / STEPS
        self._left = STEPS
        self._looks = STEPS * LIMIT
        self.begin(now)

    def begin(self, now: float) -> None:
        """Wait on from `now` (monotonic seconds), after a time in which nobody looked."""
        self._due = now + self.step

    def ends(self, now: float, *, unread: bool = False) -> bool:
        """Whether the server has been silent for too long at `now` (monotonic seconds); not if
        something it said is still `unread`."""
        in_time = now - self._due <= LATE
        self._due = now + self.step
        self._looks -= 1
        if in_time and not unread:
            self._left -= 1
        return self._left <= 0 or self._looks <= 0
