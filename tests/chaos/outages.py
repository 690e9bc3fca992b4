"""More callers than places and one server that fails: which reads fail, how long callers wait.

    python -m tests.chaos.outages [--door NAME …] [--fault NAME …] [--callers N] [--seconds N]

Each door has default options, a pool of ten places for each node, and callers that read, or write,
one after another. Whoever waits longer than a fault takes to be detected waits for the router.
"""

import argparse
import asyncio
import contextlib
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import psycopg
import sqlalchemy as sa

import router
from router.testing import Cluster, Proxy

PLACES = 10
READ = "SELECT pg_sleep(0.01)"
WRITE = "INSERT INTO entry DEFAULT VALUES"
DETECTION = 2.0
"""Seconds: the default ``probe_interval`` and ``probe_timeout``, one after the other."""


@dataclass
class Seen:
    """What the callers of one run met.

    Attributes:
        calls: how many calls ended.
        failures: errors of calls, one line each.
        longest: the longest call (seconds).
        late: calls that took more than two seconds.
    """

    calls: int = 0
    failures: list[str] = field(default_factory=list)
    longest: float = 0.0
    late: int = 0

    def note(self, seconds: float, error: BaseException | None = None) -> None:
        """A call ended, with `error` where it failed, after `seconds`."""
        self.calls += 1
        self.longest = max(self.longest, seconds)
        self.late += seconds > DETECTION
        if error is not None:
            text = " ".join(str(error).split())[:150]
            self.failures.append(f"after {seconds:.1f} s {type(error).__name__}: {text}")


