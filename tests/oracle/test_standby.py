"""The judge of the classifier: a real standby, asked to run every statement of the table."""

import re
from collections.abc import Iterator
from typing import NamedTuple

import psycopg
import pytest
from psycopg import Connection, pq

from router import placeholders
from router.catalog import Catalog
from router.classify import Kind, classify
from router.testing import Cluster
from tests.core.statements import SCHEMA, STATEMENTS, Case

NAME = "oracle"

# Accepted by a standby, with an effect in the wrong place or an answer only the primary can give:
# the silent misroutes. By the reason the table expects, or by the text.
SILENT = re.compile(
    r"""
      advisory | set_config | is\ volatile | dynamic\ SQL | random\(\) | further\ server
    | foreign\ table | transaction\ id | snapshot | server\ it\ runs\ on | PROGRAM | a\ file
    | WITH\ HOLD | ^PREPARE$ | EXECUTE | LISTEN | DISCARD | CHECKPOINT | LOAD | ALTER\ SYSTEM
    | default_transaction | SERIALIZABLE | several\ statements | \bDO\b | DEALLOCATE | control
    | ^server$
    """,
    re.VERBOSE,
)

# They would take the standby away from the statements after them.
NOT_RUN = re.compile(r"pg_promote|pg_wal_replay_pause|pg_stat_file|ALTER SYSTEM|\bAND CHAIN\b")


class Verdict(NamedTuple):
    """What the standby did: it refused to write, it failed for another reason, or neither."""

    refused: bool
    failed: bool
    message: str


@pytest.fixture(scope="module")
def standby() -> Iterator[tuple[Connection, Catalog]]:
    """A connection to a standby that may be ruined, and the catalog."""
    with Cluster(1) as cluster:
        primary, replica = cluster.primary, cluster.replicas[0]
        primary.execute(f"create database {NAME}")
        primary.execute(SCHEMA, dbname=NAME)
        replica.wait_caught_up()
        with psycopg.connect(replica.conninfo(NAME), autocommit=True) as connection:
            catalog = Catalog.from_rows(
                {part: connection.execute(sql).fetchall() for part, sql in Catalog.QUERIES.items()}
            )
            yield connection, catalog


def ask(connection: Connection, sql: str, *, transaction: bool) -> Verdict:
    """Run `sql` as it is, as a literal for each placeholder, and leave the session clean."""
    raw = connection.pgconn
    state = message = ""
    for form in (placeholders.literals, placeholders.lists):
        text = placeholders.percent(sql, form) or placeholders.colon(sql, form) or sql
        text = re.sub(r"\$\d+", "'1'", text) if "$x$" not in text else text
        if transaction:
            raw.exec_(b"begin; savepoint a")
            if not sql.startswith(("DECLARE", "SET")):
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
        state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
        message = result.error_message.decode()
        if state != "42601":
            break
    refused = state == "25006" or (
        state in ("0A000", "55000", "25001")
        and re.search(r"recovery|standby|read-only", message) is not None
    )
    # Class 22: the value put for a placeholder has the wrong form, nothing more.
    return Verdict(refused, bool(state) and state[:2] != "22", message)


def test_the_standby_agrees(standby: tuple[Connection, Catalog]) -> None:
    """What a standby refuses is no read, nor what it does in the wrong place; the rest is."""
    connection, catalog = standby
    refused: list[Case] = []
    silent: list[Case] = []
    harmless: list[Case] = []
    broken: list[tuple[str, str]] = []
    for case in STATEMENTS:
        if NOT_RUN.search(case.sql):
            continue
        intent = classify(case.sql, catalog)
        inside = intent.needs_transaction or intent.verb is not None
        verdict = ask(connection, case.sql, transaction=inside)
        if verdict.refused:
            refused.append(case)
        elif not verdict.failed:
            (silent if SILENT.search(case.reason) else harmless).append(case)
        elif intent.kind is Kind.READ and "libxml" not in verdict.message:
            broken.append((case.sql, verdict.message))

    def called(cases: list[Case], *kinds: Kind) -> list[str]:
        return [c.sql for c in cases if classify(c.sql, catalog).kind in kinds]

    kept = called(harmless, Kind.WRITE)
    rate = 1 - len(kept) / len(harmless)
    print(
        f"\nrefused by the standby: {len(refused)}, called a read: "
        f"{len(called(refused, Kind.READ))}"
        f"\naccepted, with an effect in the wrong place: {len(silent)}, called a read: "
        f"{len(called(silent, Kind.READ))}"
        f"\naccepted harmlessly: {len(harmless)}, free to leave the primary: {rate:.1%}"
    )
    assert not called(refused, Kind.READ)
    assert not called(silent, Kind.READ)
    assert rate >= 0.97, kept
    assert not broken
    assert len(refused) > 80
    assert len(harmless) > 200
