"""Read your own writes across requests, for Django: ``MIDDLEWARE`` begins with this one."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from http.cookies import Morsel, SimpleCookie
from typing import Any

from asgiref.sync import async_to_sync, iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from router.django import creation
from router.errors import ConfigError
from router.pins.carrier import PinCarrier, is_async
from router.pins.http import LATE, RAISED, Pinning, Visit
from router.pins.options import PinOptions, derived, pin_options, safe_methods
from router.rules.context import within

Respond = Callable[[HttpRequest], Any]


def options() -> PinOptions:
    """What the settings say: ``ROUTER_PINS``, else as Django's own session cookie has it.
    Raises ConfigError: a key of ``ROUTER_PINS`` is unknown or malformed."""
    cookie: dict[str, Any] = {
        "secure": bool(settings.SESSION_COOKIE_SECURE),
        "samesite": (settings.SESSION_COOKIE_SAMESITE or "Lax").title(),
        "path": settings.SESSION_COOKIE_PATH or "/",
        "domain": settings.SESSION_COOKIE_DOMAIN or None,
    }
    given = getattr(settings, "ROUTER_PINS", None)
    if given is False:
        raise ConfigError(
            "ROUTER_PINS: the middleware carries pins, and False forbids them: leave one out"
        )
    found = pin_options(given, cookie, _secrets)
    if found.get("partitioned") and not Morsel().isReservedKey("partitioned"):
        raise ConfigError("ROUTER_PINS['partitioned']: Django's cookies need Python 3.14 for it")
    return found


def _secrets() -> list[str]:
    keys = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    return derived(keys, b"pg-router.django")


class PinMiddleware:
    """Gives each request a context of its own, with the pins its caller brings, and tells the
    caller of new ones. Runs under WSGI and ASGI."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Respond) -> None:
        """Made by Django, around `get_response`. Raises
        django.core.exceptions.ImproperlyConfigured: ``ROUTER_PINS`` or ``ROUTER_SAFE_METHODS``
        is malformed."""
        self.get_response: Respond = get_response
        self._async: bool = bool(iscoroutinefunction(get_response))
        try:
            self.pinning: Pinning = Pinning(**options())
            methods = getattr(settings, "ROUTER_SAFE_METHODS", None)
            self._safe = None if methods is None else safe_methods(methods)
        except ConfigError as error:
            raise ImproperlyConfigured(str(error)) from None
        self.pinning.testing = creation.testing
        self.carrier: PinCarrier = self.pinning.carrier
        store = self.carrier.store
        # Under ASGI this middleware is synchronous too, if one further in is.
        self._bridged: bool = store is not None and is_async(store) and not self._async
        told = dict(self.pinning.carrying([], "")).get("Set-Cookie", "")
        self._cookie: SimpleCookie = SimpleCookie(told)
        if self._async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        """Serve one `request`."""
        if self._async:
            return self._serve(request)
        if self._bridged and not hasattr(request, "scope"):
            # Its connections belong to one event loop, and under WSGI there is none.
            raise ImproperlyConfigured(
                "ROUTER_PINS['store']: this one is for asyncio alone: give a RedisPinStore, which "
                "serves WSGI and ASGI"
            )
        visit = self._visit(request)
        if self._bridged:
            async_to_sync(visit.arrive_async)()
        else:
            visit.arrive()
        try:
            with within(visit.context):
                response = self.get_response(request)
        except BaseException:
            self._save(visit)
            visit.end(RAISED)
            raise
        self._save(visit)
        return self._told(visit, response)

    async def _serve(self, request: HttpRequest) -> Any:
        visit = self._visit(request)
        await visit.arrive_async()
        try:
            with within(visit.context):
                response = await self._response(request)
        except BaseException:
            await visit.save_async()
            visit.end(RAISED)
            raise
        await visit.save_async()
        return self._told(visit, response)

    def _response(self, request: HttpRequest) -> Awaitable[Any]:
        response: Awaitable[Any] = self.get_response(request)
        return response

    def _visit(self, request: HttpRequest) -> Visit:
        visit = Visit(self.pinning, request, self.pinning.tokens_of(request.META))
        if self._safe is not None and request.method not in self._safe:
            visit.context.force = "primary"  # made for this request alone
        return visit

    def _save(self, visit: Visit) -> None:
        if self._bridged:
            async_to_sync(visit.save_async)()
        else:
            visit.save()

    def _told(self, visit: Visit, response: Any) -> HttpResponseBase:
        token = visit.token()
        if token is not None:
            before = dict(response.items())
            after = dict(self.pinning.carrying(list(before.items()), token))
            after.pop("Set-Cookie", None)
            for name in before.keys() - after.keys():
                del response[name]
            for name, value in after.items():
                if before.get(name) != value:
                    response[name] = value
            for name, morsel in self._cookie.items():
                response.cookies[name] = token
                response.cookies[name].update(morsel)
        if response.streaming and not _is_file(response):
            chunks = response.streaming_content
            steps = self._async_steps if response.is_async else self._steps
            response.streaming_content = steps(visit, chunks)
        return response

    def _steps(self, visit: Visit, chunks: Iterable[bytes]) -> Iterator[bytes]:
        @within(visit.context)
        def inside() -> Iterator[bytes]:
            yield from chunks

        try:
            for chunk in inside():
                self._save(visit)
                yield chunk
        finally:
            self._save(visit)
            visit.end(LATE)

    async def _async_steps(
        self, visit: Visit, chunks: AsyncIterator[bytes]
    ) -> AsyncIterator[bytes]:
        @within(visit.context)
        async def inside() -> AsyncIterator[bytes]:
            async for chunk in chunks:
                yield chunk

        try:
            async for chunk in inside():
                await visit.save_async()
                yield chunk
        finally:
            await visit.save_async()
            visit.end(LATE)


def _is_file(response: Any) -> bool:
    """Whether the body is a file of the operating system, whose iteration cannot write to a
    database: left as it is, a server may send it by itself."""
    try:
        return isinstance(response.file_to_stream.fileno(), int)
    except (AttributeError, OSError, ValueError):  # ValueError: it is closed
        return False
