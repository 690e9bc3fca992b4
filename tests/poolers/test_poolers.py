"""Every door through Pgpool-II and Odyssey, one in front of each server."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

import router
import router.asyncpg
import router.psycopg
from router.errors import SessionRefused
from router.testing import Cluster
from tests.failover.endpoint import Endpoints
from tests.failover.kit import NAMES, PORT, WRITE, Door, doors, prepare, until
from tests.pgbouncer import collided
from tests.poolers.kit import Start, in_front, odyssey, pgpool

pytestmark = pytest.mark.slow

SLEEP = "SELECT pg_sleep(60)"


@dataclass(frozen=True)
class Way:
    """A pooler, and what its user says to the router."""

    start: Start
    options: dict[str, Any]

    @property
    def shared(self) -> bool:
        """Whether clients share the sessions of the servers."""
        return self.options.get("pgbouncer") == "transaction"


WAYS = {
    "pgpool": Way(pgpool, {}),
    "odyssey session": Way(partial(odyssey, mode="session", size=30), {}),
    "odyssey transaction": Way(
        partial(odyssey, mode="transaction"), {"pgbouncer": "transaction", "probe_timeout": 5.0}
    ),
}


@dataclass(frozen=True)
class World:
    """A cluster, and the way to it."""

    cluster: Cluster
    ends: Endpoints
    way: Way

    @contextmanager
    def doors(self, **options: Any) -> Iterator[list[Door]]:
        """Every door, through the pooler, once it has seen a replica."""
        ends: Any = self.ends
        with doors(ends, **{**self.way.options, **options}) as opened:
            for door in opened:
                until(partial(self.replicas, door), f"{door.name} sees both replicas")
            yield opened

    def replicas(self, door: Door) -> bool:
        """Whether `door` may read from both replicas."""
        return len(door.router.refresh().replicas) == 2

    def on_replica(self, door: Door) -> bool:
        """Whether a read through `door` runs on a replica."""
        return int(door.run(PORT)) != self.cluster.primary.port


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A cluster with a table, for all tests here."""
    with Cluster(2) as started:
        prepare(started)
        yield started


