"""Whose reads these are: the RoutingContext of a request, its pins, and the one ContextVar.

A context is a *mutable object placed in the ContextVar*, so tasks and threads started inside a
request share its pins. A plain value set inside ``asyncio.gather`` or ``to_thread`` would be
invisible to the parent. No connection is ever kept here: child tasks would inherit it.
"""

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, ParamSpec, TypeVar, cast

from router import registry
from router.model import Lsn, Node

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Pin:
    """Reads must not be older than a write that was finished by `at`.

    Attributes:
        at: when the last write returned, or was sent (monotonic seconds).
        lsn: position that covers the write, once one is known.
        timeline: the timeline `lsn` belongs to.
        age: how old the write was at `at`, by the clocks of two processes (seconds): 0 for a write
            of this one. Only what ends by time looks at it.
    """

    at: float
    lsn: Lsn | None = None
    timeline: int = 0
    age: float = field(default=0.0, repr=False)

    def waited(self, now: float) -> float:
        """Seconds since the write, at `now` (monotonic seconds)."""
        return now - self.at + self.age


def covering(one: Pin, other: Pin) -> Pin:
    """The pin that is satisfied only where both `one` and `other` are. Without a common timeline
    two positions do not compare; any position sampled after the later moment covers both."""
    at = max(one.at, other.at)
    age = min(one.waited(at), other.waited(at))
    if one.lsn is None or other.lsn is None or one.timeline != other.timeline:
        return Pin(at, age=age)
    return Pin(at, max(one.lsn, other.lsn), one.timeline, age)


@dataclass(frozen=True, slots=True)
class LastRead:
    """Where the context last read, so that a later read is never older.

    Attributes:
        node: the replica. Two Routers of one cluster may call different servers by one name.
        at: when the read was sent (monotonic seconds).
    """

    node: Node
    at: float


class Arrivals:
    """Pins by id that came with a request, until the Router they are for takes them.

    Ids do not tell the cluster's name, and its Router may not exist yet: `names` gives the ids a
    cluster may stand under. `everywhere` is a pin for every cluster, where nobody could say which
    are pinned.
    """

    __slots__ = ("_names", "_taken", "everywhere", "pins")

    def __init__(
        self,
        pins: Mapping[str, Pin],
        names: Callable[[str], Iterable[str]],
        everywhere: Pin | None = None,
    ) -> None:
        self.pins: dict[str, Pin] = dict(pins)
        self.everywhere: Pin | None = everywhere
        self._names = names
        self._taken: set[str] = set()

    def take(self, cluster: str) -> list[Pin]:
        """The pins for `cluster`; nothing when asked again."""
        if cluster in self._taken:
            return []
        self._taken.add(cluster)
        found = [pin for name in self._names(cluster) if (pin := self.pins.pop(name, None))]
        return [*found, self.everywhere] if self.everywhere else found


_writing = registry.lock()
"""One lock for all `Pins`, held for a few steps: `router.registry` would have to know each."""


_NOBODY: Mapping[str, Node] = MappingProxyType({})


