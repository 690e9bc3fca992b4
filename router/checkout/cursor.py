"""A driver's cursor whose statements are routed one by one."""

from collections.abc import Callable, Iterator
from typing import Any, Generic, Self, TypeVar

from router.checkout.checkout import Checkout
from router.checkout.node_connection import NodeConnection
from router.checkout.retry import failed_fast_read, recover
from router.checkout.route import Route, timed
from router.rules.decide import READ

H = TypeVar("H", bound=NodeConnection)


class Routing(Generic[H]):
    """What a routed cursor is, for threads and for event loops, over the connections of
    `checkout`.

    Once something was executed, every attribute is the real cursor's, made by `make` on a node's
    connection. `connection` is what its users see as its connection; `stream` makes it a
    server-side cursor, which lives in a transaction.
    """

    _routed: Checkout[H]
    _connection: Any
    _make: Callable[[H], Any]
    _stream: bool
    _real: Any
    _of: H | None
    _settings: dict[str, Any]

    def __init__(
        self,
        checkout: Checkout[H],
        connection: Any,
        make: Callable[[H], Any],
        *,
        stream: bool = False,
    ) -> None:
        own = self.__dict__  # not by __setattr__, which would cost more than the rest
        own["_routed"] = checkout
        own["_connection"] = connection
        own["_make"] = make
        own["_stream"] = stream
        own["_real"] = own["_of"] = None
        own["_settings"] = {}

    def _run(self, method: str, query: Any, params: Any, kwargs: dict[str, Any]) -> Any:
        own = self.__dict__  # as in `RoutedCursor.execute`
        routed = own["_routed"]
        sql = query if isinstance(query, str) else routed.text_of(query)
        many = method == "executemany"
        if many:
            params = routed.repeatable(sql, params)
        route = routed.route(
            sql, explicit=routed.explicit, stream=own["_stream"], many=many, parameters=params
        )
        router = routed.router
        if router.instrumented and (router.timed_balancer is not None or sql is query):
            return self._instrumented(route, method, query, params, kwargs)
        route.begin()
        try:
            real = own["_real"]
            if real is None or own["_of"] is not route.held:
                real = self._replaced(route.held)
            if kwargs or method != "execute":
                self._send(route.held, method, query, params, kwargs)
            elif params is None:
                real.execute(query)
            else:
                real.execute(query, params)
        except Exception as error:  # noqa: BLE001 - raised again unless the rules allow more

            def again(held: H) -> None:
                self._send(held, method, query, params, kwargs)

            recover(route, error, self._real, again)
        except BaseException:
            route.held.interrupted(route.intent)
            raise
        if route.intent.kind is not READ or not route.context.root:
            route.done(params)
        return self

    def _instrumented(
        self, route: Route[H], method: str, query: Any, params: Any, kwargs: dict[str, Any]
    ) -> Any:
        """As `_run`, for a balancer that wants to know how long it took, or with a comment."""
        commented = self._routed.router.config.sql_comment and isinstance(query, str)

        def run(held: H) -> None:
            text = query + route.comment() if commented else query
            self._send(held, method, text, params, kwargs)

        attempt = timed(route, run)
        route.begin()
        try:
            attempt(route.held)
        except Exception as error:  # noqa: BLE001 - raised again unless the rules allow more
            recover(route, error, self._real, attempt)
        except BaseException:
            route.held.interrupted(route.intent)
            raise
        route.done(params)
        return self

    def _send(self, held: H, method: str, query: Any, params: Any, kwargs: dict[str, Any]) -> None:
        call = getattr(self._on(held), method)
        if params is None and method == "execute":
            call(query, **kwargs)
        else:
            call(query, params, **kwargs)

    def _on(self, held: H) -> Any:
        real = self._real
        return real if real is not None and self._of is held else self._replaced(held)

    def _replaced(self, held: H) -> Any:
        """A real cursor on another connection in place of the one there was."""
        own = self.__dict__
        if own["_real"] is not None:
            own["_real"].close()
        own["_of"] = held
        own["_real"] = real = own["_make"](held)
        # Found at once, without a detour by __getattr__.
        fetching = self._fetching(real)
        own["fetchone"], own["fetchmany"] = fetching.fetchone, fetching.fetchmany
        own["fetchall"] = fetching.fetchall
        if own["_settings"]:
            for key, value in own["_settings"].items():
                setattr(real, key, value)
        return real

    def _fetching(self, real: Any) -> Any:
        """Whose fetching methods the users get."""
        return real

    @property
    def connection(self) -> Any:
        """The routed connection this cursor belongs to."""
        return self._connection

    @property
    def description(self) -> Any:
        """As the driver's, None before anything was executed."""
        return None if self._real is None else self._real.description

    @property
    def rowcount(self) -> int:
        """As the driver's, -1 before anything was executed."""
        return -1 if self._real is None else int(self._real.rowcount)

    def __getattr__(self, key: str) -> Any:
        if key.startswith("__"):
            raise AttributeError(key)
        return getattr(self._real if self._real is not None else self._bound(), key)

    def __setattr__(self, key: str, value: Any) -> None:
        if key in _OWN:
            object.__setattr__(self, key, value)
            return
        self._settings[key] = value
        if self._real is not None:
            setattr(self._real, key, value)

    def _bound(self) -> Any:
        # copy(), callproc(), stream() …: what they send cannot be seen from here.
        return self._on(self._routed.bind_primary())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._real!r}>"


class RoutedCursor(Routing[H]):
    """A DBAPI cursor over a `Checkout`: each execute goes where the rules say."""

    def execute(self, query: Any, params: Any = None, **kwargs: Any) -> Any:
        """Run `query` with `params` where it belongs; `kwargs` as the driver takes them."""
        own = self.__dict__  # once: looking anything up is slow in a class with __getattr__
        held = own["_of"]
        if (
            held is None
            or held is not (routed := own["_routed"]).primary
            or query.__class__ is not str
            or (context := routed.fast_read_on_primary(query)) is None
        ):
            return self._run("execute", query, params, kwargs)
        real = own["_real"]
        try:
            if kwargs:  # passing any on makes a call slow, empty ones too
                self._send(held, "execute", query, params, kwargs)
            elif params is None:
                real.execute(query)
            else:
                real.execute(query, params)
        except BaseException as error:
            failed_fast_read(routed, held, error, real)
            raise
        if not context.root:
            routed.router.pinning.read(context, held.node)
        return self

    def executemany(self, query: Any, params_seq: Any, **kwargs: Any) -> Any:
        """Run `query` for several sets of parameters, `params_seq`."""
        return self._run("executemany", query, params_seq, kwargs)

    def close(self) -> None:
        """Close the real cursor, if there is one."""
        if self._real is not None:
            self._real.close()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._real if self._real is not None else self._bound())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


_OWN = frozenset({"_routed", "_connection", "_make", "_stream", "_real", "_of", "_settings"})
