"""The engine is a drop-in: every door of SQLAlchemy's API leads through the router."""

import os
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

import router
from router.cluster.router import Router
from router.sqlalchemy import router_of
from router.testing import Proxy
from tests.sqlalchemy.kit import EVERY_DOOR, PORT, SYNCHRONOUS, Routed, insert, rewrite

pytestmark = EVERY_DOOR


class Base(DeclarativeBase):
    """Declarative base of these tests."""


class Item(Base):
    """The table every scenario has."""

    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


def port_of(dbapi_connection: Any) -> int:
    """Where a real connection leads; fails for anything else."""
    driver = getattr(dbapi_connection, "driver_connection", dbapi_connection)
    if hasattr(driver, "info"):
        return int(driver.info.port)
    return int(driver._addr[1])


def replica_hosts(routed: Routed) -> list[str]:
    return [f"{r.host}:{r.port}" for r in routed.cluster.replicas]


@pytest.fixture
def by_hand(routed: Routed) -> Iterator[list[sa.Engine]]:
    """Engines appended here are disposed of when the test ends."""
    engines: list[sa.Engine] = []
    yield engines
    for engine in engines:
        engine.dispose()


def test_create_engine_with_the_plugin_by_keyword(
    routed: Routed, by_hand: list[sa.Engine]
) -> None:
    """sqlalchemy.create_engine(url, plugins=["router"], replicas=[…]) routes."""
    url = routed.cluster.primary.url(routed.dbname, driver="psycopg")
    engine = sa.create_engine(url, plugins=["router"], replicas=replica_hosts(routed))
    by_hand.append(engine)
    assert type(engine) is sa.Engine
    assert isinstance(router_of(engine), Router)
    with engine.connect() as connection:
        assert routed.served(connection) == "replica"


def test_create_engine_by_url_alone(routed: Routed, by_hand: list[sa.Engine]) -> None:
    """A URL with ?plugin=router&replica=… is enough, and the engine's own URL is clean."""
    url = routed.cluster.primary.url(routed.dbname, driver="psycopg")
    query = "&".join(f"replica={host}" for host in replica_hosts(routed))
    engine = sa.create_engine(f"{url}?plugin=router&{query}&consistency=time&pin_duration=3")
    by_hand.append(engine)
    assert not engine.url.query
    assert router_of(engine).config.pin_duration == 3.0
    with engine.connect() as connection:
        assert routed.served(connection) == "replica"


def test_engine_from_config(routed: Routed, by_hand: list[sa.Engine]) -> None:
    """A configuration file's strings are enough, pool sizes included."""
    configuration = {
        "sqlalchemy.url": routed.cluster.primary.url(routed.dbname, driver="psycopg"),
        "sqlalchemy.plugins": ["router"],
        "sqlalchemy.replicas": ",".join(replica_hosts(routed)),
        "sqlalchemy.pool_size": "2",
        "sqlalchemy.blacklist_duration": "7",
    }
    engine = sa.engine_from_config(configuration)
    by_hand.append(engine)
    assert router_of(engine).config.blacklist_duration == 7.0
    with engine.connect() as connection:
        assert routed.served(connection) == "replica"


def test_orm_unit_of_work(routed: Routed) -> None:
    """A session reads on a replica, writes on the primary, and refreshes what it wrote there."""
    make = sessionmaker(routed.engine)
    with make() as session:
        assert session.get(Item, 1) is None
        item = Item(name="first")
        session.add(item)
        session.commit()
        assert item.name == "first"  # expired by commit: read again, and found
        item.name = "second"
        session.commit()
    with make.begin() as session:
        assert session.scalars(sa.select(Item.name)).all() == ["second"]


def test_orm_bulk_update_and_delete_run_on_the_primary(routed: Routed) -> None:
    """ORM-enabled UPDATE and DELETE with synchronize_session="fetch" act on the primary."""
    with Session(routed.engine) as session:
        session.add_all([Item(name="a"), Item(name="b")])
        session.commit()
        update = sa.update(Item).values(name="c").where(Item.name == "a")
        session.execute(update, execution_options={"synchronize_session": "fetch"})
        session.execute(
            sa.delete(Item).where(Item.name == "b"),
            execution_options={"synchronize_session": "fetch"},
        )
        session.commit()
        assert session.scalars(sa.select(Item.name)).all() == ["c"]


