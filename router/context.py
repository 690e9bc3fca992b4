"""Whose reads these are: the RoutingContext of a request, its pins, and the one ContextVar.

A context is a *mutable object placed in the ContextVar*, so tasks and threads started inside a
request share its pins. A plain value set inside ``asyncio.gather`` or ``to_thread`` would be
invisible to the parent. No connection is ever kept here: child tasks would inherit it.
"""

import functools
import inspect
import threading
from collections.abc import Callable
from contextvars import ContextVar, Token
from dataclasses import dataclass, replace
from typing import Any, ParamSpec, TypeVar, cast

from router.model import Lsn

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Pin:
    """Reads must not be older than a write that was finished by `at`.

    Attributes:
        at: when the last write returned, or was sent (monotonic seconds).
        lsn: position that covers the write, once one is known.
        timeline: the timeline `lsn` belongs to.
    """

    at: float
    lsn: Lsn | None = None
    timeline: int = 0


@dataclass(frozen=True, slots=True)
class LastRead:
    """Where the context last read, so that a later read is never older.

    Attributes:
        node: the replica's name.
        at: when the read was sent (monotonic seconds).
    """

    node: str
    at: float


class Pins:
    """The pins of one request, one per cluster. Read without a lock; writing takes one."""

    __slots__ = ("_lock", "by_cluster", "reads")

    def __init__(self) -> None:
        self.by_cluster: dict[str, Pin] = {}
        self._lock = threading.Lock()
        self.reads: dict[str, LastRead] = {}

    def get(self, cluster: str) -> Pin | None:
        """The pin for `cluster`, None when the context is free."""
        return self.by_cluster.get(cluster)

    def set(self, cluster: str, pin: Pin) -> None:
        """Pin to `pin` unless a newer write is pinned already."""
        with self._lock:
            before = self.by_cluster.get(cluster)
            if before is None or before.at <= pin.at:
                self.by_cluster[cluster] = pin

    def resolve(self, cluster: str, pin: Pin, lsn: Lsn, timeline: int) -> Pin:
        """Give `pin` its position, unless another write replaced it meanwhile."""
        resolved = replace(pin, lsn=lsn, timeline=timeline)
        with self._lock:
            if self.by_cluster.get(cluster) is pin:
                self.by_cluster[cluster] = resolved
        return resolved

    def clear(self, cluster: str | None = None, pin: Pin | None = None) -> None:
        """Forget the pin of `cluster`, or all; with `pin`, only if it is still that one."""
        with self._lock:
            if cluster is None:
                self.by_cluster.clear()
            elif pin is None or self.by_cluster.get(cluster) is pin:
                self.by_cluster.pop(cluster, None)

    def __repr__(self) -> str:
        return f"Pins({self.by_cluster!r})"


class RoutingContext:
    """What routing must remember of one request.

    Attributes:
        pins: shared with every child context, whatever task or thread it runs in.
        force: "primary" or "replica" while a `using_…` block is open, else None.
        pinning: False inside `without_pinning()`: writes leave no pin.
        root: True for the process-wide context that applies outside any request.
    """

    __slots__ = ("__weakref__", "force", "pinning", "pins", "root")

    def __init__(
        self,
        pins: Pins | None = None,
        *,
        force: str | None = None,
        pinning: bool = True,
        root: bool = False,
    ) -> None:
        self.pins: Pins = pins if pins is not None else Pins()
        self.force: str | None = force
        self.pinning: bool = pinning
        self.root: bool = root

    def child(self, *, force: str | None = None, pinning: bool | None = None) -> "RoutingContext":
        """A context for a block inside this one; the pins are the same object."""
        return RoutingContext(
            self.pins,
            force=force if force is not None else self.force,
            pinning=self.pinning if pinning is None else pinning,
            root=self.root,
        )

    def __repr__(self) -> str:
        kind = "root " if self.root else ""
        forced = f" force={self.force}" if self.force else ""
        return f"<{kind}RoutingContext{forced} {self.pins!r}>"


ROOT = RoutingContext(root=True)
"""Applies outside any request. Its pins are per cluster, so Routers do not disturb each other."""

_current: ContextVar[RoutingContext] = ContextVar("pg_router_context", default=ROOT)

current_context: Callable[[], RoutingContext] = _current.get
"""The RoutingContext of the running request, or the process-wide root context."""


class Block:
    """A ``with`` block, ``async with`` block or decorator that puts a context in place.

    The context is made when the block is entered, so one decorated function gets a new one per
    call; a coroutine function is entered when it runs, not when it is called.
    """

    __slots__ = ("_make", "_token")

    def __init__(self, make: Callable[[], RoutingContext]) -> None:
        self._make = make
        self._token: Token[RoutingContext] | None = None

    def __enter__(self) -> RoutingContext:
        if self._token is not None:
            raise RuntimeError(
                "this block is already entered; call the function again for another"
            )
        context = self._make()
        self._token = _current.set(context)
        return context

    def __exit__(self, *exc: object) -> None:
        token, self._token = self._token, None
        if token is not None:
            _current.reset(token)

    async def __aenter__(self) -> RoutingContext:
        return self.__enter__()

    async def __aexit__(self, *exc: object) -> None:
        self.__exit__(*exc)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """`function`, run inside a block of its own on every call."""
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def run_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                with Block(self._make):
                    return await function(*args, **kwargs)

            return cast("Callable[P, R]", run_async)

        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            with Block(self._make):
                return function(*args, **kwargs)

        return run


def request_context() -> Block:
    """Give a block pins of its own: its writes do not pin others, nor theirs this block.

    A ``with`` block, an ``async with`` block or a decorator. Tasks and threads started inside
    share the context when they inherit contextvars (``asyncio`` tasks and ``asyncio.to_thread``
    do; a bare ``threading.Thread`` needs ``contextvars.copy_context().run``).
    """
    return Block(RoutingContext)


def using_primary() -> Block:
    """Send every statement of the block to the primary."""
    return Block(lambda: current_context().child(force="primary"))


def using_replica() -> Block:
    """Send every statement of the block to a replica, pinned or not.

    A write inside the block is refused with `ReplicaWriteRefused` before it is sent.
    """
    return Block(lambda: current_context().child(force="replica"))


def without_pinning() -> Block:
    """Writes inside the block leave no pin: for counters and logs nobody reads back."""
    return Block(lambda: current_context().child(pinning=False))


def unpin() -> None:
    """Forget every pin of the current context: reads may be older than its writes again."""
    current_context().pins.clear()
