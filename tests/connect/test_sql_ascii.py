"""A database in SQL_ASCII, whose text psycopg gives as bytes."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

import router
import router.psycopg
from router.testing import Cluster

NAME = "in_sql_ascii"


@pytest.fixture(scope="module")
def urls(cluster: Cluster) -> Iterator[tuple[str, ...]]:
    primary = cluster.primary
    options = "ENCODING 'SQL_ASCII' TEMPLATE template0 LOCALE 'C' LOCALE_PROVIDER libc"
    primary.execute(f"CREATE DATABASE {NAME} {options}")
    try:
        primary.execute("CREATE FUNCTION one() RETURNS int STABLE RETURN 1", dbname=NAME)
        cluster.wait_caught_up()
        yield cluster.urls(NAME)
    finally:
        primary.execute(f"DROP DATABASE {NAME} WITH (FORCE)")


@pytest.mark.parametrize("driver", ["psycopg2", "pg8000"])
def test_reads_run_on_replicas(cluster: Cluster, urls: tuple[str, ...], driver: str) -> None:
    """With a driver that works there, an engine knows the servers and their functions."""
    primary, *replicas = urls
    engine = router.create_engine(primary.replace(":", f"+{driver}:", 1), replicas)
    try:
        engine.router.start()
        with engine.connect() as connection:
            port = connection.scalar(sa.text("SELECT inet_server_port() + one() - one()"))
        assert port in {replica.port for replica in cluster.replicas}
    finally:
        engine.dispose()


def test_a_native_pool_reads_on_replicas(cluster: Cluster, urls: tuple[str, ...]) -> None:
    """A psycopg pool gives bytes there, from a replica as from any server."""
    primary, *replicas = urls
    with (
        router.psycopg.ConnectionPool(primary, replicas=replicas) as pool,
        pool.connection() as connection,
    ):
        row = connection.execute("SELECT 'x'::text, inet_server_port()").fetchone()
    assert row is not None
    text, port = row
    assert text == b"x"
    assert port in {replica.port for replica in cluster.replicas}
