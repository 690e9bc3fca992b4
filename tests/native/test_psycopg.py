"""What psycopg's users rely on beside routing: the same as with psycopg_pool."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import psycopg_pool
import pytest
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row

import router
from router import Config, request_context
from router.cluster.gate import GivenUp
from router.errors import ConfigError
from router.psycopg import AsyncConnectionPool, ConnectionPool
from router.psycopg.source import FIRST_LOOK, POOL_LOOK
from tests.conftest import Database
from tests.native.kit import PORT, drop, how, until_waiting

INSERT = "INSERT INTO item (name) VALUES (%s)"


@pytest.fixture
def items(database: Database) -> Database:
    """A fresh database with a table ``item``."""
    database.execute("CREATE TABLE item (id serial PRIMARY KEY, name text NOT NULL)")
    database.cluster.wait_caught_up()
    return database


@contextmanager
def opened(database: Database, **options: Any) -> Iterator[ConnectionPool]:
    options = {"min_size": 1, "replicas": database.replica_urls(), **options}
    with ConnectionPool(database.primary_url(), **options) as pool:
        pool.router.start()
        yield pool


def plain(database: Database, **options: Any) -> Any:
    return psycopg_pool.ConnectionPool(database.primary_url(), min_size=1, open=False, **options)


# -- the same as with psycopg_pool: each of these runs on its pool, then on ours -----------------


def commit_at_the_end(pool: Any) -> Any:
    with pool.connection() as connection:
        connection.execute(INSERT, ["a"])
    with pool.connection() as connection:
        return connection.execute("SELECT name FROM item").fetchall()


def roll_back_after_an_error(pool: Any) -> Any:
    with suppress(ZeroDivisionError), pool.connection() as connection:
        connection.execute(INSERT, ["a"])
        raise ZeroDivisionError
    with pool.connection() as connection:
        return connection.execute("SELECT count(*) FROM item").fetchone()


def commit_and_rollback_by_hand(pool: Any) -> Any:
    with pool.connection() as connection:
        connection.execute(INSERT, ["kept"])
        connection.commit()
        connection.execute(INSERT, ["undone"])
        connection.rollback()
        return connection.execute("SELECT name FROM item").fetchall()


def a_block_within_what_began_by_itself_is_a_savepoint(pool: Any) -> Any:
    with pool.connection() as connection:
        connection.execute("SELECT 1")
        with connection.transaction() as block:
            connection.execute(INSERT, ["undone"])
        connection.rollback()
        return block.savepoint_name, connection.execute("SELECT name FROM item").fetchall()


def a_block_first_is_the_transaction(pool: Any) -> Any:
    with pool.connection() as connection:
        with connection.transaction() as block:
            connection.execute(INSERT, ["kept"])
        connection.rollback()
        return block.savepoint_name, connection.execute("SELECT name FROM item").fetchall()


def blocks_within_blocks(pool: Any) -> Any:
    told: list[Any] = []
    with pool.connection() as connection:
        with connection.transaction("outer") as outer:
            connection.execute(INSERT, ["kept"])
            with suppress(ZeroDivisionError), connection.transaction() as inner:
                connection.execute(INSERT, ["undone"])
                raise ZeroDivisionError
            with connection.transaction() as left:
                connection.execute(INSERT, ["undone"])
                raise psycopg.Rollback
            with connection.transaction(force_rollback=True) as forced:
                connection.execute(INSERT, ["undone"])
            with connection.transaction() as third:
                connection.execute(INSERT, ["kept too"])
            told = [(b.savepoint_name, how(b)) for b in (inner, left, forced, third)]
        names = connection.execute("SELECT name FROM item ORDER BY id").fetchall()
    return names, told, outer.savepoint_name, how(outer)


def rolling_back_several_blocks(pool: Any) -> Any:
    with pool.connection() as connection:
        with connection.transaction() as outer, connection.transaction() as inner:
            connection.execute(INSERT, ["undone"])
            raise psycopg.Rollback(outer)
        rows = connection.execute("SELECT name FROM item").fetchall()
    return rows, how(outer), how(inner)


def an_error_of_the_server_within_a_block(pool: Any) -> Any:
    with pool.connection() as connection, connection.transaction():
        connection.execute(INSERT, ["kept"])
        with suppress(psycopg.errors.DivisionByZero), connection.transaction():
            connection.execute("SELECT 1/0")
        return connection.execute("SELECT name FROM item").fetchall()


def commit_within_a_block(pool: Any) -> Any:
    with pool.connection() as connection, connection.transaction():
        with suppress(psycopg.ProgrammingError) as _:
            connection.commit()
        with suppress(psycopg.ProgrammingError) as _:
            connection.rollback()
        connection.execute(INSERT, ["a"])
    with pool.connection() as connection:
        return connection.execute("SELECT name FROM item").fetchall()


def autocommit(pool: Any) -> Any:
    with pool.connection() as connection:
        connection.autocommit = True
        connection.execute(INSERT, ["kept"])
        connection.rollback()
        with suppress(ZeroDivisionError), connection.transaction():
            connection.execute(INSERT, ["undone"])
            raise ZeroDivisionError
        connection.autocommit = False
        connection.execute(INSERT, ["undone"])
        connection.rollback()
        return connection.execute("SELECT name FROM item").fetchall()


def autocommit_cannot_change_within(pool: Any) -> Any:
    with pool.connection() as connection:
        connection.execute(INSERT, ["undone"])
        try:
            connection.autocommit = True
        except psycopg.ProgrammingError as error:
            connection.rollback()
            return str(error).split(":")[0]
    return None


def isolation(pool: Any) -> Any:
    with pool.connection() as connection:
        connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        with connection.transaction():
            level = connection.execute("SHOW transaction_isolation").fetchone()
        connection.isolation_level = None
        connection.deferrable = connection.read_only = True
        with connection.transaction():
            row = connection.execute(
                "SELECT current_setting('transaction_read_only'), "
                "current_setting('transaction_deferrable')"
            ).fetchone()
        return level, row


def isolation_after_autocommit(pool: Any) -> Any:
    in_force = (
        "SELECT current_setting('transaction_isolation'), "
        "current_setting('transaction_read_only'), current_setting('transaction_deferrable')"
    )
    with pool.connection() as connection:
        connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        connection.deferrable = connection.read_only = True
        connection.autocommit = True
        connection.execute("VACUUM item")
        connection.autocommit = False
        alone = connection.execute(in_force).fetchone()
        connection.rollback()
        with connection.transaction():
            return alone, connection.execute(in_force).fetchone()


def cursors(pool: Any) -> Any:
    with pool.connection() as connection:
        found: list[Any] = []
        with connection.cursor(row_factory=dict_row) as cursor:
            cursor.executemany(INSERT, [("a",), ("b",)])
            cursor.execute("SELECT name FROM item ORDER BY id")
            found.append((cursor.rowcount, cursor.description[0].name, cursor.fetchall()))
        with connection.cursor() as cursor:
            cursor.executemany(f"{INSERT} RETURNING id", [("c",), ("d",)], returning=True)
            first = cursor.fetchone()
            cursor.nextset()
            found.append((first, cursor.fetchone()))
            cursor.execute("SELECT name FROM item ORDER BY id")
            found.append(list(cursor))
            cursor.scroll(-2)
            found.append(cursor.fetchmany(2))
            found.append(list(cursor.stream("SELECT name FROM item ORDER BY id")))
        with connection.cursor("named", scrollable=True) as cursor:
            cursor.execute("SELECT name FROM item ORDER BY id")
            cursor.itersize = 2
            found.append((cursor.name, cursor.fetchone(), list(cursor)))
        with psycopg.ClientCursor(connection) as cursor:
            found.append(cursor.mogrify("SELECT %s", ["it's"]))
            found.append(cursor.execute("SELECT %s", ["it's"]).fetchall())
        return found


def copies(pool: Any) -> Any:
    with pool.connection() as connection, connection.cursor() as cursor:
        with cursor.copy("COPY item (name) FROM STDIN") as copy:
            copy.write_row(["a"])
            copy.write_row(["b"])
        with cursor.copy("COPY (SELECT name FROM item ORDER BY id) TO STDOUT") as copy:
            return list(copy.rows())


def pipelines(pool: Any) -> Any:
    with pool.connection() as connection:
        with connection.pipeline() as pipeline:
            connection.execute(INSERT, ["a"])
            first = connection.execute("SELECT count(*) FROM item")
            pipeline.sync()
            second = connection.execute("SELECT name FROM item")
        return first.fetchone(), second.fetchall()


def composed(pool: Any) -> Any:
    from psycopg import sql

    with pool.connection() as connection:
        query = sql.SQL("SELECT {} FROM {}").format(sql.Literal(1), sql.Identifier("item"))
        connection.execute(INSERT, ["a"])
        return connection.execute(query).fetchall()


def a_closed_cursor(pool: Any) -> Any:
    with pool.connection() as connection:
        cursor = connection.cursor()
        cursor.close()
        with suppress(psycopg.InterfaceError):
            cursor.execute("SELECT 1")
            return "executed"
        return cursor.closed


def adapters(pool: Any) -> Any:
    class Name(str):
        __slots__ = ()

    class Dumper(psycopg.types.string.StrDumper):
        def dump(self, obj: Any) -> bytes:
            return b"<" + str(obj).encode() + b">"

    with pool.connection() as connection:
        connection.adapters.register_dumper(Name, Dumper)
        connection.execute(INSERT, [Name("a")])
        return connection.execute("SELECT name, %s FROM item", [Name("b")]).fetchall()


def notices(pool: Any) -> Any:
    told: list[str] = []
    with pool.connection() as connection:
        connection.add_notice_handler(lambda notice: told.append(notice.message_primary))
        connection.execute("DO $$ BEGIN RAISE NOTICE 'one'; END $$")
        return told


def notifications(pool: Any) -> Any:
    with pool.connection() as connection, pool.connection() as other:
        connection.autocommit = True
        connection.execute("LISTEN jobs")
        other.execute("NOTIFY jobs, 'one'")
        other.commit()
        return [n.payload for n in connection.notifies(timeout=20, stop_after=1)]


def two_phases(pool: Any) -> Any:
    with pool.connection() as connection:
        try:
            connection.tpc_begin("one")
            connection.execute(INSERT, ["kept"])
            connection.tpc_commit()
        except psycopg.Error as error:
            return type(error).__name__
        return connection.execute("SELECT name FROM item").fetchall()


SCENARIOS: list[Callable[[Any], Any]] = [
    commit_at_the_end,
    roll_back_after_an_error,
    commit_and_rollback_by_hand,
    a_block_within_what_began_by_itself_is_a_savepoint,
    a_block_first_is_the_transaction,
    blocks_within_blocks,
    rolling_back_several_blocks,
    an_error_of_the_server_within_a_block,
    commit_within_a_block,
    autocommit,
    autocommit_cannot_change_within,
    isolation,
    isolation_after_autocommit,
    cursors,
    copies,
    pipelines,
    composed,
    a_closed_cursor,
    adapters,
    notices,
    notifications,
    two_phases,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.__name__)
def test_as_with_psycopg_pool(items: Database, scenario: Callable[[Any], Any]) -> None:
    """A program over psycopg_pool gets the same results from ours with two live replicas."""
    with plain(items, max_size=2) as pool:
        expected = scenario(pool)
    items.execute("TRUNCATE item RESTART IDENTITY")
    items.cluster.wait_caught_up()
    with opened(items, max_size=2) as pool, request_context():
        assert scenario(pool) == expected
        assert pool.checkedout() == 0


def one_snapshot(items: Database, connection: Any) -> bool:
    """Whether two reads agree though another client has written between them."""
    count = "SELECT count(*) FROM item"
    before = connection.execute(count).fetchone()
    items.execute(INSERT, ["between"])
    items.cluster.wait_caught_up()
    return bool(before == connection.execute(count).fetchone())


@pytest.mark.parametrize("said", ["by the session", "by the driver's connection", "by the server"])
def test_a_level_that_is_said_elsewhere_holds_for_reads(items: Database, said: str) -> None:
    """Reads share a transaction that is REPEATABLE READ, whoever made it so: a SET, the driver's
    connection to the primary, or default_transaction_isolation."""
    kwargs = {"options": "-c default_transaction_isolation=repeatable\\ read"}
    with (
        opened(items, kwargs=kwargs if said == "by the server" else {}) as pool,
        request_context(),
        pool.connection() as connection,
    ):
        if said == "by the session":
            connection.execute("SET default_transaction_isolation = 'repeatable read'")
        elif said == "by the driver's connection":
            level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.primary_connection().isolation_level = level
        connection.commit()
        assert one_snapshot(items, connection)
        connection.commit()
        with connection.transaction():
            assert one_snapshot(items, connection)


def test_a_block_is_entered_once(items: Database) -> None:
    """Entering a transaction block a second time is an error, as with psycopg's class."""
    with opened(items) as pool, pool.connection() as connection:
        block = connection.transaction()
        with block:
            assert "active" in repr(block)
        with pytest.raises(TypeError, match="once"), block:
            pass


