"""DDL that no statement shows: its statements are judged by the catalog as it is afterwards."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from router import request_context
from tests.probing import until
from tests.sqlalchemy.kit import Routed

REPLACE = (
    "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS "
    "$$ SELECT 1 FROM (SELECT pg_advisory_lock(1)) x $$"
)


def executed(text: str, **parameters: Any) -> Callable[[Routed], None]:
    """Runs `text` with `parameters`, and commits."""

    def run(routed: Routed) -> None:
        with routed.engine.connect() as connection:
            connection.execute(sa.text(text), parameters)
            connection.commit()

    return run


def handed_out(routed: Routed) -> None:
    """Over the driver's own connection."""
    with routed.engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        driver.execute(REPLACE)
        driver.commit()


def prepared(routed: Routed) -> None:
    """In two phases, whose second is sent by another connection."""
    with routed.engine.connect() as connection:
        connection.execute(sa.text(REPLACE))
        connection.execute(sa.text("PREPARE TRANSACTION 'unseen'"))
    until(lambda: routed.engine.router.catalog.current.loaded)
    other = routed.another()
    with other.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("COMMIT PREPARED 'unseen'"))


def another_router(routed: Routed) -> None:
    """By another engine of this process."""
    with routed.another().begin() as connection:
        connection.execute(sa.text(REPLACE))


WAYS: dict[str, Callable[[Routed], None]] = {
    "a function": executed("SELECT run(:sql)", sql=REPLACE),
    "a trigger": executed("INSERT INTO job VALUES (:sql)", sql=REPLACE),
    "a block": executed(f"DO $do$ DECLARE t text := $x${REPLACE}$x$; BEGIN EXECUTE t; END $do$"),
    "a procedure": executed("CALL running(:sql)", sql=REPLACE),
    "the driver's connection": handed_out,
    "COMMIT PREPARED": prepared,
    "another Router": another_router,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.doors("psycopg")
def test_what_a_replaced_function_does_is_known(routed: Routed, way: str) -> None:
    """Whoever ran the DDL, and however it was hidden, a call of the function is soon a write."""
    routed.execute_on_primary(
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE FUNCTION run(text) RETURNS void LANGUAGE plpgsql AS 'BEGIN EXECUTE $1; END'",
        "CREATE PROCEDURE running(text) LANGUAGE plpgsql AS 'BEGIN EXECUTE $1; END'",
        "CREATE TABLE job (sql text)",
        "CREATE FUNCTION done() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN EXECUTE new.sql; RETURN new; END'",
        "CREATE TRIGGER done BEFORE INSERT ON job FOR EACH ROW EXECUTE FUNCTION done()",
    )
    routed.settle()
    router = routed.engine.router
    until(lambda: router.intent("SELECT f()").kind.name == "READ")
    with request_context():
        WAYS[way](routed)
    until(lambda: router.intent("SELECT f()").kind.name == "WRITE")
