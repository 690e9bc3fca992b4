"""One request under any adapter: its pins come in, it runs, and its caller learns of its writes.

A request is a `Visit`: `arrive` brings the pins of its caller into a context of its own, `told`
puts a token into the response's headers, `save` writes them to the store, and `end` reports pins
that could not reach the caller. WSGI, ASGI, Flask and Django know where headers stand. Headers are
lists of (name, value) texts.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal
from uuid import UUID

from router.errors import ConfigError
from router.pins.carrier import PinCarrier, Stored
from router.pins.options import COOKIE, check_attributes, check_store, check_texts
from router.pins.store import AsyncPinStore, PinStore
from router.rules.context import ROOT, RoutingContext

Headers = list[tuple[str, str]]

LATE = "written after the headers of the response had left"
RAISED = "the application raised, and the server answered in its place"
SOCKET = "a WebSocket wrote, and no header follows its handshake"
"""Why the response's headers do not carry the pin of a write."""

MAX_COOKIES = 65_536
"""Characters of the longest Cookie header that is looked at."""

MAX_TOKENS = 4
"""Tokens of one request that are looked at: a browser sends cookies of several paths and domains
under one name."""

_DIRECTIVE = re.compile(r'\s*([^\s=,"]+)\s*(?:=\s*("(?:[^"\\]|\\.)*"|[^",]*))?\s*(?:,|$)')


class Pinning:
    """The options of a middleware, checked, and what does not depend on WSGI or ASGI."""

    def __init__(
        self,
        *,
        secret: str | Sequence[str],
        cookie: str | None = COOKIE,
        header: str | None = None,
        max_age: float = 60.0,
        secure: bool = True,
        samesite: Literal["Lax", "Strict", "None"] = "Lax",
        path: str = "/",
        domain: str | None = None,
        partitioned: bool = False,
        store: PinStore | AsyncPinStore | None = None,
        identify: Callable[[Any], str | int | UUID | None] | None = None,
    ) -> None:
        """See `PinOptions`.

        Raises:
            ConfigError: an option is malformed or contradicts another one.
        """
        check_texts(cookie, header, path, domain)
        check_attributes(cookie, secure, samesite, path, domain, partitioned)
        check_store(store, identify)
        if cookie is None and header is None and store is None:
            raise ConfigError("cookie: with neither cookie, header nor store nothing is carried")
        if max_age == math.inf:
            raise ConfigError("max_age: a cookie's Max-Age is finite: give seconds above 0")
        self.carrier: PinCarrier = PinCarrier(secret, max_age=max_age, store=store)
        self.cookie: str | None = cookie
        self.header: str | None = header
        self.identify: Callable[[Any], str | int | UUID | None] | None = identify
        # Says whether tests are run: then a request and the test that made it share their pins.
        self.testing: Callable[[], bool] | None = None
        attributes = [f"Max-Age={math.ceil(max_age)}", f"Path={path}", "HttpOnly"]
        attributes += [f"SameSite={samesite}"]
        attributes += [f"Domain={domain}"] if domain else []
        attributes += ["Secure"] if secure else []
        attributes += ["Partitioned"] if partitioned else []
        self._attributes = "; ".join(attributes)
        self._key = "HTTP_" + header.upper().replace("-", "_") if header else ""

    def tokens(self, cookies: str, header: str) -> list[str]:
        """The tokens of a request: in its Cookie header, `cookies`, and in our own `header`, each
        empty where there is none."""
        found = [header] if header else []
        # Most requests carry no token, so a search of the text comes before taking it apart.
        if self.cookie and self.cookie in cookies:
            found += values(cookies, self.cookie)
        return found[:MAX_TOKENS]

    def tokens_of(self, environ: Mapping[str, Any]) -> list[str]:
        """The tokens of a WSGI request, whose headers are in `environ` as CGI has them."""
        header = environ.get(self._key, "") if self._key else ""
        return self.tokens(environ.get("HTTP_COOKIE", ""), header)

    def carrying(self, headers: Headers, token: str) -> Headers:
        """A response's `headers` with `token`, kept out of caches that serve several people."""
        added: Headers = []
        if self.cookie:
            added.append(("Set-Cookie", f"{self.cookie}={token}; {self._attributes}"))
        if self.header:
            added.append((self.header, token))
        if not added:
            return headers
        vary = [*(["Cookie"] if self.cookie else []), *([self.header] if self.header else [])]
        return [*varying(private(headers), vary), *added]

    def who(self, request: Any) -> str | None:
        """Who calls, as far as the application can tell from `request`."""
        if self.identify is None:
            return None
        found: object = self.identify(request)
        if found is None or isinstance(found, str):
            return found
        if isinstance(found, int | UUID) and not isinstance(found, bool):
            return str(found)
        raise ConfigError(
            f"identify: it returned a {type(found).__name__}: let it return a text, a number or a "
            "UUID that names the caller, or None for somebody unknown"
        )


