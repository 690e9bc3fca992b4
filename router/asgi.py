"""Read your own writes across requests, and a status page, for ASGI applications: FastAPI,
Starlette, Django …"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from inspect import isawaitable
from typing import Any, Unpack

from router.cluster.router import Router
from router.errors import ConfigError
from router.pins.carrier import PinCarrier
from router.pins.http import LATE, RAISED, SOCKET, Pinning, Visit, values
from router.pins.options import PinOptions
from router.rules.context import RoutingContext, within
from router.status.page import Answer, Ask, Page, StatusOptions, is_forwarded, named, wake

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

VISIT = "pg_router.visit"
"""Key of the scope under which the middleware keeps what `renew` needs."""

STARTS = ("http.response.start", "websocket.accept", "websocket.http.response.start")


class PinMiddleware:
    """Gives each request and each WebSocket a context of its own, with the pins its caller
    brings, and hands the caller new ones.

    Wrap it around everything that may write, the framework's error handling included.
    """

    def __init__(self, app: ASGIApp, **options: Unpack[PinOptions]) -> None:
        """Wrap the application `app`, with the options of `router.pins.options.PinOptions`.

        Raises:
            ConfigError: an option is malformed or contradicts another one.
        """
        self.app: ASGIApp = app
        self.pinning: Pinning = Pinning(**options)
        self.carrier: PinCarrier = self.pinning.carrier

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, one WebSocket, or the lifespan."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        scope = dict(scope)
        name = self.pinning.header
        tokens = self.pinning.tokens(_cookies(scope), _header(scope, name.lower()) if name else "")
        visit = scope[VISIT] = Visit(self.pinning, scope, tokens)
        await visit.arrive_async()
        reason = RAISED

        async def sending(message: Message) -> None:
            nonlocal reason
            if message["type"] in STARTS:
                reason = LATE if scope["type"] == "http" else SOCKET
                message = _told(visit, message)
            await visit.save_async()
            await send(message)

        try:
            with within(visit.context):
                await self.app(scope, receive, sending)
        finally:
            await visit.save_async()
            visit.end(reason)


def _told(visit: Visit, message: Message) -> Message:
    given = message.get("headers") or ()
    before = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in given]
    after = visit.told(before)
    if after is before:
        return message
    headers = [(n.lower().encode("latin-1"), v.encode("latin-1")) for n, v in after]
    return {**message, "headers": headers}


def _header(scope: Scope, name: str) -> str:
    wanted = name.encode("latin-1")
    return next((v.decode("latin-1") for n, v in scope["headers"] if n.lower() == wanted), "")


def _cookies(scope: Scope) -> str:
    # HTTP/2 may split the Cookie header.
    return "; ".join(v.decode("latin-1") for n, v in scope["headers"] if n.lower() == b"cookie")


async def renew(scope: Scope) -> RoutingContext:
    """Ask the store again what the caller of a WebSocket has written elsewhere meanwhile.

    A WebSocket has one context for as long as it is open; call this with its `scope` for each
    message that must see what other requests of its caller wrote, and it returns that context.
    What the connection wrote itself stays pinned.

    Raises:
        ConfigError: there is no `PinMiddleware` around this application.
    """
    visit = scope.get(VISIT)
    if not isinstance(visit, Visit):
        raise ConfigError("renew: this scope has met no router.asgi.PinMiddleware: add it")
    if (who := visit.who) is not None:
        carrier = visit.pinning.carrier
        carrier.arrive(visit.context.pins, (), await carrier.load_async(who))
    return visit.context


def cookie(scope: Scope, name: str) -> str | None:
    """The cookie `name` of the request `scope`, for ``identify=``: a session's key, say."""
    found = values(_cookies(scope), name)
    return found[0] if found and found[0] else None


class StatusPage:
    """An ASGI application: ``/`` is a page that draws the clusters, ``/status`` the same as JSON,
    ``/health`` for load balancers. Frameworks mount it; `mount` puts it beside any application.
    """

    def __init__(self, *routers: Router, **options: Unpack[StatusOptions]) -> None:
        """Show `routers`, by default all of this process; an engine has one as ``.router``. For
        the options see `router.status.page.StatusOptions`.

        Raises:
            ConfigError: the token is too short or stands beside a guard, or two Routers have one
                name.
        """
        self.page: Page = Page(named(*routers), **options)
        self.page.routers()  # the lag is kept from now on

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request.

        Raises:
            NotImplementedError: it is no HTTP request; servers take that well for a lifespan.
        """
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            raise NotImplementedError(f"StatusPage serves no {scope['type']}")
        answer = await self._respond(scope)
        headers = [(n.lower().encode("latin-1"), v.encode("latin-1")) for n, v in answer.headers]
        await send({"type": "http.response.start", "status": answer.code, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    async def _respond(self, scope: Scope) -> Answer:
        client = scope.get("client")
        ask = Ask(
            scope["method"],
            _below(scope),
            client[0] if client else "",
            _header(scope, "host"),
            _header(scope, "authorization"),
            is_forwarded(name.decode("latin-1").lower() for name, _ in scope["headers"]),
        )
        allowed = self.page.guard is not None and self.page.guard(scope)
        if isawaitable(allowed):
            allowed = await allowed
        if (refusal := self.page.refusal(ask, bool(allowed))) is not None:
            return refusal
        if asleep := self.page.asleep():
            await asyncio.to_thread(wake, asleep)
        return self.page.answer(ask)


def _below(scope: Scope) -> str:
    """The path below the place an application is mounted at. As ASGI has it, the path holds that
    place; with FastAPI, if a proxy cuts off a prefix, a part of it; with Litestar, nothing of it.
    """
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    for prefix in (root, root.removeprefix(scope.get("app_root_path", ""))):
        if prefix and (path + "/").startswith(prefix + "/"):
            return path[len(prefix) :]
    return path


def mount(app: ASGIApp, prefix: str, page: ASGIApp) -> ASGIApp:
    """`app`, but for requests below `prefix`, such as ``/router``, which `page` serves."""
    prefix = "/" + prefix.strip("/")

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or not (_below(scope) + "/").startswith(prefix + "/"):
            await app(scope, receive, send)
            return
        root = scope.get("root_path", "").rstrip("/")
        path = {"root_path": root + prefix, "path": root + _below(scope)}
        await page({**scope, **path}, receive, send)

    return call
