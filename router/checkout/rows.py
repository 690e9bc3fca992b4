"""Patches psycopg's copy: statements whose rows come or go one by one, streams and COPY."""

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from router.checkout.cursor import RoutedCursor, Routing
from router.checkout.node_connection import NodeConnection
from router.checkout.retry import failed_midway, recover
from router.checkout.route import Route

H = TypeVar("H", bound=NodeConnection)

NO_ROW = object()
"""In the place of the first row where there is none."""

COPY_OUT = 3
"""Libpq's PGRES_COPY_OUT, the status of a COPY that gives rows."""


class RowByRow(Routing[H]):
    """A routed cursor that has such statements."""

    def _rows_of(
        self,
        statement: Any,
        params: Any,
        begin: Callable[[Any], None],
    ) -> Route[H]:
        """Route a `statement` with `params`, and have `begin`, which is given a real cursor, send
        it; again elsewhere where the rules allow it, for until then nothing was delivered."""
        routed = self._routed
        sql = routed.text_of(statement)
        intent = routed.intent_of(sql, params, rows=True)
        route = routed.route(sql, explicit=routed.explicit, intent=intent)

        def send(held: H) -> None:
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


class RowsCursor(RowByRow[H], RoutedCursor[H]):
    """A cursor for threads that streams and copies as psycopg's does."""

    def stream(self, query: Any, params: Any = None, **kwargs: Any) -> Iterator[Any]:
        """As psycopg's: iterate row by row over a query's result, from where the rules send it."""
        rows: Any = None
        first: Any = None

        def begin(cursor: Any) -> None:
            nonlocal rows, first
            rows = cursor.stream(query, params, **kwargs)
            first = next(rows, NO_ROW)

        route = self._rows_of(query, params, begin)
        try:
            if first is not NO_ROW:
                yield first
            yield from rows
        except self._routed.pool.driver_errors as error:
            failed_midway(route, error, self._real)
            raise
        except GeneratorExit:
            rows.close()
            route.failed()
            raise
        route.done(params)

    @contextmanager
    def copy(self, statement: Any, params: Any = None, **kwargs: Any) -> Iterator[Any]:
        """As psycopg's block around a COPY, on the node where the rules send it."""
        with ExitStack() as stack:
            copy: Any = None

            def begin(cursor: Any) -> None:
                nonlocal copy
                copy = stack.enter_context(_copying(cursor, statement, params, kwargs))

            route = self._rows_of(statement, params, begin)
            try:
                with stack.pop_all():
                    yield copy
            except self._routed.pool.driver_errors as error:
                failed_midway(route, error, self._real)
                raise
        route.done(params)


@contextmanager
def _copying(cursor: Any, statement: Any, params: Any, kwargs: dict[str, Any]) -> Iterator[Any]:
    with cursor.copy(statement, params, **kwargs) as copy:
        if copies_out(cursor):
            read_ahead(copy, copy.read())
        yield copy


def copies_out(cursor: Any) -> bool:
    """Whether psycopg's `cursor` has begun a COPY that gives rows."""
    result = cursor.pgresult
    return result is not None and result.status == COPY_OUT


def read_ahead(copy: Any, data: Any) -> None:
    """Have psycopg's `copy` give `data` once more, which was read from it at once: a server that
    refuses a COPY says so only in the place of its first row."""
    if not data:
        return  # there are no rows, which it says again by itself

    def first() -> Generator[Any, Any, Any]:
        del copy._read_gen  # psycopg's own comes next
        yield from ()
        return data

    copy._read_gen = first