def test_blocks_are_left_in_order(items: Database) -> None:
    """Leaving an outer block before an inner one raises psycopg's error, and commits nothing."""
    with opened(items) as pool:
        with pool.connection() as connection:
            outer, inner = connection.transaction(), connection.transaction()
            outer.__enter__()
            connection.execute(INSERT, ["undone"])
            inner.__enter__()
            with pytest.raises(psycopg.ProgrammingError, match="still open"):
                outer.__exit__(None, None, None)
            connection.rollback()
        assert items.execute("SELECT count(*) FROM item") == [(0,)]


def test_reads_before_the_first_write_leave_the_primary_alone(items: Database) -> None:
    """Without autocommit reads run on a replica until the transaction writes; then all of it is
    on the primary until it ends."""
    primary = items.cluster.primary.port
    with opened(items) as pool, request_context(), pool.connection() as connection:
        assert connection.execute(PORT).fetchone() != (primary,)
        assert pool.get_node_stats()["primary"].get("requests_num", 0) == 0
        connection.execute(INSERT, ["a"])
        assert connection.execute(PORT).fetchone() == (primary,)
        connection.commit()
        items.cluster.wait_caught_up()
        pool.router.refresh()
        assert connection.execute(PORT).fetchone() != (primary,)


def test_hooks_see_each_nodes_connections(items: Database) -> None:
    """configure, check and reset get psycopg's own connections, and what configure sets holds for
    routed ones: autocommit, isolation, row factories."""
    seen: dict[str, set[int]] = {"configure": set(), "check": set(), "reset": set()}

    def note(what: str) -> Callable[[psycopg.Connection[Any]], None]:
        def call(connection: psycopg.Connection[Any]) -> None:
            assert isinstance(connection, psycopg.Connection)
            seen[what].add(connection.info.port)
            if what == "configure":
                connection.autocommit = True
                connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ

        return call

    options = {what: note(what) for what in seen}
    with opened(items, kwargs={"row_factory": dict_row}, **options) as pool:
        pool.wait()
        assert seen["configure"] == {s.port for s in items.cluster.servers}
        with request_context(), pool.connection() as connection:
            assert connection.autocommit is True
            connection.execute(INSERT, ["a"])
            assert items.execute("SELECT count(*) FROM item") == [(1,)]
            with connection.transaction():
                row = connection.execute("SHOW transaction_isolation").fetchone()
            assert row == {"transaction_isolation": "repeatable read"}
        with router.using_primary(), pool.connection() as connection:
            connection.execute("SELECT 1")  # the pool's only one, so it was reset meanwhile
        assert items.cluster.primary.port in seen["check"] & seen["reset"]


