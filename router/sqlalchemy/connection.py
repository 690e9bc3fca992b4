"""One node's pooled connection while a checkout holds it, and how to leave it as it was found."""

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy.pool import PoolProxiedConnection

from router.journal import Entry, Journal
from router.model import Node

if TYPE_CHECKING:
    from router.sqlalchemy.pool import RoutingPool

SETTINGS = "pg_router_settings"
"""Where a pooled connection's ``info`` keeps the values its settings had when it was new."""


class Characteristics(NamedTuple):
    """Transaction settings made through ``execution_options``; None is the engine's default."""

    isolation: str | None = None
    read_only: bool | None = None
    deferrable: bool | None = None


DEFAULTS = Characteristics()


class NodeConnection:
    """One node's pooled connection while a `RoutedConnection` holds it."""

    __slots__ = (
        "applied",
        "broken",
        "characteristics",
        "dbapi",
        "fairy",
        "in_transaction",
        "node",
        "pool",
    )

    def __init__(self, pool: "RoutingPool", node: Node, fairy: PoolProxiedConnection) -> None:
        self.pool: RoutingPool = pool
        self.node: Node = node
        self.fairy: PoolProxiedConnection = fairy
        self.dbapi: Any = fairy.dbapi_connection
        # A checkout listener may have left a transaction open: it is then the user's, as in
        # plain SQLAlchemy.
        self.in_transaction: bool = pool.driver.in_transaction(self.dbapi)
        self.broken: bool = False
        self.applied: list[Entry] = []
        self.characteristics: Characteristics = DEFAULTS

    def __repr__(self) -> str:
        return f"<NodeConnection {self.node.name}{' in transaction' * self.in_transaction}>"

    def lost(self, error: Any, cursor: Any = None) -> bool:
        """Whether the server, or the way to it, is gone; if so, the node is blacklisted."""
        pool = self.pool
        broken = pool.lost(error, self.dbapi, cursor)
        state = pool.driver.sqlstate(error)
        if not broken and not pool.router.lost(state):
            return False
        # These end a connection, even where the driver has yet to notice its closed socket.
        self.broken = self.broken or broken or state[:2] == "08" or state in ("57P01", "57P02")
        pool.router.failed(self.node, pool.reason(error))
        return True

    def autocommit(self, value: bool) -> None:
        """Switch autocommit, if it is not so already; no transaction may be open."""
        driver = self.pool.driver
        if driver.autocommit(self.dbapi) is not value:
            driver.set_autocommit(self.dbapi, value)

    def replay(self, entries: list[Entry]) -> None:
        """Run those of `entries` that this connection has not run yet."""
        for entry in entries[len(self.applied) :]:
            if not entry.local:
                self.note_settings(entry.settings)
            cursor = self.dbapi.cursor()
            if entry.parameters:
                cursor.execute(entry.sql, entry.parameters)
            else:
                cursor.execute(entry.sql)
            cursor.close()
            self.applied.append(entry)

    def note_settings(self, names: tuple[str, ...] | None) -> None:
        """Remember what the settings about to be changed are now, to put them back later.

        Asked once per connection and setting; what a connect listener set counts as theirs.
        """
        known: dict[str, str] = self.fairy.info.setdefault(SETTINGS, {})
        missing = [name for name in names or () if name not in known]
        if missing:
            asked = ", ".join(f"current_setting({_literal(n)}, true)" for n in missing)
            cursor = self.dbapi.cursor()
            cursor.execute(f"SELECT {asked}")
            known.update((n, v or "") for n, v in zip(missing, cursor.fetchone(), strict=True))
            cursor.close()

    def restore_settings(self) -> bool:
        """Put back every session setting changed here; False where that cannot be done."""
        names: set[str] = set()
        for entry in self.applied:
            if not entry.settings or "session_authorization" in entry.settings:
                return False
            names.update(entry.settings)
        known: dict[str, str] = self.fairy.info.get(SETTINGS, {})
        if not names <= known.keys():
            return False
        self.autocommit(True)
        cursor = self.dbapi.cursor()
        # The role first: what it may not change, the login role may.
        ordered = sorted(names, key=lambda name: (name != "role", name))
        for name in ordered:
            value = known[name] or ("none" if name == "role" else "")
            cursor.execute(f"SELECT set_config({_literal(name)}, {_literal(value)}, false)")
        cursor.close()
        return True

    def characterise(self, wanted: Characteristics) -> None:
        """Make `wanted` the settings of the transactions to come."""
        dialect: Any = self.pool.dialect
        now = self.characteristics
        if wanted.isolation != now.isolation:
            if wanted.isolation is None:
                dialect.reset_isolation_level(self.dbapi)
            else:
                dialect.set_isolation_level(self.dbapi, wanted.isolation)
        if wanted.read_only != now.read_only:
            # None, not False: a standby refuses BEGIN READ WRITE.
            dialect.set_readonly(self.dbapi, wanted.read_only)
        if wanted.deferrable != now.deferrable:
            dialect.set_deferrable(self.dbapi, wanted.deferrable)
        self.characteristics = wanted

    def release(self, journal: Journal) -> None:
        """Give it back to its pool as it was taken, or throw it away.

        Args:
            journal: what of the applied settings outlives the open transaction.
        """
        fairy: Any = self.fairy
        if self.broken:
            fairy._pool._invalidate(fairy)
            return
        try:
            if self.in_transaction:
                self.pool.driver.end(self.dbapi, "rollback")
                self.in_transaction = False
                self.applied = [e for e in self.applied if e in journal.committed()]
            if self.applied and not self.restore_settings():
                # Session settings reach no other user. Closing is the one undo that is always
                # right; a pool replaces the connection when it needs one.
                fairy.invalidate()
                return
            if self.characteristics != DEFAULTS:
                self.characterise(DEFAULTS)
        except self.pool.dbapi_errors:
            fairy._pool._invalidate(fairy)
            return
        except BaseException:
            # Cancelled or interrupted half-way: nobody knows what was put back.
            fairy.invalidate()
            raise
        if self.pool.left(fairy):
            fairy.invalidate()
            return
        fairy._close_special(transaction_reset=True)


def _literal(text: str) -> str:
    quoted = text.replace("'", "''")
    return f"'{quoted}'" if "\\" not in text else "E'" + quoted.replace("\\", "\\\\") + "'"
