"""What a statement leaves in its session, on a real primary, against `Intent.binds`.

Each statement of bindings.sql runs in a session of its own. Afterwards that session has a setting,
a lock, a temporary relation or the like, or, in the second part, nothing of the kind.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest
from psycopg import Connection, pq

from router.sql.catalog import Catalog
from router.sql.classifier import classify
from router.sql.intent import Intent, Kind
from router.testing import Cluster, Server

NAME = "bindings"

BASE = """
create schema atk;
create function atk.leave(x int) returns int language plpgsql volatile as
  $q$begin perform set_config('atk.mark', 'x', false); return x; end$q$;
create function atk.leaveb(x int) returns bool language plpgsql volatile as
  $q$begin perform set_config('atk.mark', 'x', false); return true; end$q$;
create function atk.leavei(x int) returns int language plpgsql immutable as
  $q$begin perform set_config('atk.mark', 'x', false); return x; end$q$;
create function atk.trg() returns trigger language plpgsql as
  $q$begin perform set_config('atk.mark', 'x', false); return coalesce(new, old); end$q$;
create function atk.quiet() returns trigger language plpgsql as
  $q$begin perform set_config('atk.mark', 'x', true); return coalesce(new, old); end$q$;
create table atk.t(a int primary key, b text);
insert into atk.t values (100, 'x');
create table atk.u(a int);
insert into atk.u values (100);
"""

STATE = """
select coalesce(nullif(pg_catalog.current_setting('atk.mark', true), ''),
    nullif(pg_catalog.current_setting('local.mark', true), ''),
    nullif(pg_catalog.current_setting('constraints.mark', true), '')) is not null
  or pg_catalog.current_setting('work_mem') <> '4MB'
  or pg_catalog.current_setting('pg_trgm.similarity_threshold', true) <> '0.3'
  or exists (select from pg_catalog.pg_prepared_statements)
  or exists (select from pg_catalog.pg_cursors where is_holdable)
  or exists (select from pg_catalog.pg_listening_channels())
  or exists (select from pg_catalog.pg_class where relnamespace = pg_catalog.pg_my_temp_schema())
  or exists (select from pg_catalog.pg_proc where pronamespace = pg_catalog.pg_my_temp_schema())
  or exists (select from pg_catalog.pg_locks where locktype = 'advisory'
             and pid = pg_catalog.pg_backend_pid())
  or exists (select from pg_catalog.pg_replication_slots where temporary
             and active_pid = pg_catalog.pg_backend_pid())
"""


class Case(NamedTuple):
    """What is made before, and the statement."""

    setup: str
    sql: str


def parsed(text: str) -> list[Case]:
    """The cases of `text`, a part of bindings.sql."""
    found, setup = [], ""
    for line in filter(None, text.splitlines()):
        if line.startswith("-- "):
            setup = line[3:]
        else:
            found.append(Case(setup, line))
    return found


_, _BINDS, _FREE = re.split(
    r"^--> \w+$", Path(__file__).with_name("bindings.sql").read_text("utf-8"), flags=re.MULTILINE
)
BINDS, FREE = parsed(_BINDS), parsed(_FREE)

UNDO = """
drop event trigger if exists bindings; drop extension if exists pg_trgm cascade;
drop schema if exists atk cascade; drop owned by plain;
select pg_drop_replication_slot('bindings') from pg_replication_slots where not active;
"""


def run(connection: Connection, text: str) -> tuple[str, list[bytes | None]]:
    """The error of `text`, if any, and the first column of its rows; COPY is given one row."""
    raw = connection.pgconn
    raw.send_query(text.encode())
    error, rows = "", []
    while (result := raw.get_result()) is not None:
        if result.status == pq.ExecStatus.COPY_IN:
            raw.put_copy_data(b"1\n")
            raw.put_copy_end()
        elif result.status == pq.ExecStatus.COPY_OUT:
            while raw.get_copy_data(0)[0] > 0:
                pass
        elif result.status == pq.ExecStatus.FATAL_ERROR:
            error = error or result.error_message.decode()
        else:
            rows += [result.get_value(r, 0) for r in range(result.ntuples) if result.nfields]
    return error, rows


class Bench:
    """A primary on which one case after the other is made."""

    def __init__(self, server: Server) -> None:
        server.execute(f"create database {NAME}")
        server.execute("create role plain", dbname=NAME)
        self.conninfo = server.conninfo(NAME)

    def judged(self, case: Case) -> tuple[Intent, bool]:
        """The intent of `case`, and whether its session has something afterwards."""
        with psycopg.connect(self.conninfo, autocommit=True) as maker:
            maker.execute(BASE.encode())
        try:
            with psycopg.connect(self.conninfo, autocommit=True) as maker:
                maker.execute(case.setup.encode())
                catalog = Catalog.from_rows(
                    {part: maker.execute(sql).fetchall() for part, sql in Catalog.QUERIES.items()}
                )
            with psycopg.connect(self.conninfo, autocommit=True) as session:
                error, _ = run(session, case.sql)
                assert not error
                stays = run(session, STATE)[1] == [b"t"]
        finally:
            with psycopg.connect(self.conninfo, autocommit=True) as maker:
                for text in UNDO.split(";"):
                    maker.execute(text.encode())
        return classify(case.sql, catalog), stays


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """A primary, for all cases."""
    with Cluster(0) as cluster:
        yield Bench(cluster.primary)


def name(case: Case) -> str:
    """How a case is called: by its statement and what was made for it."""
    return f"{case.sql} | {case.setup}"


@pytest.mark.parametrize("case", BINDS, ids=name)
def test_what_stays_binds(bench: Bench, case: Case) -> None:
    """What leaves something in its session says so, or the journal sees it."""
    intent, stays = bench.judged(case)
    assert stays, "nothing stays in the session: the case is vacuous"
    assert intent.binds or intent.kind is Kind.SESSION


@pytest.mark.parametrize("case", FREE, ids=name)
def test_what_leaves_nothing_does_not_bind(bench: Bench, case: Case) -> None:
    """What only looks like it lets its session go."""
    intent, stays = bench.judged(case)
    assert not stays
    assert not intent.binds


def test_the_tables_are_large() -> None:
    """Each case stands there once."""
    assert len(set(BINDS)) == len(BINDS) >= 60
    assert len(set(FREE)) == len(FREE) >= 20
