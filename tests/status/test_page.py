"""The status page and the health check by plain HTTP, on WSGI and on ASGI."""

import base64
import io
import json
import re
import time
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest
from fastapi import FastAPI
from litestar import Litestar, get
from litestar import asgi as litestar_asgi
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

import router as pg_router
from router import asgi, wsgi
from router.cluster.router import Router
from router.config.config import Config
from router.config.server import Server
from router.errors import ConfigError
from router.model import Report, Role
from router.rules.decision import Reason
from router.status import page as statuspage
from router.status.history import EVENTS, EVERY, KEPT, RECENT, History, recent
from router.status.page import STALE, is_local
from tests.conftest import Database
from tests.pins.kit import Shop

TOKEN = "a token of some length"


class Answer:
    def __init__(self, code: int, headers: dict[str, str], body: bytes) -> None:
        self.code = code
        self.headers = {name.lower(): value for name, value in headers.items()}
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask_wsgi(app: Any, path: str, *, method: str, peer: str, headers: dict[str, str]) -> Answer:
    environ: dict[str, Any] = {"PATH_INFO": path, "REQUEST_METHOD": method, "QUERY_STRING": ""}
    environ |= {"HTTP_" + name.upper().replace("-", "_"): v for name, v in headers.items()}
    setup_testing_defaults(environ)
    environ |= {"REMOTE_ADDR": peer, "wsgi.input": io.BytesIO(), "SCRIPT_NAME": ""}
    began: list[Any] = []

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        began.extend((status, headers))
        return io.BytesIO().write

    body = validator(app)(environ, start_response)
    sent = b"".join(body)
    body.close()  # type: ignore[attr-defined]
    return Answer(int(began[0][:3]), dict(began[1]), sent)


def ask_asgi(app: Any, path: str, *, method: str, peer: str, headers: dict[str, str]) -> Answer:
    client = TestClient(app, base_url="http://localhost", client=(peer, 1))
    found = client.request(method, path, headers=headers, follow_redirects=False)
    return Answer(found.status_code, dict(found.headers), found.content)


Ask = Callable[..., Answer]
Make = Callable[..., Any]


