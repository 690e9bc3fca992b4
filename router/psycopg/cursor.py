"""A cursor like psycopg's, whose statements are routed one by one."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg

from router.checkout.cursor import RoutedCursor, Routing
from router.checkout.retry import failed_midway, recover
from router.checkout.route import Route
from router.checkout.text import text_of
from router.psycopg.node_connection import PsycopgConnection


class Closing(Routing[PsycopgConnection]):
    """Refuses to be used after it was closed, executed before or not, as psycopg's does."""

    def close(self) -> Any:
        """Close it; a closed cursor refuses to execute."""
        own = self.__dict__
        if (real := own["_real"]) is not None:
            real.close()
        own["_closed"] = True

    @property
    def closed(self) -> bool:
        """Whether it was closed, or its connection was."""
        return "_closed" in self.__dict__ or (self._real is not None and bool(self._real.closed))

    def _replaced(self, held: PsycopgConnection) -> Any:
        if "_closed" in self.__dict__:
            raise psycopg.InterfaceError("the cursor is closed")
        return super()._replaced(held)

    def _rows_of(
        self, statement: Any, params: Any, begin: Callable[[Any], None]
    ) -> Route[PsycopgConnection]:
        """Route a `statement` with `params` whose rows come or go one by one, and have `begin`,
        which is given a real cursor, send it; again elsewhere where the rules allow it, for until
        then nothing was delivered."""
        routed = self._routed
        sql = text_of(statement)
        intent = routed.intent_of(sql, params, rows=True)
        route = routed.route(sql, explicit=routed.explicit, intent=intent)

        def send(held: PsycopgConnection) -> None:
            begin(self._on(held))

        route.begin_rows()
        try:
            send(route.held)
        except Exception as error:  # noqa: BLE001 - raised again unless the rules allow more
            recover(route, error, self._real, send)
        except BaseException:
            route.held.interrupted(route.intent)
            raise
        return route


class Lasting(Routing[PsycopgConnection]):
    """A cursor WITH HOLD: on the primary, where everything stays from then on."""

    def _run(self, method: str, query: Any, params: Any, kwargs: dict[str, Any]) -> Any:
        self._routed.bind_primary()
        return super()._run(method, query, params, kwargs)


class Cursor(Closing, RoutedCursor[PsycopgConnection]):
    """A cursor for threads."""

    @contextmanager
    def copy(self, statement: Any, params: Any = None, **kwargs: Any) -> Iterator[Any]:
        """As psycopg's block around a COPY, on the node where the rules send it."""
        with ExitStack() as stack:
            copy: Any = None

            def begin(cursor: Any) -> None:
                nonlocal copy
                copy = stack.enter_context(cursor.copy(statement, params, **kwargs))

            route = self._rows_of(statement, params, begin)
            try:
                with stack.pop_all():
                    yield copy
            except psycopg.Error as error:
                failed_midway(route, error, self._real)
                raise
        route.done(params)