def test_what_is_set_on_a_connection_ends_with_it(items: Database) -> None:
    """A row factory set on a routed connection holds on every node, and for nobody after it."""
    with opened(items) as pool:
        with request_context(), pool.connection() as connection:
            connection.row_factory = dict_row
            assert connection.execute("SELECT 1 AS a").fetchone() == {"a": 1}
            connection.execute(INSERT, ["x"])
            assert connection.execute("SELECT 1 AS a").fetchone() == {"a": 1}
        for force in (router.using_primary, router.using_replica):
            with force(), pool.connection() as connection:
                assert connection.execute("SELECT 1 AS a").fetchone() == (1,)


def test_a_libpq_text_and_a_whole_config_name_servers_too(items: Database) -> None:
    """Beside a URL the pool takes ``host=… port=…``, several hosts, and a Config."""
    primary, *replicas = items.cluster.servers
    hosts = ",".join(s.host for s in (primary, *replicas))
    ports = ",".join(str(s.port) for s in (primary, *replicas))
    text = f"host={hosts} port={ports} user=postgres dbname={items.name} application_name=mine"
    config = Config.from_url(items.primary_url(), replicas=items.replica_urls())
    for said in (text, config):
        with ConnectionPool(said, min_size=1) as pool, pool.connection() as connection:
            pool.router.start()
            ask = "SELECT inet_server_port(), current_setting('application_name')"
            port, name = connection.execute(ask).fetchone()
            assert port != primary.port
            assert name in ("mine", "pg-router replica1", "pg-router replica2")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_sise": 1}, r"min_sise.*did you mean 'min_size'"),
        ({"pin_duratoin": 1}, r"pin_duratoin.*did you mean 'pin_duration'"),
        ({"pool_size": 5}, r"pool_size.*min_size and max_size"),
        ({"kwargs": {"host": "elsewhere"}}, r"kwargs: host.*conninfo"),
        ({"kwargs": "autocommit"}, r"kwargs: expected a mapping"),
        ({"max_connections": 30, "max_size": 5}, r"max_size: max_connections sizes"),
        ({"close_returns": True}, r"close_returns"),
        ({"pgbouncer": True, "kwargs": {"prepare_threshold": 1}}, r"prepare_threshold.*PgBouncer"),
        ({"pgbouncer": True, "kwargs": {"options": "-c x=y"}}, r"options.*ALTER ROLE"),
        ({"conninfo": "host"}, r"conninfo"),
        ({"conninfo": "hostaddr=127.0.0.1"}, r"hostaddr"),
    ],
)
@pytest.mark.parametrize("kind", [ConnectionPool, AsyncConnectionPool])
def test_bad_input_gets_one_clear_error(kind: Any, options: Any, message: str) -> None:
    """What is unknown, malformed or contradictory is refused when the pool is made."""
    given = {"conninfo": "postgresql://db1/shop", "replicas": ["db2"], **options}
    with pytest.raises(ConfigError, match=message):
        kind(open=False, **given)


