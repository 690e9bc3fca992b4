"""The doors as a program that forks uses them: a Router, and a function that runs a statement."""

import asyncio
import os
import signal
import traceback
import warnings
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

Run = Callable[[str], Any]
"""Runs one statement, and commits it; the first column of its first row, if there is any."""
Opened = AbstractContextManager[tuple[Any, Run]]
"""A Router, and what runs a statement there."""
ENGINES = ("psycopg", "psycopg2", "pg8000", "psycopg_async", "asyncpg_async")
POOLS = ("pool", "async_pool", "asyncpg_pool")
DOORS = (*ENGINES, *POOLS, "django")


BOUND = 10
"""Seconds a child may take for what it is to do."""


def fork(child: Callable[[], object]) -> int:
    """A child that does `child` within `BOUND`; its process id."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
        pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(BOUND)
        child()
        code = 0
    except BaseException:
        traceback.print_exc()
    os._exit(code)


def ended(pid: int) -> str:
    """What became of a child."""
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return {0: "fine", -signal.SIGALRM: "hangs"}.get(code, "failed")


class Loops:
    """Runs coroutines on an event loop of this process: a forked child has one of its own."""

    def __init__(self) -> None:
        self._of: dict[int, asyncio.Runner] = {}

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        runner = self._of.get(os.getpid())
        if runner is None:
            runner = self._of[os.getpid()] = asyncio.Runner()
        return runner.run(coroutine)

    def close(self) -> None:
        self._of.pop(os.getpid()).close()


@contextmanager
def engine(door: str, url: str, options: dict[str, Any]) -> Iterator[tuple[Any, Run]]:
    import sqlalchemy as sa
    from sqlalchemy.util import greenlet_spawn

    import router

    driver, loops = door.removesuffix("_async"), Loops()
    url = url.replace("postgresql:", f"postgresql+{driver}:", 1)
    made: Any
    if door == driver:
        made = router.create_engine(url, **options)
    else:
        made = router.create_async_engine(url, **options).sync_engine

    def perform(call: Callable[..., Any], *args: Any) -> Any:
        return call(*args) if door == driver else loops.run(greenlet_spawn(call, *args))

    def execute(sql: str) -> Any:
        with made.begin() as connection:
            result = connection.execute(sa.text(sql))
            return result.scalar() if result.returns_rows else None

    yield made.router, lambda sql: perform(execute, sql)
    perform(made.dispose)


@contextmanager
def pool(url: str, options: dict[str, Any]) -> Iterator[tuple[Any, Run]]:
    import router.psycopg

    with router.psycopg.ConnectionPool(url, min_size=1, **options) as made:

        def run(sql: str) -> Any:
            with made.connection() as connection:
                return first(connection.execute(sql))

        yield made.router, run


def first(cursor: Any) -> Any:
    row = cursor.fetchone() if cursor.description else None
    return row[0] if row else None


@contextmanager
def async_pool(url: str, options: dict[str, Any]) -> Iterator[tuple[Any, Run]]:
    import router.psycopg

    loops = Loops()

    async def opened() -> Any:
        made = router.psycopg.AsyncConnectionPool(url, min_size=1, open=False, **options)
        await made.open()
        return made

    async def execute(sql: str) -> Any:
        async with made.connection() as connection:
            cursor = await connection.execute(sql)
            row = await cursor.fetchone() if cursor.description else None
            return row[0] if row else None

    made = loops.run(opened())
    yield made.router, lambda sql: loops.run(execute(sql))
    loops.run(made.close())


@contextmanager
def asyncpg_pool(url: str, options: dict[str, Any]) -> Iterator[tuple[Any, Run]]:
    import router.asyncpg

    loops = Loops()

    async def opened() -> Any:
        return await router.asyncpg.create_pool(url, min_size=1, **options)

    made = loops.run(opened())
    yield made.router, lambda sql: loops.run(made.fetchval(sql))
    loops.run(made.close())


def configure_django(url: str, options: dict[str, Any], **settings: Any) -> None:
    """A project whose one alias is the database `url` leads to."""
    from django import setup
    from django.conf import settings as project
    from sqlalchemy import make_url

    primary, *replicas = map(make_url, (url, *options.pop("replicas")))
    database = {
        "ENGINE": "router.django",
        "HOST": primary.host,
        "PORT": primary.port,
        "USER": primary.username,
        "NAME": primary.database,
        "REPLICAS": [{"HOST": each.host, "PORT": each.port} for each in replicas],
        "ROUTER": options,
    }
    if not project.configured:
        project.configure(DATABASES={"default": database}, LOGGING_CONFIG=None, **settings)
        setup()


@contextmanager
def django(url: str, options: dict[str, Any]) -> Iterator[tuple[Any, Run]]:
    from django.db import connection

    configure_django(url, options)

    def run(sql: str) -> Any:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return first(cursor)

    yield connection.router, run
    connection.close()
    connection.close_pool()


def opened(door: str, url: str, **options: Any) -> Opened:
    """The routed target of a door; it is closed with the block."""
    if door in ENGINES:
        return engine(door, url, options)
    made: Mapping[str, Callable[[str, dict[str, Any]], Opened]] = {
        "pool": pool,
        "async_pool": async_pool,
        "asyncpg_pool": asyncpg_pool,
        "django": django,
    }
    return made[door](url, options)