def test_with_for_update_runs_on_the_primary(routed: Routed) -> None:
    """A SELECT … FOR UPDATE of the ORM locks on the primary."""
    with Session(routed.engine) as session:
        session.execute(sa.select(Item).with_for_update()).all()
        assert session.connection().connection.routed.primary is not None


def test_inspect_and_create_all(routed: Routed) -> None:
    """Reflection and DDL work; a table made just now is found at once."""
    metadata = sa.MetaData()
    sa.Table("made", metadata, sa.Column("id", sa.Integer, primary_key=True))
    metadata.create_all(routed.engine)
    assert set(sa.inspect(routed.engine).get_table_names()) == {"item", "made"}
    metadata.drop_all(routed.engine)
    assert sa.inspect(routed.engine).get_table_names() == ["item"]


def test_raw_connection_cursors_are_routed(routed: Routed) -> None:
    """raw_connection() gives cursors that read on a replica and write on the primary."""
    raw = routed.engine.raw_connection()
    try:
        cursor: Any = raw.cursor()
        with cursor:
            cursor.execute("SELECT inet_server_port()")
            assert routed.name_of(cursor.fetchone()[0]) == "replica"
            marker = "$1" if routed.door == "asyncpg_async" else "%s"
            cursor.execute(f"INSERT INTO item (name) VALUES ({marker})", ("raw",))
            cursor.execute("SELECT inet_server_port()")
            assert routed.name_of(cursor.fetchone()[0]) == "primary"
        raw.commit()
    finally:
        raw.close()
    assert routed.count() == 1


@SYNCHRONOUS
def test_the_driver_connection_is_the_primarys(routed: Routed) -> None:
    """driver_connection is a psycopg connection to the primary, and the checkout stays on it."""
    with routed.engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        with driver.cursor() as cursor, cursor.copy("COPY item (name) FROM STDIN") as copy:
            copy.write("one\ntwo\n")
        assert routed.served(connection) == "primary"
        connection.commit()
    assert routed.count() == 2


def test_pool_events_see_real_driver_connections(routed: Routed) -> None:
    """Listeners for connect and checkout get the driver's own connections, on every node."""
    seen: list[tuple[str, Any]] = []

    def connected(dbapi_connection: Any, _record: Any) -> None:
        seen.append(("connect", dbapi_connection))

    def checked_out(dbapi_connection: Any, _record: Any, _proxy: Any) -> None:
        seen.append(("checkout", dbapi_connection))

    sa.event.listen(routed.engine, "connect", connected)
    sa.event.listen(routed.engine, "checkout", checked_out)
    with routed.engine.connect() as connection:
        connection.execute(PORT)
        insert(connection)
    assert {kind for kind, _ in seen} == {"connect", "checkout"}
    assert {routed.name_of(port_of(c)) for _, c in seen} == {"primary", "replica"}
    connected_first = [c for kind, c in seen if kind == "connect"]
    assert all(c in connected_first for kind, c in seen if kind == "checkout")


def test_a_connect_listener_prepares_every_node(routed: Routed) -> None:
    """What a connect listener sets on a connection is there on replicas and primary alike."""

    def connected(dbapi_connection: Any, _record: Any) -> None:
        before, dbapi_connection.autocommit = dbapi_connection.autocommit, True
        cursor = dbapi_connection.cursor()
        cursor.execute("SET application_name = 'listener'")
        cursor.close()
        dbapi_connection.autocommit = before

    sa.event.listen(routed.engine, "connect", connected)
    name = sa.text("SELECT current_setting('application_name')")
    with routed.engine.connect() as connection:
        assert connection.scalar(name) == "listener"
        insert(connection)
        assert connection.scalar(name) == "listener"


def test_cursor_execute_events_fire_once_per_statement(routed: Routed) -> None:
    """A before_cursor_execute listener sees each statement once, with the real cursor."""
    seen = []

    def before(_c: Any, cursor: Any, statement: str, *_: Any) -> None:
        seen.append(
            (statement, port_of(getattr(cursor, "_adapt_connection", None) or cursor.connection))
        )

    sa.event.listen(routed.engine, "before_cursor_execute", before)
    with routed.engine.connect() as connection:
        port = connection.execute(PORT).scalar_one()
    assert seen == [("SELECT inet_server_port()", port)]


