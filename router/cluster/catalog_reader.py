"""Reads the catalog for a Router: which functions, views and types the database has."""

import asyncio
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

from router.cluster.prober import ConnectArgs, connect
from router.cluster.router import Router
from router.messages import one_line
from router.model import Node
from router.sql.catalog import Catalog

if TYPE_CHECKING:
    from router.connect.probe_connection import ProbeConnection

CATALOG_INTERVAL = 60.0
"""Seconds between two readings of the catalog, for DDL run by other processes."""

CATALOG_PATIENCE = 10.0
"""Seconds one reading of the catalog may take."""

CATALOG_RETRY = 5.0
"""Seconds until the next reading after one that failed."""

CATALOG_LOCK_WAIT = 100
"""Milliseconds one reading waits for a migration's lock: it must not queue in front of others."""

GIVE_UP_PATIENCE = 1.0
"""Seconds a query that was given up may take to end. It needs none, but nothing may hang here."""

LOCKED = "55P03"
"""SQLSTATE lock_not_available: `CATALOG_LOCK_WAIT` ran out."""


class CatalogReader:
    """Reads the catalog when it is time, one reading at a time, on the monitor's event loop.

    Each reading has a connection of its own: views are locked while they are read, and neither a
    migration that holds such a lock nor a server that hangs may hold up a probe.
    """

    def __init__(self, router: Router, connect_args: ConnectArgs) -> None:
        self.router: Router = router
        self._connect_args = connect_args
        self._due = float("-inf")
        self._failed = False  # and the event was sent
        self._reading: ProbeConnection | None = None

    def due_now(self) -> None:
        """Let the next `begin` read, however recent the last reading is. Any thread."""
        self._due = float("-inf")

    def begin(self, reached: AbstractSet[Node]) -> "asyncio.Task[None] | None":
        """Start a reading from the primary, or else a replica, if it is among `reached` by probes.
        It must have ended before the next call. None when it is not time, or no node is
        reached."""
        now, snapshot = self.router.clock(), self.router.snapshot
        if now < self._due:
            return None
        nodes = (snapshot.primary, *snapshot.replicas)
        node = next((n for n in nodes if n is not None and n in reached), None)
        if node is None:
            return None
        self._due = now + CATALOG_INTERVAL
        return self.router.runtime.tasks.spawn(self._learn(node))

    async def _learn(self, node: Node) -> None:
        generation = self.router.catalog.generation
        asking = self.router.runtime.tasks.spawn(self._rows(node))
        try:
            if not await self.router.runtime.tasks.ends(asking, within=CATALOG_PATIENCE):
                raise TimeoutError(f"no answer within {CATALOG_PATIENCE:g} s")
            rows = asking.result()
        except Exception as error:  # noqa: BLE001 - said once; routing goes on without it
            self._due = self.router.clock() + CATALOG_RETRY
            locked = getattr(error, "sqlstate", None) == LOCKED
            if not locked and not self._failed:
                self._failed = True
                self.router.telemetry.event(
                    "catalog_unreadable",
                    level="warning",
                    node=node.name,
                    reason=one_line(error),
                    advice="statements over tables and functions run on the primary until the "
                    "role may read pg_catalog",
                )
            return
        finally:
            await self._give_up(asking, self._reading)
            self._reading = None
        self._failed = False
        if not self.router.catalog.learn(Catalog.from_rows(rows), generation):
            self.due_now()

    async def _rows(self, node: Node) -> dict[str, list[tuple[Any, ...]]]:
        async with await connect(self._connect_args(node)) as connection:
            self._reading = connection
            rows, limit = {}, f"SET LOCAL lock_timeout = {CATALOG_LOCK_WAIT}".encode()
            for part, sql in Catalog.QUERIES.items():
                # Local to a transaction: behind a PgBouncer all clients share a session.
                async with connection.transaction():
                    await connection.execute(limit)
                    cursor = await connection.execute(sql.encode())
                    rows[part] = await cursor.fetchall()
            return rows

    async def _give_up(
        self, task: "asyncio.Task[Any]", connection: "ProbeConnection | None"
    ) -> None:
        """End a task that waits for a server; over a `connection` by hanging up, for psycopg logs
        a cancellation as an interruption."""
        tasks = self.router.runtime.tasks
        if connection is not None and not task.done():
            connection.hang_up()
            await tasks.ends(task, within=GIVE_UP_PATIENCE)
        if not task.done():
            task.cancel()
            await tasks.ends(task, within=GIVE_UP_PATIENCE)
        if task.done() and not task.cancelled():
            task.exception()  # else asyncio logs that nobody retrieved it
