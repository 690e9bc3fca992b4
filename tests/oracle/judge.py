"""Asks a standby what it makes of one statement."""

import re
from typing import NamedTuple

from psycopg import Connection, pq

# They would take the standby away from the statements after them.
NOT_RUN = re.compile(r"pg_promote|pg_wal_replay_pause|pg_stat_file|ALTER SYSTEM|\bAND CHAIN\b")


class Verdict(NamedTuple):
    """What the standby did: it refused to write, it failed for another reason, or neither."""

    refused: bool
    failed: bool
    message: str
    state: str = ""


def run(connection: Connection, text: str, *, transaction: bool) -> Verdict:
    """Run `text` with nothing to fill in, and leave the session clean.

    Args:
        connection: to the standby, in autocommit.
        text: one statement or several.
        transaction: run it inside one that has a savepoint and a cursor.
    """
    raw = connection.pgconn
    if transaction:
        raw.exec_(b"begin; savepoint a")
        if not text.startswith(("DECLARE", "SET")):
            raw.exec_(b"declare c scroll cursor for select 1")
    result = raw.exec_(text.encode())
    while result.status == pq.ExecStatus.COPY_OUT and raw.get_copy_data(0)[0] >= 0:
        pass
    if result.status == pq.ExecStatus.COPY_OUT:
        result = raw.get_result() or result
    if result.status == pq.ExecStatus.COPY_IN:
        raw.put_copy_end(b"no data")
        result = raw.get_result() or result
    while raw.get_result() is not None:
        pass
    raw.exec_(b"rollback")
    raw.exec_(b"discard all")
    raw.exec_(b"set statement_timeout = '5s'")
    return verdict(result)


def verdict(result: pq.abc.PGresult) -> Verdict:
    """What a standby's `result` says of a statement."""
    state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
    message = result.error_message.decode()
    refused = state == "25006" or (
        state in ("0A000", "55000", "25001")
        and re.search(r"recovery|standby|read-only", message) is not None
    )
    # Class 22: the value put for a placeholder has the wrong form, nothing more.
    return Verdict(refused, bool(state) and state[:2] != "22", message, state)