def test_a_statement_rewritten_by_a_listener_is_routed_by_its_new_text(routed: Routed) -> None:
    """A before_cursor_execute listener that turns a read into a write reaches the primary."""
    insertion = "INSERT INTO item (name) VALUES ('rewritten') RETURNING inet_server_port()"
    rewrite(routed.engine, "SELECT 'rewrite me'", insertion)
    with routed.engine.connect() as connection:
        port = connection.execute(sa.text("SELECT 'rewrite me'")).scalar_one()
        connection.commit()
    assert routed.name_of(port) == "primary"
    assert routed.count() == 1


@pytest.mark.parametrize("within", ["a transaction", "a pinned request"])
def test_a_write_that_a_listener_made_of_a_read_pins(routed: Routed, within: str) -> None:
    """A read that was on its way to the primary and is a write now pins as any write does."""
    insertion = "INSERT INTO item (name) VALUES ('rewritten') RETURNING inet_server_port()"
    rewrite(routed.engine, "SELECT 'rewrite me'", insertion)
    cluster = routed.engine.router.cluster
    with router.request_context() as context, routed.engine.connect() as connection:
        if within == "a transaction":
            connection.begin()
            connection.execute(PORT)
            assert context.pins.get(cluster) is None
        else:
            insert(connection)
            connection.commit()
        before = context.pins.get(cluster)
        with router.using_primary() if before else nullcontext():
            connection.execute(sa.text("SELECT 'rewrite me'"))
        connection.commit()
        after = context.pins.get(cluster)
    assert after is not None
    assert before is None or after.at > before.at


def test_a_statement_commented_by_a_tracer_stays_on_the_replica(routed: Routed) -> None:
    """A comment added per request changes neither the node nor the classifier's cache."""

    def trace(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> Any:
        return f"{statement} /*traceparent='00-{os.urandom(8).hex()}'*/", parameters

    sa.event.listen(routed.engine, "before_cursor_execute", trace, retval=True)
    before = len(routed.engine.router.classifier)
    with routed.engine.connect() as connection:
        for _ in range(20):
            assert routed.served(connection) == "replica"
    with routed.engine.begin() as connection:
        for _ in range(20):
            assert routed.served(connection) == "primary"
    assert len(routed.engine.router.classifier) <= before + 1


def test_dispose_closes_every_connection_and_the_engine_goes_on(routed: Routed) -> None:
    """dispose() ends every connection and the monitor; the next statement starts anew."""
    name = {"application_name": "to dispose"}
    asyncpg = routed.door == "asyncpg_async"
    engine = routed.another(connect_args={"server_settings": name} if asyncpg else name)
    sessions = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        "AND application_name = 'to dispose'"
    )
    with engine.connect() as connection:
        connection.execute(PORT)
        insert(connection)
        connection.rollback()
    engine.dispose()
    names = [t.name for t in threading.enumerate()]
    assert sum("pg-router monitor" in n for n in names) <= 1  # the fixture's own engine
    for server in routed.cluster.servers:
        assert server.execute(sessions, dbname=routed.dbname)[0][0] == 0
    with router.request_context(), engine.connect() as connection:
        assert routed.served(connection) == "replica"


def test_pools_are_per_node_and_a_checkout_takes_nothing_before_it_needs_it(
    routed: Routed,
) -> None:
    """But for an engine's first, connect() takes nothing; a read takes one replica's connection,
    a write the primary's in its place, for an idle one is not kept while another is waited for."""
    pool = routed.engine.pool
    routed.engine.connect().close()
    with routed.engine.connect() as connection:
        assert pool.checkedout() == 0
        connection.execute(PORT)
        assert pool.checkedout() == 1
        insert(connection)
        assert pool.checkedout() == 1
        assert repr(connection.connection).startswith("<RoutedConnection holding primary")
        connection.execute(PORT, execution_options={"router": "replica"})
        assert pool.checkedout() == 2
        assert [use.busy for use in pool.use().values() if use.busy] == [1, 1]
        assert repr(connection.connection).startswith("<RoutedConnection holding primary, replica")
    assert pool.checkedout() == 0