class Pins:
    """The pins of one request, one per cluster. Read without a lock; writing takes one.

    Attributes:
        by_cluster: the pins by cluster id.
        reads: where the request read last, by cluster id.
        asked: replicas that told the request something of themselves, by cluster id; replaced
            whole. See `router.sql.intent.Intent.server_local`.
        arrived: pins that came with the request and no Router has taken yet.
        changes: how often a pin was set in this process; tells whether the client has to
            be given new ones.
    """

    __slots__ = ("arrived", "asked", "by_cluster", "changes", "reads")

    def __init__(self) -> None:
        self.by_cluster: dict[str, Pin] = {}
        self.reads: dict[str, LastRead] = {}
        self.asked: Mapping[str, Node] = _NOBODY
        self.arrived: Arrivals | None = None
        self.changes: int = 0

    def get(self, cluster: str) -> Pin | None:
        """The pin for `cluster`, None when the context is free."""
        if self.arrived is not None:
            self._take(cluster)
        return self.by_cluster.get(cluster)

    def set(self, cluster: str, pin: Pin) -> None:
        """Pin `cluster` to `pin` unless a newer write is pinned already."""
        with _writing:
            self.changes += 1
            before = self.by_cluster.get(cluster)
            if before is None or before.at <= pin.at:
                self.by_cluster[cluster] = pin

    def arrive(self, arrivals: Arrivals) -> None:
        """Let Routers take `arrivals`, and what had arrived before and was not taken."""
        with _writing:
            if self.arrived is not None:
                for name, pin in self.arrived.pins.items():
                    other = arrivals.pins.get(name)
                    arrivals.pins[name] = pin if other is None else covering(pin, other)
                arrivals.everywhere = arrivals.everywhere or self.arrived.everywhere
            self.arrived = arrivals

    def _take(self, cluster: str) -> None:
        with _writing:
            arrived = self.arrived
            if arrived is None:
                return
            for pin in arrived.take(cluster):
                before = self.by_cluster.get(cluster)
                self.by_cluster[cluster] = pin if before is None else covering(before, pin)
            if not arrived.pins and arrived.everywhere is None:
                self.arrived = None

    def resolve(self, cluster: str, pin: Pin, lsn: Lsn, timeline: int) -> Pin:
        """Give `pin` of `cluster` its `lsn` and `timeline`, unless a write replaced it."""
        resolved = replace(pin, lsn=lsn, timeline=timeline)
        with _writing:
            if self.by_cluster.get(cluster) is pin:
                self.by_cluster[cluster] = resolved
        return resolved

    def clear(self, cluster: str | None = None, pin: Pin | None = None) -> None:
        """Forget the pin of `cluster`, or all; with `pin`, only if it is still that pin."""
        with _writing:
            if cluster is None:
                self.by_cluster.clear()
                self.arrived = None
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

    __slots__ = ("__weakref__", "force", "left_for", "pinning", "pins", "root")

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
        # The context around its block, once that was left while another context was in place.
        self.left_for: RoutingContext | None = None

    def child(self, *, force: str | None = None, pinning: bool | None = None) -> "RoutingContext":
        """A context with the same pins for a block inside; `force` and `pinning` if given."""
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
    call; a coroutine function is entered when it runs, not when it is called. A decorated
    generator has the context while it runs, not while its caller does. A ``with`` block inside a
    generator is its caller's too, until the generator is done: Python has one context for both.
    """

    __slots__ = ("_context", "_make", "_outer")

    def __init__(self, make: Callable[[], RoutingContext]) -> None:
        self._make = make
        self._context: RoutingContext | None = None
        self._outer: RoutingContext = ROOT

    def __enter__(self) -> RoutingContext:
        if self._context is not None:
            raise RuntimeError(
                "this block is already entered; call the function again for another"
            )
        context = self._make()
        context.left_for = None
        self._context, self._outer = context, _current.get()
        _current.set(context)
        return context

    def __exit__(self, *exc: object) -> None:
        context, self._context = self._context, None
        if context is None:
            return
        outer = self._outer
        if _current.get() is not context:
            # A generator suspended inside the block was closed elsewhere: what is in place there
            # stays, and goes past this context when its own block ends.
            context.left_for = outer
            return
        while outer.left_for is not None:
            outer = outer.left_for
        _current.set(outer)

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

        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            drive: Any = _steps if inspect.isgeneratorfunction(function) else _async_steps

            @functools.wraps(function)
            def steps(*args: P.args, **kwargs: P.kwargs) -> Any:
                return drive(self._make(), function(*args, **kwargs))

            return cast("Callable[P, R]", steps)

        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            with Block(self._make):
                return function(*args, **kwargs)

        return run


def _steps(context: RoutingContext, steps: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """`steps` with `context` in place while it runs, and not while it waits for its caller."""
    step: Callable[[], Any] = functools.partial(next, steps)
    while True:
        try:
            with within(context):
                value = step()
        except StopIteration as stop:
            return stop.value
        try:
            step = functools.partial(steps.send, (yield value))
        except GeneratorExit:
            with within(context):
                steps.close()
            raise
        except BaseException as error:  # noqa: BLE001 - it is the generator's to deal with
            step = functools.partial(steps.throw, error)


async def _async_steps(
    context: RoutingContext, steps: AsyncGenerator[Any, Any]
) -> AsyncGenerator[Any, Any]:
    step: Callable[[], Any] = functools.partial(anext, steps)
    while True:
        try:
            with within(context):
                value = await step()
        except StopAsyncIteration:
            return
        try:
            step = functools.partial(steps.asend, (yield value))
        except GeneratorExit:
            with within(context):
                await steps.aclose()
            raise
        except BaseException as error:  # noqa: BLE001 - it is the generator's to deal with
            step = functools.partial(steps.athrow, error)


def within(context: RoutingContext) -> Block:
    """Put `context` in place: for what carries one context through several calls."""
    return Block(lambda: context)


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
