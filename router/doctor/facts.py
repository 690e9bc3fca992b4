"""What `router.doctor` learns of each server, as plain values, and the questions it asks.

Functions are named with their schema: a search path may hold others of the same name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from router.config.budget import Room

FACTS_SQL = """
    SELECT pg_catalog.pg_backend_pid(), pg_catalog.pg_is_in_recovery(),
           extract(epoch FROM pg_catalog.clock_timestamp())::float8,
           pg_catalog.pg_postmaster_start_time()::text, pg_catalog.current_database()::text
"""
"""One row: process, in recovery, the server's clock (Unix time), when it started, database."""

SETTINGS_SQL = """
    SELECT name, setting FROM pg_catalog.pg_settings WHERE name IN (
        'server_version_num', 'server_version', 'port', 'max_connections',
        'superuser_reserved_connections', 'reserved_connections', 'default_transaction_read_only',
        'hot_standby_feedback', 'max_standby_streaming_delay', 'synchronous_commit',
        'synchronous_standby_names',
        'TimeZone', 'DateStyle', 'IntervalStyle', 'search_path', 'bytea_output',
        'extra_float_digits', 'default_text_search_config', 'lc_monetary')
"""
"""Settings as they are for the asking user, in the server's base units.

Source: https://www.postgresql.org/docs/current/view-pg-settings.html
"""

RESULT_SETTINGS = (
    "TimeZone", "DateStyle", "IntervalStyle", "search_path", "bytea_output",
    "extra_float_digits", "default_text_search_config", "lc_monetary",
)  # fmt: skip
"""Settings that change the answer to one and the same query."""

SYSTEM_SQL = "SELECT system_identifier::text FROM pg_catalog.pg_control_system()"

STANDBY_SQL = """
    SELECT pg_catalog.pg_is_wal_replay_paused(),
           (SELECT pid FROM pg_catalog.pg_stat_wal_receiver) IS NOT NULL,
           (SELECT confl_tablespace + confl_lock + confl_snapshot + confl_bufferpin
                   + confl_deadlock
              FROM pg_catalog.pg_stat_database_conflicts
             WHERE datname = pg_catalog.current_database())
"""
"""One row of a standby: replay paused, streaming, reads cancelled by replay in this database.

Source: https://www.postgresql.org/docs/current/monitoring-stats.html
"""


@dataclass(frozen=True, slots=True)
class Console:
    """What a PgBouncer's console, its database ``pgbouncer``, says.

    Attributes:
        version: such as (1, 18, 0).
        settings: its ``SHOW CONFIG``, by name.
        pools: its ``SHOW POOLS``, each row by column.
        databases: its ``SHOW DATABASES``, by name, each row by column.
    """

    version: tuple[int, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    pools: tuple[Mapping[str, str], ...] = ()
    databases: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pooler:
    """A program in front of a server that pools its connections.

    Attributes:
        mode: how it does, as its console says, else found by trying: "transaction", "statement",
            or "session", which is also what a busy pool by transaction may look like.
        console: what it says of itself, None where it does not.
    """

    mode: str
    console: Console | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One server, as it answered, or why it did not.

    Attributes:
        node: the node's name.
        address: ``host:port``.
        problem: why it could not be asked, empty where it could.
        denied: whether `problem` is that the login failed.
        standby: whether it is in recovery.
        settings: `SETTINGS_SQL`, by name.
        database: the database it answered for.
        started: when it was started, as its clock said.
        system_id: the cluster's, empty where the user may not know.
        clock_offset: seconds its clock is ahead of this machine's.
        clock_error: how wrong that may be, half the round trip.
        encrypted: whether the connection is; None where it does not leave this machine.
        paused: whether replay is.
        streaming: whether a standby receives from a primary.
        conflicts: reads a standby has cancelled in this database since it counts.
        catalog_problem: why its functions and tables could not be read, empty where they could.
        unasked: what keeps statements from replicas that do not name it, see
            `router.sql.catalog.Catalog.unasked`.
        pooler: what stands in front of it, None where nothing does.
    """

    node: str
    address: str
    problem: str = ""
    denied: bool = False
    standby: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)
    database: str = ""
    started: str = ""
    system_id: str = ""
    clock_offset: float = 0.0
    clock_error: float = 0.0
    encrypted: bool | None = None
    paused: bool = False
    streaming: bool | None = None
    conflicts: int = 0
    catalog_problem: str = ""
    unasked: tuple[str, ...] = ()
    pooler: Pooler | None = None

    @property
    def ok(self) -> bool:
        """Whether it answered."""
        return not self.problem

    @property
    def identity(self) -> tuple[str, ...]:
        """The same for two addresses of one server, and for no two servers."""
        return (self.system_id, self.started, self.settings.get("port", ""))

    @property
    def room(self) -> Room | None:
        """How many connections it bears."""
        settings = self.settings
        if "max_connections" not in settings:
            return None
        names = ("superuser_reserved_connections", "reserved_connections")
        reserved = sum(int(settings.get(name, 0)) for name in names)
        return Room(int(settings["max_connections"]), reserved)
