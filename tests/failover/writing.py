"""A process that writes by a host name until it is ended, and tells of each attempt.

Run as ``python -m tests.failover.writing OPTIONS``, with the options as JSON. An engine and a pool
of asyncpg write side by side. Each attempt gives a line of JSON: the door, when it began and ended
(monotonic seconds), the port of the server that took it, or the error.
"""

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

import router
import router.asyncpg

WRITE = "INSERT INTO item (name) VALUES ('written') RETURNING inet_server_port()"
PAUSE = 0.01


@contextmanager
def attempt(door: str) -> Iterator[dict[str, Any]]:
    """Tell of one attempt, which fills in the port."""
    told: dict[str, Any] = {"door": door, "began": time.monotonic()}
    try:
        yield told
    except Exception as error:
        told["error"] = f"{type(error).__name__}: {error}"
    told["ended"] = time.monotonic()
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


def engine(url: str, **options: Any) -> None:
    """Write through SQLAlchemy, over psycopg."""
    made = router.create_engine(url, **options)
    while True:
        with attempt("engine") as told, made.begin() as connection:
            told["port"] = connection.scalar(sa.text(WRITE))
        time.sleep(PAUSE)


async def asyncpg(url: str, **options: Any) -> None:
    """Write through the pool of asyncpg."""
    async with router.asyncpg.create_pool(url, min_size=1, **options) as pool:
        while True:
            with attempt("asyncpg") as told:
                told["port"] = await pool.fetchval(WRITE)
            await asyncio.sleep(PAUSE)


def main() -> None:
    options = json.loads(sys.argv[1])
    threading.Thread(target=engine, kwargs=options, daemon=True).start()
    threading.Thread(target=asyncio.run, args=[asyncpg(**options)], daemon=True).start()
    sys.stdin.read()
    os._exit(0)  # whoever asked for it has gone


if __name__ == "__main__":
    main()