@pytest.fixture(scope="module", params=list(WAYS))
def world(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[World]:
    """The cluster behind each pooler."""
    way = WAYS[request.param]
    with in_front(cluster, way.start) as ends:
        yield World(cluster, ends, way)


def test_reads_go_to_replicas_and_pins_hold(world: World) -> None:
    """A read runs on a replica and a write on the primary, at every door; who wrote reads from the
    primary until a replica has replayed it."""
    primary = world.cluster.primary
    with world.doors() as opened:
        for door in opened:
            assert door.read() != primary.port, door.name
            with router.request_context():
                with world.cluster.replay_paused():
                    door.run(WRITE)
                    assert door.run(PORT) == primary.port, door.name
                until(partial(world.on_replica, door), f"{door.name} reads there again")


def test_a_statement_that_is_given_up_ends_on_its_server(world: World) -> None:
    """A cancelled task's statement is cancelled through the pooler, and the pool goes on."""
    primary = world.ends.primary.url()
    options: dict[str, Any] = {"replicas": [e.url() for e in world.ends.replicas]}
    options |= world.way.options

    async def given_up(statement: Any) -> None:
        running = asyncio.ensure_future(statement)
        await asyncio.to_thread(until, lambda: asleep(world.cluster), "it runs")
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await asyncio.to_thread(until, lambda: not asleep(world.cluster), "it has ended")

    async def asyncpg() -> None:
        async with router.asyncpg.create_pool(primary, min_size=1, **options) as pool:
            await given_up(pool.fetch(SLEEP))
            assert await pool.fetchval("SELECT 1") == 1

    async def psycopg_async() -> None:
        async with router.psycopg.AsyncConnectionPool(primary, min_size=1, **options) as pool:

            async def sleep() -> None:
                async with pool.connection() as connection:
                    await connection.execute(SLEEP)

            await given_up(sleep())
            async with pool.connection() as connection:
                cursor = await connection.execute("SELECT 1")
                assert await cursor.fetchone() == (1,)

    asyncio.run(asyncpg())
    asyncio.run(psycopg_async())


def asleep(cluster: Cluster) -> bool:
    """Whether `SLEEP` runs on a server."""
    asked = "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND query = %s"
    return any(server.execute(asked, [SLEEP]) for server in cluster.servers)


def test_what_needs_a_session_is_refused_where_sessions_are_shared(world: World) -> None:
    """SET holds for the connection where each client has a session; where transactions are pooled
    it is refused before it is sent. Other clients see neither."""
    url = world.ends.primary.url(driver="psycopg")
    engine = router.create_engine(url, [e.url() for e in world.ends.replicas], **world.way.options)
    shown = sa.text("SHOW statement_timeout")
    try:
        with engine.connect() as connection:
            if world.way.shared:
                with pytest.raises(SessionRefused):
                    connection.execute(sa.text("SET statement_timeout = 4321"))
            else:
                connection.execute(sa.text("SET statement_timeout = 4321"))
                assert connection.scalar(shown) == "4321ms"
    finally:
        engine.dispose()
    with psycopg.connect(world.ends.primary.url(), autocommit=True) as other:
        assert other.execute("SHOW statement_timeout").fetchone() == ("0",)


def test_a_killed_replica_costs_no_read(world: World) -> None:
    """With a replica killed behind its pooler, to which every door has a connection, reads go on
    without an error, and it serves them again once it is back."""
    killed = world.cluster.replicas[0]
    # The read shall meet the dead server before a probe does.
    with world.doors(probe_interval=2) as opened:
        try:
            for door in opened:
                door.router.blacklist("replica2")
                assert door.read() == killed.port, door.name
            killed.kill()
            for door in opened:
                assert door.read() != killed.port, door.name
                door.router.restore("replica2")
            for door in opened:
                until(partial(door.misses, "replica1"), f"{door.name} misses it", 30)
                assert door.read() == world.cluster.replicas[1].port, door.name
        finally:
            world.cluster.heal()
        for door in opened:
            until(partial(world.replicas, door), f"{door.name} sees it again", 30)


def repeat(opened: list[Door]) -> dict[str, list[str]]:
    """Run the same reads at every door, again and again; the errors of each."""
    failed: dict[str, list[str]] = {door.name: [] for door in opened}
    for _ in range(8):
        for door in opened:
            for column in ("id", "name", "*"):
                try:
                    with router.request_context():
                        door.run(f"SELECT count({column}) FROM item")
                except Exception as error:
                    failed[door.name].append(str(error))
    return failed


def test_odyssey_keeps_prepared_statements_apart(cluster: Cluster) -> None:
    """Odyssey as it is by default lets clients that share a server session prepare statements:
    prepared_statements=True holds at every door."""
    start = partial(odyssey, mode="transaction", size=2)
    with in_front(cluster, start) as ends:
        world = World(cluster, ends, WAYS["odyssey transaction"])
        with world.doors(prepared_statements=True) as opened:
            assert repeat(opened) == {name: [] for name in NAMES}


def test_without_that_odyssey_needs_them_left_out(cluster: Cluster) -> None:
    """With pool_reserve_prepared_statement off, pgbouncer="transaction" has no door prepare any;
    without that option statements are lost to them."""
    start = partial(odyssey, mode="transaction", prepared=False, size=2)
    with in_front(cluster, start) as ends:
        world = World(cluster, ends, WAYS["odyssey transaction"])
        with world.doors() as opened:
            assert repeat(opened) == {name: [] for name in NAMES}
        with world.doors(pgbouncer="off") as opened:
            # Which of the two server sessions a statement meets is Odyssey's choice.
            rounds = (chain(*repeat(opened).values()) for _ in range(20))
            assert any(map(collided, rounds))
