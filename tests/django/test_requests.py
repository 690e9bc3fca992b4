"""Pins that follow a user from request to request, and what a request's method says."""

import asyncio
from typing import Any

import pytest
from asgiref.sync import sync_to_async

import router
from tests.django.conftest import Connect, Routed


@pytest.fixture
def client(routed: Routed) -> Any:
    from django.test import Client

    return Client()


def test_a_user_reads_what_they_wrote(client: Any, routed: Routed) -> None:
    """Who wrote reads it in the next request while replay stands still; others read replicas."""
    from django.test import Client

    with routed.cluster.replay_paused():
        assert routed.role(client.get("/").json()["port"]) == "replica"
        response = client.post("/")
        assert "pg_router_pin" in response.cookies
        assert "private" in response["Cache-Control"]
        assert "Cookie" in response["Vary"]
        told = client.get("/").json()
        assert (told["count"], routed.role(told["port"])) == (1, "primary")
        assert routed.role(Client().get("/").json()["port"]) == "replica"


def test_a_request_that_writes_nothing_sets_no_cookie(client: Any) -> None:
    """A response is left as it was unless something was written."""
    response = client.get("/")
    assert not response.cookies
    assert "Cache-Control" not in response


def test_old_keys_still_verify(client: Any, routed: Routed, settings: Any) -> None:
    """A cookie signed by a key of SECRET_KEY_FALLBACKS counts."""
    from django.test import Client

    with routed.cluster.replay_paused():
        cookie = client.post("/").cookies["pg_router_pin"].value
        settings(SECRET_KEY="a new one", SECRET_KEY_FALLBACKS=[settings.key])
        after = Client()
        after.cookies["pg_router_pin"] = cookie
        assert routed.role(after.get("/").json()["port"]) == "primary"
        settings(SECRET_KEY="a new one", SECRET_KEY_FALLBACKS=[])
        after = Client()
        after.cookies["pg_router_pin"] = cookie
        assert routed.role(after.get("/").json()["port"]) == "replica"


def test_streamed_bodies_are_in_the_request(client: Any, routed: Routed) -> None:
    """A body that is made after the headers reads as the request does."""
    with routed.cluster.replay_paused():
        client.post("/")
        body = b"".join(client.get("/stream").streaming_content)
        assert routed.role(int(body)) == "primary"


def test_asynchronous_views(routed: Routed) -> None:
    """Under ASGI the pin follows the user too, through the asynchronous ORM and its threads."""
    from django.test import AsyncClient

    async def visit() -> None:
        client = AsyncClient()
        assert routed.role((await client.get("/later")).json()["port"]) == "replica"
        assert routed.role((await client.post("/later")).json()["port"]) == "primary"
        told = (await client.get("/later")).json()
        assert (told["count"], routed.role(told["port"])) == (1, "primary")
        streamed = await client.get("/stream-later")
        body = b"".join([chunk async for chunk in streamed.streaming_content])
        assert routed.role(int(body)) == "primary"
        assert routed.role((await AsyncClient().get("/")).json()["port"]) == "replica"
        await close()

    with routed.cluster.replay_paused():
        asyncio.run(visit())


def caller(request: Any) -> Any:
    """Who calls, as a header says: a number, as users' keys are."""
    who = request.META.get("HTTP_X_USER")
    return None if who is None else int(who)


def test_a_store_learns_of_what_a_streamed_body_writes(routed: Routed, settings: Any) -> None:
    """What is written while a body is streamed is in the store before its caller has the chunk;
    an `identify` that gives a number will do."""
    from django.test import AsyncClient, Client

    settings(ROUTER_PINS={"store": router.MemoryPinStore(), "identify": caller, "cookie": None})

    def read(who: int) -> str:
        return routed.role(Client().get("/", headers={"x-user": str(who)}).json()["port"])

    async def visit() -> None:
        response = await AsyncClient().get("/write-later", headers={"x-user": "8"})
        async for chunk in response.streaming_content:
            assert (chunk, await sync_to_async(read)(8)) == (b"done", "primary")
        await close()

    with routed.cluster.replay_paused():
        response = Client().get("/write-late", headers={"x-user": "7"})
        for chunk in response.streaming_content:
            assert (chunk, read(7)) == (b"done", "primary")
        assert read(8) == "replica"
        asyncio.run(visit())


