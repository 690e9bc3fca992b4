"""Many clients over lagging, pausing and dying replicas; then the whole history is judged.

    python -m tests.consistency.run --operations 100000 --seed 1

Exits with 1 if anybody missed an own write or went back in time. `nox -s consistency` runs it.
"""

import argparse
import asyncio
import contextvars
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlalchemy.util import await_only, greenlet_spawn

import router
from router.rules.context import ROOT
from router.testing import Cluster
from tests.consistency.history import Operation, violations

DOORS = ("psycopg", "asyncpg_async")
MODES = ("request", "root")

WRITE = sa.text(
    "INSERT INTO item VALUES (:key, :version) "
    "ON CONFLICT (key) DO UPDATE SET version = excluded.version"
)
READ = sa.text("SELECT version, inet_server_port() FROM item WHERE key = :key")
NOWHERE = sa.text("SELECT 0, inet_server_port()")


class Run:
    """Clients at one door, in one mode, until enough was done."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        operations: int,
        seed: int,
        door: str = "psycopg",
        mode: str = "request",
        clients: int = 12,
        **options: Any,
    ) -> None:
        """Prepare.

        Args:
            cluster: with two replicas, to be harmed.
            operations: how many to do.
            seed: of all chance.
            door: the driver, with "_async" behind it for an asynchronous engine.
            mode: "request" gives each request, of several clients at once, a context of its own;
                "root" gives none.
            clients: how many at a time.
            **options: of the engine.
        """
        self.cluster, self.operations, self.clients = cluster, operations, clients
        self.seed, self.door, self.mode = seed, door, mode
        self.history: list[Operation] = []
        self.failures: Counter[str] = Counter()
        self._keys, self._contexts = count(1), count(1)
        self._versions: Counter[int] = Counter()
        self._shared: list[int] = []
        self._done = threading.Event()
        driver = door.removesuffix("_async")
        self._asynchronous = driver != door
        options = {"probe_interval": 0.1, "blacklist_duration": 0.2, "pool_size": 20, **options}
        make: Callable[..., Any] = (
            router.create_async_engine if self._asynchronous else router.create_engine
        )
        urls = [r.url() for r in cluster.replicas]
        self.engine: Any = make(cluster.primary.url(driver=driver), urls, **options)
        self.sync: Any = self.engine.sync_engine if self._asynchronous else self.engine

    def play(self) -> list[str]:
        """Do it all, and return what breaks a promise."""
        ROOT.pins.clear()
        harm = threading.Thread(target=self._harm, name="harm")
        harm.start()
        try:
            if self._asynchronous:
                asyncio.run(self._tasks())
            else:
                workers = [
                    threading.Thread(target=self._client, args=(n,)) for n in range(self.clients)
                ]
                for worker in workers:
                    worker.start()
                for worker in workers:
                    worker.join()
        finally:
            self._done.set()
            harm.join()
            self.cluster.heal()
            if not self._asynchronous:
                self.engine.dispose()
            ROOT.pins.clear()
        return [*violations(self.history), *self._lost()]

    def served(self) -> Counter[str]:
        """Reads by the role of the server that answered."""
        primary = self.cluster.primary.port
        return Counter(
            "primary" if o.port == primary else "replica" for o in self.history if o.kind == "read"
        )

    # -- clients ---------------------------------------------------------------------------

    async def _tasks(self) -> None:
        async with asyncio.TaskGroup() as group:
            for n in range(self.clients):
                group.create_task(self._task(n))
        await self.engine.dispose()

    async def _task(self, number: int) -> None:
        rng = random.Random(f"{self.seed} {number}")
        while len(self.history) < self.operations:
            with self._context() as context:
                keys = [next(self._keys) for _ in range(2)]
                # Two tasks of one request, each the writer of one key, readers of both.
                async with asyncio.TaskGroup() as group:
                    for own in keys:
                        seed = rng.random()
                        group.create_task(
                            greenlet_spawn(self._request, context, own, keys, random.Random(seed))
                        )

    def _client(self, number: int) -> None:
        rng = random.Random(f"{self.seed} {number}")
        while len(self.history) < self.operations:
            with self._context() as context:
                keys = [next(self._keys) for _ in range(2)]
                second = threading.Thread(
                    target=contextvars.copy_context().run,
                    args=(self._request, context, keys[1], keys, random.Random(rng.random())),
                )
                second.start()
                self._request(context, keys[0], keys, random.Random(rng.random()))
                second.join()

    @contextmanager
    def _context(self) -> Iterator[int]:
        if self.mode == "root":
            yield 0
            return
        with router.request_context():
            yield next(self._contexts)

    def _request(self, context: int, own: int, keys: list[int], rng: random.Random) -> None:
        """Ten operations of one thread or task."""
        for _ in range(10):
            if rng.random() < 0.3:
                self._pause(rng.random() * 0.05)  # time for a pin to end
            try:
                if rng.random() < 0.15:
                    self._write(context, own, rng)
                else:
                    shared = self.mode == "root" and self._shared and rng.random() < 0.3
                    self._read(context, rng.choice(self._shared if shared else keys))
            except sa.exc.SQLAlchemyError as error:
                self.failures[f"{type(error).__name__} {str(error)[:80]}"] += 1
        self._shared = [*self._shared[-20:], own]

    def _pause(self, seconds: float) -> None:
        if self._asynchronous:
            await_only(asyncio.sleep(seconds))
        else:
            time.sleep(seconds)

    def _write(self, context: int, key: int, rng: random.Random) -> None:
        self._versions[key] += 1
        version = self._versions[key]
        values = {"key": key, "version": version}
        began = time.monotonic()
        how = rng.randrange(3)
        if how == 0:
            with self.sync.begin() as connection:
                connection.execute(WRITE, values)
        elif how == 1:
            with Session(self.sync) as session:
                session.execute(READ, {"key": key}).all()
                session.execute(WRITE, values)
                session.commit()
        else:
            level = {"isolation_level": "AUTOCOMMIT"}
            with self.sync.connect().execution_options(**level) as connection:
                connection.execute(WRITE, values)
        self._note(Operation(context, "write", key, version, began, time.monotonic()))

    def _read(self, context: int, key: int) -> None:
        began = time.monotonic()
        with Session(self.sync) as session:
            row = session.execute(READ, {"key": key}).first()
            # Nothing there does not tell who said so; the same connection does.
            version, port = row or session.execute(NOWHERE).one()
        self._note(Operation(context, "read", key, version, began, time.monotonic(), port))

    def _note(self, operation: Operation) -> None:
        self.history.append(operation)  # one C call: threads need no lock

    def _lost(self) -> Iterator[str]:
        stored = dict(self.cluster.primary.execute("SELECT key, version FROM item"))
        written: Counter[int] = Counter()
        for o in self.history:
            if o.kind == "write":
                written[o.key] = max(written[o.key], o.version)
        for key, version in written.items():
            if stored.get(key, 0) < version:
                yield f"write {version} of key {key} was acknowledged and is lost"

    # -- harm ------------------------------------------------------------------------------

    def _harm(self) -> None:
        """Pauses of up to 2 s, lag, kills and restarts of the replicas, one after another."""
        rng = random.Random(f"{self.seed} harm")
        while not self._done.wait(rng.uniform(0, 0.3)):
            replicas = list(self.cluster.replicas)
            chosen = rng.sample(replicas, rng.randint(1, len(replicas)))
            length = rng.choice([0.02, 0.1, 0.3, 1.0, 2.0]) * rng.random()
            if rng.random() < 0.25:
                for replica in chosen:
                    replica.kill()
                self._done.wait(length)
                for replica in chosen:
                    replica.start()
            else:
                for replica in chosen:
                    replica.pause_replay()
                self._done.wait(length)
                for replica in chosen:
                    replica.resume_replay()


@contextmanager
def world() -> Iterator[Cluster]:
    """A cluster with two replicas and the table."""
    with Cluster(2) as cluster:
        cluster.primary.execute("CREATE TABLE item (key int PRIMARY KEY, version int NOT NULL)")
        cluster.wait_caught_up()
        yield cluster


def main(arguments: list[str] | None = None) -> int:
    """The long run: every door in every mode."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--operations", type=int, default=100_000, help="in all (100000)")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10_000, help="of all chance")
    options = parser.parse_args(arguments)
    runs = [(door, mode) for door in DOORS for mode in MODES]
    found: list[str] = []
    total = 0
    print(f"seed {options.seed}", flush=True)
    for door, mode in runs:
        with world() as cluster:
            each = options.operations // len(runs) + 1
            run = Run(cluster, operations=each, seed=options.seed, door=door, mode=mode)
            began = time.monotonic()
            broken = run.play()
            served = run.served()
        share = served["replica"] / max(1, served.total())
        print(
            f"{door:<14} {mode:<8} {len(run.history):7,} operations in "
            f"{time.monotonic() - began:4.0f} s, {share:4.0%} of reads on replicas, "
            f"{sum(run.failures.values())} failed, {len(broken)} violations",
            flush=True,
        )
        for failure, times in run.failures.most_common(3):
            print(f"    {times} × {failure}")
        for line in broken[:10]:
            print("    VIOLATION", line)
        found += broken
        total += len(run.history)
    print(f"{total:,} operations, {len(found)} violations")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
