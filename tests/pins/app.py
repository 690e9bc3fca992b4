"""The application the servers run: two entry points, `wsgi` and `asgi`, over one routed engine.

What it is asked to do stands in the path; it answers with JSON: which worker, which server, what
it sees.
"""

import asyncio
import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import sqlalchemy as sa

import router
import router.asgi
import router.wsgi
from router.redis import AsyncRedisPinStore, RedisPinStore

PLACE = Path(os.environ["APP_PLACE"])
COUNT = sa.text("SELECT count(*), inet_server_port() FROM item")
INSERT = sa.text("INSERT INTO item (name) VALUES ('new')")

engine = router.create_engine(
    os.environ["APP_PRIMARY"],
    replicas=os.environ["APP_REPLICAS"].split(","),
    name="app",
    probe_interval=60,  # so that only a waiting pin makes them probe
)
async_engine = router.create_async_engine(
    os.environ["APP_PRIMARY"].replace("postgresql:", "postgresql+asyncpg:"),
    replicas=os.environ["APP_REPLICAS"].split(","),
    name="app",
    probe_interval=60,
    pin_lsn="commit",
)


def write() -> None:
    with engine.begin() as connection:
        connection.execute(INSERT)


def read() -> dict[str, Any]:
    with engine.connect() as connection:
        count, port = connection.execute(COUNT).one()
    return {"pid": os.getpid(), "count": count, "port": port}


async def write_async() -> dict[str, Any]:
    async with async_engine.begin() as connection:
        await connection.execute(INSERT)
    return {"pid": os.getpid()}


async def read_async() -> dict[str, Any]:
    async with async_engine.connect() as connection:
        count, port = (await connection.execute(COUNT)).one()
    return {"pid": os.getpid(), "count": count, "port": port}


def block() -> dict[str, Any]:
    """Keep this worker busy until the test lets it go."""
    pid = os.getpid()
    (PLACE / f"blocked.{pid}").touch()
    release = PLACE / f"release.{pid}"
    deadline = time.monotonic() + 30
    while not release.exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    release.unlink(missing_ok=True)
    return {"pid": pid}


def error() -> None:
    write()
    raise RuntimeError("after the write")


def written() -> dict[str, Any]:
    write()
    return {"pid": os.getpid()}


VIEWS: dict[str, Callable[[], Any]] = {
    "/": read,
    "/write": written,
    "/block": block,
    "/error": error,
    "/not-modified": lambda: None,
    "/write-not-modified": write,
}


ASYNC_VIEWS = {"/async": read_async, "/async-write": write_async}


def answer(path: str) -> tuple[int, list[tuple[str, str]], bytes]:
    """What a framework makes of a view, an exception of it included."""
    try:
        body = json.dumps(VIEWS[path]()).encode()
    except RuntimeError as reason:
        return 500, [("Content-Type", "text/plain")], str(reason).encode()
    if path.endswith("not-modified"):
        return 304, [("ETag", '"1"'), ("Cache-Control", "public, max-age=60")], b""
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    return 200, headers, body


REASONS = {200: "OK", 304: "Not Modified", 500: "Internal Server Error"}


def stats() -> bytes:
    return json.dumps({**wsgi.carrier.stats(), **asgi.carrier.stats()}).encode()


def plain_wsgi(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if path == "/stream":

        def stream() -> Iterable[bytes]:
            yield b"first\n"
            write()
            yield json.dumps(read()).encode()

        start_response("200 OK", [("Content-Type", "text/plain")])
        return stream()
    if path == "/stats":
        start_response("200 OK", [("Content-Type", "application/json")])
        return [stats()]
    status, headers, body = answer(path)
    start_response(f"{status} {REASONS[status]}", headers)
    return [body]


async def plain_asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await router.asgi.renew(scope)
            if message["text"] == "write":
                await asyncio.to_thread(write)
            await send(
                {"type": "websocket.send", "text": json.dumps(await asyncio.to_thread(read))}
            )
        return

    async def start(status: int, headers: Iterable[tuple[str, str]] = ()) -> None:
        pairs = [(name.encode(), value.encode()) for name, value in headers]
        await send({"type": "http.response.start", "status": status, "headers": pairs})

    path = scope["path"]
    if path == "/stream":
        await start(200)
        await send({"type": "http.response.body", "body": b"first\n", "more_body": True})
        await asyncio.to_thread(write)
        body = json.dumps(await asyncio.to_thread(read)).encode()
    elif path == "/stats":
        await start(200)
        body = stats()
    elif path in ASYNC_VIEWS:
        body = json.dumps(await ASYNC_VIEWS[path]()).encode()
        await start(200)
    elif path == "/block":
        body = json.dumps(block()).encode()  # the loop itself: the worker accepts nothing
        await start(200)
    else:
        status, headers, body = await asyncio.to_thread(answer, path)
        await start(status, headers)
    await send({"type": "http.response.body", "body": body})


OPTIONS: Any = {"secret": "correct horse battery staple", "header": "X-Pin", "secure": False}
REDIS: Any = {"url": os.environ["APP_REDIS"], "retries": 0, "cooldown": 0.3}

wsgi = router.wsgi.PinMiddleware(
    plain_wsgi,
    store=RedisPinStore.from_url(**REDIS),
    identify=lambda environ: environ.get("HTTP_X_USER"),
    **OPTIONS,
)
asgi = router.asgi.PinMiddleware(
    plain_asgi,
    store=AsyncRedisPinStore.from_url(**REDIS),
    identify=lambda scope: dict(scope["headers"]).get(b"x-user", b"").decode() or None,
    **OPTIONS,
)
