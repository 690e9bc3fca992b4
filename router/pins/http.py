"""What HTTP adapters share: where a request's token stands, and how a response carries one.

Pure but for the `PinCarrier`; headers are lists of (name, value) texts.
"""

import hmac
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NotRequired, TypedDict, cast
from uuid import UUID

from router.errors import ConfigError
from router.messages import did_you_mean, kind_of
from router.pins.carrier import PinCarrier
from router.pins.store import AsyncPinStore, PinStore
from router.rules.context import ROOT, RoutingContext

Headers = list[tuple[str, str]]

MAX_COOKIES = 65_536
"""Characters of the longest Cookie header that is looked at."""

MAX_TOKENS = 4
"""Tokens of one request that are looked at: a browser sends cookies of several paths and domains
under one name."""

COOKIE = "pg_router_pin"

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_ATTRIBUTE = re.compile(r"[^;,\s\x00-\x1f\x7f]*")
_DIRECTIVE = re.compile(r'\s*([^\s=,"]+)\s*(?:=\s*("(?:[^"\\]|\\.)*"|[^",]*))?\s*(?:,|$)')


class PinOptions(TypedDict):
    """What a `PinMiddleware` takes by keyword.

    Attributes:
        secret: signs the token: one string of at least 16 characters, or several, newest first:
            the first signs, all verify.
        cookie: name of the cookie, None for none.
        header: name of a request and response header for API clients, None for none.
        max_age: seconds after a write for which the token counts; also the cookie's Max-Age.
        secure: send the cookie over https only. False is for development without TLS.
        samesite: the cookie's SameSite attribute: "Lax", "Strict" or "None".
        path: the cookie's Path attribute.
        domain: the cookie's Domain attribute, None for this host alone.
        partitioned: keep the cookie apart for each site this one is embedded in.
        store: where pins are kept by caller.
        identify: given the WSGI environ or ASGI scope it returns who calls, for the `store`;
            None for somebody unknown.
    """

    secret: str | Sequence[str]
    cookie: NotRequired[str | None]
    header: NotRequired[str | None]
    max_age: NotRequired[float]
    secure: NotRequired[bool]
    samesite: NotRequired[Literal["Lax", "Strict", "None"]]
    path: NotRequired[str]
    domain: NotRequired[str | None]
    partitioned: NotRequired[bool]
    store: NotRequired[PinStore | AsyncPinStore | None]
    identify: NotRequired[Callable[[Any], str | int | UUID | None] | None]


def pin_options(
    given: object, cookie: Mapping[str, object], secret: Callable[[], list[str]]
) -> PinOptions:
    """What a framework's setting ``ROUTER_PINS`` asks for.

    Args:
        given: the setting: a mapping, or True or None for what the framework says.
        cookie: attributes of the framework's own session cookie, by option.
        secret: derives secrets from the framework's own keys.

    Raises:
        ConfigError: it is no mapping, or a key is unknown; names it.
    """
    given = {} if given is True or given is None else given
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"ROUTER_PINS: {kind_of(given)} is neither a mapping of options nor a bool"
        )
    known = PinOptions.__annotations__
    for key in given:
        if key not in known:
            raise ConfigError(f"ROUTER_PINS: unknown option {key!r}{did_you_mean(key, known)}")
    options: dict[str, Any] = {**cookie, **given}
    if "secret" not in options:
        options["secret"] = secret()
    return cast("PinOptions", options)


def derived(keys: Iterable[str | bytes], purpose: bytes) -> list[str]:
    """A secret from each of an application's keys, in their order: no key signs two kinds of
    thing, and one that is long enough for the framework is for us.

    Args:
        keys: newest first.
        purpose: what keeps this use of them apart from others.
    """
    texts = [key.encode() if isinstance(key, str) else key for key in keys]
    return [hmac.digest(text, purpose, "sha256").hex() for text in texts]


