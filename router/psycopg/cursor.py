"""A cursor like psycopg's, whose statements are routed one by one."""

from typing import Any

import psycopg

from router.checkout.cursor import Routing
from router.checkout.rows import RowByRow, RowsCursor
from router.psycopg.node_connection import PsycopgConnection


class Closing(RowByRow[PsycopgConnection]):
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


class Lasting(Routing[PsycopgConnection]):
    """A cursor WITH HOLD: on the primary, where everything stays from then on."""

    def _run(self, method: str, query: Any, params: Any, kwargs: dict[str, Any]) -> Any:
        self._routed.bind_primary()
        return super()._run(method, query, params, kwargs)


class Cursor(Closing, RowsCursor[PsycopgConnection]):
    """A cursor for threads."""
