"""What a database administrator sees of the router's statements and connections."""

import logging
from collections.abc import Mapping
from typing import Any

import pytest
import sqlalchemy as sa

import router
from tests.sqlalchemy.kit import EVERY_DRIVER, Routed, insert

NAME = sa.text("SELECT current_setting('application_name')")


@EVERY_DRIVER
def test_connections_are_named_after_their_node(routed: Routed) -> None:
    """application_name says pg-router and the node's name, on every driver."""
    engine = routed.another()
    with router.request_context(), engine.connect() as connection:
        name = connection.scalar(NAME)
        assert name in ("pg-router replica1", "pg-router replica2")
        insert(connection)
        assert connection.scalar(NAME) == "pg-router primary"
        connection.rollback()


@EVERY_DRIVER
def test_a_name_of_the_users_own_stays(routed: Routed) -> None:
    """Who names their connections finds that name."""
    own: dict[str, Any] = {"asyncpg_async": {"server_settings": {"application_name": "shop"}}}.get(
        routed.door, {"application_name": "shop"}
    )
    with routed.another(connect_args=own).connect() as connection:
        assert connection.scalar(NAME) == "shop"


@EVERY_DRIVER
def test_statements_say_where_they_went_and_why(routed: Routed) -> None:
    """With sql_comment the server sees node and reason behind each statement, and without it
    the statement as it was written."""
    engine = routed.another(sql_comment=True)
    shown = sa.text("SELECT current_query() WHERE :n = 1")
    with router.request_context(), engine.connect() as connection:
        text = connection.scalar(shown, {"n": 1}) or ""
        assert text.endswith("',router_reason='read'*/")
        assert "/*router_node='replica" in text
        insert(connection)
        text = connection.scalar(shown, {"n": 1}) or ""
        assert text.endswith("/*router_node='primary',router_reason='transaction'*/")
        connection.rollback()
    with routed.engine.connect() as connection:
        assert "router" not in (connection.scalar(shown, {"n": 1}) or "")


def test_echo_shows_the_node(routed: Routed, caplog: pytest.LogCaptureFixture) -> None:
    """With echo each statement is preceded by its node and the reason."""
    engine = routed.another()
    with caplog.at_level(logging.INFO, "sqlalchemy.engine"), engine.connect() as connection:
        connection.execute(sa.text("SELECT 1"))
    told = [r.getMessage() for r in caplog.records if r.name.startswith("sqlalchemy.engine")]
    at = next(i for i, message in enumerate(told) if message.endswith(": a read"))
    assert told[at].startswith("replica")
    assert "SELECT 1" in told[at + 1 : at + 3]  # behind SQLAlchemy's "BEGIN (implicit)"


@EVERY_DRIVER
def test_no_event_tells_a_parameter(routed: Routed) -> None:
    """A function that puts its argument into a statement has PostgreSQL quote that statement as
    the context of its error; what is told of the error is its message alone."""
    routed.execute_on_primary(
        "CREATE FUNCTION keep(name text) RETURNS int LANGUAGE plpgsql AS $$ BEGIN "
        "EXECUTE 'INSERT INTO item (name) VALUES (' || quote_literal(name) || ')'; "
        "RETURN 1; END $$"
    )
    engine = routed.another(read_functions=["keep"])
    routed.cluster.wait_caught_up()
    engine.router.refresh()
    told: list[Mapping[str, Any]] = []
    engine.router.telemetry.hooks.append(lambda name, fields: told.append(fields))
    with router.request_context(), engine.connect() as connection:
        connection.execute(sa.text("SELECT keep(:name)"), {"name": "hunter2"})
        connection.commit()
    (healed,) = told
    assert healed["reason"] == "25006: cannot execute INSERT in a read-only transaction"
    assert "hunter2" not in str(told)
