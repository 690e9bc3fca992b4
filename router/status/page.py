"""The status page and the health check: from a request to a response.

An adapter makes three calls, between which it may wait in its own way: `Page.refusal` says whether
the caller is let in, `Page.asleep` which Routers to `wake`, and `Page.answer` gives the response.
"""

import base64
import binascii
import hmac
import ipaddress
import json
import math
import os
import secrets
import time
import weakref
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from importlib.resources import files
from typing import Any, TypedDict
from urllib.parse import urlsplit

from router.cluster.membership import Use
from router.cluster.router import Router, routers
from router.errors import ConfigError
from router.model import Role
from router.pins.http import Headers
from router.rules.decision import Reason
from router.status.history import History, recent
from router.status.report import NodeStatus, Status, brief, kept_out, status

STALE = 10.0
"""Seconds after which a probe tells nothing any more, where probes come more often than that."""

PATIENCE = 2.0
"""Seconds a request waits for the first probes."""

MIN_TOKEN = 16
"""Characters of the shortest token."""

READY, DEGRADED, DOWN = "ready", "degraded", "down"

_RANK = (READY, DEGRADED, DOWN)
_CODES = {READY: 200, DEGRADED: 200, DOWN: 503}
_PROXIES = frozenset({"forwarded", "via", "x-real-ip"})
_HEADERS: Headers = [
    ("Cache-Control", "no-store"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
]


@dataclass(frozen=True, slots=True)
class Ask:
    """A request to the page; `host` and `authorization` are headers, empty where it has none.

    Attributes:
        path: below the place the page is mounted at, beginning with a slash or empty.
        peer: the address it came from, empty where that is not known.
        forwarded: whether a proxy has passed it on.
    """

    method: str
    path: str
    peer: str = ""
    host: str = ""
    authorization: str = ""
    forwarded: bool = False


def is_forwarded(headers: Iterable[str]) -> bool:
    """Whether a proxy has passed a request on, so that its peer does not ask for itself; `headers`
    are the names of its headers in lower case."""
    return any(h in _PROXIES or h.startswith("x-forwarded-") for h in headers)


@dataclass(frozen=True, slots=True)
class Answer:
    """A response: `headers` are all of them, Content-Length too; `body` is empty for HEAD."""

    code: int
    headers: Headers
    body: bytes

    @property
    def status(self) -> str:
        """Code and phrase, as WSGI wants them."""
        return f"{self.code} {HTTPStatus(self.code).phrase}"


Guard = Callable[[Any], bool | Awaitable[bool]]
"""Given the WSGI environ or ASGI scope it returns whether the caller is let in."""


class StatusOptions(TypedDict, total=False):
    """What a `StatusPage` takes by keyword. With neither guard nor token only this machine is let
    in, by a loopback address or name, and through no proxy.

    Attributes:
        guard: says who is let in. On ASGI it may be a coroutine function.
        token: lets in whoever sends it: as ``Authorization: Bearer …``, or as the password a
            browser asks for. At least `MIN_TOKEN` characters.
        public_health: whether anybody may ask for the health; they are told no names.
    """

    guard: Guard | None
    token: str | None
    public_health: bool


Extra = Callable[[], Mapping[str, Any]]
"""Gives what the page shows beside the clusters: see `Page`."""


class Page:
    """What a status page answers. It keeps the last minutes of each Router it shows."""

    def __init__(
        self,
        clusters: Callable[[], Mapping[str, Router]],
        *,
        guard: Guard | None = None,
        token: str | None = None,
        public_health: bool = False,
        csrf: str = "",
        extra: Extra | None = None,
    ) -> None:
        """Prepare; `guard`, `token` and `public_health` are those of `StatusOptions`. The adapter
        asks the guard, for it may have to be awaited.

        Args:
            clusters: gives the Routers by the names they are shown under, at each request.
            csrf: the token that a button sends; no buttons without it.
            extra: gives ``intro``, a text; ``facts``, pairs of texts; ``busy``, the action of a
                button that has not ended; ``buttons``, by node name pairs of action and label.

        Raises:
            ConfigError: the token is too short, or stands beside a guard.
        """
        if token is not None and guard is not None:
            raise ConfigError("token: there is a guard as well: leave one of them out")
        if token is not None and len(token) < MIN_TOKEN:
            raise ConfigError(
                f"token: it has {len(token)} characters: give {MIN_TOKEN} or more, made by "
                "secrets.token_urlsafe()"
            )
        self._clusters = clusters
        self.guard: Guard | None = guard
        self._token = None if token is None else token.encode()
        self._public_health = public_health
        self._csrf = csrf
        self._extra = extra
        self._histories: weakref.WeakKeyDictionary[Router, History] = weakref.WeakKeyDictionary()

    # -- who is let in -------------------------------------------------------------------------

    def refusal(self, ask: Ask, allowed: bool) -> Answer | None:
        """The response to a caller who is not let in, by the rules of `StatusOptions`; None to one
        who is. `ask` is the request, `allowed` what the guard said, if there is one."""
        path = ask.path.rstrip("/")
        if self._public_health and path in ("/health", "/health/writable"):
            return None
        if self.guard is not None:
            return None if allowed else self._told(403, "the guard refused", ask)
        if self._token is not None:
            if hmac.compare_digest(_given(ask.authorization), self._token):
                return None
            wanted = 'Basic realm="pg-router", charset="UTF-8"'  # for which a browser asks
            return self._told(401, "a token is needed", ask, ("WWW-Authenticate", wanted))
        if is_local(ask.peer) and is_local(_hostname(ask.host)) and not ask.forwarded:
            return None
        return self._told(403, "only from this machine, unless a guard or a token is set", ask)

    # -- how the clusters stand ----------------------------------------------------------------

    def routers(self) -> dict[str, Router]:
        """The Routers that are shown, by name; a History follows each of them from now on."""
        found = dict(self._clusters())
        for router in found.values():
            # Of two threads that meet a Router for the first time one follows it.
            if (history := History()) is self._histories.setdefault(router, history):
                history.follow(router)
        return found

    def asleep(self) -> list[Router]:
        """The Routers nobody has probed for: to be woken before `answer`."""
        return [
            router for router in self.routers().values() if not (router.draining or _fresh(router))
        ]

    def answer(self, ask: Ask) -> Answer:
        """The response to `ask`, of a caller who is let in."""
        if ask.method not in ("GET", "HEAD"):
            return self._told(405, "only GET and HEAD", ask, ("Allow", "GET, HEAD"))
        path = ask.path.rstrip("/")  # Litestar puts one there
        if not path:
            return self._page(ask)
        if path == "/status":
            return self._json(200, self.document(), ask)
        if path in ("/health", "/health/writable"):
            found = max(map(health, self.routers().values()), key=_RANK.index, default=DOWN)
            writable = 200 if found == READY else 503
            code = _CODES[found] if path == "/health" else writable
            return self._json(code, {"status": found}, ask)
        return self._told(404, "there are /, /status, /health and /health/writable", ask)

    def document(self) -> dict[str, Any]:
        """The JSON that the page shows; docs/reference/status-page.md tells the fields."""
        extra = {} if self._extra is None else dict(self._extra())
        buttons = extra.pop("buttons", {})
        clusters = [
            _cluster(name, router, self._histories[router], buttons)
            for name, router in self.routers().items()
        ]
        found = (cluster["health"] for cluster in clusters)
        return {
            "process": os.getpid(),
            "time": round(time.time(), 3),
            "health": max(found, key=_RANK.index, default=DOWN),
            "clusters": clusters,
            **extra,
        }

    # -- responses -----------------------------------------------------------------------------

    def _page(self, ask: Ask) -> Answer:
        nonce = secrets.token_urlsafe(16)
        html = _html().replace("{{nonce}}", nonce).replace("{{csrf}}", self._csrf)
        policy = (
            f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; "
            "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'"
        )
        header = ("Content-Security-Policy", policy)
        return self._made(200, "text/html; charset=utf-8", html, ask, header)

    def _told(self, code: int, text: str, ask: Ask, *headers: tuple[str, str]) -> Answer:
        return self._made(code, "text/plain; charset=utf-8", f"pg-router: {text}\n", ask, *headers)

    def _json(self, code: int, value: Mapping[str, Any], ask: Ask) -> Answer:
        text = json.dumps(value, separators=(",", ":"), allow_nan=False)
        return self._made(code, "application/json", text, ask)

    def _made(
        self, code: int, kind: str, text: str, ask: Ask, *headers: tuple[str, str]
    ) -> Answer:
        body = text.encode()
        made = [("Content-Type", kind), ("Content-Length", str(len(body))), *_HEADERS, *headers]
        return Answer(code, made, b"" if ask.method == "HEAD" else body)


def every_router() -> dict[str, Router]:
    """All Routers of this process, by their clusters; without those closed where one is open: an
    engine that was disposed of keeps its Router until the garbage collector meets both."""
    found: dict[str, Router] = {}
    there = routers()
    for router in sorted([r for r in there if not r.closed] or there, key=lambda r: r.cluster):
        name, n = router.cluster, 2
        while name in found:
            name, n = f"{router.cluster} ({n})", n + 1
        found[name] = router
    return found


def named(*given: Router) -> Callable[[], Mapping[str, Router]]:
    """A function that returns the Routers `given`, or all of the process, by their clusters."""
    if not given:
        return every_router
    found: dict[str, Router] = {}
    for router in given:
        if router.cluster in found:
            raise ConfigError(
                f"StatusPage: two Routers are called {router.cluster!r}: give their engines a "
                "name= each"
            )
        found[router.cluster] = router
    return lambda: found


def wake(asleep: list[Router]) -> None:
    """Start the probes of the Routers `asleep`; blocks for `PATIENCE` seconds each at the most."""
    for router in asleep:
        if router.monitor is not None:
            router.refresh(PATIENCE)


def health(router: Router) -> str:
    """How `router` is: ready where writes go, degraded where only reads do, down without any."""
    return _health(router, status(router))


def _health(router: Router, found: Status) -> str:
    if router.draining or not _fresh(router):
        return DOWN
    if found.writable:
        return READY
    return DEGRADED if any(n.reads and n.name != found.primary for n in found.nodes) else DOWN


def _fresh(router: Router) -> bool:
    newest = max((r.started for r in router.snapshot.reports.values()), default=-math.inf)
    return router.clock() - newest < max(STALE, 5 * router.config.probe_interval)


# -- the document --------------------------------------------------------------------------------


def _cluster(
    name: str, router: Router, history: History, buttons: Mapping[str, Any]
) -> dict[str, Any]:
    now, found, moments = router.clock(), status(router), history.moments
    decided, seconds = recent(moments, now)
    total, use = router.telemetry.decisions.total(), router.use()
    rates = {node.name: 0 for node in found.nodes}
    for (node, _), n in decided.items():
        rates[node] = rates.get(node, 0) + n
    return {
        "name": name,
        "health": _health(router, found),
        "primary": found.primary,
        "timeline": router.snapshot.timeline,
        "nodes": [
            {
                **_node(node, router, now),
                "connections": {"in_use": used.busy, "idle": used.idle},
                "statements_per_second": round(rates[node.name] / seconds, 1) if seconds else None,
                "buttons": [
                    {"action": action, "label": label}
                    for action, label in buttons.get(node.name, ())
                ],
            }
            for node in found.nodes
            for used in [use.get(node.name, Use())]
        ],
        "pins": _pins(router, decided, now),
        "history": {
            "seconds_ago": [round(now - m.at, 1) for m in moments],
            "lag_seconds": {
                node.name: [_rounded(m.lag.get(node.name)) for m in moments]
                for node in found.nodes
                if node.name != found.primary
            },
        },
        "recent_seconds": round(seconds, 1),
        "decisions": [
            {"node": node, "reason": str(reason), "recent": decided[node, reason], "total": n}
            for (node, reason), n in sorted(
                total.items(), key=lambda item: (-decided[item[0]], -item[1], item[0][0])
            )
        ],
        "events": [
            {"seconds_ago": round(now - e.at, 1), "name": e.name, "text": e.text}
            for e in reversed(history.events)
        ],
    }


def _node(node: NodeStatus, router: Router, now: float) -> dict[str, Any]:
    view = router.view
    entry, report = kept_out(view, node.name), view.snapshot.reports.get(node.name)
    out, state = None, "down"
    if node.reads and not node.problem:
        state = "up"
    elif report is not None and report.ok and node.name not in view.snapshot.fenced:
        state = "waits"
    if entry is not None:
        left = entry.until - now
        out = {
            "reason": brief(entry.reason),
            "seconds_ago": round(now - entry.since, 1),
            "seconds_left": None if math.isinf(left) else round(max(0.0, left), 1),
            "failures": entry.failures,
        }
        state = "out"
    return {
        "name": node.name,
        "address": node.address,
        "role": "unknown" if node.role is Role.UNKNOWN else str(node.role),
        "state": state,
        "problem": node.problem,
        "lag_seconds": _rounded(node.lag_seconds),
        "lag_bytes": node.lag_bytes,
        "blacklisted": out,
    }


def _pins(router: Router, decided: Counter[Any], now: float) -> dict[str, Any]:
    """When this process wrote last, where it can read that now, and where pinned reads went."""
    reads: Counter[Reason] = Counter()
    for (_, reason), n in decided.items():
        reads[reason] += n
    at, snapshot = router.last_write, router.snapshot
    wanted = snapshot.bound(at)
    return {
        "consistency": router.policy.consistency,
        "last_write_seconds_ago": None if math.isinf(at) else round(now - at, 3),
        "readable_on": [
            node.name
            for node in router.replicas
            if wanted is not None
            and (replayed := snapshot.replayed(node.name)) is not None
            and replayed >= wanted
        ],
        "reads_on_primary": reads[Reason.PIN_PRIMARY] + reads[Reason.MONOTONIC_PRIMARY],
        "reads_on_replicas": reads[Reason.PIN_REPLICA],
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


# -- requests ------------------------------------------------------------------------------------


def is_local(host: str) -> bool:
    """Whether `host`, a name or an address, can only be this machine."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _given(authorization: str) -> bytes:
    """The token of an Authorization header, empty where there is none."""
    scheme, _, value = authorization.strip().partition(" ")
    if scheme.lower() == "bearer":
        return value.strip().encode("utf-8", "replace")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value.strip(), validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return b""
    return b""


@cache
def _html() -> str:
    return files("router.status").joinpath("page.html").read_text("utf-8")