def test_its_life(items: Database) -> None:
    """Not open, open, closed: each says what it is, and a closed one stays closed."""
    pool = ConnectionPool(items.primary_url(), open=False, name="mine", min_size=1)
    with pytest.raises(psycopg_pool.PoolClosed, match="not open yet"):
        pool.getconn()
    with pool:
        pool.open(wait=True)
        connection = pool.getconn()
        assert connection.execute("SELECT 1").fetchone() == (1,)
        elsewhere = ConnectionPool(items.primary_url(), open=False)
        with pytest.raises(ValueError, match="another pool's"):
            elsewhere.putconn(connection)
        pool.putconn(connection)
        with pytest.raises(psycopg.OperationalError, match="closed"):
            connection.execute("SELECT 1")
        connection.close()
        pool.check()
        pool.resize(1, 3)
        assert pool.get_stats()["pool_max"] == 3
        assert pool.pop_stats()["requests_num"] == 1
        assert pool.get_stats().get("requests_num", 0) == 0
        if hasattr(psycopg_pool.ConnectionPool, "drain"):
            pool.drain()
        with pool.connection(timeout=5) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert "mine" in repr(pool)
        assert "Connection" in repr(connection)
    assert pool.closed
    with pytest.raises(psycopg_pool.PoolClosed, match="mine is closed"), pool.connection():
        pass
    with pytest.raises(psycopg_pool.PoolClosed, match="make another"):
        pool.open()


