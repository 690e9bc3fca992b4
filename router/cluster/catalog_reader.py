"""Reads the catalog for a Router: which functions, views and types the database has."""

from collections.abc import Set as AbstractSet
from hashlib import blake2b
from math import inf
from typing import TYPE_CHECKING, Any

from router.cluster.prober import ConnectArgs, Prober, connect
from router.cluster.router import Router
from router.cluster.stamp import StampPace
from router.messages import one_line
from router.model import Node, Report
from router.polling import Loop, Task
from router.sql.catalog import BUILTIN, Catalog
from router.sql.closure import Rows
from router.sql.queries import FINGERPRINT, QUERIES, STAMP, STAMP_PATIENCE

if TYPE_CHECKING:
    from router.connect.probe_connection import ProbeConnection

CATALOG_INTERVAL = 60.0
"""Seconds between two looks at the whole catalog, where no stamp can be had."""

CATALOG_PATIENCE = 10.0
"""Seconds one reading of the catalog may take."""

CATALOG_RETRY = 5.0
"""Seconds until the next reading after one that failed."""

CATALOG_LOCK_WAIT = 100
"""Milliseconds one reading waits for a migration's lock: it must not queue in front of others."""

CATALOG_ATTEMPTS = 3
"""Times a catalog that changes while it is read is read anew, at once."""

REST = 3
"""Times as long as a reading took until the next one because of DDL of others."""

CANCELLED = "57014"
"""SQLSTATE query_canceled: `STAMP_PATIENCE` ran out."""

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
        self._due = -inf
        self._failed = False  # and the event was sent
        self._digest = -1  # of the rows of the last reading
        self._pace = StampPace()
        self._took = 0.0  # the last reading, in seconds
        self._changed = False  # as a stamp has shown
        self._read_until = -inf
        # The last reading's fingerprint and outcome.
        self._known: tuple[str, Catalog] = ("", BUILTIN)

    def due_now(self) -> None:
        """Let the next `begin` read, however recent the last reading is. Any thread."""
        self._due = -inf

    def doubt(self) -> None:
        """Ask for the catalog's stamp soon: DDL may have been run unseen. Any thread."""
        self._pace.doubt()

    @property
    def rest(self) -> float:
        """Seconds until it has something to read that is known to be another; infinite for
        nothing."""
        return max(0.0, self._due - self.router.clock()) if self._changed else inf

    async def stamp(self, prober: Prober, report: Report) -> None:
        """Ask the primary, which `prober` has just reached, with this `report`, for the stamp of
        its catalog when it is time; where that changed, read the catalog soon."""
        import psycopg

        pace, now = self._pace, self.router.clock()
        if not self._known[0] or not pace.due(report.lsn, now):
            return
        pace.asking(report.lsn, now)
        try:
            row = await prober.ask_beside(STAMP, 2 * STAMP_PATIENCE)
        except (psycopg.Error, TimeoutError) as error:
            state = getattr(error, "sqlstate", None)
            pace.failed(slow=isinstance(error, TimeoutError) or state == CANCELLED)
            return
        if row is None:
            pace.failed(slow=False)
            return
        found, processes = row
        pace.answered(self.router.clock() - now, processes)
        if found != self._known[0]:
            self._due = min(self._due, self._read_until + self._took * REST)
            self._changed = True

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
        self._changed = False
        return self._loop.spawn(self._learn(node))

    async def _learn(self, node: Node) -> None:
        loop, generation = self._loop, self.router.catalog.generation
        began = self.router.clock()
        asking = loop.spawn(self._ask(node))
        try:
            if not await loop.ends(asking, within=CATALOG_PATIENCE):
                raise TimeoutError(f"no answer within {CATALOG_PATIENCE:g} s")
            fingerprint, rows = asking.result()
            if rows:
                # A database with many functions keeps it busy for seconds, at first.
                catalog = await loop.beside(lambda: self._closed(rows), "pg-router catalog")
                self._known = fingerprint, catalog
                self._read_until = self.router.clock()
                self._took = self._read_until - began
        except Exception as error:  # noqa: BLE001 - said once; routing goes on without it
            self._due = self.router.clock() + CATALOG_RETRY
            told = error
            await loop.outside(lambda: self._unreadable(node, told))
            return
        finally:
            asking.cancel()
        self._failed = False
        catalog = self._known[1]
        if not await loop.outside(lambda: self.router.catalog.learn(catalog, generation)):
            self.due_now()

    def _closed(self, rows: Rows) -> Catalog:
        """The catalog of `rows`, under the user's own rules; bodies seen before cost nothing."""
        config, known, digest = self.router.config, self._known[1], _digest(rows)
        if digest == self._digest:
            return known  # and what was classified stays known
        self._digest = digest
        return Catalog.from_rows(
            rows,
            read=config.read_functions,
            write=config.write_functions,
            bodies=known.bodies,
        )

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

    async def _ask(self, node: Node) -> tuple[str, Rows]:
        """The catalog's fingerprint, with the rows where that is not the one of the last reading.

        Raises:
            RuntimeError: the catalog changed again and again meanwhile.
        """
        arguments = await self._loop.outside(lambda: self._connect_args(node))
        connection = await connect(self._loop, arguments)
        try:
            before = await self._query(connection, FINGERPRINT)
            if before[0][0] == self._known[0]:
                return before[0][0], {}
            for _ in range(CATALOG_ATTEMPTS):
                rows = {part: await self._query(connection, q) for part, q in QUERIES.items()}
                after = await self._query(connection, FINGERPRINT)
                if after == before:  # else parts of it may not belong together
                    return after[0][0], rows
                before = after
            raise RuntimeError(f"it changed during each of {CATALOG_ATTEMPTS} readings")
        finally:
            connection.close()

    async def _query(self, connection: "ProbeConnection", sql: str) -> list[tuple[Any, ...]]:
        # One message is one transaction, to which these are local: behind a PgBouncer all clients
        # share a session. A user's own operators must not hide the server's.
        local = f"SET LOCAL lock_timeout = {CATALOG_LOCK_WAIT};SET LOCAL search_path = pg_catalog;"
        return await connection.query((local + sql).encode())


def _digest(rows: Rows) -> int:
    """The same for the same `rows`, in whatever order each table has them, and for no others."""
    found = 0
    for part, table in rows.items():
        for row in table:
            said = f"{part} {row!r}".encode(errors="surrogatepass")
            found += int.from_bytes(blake2b(said, digest_size=16).digest())
    return found
