"""The ASGI middleware, before a server that keeps to the protocol's words."""

import asyncio
import contextvars
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from router.asgi import PinMiddleware, Receive, Scope, Send, cookie, renew
from router.errors import ConfigError
from router.pins.options import COOKIE
from router.pins.store import MemoryPinStore
from router.rules.context import ROOT, current_context
from tests.pins.kit import SECRET, Shop


class Answer:
    """The messages an application sent."""

    def __init__(self, messages: list[Any]) -> None:
        self.messages = messages
        self.types = [message["type"] for message in messages]
        self.body = b"".join(message.get("body", b"") for message in messages)

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.messages[0].get("headers") or ())

    @property
    def token(self) -> str | None:
        name, _, rest = self.headers.get(b"set-cookie", b"").decode().partition("=")
        return rest.partition(";")[0] if name == COOKIE else None


def ask(app: Any, token: str | None = None, *, incoming: Any = (), **scope: Any) -> Answer:
    """Serve one request or WebSocket; `incoming` are the messages of the client."""
    headers = list(scope.pop("headers", ()))
    if token is not None:
        headers.append((b"cookie", f"a=b; {COOKIE}={token}".encode("latin-1")))
    given: Scope = {"type": "http", "method": "GET", "headers": headers, **scope}
    kept = dict(given)
    sent: list[Any] = []
    messages = iter(incoming)

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    async def main() -> None:
        await app(given, receive, send)
        assert current_context() is ROOT

    asyncio.run(main())
    assert given == kept, "the server's scope was changed"
    return Answer(sent)


def plain(view: Callable[[], object], headers: Any = ()) -> Any:
    """An application that runs `view` in a thread, as frameworks do, and answers with it."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body = str(await asyncio.to_thread(view)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": list(headers)})
        await send({"type": "http.response.body", "body": body})

    return app


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture(autouse=True)
def no_context_is_left() -> Iterator[None]:
    yield
    assert current_context() is ROOT


def pinned(app: Any, **options: Any) -> PinMiddleware:
    return PinMiddleware(app, secret=SECRET, **options)


def test_a_write_is_seen_by_the_next_request(shop: Shop) -> None:
    """A write in a request's thread sets a cookie; whoever brings it reads from the primary."""
    write, read = pinned(plain(shop.write)), pinned(plain(shop.reads_from))
    token = ask(write).token
    assert token
    assert ask(read).body == b"replica"
    assert ask(read, token).body == b"primary"
    shop.caught_up()
    assert ask(read, token).body == b"replica"


def test_nothing_is_set_when_nothing_was_written(shop: Shop) -> None:
    """A read's messages pass unchanged, with a token brought or without."""
    token = ask(pinned(plain(shop.write))).token
    headers = [(b"Cache-Control", b"public"), (b"X-Odd", b"\xff")]
    for given in (None, token, "rubbish"):
        answer = ask(pinned(plain(shop.reads_from, headers)), given)
        assert answer.messages[0]["headers"] == headers


def test_a_response_that_sets_the_cookie_is_kept_from_caches(shop: Shop) -> None:
    """Cache-Control and Vary are merged; other headers keep every byte."""
    headers = [(b"Cache-Control", b"public, max-age=9"), (b"vary", b"accept"), (b"x", b"\xff")]
    found = ask(pinned(plain(shop.write, headers))).headers
    assert found[b"cache-control"] == b"max-age=9, private"
    assert found[b"vary"] == b"accept, Cookie"
    assert found[b"x"] == b"\xff"