def test_wait_names_the_nodes_that_do_not_answer() -> None:
    """open(wait=True) with no server at all raises psycopg_pool's time-out, naming the nodes, and
    the pool is closed, as psycopg_pool's would be."""
    pool = ConnectionPool("host=127.0.0.1 port=1", open=False, name="mine", start_timeout=0.1)
    with pytest.raises(psycopg_pool.PoolTimeout, match=r"mine: after 0\.2 s.*primary"):
        pool.open(wait=True, timeout=0.2)
    assert pool.closed


def test_conninfo_leads_to_the_primary(items: Database) -> None:
    """Who wants a connection of his own, by a pool's conninfo as of psycopg_pool's, gets one to
    the primary; past PgBouncer where session_url says how."""
    with opened(items, kwargs={"autocommit": True}) as pool:
        assert pool.kwargs == {"autocommit": True}
        with pool.connection_class.connect(pool.conninfo, **pool.kwargs) as own:
            assert own.execute(PORT).fetchone() == (items.cluster.primary.port,)
    bouncer, past = "postgresql://127.0.0.1:6432/shop", "postgresql://127.0.0.1:6000/past"
    unopened = ConnectionPool(bouncer, pgbouncer=True, session_url=past, open=False)
    found = conninfo_to_dict(unopened.conninfo)
    assert (found["port"], found["dbname"]) == ("6000", "past")


def test_max_connections_sizes_the_pools(items: Database) -> None:
    """The budget of all processes becomes each node's max_size."""
    with opened(items, max_connections=60, workers=2, min_size=20) as pool:
        assert (pool.min_size, pool.max_size) == (10, 10)


