"""``prepared_statements=False``: what drivers keep on the servers."""

import sqlalchemy as sa

from router.sqlalchemy import RoutedEngine
from tests.sqlalchemy.kit import EVERY_DRIVER, Routed

pytestmark = EVERY_DRIVER

KEPT = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%kept %'"


def kept(engine: RoutedEngine) -> int:
    """How many prepared statements one session has after three were run seven times each."""
    with engine.connect() as connection:
        for n in (1, 2, 3) * 7:
            connection.execute(sa.text(f"SELECT {n} AS x /* kept {n} */"))
        text = sa.text(KEPT).execution_options(router="replica")  # the session that ran them
        return int(connection.execute(text).scalar_one())


def test_no_statement_is_kept_prepared(routed: Routed) -> None:
    """A session holds none of the statements run before; those that prepare do hold them else."""
    assert kept(routed.another(prepared_statements=False)) == 0
    if routed.door in ("psycopg", "psycopg_async", "asyncpg_async"):
        assert kept(routed.engine) >= 3
