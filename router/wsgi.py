"""Read your own writes across requests, and a status page, for WSGI applications: Flask, Django,
Bottle …"""

from collections.abc import Callable, Iterable, Iterator
from inspect import isawaitable, iscoroutinefunction
from typing import TYPE_CHECKING, Any, Unpack

from router.cluster.router import Router
from router.errors import ConfigError
from router.pins.carrier import PinCarrier, is_async
from router.pins.http import LATE, RAISED, Pinning, Visit, values
from router.pins.options import PinOptions
from router.rules.context import within
from router.status.page import Answer, Ask, Page, StatusOptions, is_forwarded, named, wake

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication


class PinMiddleware:
    """Gives each request a context of its own, with the pins its caller brings, and hands the
    caller new ones.

    Wrap it around everything that may write, the framework's error handling included.
    """

    def __init__(self, app: "WSGIApplication", **options: Unpack[PinOptions]) -> None:
        """Wrap the application `app`, with the options of `router.pins.options.PinOptions`.

        Raises:
            ConfigError: an option is malformed or contradicts another one.
        """
        self.app: WSGIApplication = app
        self.pinning: Pinning = Pinning(**options)
        self.carrier: PinCarrier = self.pinning.carrier
        store = self.carrier.store
        if store is not None and is_async(store):
            raise ConfigError("store: this one is for asyncio: give WSGI a RedisPinStore")

    def __call__(
        self, environ: dict[str, Any], start_response: "StartResponse"
    ) -> Iterable[bytes]:
        """Serve one request."""
        visit = Visit(self.pinning, environ, self.pinning.tokens_of(environ))
        visit.arrive()
        response = _Response(visit, start_response)
        try:
            with within(visit.context):
                body = self.app(environ, response.start)
        except BaseException:
            response.end(RAISED)
            raise
        wrapper = environ.get("wsgi.file_wrapper")
        if isinstance(body, list | tuple) or (
            isinstance(wrapper, type) and isinstance(body, wrapper)
        ):
            # The application has ended, and a server may have a quick way for these types.
            response.begin()
            response.end(LATE)
            return body
        return _Body(response, body)


class _Response:
    """Keeps the headers back until the first part of the body is there, as servers do too: they
    can carry the pins of whatever is written by then.

    Source: https://peps.python.org/pep-3333/#the-start-response-callable
    """

    def __init__(self, visit: Visit, start_response: "StartResponse") -> None:
        self.visit = visit
        self._start_response = start_response
        self._held: tuple[str, list[tuple[str, str]], Any] | None = None
        self._begun: Callable[[bytes], object] | None = None
        self._ended = False

    def start(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None, /
    ) -> Callable[[bytes], object]:
        """The application's ``start_response``."""
        if self._held is not None and exc_info is None:
            raise AssertionError("start_response was called twice without exc_info")
        begun = self._begun is not None
        self._held = (status, headers, exc_info)
        if begun:
            self._call()  # the server raises exc_info, if it has sent the headers
        return self._write

    def begin(self) -> None:
        """Pass the headers on, unless that has been done."""
        if self._begun is None and self._held is not None:
            self._call()

    def _call(self) -> None:
        assert self._held is not None
        status, headers, exc_info = self._held
        visit = self.visit
        headers = visit.told(list(headers))
        visit.save()
        self._held = (status, headers, None)  # a traceback kept would keep its frames
        self._begun = self._start_response(status, headers, exc_info)

    def _write(self, data: bytes) -> None:
        self.begin()
        self.visit.save()
        assert self._begun is not None
        self._begun(data)

    def end(self, reason: str) -> None:
        """Save and report what is left; `reason` says why the headers do not carry it."""
        if not self._ended:
            self._ended = True
            self.visit.save()
            self.visit.end(reason)


class _Body:
    """The application's iterable, each step of it inside the request's context."""

    def __init__(self, response: _Response, body: Iterable[bytes]) -> None:
        self._response = response
        self._context = response.visit.context
        self._body = body
        self._chunks: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        response = self._response
        with within(self._context):
            if self._chunks is None:
                self._chunks = iter(self._body)
            try:
                chunk = next(self._chunks)
            except StopIteration:
                response.begin()
                response.visit.save()
                raise
        response.begin()
        response.visit.save()
        return chunk

    def close(self) -> None:
        """Close the application's iterable, as the server must do with ours."""
        try:
            if (close := getattr(self._body, "close", None)) is not None:
                with within(self._context):
                    close()
        finally:
            self._response.end(LATE)


def cookie(environ: dict[str, Any], name: str) -> str | None:
    """The cookie `name` of the request `environ`, for ``identify=``: a session's key, say."""
    found = values(environ.get("HTTP_COOKIE", ""), name)
    return found[0] if found and found[0] else None


class StatusPage:
    """A WSGI application: ``/`` is a page that draws the clusters, ``/status`` the same as JSON,
    ``/health`` for load balancers. `mount` puts it beside an application.
    """

    def __init__(self, *routers: Router, **options: Unpack[StatusOptions]) -> None:
        """Show `routers`, by default all of this process; an engine has one as ``.router``. For
        the options see `router.status.page.StatusOptions`.

        Raises:
            ConfigError: the token is too short or stands beside a guard, the guard is a coroutine
                function, or two Routers have one name.
        """
        self.page: Page = Page(named(*routers), **options)
        refuse_coroutines(self.page)
        self.page.routers()  # the lag is kept from now on

    def __call__(
        self, environ: dict[str, Any], start_response: "StartResponse"
    ) -> Iterable[bytes]:
        """Serve one request."""
        answer = respond(self.page, environ, environ.get("PATH_INFO", ""))
        start_response(answer.status, answer.headers)
        return [answer.body]


def refuse_coroutines(page: Page) -> None:
    """Raise ConfigError where the guard of `page` would have to be awaited."""
    if iscoroutinefunction(page.guard):
        raise ConfigError("guard: it is a coroutine function, which WSGI cannot await: give a def")


def respond(page: Page, environ: dict[str, Any], path: str) -> Answer:
    """The answer of `page` to the request `environ`, whose `path` is below the page's own."""
    headers = (key[5:].lower().replace("_", "-") for key in environ if key.startswith("HTTP_"))
    ask = Ask(
        environ["REQUEST_METHOD"],
        path,
        environ.get("REMOTE_ADDR", ""),
        environ.get("HTTP_HOST", ""),
        environ.get("HTTP_AUTHORIZATION", ""),
        is_forwarded(headers),
    )
    # A guard that returns an awaitable refuses: a coroutine is true, whatever it would return.
    allowed = page.guard is not None and (said := page.guard(environ)) and not isawaitable(said)
    if (refusal := page.refusal(ask, bool(allowed))) is not None:
        return refusal
    wake(page.asleep())
    return page.answer(ask)


def mount(app: "WSGIApplication", prefix: str, page: "WSGIApplication") -> "WSGIApplication":
    """`app`, but for requests below `prefix`, such as ``/router``, which `page` serves."""
    prefix = "/" + prefix.strip("/")

    def call(environ: dict[str, Any], start_response: "StartResponse") -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path != prefix and not path.startswith(prefix + "/"):
            return app(environ, start_response)
        below = {"SCRIPT_NAME": environ.get("SCRIPT_NAME", "") + prefix}
        return page({**environ, **below, "PATH_INFO": path[len(prefix) :]}, start_response)

    return call
