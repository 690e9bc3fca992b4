"""Every door over one cluster of its own, as many Routers, for tests that promote."""

import asyncio
import contextvars
import time
from collections.abc import Callable, Container, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import sqlalchemy as sa

import router
from router.cluster.router import Router
from router.testing import Cluster, Server
from tests.conftest import Database
from tests.django.conftest import settings_of
from tests.native.kit import DOORS

PORT = "SELECT inet_server_port()"
WRITE = "INSERT INTO item (name) VALUES ('mine')"
ROLE = "app"
"""A role that may not see the timelines of WAL receivers."""
NAMES = ("engine", "async engine", "Django", *DOORS)


@dataclass(frozen=True)
class Door:
    """One way to the cluster.

    Attributes:
        name: for people.
        router: its Router.
        run: runs one statement, in autocommit; the first value of its first row, if any.
    """

    name: str
    router: Router
    run: Callable[[str], Any]

    def read(self) -> int:
        """The port of the server that serves a read in a request context of its own."""
        with router.request_context():
            return int(self.run(PORT))

    def follows(self, server: Server) -> bool:
        """Whether `server` is the primary to it."""
        primary = self.router.primary
        return primary is not None and primary.port == server.port

    def misses(self, name: str) -> bool:
        """Whether the node called `name` has failed two probes."""
        return self.router.snapshot.down(name) is not None

    def write(self) -> None:
        """One acknowledged write in a request context of its own."""
        with router.request_context():
            self.run(WRITE)


def prepare(cluster: Cluster) -> None:
    """A table, and a role for clients, on every server."""
    primary = cluster.primary
    primary.execute("CREATE TABLE item (id serial PRIMARY KEY, name text NOT NULL)")
    primary.execute(f"CREATE ROLE {ROLE} LOGIN")
    primary.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {ROLE}")
    primary.execute(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {ROLE}")
    cluster.wait_caught_up()


def url(server: Server, role: str, driver: str | None = None) -> str:
    """The URL of `server` for `role`, without a password."""
    parts = sa.make_url(server.url(driver=driver)).set(username=role)
    return parts._replace(password=None).render_as_string()


@contextmanager
def doors(
    cluster: Cluster, role: str = "postgres", only: Container[str] = NAMES, **options: Any
) -> Iterator[list[Door]]:
    """Open every door, or `only` some, with `options`; let each Router take its first probes."""
    options = {"probe_interval": 0.2, "blacklist_duration": 0.2, **options}
    primary, replicas = cluster.primary, [url(r, role) for r in cluster.replicas]
    with ExitStack() as stack:
        plain = url(primary, role)
        ways = [
            _engine(url(primary, role, "psycopg"), replicas, options),
            _async_engine(url(primary, role, "asyncpg"), replicas, options),
            _django(cluster, role, options),
            *(_pool(name, plain, replicas, options) for name in DOORS),
        ]
        named = zip(NAMES, ways, strict=True)
        opened = [stack.enter_context(way) for name, way in named if name in only]
        for door in opened:
            door.router.start()
        yield opened


@contextmanager
def _engine(primary: str, replicas: list[str], options: dict[str, Any]) -> Iterator[Door]:
    engine = router.create_engine(primary, replicas, **options)

    def run(sql: str) -> Any:
        with engine.begin() if sql is WRITE else engine.connect() as connection:
            result = connection.execute(sa.text(sql))
            return result.scalar() if result.returns_rows else None

    try:
        yield Door("engine", engine.router, run)
    finally:
        engine.dispose()


@contextmanager
def _async_engine(primary: str, replicas: list[str], options: dict[str, Any]) -> Iterator[Door]:
    engine: Any = router.create_async_engine(primary, replicas, **options)

    async def one(sql: str) -> Any:
        async with engine.begin() if sql is WRITE else engine.connect() as connection:
            result = await connection.execute(sa.text(sql))
            return result.scalar() if result.returns_rows else None

    with asyncio.Runner() as runner:

        def run(sql: str) -> Any:
            return runner.run(one(sql), context=contextvars.copy_context())

        try:
            yield Door("async engine", engine.sync_engine.router, run)
        finally:
            runner.run(engine.dispose())


@contextmanager
def _pool(name: str, primary: str, replicas: list[str], options: dict[str, Any]) -> Iterator[Door]:
    pool = DOORS[name](primary, replicas=replicas, **options)

    def run(sql: str) -> Any:
        with pool.connection() as connection:
            rows = pool.run(connection, sql)
            return rows[0][0] if rows else None

    try:
        yield Door(name, pool.router, run)
    finally:
        pool.close()


@contextmanager
def _django(cluster: Cluster, role: str, options: dict[str, Any]) -> Iterator[Door]:
    import django
    from django.db import connections

    django.setup()
    settings = settings_of(Database(cluster, "postgres"), USER=role, ROUTER=options)
    connections.settings = connections.configure_settings({"default": settings})
    if hasattr(connections._connections, "default"):
        del connections["default"]
    wrapper: Any = connections["default"]

    def run(sql: str) -> Any:
        with wrapper.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchone()[0] if cursor.description else None

    wrapper.router.start()
    try:
        yield Door("Django", wrapper.router, run)
    finally:
        wrapper.close()
        wrapper.cluster.close()


def until(condition: Callable[[], object], what: str, timeout: float = 10.0) -> float:
    """Wait for something that a server or a monitor does by itself; when it was seen."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        time.sleep(0.01)
    return time.monotonic()


def follow(opened: list[Door], server: Server) -> None:
    """Wait until every Router follows `server` as the primary."""
    for door in opened:
        door.router.refresh()
        until(partial(door.follows, server), f"{door.name} follows {server.name}")


def replayed(replica: Server, source: Server) -> None:
    """Wait until `replica` has replayed what `source` has flushed by now, whoever it is."""
    [(lsn,)] = source.execute("SELECT pg_current_wal_flush_lsn()::text")
    until(
        lambda: replica.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", [lsn])[0][0],
        f"{replica.name} has replayed {lsn}",
    )


def cut_off(replica: Server) -> None:
    """Let `replica` receive nothing more from its primary."""
    replica.execute("ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 port=1'")
    replica.execute("SELECT pg_reload_conf()")
    until(
        lambda: replica.execute("SELECT pid FROM pg_stat_wal_receiver") == [],
        f"{replica.name} is cut off",
    )