def test_a_pool_time_out_names_the_node_and_the_cure(routed: Routed) -> None:
    """With the primary's pool exhausted the error names node and sizes, and blacklists nobody."""
    engine = routed.another(pool_size=1, max_overflow=0, pool_timeout=0.1)
    with engine.connect() as one, engine.connect() as two:
        insert(one)
        with pytest.raises(sa.exc.TimeoutError, match=r"primary .*size 1 .*raise pool_size"):
            insert(two)
        assert not engine.router.blacklisted


@SYNCHRONOUS
def test_threads_share_one_engine(routed: Routed) -> None:
    """Sixteen threads that read and write at once lose and mix up nothing."""
    failures: list[BaseException] = []

    def work(n: int) -> None:
        try:
            for i in range(20):
                with router.request_context(), Session(routed.engine) as session:
                    session.add(Item(name=f"{n}-{i}"))
                    session.commit()
                    assert session.scalar(
                        sa.select(sa.func.count()).where(Item.name == f"{n}-{i}")
                    )
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert routed.count() == 16 * 20


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@SYNCHRONOUS
def test_a_forked_child_opens_connections_of_its_own(routed: Routed) -> None:
    """After a fork parent and child both go on, on different server sessions."""
    pid = sa.text("SELECT pg_backend_pid()").execution_options(router="primary")
    with routed.engine.connect() as connection:
        mine = connection.scalar(pid)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover
        status = 1
        try:
            with routed.engine.connect() as connection:
                theirs = connection.scalar(pid)
                insert(connection)
                connection.commit()
                routed.engine.router.refresh()
            os.write(writer, str(theirs).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    theirs = os.read(reader, 64).decode()
    os.close(reader)
    assert os.waitpid(child, 0)[1] == 0
    assert theirs
    assert int(theirs) != mine
    with routed.engine.connect() as connection:
        assert connection.scalar(pid) == mine
    assert routed.count() == 1


def test_set_local_reaches_every_node_of_its_transaction(routed: Routed) -> None:
    """A SET LOCAL made before a read holds for reads on the replica and writes on the primary."""
    ask = sa.text("SELECT current_setting('app.tenant', true), inet_server_port()")
    with routed.engine.connect() as connection:
        connection.execute(sa.text("SELECT set_config('app.tenant', :t, true)"), {"t": "acme"})
        tenant, port = connection.execute(ask).one()
        assert (tenant, routed.name_of(port)) == ("acme", "replica")
        insert(connection)
        tenant, port = connection.execute(ask).one()
        assert (tenant, routed.name_of(port)) == ("acme", "primary")
        connection.commit()
        routed.settle()
        assert connection.execute(ask).one()[0] in (None, "")


def test_a_session_setting_follows_to_the_other_node_and_leaks_to_nobody(routed: Routed) -> None:
    """SET search_path holds on a node taken later; the next user of the pools does not see it."""
    ask = sa.text("SELECT current_setting('search_path')")
    engine = routed.another(pool_size=1, max_overflow=0)
    with engine.connect() as connection:
        before = connection.scalar(ask)
        connection.execute(sa.text("SET search_path = pg_catalog, public"))
        connection.commit()
        assert connection.scalar(ask) == "pg_catalog, public"
        insert(connection)
        assert connection.scalar(ask) == "pg_catalog, public"
        connection.commit()
    for _ in range(6):
        with engine.connect() as connection:
            assert connection.scalar(ask) == before
            insert(connection)
            assert connection.scalar(ask) == before


def test_a_rolled_back_setting_is_gone_on_every_node(routed: Routed) -> None:
    """A SET that was rolled back holds neither where it ran nor on a node taken later."""
    ask = sa.text("SELECT current_setting('app.tenant', true)")
    with routed.engine.connect() as connection:
        connection.execute(sa.text("SET app.tenant = 'gone'"))
        connection.rollback()
        assert connection.scalar(ask) in (None, "")
        insert(connection)
        assert connection.scalar(ask) in (None, "")


def test_a_temporary_table_keeps_its_checkout_on_the_primary(routed: Routed) -> None:
    """After CREATE TEMP TABLE … reads of that checkout run where the table is."""
    with routed.engine.connect() as connection:
        connection.execute(sa.text("CREATE TEMP TABLE item (name text)"))
        connection.execute(sa.text("INSERT INTO item VALUES ('mine')"))
        connection.commit()
        assert connection.scalar(sa.text("SELECT name FROM item")) == "mine"
        assert routed.served(connection) == "primary"
        connection.execute(sa.text("DROP TABLE pg_temp.item"))
        connection.commit()


def test_a_read_the_standby_refuses_is_healed_once_and_remembered(routed: Routed) -> None:
    """A statement taken for a read that the standby refuses runs on the primary, unseen."""
    engine = routed.another(read_functions=["sneaky"])
    routed.execute_on_primary(
        "CREATE FUNCTION sneaky() RETURNS int LANGUAGE sql AS "
        "$$ INSERT INTO item (name) VALUES ('s') RETURNING inet_server_port() $$"
    )
    routed.cluster.wait_caught_up()
    for _ in range(2):
        with engine.connect() as connection:
            port = connection.scalar(sa.text("SELECT sneaky()"))
            assert routed.name_of(port) == "primary"
            connection.commit()
    assert routed.count() == 2
    assert engine.router.stats()["events"]["healed"] == 1


def test_isolation_and_read_only_do_not_leak_to_the_next_checkout(routed: Routed) -> None:
    """What execution_options set on a checkout is undone when it goes back."""
    engine = routed.another(pool_size=1, max_overflow=0)
    options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    mode = sa.text(
        "SELECT current_setting('transaction_isolation'), "
        "current_setting('transaction_read_only'), pg_is_in_recovery()"
    )
    for _ in range(4):
        with engine.connect().execution_options(**options) as connection:
            assert connection.execute(mode).one()[0] == "repeatable read"
        with engine.begin() as connection:
            assert tuple(connection.execute(mode).one()) == ("read committed", "off", False)


def test_invalidate_goes_on_with_new_connections(routed: Routed) -> None:
    """invalidate() throws the connections away, and the Connection goes on."""
    with routed.engine.connect() as connection:
        connection.execute(PORT)
        connection.invalidate()
        assert connection.invalidated
        connection.rollback()
        assert routed.served(connection) == "replica"


@SYNCHRONOUS  # plain asynchronous engines do not close what was detached
def test_detach_keeps_one_connection(routed: Routed) -> None:
    """detach() takes the primary's connection out of its pool, and the checkout stays on it."""
    with routed.engine.connect() as connection:
        connection.detach()
        insert(connection)
        connection.commit()
        assert routed.engine.pool.checkedout() == 0
    assert routed.count() == 1


def test_a_commit_whose_outcome_is_unknown_says_so(routed: Routed) -> None:
    """A connection cut while COMMIT was under way raises CommitUnknown, and the engine goes on."""
    primary = routed.cluster.primary
    with Proxy(primary.host, primary.port) as proxy:
        engine = routed.another(url=proxy.url(primary.url(routed.dbname)))
        with engine.connect() as connection:
            insert(connection)
            proxy.deaf()
            cutter = threading.Timer(0.2, proxy.cut)
            cutter.start()
            with pytest.raises(router.CommitUnknown, match=r"may have been committed") as raised:
                connection.commit()
            assert isinstance(raised.value, sa.exc.OperationalError)
            cutter.join()
            proxy.heal()
            engine.router.refresh()
            connection.rollback()
            assert connection.scalar(sa.text("SELECT count(*) FROM item")) == 0
        assert engine.pool.checkedout() == 0
    assert routed.count() == 0


def test_a_write_in_autocommit_whose_outcome_is_unknown_says_so(routed: Routed) -> None:
    """As a COMMIT does, for it is its own."""
    primary = routed.cluster.primary
    with Proxy(primary.host, primary.port) as proxy:
        engine = routed.another(url=proxy.url(primary.url(routed.dbname)))
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            insert(connection)
            proxy.deaf()
            cutter = threading.Timer(0.2, proxy.cut)
            cutter.start()
            with pytest.raises(router.CommitUnknown, match=r"may have been committed") as raised:
                insert(connection)
            assert isinstance(raised.value, sa.exc.OperationalError)
            cutter.join()
            proxy.heal()
            engine.router.refresh()
            insert(connection)


def test_a_rolled_back_savepoint_takes_its_settings_with_it(routed: Routed) -> None:
    """A SET LOCAL inside a rolled-back savepoint is gone; the one before it stays."""
    ask = sa.text("SELECT current_setting('app.tenant', true)")
    with routed.engine.connect() as connection:
        connection.execute(sa.text("SET LOCAL app.tenant = 'outer'"))
        savepoint = connection.begin_nested()
        connection.execute(sa.text("SET LOCAL app.tenant = 'inner'"))
        assert connection.scalar(ask) == "inner"
        savepoint.rollback()
        assert connection.scalar(ask) == "outer"
        insert(connection)
        assert connection.scalar(ask) == "outer"
        connection.rollback()
        assert connection.scalar(ask) in (None, "")


def test_users_rules_decide_before_the_grammar(routed: Routed) -> None:
    """write_patterns, read_functions and a callable rule decide where a statement goes."""

    def rule(sql: str) -> router.Kind | None:
        return router.Kind.WRITE if "by_rule" in sql else None

    engine = routed.another(write_patterns=["by_pattern"], read_functions=["lied"], rule=rule)
    routed.execute_on_primary(
        "CREATE FUNCTION lied() RETURNS int LANGUAGE sql VOLATILE AS 'SELECT inet_server_port()'"
    )
    routed.settle()
    served = {}
    for comment, sql in (
        ("pattern", "SELECT inet_server_port() /* by_pattern */"),
        ("rule", "SELECT inet_server_port() /* by_rule */"),
        ("function", "SELECT lied()"),
    ):
        with router.request_context(), engine.connect() as connection:
            served[comment] = routed.name_of(connection.scalar(sa.text(sql)))
    assert served == {"pattern": "primary", "rule": "primary", "function": "replica"}


def test_without_a_readable_catalog_reads_of_tables_stay_on_the_primary(routed: Routed) -> None:
    """A role that may not read pg_proc still works: what cannot be judged runs on the primary."""
    routed.execute_on_primary(
        "DROP ROLE IF EXISTS blind",
        "CREATE ROLE blind LOGIN",
        "REVOKE SELECT ON pg_catalog.pg_proc FROM PUBLIC",
        "GRANT SELECT ON item TO blind",
    )
    routed.cluster.wait_caught_up()

    def as_blind(url: str) -> str:
        return sa.make_url(url).set(username="blind").render_as_string(hide_password=False)

    cluster = routed.cluster
    engine = routed.another(
        url=as_blind(cluster.primary.url(routed.dbname)),
        replicas=[as_blind(r.url(routed.dbname)) for r in cluster.replicas],
    )
    with router.request_context(), engine.connect() as connection:
        port = sa.text("SELECT inet_server_port() FROM item RIGHT JOIN (SELECT 1) x ON true")
        assert routed.name_of(connection.scalar(port)) == "primary"
        connection.commit()
        routed.await_replica(connection)
    assert engine.router.stats()["events"]["catalog_unreadable"] == 1
    engine.dispose()
    routed.execute_on_primary("REVOKE ALL ON item FROM blind", "DROP ROLE blind")


def test_ddl_makes_the_catalog_unknown_until_it_is_read_again(routed: Routed) -> None:
    """A function that turns into a writing one is not run on a replica once its DDL was sent."""
    call = sa.text("SELECT turns()")
    with routed.engine.begin() as connection:
        connection.execute(
            sa.text("CREATE FUNCTION turns() RETURNS int STABLE AS 'SELECT 1' LANGUAGE sql")
        )
    routed.settle()
    assert router.explain("SELECT turns()", routed.engine.router).intent.kind is router.Kind.READ
    with router.request_context(), routed.engine.begin() as connection:
        connection.execute(
            sa.text(
                "CREATE OR REPLACE FUNCTION turns() RETURNS int LANGUAGE sql AS "
                "'SELECT inet_server_port() FROM (SELECT pg_advisory_xact_lock(1)) x'"
            )
        )
    with router.request_context(), routed.engine.connect() as connection:
        assert routed.name_of(connection.scalar(call)) == "primary"
    routed.settle()
    assert router.explain("SELECT turns()", routed.engine.router).intent.kind is router.Kind.WRITE
