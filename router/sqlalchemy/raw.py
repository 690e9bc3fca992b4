"""Routing for those who go below SQLAlchemy: ``raw_connection()`` and its cursors."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Self

from router.recovery import recover, timed
from router.sqlalchemy.connection import NodeConnection

if TYPE_CHECKING:
    from router.sqlalchemy.checkout import RoutedConnection


class RoutedDBAPIConnection:
    """What ``.dbapi_connection`` of a routed checkout is: cursors, commit and rollback are routed,
    and everything else is the primary's driver connection, on which the checkout then stays."""

    __slots__ = ("routed",)

    def __init__(self, routed: "RoutedConnection") -> None:
        object.__setattr__(self, "routed", routed)

    routed: "RoutedConnection"

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        """A cursor that is routed statement by statement."""
        return self.routed.cursor(*args, **kwargs)

    def commit(self) -> None:
        """Commit on the primary."""
        self.routed.commit()

    def rollback(self) -> None:
        """Roll back whatever is open."""
        self.routed.rollback()

    def close(self) -> None:
        """Give every connection back to its pool."""
        self.routed.close()

    def tpc_begin(self, xid: Any) -> None:
        """Begin a two-phase transaction on the primary."""
        held = self.routed.bind_primary()
        held.dbapi.tpc_begin(xid)

    def tpc_prepare(self) -> None:
        """Prepare it."""
        held = self.routed.bind_primary()
        held.dbapi.tpc_prepare()

    def tpc_commit(self, *xid: Any) -> None:
        """Commit it, or the prepared one called `xid`."""
        self._end_tpc("tpc_commit", xid)

    def tpc_rollback(self, *xid: Any) -> None:
        """Roll it back, or the prepared one called `xid`."""
        self._end_tpc("tpc_rollback", xid)

    def _end_tpc(self, method: str, xid: tuple[Any, ...]) -> None:
        routed = self.routed
        held = routed.bind_primary()
        try:
            getattr(held.dbapi, method)(*xid)
        finally:
            held.in_transaction = routed.pool.driver.in_transaction(held.dbapi)
            routed._written()
            routed.bound = False
            if method == "tpc_commit":
                routed.commit()
            else:
                routed.rollback()

    def __getattr__(self, key: str) -> Any:
        if key.startswith("__"):
            raise AttributeError(key)
        return getattr(self.routed.bind_primary().dbapi, key)

    def __setattr__(self, key: str, value: Any) -> None:
        setattr(self.routed.bind_primary().dbapi, key, value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RoutedDBAPIConnection) and other.routed is self.routed

    def __hash__(self) -> int:
        return hash(self.routed)

    def __repr__(self) -> str:
        return f"<RoutedDBAPIConnection of {self.routed!r}>"


class RoutedCursor:
    """A DBAPI cursor for ``raw_connection()`` users: each execute goes where the rules say.

    Once something was executed, every attribute is the real cursor's.
    """

    def __init__(
        self, routed: "RoutedConnection", args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._routed = routed
        self._make = (args, kwargs)
        self._real: Any = None
        self._of: Any = None
        self._settings: dict[str, Any] = {}

    def execute(self, query: Any, params: Any = None, **kwargs: Any) -> Any:
        """Run one statement where it belongs; arguments as the driver's own cursor takes them."""
        return self._run("execute", query, params, kwargs)

    def executemany(self, query: Any, params_seq: Any, **kwargs: Any) -> Any:
        """Run one statement for several sets of parameters."""
        return self._run("executemany", query, params_seq, kwargs)

    def _run(self, method: str, query: Any, params: Any, kwargs: dict[str, Any]) -> Any:
        args, _ = self._make
        sql = query if isinstance(query, str) else _text_of(query)
        route = self._routed.route(sql, explicit=False, stream=bool(args and args[0]))
        positional = () if params is None and method == "execute" else (params,)

        def run(held: "NodeConnection") -> None:
            cursor = self._on(held)
            getattr(cursor, method)(query, *positional, **kwargs)

        run = timed(route, run)
        route.begin()
        try:
            run(route.held)
        except Exception as error:  # noqa: BLE001 - raised again unless the rules allow more
            recover(route, error, self._real, run)
        except BaseException:
            route.held.broken = True
            raise
        route.done(params)
        return self

    def _on(self, held: "NodeConnection") -> Any:
        real = self._real
        if real is not None:
            if self._of is held.dbapi:
                return real
            real.close()
        args, kwargs = self._make
        self._of = held.dbapi
        self._real = real = held.dbapi.cursor(*args, **kwargs)
        for key, value in self._settings.items():
            setattr(real, key, value)
        return real

    def close(self) -> None:
        """Close the real cursor, if there is one."""
        if self._real is not None:
            self._real.close()

    @property
    def connection(self) -> Any:
        """The routed connection this cursor belongs to."""
        return self._routed.dbapi_connection

    @property
    def description(self) -> Any:
        """As the driver's, None before anything was executed."""
        return None if self._real is None else self._real.description

    @property
    def rowcount(self) -> int:
        """As the driver's, -1 before anything was executed."""
        return -1 if self._real is None else int(self._real.rowcount)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._real if self._real is not None else self._bound())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __getattr__(self, key: str) -> Any:
        if key.startswith("__"):
            raise AttributeError(key)
        return getattr(self._real if self._real is not None else self._bound(), key)

    def __setattr__(self, key: str, value: Any) -> None:
        if key in ("_routed", "_make", "_real", "_of", "_settings"):
            object.__setattr__(self, key, value)
            return
        self._settings[key] = value
        if self._real is not None:
            setattr(self._real, key, value)

    def _bound(self) -> Any:
        # copy(), callproc(), stream() …: what they send cannot be seen from here.
        return self._on(self._routed.bind_primary())

    def __repr__(self) -> str:
        return f"<RoutedCursor {self._real!r}>"


def _text_of(query: Any) -> str | None:
    """The text of a driver's composed query, None when it has to be bound to a connection."""
    if isinstance(query, bytes):
        return query.decode("utf-8", "replace")
    as_string = getattr(query, "as_string", None)
    if as_string is None:
        return None
    try:
        return str(as_string(None))
    except Exception:  # noqa: BLE001 - whatever it needs a live connection for
        return None
