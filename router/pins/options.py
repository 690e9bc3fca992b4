"""The options of a middleware that carries pins, and what framework settings ask of it."""

import hmac
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NotRequired, TypedDict, cast
from uuid import UUID

from router.errors import ConfigError
from router.messages import did_you_mean, kind_of
from router.pins.store import AsyncPinStore, PinStore

COOKIE = "pg_router_pin"
"""The cookie that carries pins, unless another name is asked for."""

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_ATTRIBUTE = re.compile(r"[^;,\s\x00-\x1f\x7f]*")


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
    """A secret from each of an application's `keys`, newest first. No key signs two kinds of
    thing, for `purpose` sets this use apart, and a key long enough for the framework is for us."""
    texts = [key.encode() if isinstance(key, str) else key for key in keys]
    return [hmac.digest(text, purpose, "sha256").hex() for text in texts]


def safe_methods(given: Iterable[str]) -> frozenset[str]:
    """What is `given` as ``ROUTER_SAFE_METHODS``: requests by other methods run on the primary.

    Raises:
        ConfigError: it is one text, or no list of texts.
    """
    if isinstance(given, str):
        raise ConfigError(f"ROUTER_SAFE_METHODS: {given!r} is one text: give a list of methods")
    methods: object = given
    if not isinstance(methods, Iterable) or not all(isinstance(each, str) for each in given):
        raise ConfigError("ROUTER_SAFE_METHODS: give a list of methods, each a text such as 'GET'")
    return frozenset(method.upper() for method in given)


def check_texts(cookie: object, header: object, path: object, domain: object) -> None:
    """Raise ConfigError where `cookie`, `header`, `path` or `domain` is no text, or would break a
    header."""
    given = {"cookie": cookie, "header": header, "domain": domain, "path": path}
    for option, text in given.items():
        if not (isinstance(text, str) or (text is None and option != "path")):
            raise ConfigError(f"{option}: it is {kind_of(text)}: give a text")
    for option, name in (("cookie", cookie), ("header", header)):
        if name is not None and not _NAME.fullmatch(str(name)):
            raise ConfigError(f"{option}: {name!r} is no name: letters, digits, '-' and '_'")
    for option, text in (("path", path), ("domain", domain or "")):
        if not _ATTRIBUTE.fullmatch(str(text)):
            raise ConfigError(f"{option}: {text!r} would break the cookie: drop ';' and blanks")


def check_attributes(
    cookie: str | None,
    secure: bool,
    samesite: str,
    path: str,
    domain: str | None,
    partitioned: bool,
) -> None:
    """Raise ConfigError where browsers would drop a `cookie` of that name with these values of
    `secure`, `samesite`, `path`, `domain` and `partitioned`.

    Source: https://datatracker.ietf.org/doc/html/draft-ietf-httpbis-rfc6265bis
    """
    if samesite not in ("Lax", "Strict", "None"):
        raise ConfigError(f"samesite: {samesite!r} is none of 'Lax', 'Strict', 'None'")
    if samesite == "None" and not secure:
        raise ConfigError("samesite: browsers take 'None' only with secure=True")
    if partitioned and not secure:
        raise ConfigError("partitioned: browsers take it only with secure=True")
    name = cookie or ""
    if name.startswith("__Host-") and (domain or path != "/"):
        raise ConfigError(
            f"cookie: browsers take {cookie!r} only without a domain and with path '/'"
        )
    if name.startswith(("__Host-", "__Secure-")) and not secure:
        raise ConfigError(f"cookie: browsers take {cookie!r} only with secure=True")


def check_store(store: object, identify: object) -> None:
    """Raise ConfigError where one of `store` and `identify` is missing, or cannot be called."""
    if identify is not None and not callable(identify):
        raise ConfigError(f"identify: it is {kind_of(identify)}: give a function")
    for method in ("load", "save"):
        if store is not None and not callable(getattr(store, method, None)):
            raise ConfigError(f"store: {kind_of(store)} has no method {method}(): see PinStore")
    if (store is None) is not (identify is None):
        raise ConfigError("store: it needs identify=, which says who calls, and the reverse")
