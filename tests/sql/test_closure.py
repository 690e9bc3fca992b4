"""The closure on a real server: chains in words, what binds through triggers, what it costs."""

import re
from collections.abc import Iterator

import psycopg
import pytest

from router.explain import explain
from router.sql.catalog import Catalog
from router.sql.classifier import classify
from router.sql.intent import Kind
from router.sql.nodetree import items, uses
from router.testing import Cluster

pytestmark = pytest.mark.once  # it is about the server, not about Python

SETUP = """
drop schema if exists app cascade;
create schema app;
set search_path = app;
"""


@pytest.fixture(scope="module")
def connection(cluster: Cluster) -> Iterator[psycopg.Connection]:
    cluster.primary.execute("create database closure_test")
    with psycopg.connect(cluster.primary.conninfo("closure_test"), autocommit=True) as connection:
        yield connection
    cluster.primary.execute("drop database closure_test with (force)")


def read(connection: psycopg.Connection, setup: str = "") -> Catalog:
    """The catalog of a database in which schema app has what `setup` makes."""
    if setup:
        connection.execute(SETUP + setup)
    return Catalog.from_rows(
        {part: connection.execute(sql).fetchall() for part, sql in Catalog.QUERIES.items()}
    )


def test_explain_prints_the_shortest_chain(connection: psycopg.Connection) -> None:
    """From the view over the function to the default of its argument, in words."""
    catalog = read(
        connection,
        "create sequence s; create function f(a int, b bigint default nextval('app.s')) "
        "returns int language sql stable as 'select $1';"
        "create view v as select app.f(1) as n; create view w as select * from app.v",
    )
    lines = str(explain("SELECT * FROM app.w", catalog=catalog)).splitlines()
    assert lines[0] == (
        "intent:  write: reads app.w → reads app.v → calls app.f(integer, bigint) → "
        "the default of its 2nd argument calls nextval(): advances a sequence"
    )
    assert lines[1].startswith("standby: the standby refuses it")


def test_the_chain_is_the_same_each_time(connection: psycopg.Connection) -> None:
    """Of several chains the same one is told by every process."""
    setup = "".join(
        f"create function f{i}() returns int language plpgsql as "
        f"$$begin perform pg_advisory_lock({i}); return 1; end$$;"
        for i in range(9)
    )
    setup += (
        "create function g() returns int language plpgsql as "
        f"$$begin return {' + '.join(f'app.f{i}()' for i in range(9))}; end$$"
    )
    catalog = read(connection, setup)
    told = {classify("SELECT app.g()", catalog).reason}
    told |= {classify("SELECT app.g()", read(connection)).reason for _ in range(3)}
    assert len(told) == 1


def test_names_and_effects_are_told_apart(connection: psycopg.Connection) -> None:
    """What a standby refuses, what acts there and what nobody knows have their own verdicts."""
    catalog = read(
        connection,
        "create table t (a int);"
        "create function r() returns int language sql as "
        "'insert into app.t values (1) returning a';"
        "create function a() returns bool language sql as 'select pg_try_advisory_lock(1)';"
        "create function u(q text) returns void language plpgsql as 'begin execute q; end';"
        "create function both_() returns bool language plpgsql as "
        "'begin insert into app.t values (1); return app.a(); end'",
    )
    found = {
        sql: classify(f"SELECT app.{sql}", catalog).on_standby.name
        for sql in ("r()", "a()", "u('')", "both_()")
    }
    assert found == {"r()": "REFUSED", "a()": "ACTS", "u('')": "UNSEEN", "both_()": "ACTS"}


BINDS = {
    "a trigger that sets": "create function tr() returns trigger language plpgsql as "
    "$$begin set app.x = 1; return new; end$$;"
    "create trigger tr before insert on t for each row execute function tr()",
    "a trigger by set_config": "create function tr() returns trigger language plpgsql as "
    "$$begin perform set_config('app.x', '1', false); return new; end$$;"
    "create trigger tr before insert on t for each row execute function tr()",
    "a trigger that makes a temporary table": "create function tr() returns trigger "
    "language plpgsql as $$begin create temp table if not exists tt (a int); return new; end$$;"
    "create trigger tr after insert on t execute function tr()",
    "a trigger that takes a lock": "create function tr() returns trigger language plpgsql as "
    "$$begin perform pg_advisory_lock(1); return null; end$$;"
    "create trigger tr after insert on t execute function tr()",
    "a rule": "create rule r as on insert to t do also select set_config('app.x', '1', false)",
    "a default": "alter table t add column c text default set_config('app.x', '1', false)",
    "a check": "create function ok(int) returns bool language plpgsql as "
    "$$begin set role none; return true; end$$; alter table t add check (app.ok(a))",
    "a domain": "create function ok(int) returns bool language plpgsql as "
    "$$begin reset role; return true; end$$; create domain d as int check (app.ok(value));"
    "alter table t add column c d",
    "a trigger of another table": "create table u (a int); "
    "create function tu() returns trigger language plpgsql as "
    "$$begin set app.x = 1; return new; end$$;"
    "create trigger tu before insert on u for each row execute function tu();"
    "create function tr() returns trigger language plpgsql as "
    "$$begin insert into app.u values (new.a); return new; end$$;"
    "create trigger tr before insert on t for each row execute function tr()",
    "a trigger that updates pg_settings": "create function tr() returns trigger "
    "language plpgsql as $$begin update pg_settings set setting = '1' where name = 'app.x'; "
    "return new; end$$;"
    "create trigger tr before insert on t for each row execute function tr()",
}


