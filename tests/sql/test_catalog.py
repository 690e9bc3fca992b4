"""The catalog as a real server tells it: on the primary, on a replica, to any role."""

from collections.abc import Iterator

import psycopg
import pytest

from router.sql.catalog import BUILTIN, Catalog
from router.sql.classifier import classify
from router.sql.intent import Kind
from router.testing import Cluster
from tests.sql.statements import CATALOG, SCHEMA, STATEMENTS, Case

pytestmark = pytest.mark.once  # it is about the server, not about Python

NAME = "catalog_test"


def read(conninfo: str) -> Catalog:
    with psycopg.connect(conninfo) as connection:
        return Catalog.from_rows(
            {part: connection.execute(sql).fetchall() for part, sql in Catalog.QUERIES.items()}
        )


@pytest.fixture(scope="module")
def servers(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with a database that holds SCHEMA, and a role that may do nothing."""
    primary = cluster.primary
    primary.execute(f"create database {NAME}")
    primary.execute("create role nobody_much login")
    primary.execute(SCHEMA, dbname=NAME)
    for replica in cluster.replicas:
        replica.wait_caught_up()
    yield cluster
    primary.execute(f"drop database {NAME} with (force)")
    primary.execute("drop role nobody_much")


@pytest.fixture(scope="module")
def catalog(servers: Cluster) -> Catalog:
    return read(servers.primary.conninfo(NAME))


@pytest.mark.parametrize("case", STATEMENTS, ids=lambda c: c.sql[:60] or "empty")
def test_agrees_with_the_table(catalog: Catalog, case: Case) -> None:
    """Read from a server that has run SCHEMA, the catalog gives every statement its kind."""
    intent, expected = classify(case.sql, catalog), classify(case.sql, CATALOG)
    assert intent.kind.name == case.kind, intent
    assert (intent.binds, intent.ddl) == (expected.binds, expected.ddl), intent


def test_is_the_same_for_everybody_and_everywhere(servers: Cluster, catalog: Catalog) -> None:
    """A replica, and a role without any right, see what the superuser sees on the primary."""
    there = read(servers.replicas[0].conninfo(NAME))
    weak = read(f"{servers.replicas[0].conninfo(NAME)} user=nobody_much")
    for other in (there, weak):
        assert repr(other) == repr(catalog)
        for case in STATEMENTS:
            assert classify(case.sql, other) == classify(case.sql, catalog), case


def test_says_what_it_holds(catalog: Catalog) -> None:
    """Its repr tells a loaded catalog from none, by what it holds."""
    assert repr(BUILTIN) == "<Catalog not loaded>"
    assert repr(catalog).startswith(f"<Catalog of {len(catalog.relations)} relations, ")


def test_ddl_is_seen_when_read_again(servers: Cluster) -> None:
    """A function, a view and a table that changed are judged anew by a catalog read after it."""
    ask = "SELECT changing(1), * FROM changing_view, changing_table"
    again = "create or replace function changing(int) returns int language sql as"
    run = servers.primary.execute
    run(
        "create function changing(int) returns int language sql immutable as 'select $1';"
        "create view changing_view as select 1 as a; create table changing_table (b int)",
        dbname=NAME,
    )
    assert classify(ask, read(servers.primary.conninfo(NAME))).kind is Kind.READ
    for change, back in (
        (
            f"{again} 'select touch(1)'",
            f"{again} 'select $1'",
        ),
        ("alter table changing_table set unlogged", "alter table changing_table set logged"),
        (
            "create or replace view changing_view as select random()::int as a where touch(1) = 1",
            "create or replace view changing_view as select 1 as a",
        ),
    ):
        run(change, dbname=NAME)
        assert classify(ask, read(servers.primary.conninfo(NAME))).kind is Kind.WRITE
        run(back, dbname=NAME)
        assert classify(ask, read(servers.primary.conninfo(NAME))).kind is Kind.READ
