"""Patches, while a simulation runs, what its world has in other ways: psycopg_pool's threads and
clock, the locks of the house, the monitor's way to connect, and sockets that are shut down.

psycopg_pool is the real one. It takes what it waits with from names in its own modules, so these
name the scheduler's for as long as the block lasts.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from types import SimpleNamespace
from typing import Any, Self
from unittest.mock import patch

import psycopg_pool.base
import psycopg_pool.pool
import psycopg_pool.pool_async
import psycopg_pool.sched
import psycopg_pool.sched_async

from router import registry
from router.cluster import catalog_reader, prober
from router.connect import hangup
from router.pins import carrier
from router.rules import context
from router.sql.queries import QUERIES
from tests.simulation.driver import Network, SimConnection, SimProbeConnection
from tests.simulation.scheduler import (
    Scheduler,
    SimCondition,
    SimEvent,
    SimLock,
    SimQueue,
    current,
)

CATALOG: dict[str, list[tuple[Any, ...]]] = {key: [] for key in QUERIES} | {
    "relations": [
        (1, "public", "item", "r", "p", 0, 0, None),
        (2, "public", "counter", "r", "p", 0, 0, None),
        (3, "public", "journal", "r", "p", 0, 0, None),
    ],
}
"""What reading the catalog of the simulated database gives."""


class _Sockets:
    """In the place of the module socket, for `router.connect.hangup`: by number, a line's end."""

    SHUT_RDWR = 2

    def __init__(self, network: Network) -> None:
        self._network = network

    def fromfd(self, number: int, *_: int) -> "_End":
        for lines in self._network.lines.values():
            if number in lines:
                return _End(lines[number])
        raise OSError(9, "Bad file descriptor")


class _End:
    def __init__(self, line: Any) -> None:
        self._line = line

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def shutdown(self, how: int) -> None:
        self._line.hang_up()

    def close(self) -> None:
        pass


@contextmanager
def patched(
    scheduler: Scheduler, network: Network, routers: Callable[[], list[Any]]
) -> Iterator[None]:
    """Run the block on `scheduler` and `network`; `routers` gives those of the process that the
    calling thread belongs to."""
    marks = count(1)

    def spawn(call: Any, args: tuple[Any, ...] = (), name: str | None = None) -> Any:
        return scheduler.spawn(lambda: call(*args), name or "worker")

    def gather(*workers: Any, timeout: float | None = None, timeout_hint: str = "") -> None:
        for worker in workers:
            if worker is not current():
                worker.join(timeout)

    async def ask(reader: Any, node: Any) -> tuple[str, dict[str, list[tuple[Any, ...]]]]:
        connection = await SimProbeConnection.connect(reader._loop, reader._connect_args(node))
        try:
            await connection.ask(b"SELECT 1")
        finally:
            connection.close()
        return "simulated", {} if reader._known[0] == "simulated" else CATALOG

    pool, sched, base = psycopg_pool.pool, psycopg_pool.sched, psycopg_pool.base
    names: list[tuple[Any, str, Any]] = [
        (pool, "monotonic", scheduler.clock),
        (pool, "sleep", scheduler.sleep),
        (pool, "spawn", spawn),
        (pool, "gather", gather),
        (pool, "Condition", lambda: SimCondition(scheduler)),
        (pool, "Event", lambda: SimEvent(scheduler)),
        (pool, "Lock", lambda: SimLock(scheduler)),
        (pool, "Queue", lambda: SimQueue(scheduler)),
        (sched, "monotonic", scheduler.clock),
        (sched, "Event", lambda: SimEvent(scheduler)),
        (sched, "Lock", lambda: SimLock(scheduler)),
        (base, "monotonic", scheduler.clock),
        (psycopg_pool.pool_async, "monotonic", scheduler.clock),
        (psycopg_pool.sched_async, "monotonic", scheduler.clock),
        (base, "random", scheduler.rand.random),
        (registry, "lock", lambda **_: SimLock(scheduler)),
        (context, "_writing", SimLock(scheduler)),
        (prober, "connect", SimProbeConnection.connect),
        (catalog_reader, "connect", SimProbeConnection.connect),
        (catalog_reader.CatalogReader, "_ask", ask),
        (hangup, "socket", _Sockets(network)),
        (hangup, "unread", lambda line: False),
        (SimConnection, "network", network),
        (carrier, "routers", routers),
        (carrier, "secrets", SimpleNamespace(token_hex=lambda n: f"{next(marks):0{2 * n}x}")),
    ]
    loggers = [logging.getLogger(name) for name in ("psycopg.pool", "psycopg", "router")]
    levels = [logger.level for logger in loggers]
    patches = [patch.object(where, name, new, create=True) for where, name, new in names]
    for each in patches:
        each.start()
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for each in reversed(patches):
            each.stop()
