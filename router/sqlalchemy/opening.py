"""How one connection of an engine is opened: by the user's ``creator``, by a ``do_connect``
listener, or by the dialect; and by which credentials then, which the monitor's own need too."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from inspect import signature
from typing import Any, Protocol

from sqlalchemy.engine.interfaces import DBAPIConnection, Dialect
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util import greenlet_spawn

from router.connect.credentials import awaited, made
from router.connect.parameters import for_probes
from router.errors import ConfigError
from router.sqlalchemy.drivers import driver_of


class Creator(Protocol):
    """Opens one connection, as SQLAlchemy's pools call it."""

    def __call__(self, rec: ConnectionPoolEntry) -> DBAPIConnection:
        """A new connection for the pool's record `rec`."""
        ...


_ADDRESS = ("user", "password", "host", "port")
"""Arguments that every driver calls as libpq does."""


class Opening:
    """Opens the connections of one engine.

    Attributes:
        creator: the user's ``creator``, or ``async_creator``; None where he gave none.
    """

    def __init__(self, dialect: Dialect, creator: Callable[..., Any] | None) -> None:
        self._dialect = dialect
        self._open = creator
        self.creator = creator
        if creator is not None and (hidden := _async_creator(creator)) is not None:
            its: Any = dialect
            self.creator = hidden
            self._open = partial(its.loaded_dbapi.connect, async_creator_fn=hidden)

    @property
    def renews(self) -> bool:
        """Whether the user has a function called for each connection."""
        return self.creator is not None or bool(self._listeners)

    @property
    def _listeners(self) -> Any:
        return self._dialect.dispatch.do_connect if self._dialect._has_events else ()

    def takes(self, args: Any, parameters: Mapping[str, Any]) -> bool:
        """Whether the user's ``creator``, if there is one, can be called by the driver's
        arguments `args` and `parameters`, which lead to one node."""
        if self.creator is None:
            return True
        try:
            signature(self.creator).bind(*args, **parameters)
        except TypeError:
            return False
        except ValueError:
            pass  # it is built in, and tells nothing
        return True

    def to(self, args: Any, parameters: Mapping[str, Any]) -> Creator:
        """What opens a connection by the driver's arguments `args` and `parameters`."""

        def connect(rec: ConnectionPoolEntry) -> DBAPIConnection:
            positional, named = list(args), dict(parameters)
            found = self._made(rec, positional, named)
            return self._dialect.connect(*positional, **named) if found is None else found

        return connect

    def _made(
        self, rec: ConnectionPoolEntry | None, positional: list[Any], named: dict[str, Any]
    ) -> DBAPIConnection | None:
        """What the user's creator or listener has connected; None where that is left to the
        dialect, with the arguments `positional` and `named` as listeners have changed them."""
        if self._open is not None:
            if not self.takes(positional, named):
                positional, named = [], {}  # it knows one server only
            connection = self._open(*positional, **named)
            if connection is None:
                raise ConfigError("creator: it returned None: return the connection it has made")
            return connection  # type: ignore[no-any-return]
        for listener in self._listeners:
            connection = listener(self._dialect, rec, positional, named)
            if connection is not None:
                return connection  # type: ignore[no-any-return]
        return None

    def reached_by(
        self,
        args: Any,
        parameters: Mapping[str, Any],
        loop: asyncio.AbstractEventLoop | None,
    ) -> dict[str, Any]:
        """What libpq needs to go where a connection by the driver's arguments `args` and
        `parameters` goes, by the same credentials; any thread. `loop` is that of the engine's
        connections, if it has one. Raises what a function in place of the password raises."""
        positional, named = list(args), dict(parameters)
        driver, dialect = driver_of(self._dialect).of(self._dialect), self._dialect

        def look() -> Mapping[str, Any] | None:
            connection = self._made(None, positional, named)
            if connection is None:
                return None
            try:
                return driver.reached_by(connection)
            finally:
                driver.abort(connection)

        # Whatever is wrong with a listener or creator, the pools' connections will say.
        with suppress(Exception):
            if self.renews:
                found = awaited(greenlet_spawn(look), loop) if dialect.is_async else look()
                if found is not None:
                    return dict(found)
        if dialect.driver == "psycopg":
            return for_probes(named)
        # Another driver's have other names, but for these.
        named["password"] = made(named.get("password"), loop)
        return {key: named[key] for key in _ADDRESS if isinstance(named.get(key), (str, int))}


def _async_creator(creator: Any) -> Callable[..., Any] | None:
    """The user's ``async_creator``, which ``create_async_engine`` hides in a `creator` of its own
    that takes no arguments; None where that is not what it is."""
    names: tuple[str, ...] = getattr(getattr(creator, "__code__", None), "co_freevars", ())
    cells: tuple[Any, ...] = getattr(creator, "__closure__", None) or ()
    hidden = dict(zip(names, cells, strict=True))
    cell = hidden.get("async_creator")
    return None if cell is None else cell.cell_contents