def values(cookies: str, name: str) -> list[str]:
    """The values of the cookies called `name`; none of a header too long to be looked at."""
    if len(cookies) > MAX_COOKIES:
        return [cookies]  # too long for a token too, so it is counted as one
    pairs = (pair.partition("=") for pair in cookies.split(";"))
    return [value.strip().strip('"') for key, _, value in pairs if key.strip() == name]


def private(headers: Headers) -> Headers:
    """`headers` so that no shared cache stores the response. What they forbid stays forbidden.

    ``public`` and ``s-maxage`` go, ``private`` comes. Headers that speak to one kind of cache
    only are dropped, for they would overrule Cache-Control.

    Source: https://www.rfc-editor.org/rfc/rfc9111#section-5.2.2 and
    https://www.rfc-editor.org/rfc/rfc9213#section-2.2
    """
    kept: Headers = []
    directives: list[str] = []
    for name, value in headers:
        lower = name.lower()
        if lower == "cache-control":
            directives += [
                match[0].strip().rstrip(",").strip() for match in _DIRECTIVE.finditer(value)
            ]
        elif not lower.endswith("-cache-control") and lower != "surrogate-control":
            kept.append((name, value))
    # private="field" protects that field alone, so it does not count.
    left = [
        each
        for each in directives
        if not each.lower().startswith("s-maxage") and each.lower() not in ("public", "private")
    ]
    return [*kept, ("Cache-Control", ", ".join([*left, "private"]))]


def varying(headers: Headers, names: Sequence[str]) -> Headers:
    """`headers` with `names` in Vary."""
    kept = [(name, value) for name, value in headers if name.lower() != "vary"]
    given = ",".join(value for name, value in headers if name.lower() == "vary")
    told = [part.strip() for part in given.split(",") if part.strip()]
    if "*" not in told:
        lower = {part.lower() for part in told}
        told += [name for name in names if name.lower() not in lower]
    return [*kept, ("Vary", ", ".join(told))]


class Visit:
    """One request, or one WebSocket, on its way through a middleware.

    Attributes:
        context: the request's own.
        request: the WSGI environ or ASGI scope.
        who: who calls, as far as the application could tell when it came.
    """

    __slots__ = ("_saved", "_token", "_tokens", "_told", "context", "pinning", "request", "who")

    def __init__(self, pinning: Pinning, request: Any, tokens: Sequence[str]) -> None:
        self.pinning: Pinning = pinning
        self.request: Any = request
        self._tokens = tokens
        tested = pinning.testing is not None and pinning.testing()
        self.context: RoutingContext = RoutingContext(ROOT.pins if tested else None)
        changes = self.context.pins.changes
        # Changes of the pins that the response's headers cover, and those that the store has.
        self._told = self._saved = changes
        self._token: str | None = None
        self.who: str | None = pinning.who(request)

    def arrive(self) -> None:
        """Bring in the pins of the caller, those in the store too."""
        who = self.who
        self._arrived(None if who is None else self.pinning.carrier.load(who))

    async def arrive_async(self) -> None:
        """`arrive` for asyncio."""
        who = self.who
        self._arrived(None if who is None else await self.pinning.carrier.load_async(who))

    def _arrived(self, stored: Stored | None) -> None:
        if self._tokens or stored is not None:
            self.pinning.carrier.arrive(self.context.pins, self._tokens, stored)

    def token(self) -> str | None:
        """The token for the response; None unless this request has written something."""
        changes = self.context.pins.changes
        if changes != self._told:
            self._told = changes
            self._token = self.pinning.carrier.token(self.context)
        return self._token

    def told(self, headers: Headers) -> Headers:
        """The response's `headers`, with a token if this request has written something."""
        token = self.token()
        return headers if token is None else self.pinning.carrying(headers, token)

    def save(self) -> None:
        """Write new pins to the store, before the caller learns of the write."""
        who, changes = self._writer(), self.context.pins.changes
        if who is not None and self.pinning.carrier.share(who, self.context):
            self._saved = changes

    async def save_async(self) -> None:
        """`save` for asyncio."""
        who, changes = self._writer(), self.context.pins.changes
        if who is not None and await self.pinning.carrier.share_async(who, self.context):
            self._saved = changes

    def _writer(self) -> str | None:
        """The caller whose pins the store does not have yet, None while there are none. `identify`
        is asked again, because a request may have logged somebody in."""
        if self._saved == self.context.pins.changes or self.pinning.identify is None:
            return None
        return self.pinning.who(self.request) or self.who

    def end(self, reason: str) -> None:
        """Nothing more is sent: report pins that reached nobody, and the `reason`."""
        carrier, covered = self.pinning.carrier, (self._told, self._saved)
        if self.context.pins.changes not in covered and carrier.entries(self.context):
            carrier.report_lost(reason)
