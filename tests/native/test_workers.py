"""Workers of job queues, unchanged, on the drivers' own pools."""

import asyncio
import functools
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import procrastinate
import pytest
from pgqueuer import PgQueuer
from pgqueuer.models import Job

import router.asyncpg
import router.psycopg
from router import request_context
from router.testing import Cluster, Server
from tests.conftest import MakeCluster

JOBS = 1000
IDLE = 20.0
"""Seconds between two looks for work where no notification comes; none is waited for."""


class Ran:
    """What the jobs saw: how often each ran, and where it read before and after the kill."""

    def __init__(self, cluster: Cluster) -> None:
        self.victim: Server = cluster.replicas[0]
        self.times: Counter[int] = Counter()
        self.before: Counter[int] = Counter()
        self.after: Counter[int] = Counter()
        self.killing: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    def note(self, job: int, port: int) -> None:
        """A job read from `port`, and ran; halfway a replica dies."""
        self.times[job] += 1
        (self.before if self.killing is None else self.after)[port] += 1
        if len(self.times) == JOBS // 2:
            self.killing = asyncio.create_task(asyncio.to_thread(self.victim.kill))
        self._changed.set()

    async def wait_for(self, jobs: int) -> None:
        """Until so many have run."""
        async with asyncio.timeout(60):
            while len(self.times) < jobs:
                self._changed.clear()
                await self._changed.wait()

    def check(self, cluster: Cluster) -> None:
        """Each job ran once, and read from replicas, the dead one left out at the end."""
        assert self.times == dict.fromkeys(range(JOBS), 1)
        replicas = {server.port for server in cluster.replicas}
        assert set(self.before) == replicas
        assert set(self.after) <= replicas
        assert self.after[cluster.replicas[1].port] > JOBS // 4


@asynccontextmanager
async def running(worker: Awaitable[Any], stop: Callable[[], object]) -> AsyncIterator[None]:
    """A worker at work, stopped with the block."""
    task = asyncio.ensure_future(worker)
    try:
        yield
    finally:
        stop()
        async with asyncio.timeout(20):
            await task


async def fed(ran: Ran, give: Callable[[range], Awaitable[object]]) -> None:
    """Give nine tenths of the jobs; the last tenth once the worker is idle: it is notified."""
    first = JOBS * 9 // 10
    await give(range(first))
    await ran.wait_for(first)
    began = time.monotonic()
    await give(range(first, JOBS))
    await ran.wait_for(JOBS)
    assert time.monotonic() - began < IDLE / 2


@pytest.mark.slow
def test_pgqueuer(make_cluster: MakeCluster) -> None:
    """PgQueuer on our asyncpg pool runs a thousand jobs once each while a replica is killed."""
    cluster = make_cluster()
    urls = [server.url() for server in cluster.servers]

    async def run() -> None:
        ran = Ran(cluster)
        async with router.asyncpg.create_pool(urls[0], replicas=urls[1:], min_size=1) as pool:
            queuer = PgQueuer.from_asyncpg_pool(pool)

            @queuer.entrypoint("work")
            async def work(job: Job) -> None:
                with request_context():
                    port = await pool.fetchval("SELECT inet_server_port()")
                    assert job.payload is not None
                    ran.note(int(job.payload), port)

            async def give(jobs: range) -> None:
                payload: list[bytes | None] = [str(n).encode() for n in jobs]
                await queuer.qm.queries.enqueue(["work"] * len(jobs), payload, [0] * len(jobs))

            assert queuer.queries is not None
            await queuer.queries.install()
            async with running(queuer.run(), queuer.shutdown.set):
                await fed(ran, give)
            assert pool.checkedout() == 0
        ran.check(cluster)

    asyncio.run(run())
    statuses = "SELECT status::text, count(*) FROM pgqueuer_log GROUP BY 1"
    told = dict(cluster.primary.execute(statuses))
    assert told["successful"] == JOBS
    assert "exception" not in told
    assert cluster.primary.execute("SELECT count(*) FROM pgqueuer") == [(0,)]


@pytest.mark.slow
def test_procrastinate(make_cluster: MakeCluster) -> None:
    """Procrastinate on our psycopg pool runs a thousand jobs once each while a replica is
    killed."""
    cluster = make_cluster()
    urls = [server.url() for server in cluster.servers]

    async def run() -> None:
        ran = Ran(cluster)
        pool_factory: Any = functools.partial(
            router.psycopg.AsyncConnectionPool, replicas=urls[1:], min_size=1, max_size=10
        )
        connector = procrastinate.PsycopgConnector(pool_factory=pool_factory, conninfo=urls[0])
        app = procrastinate.App(connector=connector)

        @app.task(name="work")
        async def work(n: int) -> None:
            with request_context():
                async with connector.pool.connection() as connection:
                    cursor = await connection.execute("SELECT inet_server_port()")
                    row = await cursor.fetchone()
            assert row is not None
            ran.note(n, row[0])

        async def give(jobs: range) -> None:
            arguments: list[Any] = [{"n": n} for n in jobs]
            await work.batch_defer_async(*arguments)

        async with app.open_async():
            await app.schema_manager.apply_schema_async()
            worker = app.run_worker_async(
                concurrency=10, fetch_job_polling_interval=IDLE, install_signal_handlers=False
            )
            task = asyncio.ensure_future(worker)
            await fed(ran, give)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert connector.pool.checkedout() == 0  # type: ignore[attr-defined]
        ran.check(cluster)

    asyncio.run(run())
    statuses = "SELECT status::text, attempts, count(*) FROM procrastinate_jobs GROUP BY 1, 2"
    assert cluster.primary.execute(statuses) == [("succeeded", 1, JOBS)]
