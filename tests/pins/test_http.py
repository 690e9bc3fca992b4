"""Headers: where tokens stand in a request, and what carrying one does to a response."""

import math
import re
from typing import Any

import pytest

from router.errors import ConfigError
from router.pins.carrier import PinCarrier
from router.pins.http import MAX_COOKIES, Pinning, private, varying
from router.pins.store import MemoryPinStore
from tests.pins.kit import SECRET


def pinning(**options: Any) -> Pinning:
    given: Any = {"secret": SECRET, **options}
    return Pinning(**given)


@pytest.mark.parametrize(
    ("cookies", "found"),
    [
        ("", []),
        ("pg_router_pin=a.b-c", ["a.b-c"]),
        ('x=1; pg_router_pin="t"; y=2', ["t"]),
        ("pg_router_pin=one; pg_router_pin=two", ["one", "two"]),
        ("not_pg_router_pin=t; pg_router_pin2=u; other=pg_router_pin=v", []),
        ("pg_router_pin", [""]),
        (";;; =; pg_router_pin = t ;", ["t"]),
        (";".join(["pg_router_pin=t"] * 50), ["t"] * 4),
    ],
)
def test_tokens_in_cookies(cookies: str, found: list[str]) -> None:
    """The cookies of our name are found, a few of them, however the header is written."""
    assert pinning().tokens(cookies, "") == found


def test_a_cookie_header_too_long_is_not_taken_apart() -> None:
    """Beyond the cap the header counts as one token, which is too long."""
    cookies = "pg_router_pin=t; " + "x" * MAX_COOKIES
    assert pinning().tokens(cookies, "") == [cookies]


def test_a_header_comes_first() -> None:
    """With both, header and cookies are looked at; without the option neither is."""
    both = pinning(header="X-Pin")
    assert both.tokens("pg_router_pin=c", "h") == ["h", "c"]
    assert pinning(cookie=None, header="X-Pin").tokens("pg_router_pin=c", "h") == ["h"]


@pytest.mark.parametrize(
    ("said", "becomes"),
    [
        ([], "private"),
        (["no-store"], "no-store, private"),
        (["private"], "private"),
        (["public, max-age=60"], "max-age=60, private"),
        (["Public, S-MaxAge=600, max-age=5, immutable"], "max-age=5, immutable, private"),
        (["no-cache", "must-revalidate"], "no-cache, must-revalidate, private"),
        (['no-cache="Set-Cookie, X", max-age=1'], 'no-cache="Set-Cookie, X", max-age=1, private'),
        (['private="x-user", max-age=9'], 'private="x-user", max-age=9, private'),
        (["public,no-store,must-understand"], "no-store, must-understand, private"),
        ([" , "], "private"),
    ],
)
def test_shared_caches_are_kept_out(said: list[str], becomes: str) -> None:
    """``private`` is added, what invites shared caches goes, and what forbids stays."""
    headers = [("Content-Type", "text/plain"), *(("cache-control", value) for value in said)]
    assert private(headers) == [("Content-Type", "text/plain"), ("Cache-Control", becomes)]


def test_headers_for_one_kind_of_cache_are_dropped() -> None:
    """A CDN must not find permission in a header of its own, which would overrule ours."""
    given = [("CDN-Cache-Control", "max-age=600"), ("Surrogate-Control", "max-age=9"), ("A", "b")]
    assert private(given) == [("A", "b"), ("Cache-Control", "private")]


@pytest.mark.parametrize(
    ("said", "becomes"),
    [
        ([], "Cookie"),
        (["Accept-Encoding"], "Accept-Encoding, Cookie"),
        (["accept", "cookie , Origin"], "accept, cookie, Origin"),
        (["*"], "*"),
        (["Accept, *"], "Accept, *"),
    ],
)
def test_vary_is_merged(said: list[str], becomes: str) -> None:
    """``Cookie`` joins what the application varies on, once, in one header."""
    headers = [("A", "b"), *(("vary", value) for value in said)]
    assert varying(headers, ["Cookie"]) == [("A", "b"), ("Vary", becomes)]


def carried(**options: Any) -> dict[str, str]:
    return dict(pinning(**options).carrying([("Set-Cookie", "theirs=1")][:0], "TOKEN"))


def test_the_cookie_is_strict_unless_told_otherwise() -> None:
    """By default the cookie is sent over https only, hidden from scripts, and lives `max_age`."""
    assert carried()["Set-Cookie"] == (
        "pg_router_pin=TOKEN; Max-Age=60; Path=/; HttpOnly; SameSite=Lax; Secure"
    )
    plain = carried(
        secure=False, samesite="Strict", path="/app", domain="example.org", max_age=9.5, cookie="p"
    )
    assert plain["Set-Cookie"] == (
        "p=TOKEN; Max-Age=10; Path=/app; HttpOnly; SameSite=Strict; Domain=example.org"
    )


def test_header_mode_varies_on_the_header() -> None:
    """With a header in place of the cookie the response names it, and is private too."""
    assert carried(cookie=None, header="X-Pin") == {
        "Cache-Control": "private",
        "Vary": "X-Pin",
        "X-Pin": "TOKEN",
    }
    assert carried(header="X-Pin")["Vary"] == "Cookie, X-Pin"


def test_the_applications_cookies_stay() -> None:
    """Ours is one more Set-Cookie, not the only one."""
    headers = pinning().carrying([("Set-Cookie", "theirs=1")], "TOKEN")
    assert [v.partition("=")[0] for n, v in headers if n == "Set-Cookie"] == [
        "theirs",
        "pg_router_pin",
    ]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"cookie": "a b"}, "cookie: 'a b'"),
        ({"header": "X:Y"}, "header: 'X:Y'"),
        ({"path": "/;x"}, "path: "),
        ({"domain": "a b"}, "domain: "),
        ({"samesite": "lax"}, "samesite: 'lax'"),
        ({"secret": SECRET.encode()}, "secret: expected one string"),
        ({"secret": None}, "secret: expected one string"),
        ({"secret": [SECRET.encode()]}, "secret: expected one string"),
        ({"max_age": "60"}, "max_age: '60' is no number"),
        ({"max_age": None}, "max_age: None is no number"),
        ({"max_age": math.inf}, "max_age: a cookie's Max-Age is finite"),
        ({"path": None}, "path: it is a NoneType"),
        ({"domain": 5}, "domain: it is an int"),
        ({"cookie": 5}, "cookie: it is an int"),
        ({"identify": "x", "store": MemoryPinStore()}, "identify: it is a str"),
        ({"identify": str, "store": object()}, "store: an object has no method load()"),
        ({"cookie": "__Host-pin", "domain": "x.org"}, "only without a domain"),
        ({"cookie": "__Host-pin", "secure": False}, "only with secure=True"),
        ({"partitioned": True, "secure": False}, "partitioned: browsers"),
        ({"samesite": "None", "secure": False}, "secure=True"),
        ({"store": MemoryPinStore()}, "identify="),
        ({"identify": lambda request: "me"}, "store: "),
        ({"cookie": None}, "nothing is carried"),
        ({"max_age": -1}, "max_age"),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, Any], told: str) -> None:
    """An option that cannot work is refused when the middleware is made, by name."""
    with pytest.raises(ConfigError, match=re.escape(told)):
        pinning(**options)


def test_a_carrier_without_a_store_says_so() -> None:
    """Sharing needs a store."""
    with pytest.raises(ConfigError, match="store: there is none"):
        PinCarrier(SECRET).share("me")