def test_a_start_message_without_headers(shop: Shop) -> None:
    """The key ``headers`` may be missing."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        shop.write()
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    assert ask(pinned(app)).token


def test_header_mode_and_split_cookies(shop: Shop) -> None:
    """The header is read whatever its case, and so are cookies in several headers."""
    both: dict[str, Any] = {"header": "X-Pin"}
    answer = ask(pinned(plain(shop.write), **both))
    token = answer.headers[b"x-pin"]
    assert answer.token == token.decode()
    read = pinned(plain(shop.reads_from), **both)
    assert ask(read, headers=[(b"X-PIN", token)]).body == b"primary"
    split = [(b"cookie", b"a=b"), (b"Cookie", COOKIE.encode() + b"=" + token)]
    assert ask(read, headers=split).body == b"primary"


@pytest.mark.parametrize("token", ["x" * 1_000_000, "1~", "\xff\xfe", "a.b", ""])
def test_no_token_makes_an_error_page(token: str, shop: Shop) -> None:
    """Rubbish of any size in the cookie is ignored and counted."""
    app = pinned(plain(shop.reads_from))
    assert ask(app, token).body == b"replica"
    assert app.carrier.stats()["token_ignored"] == 1


def test_an_error_page_from_within_carries_the_token(shop: Shop) -> None:
    """What the framework answers after an exception tells of the write before it."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            shop.write()
            raise ValueError("oops")
        except ValueError:
            await send({"type": "http.response.start", "status": 500, "headers": []})
            await send({"type": "http.response.body", "body": b"oops"})
            raise

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def main() -> None:
        scope = {"type": "http", "headers": []}
        with pytest.raises(ValueError, match="oops"):
            await pinned(app)(scope, None, send)  # type: ignore[arg-type]
        assert current_context() is ROOT

    asyncio.run(main())
    assert Answer(sent).token


def test_an_error_that_leaves_the_application_is_said(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception after a write, which the server answers, is counted and said once."""

    def view() -> None:
        shop.write()
        raise ValueError("oops")

    app = pinned(plain(view))
    for _ in range(2):
        with pytest.raises(ValueError, match="oops"):
            ask(app)
    assert app.carrier.stats()["pin_lost"] == 2
    (said,) = [r.message for r in caplog.records if "pin_lost" in r.message]
    assert "the application raised" in said


def streaming(shop: Shop) -> Any:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await asyncio.to_thread(shop.write)
        await send({"type": "http.response.body", "body": b"b"})

    return app


def test_what_is_written_after_the_headers_is_said(shop: Shop) -> None:
    """A cookie cannot carry what is written while the response streams: it is counted."""
    app = pinned(streaming(shop))
    answer = ask(app)
    assert (answer.body, answer.token) == (b"ab", None)
    assert app.carrier.stats()["pin_lost"] == 1


class AsyncStore:
    """A store of the user's own, for asyncio."""

    def __init__(self) -> None:
        self.inner = MemoryPinStore()
        self.saves = 0

    async def load(self, who: str) -> Any:
        await asyncio.sleep(0)
        return self.inner.load(who)

    async def save(self, who: str, fields: Any, ttl: float) -> None:
        await asyncio.sleep(0)
        self.saves += 1
        self.inner.save(who, fields, ttl)


class SlowStore(MemoryPinStore):
    """A store of the user's own that blocks: it must not be called on the loop."""

    def load(self, who: str) -> Any:
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        return super().load(who)


class NoMemory:
    """What makes `SlowStore` another kind of store than the one that never blocks."""

    def __init__(self) -> None:
        self.inner = SlowStore()

    def load(self, who: str) -> Any:
        return self.inner.load(who)

    def save(self, who: str, fields: Any, ttl: float) -> None:
        self.inner.save(who, fields, ttl)


@pytest.mark.parametrize("make", [MemoryPinStore, AsyncStore, NoMemory])
def test_a_store_has_what_is_written_after_the_headers(make: Any, shop: Shop) -> None:
    """Any kind of store has it before the last chunk leaves, and nothing is lost."""
    options: dict[str, Any] = {"store": make(), "identify": lambda s: cookie(s, "session")}
    app, read = pinned(streaming(shop), **options), pinned(plain(shop.reads_from), **options)
    me, you = ([(b"cookie", b"session=" + who)] for who in (b"me", b"you"))
    ask(app, headers=me)
    assert "pin_lost" not in app.carrier.stats()
    assert ask(read, headers=me).body == b"primary"
    assert ask(read, headers=you).body == b"replica"
    assert ask(read).body == b"replica"


def chat(shop: Shop, *, renewing: bool = False) -> Any:
    """A WebSocket that writes when it is told to, and answers where it reads from."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            if renewing:
                assert await renew(scope) is current_context()
            if message["text"] == "write":
                shop.write()
            await send({"type": "websocket.send", "text": shop.reads_from()})

    return app


def talk(app: Any, *texts: str, token: str | None = None, **scope: Any) -> list[str]:
    incoming = [{"type": "websocket.connect"}]
    incoming += [{"type": "websocket.receive", "text": text} for text in texts]
    incoming += [{"type": "websocket.disconnect"}]
    answer = ask(app, token, type="websocket", incoming=incoming, **scope)
    return [message["text"] for message in answer.messages[1:]]


def test_a_websocket_has_one_context(shop: Shop) -> None:
    """Its writes pin its later messages, and nobody else's."""
    app = pinned(chat(shop))
    assert talk(app, "read", "write", "read") == ["replica", "primary", "primary"]
    assert talk(app, "read") == ["replica"]
    assert app.carrier.stats()["pin_lost"] == 1


def test_a_websocket_reads_the_token_of_its_handshake(shop: Shop) -> None:
    """The pin its page's cookie brings holds for the connection."""
    token = ask(pinned(plain(shop.write))).token
    assert talk(pinned(chat(shop)), "read", token=token) == ["primary"]


def test_a_write_before_the_handshake_ends_sets_the_cookie(shop: Shop) -> None:
    """The message that accepts a WebSocket has headers, and so has one that refuses it."""
    for kind in ("websocket.accept", "websocket.http.response.start"):

        async def app(scope: Scope, receive: Receive, send: Send, kind: str = kind) -> None:
            shop.write()
            await send({"type": kind, "headers": []})

        assert ask(pinned(app), type="websocket").token


def test_a_websockets_write_is_in_the_store_before_its_answer(shop: Shop) -> None:
    """With a store the connection need not end for others of its caller to see its writes."""
    store = AsyncStore()
    app = pinned(chat(shop), store=store, identify=lambda scope: "me")
    seen: list[int] = []

    async def send(message: Any) -> None:
        seen.append(store.saves)

    messages = iter(
        [{"type": "websocket.connect"}]
        + [{"type": "websocket.receive", "text": text} for text in ("read", "write", "read")]
        + [{"type": "websocket.disconnect"}]
    )

    async def receive() -> Any:
        return next(messages)

    asyncio.run(app({"type": "websocket", "headers": []}, receive, send))
    assert seen == [0, 0, 1, 1]  # accept, read, write, read


@pytest.mark.parametrize(
    ("renewing", "second"), [(False, "replica"), (True, "primary")], ids=["silent", "renewing"]
)
def test_a_websocket_hears_of_writes_elsewhere_when_it_asks(
    renewing: bool, second: str, shop: Shop
) -> None:
    """`renew` takes in what other requests of the caller have written since."""
    options: dict[str, Any] = {"store": MemoryPinStore(), "identify": lambda scope: "me"}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Any) -> None:
            await send(message)
            if message["type"] == "websocket.send":
                # Between two messages the caller writes by another request.
                elsewhere = contextvars.Context()
                thread = threading.Thread(
                    target=elsewhere.run, args=(ask, pinned(plain(shop.write), **options))
                )
                thread.start()
                thread.join()

        await chat(shop, renewing=renewing)(scope, receive, sending)

    assert talk(pinned(app, **options), "read", "read") == ["replica", second]