def test_threads_have_connections_of_their_own(items: Database) -> None:
    """Eight threads over pools of two: every one reads its own writes."""
    failures: list[object] = []

    def work(owner: int) -> None:
        for n in range(25):
            name = f"{owner}-{n}"
            with request_context(), pool.connection() as connection:
                connection.execute(INSERT, [name])
                connection.commit()
                query = "SELECT count(*) FROM item WHERE name = %s"
                if (row := connection.execute(query, [name]).fetchone()) != (1,):
                    failures.append((name, row))

    with opened(items, max_size=2) as pool:
        threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert failures == []
    assert items.execute("SELECT count(*) FROM item") == [(200,)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_forked_child_has_connections_of_its_own(items: Database) -> None:
    """A child forked from a process with an open pool works, and leaves the parent's alone."""
    with opened(items) as pool:
        with pool.connection() as connection:
            before = connection.execute("SELECT pg_backend_pid()").fetchone()
        child = os.fork()
        if child == 0:
            code = 1
            with suppress(BaseException):
                with pool.connection() as connection:
                    mine = connection.execute("SELECT pg_backend_pid()").fetchone()
                    connection.execute(INSERT, ["child"])
                code = 0 if mine != before else 2
            os._exit(code)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        with pool.connection() as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert items.execute("SELECT name FROM item") == [("child",)]


def test_a_schema_of_ones_own(items: Database) -> None:
    """With schema= unqualified names are found there, on every node."""
    items.execute("CREATE SCHEMA mine CREATE TABLE thing (n int)")
    items.cluster.wait_caught_up()
    with opened(items, schema="mine") as pool, request_context():
        for force in (router.using_primary, router.using_replica):
            with force(), pool.connection() as connection:
                assert connection.execute("SELECT count(*) FROM thing").fetchone() == (0,)


def test_a_pipelines_writes_are_read_after_it(items: Database) -> None:
    """What is written in a pipeline commits at its end, and reads after that see it."""
    with (
        opened(items, max_size=2, kwargs={"autocommit": True}) as pool,
        request_context(),
        pool.connection() as connection,
    ):
        with connection.pipeline() as pipeline:
            connection.execute(INSERT, ["a"])
            items.execute("CREATE TABLE other ()")  # its commit flushes the WAL of the INSERT
            items.cluster.wait_caught_up()
            pool.router.refresh()  # a position sampled now is one before the commit
            with items.cluster.replay_paused():
                pipeline.sync()
                with pool.connection() as other:
                    assert other.execute("SELECT count(*) FROM item").fetchone() == (1,)
            items.cluster.wait_caught_up()
            connection.execute(INSERT, ["b"])
            pool.router.refresh()
            items.cluster.replicas[0].pause_replay()
            items.cluster.replicas[1].pause_replay()
        with pool.connection() as other:
            assert other.execute("SELECT count(*) FROM item").fetchone() == (2,)


def test_a_dropped_connection_makes_room(items: Database) -> None:
    """A connection that is dropped without putconn() is closed, with a warning; whoever waits for
    its place gets that, and nothing of its open transaction stays."""

    def read() -> Any:
        with router.using_primary(), pool.connection() as connection:
            return connection.execute("SELECT name FROM item").fetchall()

    with opened(items, max_size=1) as pool, ThreadPoolExecutor() as beside:
        lent = [pool.getconn()]
        lent[0].execute(INSERT, ["undone"])
        waiter = beside.submit(read)
        until_waiting(pool)
        with pytest.warns(ResourceWarning, match="^primary.* was deleted while router-.* lent it"):
            drop(lent)
        assert waiter.result(15) == []
        assert pool.checkedout() == 0


def test_ctrl_c_keeps_the_connection(items: Database) -> None:
    """A statement that Ctrl-C interrupts has ended at the server, and its connection goes on."""

    def interrupt() -> None:
        sleeps = (
            "SELECT 1 FROM pg_stat_activity"
            " WHERE wait_event = 'PgSleep' AND datname = current_database()"
        )
        while not items.execute(sleeps):
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGINT)

    with (
        opened(items, max_size=1) as pool,
        router.using_primary(),
        pool.connection() as connection,
    ):
        session = connection.execute("SELECT pg_backend_pid()").fetchone()
        for _ in range(2):
            thread = threading.Thread(target=interrupt)
            thread.start()
            with pytest.raises(KeyboardInterrupt):
                connection.execute("SELECT pg_sleep(30)")
            thread.join()
            assert connection.execute("SELECT pg_backend_pid()").fetchone() == session


