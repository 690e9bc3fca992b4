"""Reads the catalog for a Router: which functions, views and types the database has."""

from collections.abc import Set as AbstractSet
from typing import Any

from router.cluster.prober import ConnectArgs, connect
from router.cluster.router import Router
from router.messages import one_line
from router.model import Node
from router.polling import Loop, Task
from router.sql.catalog import Catalog
from router.sql.closure import Bodies

CATALOG_INTERVAL = 60.0
"""Seconds between two readings of the catalog, for DDL run by other processes."""

CATALOG_PATIENCE = 10.0
"""Seconds one reading of the catalog may take."""

CATALOG_RETRY = 5.0
"""Seconds until the next reading after one that failed."""

CATALOG_LOCK_WAIT = 100
"""Milliseconds one reading waits for a migration's lock: it must not queue in front of others."""

LOCKED = "55P03"
"""SQLSTATE lock_not_available: `CATALOG_LOCK_WAIT` ran out."""


class CatalogReader:
    """Reads the catalog when it is time, one reading at a time, on the monitor's event loop.

    Each reading has a connection of its own: neither a migration that holds a lock on the
    server's catalog nor a server that hangs may hold up a probe.
    """

    def __init__(self, router: Router, loop: Loop, connect_args: ConnectArgs) -> None:
        self.router: Router = router
        self._loop = loop
        self._connect_args = connect_args
        self._due = float("-inf")
        self._failed = False  # and the event was sent
        self._bodies: Bodies = {}

    def due_now(self) -> None:
        """Let the next `begin` read, however recent the last reading is. Any thread."""
        self._due = float("-inf")

    def begin(self, reached: AbstractSet[Node]) -> Task[None] | None:
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
        return self._loop.spawn(self._learn(node))

    async def _learn(self, node: Node) -> None:
        loop, generation = self._loop, self.router.catalog.generation
        asking = loop.spawn(self._rows(node))
        try:
            if not await loop.ends(asking, within=CATALOG_PATIENCE):
                raise TimeoutError(f"no answer within {CATALOG_PATIENCE:g} s")
            rows = asking.result()
            # A database with many functions keeps it busy for seconds, at first.
            catalog = await loop.beside(lambda: self._closed(rows), "pg-router catalog")
        except Exception as error:  # noqa: BLE001 - said once; routing goes on without it
            self._due = self.router.clock() + CATALOG_RETRY
            told = error
            await loop.outside(lambda: self._unreadable(node, told))
            return
        finally:
            asking.cancel()
        self._failed = False
        if not await loop.outside(lambda: self.router.catalog.learn(catalog, generation)):
            self.due_now()

    def _closed(self, rows: dict[str, list[tuple[Any, ...]]]) -> Catalog:
        """The catalog of `rows`, under the user's own rules; bodies seen before cost nothing."""
        config = self.router.config
        catalog = Catalog.from_rows(
            rows, read=config.read_functions, write=config.write_functions, bodies=self._bodies
        )
        self._bodies = catalog.bodies
        return catalog

    def _unreadable(self, node: Node, error: Exception) -> None:
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

    async def _rows(self, node: Node) -> dict[str, list[tuple[Any, ...]]]:
        arguments = await self._loop.outside(lambda: self._connect_args(node))
        connection = await connect(self._loop, arguments)
        try:
            # One message is one transaction, to which these are local: behind a PgBouncer all
            # clients share a session. A user's own operators must not hide the server's.
            limit = (
                f"SET LOCAL lock_timeout = {CATALOG_LOCK_WAIT};SET LOCAL search_path = pg_catalog;"
            ).encode()
            queries = Catalog.QUERIES.items()
            return {part: await connection.query(limit + sql.encode()) for part, sql in queries}
        finally:
            connection.close()
