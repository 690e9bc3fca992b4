"""Settings made by set_config() through SQLAlchemy: no node lacks them."""

from typing import Any

import pytest
import sqlalchemy as sa

import router
from tests.sqlalchemy.kit import EVERY_DRIVER, Routed

SEEN = sa.text("SELECT inet_server_port(), current_setting('app.x', true)")

pytestmark = [EVERY_DRIVER, pytest.mark.once]


def seen(routed: Routed, connection: sa.Connection) -> dict[str, Any]:
    """The value of app.x as a read sees it, and as one on the primary does, by role."""
    port, there = connection.execute(SEEN).one()
    ((at_primary, here),) = connection.execute(SEEN.execution_options(router="primary")).all()
    assert routed.name_of(at_primary) == "primary"
    return {routed.name_of(port): there, "on the primary": here}


EVERYWHERE = {"replica": "7", "on the primary": "7"}


def test_a_function_of_sqlalchemys_own(routed: Routed) -> None:
    """func.set_config() binds all three arguments; reads go on on the replicas."""
    for local in (False, True):
        with router.request_context(), routed.engine.connect() as connection:
            connection.execute(sa.select(sa.func.set_config("app.x", "7", local)))
            assert seen(routed, connection) == EVERYWHERE
            connection.execute(sa.text("INSERT INTO item (name) VALUES ('a')"))
            connection.commit()
            value = connection.execute(SEEN).one()[1]
            assert value in ((None, "") if local else ("7",))
    with routed.engine.connect() as connection:
        assert seen(routed, connection)["on the primary"] in (None, "")


def test_a_text_with_bound_parameters(routed: Routed) -> None:
    """By names of the text's own."""
    sql = sa.text("SELECT set_config(:name, :value, :here)")
    with router.request_context(), routed.engine.connect() as connection:
        connection.execute(sql, {"name": "app.x", "value": "7", "here": False})
        assert seen(routed, connection) == EVERYWHERE
    sets = [{"name": "app.x", "value": str(n), "here": False} for n in range(8)]
    with router.request_context(), routed.engine.connect() as connection:
        connection.execute(sql, sets)
        assert seen(routed, connection) == EVERYWHERE


def test_a_text_of_the_drivers(routed: Routed) -> None:
    """By exec_driver_sql, and by a cursor of raw_connection()."""
    positional = routed.engine.dialect.positional
    mark = "$1" if routed.door == "asyncpg_async" else "%s" if positional else "%(here)s"
    sql = f"SELECT set_config('app.x', '7', {mark})"
    given: Any = (False,) if positional else {"here": False}
    with router.request_context(), routed.engine.connect() as connection:
        connection.exec_driver_sql(sql, given)
        assert seen(routed, connection) == EVERYWHERE
    if not routed.engine.dialect.is_async:
        with router.request_context(), routed.engine.connect() as connection:
            cursor: Any = connection.connection.cursor()
            cursor.execute(sql, given)
            cursor.close()
            assert seen(routed, connection) == EVERYWHERE


def test_what_is_no_plain_value_binds(routed: Routed) -> None:
    """A value in the statement that the router cannot read keeps the checkout on the primary."""
    here: sa.ColumnElement[bool] = sa.literal_column("(1 = 0)")
    with router.request_context(), routed.engine.connect() as connection:
        connection.execute(sa.select(sa.func.set_config("app.x", "7", here)))
        assert seen(routed, connection) == {"primary": "7", "on the primary": "7"}


def test_a_computed_value_is_what_it_gave(routed: Routed) -> None:
    """It is not computed again on the node that is taken later, whatever characters are in it."""
    sql = sa.text(r"SELECT set_config('app.x', statement_timestamp()::text || :rest, :here)")
    for here in (False, True):
        with router.request_context(), routed.engine.connect() as connection:
            connection.execute(sql, {"rest": "'%s%%\\:x", "here": here})
            found = seen(routed, connection)
            assert set(found) == {"replica", "on the primary"}
            assert len(set(found.values())) == 1
            assert str(found["replica"]).endswith("'%s%%\\:x")


def test_a_stream_is_not_lost(routed: Routed) -> None:
    """Its server-side cursor sets when a row is fetched: the checkout is bound."""
    if routed.door == "pg8000":
        return  # it has none
    sql = sa.text("SELECT set_config('app.x', '7', false)")
    with router.request_context(), routed.engine.connect() as connection:
        connection.execution_options(stream_results=True).execute(sql).all()
        assert seen(routed, connection) == {"primary": "7", "on the primary": "7"}
    with routed.engine.connect() as connection:
        assert seen(routed, connection)["on the primary"] in (None, "")


def test_a_listener_that_puts_a_setting_in_front(routed: Routed) -> None:
    """Of a write: what it sets for the session binds, what is local does not."""
    if routed.door == "asyncpg_async":
        return  # it takes one statement at a time
    local = False

    @sa.event.listens_for(routed.engine, "before_cursor_execute", retval=True)
    def before(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> Any:
        if statement.startswith("INSERT"):
            statement = f"SELECT set_config('app.x', '7', {local}); {statement}"
        return statement, parameters

    for local in (True, False):
        with router.request_context(), routed.engine.connect() as connection:
            connection.execute(sa.text("INSERT INTO item (name) VALUES ('a')"))
            connection.commit()
            routed.settle()
            role = "replica" if local else "primary"
            assert routed.served(connection) == role
            if not local:
                assert seen(routed, connection) == {"primary": "7", "on the primary": "7"}
