"""Carries pins from one process to another: out of a context, and into one.

A `RoutingContext` speaks of this process: monotonic times, and positions its Routers have seen.
What leaves is an `Entry`: the position where one is known, else "as of now". A receiver takes the
latter to mean the moment it first met the entry. That is later than the write, so any position it
samples afterwards covers it; and it is the same moment for every request that brings the entry,
so the pin is satisfied for all of them at once, however short each is.
"""

import asyncio
import inspect
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

from router import registry
from router.cluster.router import routers
from router.errors import ConfigError
from router.messages import one_line
from router.pins.store import DOUBT, AsyncPinStore, MemoryPinStore, PinStore
from router.pins.token import Entry, Fault, Tokens
from router.rules.context import (
    Arrivals,
    Block,
    Pin,
    Pins,
    RoutingContext,
    covering,
    current_context,
)
from router.runtime import SYSTEM
from router.telemetry import Telemetry

HEADER = "x-pg-router-pin"
"""Where jobs and API clients carry a token, unless told otherwise."""

REMEMBERED = 10_000
"""Entries whose first arrival a process remembers. A forgotten one counts as new when it comes
again: its pin is safe, and lasts longer."""

Headers = Mapping[Any, Any]


class Stored(NamedTuple):
    """The pins a store has for a caller: `fields`, and `everywhere`, a pin for every cluster where
    the store may not know all."""

    fields: Mapping[str, str]
    everywhere: Pin | None


class Met:
    """When this process first met each entry (monotonic seconds)."""

    def __init__(self, size: int = REMEMBERED) -> None:
        self._size = size
        self._at: dict[Entry, float] = {}
        self._lock = registry.lock()

    def first(self, entry: Entry, now: float) -> float:
        """When `entry` was first met: `now` (monotonic seconds) if it is new."""
        at = self._at.get(entry)
        if at is not None:
            return at
        with self._lock:
            if len(self._at) >= self._size:
                del self._at[next(iter(self._at))]
            return self._at.setdefault(entry, now)


