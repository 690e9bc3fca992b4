"""``schema=``: unqualified names mean an application's own schema, on every node."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

import router
from router.sqlalchemy import RoutedEngine
from tests.conftest import Database
from tests.pgbouncer import bouncer
from tests.sqlalchemy.kit import EVERY_DRIVER, THROUGH, Routed

OWN = "Shop_2"
THROUGH_PGBOUNCER = pytest.mark.doors("psycopg" + THROUGH, "asyncpg_async" + THROUGH)
WHERE = sa.text("SELECT current_setting('search_path'), inet_server_port() FROM thing")


@EVERY_DRIVER
def test_names_mean_the_own_schema_on_every_node(routed: Routed) -> None:
    """A table is made there and found there, by writes on the primary and by reads on replicas;
    what the caller sets for a session is put back to it."""
    other = "CREATE TABLE public.thing (id int)"
    engine = routed.another(schema=[OWN, "public"])
    assert router.create_schema(engine) is True
    assert router.create_schema(engine) is False
    with engine.begin() as connection:
        connection.execute(sa.text(other))
        connection.execute(sa.text("CREATE TABLE thing AS SELECT 1 AS id"))
    routed.settle()
    engine.router.refresh()
    with engine.connect() as connection:
        routed.await_replica(connection)
        assert connection.scalar(sa.text("SELECT count(*) FROM thing")) == 1
        path, port = connection.execute(WHERE).one()
        assert (path, routed.name_of(port)) == (f'"{OWN}","public"', "replica")
        connection.execute(sa.text("SET search_path = public"))
        assert connection.scalar(sa.text("SELECT count(*) FROM thing")) == 0
    with router.using_primary(), engine.connect() as connection:
        path, port = connection.execute(WHERE).one()
        assert (path, routed.name_of(port)) == (f'"{OWN}","public"', "primary")
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM thing")) == 1


@EVERY_DRIVER
def test_other_settings_of_the_connection_stay(routed: Routed) -> None:
    """What connect_args ask of the server holds beside the path."""
    wanted = {
        "pg8000": {"startup_params": {"work_mem": "8MB"}},
        "asyncpg_async": {"server_settings": {"work_mem": "8MB"}},
    }.get(routed.door, {"options": "-c work_mem=8MB"})
    engine = routed.another(schema=OWN, connect_args=wanted)
    with engine.connect() as connection:
        shown = "SELECT current_setting('work_mem'), current_setting('search_path')"
        assert tuple(connection.execute(sa.text(shown)).one()) == ("8MB", f'"{OWN}"')


@THROUGH_PGBOUNCER
def test_behind_pgbouncer_its_own_configuration_brings_it(routed: Routed) -> None:
    """What ``pg-router pgbouncer-ini`` writes begins every server session in the schema; a
    PgBouncer that does not is found out before a statement lands in other tables."""
    wanted = [OWN, "public"]
    own: dict[str, Any]
    for own in ({}, {"replicas": []}):
        with pytest.raises(router.ConfigError, match=r"schema: behind PgBouncer .*pgbouncer-ini"):
            count(routed.another(schema=wanted, **own))
    straight = router.Config.from_url(routed.cluster.primary.url(routed.dbname), schema=wanted)
    router.create_schema(straight)
    routed.execute_on_primary(
        f'CREATE TABLE "{OWN}".item AS SELECT 1 AS id FROM generate_series(1, 7)'
    )
    routed.settle()
    with bouncer(routed.cluster, routed.dbname, schema=wanted) as (primary, replicas):
        url = primary.replace(
            "postgresql:", f"postgresql+{routed.door.removesuffix('_async')}:", 1
        )
        engine = routed.another(url=url, replicas=replicas, schema=wanted)
        assert count(engine) == 7
        with router.using_primary():
            assert count(engine) == 7


def count(engine: RoutedEngine) -> int:
    with engine.connect() as connection:
        return int(connection.scalar(sa.text("SELECT count(*) FROM item")) or 0)


def test_an_engine_without_replicas_has_it_too(database: Database) -> None:
    """One server alone is no exception, and the URL may say it."""
    engine = router.create_engine(f"{database.primary_url('psycopg')}?router_schema={OWN}")
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SHOW search_path")) == f'"{OWN}"'
    engine.dispose()


def test_processes_that_start_together_make_it_once(database: Database) -> None:
    """Many who ask at the same time all succeed, and one of them has made it."""
    config = router.Config.from_url(database.primary_url(), schema=OWN)
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda _: router.create_schema(config), range(8)))
    assert sum(made) == 1


@pytest.mark.parametrize(
    "name", ["a-b", 'a"b', "a b", "pg_temp", "x" * 64, "ünï", "a;DROP TABLE item"]
)
def test_a_name_that_is_none_is_refused(name: str) -> None:
    """Nothing that would have to be quoted with care gets as far as a server."""
    with pytest.raises(router.ConfigError, match=r"^schema: .* is no name of letters"):
        router.Config.from_url("postgresql://h/d", schema=name)


def test_it_must_be_configured_to_be_made() -> None:
    """Without a name there is nothing to make, and the error says where to give it."""
    with pytest.raises(router.ConfigError, match=r"^schema: none is configured"):
        router.create_schema("postgresql://h/d")