@pytest.mark.parametrize("how", BINDS)
def test_an_insert_binds_by(connection: psycopg.Connection, how: str) -> None:
    """What a row's arrival leaves in the session keeps the checkout there."""
    catalog = read(connection, f"create table t (a int); {BINDS[how]}")
    assert classify("INSERT INTO app.t VALUES (1)", catalog).binds, how


def test_an_insert_without_any_of_that_does_not_bind(connection: psycopg.Connection) -> None:
    """A trigger that only computes, and SET LOCAL, leave nothing behind."""
    catalog = read(
        connection,
        "create table t (a int); create function tr() returns trigger language plpgsql as "
        "$$begin set local app.x = 1; new.a := new.a + 1; "
        "perform set_config('app.y', 'z', true); return new; end$$;"
        "create trigger tr before insert on t for each row execute function tr()",
    )
    assert not classify("INSERT INTO app.t VALUES (1)", catalog).binds


def test_an_updatable_view_binds_as_its_table(connection: psycopg.Connection) -> None:
    """A view's rows are its table's, and a partition's its parent's."""
    catalog = read(
        connection,
        "create table t (a int) partition by list (a); create table t1 partition of t default;"
        "create view v as select * from app.t; create function tr() returns trigger language "
        "plpgsql as $$begin set app.x = 1; return new; end$$;"
        "create trigger tr before insert on t1 for each row execute function tr()",
    )
    for name in ("t", "v", "t1"):
        assert classify(f"INSERT INTO app.{name} VALUES (1)", catalog).binds, name


def test_an_event_trigger_binds_ddl(connection: psycopg.Connection) -> None:
    """DDL runs the functions of event triggers."""
    assert not classify("CREATE TABLE app.n (a int)", read(connection, "select 1")).binds
    connection.execute(
        SETUP + "create function et() returns event_trigger language plpgsql as "
        "$$begin perform set_config('app.x', '1', false); end$$;"
        "create event trigger et on ddl_command_end execute function app.et()"
    )
    try:
        assert classify("CREATE TABLE app.n (a int)", read(connection)).binds
    finally:
        connection.execute("drop event trigger et")


def test_trees_name_what_pg_depend_says(cluster: Cluster) -> None:
    """Whatever PostgreSQL notes that a view's query depends on is found in its tree: the check of
    the fields' names, over all of the server's own views and the views of a schema of ours."""
    conninfo = cluster.primary.conninfo("closure_test")
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(
            SETUP + "create type ct as (x int); create domain d as int;"
            "create function lt(ct, ct) returns bool language sql immutable as 'select true';"
            "create operator <<< (leftarg = ct, rightarg = ct, function = lt);"
            "create function f(int) returns int language sql as 'select $1';"
            "create aggregate agg(int) (sfunc = int4pl, stype = int);"
            "create function rows_(int) returns table (a app.d, b app.ct) language sql as "
            "'select $1, null::app.ct'; create table t (a int, c ct, e d[]);"
            "create view v as select app.agg(a) filter (where app.f(a) = 1), count(*), "
            "min(c::text) from app.t group by grouping sets ((a), ());"
            "create view v1 as select * from app.rows_(1) where b <<< row(1)::app.ct;"
            "create view v2 as select coalesce(e, '{}'), case when c <<< c then 1 end, "
            "row(1)::app.ct, array[1::app.d], nullif(app.f(1), 2) from app.t union select "
            "null, app.f(3), null, null, 4;"
            "create view v3 as select app.f(1) over_, rank() over (order by app.f(a)), "
            "app.agg(a) over (partition by app.f(a)) from app.t where a in (select app.f(2));"
        )
        if connection.info.server_version >= 170000:
            connection.execute(
                "create view v4 as select * from json_table('[1]', '$[*]' columns "
                "(a int path '$' default app.f(4) on empty)) j"
            )
        missing = []
        for oid, tree in connection.execute(
            "select oid, ev_action::text from pg_rewrite where ev_type = '1'"
        ).fetchall():
            named = uses(tree)
            for table, known in (
                ("pg_proc", named.functions | named.operators), ("pg_class", named.relations),
                ("pg_operator", named.operators), ("pg_type", named.types),
            ):  # fmt: skip
                depends = connection.execute(
                    f"select refobjid from pg_depend where classid = 'pg_rewrite'::regclass and "
                    f"objid = %s and refclassid = '{table}'::regclass and deptype = 'n' and not ("
                    f"refclassid = 'pg_class'::regclass and refobjid = "
                    f"(select ev_class from pg_rewrite where oid = %s))",
                    (oid, oid),
                ).fetchall()
                missing += [(oid, table, ref) for (ref,) in depends if ref not in known]
    assert not missing


def test_lists_of_trees_are_taken_apart() -> None:
    """Each default of an argument is a tree of its own, whatever its literals hold."""
    tree = r"({CONST :constvalue 4 [ 1 ]} {FUNCEXPR :args ({CONST :name a\{b}) :location 3})"
    assert len(items(tree)) == 2
    assert re.match(r"\{FUNCEXPR", items(tree)[1])


def test_a_kind_is_asked_for_by_name_alone(connection: psycopg.Connection) -> None:
    """A statement costs no following: what it names has its verdict, cast and operator too."""
    catalog = read(connection, "create type e as enum ('a'); create table t (a e)")
    assert classify("SELECT a FROM app.t WHERE a = 'a'::app.e", catalog).kind is Kind.READ
