"""What listeners of SQLAlchemy's own events may do, and the rules hold all the same."""

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import Session

import router
from router.errors import ReplicaWriteRefused
from router.sqlalchemy.session import _after_begin, watch_sessions
from tests.sqlalchemy.kit import EVERY_DOOR, EVERY_DRIVER, PORT, Routed, insert, rewrite

pytestmark = EVERY_DOOR


@pytest.mark.parametrize("said", ["SET LOCAL app.tenant = '1'", "SELECT 1"])
def test_a_begin_listener_leaves_an_explicit_transaction_on_the_primary(
    routed: Routed, said: str
) -> None:
    """What a ``begin`` listener executes makes no autobegun transaction of one that was asked for:
    its reads run on the primary."""
    sa.event.listen(routed.engine, "begin", lambda c: c.exec_driver_sql(said))
    with routed.engine.begin() as connection:
        assert routed.served(connection) == "primary"
    with Session(routed.engine) as session, session.begin():
        assert routed.served(session) == "primary"


def test_a_begin_listener_leaves_an_autobegun_connection_on_the_replica(routed: Routed) -> None:
    """What a ``begin`` listener sets where nobody asked for a transaction holds on the replica the
    read goes to."""
    sa.event.listen(
        routed.engine, "begin", lambda c: c.exec_driver_sql("SET LOCAL app.tenant = '1'")
    )
    tenant = sa.text("SELECT current_setting('app.tenant', true)")
    with routed.engine.connect() as connection:
        assert routed.served(connection) == "replica"
        assert connection.scalar(tenant) == "1"


def nested(routed: Routed, inner: str, *, before: str = "SELECT count(*) FROM item") -> None:
    """Have a listener execute `inner` on the same connection before each `before`."""

    def listen(connection: sa.Connection, _cursor: Any, statement: str, *_: Any) -> None:
        if statement == before:
            connection.exec_driver_sql(inner)

    sa.event.listen(routed.engine, "before_cursor_execute", listen)


COUNT = sa.text("SELECT count(*) FROM item")


def test_a_read_sees_what_a_listener_wrote_before_it(routed: Routed) -> None:
    """A read whose listener writes on the same connection is no longer a replica's."""
    nested(routed, "INSERT INTO item (name) VALUES ('nested')")
    with routed.engine.connect() as connection:
        assert connection.scalar(COUNT) == 1
        connection.rollback()
    assert routed.count() == 0


def test_a_read_finds_the_temporary_table_a_listener_made(routed: Routed) -> None:
    """A read whose listener makes a temporary table on the same connection reads that one."""
    routed.execute_on_primary("INSERT INTO item (name) VALUES ('of the real table')")
    routed.settle()
    nested(routed, "CREATE TEMPORARY TABLE item (id int)")
    with routed.engine.connect() as connection:
        assert connection.scalar(COUNT) == 0


def test_a_listeners_setting_holds_where_the_statement_was_sent(routed: Routed) -> None:
    """What a listener sets before a read that has to go to the primary holds on the primary."""
    tenant = "SELECT current_setting('app.tenant', true)"
    nested(routed, "SET LOCAL app.tenant = '7'", before=tenant)
    with routed.engine.connect() as connection:
        asked = sa.text(tenant).execution_options(router="primary")
        assert connection.scalar(asked) == "7"


def test_no_statement_runs_on_a_connection_that_was_given_back(routed: Routed) -> None:
    """A listener that has the statement's connection given back leaves it no cursor there, though
    nothing else was taken since."""
    ran: list[Any] = []
    given_back: list[Any] = []

    def listen(connection: sa.Connection, cursor: Any, statement: str, *_: Any) -> None:
        if not given_back and statement == COUNT.text:
            checkout = connection.connection.routed
            given_back.append(cursor)
            checkout.drop(checkout.last)

    def after(_c: Any, _cursor: Any, _s: str, _p: Any, context: Any, _m: bool) -> None:
        ran.append(context.cursor)

    sa.event.listen(routed.engine, "before_cursor_execute", listen)
    sa.event.listen(routed.engine, "after_cursor_execute", after)
    with routed.engine.connect() as connection:
        assert connection.scalar(COUNT) == 0
        assert given_back
        assert ran[0] is not given_back[0]


@pytest.mark.parametrize("new", ["INSERT INTO item (name) VALUES ('x') RETURNING id", "SELECT 5"])
def test_a_rewritten_statement_keeps_the_role_it_was_given(routed: Routed, new: str) -> None:
    """What a listener makes of a statement with router="replica" is still the replica's: a read
    runs there though it is pinned, and a write is refused."""
    rewrite(routed.engine, "SELECT 4", f"/* traced */ {new}")
    asked = sa.text("SELECT 4").execution_options(router="replica")
    with routed.paused(), router.request_context():
        with routed.engine.begin() as connection:
            insert(connection)
        with routed.engine.connect() as connection:
            if new == "SELECT 5":
                assert connection.scalar(asked) == 5
                assert connection.connection.routed.primary is None
            else:
                with pytest.raises(ReplicaWriteRefused):
                    connection.execute(asked)
    assert routed.count() == 1


