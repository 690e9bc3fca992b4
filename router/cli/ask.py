"""Asks a server about the connections to it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from router.config.budget import ROOM_SQL, Room
from router.config.config import Config
from router.config.server import Server
from router.doctor import pgbouncer_console as console
from router.messages import one_line

CLIENTS_SQL = """
    SELECT coalesce(nullif(application_name, ''), '(no name)'), count(*)::int,
           count(*) FILTER (WHERE state <> 'idle')::int
      FROM pg_stat_activity
     WHERE backend_type = 'client backend' AND application_name <> %s
     GROUP BY 1 ORDER BY 2 DESC, 1
"""
"""Rows of `Clients`, without those of this command.

Without ``pg_read_all_stats`` the state, and the type, of other users' sessions are NULL: only the
asking user's own are counted.

Source: https://www.postgresql.org/docs/current/monitoring-stats.html
"""

NAME = "pg-router status"
"""The ``application_name`` of this command's own connections."""

TIMEOUT = 3
"""Seconds that connecting may take, and then each answer."""


@dataclass(frozen=True, slots=True)
class Clients:
    """The sessions of one ``application_name``, as far as the asking user may see them; `busy`
    ones are not idle."""

    application: str
    connections: int
    busy: int


@dataclass(frozen=True, slots=True)
class Pool:
    """A row of PgBouncer's ``SHOW POOLS``: what it holds for one database and user.

    Attributes:
        user: whose server connections these are.
        mode: how they are pooled.
        clients: client connections with a server, or without need of one.
        waiting: client connections that wait for a server's.
        longest: seconds the first of these has waited.
        busy: server connections in use.
        idle: server connections not in use.

    Source: https://www.pgbouncer.org/usage.html#show-pools
    """

    user: str
    mode: str
    clients: int
    waiting: int
    longest: float
    busy: int
    idle: int

    @classmethod
    def of(cls, row: Mapping[str, str]) -> Self:
        """The pool of `row`, whose keys are the columns."""
        longest = int(row["maxwait"]) + int(row["maxwait_us"]) / 1e6
        names = ("cl_active", "cl_waiting", "sv_active", "sv_idle", "sv_used")
        clients, waiting, busy, idle, used = (int(row[name]) for name in names)
        return cls(row["user"], row["pool_mode"], clients, waiting, longest, busy, idle + used)


@dataclass(frozen=True, slots=True)
class Answer:
    """What one server said.

    Attributes:
        clients: who is connected, most connections first; without the connection that asked.
        room: what it bears, None where it could not be asked.
        problem: why it could not.
        pools: those of its database in a PgBouncer in front of it, as far as that lets us ask.
    """

    clients: tuple[Clients, ...] = ()
    room: Room | None = None
    problem: str = ""
    pools: tuple[Pool, ...] = ()

    @property
    def connections(self) -> int:
        """All sessions the asking user may see."""
        return sum(one.connections for one in self.clients)


def arguments_for(config: Config, server: Server) -> dict[str, Any]:
    """Libpq's arguments for this command's own connection to `server`, with the options of
    `config`."""
    wanted = {**config.libpq(), "connect_timeout": TIMEOUT, **server.connect_args()}
    return wanted | {"application_name": NAME}


def ask(config: Config, server: Server) -> Answer:
    """Ask `server` over one short connection, made as `config` says. The answer holds an error."""
    import psycopg

    arguments = arguments_for(config, server)
    try:
        with psycopg.connect(**arguments) as connection:
            # For this transaction alone: behind a PgBouncer others get the session next.
            bound = "SELECT set_config('statement_timeout', %s, true)"
            connection.execute(bound, (f"{TIMEOUT}s",))
            room = connection.execute(ROOM_SQL).fetchone()
            clients = connection.execute(CLIENTS_SQL, (NAME,)).fetchall()
            process = connection.execute("SELECT pg_backend_pid()").fetchone()
            pooled = process != (connection.info.backend_pid,)
    except psycopg.Error as error:
        return Answer(problem=one_line(error))
    assert room is not None
    pools = _pools(arguments) if pooled else ()
    return Answer(tuple(Clients(*row) for row in clients), Room(*room), pools=pools)


def _pools(arguments: Mapping[str, Any]) -> tuple[Pool, ...]:
    import psycopg

    try:
        rows = console.read(arguments).pools
        return tuple(Pool.of(row) for row in rows if row["database"] == arguments.get("dbname"))
    except (psycopg.Error, LookupError, ValueError):
        return ()  # another pooler, or it does not let this user ask