class PinCarrier:
    """Turns the pins of a context into a token, and a token into the pins of a context.

    The middlewares have one each as ``.carrier``; a job queue's workers make their own, with the
    same `secret`.
    """

    def __init__(
        self,
        secret: str | Sequence[str],
        *,
        max_age: float = 60.0,
        header: str = HEADER,
        store: PinStore | AsyncPinStore | None = None,
        clock: Callable[[], float] = SYSTEM.clock,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Prepare.

        Args:
            secret: signs tokens: one string, or several, newest first: the first signs, all
                verify.
            max_age: seconds after a write for which its pin is carried.
            header: name of the header that `headers` and `received` use.
            store: where pins are kept by caller.
            clock: monotonic seconds; the same clock the Routers use.
            wall: seconds since 1970.

        Raises:
            ConfigError: a secret is missing or short, or itsdangerous is not installed.
        """
        self.tokens: Tokens = Tokens(secret, max_age)
        self.header: str = header
        self.store: PinStore | AsyncPinStore | None = store
        self.telemetry: Telemetry = Telemetry("")
        self._clock = clock
        self._wall = wall
        self._met = Met()
        self._said: set[object] = set()
        self._away = False
        self._back: float | None = None

    @property
    def max_age(self) -> float:
        """Seconds after a write for which its pin is carried."""
        return self.tokens.max_age

    def stats(self) -> dict[str, int]:
        """Counts since the start, by name; docs/reference/middleware.md says what each means."""
        return dict(self.telemetry.counts.total())

    def entries(self, context: RoutingContext) -> list[Entry]:
        """The pins of `context` that are not satisfied everywhere yet."""
        for router in routers():
            router.pinning.resolve(context)
        now, wall = self._clock(), self._wall()
        pins = context.pins
        found = {self.tokens.ids(name)[0]: pin for name, pin in list(pins.by_cluster.items())}
        if pins.arrived is not None:  # for services that know clusters we do not
            found = {**pins.arrived.pins, **found}
        return [
            Entry(name, wall - pin.waited(now), pin.lsn, pin.timeline)
            if pin.lsn is not None
            else Entry(name, wall - pin.waited(now), mark=secrets.token_hex(6))
            for name, pin in found.items()
        ]

    def token(self, context: RoutingContext | None = None) -> str | None:
        """A signed token of the pins of `context`, by default the current one; None without."""
        entries = self.entries(context or current_context())
        return self.tokens.sign(entries) if entries else None

    def headers(self, context: RoutingContext | None = None) -> dict[str, str]:
        """`token` of `context` as headers for a message or request; empty when there is no pin.

        Call it after the commit: a job that starts before sees no more than anybody else.
        """
        token = self.token(context)
        return {} if token is None else {self.header: token}

    def received(self, headers: Headers | Callable[[], Headers | None] | None) -> Block:
        """A `request_context` that starts with the pins of a message.

        A ``with`` block, an ``async with`` block or a decorator.

        Args:
            headers: the message's headers; names in any case, values text or bytes. Or a
                function that gives them, called when the block is entered.
        """

        def make() -> RoutingContext:
            given = headers() if callable(headers) else headers
            context = RoutingContext()
            self.arrive(context.pins, tokens_of(given or {}, self.header))
            return context

        return Block(make)

    def arrive(self, pins: Pins, tokens: Iterable[str], stored: Stored | None = None) -> None:
        """Put the pins of `tokens`, and those `stored`, into `pins`. No token makes it raise."""
        wall = self._wall()
        counts = self.telemetry.counts
        entries: list[Entry] = []
        for token in tokens:
            found = self.tokens.read(token, wall)
            if isinstance(found, Fault):
                self._ignored(found)
            else:
                next(counts["token_read"])
                entries += found
        fields, everywhere = stored or Stored({}, None)
        for name, value in fields.items():
            entry = Entry.parse(name.removesuffix("?"), value)
            if entry is not None and self.tokens.alive(entry, wall):
                entries.append(entry)
        if not entries and everywhere is None:
            return
        arrived: dict[str, Pin] = {}
        now = self._clock()
        for entry in entries:
            at = self._met.first(entry, now)
            age = max(0.0, wall - entry.written - (now - at))
            pin = Pin(at, entry.lsn, entry.timeline, age)
            other = arrived.get(entry.id)
            arrived[entry.id] = pin if other is None else covering(pin, other)
        known = {name for router in routers() for name in self.tokens.ids(router.cluster)}
        if known and not arrived.keys() <= known:
            self._ignored(Fault.FOREIGN)
        pins.arrive(Arrivals(arrived, self.tokens.ids, everywhere))

    def _ignored(self, fault: Fault) -> None:
        counts = self.telemetry.counts
        next(counts[f"token_{fault.name.lower()}"])
        if self._first(fault):
            self.telemetry.event(
                "token_ignored",
                reason=str(fault),
                advice="said once for each reason, counted always; if there are many, compare "
                "secrets, clocks and cluster names of your services",
            )
        else:
            next(counts["token_ignored"])

    def _first(self, what: object) -> bool:
        """Whether `what` happens for the first time: strangers must not fill the log."""
        if what in self._said:
            return False
        self._said.add(what)
        return True

    def report_lost(self, reason: str) -> None:
        """Say that a pin could not reach its caller, for `reason`."""
        if self._first("pin_lost"):
            self.telemetry.event(
                "pin_lost",
                level="warning",
                reason=reason,
                advice="said once, counted always; write before the response begins, or give the "
                "middleware a store",
            )
        else:
            next(self.telemetry.counts["pin_lost"])

    def load(self, who: str) -> Stored:
        """The pins the store has for the caller `who`; "as of now" when it cannot be reached."""
        store = self._store()
        try:
            found = store.load(key(who))
        except Exception as error:  # noqa: BLE001 - whatever it is, the request must go on
            return self._failed(error)
        return self._answered(found)

    async def load_async(self, who: str) -> Stored:
        """`load` of `who` for asyncio."""
        store = self._any_store()
        try:
            found = await _awaited(store.load, key(who))
        except Exception as error:  # noqa: BLE001 - whatever it is, the request must go on
            return self._failed(error)
        return self._answered(found)

    def share(self, who: str, context: RoutingContext | None = None) -> bool:
        """Save the pins of `context`, by default the current one, for the caller `who`.

        For writes on somebody's behalf: in a webhook, in a job. Returns whether the store has the
        pins, or there was nothing to save.
        """
        store, fields = self._store(), self._fields(context)
        try:
            if fields:
                store.save(key(who), fields, self.max_age)
        except Exception as error:  # noqa: BLE001 - whatever it is, the request must go on
            self._failed(error)
            return False
        return True

    async def share_async(self, who: str, context: RoutingContext | None = None) -> bool:
        """`share` the pins of `context` for the caller `who`, for asyncio."""
        store, fields = self._any_store(), self._fields(context)
        try:
            if fields:
                await _awaited(store.save, key(who), fields, self.max_age)
        except Exception as error:  # noqa: BLE001 - whatever it is, the request must go on
            self._failed(error)
            return False
        return True

    def _fields(self, context: RoutingContext | None) -> dict[str, str]:
        entries = self.entries(context or current_context())
        return {entry.field: entry.value for entry in entries}

    def _any_store(self) -> PinStore | AsyncPinStore:
        if self.store is None:
            raise ConfigError("store: there is none: give the carrier a store")
        return self.store

    def _store(self) -> PinStore:
        store = self._any_store()
        if is_async(store):
            raise ConfigError(
                "store: this one is for asyncio: give RedisPinStore, or call the _async method"
            )
        return store  # type: ignore[return-value]

    def _failed(self, error: Exception) -> Stored:
        next(self.telemetry.counts["store_failed"])
        if not self._away:
            self._away = True
            self.telemetry.event(
                "store_away",
                level="warning",
                reason=one_line(f"{type(error).__name__}: {error}"),
                advice="until it is back, each caller counts as pinned from the start of the "
                "request",
            )
        return Stored({}, Pin(self._clock()))

    def _answered(self, fields: Mapping[str, str]) -> Stored:
        now = self._clock()
        if self._away:
            self._back = now  # before the flag: who finds it lowered must find the moment
            self._away = False
            self.telemetry.event("store_back")
        if self._back is None or now - self._back > DOUBT + self.max_age:
            return Stored(fields, None)
        # Pins were lost while it was away, but none of a later write than its return to all.
        return Stored(fields, Pin(min(now, self._back + DOUBT)))


def key(who: str) -> str:
    """The name of the caller `who` in a store: a hash, so that nobody reads a name there."""
    return sha256(who.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def is_async(store: PinStore | AsyncPinStore) -> bool:
    """Whether `store` has coroutine functions."""
    return inspect.iscoroutinefunction(store.load)


async def _awaited(call: Callable[..., Any], *args: Any) -> Any:
    """The result of a store's method of either kind, without blocking the loop."""
    if inspect.iscoroutinefunction(call):
        return await call(*args)
    if isinstance(getattr(call, "__self__", None), MemoryPinStore):
        return call(*args)
    return await asyncio.to_thread(call, *args)


def tokens_of(headers: Headers, name: str) -> list[str]:
    """The values in `headers` of the header `name`, in any case, as text."""
    wanted = name.lower()
    return [_text(value) for other, value in headers.items() if _text(other).lower() == wanted]


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