class Awaited:
    """A store for asyncio that says from which event loops it was called."""

    def __init__(self) -> None:
        self.kept = router.MemoryPinStore()
        self.loops: set[object] = set()

    async def load(self, who: str) -> Any:
        self.loops.add(asyncio.get_running_loop())
        return self.kept.load(who)

    async def save(self, who: str, fields: Any, ttl: float) -> None:
        self.loops.add(asyncio.get_running_loop())
        self.kept.save(who, fields, ttl)


def plainly(get_response: Any) -> Any:
    """A middleware that knows nothing of asyncio."""
    return lambda request: get_response(request)


def test_a_store_for_asyncio_beside_a_synchronous_middleware(
    routed: Routed, settings: Any
) -> None:
    """Under ASGI it is called on the one event loop, whatever middleware comes further in; under
    WSGI it is refused by name and cure."""
    from django.conf import settings as django_settings
    from django.core.exceptions import ImproperlyConfigured
    from django.test import AsyncClient, Client

    store = Awaited()
    settings(
        ROUTER_PINS={"store": store, "identify": caller, "cookie": None},
        MIDDLEWARE=[*django_settings.MIDDLEWARE, f"{__name__}.plainly"],
    )

    async def visit() -> None:
        client, user = AsyncClient(), {"x-user": "7"}
        await client.post("/later", headers=user)
        told = (await client.get("/later", headers=user)).json()
        assert (told["count"], routed.role(told["port"])) == (1, "primary")
        assert store.loops == {asyncio.get_running_loop()}
        await close()

    with routed.cluster.replay_paused():
        asyncio.run(visit())
    with pytest.raises(ImproperlyConfigured, match="RedisPinStore, which serves"):
        Client().get("/", headers={"x-user": "7"})


def test_a_file_is_left_to_the_server(routed: Routed) -> None:
    """The server gets a FileResponse's file itself, to send it by sendfile()."""
    from django.core.handlers.wsgi import WSGIHandler
    from django.test import RequestFactory

    class Wrapper(list[bytes]):
        def __init__(self, file: Any, size: int = 0) -> None:
            super().__init__(file)
            file.close()

    environ = RequestFactory().get("/file").environ | {"wsgi.file_wrapper": Wrapper}
    assert isinstance(WSGIHandler()(environ, lambda *_: None), Wrapper)


async def close() -> None:
    """Close the connection of asgiref's one thread, which outlives the test, and forget it."""
    from django.db import connections

    def drop() -> None:
        connections.close_all()
        del connections["default"]

    await sync_to_async(drop)()


def test_methods_that_are_not_safe(routed: Routed, settings: Any) -> None:
    """With ROUTER_SAFE_METHODS other requests read on the primary, written or not."""
    from django.test import Client

    settings(ROUTER_SAFE_METHODS=["get", "head"])
    assert routed.role(Client().get("/").json()["port"]) == "replica"
    assert routed.role(Client().post("/?only=1").json()["port"]) == "primary"


def test_atomic_requests(connect: Connect) -> None:
    """ATOMIC_REQUESTS puts views on the primary; one declared read_only() stays on a replica."""
    from django.test import Client

    routed = connect(ATOMIC_REQUESTS=True)
    assert routed.role(Client().get("/").json()["port"]) == "primary"
    told = Client().get("/report").json()
    assert (routed.role(told["port"]), told["atomic"]) == ("replica", True)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("ROUTER_PINS", {"cokie": "x"}, "did you mean 'cookie'"),
        ("ROUTER_PINS", False, "leave one out"),
        ("ROUTER_SAFE_METHODS", "GET", "give a list"),
    ],
)
def test_malformed_settings(
    routed: Routed, settings: Any, name: str, value: Any, said: str
) -> None:
    """A setting that is wrong is refused when the middleware is made, by name."""
    from django.core.exceptions import ImproperlyConfigured
    from django.test import Client

    settings(**{name: value})
    with pytest.raises(ImproperlyConfigured, match=said) as caught:
        Client().get("/")
    assert name in str(caught.value)