def safe_methods(given: Iterable[str]) -> frozenset[str]:
    """The setting ``ROUTER_SAFE_METHODS``: requests by other methods run on the primary.

    Raises:
        ConfigError: it is one text, or no list of texts.
    """
    if isinstance(given, str):
        raise ConfigError(f"ROUTER_SAFE_METHODS: {given!r} is one text: give a list of methods")
    methods: object = given
    if not isinstance(methods, Iterable) or not all(isinstance(each, str) for each in given):
        raise ConfigError("ROUTER_SAFE_METHODS: give a list of methods, each a text such as 'GET'")
    return frozenset(method.upper() for method in given)


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
        texts = {"cookie": cookie, "header": header, "domain": domain, "path": path}
        for option, given in texts.items():
            known: object = given
            if not (isinstance(known, str) or (known is None and option != "path")):
                raise ConfigError(f"{option}: it is {kind_of(known)}: give a text")
        for option, name in (("cookie", cookie), ("header", header)):
            if name is not None and not _NAME.fullmatch(name):
                raise ConfigError(f"{option}: {name!r} is no name: letters, digits, '-' and '_'")
        for option, text in (("path", path), ("domain", domain or "")):
            if not _ATTRIBUTE.fullmatch(text):
                raise ConfigError(
                    f"{option}: {text!r} would break the cookie: drop ';' and blanks"
                )
        if samesite not in ("Lax", "Strict", "None"):
            raise ConfigError(f"samesite: {samesite!r} is none of 'Lax', 'Strict', 'None'")
        if samesite == "None" and not secure:
            raise ConfigError("samesite: browsers take 'None' only with secure=True")
        if partitioned and not secure:
            raise ConfigError("partitioned: browsers take it only with secure=True")
        if cookie is not None and cookie.startswith("__Host-") and (domain or path != "/"):
            raise ConfigError(
                f"cookie: browsers take {cookie!r} only without a domain and with path '/'"
            )
        if cookie is not None and cookie.startswith(("__Host-", "__Secure-")) and not secure:
            raise ConfigError(f"cookie: browsers take {cookie!r} only with secure=True")
        if identify is not None and not callable(identify):
            raise ConfigError(f"identify: it is {kind_of(identify)}: give a function")
        for method in ("load", "save"):
            if store is not None and not callable(getattr(store, method, None)):
                raise ConfigError(
                    f"store: {kind_of(store)} has no method {method}(): see PinStore"
                )
        if (store is None) is not (identify is None):
            raise ConfigError("store: it needs identify=, which says who calls, and the reverse")
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

    def tokens(self, cookies: str, header: str) -> list[str]:
        """The tokens of a request.

        Args:
            cookies: its Cookie header, empty without one.
            header: the value of our header, empty without one.
        """
        found = [header] if header else []
        # The cheap look first: most requests carry no token.
        if self.cookie and self.cookie in cookies:
            found += values(cookies, self.cookie)
        return found[:MAX_TOKENS]

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
    directives = [
        directive
        for directive in directives
        if not directive.lower().startswith("s-maxage")
        and directive.lower() not in ("public", "private")
    ]
    return [*kept, ("Cache-Control", ", ".join([*directives, "private"]))]


def varying(headers: Headers, names: Sequence[str]) -> Headers:
    """`headers` with `names` in Vary."""
    kept = [(name, value) for name, value in headers if name.lower() != "vary"]
    told = [
        part.strip()
        for name, value in headers
        if name.lower() == "vary"
        for part in value.split(",")
        if part.strip()
    ]
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

    __slots__ = ("_saved", "_token", "_told", "context", "pinning", "request", "who")

    def __init__(self, pinning: Pinning, request: Any) -> None:
        self.pinning: Pinning = pinning
        self.request: Any = request
        tested = pinning.testing is not None and pinning.testing()
        self.context: RoutingContext = RoutingContext(ROOT.pins if tested else None)
        changes = self.context.pins.changes
        self._told = changes  # changes of the pins that the response's headers cover
        self._token: str | None = None
        self._saved = changes  # ... that the store has
        self.who: str | None = pinning.who(request)

    def writer(self) -> str | None:
        """Whose pins the store has not heard of, None while there are none.

        Asked again, because a request may have logged somebody in.
        """
        if self._saved == self.context.pins.changes or self.pinning.identify is None:
            return None
        return self.pinning.who(self.request) or self.who

    def saved(self, changes: int) -> None:
        """The store has the pins as they were after `changes`."""
        self._saved = changes

    def token(self) -> str | None:
        """What the response has to tell; None unless this request has written something."""
        changes = self.context.pins.changes
        if changes != self._told:
            self._told = changes
            self._token = self.pinning.carrier.token(self.context)
        return self._token

    def told(self, headers: Headers) -> Headers:
        """The response's headers, with a token if this request has written something."""
        token = self.token()
        return headers if token is None else self.pinning.carrying(headers, token)

    def end(self, reason: str) -> None:
        """Nothing more can be told: say so, if there were something.

        Args:
            reason: why the headers do not tell it.
        """
        changes = self.context.pins.changes
        if changes in (self._told, self._saved):
            return
        if self.pinning.carrier.entries(self.context):
            self.pinning.carrier.report_lost(reason)
