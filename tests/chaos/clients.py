"""Clients that write, read what they wrote, and note all of it; on threads and on event loops."""

import asyncio
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

import router
from router.cluster.router import Router
from tests.chaos.ledger import Ledger, Request

SCHEMA = "CREATE TABLE entry (client text, n int, port int DEFAULT inet_server_port())"
WRITE = sa.text("INSERT INTO entry (client, n) VALUES (:client, :n)")
OWN = sa.text("SELECT max(n), inet_server_port() FROM entry WHERE client = :client")
OTHERS = sa.text("SELECT count(*), inet_server_port() FROM entry WHERE client = :client")

WRITES = 0.3
"""Part of the requests that write."""


def one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


class Clients:
    """Some clients on one engine, until they are told to stop."""

    def __init__(self, door: str, urls: list[str], ledger: Ledger, seed: int, count: int) -> None:
        """Prepare.

        Args:
            door: the driver, with "_async" behind it for an asynchronous engine.
            urls: the primary's and the replicas', without a driver.
            ledger: where everything is noted.
            seed: of all chance.
            count: how many clients.
        """
        self.door, self.ledger, self.seed, self.count = door, ledger, seed, count
        driver = door.removesuffix("_async")
        self.asynchronous = door != driver
        make: Callable[..., Any] = (
            router.create_async_engine if self.asynchronous else router.create_engine
        )
        self.engine: Any = make(
            urls[0].replace("postgresql://", f"postgresql+{driver}://"),
            urls[1:],
            pool_size=count,
            max_overflow=count,
            probe_interval=0.2,
            probe_timeout=0.5,
            connect_timeout=2,
            blacklist_duration=0.5,
            blacklist_max=2,
        )
        self._stop = threading.Event()
        work = self._loop if self.asynchronous else self._thread
        names = [0] if self.asynchronous else range(count)
        self._threads = [threading.Thread(target=work, args=(n,), name=door) for n in names]

    @property
    def router(self) -> Router:
        """The engine's."""
        found: Router = self.engine.router
        return found

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End, when every request under way has ended."""
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), f"a client of {self.door} hangs"

    def checked_out(self) -> int:
        """Connections in use; none should be after `stop`."""
        pool = self.engine.sync_engine.pool if self.asynchronous else self.engine.pool
        return int(pool.checkedout())

    # -- one request -----------------------------------------------------------------------

    def _thread(self, number: int) -> None:
        rng = random.Random(f"{self.seed} {self.door} {number}")
        client, n = f"{self.door} {number}", 0
        while not self._stop.is_set():
            n += 1
            note = Note(self, client, n)
            with router.request_context():
                try:
                    if rng.random() < WRITES:
                        note.writes()
                        with Session(self.engine) as session:
                            session.execute(WRITE, {"client": client, "n": n})
                            note.commits()
                            session.commit()
                            note.committed()
                    with Session(self.engine) as session:
                        own = note.wrote is not None
                        row = session.execute(OWN if own else OTHERS, {"client": client}).one()
                        note.read(*row)
                except Exception as error:
                    note.failed(error)
            note.done()
            time.sleep(rng.random() * 0.01)

    def _loop(self, _: int) -> None:
        async def all_clients() -> None:
            async with asyncio.TaskGroup() as group:
                for number in range(self.count):
                    group.create_task(self._task(number))
            with suppress(Exception):
                await self.engine.dispose()

        asyncio.run(all_clients())

    async def _task(self, number: int) -> None:
        rng = random.Random(f"{self.seed} {self.door} {number}")
        client, n = f"{self.door} {number}", 0
        while not self._stop.is_set():
            n += 1
            note = Note(self, client, n)
            async with router.request_context():
                try:
                    if rng.random() < WRITES:
                        note.writes()
                        async with AsyncSession(self.engine) as session:
                            await session.execute(WRITE, {"client": client, "n": n})
                            note.commits()
                            await session.commit()
                            note.committed()
                    async with AsyncSession(self.engine) as session:
                        own = note.wrote is not None
                        found = await session.execute(OWN if own else OTHERS, {"client": client})
                        note.read(*found.one())
                except Exception as error:
                    note.failed(error)
            note.done()
            await asyncio.sleep(rng.random() * 0.01)


class Note:
    """One request while it runs."""

    def __init__(self, clients: Clients, client: str, n: int) -> None:
        self.clients, self.client, self.n = clients, client, n
        self.began = time.monotonic()
        self.wrote: tuple[str, int] | None = None
        self.committing = self.acknowledged = self.stale = False
        self.port = 0
        self.error = ""

    def writes(self) -> None:
        self.wrote = (self.client, self.n)

    def commits(self) -> None:
        self.committing = True

    def committed(self) -> None:
        self.committing, self.acknowledged = False, True

    def read(self, found: int | None, port: int) -> None:
        self.port = port
        self.stale = self.wrote is not None and found != self.n

    def failed(self, error: Exception) -> None:
        self.error = one_line(error)

    def done(self) -> None:
        self.clients.ledger.add(
            Request(
                self.clients.door,
                self.began,
                time.monotonic(),
                self.wrote,
                self.acknowledged,
                self.committing,
                self.port,
                self.stale,
                self.error,
            )
        )
