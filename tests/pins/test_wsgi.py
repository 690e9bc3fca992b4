"""The WSGI middleware, before a server of the standard library that checks both sides."""

import contextvars
import io
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import pytest

import router
from router.errors import ConfigError
from router.pins.options import COOKIE
from router.pins.store import MemoryPinStore
from router.rules.context import ROOT, current_context
from router.wsgi import PinMiddleware, cookie
from tests.pins.kit import SECRET, Shop

Headers = list[tuple[str, str]]


class Answer:
    """What a server sent."""

    def __init__(self) -> None:
        self.status = ""
        self.headers: Headers = []
        self.body = b""

    def get(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        return found[0] if found else None

    @property
    def token(self) -> str | None:
        for name, value in self.headers:
            if name == "Set-Cookie" and value.startswith(COOKIE + "="):
                return value.partition("=")[2].partition(";")[0]
        return None


def ask(app: Any, token: str | None = None, *, strict: bool = True, **environ: Any) -> Answer:
    """Serve one request as a server does: headers leave with the first byte of the body."""
    setup_testing_defaults(environ)
    environ.setdefault("wsgi.input", io.BytesIO())
    environ["QUERY_STRING"] = ""
    if token is not None:
        environ["HTTP_COOKIE"] = f"a=b; {COOKIE}={token}"
    answer = Answer()
    sent: list[bytes] = []

    def start_response(status: str, headers: Headers, exc_info: Any = None) -> Any:
        if exc_info and sent:
            raise exc_info[1]
        assert exc_info or not answer.status
        answer.status, answer.headers = status, headers

        def write(data: bytes) -> None:
            sent.append(data)

        return write

    body = (validator(app) if strict else app)(environ, start_response)
    try:
        for chunk in body:
            assert answer.status
            sent += [chunk] if chunk else []
    finally:
        if hasattr(body, "close"):
            body.close()
    answer.body = b"".join(sent)
    return answer


App = Callable[[dict[str, Any], Any], Iterable[bytes]]


def plain(view: Callable[[], object], headers: Headers | None = None) -> App:
    """An application that runs `view` and then answers with what it gave."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        body = str(view()).encode()
        start_response("200 OK", [("Content-Type", "text/plain"), *(headers or [])])
        return [body]

    return app


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture(autouse=True)
def no_context_is_left() -> Iterator[None]:
    yield
    assert current_context() is ROOT


def pinned(app: App, **options: Any) -> PinMiddleware:
    return PinMiddleware(app, secret=SECRET, **options)


def test_a_write_is_seen_by_the_next_request(shop: Shop) -> None:
    """The response to a write sets a cookie; whoever brings it reads from the primary."""
    write, read = pinned(plain(shop.write)), pinned(plain(shop.reads_from))
    token = ask(write, REQUEST_METHOD="POST").token
    assert token
    assert ask(read).body == b"replica"
    assert ask(read, token).body == b"primary"
    shop.caught_up()
    assert ask(read, token).body == b"replica"


def test_nothing_is_set_when_nothing_was_written(shop: Shop) -> None:
    """A read leaves the response as it is, with a token brought or without, satisfied or not."""
    headers = [("Cache-Control", "public, max-age=60"), ("Vary", "Accept")]
    read = pinned(plain(shop.reads_from, headers))
    token = ask(pinned(plain(shop.write))).token
    for given in (None, token, "rubbish"):
        assert ask(read, given).headers == [("Content-Type", "text/plain"), *headers]
    shop.caught_up()
    assert ask(read, token).headers == [("Content-Type", "text/plain"), *headers]


def test_a_write_the_replicas_have_already_sets_nothing(shop: Shop) -> None:
    """When every replica has replayed the write before the response leaves, no cookie is due."""

    def view() -> None:
        shop.write()
        shop.caught_up()

    assert ask(pinned(plain(view))).token is None


def test_a_response_that_sets_the_cookie_is_kept_from_caches(shop: Shop) -> None:
    """Cache-Control and Vary are merged into what the application said."""
    headers = [("Cache-Control", "public, max-age=60"), ("Vary", "Accept")]
    answer = ask(pinned(plain(shop.write, headers)))
    assert answer.get("Cache-Control") == "max-age=60, private"
    assert answer.get("Vary") == "Accept, Cookie"


def test_what_was_brought_goes_with_what_was_written(shop: Shop) -> None:
    """A write under a pin gives a token that covers both."""
    first = ask(pinned(plain(shop.write))).token
    second = ask(pinned(plain(shop.write)), first).token
    assert second
    assert second != first


def test_header_mode(shop: Shop) -> None:
    """API clients get the token in a header and bring it back in one."""
    options: dict[str, Any] = {"cookie": None, "header": "X-Pin"}
    answer = ask(pinned(plain(shop.write), **options))
    assert answer.get("Set-Cookie") is None
    token = answer.get("X-Pin")
    read = pinned(plain(shop.reads_from), **options)
    assert ask(read, HTTP_X_PIN=token).body == b"primary"
    assert ask(read, token).body == b"replica"  # as a cookie it is not looked at


@pytest.mark.parametrize("token", ["x" * 1_000_000, "1~", "\xff\xfe", "a.b", ""])
def test_no_token_makes_an_error_page(token: str, shop: Shop) -> None:
    """Rubbish of any size in the cookie is ignored and counted."""
    app = pinned(plain(shop.reads_from))
    answer = ask(app, token)
    assert (answer.status, answer.body) == ("200 OK", b"replica")
    assert app.carrier.stats()["token_ignored"] == 1


def test_an_error_page_from_within_carries_the_token(shop: Shop) -> None:
    """A framework that turns the exception after a write into a 500 page tells of the write."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        try:
            start_response("200 OK", [("Content-Type", "text/plain")])
            shop.write()
            raise ValueError("oops")
        except ValueError:
            start_response("500 Oops", [("Content-Type", "text/plain")], sys.exc_info())
            return [b"oops"]

    answer = ask(pinned(app))
    assert answer.status == "500 Oops"
    assert answer.token


def test_an_error_page_in_place_of_headers_not_sent_yet(shop: Shop) -> None:
    """An empty first chunk sends nothing: the 500 that replaces the headers has the token too."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        shop.write()
        yield b""
        try:
            raise ValueError("oops")
        except ValueError:
            start_response("500 Oops", [("Content-Type", "text/plain")], sys.exc_info())
        yield b"oops"

    answer = ask(pinned(app))
    assert answer.status == "500 Oops"
    assert answer.token


def test_an_error_after_the_headers_left_is_the_servers(shop: Shop) -> None:
    """``exc_info`` after the first chunk goes to the server, which raises it."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"some"
        try:
            raise ValueError("late")
        except ValueError:
            start_response("500 Oops", [("Content-Type", "text/plain")], sys.exc_info())
        yield b"never"

    with pytest.raises(ValueError, match="late"):
        ask(pinned(app))


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
    assert "cluster" not in said


def test_head_and_not_modified(shop: Shop) -> None:
    """A HEAD response and a 304 carry the token exactly when something was written."""
    for status in ("200 OK", "304 Not Modified"):
        for view, due in ((shop.write, True), (shop.reads_from, False)):

            def app(
                environ: Any, start_response: Any, status: str = status, view: Any = view
            ) -> Iterable[bytes]:
                view()
                kind = [] if status.startswith("304") else [("Content-Type", "text/plain")]
                start_response(status, [*kind, ("ETag", '"1"')])
                return []

            answer = ask(pinned(app), REQUEST_METHOD="HEAD")
            assert (answer.status, answer.body) == (status, b"")
            assert bool(answer.token) is due
            assert bool(answer.get("Cache-Control")) is due


def test_a_generator_may_write_until_its_first_chunk(shop: Shop) -> None:
    """The context holds in every step of a streaming response, and what is written before the
    first chunk is told."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        context = current_context()
        shop.write()
        yield shop.reads_from().encode()
        assert current_context() is context
        yield b"!"

    answer = ask(pinned(app))
    assert answer.body == b"primary!"
    assert answer.token


class Late:
    """A response that writes after its first chunk, and again when it is closed."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.contexts: set[int] = set()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> "Late":
        start_response("200 OK", [("Content-Type", "text/plain")])
        self.contexts.clear()
        self.note()
        return self

    def note(self) -> None:
        assert not current_context().root
        self.contexts.add(id(current_context()))

    def __iter__(self) -> Iterator[bytes]:
        yield b"first"
        self.note()
        self.shop.write()
        yield b"second"

    def close(self) -> None:
        self.note()
        self.shop.write()


def test_what_is_written_after_the_headers_is_said(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    """A cookie cannot carry what is written while the response streams: counted, said once."""
    late = Late(shop)
    app = pinned(late)
    for _ in range(2):
        answer = ask(app)
        assert (answer.body, answer.token) == (b"firstsecond", None)
        assert len(late.contexts) == 1
    assert app.carrier.stats()["pin_lost"] == 2
    (said,) = [r.message for r in caplog.records if "pin_lost" in r.message]
    assert "after the headers" in said


def test_a_store_has_what_is_written_after_the_headers(shop: Shop) -> None:
    """With a store the next request of the same caller finds it, and nothing is lost."""
    store = MemoryPinStore()
    options: dict[str, Any] = {"store": store, "identify": lambda e: cookie(e, "session")}
    app, read = pinned(Late(shop), **options), pinned(plain(shop.reads_from), **options)
    ask(app, HTTP_COOKIE="session=me")
    assert ask(read, HTTP_COOKIE="session=me").body == b"primary"
    assert ask(read, HTTP_COOKIE="session=you").body == b"replica"
    assert ask(read).body == b"replica"
    assert "pin_lost" not in app.carrier.stats()
    shop.caught_up()
    assert ask(read, HTTP_COOKIE="session=me").body == b"replica"


def test_the_store_knows_before_the_caller(shop: Shop) -> None:
    """When a chunk leaves, what was written before it is in the store."""
    store = MemoryPinStore()
    read = pinned(plain(shop.reads_from), store=store, identify=lambda e: "me")
    app = pinned(Late(shop), store=store, identify=lambda e: "me")
    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    body = iter(app(environ, lambda *_: lambda data: None))
    assert next(body) == b"first"
    assert ask(read).body == b"replica"
    assert next(body) == b"second"
    assert ask(read).body == b"primary"


def test_who_logs_in_is_asked_again(shop: Shop) -> None:
    """A request that only knows its caller at the end saves for that caller."""
    store = MemoryPinStore()
    options: dict[str, Any] = {"store": store, "identify": lambda e: e.get("user")}

    def login(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        shop.write()
        environ["user"] = "me"
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b""]

    ask(pinned(login, **options))
    assert ask(pinned(plain(shop.reads_from), **options), user="me").body == b"primary"


def test_a_response_may_be_iterated_in_another_thread(shop: Shop) -> None:
    """Server threads that iterate and close a response are inside its context meanwhile, and
    only then."""
    late = Late(shop)
    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    body: Any = pinned(late)(environ, lambda *_: lambda data: None)
    seen: list[object] = []

    def step(do: Callable[[], object]) -> None:
        def run() -> None:
            seen.append(do())
            assert current_context() is ROOT

        thread = threading.Thread(target=contextvars.Context().run, args=(run,))
        thread.start()
        thread.join()

    chunks = iter(body)
    step(lambda: next(chunks))
    step(lambda: next(chunks))
    step(lambda: next(chunks, None))
    step(body.close)
    assert seen == [b"first", b"second", None, None]
    assert len(late.contexts) == 1


def test_the_old_write_callable(shop: Shop) -> None:
    """``write()`` sends the headers with what was written by then."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        shop.write()
        write(b"written")
        return []

    answer = ask(pinned(app))
    assert answer.body == b"written"
    assert answer.token


def test_a_file_reaches_the_server_as_it_is(shop: Shop) -> None:
    """The server's own file wrapper is handed through, for the server to send its quick way."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        shop.write()
        start_response("200 OK", [("Content-Type", "text/plain")])
        body: Iterable[bytes] = environ["wsgi.file_wrapper"](io.BytesIO(b"file"))
        return body

    environ: dict[str, Any] = {"wsgi.file_wrapper": FileWrapper}
    setup_testing_defaults(environ)
    headers: Headers = []

    def start_response(status: str, given: Headers, exc_info: Any = None, /) -> Any:
        headers.extend(given)

    body = pinned(app)(environ, start_response)
    assert isinstance(body, FileWrapper)
    assert "Set-Cookie" in dict(headers)


def test_starting_twice_is_the_applications_mistake() -> None:
    """``start_response`` again without ``exc_info`` is an error, as with any server."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b""]

    with pytest.raises(AssertionError, match="twice"):
        ask(pinned(app), strict=False)


def test_a_request_that_wrote_pins_nobody_else(shop: Shop) -> None:
    """Each request has a context of its own."""
    ask(pinned(plain(shop.write)))
    assert ask(pinned(plain(shop.reads_from))).body == b"replica"
    with router.request_context():
        assert shop.reads_from() == "replica"


def test_a_store_for_asyncio_is_refused() -> None:
    """WSGI cannot wait for a coroutine, and says so at once."""

    class Later:
        async def load(self, who: str) -> dict[str, str]:
            return {}

        async def save(self, who: str, fields: Any, ttl: float) -> None:
            return None

    with pytest.raises(ConfigError, match=r"store: .*RedisPinStore"):
        pinned(plain(print), store=Later(), identify=lambda e: "me")
