"""What a probe asks one server, and how its answer becomes a Report.

Only functions that exist since PostgreSQL 13 and that any role may call.
"""

from collections.abc import Sequence
from math import inf
from typing import Any

from router.model import Lsn, Report, Role

PROBE_SQL = """
SELECT r.standby,
       CASE WHEN r.standby THEN pg_last_wal_replay_lsn()
            ELSE pg_current_wal_insert_lsn() END::text,
       CASE WHEN r.standby
            THEN coalesce(w.received_tli, greatest(
                          (SELECT min_recovery_end_timeline FROM pg_control_recovery()),
                          (SELECT timeline_id FROM pg_control_checkpoint())))
            ELSE ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int
       END,
       (SELECT system_identifier::text FROM pg_control_system()),
       extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float8,
       w.pid IS NOT NULL,
       w.received_tli,
       CASE WHEN NOT r.standby THEN pg_last_wal_replay_lsn() END::text,
       CASE WHEN r.standby THEN w.flushed_lsn ELSE pg_current_wal_flush_lsn() END::text,
       current_database()::text
  FROM (SELECT pg_is_in_recovery() AS standby) r
  LEFT JOIN pg_stat_wal_receiver w ON r.standby
"""
"""One row: in recovery, position, timeline, system identifier, lag in seconds, streaming; of a
standby its WAL receiver's timeline; of a primary where its recovery ended; what a primary or a
standby's WAL receiver has flushed; and the database, which is the server's own name for it,
whatever a pooler in between calls it.

The timeline of a primary is read from the name of the segment it writes, because the control
file still shows the old one until the checkpoint after a promotion. A standby's comes from its
WAL receiver, which is on no older one than the replay it feeds, and each look into the control
file costs the server as much as a small query; to a role without ``pg_read_all_stats`` it is
hidden, and the control file's, which may be older, has to do: the pin then holds longer, never
shorter.

A server that was promoted goes on telling its last replay position. It is where its timeline
began, as its history file has it.

Source: https://www.postgresql.org/docs/current/functions-admin.html
"""

ROLE_SQL = """
SELECT pg_is_in_recovery(), NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
       current_database()::text
"""
"""As `PROBE_SQL`, for servers that tell no WAL position, such as Amazon Aurora's readers."""

NO_POSITION = frozenset({"42883", "42501", "0A000"})
"""SQLSTATEs undefined_function, insufficient_privilege and feature_not_supported: what a server
that tells no WAL position answers to `PROBE_SQL`."""

WAL_PAGE = 8192
PAGE_HEADER = 24
SEGMENT_HEADER = 40
SMALLEST_SEGMENT = 1 << 20
"""Bytes. A segment's size is a power of two of this; its first page has the longer header.

Source: https://www.postgresql.org/docs/current/wal-internals.html and ``xlog_internal.h``
"""


def report(node: str, started: float, row: Sequence[Any], reconnected: float = -inf) -> Report:
    """The Report on `node` from a `row` of `PROBE_SQL`, which was asked for at `started`
    (monotonic seconds); by the monitor over a connection that took the place of another at
    `reconnected`."""
    # In a database in SQL_ASCII psycopg gives text as bytes.
    told: list[Any] = [value.decode() if isinstance(value, bytes) else value for value in row]
    standby, lsn, timeline, system_id, lag, streaming, received, began, flushed, database = told
    position = None if lsn is None else Lsn.parse(lsn)
    if not standby and position is not None:
        # On a fresh WAL page the insert position stands behind the page header while a standby
        # that replayed everything reports the page's start; no record lies between the two. After
        # a switch of segments an idle primary stays there, and so would every pin.
        if position % WAL_PAGE == PAGE_HEADER:
            position = Lsn(position - PAGE_HEADER)
        elif position % SMALLEST_SEGMENT == SEGMENT_HEADER:
            position = Lsn(position - SEGMENT_HEADER)
    return Report(
        node=node,
        started=started,
        role=Role.REPLICA if standby else Role.PRIMARY,
        lsn=position,
        timeline=timeline or 0,
        system_id=system_id or "",
        lag_seconds=lag,
        streaming=bool(streaming),
        received=received or 0,
        began=None if began is None else Lsn.parse(began),
        flushed=None if flushed is None else Lsn.parse(flushed),
        database=database or "",
        reconnected=reconnected,
    )
