"""How many connections a deployment may open, and how large its pools may be for that.

Counted in connections. What is counted for a server is a ceiling: pools open connections when
they are needed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from router.errors import ConfigError

POOL_SIZE, MAX_OVERFLOW = 5, 10
"""A pool's size and overflow in connections, as SQLAlchemy has them by default.

Source: https://docs.sqlalchemy.org/en/20/core/pooling.html#sqlalchemy.pool.QueuePool
"""

SESSIONS = 2
"""Session and LISTEN connections of a Horsies worker."""


def share(max_connections: int, workers: int, nodes: int) -> int:
    """The pool size that keeps a whole deployment within `max_connections`.

    MediaFusion's rule, which divides by 2 where there is a read URI, for any number of nodes.
    The connections are for all `workers`, which are processes, and all `nodes` together, the
    primary among them.

    Raises:
        ConfigError: not even one connection is left for each pool.
    """
    size = max_connections // workers // nodes
    if size < 1:
        raise ConfigError(
            f"max_connections: {max_connections} is not enough for {workers} workers with a pool "
            f"for each of {nodes} nodes: give {workers * nodes} or more, or run fewer workers"
        )
    return size


def horsies_worker(
    pool_size: int = 3,
    max_overflow: int = 2,
    processes: int = 1,
    child_pool: int = 2,
    task_code: int = 0,
    sessions: int = SESSIONS,
) -> int:
    """The most connections one Horsies worker holds.

    Args:
        pool_size: its ``worker_pool_size``.
        max_overflow: its ``worker_max_overflow``.
        processes: its children.
        child_pool: ``worker_child_pool_max_size``, for each child.
        task_code: connections the tasks themselves open.
        sessions: connections it keeps for LISTEN and the like.
    """
    return pool_size + max_overflow + sessions + processes * child_pool + task_code


@dataclass(frozen=True, slots=True)
class Demand:
    """What every process of a deployment may open to each node.

    Attributes:
        workers: processes.
        pool_size: connections a pool keeps; 0 is no limit.
        max_overflow: connections beyond that; -1 is no limit.
        extra: connections of other programs to each server.
    """

    workers: int = 1
    pool_size: int = POOL_SIZE
    max_overflow: int = MAX_OVERFLOW
    extra: int = 0

    @property
    def bounded(self) -> bool:
        """Whether the pools have a limit at all."""
        return self.pool_size > 0 and self.max_overflow >= 0

    @property
    def pool(self) -> int:
        """The most one process's pool of one node holds."""
        return self.pool_size + self.max_overflow

    def on(self, nodes: int) -> int:
        """The most connections to a server behind `nodes` nodes, with one for each monitor."""
        return self.workers * nodes * (self.pool + 1) + self.extra

    def sum(self, nodes: int) -> str:
        """The arithmetic of `on` for `nodes` nodes, for people."""
        times = f"{self.workers} × " + (f"{nodes} nodes × " if nodes > 1 else "")
        extra = f" + {self.extra}" if self.extra else ""
        if not self.bounded:
            return f"{times}(a pool without limit + 1){extra}"
        return f"{times}({self.pool_size} + {self.max_overflow} + 1){extra} = {self.on(nodes)}"


def opened(database: Mapping[str, str]) -> int:
    """The most connections a PgBouncer opens to the server for one user of the `database` that
    this row of ``SHOW DATABASES`` is about."""
    # PgBouncer 1.18 has the one name, 1.24 the other.
    reserve = database.get("reserve_pool_size") or database.get("reserve_pool") or 0
    size = int(database["pool_size"]) + int(reserve)
    most = int(database["max_connections"])
    return min(size, most) if most else size


@dataclass(frozen=True, slots=True)
class Room:
    """What one server bears.

    Attributes:
        max_connections: its setting.
        reserved: slots only superusers and members of pg_use_reserved_connections may use.
    """

    max_connections: int
    reserved: int = 0

    @property
    def free(self) -> int:
        """Connections an application may open."""
        return self.max_connections - self.reserved


ROOM_SQL = """
    SELECT (SELECT setting::int FROM pg_settings WHERE name = 'max_connections'),
           (SELECT sum(setting::int)::int FROM pg_settings
             WHERE name IN ('superuser_reserved_connections', 'reserved_connections'))
"""
"""Asks a server for its `Room`; ``reserved_connections`` is there since PostgreSQL 16.

Source: https://www.postgresql.org/docs/current/runtime-config-connection.html
"""


@dataclass(frozen=True, slots=True)
class Line:
    """One server's part of the budget.

    Attributes:
        server: its ``host:port``.
        nodes: names of the nodes there.
        needed: the most it may have to bear, None where the pools have no limit.
        sum: how `needed` comes about.
        room: what it bears, None where it could not be asked.
        problem: why it could not.
        limit: what the server calls the setting that is `room`.
    """

    server: str
    nodes: tuple[str, ...]
    needed: int | None
    sum: str
    room: Room | None = None
    problem: str = ""
    limit: str = "max_connections"

    @property
    def over(self) -> bool:
        """Whether the server cannot bear it."""
        return self.room is not None and (self.needed is None or self.needed > self.room.free)

    def __str__(self) -> str:
        names = ", ".join(self.nodes)
        if self.room is None:
            return f"{self.server} ({names}): {self.sum}; not asked: {self.problem}"
        room = self.room
        verdict = "over" if self.over else "fits"
        less = f" − {room.reserved} reserved = {room.free}" if room.reserved else ""
        return (
            f"{self.server} ({names}): {self.sum}; {self.limit} {room.max_connections}{less}: "
            f"{verdict}"
        )


def cure(lines: Iterable[Line]) -> str:
    """What to do about the servers of `lines` that are over, empty where none is."""
    names = ", ".join(line.server for line in lines if line.over)
    return names and (
        f"{names}: lower max_connections here (or pool_size, max_overflow) or PgBouncer's "
        "default_pool_size, run fewer workers, or raise the server's max_connections, PgBouncer's "
        "max_client_conn"
    )