def test_renewing_without_the_middleware_is_an_error() -> None:
    """`renew` needs the middleware, and says so."""
    with pytest.raises(ConfigError, match=r"renew: .*PinMiddleware"):
        asyncio.run(renew({"type": "websocket", "headers": []}))


def test_the_lifespan_is_none_of_ours() -> None:
    """The lifespan runs in no request's context, with the server's own scope and callables."""
    seen: list[object] = []

    async def app(*given: object) -> None:
        seen.extend([*given, current_context()])

    scope: Scope = {"type": "lifespan"}
    receive: Any = object()
    send: Any = object()
    asyncio.run(pinned(app)(scope, receive, send))
    assert seen[0] is scope
    assert seen[1:] == [receive, send, ROOT]


def test_requests_at_once_do_not_mix(shop: Shop) -> None:
    """Tasks of one loop have each their own context, however they interleave."""
    gate = asyncio.Event

    async def main() -> list[bytes]:
        written = gate()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["path"] == "/write":
                shop.write()
                written.set()
            await written.wait()
            await asyncio.sleep(0)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": shop.reads_from().encode()})

        wrapped = pinned(app)

        async def one(path: str) -> bytes:
            sent: list[Any] = []

            async def send(message: Any) -> None:
                sent.append(message)

            scope = {"type": "http", "path": path, "headers": []}
            await wrapped(scope, None, send)  # type: ignore[arg-type]
            return Answer(sent).body

        return list(await asyncio.gather(one("/read"), one("/write"), one("/read")))

    assert asyncio.run(main()) == [b"replica", b"primary", b"replica"]