@pytest.fixture(params=["wsgi", "asgi"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(kind: str) -> Make:
    """Makes a status page."""
    return wsgi.StatusPage if kind == "wsgi" else asgi.StatusPage


@pytest.fixture
def ask(kind: str) -> Ask:
    """Asks an application; by default from this machine."""
    how = ask_wsgi if kind == "wsgi" else ask_asgi

    def asking(
        app: Any, path: str, *, method: str = "GET", peer: str = "127.0.0.1", **headers: str
    ) -> Answer:
        given = {"Host": "localhost:8000"} | {n.replace("_", "-"): v for n, v in headers.items()}
        return how(app, path, method=method, peer=peer, headers=given)

    return asking


def report(name: str, **values: Any) -> Report:
    return Report(name, time.monotonic(), **values)


def nothing(shop: Shop) -> None:
    pass


def replica_out(shop: Shop) -> None:
    shop.router.blacklist("replica1")


def primary_out(shop: Shop) -> None:
    shop.router.blacklist("primary")


def lose_primary(shop: Shop) -> None:
    for _ in range(2):
        shop.router.observe(report("primary", error="no route to host"))


def lose_all(shop: Shop) -> None:
    lose_primary(shop)
    shop.router.observe(report("replica1", error="no route to host"))


@pytest.mark.parametrize(
    ("happens", "word", "health", "writable"),
    [
        (nothing, "ready", 200, 200),
        (replica_out, "ready", 200, 200),
        (lose_primary, "degraded", 200, 503),
        (primary_out, "degraded", 200, 503),
        (lose_all, "down", 503, 503),
    ],
)
def test_a_load_balancer_is_told_by_code(
    make: Make, ask: Ask, happens: Callable[[Shop], object], word: str, health: int, writable: int
) -> None:
    """/health is 200 while anything can be read, /health/writable only while there is a primary;
    the body says which."""
    shop = Shop()
    happens(shop)
    page = make(shop.router)
    for path, code in (("/health", health), ("/health/writable", writable)):
        answer = ask(page, path)
        assert (answer.code, answer.json) == (code, {"status": word})


def test_the_worst_of_several_clusters_counts(make: Make, ask: Ask) -> None:
    """With several Routers the health is that of the worst, and each is shown."""
    well, ill = Shop(), Shop()
    lose_primary(ill)
    page = make(well.router, ill.router)
    assert ask(page, "/health").json == {"status": "degraded"}
    shown = ask(page, "/status").json["clusters"]
    assert [(c["name"], c["health"]) for c in shown] == [
        (well.name, "ready"),
        (ill.name, "degraded"),
    ]


def test_what_nobody_probed_lately_is_down(make: Make, ask: Ask) -> None:
    """Old reports prove nothing: a process whose probes have ended is not ready."""
    late = 0.0
    shop = Shop(clock=lambda: time.monotonic() + late)
    page = make(shop.router)
    assert ask(page, "/health").code == 200
    late = STALE + 1
    assert ask(page, "/health").json == {"status": "down"}
    shop.caught_up()
    assert ask(page, "/health").code == 200


def test_an_engine_that_sleeps_is_woken(
    make: Make, ask: Ask, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that has run no statement yet probes when it is asked, with replicas or none."""
    monkeypatch.setattr(statuspage, "PATIENCE", 30.0)  # the first import of a driver takes long
    for replicas in (database.replica_urls(), []):
        engine = pg_router.create_engine(database.primary_url("psycopg"), replicas=replicas)
        try:
            assert ask(make(engine.router), "/health").json == {"status": "ready"}
        finally:
            engine.dispose()


def test_a_process_that_drains_wants_no_more_work(
    make: Make, ask: Ask, database: Database
) -> None:
    """From the moment a Router is told to drain its health is down, and nothing wakes it; once it
    is used again it is ready again."""
    engine = pg_router.create_engine(
        database.primary_url("psycopg"), replicas=database.replica_urls()
    )
    try:
        page = make(engine.router)
        engine.router.refresh(30)
        assert ask(page, "/health").code == 200
        assert engine.router.close(drain=1)
        assert ask(page, "/health").json == {"status": "down"}
        engine.router.start()
        engine.router.refresh(30)
        assert ask(page, "/health").code == 200
    finally:
        engine.dispose()


# -- who is let in -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "headers", "code"),
    [
        ("127.0.0.1", {}, 200),
        ("::1", {"Host": "[::1]:8000"}, 200),
        ("::ffff:127.0.0.1", {"Host": "127.0.0.1"}, 200),
        ("10.0.0.7", {}, 403),
        ("", {}, 403),  # a Unix socket: a proxy is behind it
        ("127.0.0.1", {"X_Forwarded_For": "10.0.0.7"}, 403),
        ("127.0.0.1", {"X_Forwarded_Proto": "https"}, 403),
        ("127.0.0.1", {"Forwarded": "for=10.0.0.7"}, 403),
        ("127.0.0.1", {"Host": "rebound.example"}, 403),
        ("127.0.0.1", {"Host": "localhost.example"}, 403),
        ("127.0.0.1", {"Host": "[oops"}, 403),
    ],
)
def test_without_a_guard_only_this_machine_is_let_in(
    make: Make, ask: Ask, peer: str, headers: dict[str, str], code: int
) -> None:
    """A stranger, a proxy, and a page of another name that resolves here are refused."""
    page = make(Shop().router)
    for path in ("/", "/status", "/health", "/nothing"):
        expected = 404 if path == "/nothing" and code == 200 else code
        assert ask(page, path, peer=peer, **headers).code == expected


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"anybody:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        (f"Bearer {TOKEN}", 200),
        (f"bearer  {TOKEN}", 200),
        (basic(TOKEN), 200),
        ("", 401),
        ("Bearer", 401),
        ("Bearer wrong", 401),
        (basic(""), 401),
        ("Basic %%%", 401),
        ("Digest " + TOKEN, 401),
        (TOKEN, 401),
    ],
)
def test_a_token_lets_in_from_anywhere(
    make: Make, ask: Ask, authorization: str, code: int
) -> None:
    """The right token is enough from anywhere; without it even this machine is asked for one."""
    page = make(Shop().router, token=TOKEN)
    headers = {"Authorization": authorization} if authorization else {}
    for peer in ("10.0.0.7", "127.0.0.1"):
        answer = ask(page, "/status", peer=peer, X_Forwarded_For="10.0.0.9", **headers)
        assert answer.code == code
        assert ("www-authenticate" in answer.headers) is (code == 401)


def test_a_guard_decides(make: Make, ask: Ask, kind: str) -> None:
    """A guard is given the request and its word is final, wherever the caller is."""

    def guard(request: Any) -> bool:
        if kind == "wsgi":
            return bool(request.get("HTTP_X_USER") == "admin")
        return (b"x-user", b"admin") in request["headers"]

    page = make(Shop().router, guard=guard)
    assert ask(page, "/status", peer="10.0.0.7", X_User="admin").code == 200
    assert ask(page, "/status", X_User="eve").code == 403


def test_an_asynchronous_guard_is_awaited() -> None:
    """On ASGI the guard may be a coroutine function: its result counts, not the coroutine."""

    async def guard(scope: Any) -> bool:
        return "let-me-in" in scope["path"]

    page = asgi.StatusPage(Shop().router, guard=guard)
    asked: dict[str, Any] = {"method": "GET", "peer": "127.0.0.1", "headers": {}}
    assert ask_asgi(page, "/status", **asked).code == 403
    assert ask_asgi(page, "/let-me-in", **asked).code == 404


def test_a_guard_nobody_can_await_lets_nobody_in() -> None:
    """On WSGI a coroutine function is refused as a guard, and a coroutine as its answer: it would
    count as true."""

    async def refuses(environ: Any) -> bool:
        return False

    with pytest.raises(ConfigError, match="guard: it is a coroutine function"):
        wsgi.StatusPage(Shop().router, guard=refuses)
    coroutine = refuses({})
    page = wsgi.StatusPage(Shop().router, guard=lambda environ: coroutine)
    asked: dict[str, Any] = {"method": "GET", "peer": "127.0.0.1", "headers": {}}
    assert ask_wsgi(page, "/status", **asked).code == 403
    coroutine.close()


def test_public_health_is_public_and_nothing_else_is(make: Make, ask: Ask) -> None:
    """With public_health anybody learns the health, in one word, and nothing more."""
    page = make(Shop().router, token=TOKEN, public_health=True)
    assert ask(page, "/health", peer="10.0.0.7").json == {"status": "ready"}
    assert ask(page, "/health/writable", peer="10.0.0.7").code == 200
    for path in ("/", "/status", "/healthy", "/health/../status"):
        assert ask(page, path, peer="10.0.0.7").code in (401, 404), path
    assert ask(page, "/status", peer="10.0.0.7").code == 401


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"token": "short"}, "token: it has 5 characters"),
        ({"token": TOKEN, "guard": lambda _: True}, "token: there is a guard as well"),
    ],
)
def test_a_wrong_option_is_told_when_the_page_is_made(
    make: Make, options: dict[str, Any], message: str
) -> None:
    """A token that is too short, or beside a guard, is refused, and is not repeated."""
    with pytest.raises(ConfigError, match=message):
        make(Shop().router, **options)


def test_two_clusters_of_one_name_are_refused(make: Make) -> None:
    """Two Routers of one name could not be told apart, so that is said at once."""
    first, second = Shop(name="twin"), Shop(name="twin")
    with pytest.raises(ConfigError, match="'twin'"):
        make(first.router, second.router)


def test_without_routers_all_of_the_process_are_shown(make: Make, ask: Ask) -> None:
    """A page made without Routers shows every one of the process, later ones too."""
    page = make()
    shop, twin = Shop(name="b twin"), Shop(name="b twin")
    shown = {cluster["name"] for cluster in ask(page, "/status").json["clusters"]}
    assert {"b twin", "b twin (2)"} <= shown
    assert shop.router is not twin.router


def test_a_closed_router_is_not_shown_beside_others(make: Make, ask: Ask) -> None:
    """An engine that was disposed of is neither shown nor probed again for a page of the whole
    process, though its Router may live on for a while; used again, it is back."""
    page = make()
    shop, gone = Shop(name="b open"), Shop(name="b closed")
    gone.router.close()
    shown = {cluster["name"] for cluster in ask(page, "/status").json["clusters"]}
    assert "b open" in shown
    assert "b closed" not in shown
    gone.router.start()
    assert "b closed" in {c["name"] for c in ask(page, "/status").json["clusters"]}
    assert shop.router.closed is False


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.8.9.1", True), ("::1", True), ("localhost", True), ("app.localhost", True),
     ("0.0.0.0", False), ("", False), ("notlocalhost", False), ("169.254.0.1", False)],
)  # fmt: skip
def test_what_counts_as_this_machine(host: str, local: bool) -> None:
    """Loopback addresses and names under localhost are this machine, nothing else is."""
    assert is_local(host) is local


# -- responses -----------------------------------------------------------------------------------


def test_the_page_forbids_whatever_is_not_its_own(make: Make, ask: Ask) -> None:
    """Its policy lets only its own style and script run, by a nonce that is new each time; it is
    not cached, not framed, and names no other address."""
    page = make(Shop().router)
    seen = set()
    for _ in range(2):
        answer = ask(page, "/")
        policy = answer.headers["content-security-policy"]
        nonce = re.search(r"script-src 'nonce-([\w-]+)'", policy)
        assert nonce is not None
        seen.add(nonce[1])
        html = answer.body.decode()
        assert html.count(f'nonce="{nonce[1]}"') == 2
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["cache-control"] == "no-store"
        assert set(re.findall(r"https?://[^\s\"'`]+", html)) == {"http://www.w3.org/2000/svg"}
    assert len(seen) == 2


def test_only_looking_is_possible(make: Make, ask: Ask) -> None:
    """HEAD has the headers of GET and no body; other methods are 405, other paths 404."""
    page = make(Shop().router)
    for path in ("/", "/health"):
        got, head = ask(page, path), ask(page, path, method="HEAD")
        assert (head.code, head.body) == (200, b"")
        assert head.headers["content-length"] == got.headers["content-length"]
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert ask(page, "/act", method=method).code == 405
    assert ask(page, "/act").code == 404


def test_what_is_shown_of_a_node_that_is_out(make: Make, ask: Ask) -> None:
    """A blacklisted node is shown with reason and seconds left; one out by hand without an end,
    and as JSON all the same. No password is shown."""
    config = Config.build(
        Server("p", user="app", password="hunter2"), ["r"], name="out", blacklist_duration=30
    )
    router = Router(config)
    router.observe(report("primary", role=Role.PRIMARY), report("replica1", role=Role.REPLICA))
    page = make(router)
    router.health.failed(router.snapshot.node("replica1"), "08006: it broke")
    answer = ask(page, "/status")
    assert b"hunter2" not in answer.body
    cluster = answer.json["clusters"][0]
    (out,) = [node for node in cluster["nodes"] if node["state"] == "out"]
    assert out["name"] == "replica1"
    assert out["blacklisted"]["reason"] == "08006: it broke"
    assert 25 < out["blacklisted"]["seconds_left"] <= 30
    assert "replica1 blacklisted for 30.0 s: 08006: it broke" in cluster["events"][0]["text"]
    router.blacklist("replica1", "maintenance")
    nodes = ask(page, "/status").json["clusters"][0]["nodes"]
    assert [n["blacklisted"]["seconds_left"] for n in nodes if n["blacklisted"]] == [None]


def test_decisions_are_counted_by_node_and_reason(make: Make, ask: Ask) -> None:
    """Statements are shown by node and reason, those of the last seconds apart from the total."""
    now = 1000.0
    shop = Shop(clock=lambda: now)
    page = make(shop.router)
    decisions = shop.router.telemetry.decisions
    for _ in range(8):
        for _ in range(3):
            next(decisions["replica1", Reason.READ])
        next(decisions["primary", Reason.PIN_PRIMARY])
        now += 1.0
        shop.caught_up()
    cluster = ask(page, "/status").json["clusters"][0]
    assert cluster["recent_seconds"] == RECENT
    read, pinned = cluster["decisions"]
    assert read == {"node": "replica1", "reason": "a read", "recent": 15, "total": 24}
    assert (pinned["recent"], pinned["total"]) == (5, 8)
    assert cluster["pins"]["reads_on_primary"] == 5
    assert [n["statements_per_second"] for n in cluster["nodes"]] == [1.0, 3.0]


# -- mounting ------------------------------------------------------------------------------------


def wsgi_app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"the app"]


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    headers = [(b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"the app"})


def test_mount_puts_the_page_beside_an_application(make: Make, ask: Ask, kind: str) -> None:
    """Below the prefix the page answers, everywhere else the application does."""
    page = make(Shop().router)
    app: Any = (
        wsgi.mount(wsgi_app, "/router/", page)
        if kind == "wsgi"
        else asgi.mount(asgi_app, "/router/", page)
    )
    for path in ("/router", "/router/"):
        assert b"<title>pg-router</title>" in ask(app, path).body
    assert ask(app, "/router/health").json == {"status": "ready"}
    for path in ("/", "/routers", "/health", "/a/router/health"):
        assert ask(app, path).body == b"the app", path


@get("/")
async def home() -> str:
    return "the app"


def starlette_app(page: Any) -> Any:
    return Starlette(routes=[Mount("/a/router", page)])


def fastapi_app(page: Any) -> Any:
    app = FastAPI()
    app.mount("/a/router", page)
    return app


def behind_a_prefix(page: Any) -> Any:
    """As a server does that was told of a prefix, by ASGI's rule: it is in the path as well."""
    app = starlette_app(page)

    async def call(scope: Any, receive: Any, send: Any) -> None:
        path = {"root_path": "/api", "path": "/api" + scope["path"]}
        await app({**scope, **path}, receive, send)

    return call


def beside_a_prefix(page: Any) -> Any:
    """As FastAPI does that was told of a prefix: the path is without it."""
    app = starlette_app(page)

    async def call(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "root_path": "/api"}, receive, send)

    return call


def litestar_app(page: Any) -> Any:
    return Litestar([home, litestar_asgi("/a/router", is_mount=True, copy_scope=True)(page)])


@pytest.mark.parametrize(
    "app", [starlette_app, fastapi_app, behind_a_prefix, beside_a_prefix, litestar_app]
)
def test_frameworks_mount_it(app: Callable[[Any], Any]) -> None:
    """However a framework tells where the page is mounted, the page finds what was asked for."""
    mounted = app(asgi.StatusPage(Shop().router))
    asked: dict[str, Any] = {"method": "GET", "peer": "127.0.0.1", "headers": {}}
    assert b"<title>pg-router" in ask_asgi(mounted, "/a/router/", **asked).body
    assert ask_asgi(mounted, "/a/router/health", **asked).json == {"status": "ready"}
    assert ask_asgi(mounted, "/a/router/health/writable", **asked).code == 200
    assert ask_asgi(mounted, "/a/router/nothing", **asked).code == 404


# -- history -------------------------------------------------------------------------------------


def test_nothing_is_kept_where_no_page_is_mounted(make: Make) -> None:
    """An engine without a page has no observer and no hook; two pages keep one history each."""
    shop = Shop()
    assert shop.router.observers == []
    assert shop.router.telemetry.hooks == []
    page = make(shop.router)
    page.page.routers()
    assert len(shop.router.observers) == len(shop.router.telemetry.hooks) == 1


def test_a_history_is_bounded_in_size_and_in_pace() -> None:
    """However often is probed and whatever happens, so many moments and events are kept."""
    now = 1000.0
    shop = Shop(clock=lambda: now)
    history = History()
    history.follow(shop.router)
    for _ in range(2 * KEPT):
        shop.caught_up()
        shop.caught_up()  # in the same moment
        now += EVERY
        shop.router.telemetry.event("joined", node="n", address="a")
        shop.router.telemetry.event("retried", node="n", reason="quiet")
    assert len(history.moments) == KEPT
    assert history.moments[-1].at - history.moments[0].at == pytest.approx((KEPT - 1) * EVERY)
    assert {event.text for event in history.events} == {"joined node=n address=a"}
    assert len(history.events) == EVENTS
    assert recent((), now) == ({}, 0.0)


def test_lag_is_kept_of_replicas_that_told_it() -> None:
    """A moment has the lag of each replica that answered, and nothing of the others."""
    shop = Shop(replicas=2)
    history = History()
    history.follow(shop.router)
    shop.router.observe(report("replica2", error="gone"))
    (moment,) = history.moments
    assert moment.lag == {"replica1": 0.0}
