"""Three programs over one engine, each with the ending its how-to recommends.

`wsgi` for gunicorn with `gunicorn_conf.py`, `asgi` for uvicorn, and a worker when run as a script.
Each request, or the worker's one job, holds a transaction open for a moment.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

import sqlalchemy as sa

import router

REPLICAS = os.environ["APP_REPLICAS"].split(",")
JOB = (sa.text("INSERT INTO done VALUES (1)"), sa.text("SELECT pg_sleep(1)"))

engine = router.create_engine(os.environ["APP_PRIMARY"], replicas=REPLICAS)
async_engine = router.create_async_engine(
    os.environ["APP_PRIMARY"].replace("postgresql:", "postgresql+asyncpg:"), replicas=REPLICAS
)


def work() -> None:
    with engine.begin() as connection:
        for statement in JOB:
            connection.execute(statement)


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/work":
        work()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"done"]


async def asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await async_engine.dispose()
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["path"] == "/work":
        async with async_engine.begin() as connection:
            for statement in JOB:
                await connection.execute(statement)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})


def main() -> int:
    stop = threading.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: stop.set())
    threading.Thread(target=work, daemon=True).start()
    stop.wait()
    drained = engine.router.close(drain=10)
    engine.dispose()
    print("drained" if drained else "cut off", flush=True)
    return 0 if drained else 1


if __name__ == "__main__":
    sys.exit(main())