def test_a_statement_is_cancelled_where_it_runs(items: Database) -> None:
    """cancel() from another thread ends the statement under way on a replica and takes nothing."""
    sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"

    def cancel() -> None:
        deadline = time.monotonic() + 10
        while not any(r.execute(sleeping, dbname=items.name)[0][0] for r in replicas):
            assert time.monotonic() < deadline
        stop()

    replicas = items.cluster.replicas
    with opened(items, kwargs={"autocommit": True}) as pool, request_context():
        for how in ("cancel", "cancel_safe"):
            with pool.connection() as connection:
                stop = getattr(connection, how)
                thread = threading.Thread(target=cancel)
                thread.start()
                with pytest.raises(psycopg.errors.QueryCanceled):
                    connection.execute("SELECT pg_sleep(20)")
                thread.join(10)
                assert connection.checkout.primary is None
                assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_crowded_pool_says_so_and_blacklists_nobody(items: Database) -> None:
    """Where max_waiting others wait for a node already, the error is psycopg_pool's and ours; who
    waits keeps his place; the node stays in."""
    served: list[object] = []

    def wait() -> None:
        with router.using_replica(), pool.connection() as connection:
            served.append(connection.execute("SELECT 1").fetchone())

    options = {"max_size": 1, "max_waiting": 1, "replicas": items.replica_urls()[:1]}
    with opened(items, kwargs={"autocommit": True}, **options) as pool:
        with router.using_replica(), pool.connection() as first:
            first.execute("SELECT 1")
            thread = threading.Thread(target=wait)
            thread.start()
            deadline = time.monotonic() + 10
            while not pool.get_stats().get("requests_waiting"):
                assert time.monotonic() < deadline
            with (
                pytest.raises(psycopg_pool.TooManyRequests, match=r"replica1.*max_wait") as caught,
                pool.connection() as second,
            ):
                second.execute("SELECT 1")
            assert isinstance(caught.value, router.RouterError)
            thread.join(2 * POOL_LOOK)  # it would have lost its place meanwhile
        thread.join(10)
        assert served == [(1,)]
        assert pool.get_stats().get("requests_errors", 0) == 1
        assert pool.router.stats()["events"].get("blacklisted", 0) == 0


def test_first_come_is_first_served(items: Database) -> None:
    """Who waits for a connection, however long, is served before those who came later, with and
    without max_waiting."""
    served: list[int] = []

    def wait(number: int) -> None:
        with pool.connection() as connection:
            connection.execute("SELECT 1")
            served.append(number)

    one_server = {"max_size": 1, "replicas": []}
    for options in ({}, {"max_waiting": 10}):
        served.clear()
        with opened(items, **one_server, **options) as pool, ThreadPoolExecutor() as beside:
            with pool.connection() as first:
                first.execute("SELECT 1")
                for number in range(4):
                    beside.submit(wait, number)
                    until_waiting(pool, number + 1)
                    # By the fourth the first one would have left the queue, to look.
                    threading.Event().wait(FIRST_LOOK / 3.5)
            beside.shutdown()
            assert served == [0, 1, 2, 3]
            assert pool.get_stats().get("requests_errors", 0) == 0


def held_on_a_replica(connection: Any) -> Any:
    """Have a transaction open on a replica, with a setting of its own."""
    connection.execute("SET LOCAL app.tenant = '7'")
    assert connection.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)
    assert connection.checkout.replica.in_transaction
    return connection


TENANT = "SELECT current_setting('app.tenant', true), pg_is_in_recovery()"


def test_who_waits_for_the_primary_keeps_no_replica_from_others(items: Database) -> None:
    """A transaction that has read on a replica, and writes, gives the replica's connection back
    before it waits for the primary's; what it set locally holds there."""

    def write(connection: Any) -> Any:
        connection.execute(INSERT, ["a"])
        return connection.execute(TENANT).fetchone()

    one_place = {"max_size": 1, "replicas": items.replica_urls()[:1], "timeout": 15}
    with opened(items, **one_place) as pool, ThreadPoolExecutor() as beside:
        with pool.connection() as connection:
            held_on_a_replica(connection)
            with router.using_primary(), pool.connection() as other:
                other.execute("SELECT 1")
                writer = beside.submit(write, connection)
                until_waiting(pool)
                with router.using_replica(), pool.connection() as reader:
                    assert reader.execute("SELECT 1").fetchone() == (1,)
            assert writer.result(15) == ("7", False)
        assert items.execute("SELECT name FROM item") == [("a",)]


