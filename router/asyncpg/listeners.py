"""The user's callbacks: registered once, and then on each node's connection that is held."""

import inspect
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal

import asyncpg

Kind = Literal["log_listener", "termination_listener", "query_logger"]


def as_own(owner: Any, callback: Callable[..., Any]) -> Callable[..., Any]:
    """`callback`, given `owner` in place of the node's connection it is called for."""
    if inspect.iscoroutinefunction(callback):

        async def later(_con: Any, *said: Any) -> None:
            await callback(owner, *said)

        return later

    def now(_con: Any, *said: Any) -> None:
        callback(owner, *said)

    return now


class Listeners:
    """The callbacks of one routed connection."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[tuple[Kind, Callable[..., Any]], Callable[..., Any]] = {}

    def add(self, kind: Kind, callback: Callable[..., Any], told: Callable[..., Any]) -> None:
        """Have `told` called where asyncpg would call `callback`, a listener of this `kind`."""
        self._known[kind, callback] = told

    def remove(self, kind: Kind, callback: Callable[..., Any], held: Any) -> None:
        """Have `callback`, of this `kind`, called no more, on the connections in `held` either."""
        told = self._known.pop((kind, callback), None)
        for con in held if told is not None else ():
            _call(con, f"remove_{kind}", told)

    def forget(self, kind: Kind) -> None:
        """Have no callback of this `kind` called on connections taken from now on."""
        for known in [key for key in self._known if key[0] == kind]:
            del self._known[known]

    def listen_on(self, con: Any) -> None:
        """Register every callback on `con`, which was taken."""
        for (kind, _), told in self._known.items():
            _call(con, f"add_{kind}", told)

    def leave(self, con: Any) -> None:
        """Take every callback off `con` before it goes back to its pool."""
        for (kind, _), told in self._known.items():
            _call(con, f"remove_{kind}", told)


def _call(con: Any, method: str, told: Any) -> None:
    # A connection that is closed was given back to its pool already.
    with suppress(asyncpg.InterfaceError):
        getattr(con, method)(told)