class Threads:
    """Callers that are threads; `call` runs one statement, `leave` ends the use by one thread, and
    `close` by all."""

    def __init__(
        self,
        call: Callable[[str], None],
        close: Callable[[], None],
        leave: Callable[[], None] = lambda: None,
    ) -> None:
        self.call = call
        self.close = close
        self.leave = leave

    def run(self, sql: str, callers: int, over: threading.Event, seen: Seen) -> None:
        """Call until it is `over`."""

        def caller() -> None:
            while not over.is_set():
                began = time.monotonic()
                try:
                    self.call(sql)
                except Exception as error:
                    seen.note(time.monotonic() - began, error)
                    time.sleep(0.01)
                else:
                    seen.note(time.monotonic() - began)
            self.leave()

        threads = [threading.Thread(target=caller) for _ in range(callers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(200)
        assert not any(thread.is_alive() for thread in threads), "a caller hangs"
        self.close()


class Tasks:
    """Callers that are tasks; `made` gives what runs one statement, and what closes it all."""

    def __init__(self, made: Callable[[], Any]) -> None:
        self.made = made

    def run(self, sql: str, callers: int, over: threading.Event, seen: Seen) -> None:
        """As `Threads.run`, each of three times as many."""

        async def caller(call: Any) -> None:
            while not over.is_set():
                began = time.monotonic()
                try:
                    await call(sql)
                except Exception as error:
                    seen.note(time.monotonic() - began, error)
                    await asyncio.sleep(0.01)
                else:
                    seen.note(time.monotonic() - began)

        async def all_callers() -> None:
            call, close = await self.made()
            async with asyncio.TaskGroup() as group:
                for _ in range(3 * callers):
                    group.create_task(caller(call))
            await close()

        asyncio.run(asyncio.wait_for(all_callers(), 200))


def sqlalchemy_threads(urls: list[str], driver: str = "psycopg") -> Threads:
    """A blocking engine."""
    engine = router.create_engine(
        urls[0].replace("postgresql:", f"postgresql+{driver}:"), urls[1:],
        pool_size=PLACES // 2, max_overflow=PLACES - PLACES // 2,
    )  # fmt: skip

    def call(sql: str) -> None:
        with engine.connect() as connection:
            connection.execute(sa.text(sql))
            connection.commit()

    return Threads(call, engine.dispose)


def sqlalchemy_tasks(urls: list[str], driver: str = "asyncpg") -> Tasks:
    """An asynchronous engine."""

    async def made() -> Any:
        engine = router.create_async_engine(
            urls[0].replace("postgresql:", f"postgresql+{driver}:"), urls[1:],
            pool_size=PLACES // 2, max_overflow=PLACES - PLACES // 2,
        )  # fmt: skip

        async def call(sql: str) -> None:
            async with engine.connect() as connection:
                await connection.execute(sa.text(sql))
                await connection.commit()

        return call, engine.dispose

    return Tasks(made)


def psycopg_threads(urls: list[str]) -> Threads:
    """Psycopg's own pool."""
    from router.psycopg import ConnectionPool

    pool = ConnectionPool(urls[0], replicas=urls[1:], min_size=2, max_size=PLACES)

    def call(sql: str) -> None:
        with pool.connection() as connection:
            connection.execute(sql.encode())

    return Threads(call, pool.close)


def psycopg_tasks(urls: list[str]) -> Tasks:
    """Psycopg's asynchronous pool."""
    from router.psycopg import AsyncConnectionPool

    async def made() -> Any:
        pool = AsyncConnectionPool(urls[0], replicas=urls[1:], min_size=2, max_size=PLACES)
        await pool.open()

        async def call(sql: str) -> None:
            async with pool.connection() as connection:
                await connection.execute(sql.encode())

        return call, pool.close

    return Tasks(made)


def asyncpg_tasks(urls: list[str]) -> Tasks:
    """Asyncpg's pool."""
    from router.asyncpg import create_pool

    async def made() -> Any:
        pool = create_pool(urls[0], urls[1:], min_size=2, max_size=PLACES)
        await pool

        async def call(sql: str) -> None:
            if sql == READ:
                await pool.fetch(sql)
            else:
                await pool.execute(sql)

        return call, pool.close

    return Tasks(made)


def django_threads(urls: list[str], *, pooled: bool = False) -> Threads:
    """Django: one connection a thread and node, kept, or psycopg's pool."""
    from urllib.parse import urlsplit

    import django
    from django.conf import settings
    from django.db import connections

    parts = [urlsplit(url) for url in urls]
    database = {
        "ENGINE": "router.django",
        "NAME": parts[0].path[1:], "USER": parts[0].username, "HOST": parts[0].hostname,
        "PORT": parts[0].port, "REPLICAS": urls[1:],
        "CONN_MAX_AGE": 0 if pooled else 60,
        "OPTIONS": {"pool": {"min_size": 2, "max_size": PLACES}} if pooled else {},
    }  # fmt: skip
    if not settings.configured:
        settings.configure(DATABASES={}, USE_TZ=True)
    django.setup()  # another test may have configured it, and no more
    alias = f"outage{parts[0].port}"
    known = connections.configure_settings({"default": {}, alias: database})
    connections.databases[alias] = known[alias]

    def call(sql: str) -> None:
        with router.request_context(), connections[alias].cursor() as cursor:
            cursor.execute(sql)
        if pooled:
            connections[alias].close()

    def close() -> None:
        from router.django.source import leave

        for thread in connections.all(initialized_only=True):
            if thread.alias == alias:
                thread.close()
        leave(parts[0].path[1:])

    return Threads(call, close, lambda: connections[alias].close())


DOORS: dict[str, Callable[[list[str]], Any]] = {
    "SQLAlchemy, psycopg": sqlalchemy_threads,
    "SQLAlchemy, psycopg2": lambda urls: sqlalchemy_threads(urls, "psycopg2"),
    "SQLAlchemy, asyncpg": sqlalchemy_tasks,
    "SQLAlchemy, psycopg_async": lambda urls: sqlalchemy_tasks(urls, "psycopg"),
    "psycopg": psycopg_threads,
    "psycopg, async": psycopg_tasks,
    "asyncpg": asyncpg_tasks,
    "Django": django_threads,
    "Django, pool": lambda urls: django_threads(urls, pooled=True),
}


@dataclass
class World:
    """Servers behind proxies; the first is the primary."""

    cluster: Cluster
    proxies: list[Proxy]

    @property
    def urls(self) -> list[str]:
        """As the callers reach them."""
        return [p.url(s.url()) for p, s in zip(self.proxies, self.cluster.servers, strict=True)]


@contextlib.contextmanager
def killed(world: World, which: int) -> Iterator[None]:
    """A server is killed, and comes back."""
    server = world.cluster.servers[which]
    server.kill()
    yield
    server.start()


@contextlib.contextmanager
def frozen(world: World, which: int) -> Iterator[None]:
    """A server is frozen."""
    server = world.cluster.servers[which]
    server.freeze()
    yield
    server.thaw()


@contextlib.contextmanager
def deaf(world: World, which: int) -> Iterator[None]:
    """Nothing arrives at a server, nor from it."""
    world.proxies[which].deaf()
    yield
    world.proxies[which].heal()


@contextlib.contextmanager
def ended(world: World, which: int) -> Iterator[None]:
    """A DBA ends all sessions, again and again."""
    server = world.cluster.servers[which]
    over = threading.Event()

    def end() -> None:
        while not over.wait(0.3):
            with contextlib.suppress(psycopg.Error):
                server.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
                )

    thread = threading.Thread(target=end)
    thread.start()
    yield
    over.set()
    thread.join(30)


@contextlib.contextmanager
def slow_logins(world: World, which: int) -> Iterator[None]:
    """A new connection takes seconds, and the primary is frozen."""
    for server in world.cluster.servers[1:]:
        server.execute("ALTER SYSTEM SET pre_auth_delay = 2")
        server.execute("SELECT pg_reload_conf()")
    with frozen(world, 0):
        yield
    for server in world.cluster.servers[1:]:
        server.execute("ALTER SYSTEM RESET pre_auth_delay")
        server.execute("SELECT pg_reload_conf()")


class Fault(NamedTuple):
    """What is done, for how long, to whom, and what the callers do."""

    title: str
    happen: Callable[[World, int], Any]
    which: int
    seconds: float
    sql: str = READ
    cold: bool = False


FAULTS = {
    "kill": Fault("replica killed", killed, 1, 6.0),
    "kill36": Fault("replica killed", killed, 1, 36.0),
    "deaf": Fault("replica deaf, cold pools", deaf, 1, 20.0, cold=True),
    "deafwarm": Fault("replica deaf", deaf, 1, 20.0),
    "freeze": Fault("replica frozen", frozen, 1, 20.0),
    "ended": Fault("replica's sessions ended", ended, 1, 6.0),
    "primary": Fault("primary frozen, writers", frozen, 0, 20.0, WRITE),
    "primarykill": Fault("primary killed, readers", killed, 0, 6.0),
    "slow": Fault("replicas connect slowly, primary frozen", slow_logins, 0, 10.0, cold=True),
}


def run(door: str, fault: Fault, callers: int) -> Seen:
    """What the callers at `door` met through `fault`."""
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(Cluster(replicas=2))
        cluster.primary.execute("CREATE TABLE entry (id bigserial)")
        cluster.wait_caught_up()
        proxies = [stack.enter_context(Proxy(s.host, s.port)) for s in cluster.servers]
        world, seen, over = World(cluster, proxies), Seen(), threading.Event()
        made = DOORS[door](world.urls)
        thread = threading.Thread(target=made.run, args=(fault.sql, callers, over, seen))
        if fault.cold:
            with fault.happen(world, fault.which):
                thread.start()
                time.sleep(fault.seconds)
        else:
            thread.start()
            time.sleep(2.0)
            seen.longest, seen.late, seen.calls = 0.0, 0, 0
            with fault.happen(world, fault.which):
                time.sleep(fault.seconds)
        time.sleep(2.0)
        over.set()
        thread.join(250)
        assert not thread.is_alive(), "the callers hang"
        return seen


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--door", nargs="*", default=list(DOORS), help=", ".join(DOORS))
    parser.add_argument("--fault", nargs="*", default=list(FAULTS), help=", ".join(FAULTS))
    parser.add_argument("--callers", type=int, default=40, help="threads; tasks are three times")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    if len(options.fault) == len(options.door) == 1:
        return _tell(options.door[0], FAULTS[options.fault[0]], options.callers)
    worst = 0
    for fault in options.fault:
        for door in options.door:
            # In a process of its own: Django has one configuration in each.
            command = [sys.executable, "-m", "tests.chaos.outages", "--door", door]
            command += ["--fault", fault, "--callers", str(options.callers)]
            worst += subprocess.run(command, check=False).returncode
    return min(worst, 1)


def _tell(door: str, fault: Fault, callers: int) -> int:
    """Run one; 1 where reads failed."""
    seen = run(door, fault, callers)
    calls = "reads" if fault.sql == READ else "writes"
    print(
        f"{fault.title:<40} {fault.seconds:4.0f} s  {door:<26} {seen.calls:7,} {calls}, "
        f"{len(seen.failures):4} failed, {seen.late:4} over 2 s, longest {seen.longest:5.1f} s",
        flush=True,
    )
    for text in dict.fromkeys(seen.failures[:3]):
        print("     ", text[:200], flush=True)
    return int(bool(seen.failures) and fault.sql == READ)


if __name__ == "__main__":
    sys.exit(main())
