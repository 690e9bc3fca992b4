"""The catalog's fingerprint: another one after whatever changes an answer, and only then."""

from collections.abc import Iterator

import psycopg
import pytest

from router.sql.queries import FINGERPRINT, QUERIES
from router.testing import Cluster

pytestmark = pytest.mark.once  # it is about the server, not about Python

SCHEMA = """
create schema fp;
set search_path = fp;
create type ct as (x int);
create domain d as int check (value > 0);
create table t (a int, b d, c ct) partition by range (a);
create table t1 partition of t for values from (0) to (9);
create table u (a int primary key, b int default 1, c ct);
create unlogged table w (a int);
create view v as select a from u;
create function f(int) returns int language sql as 'select $1';
create function trig() returns trigger language plpgsql as 'begin return new; end';
create function lt(ct, ct) returns bool language sql as 'select true';
create function c2i(ct) returns int language sql as 'select 1';
create sequence s;
create table q (a int);
alter table q enable row level security;
create trigger tr0 before insert on q for each row execute function trig();
create table q2 (a int);
create policy p2 on q2 using (a = 1);
"""
CHANGES = """
create function g() returns int language sql as 'select 1'
create or replace function f(int) returns int language sql as 'select $1 + 1'
alter function f(int) stable
alter function f(int) rename to ff
drop function f(int)
create or replace view v as select a + 1 as a from u
create table more (a int)
drop table w
alter table w set logged
alter table u rename to uu
alter table u add column n ct
alter table u rename column c to cc
alter table u drop column c
alter table u alter column b set default f(1)
alter table u add constraint k check (f(a) > 0)
alter table u add constraint fk foreign key (b) references u on delete cascade
alter domain d add constraint e check (value < 9)
create index on u (f(a))
create index on u (a) where a > 1
create policy p on q using (f(a) = 1)
alter table q2 enable row level security
create rule r as on insert to u do nothing
create trigger tr before insert on u for each row execute function trig()
alter table q disable trigger all
create operator < (leftarg = ct, rightarg = ct, function = lt)
create cast (ct as int) with function c2i(ct)
create aggregate agg(int) (sfunc = int4pl, stype = int)
create statistics st on (a + 1), b from u
create table t2 partition of t for values from (9) to (20)
alter table t detach partition t1
create type e as enum ('a')
create type ri as range (subtype = int)
alter schema fp rename to fp3
create extension pg_trgm schema fp
create event trigger et on ddl_command_end execute function et()
""".strip().splitlines()


@pytest.fixture(scope="module")
def connection(cluster: Cluster) -> Iterator[psycopg.Connection]:
    cluster.primary.execute("create database fingerprints")
    with psycopg.connect(cluster.primary.conninfo("fingerprints"), autocommit=True) as connection:
        connection.execute(SCHEMA)
        connection.execute(
            "create function et() returns event_trigger language plpgsql as 'begin end'"
        )
        yield connection
    cluster.primary.execute("drop database fingerprints with (force)")


def answers(connection: psycopg.Connection) -> tuple[object, list[object]]:
    """The fingerprint, and what it stands for."""
    with connection.transaction():
        connection.execute("set local search_path = pg_catalog")
        (print_,) = connection.execute(FINGERPRINT).fetchone() or ("",)
        return print_, [
            sorted(map(str, connection.execute(sql).fetchall())) for sql in QUERIES.values()
        ]


@pytest.mark.parametrize("change", CHANGES)
def test_each_change_shows(connection: psycopg.Connection, change: str) -> None:
    """Where an answer to one of the queries is another one, so is the fingerprint."""
    with connection.transaction(force_rollback=True):
        before = answers(connection)
        connection.execute("set local search_path = fp")
        connection.execute(change)
        after = answers(connection)
    assert before[1] != after[1] or change.startswith("alter table u drop column")
    assert before[0] != after[0]


@pytest.mark.parametrize(
    "other",
    [
        "insert into fp.u (a) values (77)",
        "select nextval('fp.s')",
        "analyze fp.u",
        "create temp table if not exists scratch (a int)",
        "create index if not exists plain on fp.u (b)",
    ],
)
def test_what_changes_no_answer_does_not(connection: psycopg.Connection, other: str) -> None:
    """Data, statistics, temporary tables and plain indexes leave it as it was."""
    before = answers(connection)
    connection.execute(other)
    assert answers(connection)[0] == before[0]
