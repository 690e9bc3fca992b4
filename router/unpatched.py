"""Real threads and the real ``poll`` where gevent has put greenlets in their place.

The monitor's thread is a real one, so that it goes on while a greenlet computes, and so that a
forked child does not have it. But nothing it shares with greenlets is safe between threads: gevent
wakes a greenlet from another thread only where its hub has something else to wait for, and else
raises LoopExit in it. So that thread does nothing but ask servers; what touches the application,
its locks, logs and callbacks, it has a greenlet do: see `Hub`.

gevent is never imported here: who has not imported it has no greenlets.
"""

import sys
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any

from router.errors import ConfigError


def original(module: str, name: str) -> Any:
    """`name` of the standard library's `module`, as it was before gevent patched that."""
    monkey: Any = sys.modules.get("gevent.monkey")
    if monkey is None:
        return getattr(import_module(module), name)
    return monkey.get_original(module, name)


def threads_are_greenlets() -> bool:
    """Whether gevent makes a greenlet of each thread of this process."""
    monkey: Any = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def refuse_eventlet() -> None:
    """Raise ConfigError where eventlet makes a greenlet of each thread: psycopg knows nothing of
    it, so each wait for a server would hold up all of them."""
    patcher: Any = sys.modules.get("eventlet.patcher")
    if patcher is not None and patcher.is_monkey_patched("thread"):
        raise ConfigError(
            "eventlet has patched the threads of this process, and psycopg does not work with it: "
            "use gevent (gunicorn -k gevent) or threads (gunicorn -k gthread)"
        )


class Hub:
    """The way from a real thread to the greenlets of the thread that makes this object."""

    __slots__ = ("_run", "_spawn")

    def __init__(self) -> None:
        gevent: Any = sys.modules["gevent"]
        self._run: Any = gevent.get_hub().loop.run_callback_threadsafe
        self._spawn: Any = gevent.spawn

    def call(self, call: Callable[[], object]) -> None:
        """Have a new greenlet do `call`, which must not raise; do not wait for it."""
        self._run(self._spawn, call)


_running: "dict[int, RealThread]" = {}
"""By the system's own number of the thread."""


class RealThread:
    """A daemon thread that runs `call`, whatever gevent has patched; for greenlets it is as a
    `threading.Thread`."""

    __slots__ = ("_ended",)

    def __init__(self, call: Callable[[], object]) -> None:
        self._ended = threading.Event()
        hub, number = Hub(), original("_thread", "get_ident")

        def run() -> None:
            _running[number()] = self
            try:
                call()
            finally:
                del _running[number()]
                hub.call(self._ended.set)

        original("_thread", "start_new_thread")(run, ())

    def is_alive(self) -> bool:
        """Whether it still runs."""
        return not self._ended.is_set()

    def join(self, timeout: float | None = None) -> None:
        """Let other greenlets run until it has ended, for `timeout` seconds at most."""
        self._ended.wait(timeout)

    @staticmethod
    def current() -> "RealThread | None":
        """The one that asks, if it is any."""
        return _running.get(original("_thread", "get_ident")())
