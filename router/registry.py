"""Patches the process by the one fork hook of the house: what begins afresh in a forked child.

A child has one thread: the one that forked. A lock that another thread held stays locked there for
ever, what that thread had half done stays half done, and every socket is the parent's too. So all
locks of the house are made here, and whatever else belongs to one process registers here.

Around a fork the hook does three things. Before it, the forking thread takes every lock of the
house, for `PATIENCE` at most: then no other thread is in the middle of anything that a lock
guards. In the parent it gives them back. In the child it makes them new, and calls what was
registered.
"""

import _thread
import os
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from threading import RLock
from typing import Any, Protocol

from router.unpatched import original

PATIENCE = 0.02
"""Seconds a fork waits at most for locks that are held. It goes on without those it did not get:
the child has them new, and whole but for what their holder had begun."""

STEP = 0.0005
"""Seconds between two attempts to have all of them."""


class Renewed(Protocol):
    """An object whose `after_fork` is called in a forked child."""

    def after_fork(self) -> None:
        """Forget what belongs to the parent process. No other thread runs; nothing may block."""


_locks: set[weakref.ref[Any]] = set()
_things: set[weakref.ref[Renewed]] = set()
_calls: list[Callable[[], object]] = []
_taken: dict[int, list[Any]] = {}
"""By the forking thread: the locks that its fork waited for."""
_inherited: list[object] = []


def lock(*, real: bool = False) -> RLock:
    """A lock that nobody else holds in a forked child; `real` for a thread that is no greenlet
    whatever gevent has patched.

    Reentrant, so that a fork by the thread that holds it leaves that thread holding it, in the
    parent and in the child.
    """
    made: RLock = _thread.RLock() if real else RLock()
    # As a WeakSet does it. Copying this set is one step in C, whatever other threads add.
    _locks.add(weakref.ref(made, _locks.discard))
    return made


def renew(thing: Renewed) -> None:
    """Call the ``after_fork`` of `thing`, which is held weakly, in each forked child."""
    _things.add(weakref.ref(thing, _things.discard))


def first_in_child(call: Callable[[], object]) -> None:
    """Call `call` in each forked child, before anything is told by `renew`."""
    _calls.append(call)


def leave_to_parent(*things: object) -> None:
    """Keep `things` that a forked child inherited and must not use, so that none is finalised: a
    driver or a pool would say goodbye on sockets that the parent still uses."""
    _inherited.extend(things)


def _before() -> None:
    until = time.monotonic() + PATIENCE
    wanted = [found for ref in list(_locks) if (found := ref()) is not None and not _mine(found)]
    while True:
        # All or none while there is time: who waits for one with others in hand may be waited for.
        taken = _taken[threading.get_ident()] = []
        taken.extend(each for each in wanted if each.acquire(blocking=False))
        if len(taken) == len(wanted) or time.monotonic() >= until:
            return
        _in_parent()
        original("time", "sleep")(STEP)  # gevent's would run others in the middle of a fork


def _in_parent() -> None:
    for each in _taken.pop(threading.get_ident(), ()):
        each.release()


def _in_child() -> None:
    # Where the fork was C's own, as uWSGI's, nothing was taken before it.
    taken = {id(each) for each in _taken.get(threading.get_ident(), ())}
    _taken.clear()
    for ref in list(_locks):
        each = ref()
        if each is not None and (id(each) in taken or not _mine(each)):
            each._at_fork_reinit()
    with ExitStack() as stack:  # whatever one of them raises, the others are called
        for thing in [thing for ref in list(_things) if (thing := ref()) is not None]:
            stack.callback(thing.after_fork)
        for call in reversed(_calls):
            stack.callback(call)


def _mine(held: Any) -> bool:
    """Whether the calling thread holds the lock `held`."""
    owned: bool = held._is_owned()  # as the standard library's Condition asks it
    return owned


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