def test_a_write_made_of_a_read_is_rolled_back_with_its_transaction(routed: Routed) -> None:
    """A pinned read of which a listener made a write is part of the transaction it runs in."""
    rewrite(routed.engine, "SELECT 4", "INSERT INTO item (name) VALUES ('x') RETURNING id")
    with router.using_primary(), routed.engine.connect() as connection:
        connection.execute(sa.text("SELECT 4"))
        connection.rollback()
    assert routed.count() == 0


def by_listener(engine: sa.Engine) -> list[str]:
    """Have a listener execute every statement in the dialect's place; what it did."""
    done: list[str] = []

    @sa.event.listens_for(engine, "do_execute")
    def execute(cursor: Any, statement: str, parameters: Any, _context: Any) -> bool:
        cursor.execute(statement, parameters)
        done.append(statement)
        return True

    @sa.event.listens_for(engine, "do_executemany")
    def executemany(cursor: Any, statement: str, parameters: Any, _context: Any) -> bool:
        cursor.executemany(statement, parameters)
        done.append(statement)
        return True

    @sa.event.listens_for(engine, "do_execute_no_params")
    def no_params(cursor: Any, statement: str, _context: Any) -> bool:
        cursor.execute(statement)
        done.append(statement)
        return True

    return done


@EVERY_DRIVER
@pytest.mark.parametrize("many", [False, True])
def test_a_write_that_a_listener_executes_pins(routed: Routed, many: bool) -> None:
    """A do_execute listener that executes a write itself pins as the dialect would, so that the
    read after it sees it; and the read is the replica's before."""
    done = by_listener(routed.engine)
    write = sa.text("INSERT INTO item (name) VALUES (:name)")
    with routed.paused(), router.request_context():
        with routed.engine.connect() as connection:
            assert routed.served(connection) == "replica"
        with routed.engine.begin() as connection:
            connection.execute(write, [{"name": "a"}, {"name": "b"}] if many else {"name": "a"})
            assert routed.served(connection) == "primary"
        with routed.engine.connect() as connection:
            assert connection.scalar(COUNT) == (2 if many else 1)
    assert len([statement for statement in done if "item" in statement]) == 2
    assert sum(routed.engine.router.stats()["decisions"]["primary"].values()) == 3


def test_what_a_listener_executes_goes_where_its_options_say(routed: Routed) -> None:
    """A statement that a listener executes keeps its role, its setting goes along with it to the
    other node, and a stream is one."""
    by_listener(routed.engine)
    tenant = sa.text("SELECT current_setting('app.tenant', true), inet_server_port()")
    with routed.engine.connect() as connection:
        connection.exec_driver_sql("SET LOCAL app.tenant = '7'", execution_options={})
        for role in ("replica", "primary"):
            said, port = connection.execute(tenant.execution_options(router=role)).one()
            assert (said, routed.name_of(port)) == ("7", role)
        with pytest.raises(ReplicaWriteRefused):
            insert(connection, router="replica")
    with routed.engine.begin() as connection:
        rows = connection.execution_options(stream_results=True).execute(
            sa.text("SELECT n, inet_server_port() FROM generate_series(1, 2000) n")
        )
        assert routed.name_of(rows.all()[-1][1]) == "primary"
    assert routed.engine.pool.checkedout() == 0


def test_a_listener_in_a_transaction_goes_where_its_options_say(routed: Routed) -> None:
    """In a transaction on the primary a read that a listener executes obeys its option too."""
    by_listener(routed.engine)
    with routed.engine.begin() as connection:
        insert(connection)
        assert routed.served(connection) == "primary"
        found = connection.execute(PORT.execution_options(router="replica"))
        assert routed.name_of(found.scalar_one()) == "replica"


def test_a_listener_that_only_looks_on_changes_nothing(routed: Routed) -> None:
    """Where a do_execute listener leaves it to the dialect, statements are routed as always."""
    seen: list[str] = []
    sa.event.listen(routed.engine, "do_execute", lambda _c, said, _p, _x: seen.append(said))
    with routed.engine.connect() as connection:
        assert routed.served(connection) == "replica"
    with routed.paused(), router.request_context():
        with routed.engine.begin() as connection:
            insert(connection)
        with routed.engine.connect() as connection:
            assert connection.scalar(COUNT) == 1
    assert len([statement for statement in seen if "item" in statement]) == 2


def test_an_after_begin_listener_older_than_the_engine_keeps_reads_on_replicas(
    routed: Routed,
) -> None:
    """An after_begin listener that was there before the first routed engine executes its
    statements in a transaction already known to be autobegun."""
    event.remove(Session, "after_begin", _after_begin)

    @event.listens_for(Session, "after_begin")
    def tenant(_session: Session, _transaction: Any, connection: sa.Connection) -> None:
        connection.exec_driver_sql("SET LOCAL app.tenant = '7'")

    try:
        watch_sessions()
        with Session(routed.engine) as session:
            assert routed.served(session) == "replica"
    finally:
        event.remove(Session, "after_begin", tenant)