def test_a_transaction_outlives_its_wait_for_the_primary(items: Database) -> None:
    """Where the primary's connection is not to be had in time, the error says so; the transaction
    reads on with what it set, and can be committed."""
    one_place = {"max_size": 1, "replicas": items.replica_urls()[:1]}
    with opened(items, **one_place) as pool:
        with pool.connection(timeout=0.3) as connection:
            held_on_a_replica(connection)
            with router.using_primary(), pool.connection() as other:
                other.execute("SELECT 1")
                with pytest.raises(psycopg_pool.PoolTimeout, match=r"^primary.*0\.3 s"):
                    connection.execute(INSERT, ["a"])
            assert connection.execute(TENANT).fetchone() == ("7", True)
            connection.execute(INSERT, ["b"])
        assert items.execute("SELECT name FROM item") == [("b",)]


def test_rows_on_a_replica_are_fetched_beside_a_write(items: Database) -> None:
    """A server-side cursor that is open on a replica goes on while its transaction writes."""
    with (
        opened(items) as pool,
        pool.connection() as connection,
        connection.cursor("some") as cursor,
    ):
        cursor.execute("SELECT n, pg_is_in_recovery() FROM generate_series(1, 300) n")
        assert cursor.fetchone() == (1, True)
        connection.execute(INSERT, ["a"])
        assert cursor.fetchall()[-1] == (300, True)


def test_nobody_joins_the_queue_of_a_pool_that_is_closed(items: Database) -> None:
    """Who found a node's pool open, and comes to its queue as it is closed, is not kept there."""
    with opened(items, max_size=1, replicas=[]) as pool, pool.connection() as first:
        first.execute("SELECT 1")
        node = pool.router.primary
        assert node is not None
        pool.shut(node, pool.node_pool(node))
        with pytest.raises(GivenUp), pool.connection() as second:
            second.nodes.hold(node)


def test_what_is_lent_outlives_its_pool(items: Database) -> None:
    """As with psycopg_pool, close() lets requests that run finish, on whatever nodes they need."""
    with opened(items, kwargs={"autocommit": True}) as pool:
        threads = set(threading.enumerate())
        with request_context(), pool.connection() as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
            pool.close()
            assert connection.execute("SELECT 1").fetchone() == (1,)
            with connection.transaction():
                connection.execute(INSERT, ["a"])
            assert connection.execute("SELECT name FROM item").fetchone() == ("a",)
        with pytest.raises(psycopg_pool.PoolClosed):
            pool.getconn()
        assert pool.checkedout() == 0
        assert set(threading.enumerate()) <= threads
    mine = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pg-router %'"
    deadline = time.monotonic() + 10
    while any(s.execute(mine, dbname=items.name)[0][0] for s in items.cluster.servers):
        assert time.monotonic() < deadline


def test_a_cursor_with_hold_outlives_its_transaction(items: Database) -> None:
    """withhold=True runs on the primary, and what follows stays on the same connection."""
    query = "SELECT n, inet_server_port() FROM generate_series(1, 3) n"
    primary = items.cluster.primary.port
    with opened(items) as pool, request_context(), pool.connection() as connection:
        connection.execute(PORT)
        held = connection.cursor("held", withhold=True)
        held.execute(query)
        assert held.fetchone() == (1, primary)
        connection.commit()
        connection.execute(INSERT, ["a"])
        connection.commit()
        items.cluster.wait_caught_up()
        pool.router.refresh()
        assert connection.execute(PORT).fetchone() == (primary,)
        assert held.fetchall() == [(2, primary), (3, primary)]
        held.close()


@pytest.mark.parametrize("kind", [ConnectionPool, AsyncConnectionPool])
def test_waiting_leaves_out_who_does_not_answer(items: Database, kind: Any) -> None:
    """wait() returns once the nodes that answer have their connections, whoever is dead."""
    replicas = [*items.replica_urls(), "postgresql://postgres@127.0.0.1:1/" + items.name]
    pool = kind(items.primary_url(), replicas=replicas, min_size=1, open=False)

    async def main() -> None:
        await pool.open(wait=True, timeout=60)
        await pool.close()

    began = time.monotonic()
    if kind is AsyncConnectionPool:
        asyncio.run(main())
    else:
        with pool:
            pool.wait(60)
    assert time.monotonic() - began < 30


def test_a_connection_that_was_never_lent_is_asked_after_a_break(items: Database) -> None:
    """Connections that ended while they lay in their pool, before their first use, fail no write
    once the router knows of a break."""
    with opened(items, min_size=4) as pool:
        pool.wait()
        with psycopg.connect(items.primary_url(), autocommit=True) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        primary = pool.router.primary
        assert primary is not None
        pool.router.health.interrupted(primary)
        for name in "abcd":
            with pool.connection() as connection:
                connection.execute(INSERT, (name,))
    assert items.execute("SELECT count(*) FROM item") == [(4,)]
