"""Where Django's statements go."""

import contextlib
import os
import threading
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from router import request_context, using_primary, using_replica
from router.rules.context import within
from tests.django.conftest import EVERY_WAY, STRAIGHT, Connect, Routed

pytestmark = EVERY_WAY


def items() -> Any:
    from tests.django.shop.models import Item

    return Item.objects


def test_reads_leave_the_primary_alone(routed: Routed) -> None:
    """ORM, raw SQL, cursors and iterator() read from a replica and open no primary connection."""
    assert list(items().all()) == []
    assert items().count() == 0
    assert list(items().raw("SELECT * FROM shop_item")) == []
    assert list(items().iterator()) == []
    assert routed.served() == "replica"
    assert routed.holding() == {"replica"}


def test_a_write_and_what_follows_it(routed: Routed) -> None:
    """A write goes to the primary, reads after it see it, and go back once it is replayed."""
    with request_context():
        with routed.cluster.replay_paused():
            items().create(name="tea")
            assert items().count() == 1
            assert routed.served() == "primary"
        routed.settle()
        assert items().count() == 1
        routed.await_replica()


def test_autocommit_writes_leave_no_transaction_open(routed: Routed) -> None:
    """A write outside atomic() is committed by itself: others see it at once."""
    items().create(name="tea")
    assert routed.database.execute("SELECT count(*) FROM shop_item") == [(1,)]
    assert routed.connection.connection.in_transaction is False


def test_atomic_is_on_the_primary(routed: Routed) -> None:
    """A transaction runs on the primary with its savepoints, hooks and rollbacks."""
    from django.db import transaction

    ran: list[str] = []
    with request_context():
        with transaction.atomic(durable=True):
            assert routed.served() == "primary"
            items().create(name="kept")
            transaction.on_commit(lambda: ran.append("hook"))
            with contextlib.suppress(ZeroDivisionError), transaction.atomic():
                items().create(name="undone")
                raise ZeroDivisionError
            assert list(items().values_list("name", flat=True)) == ["kept"]
            assert ran == []
        assert ran == ["hook"]
        with contextlib.suppress(ZeroDivisionError), transaction.atomic():
            items().create(name="undone too")
            raise ZeroDivisionError
        assert items().count() == 1


def test_a_sequence_is_read_on_the_primary(routed: Routed) -> None:
    """What is read of a sequence is the primary's: a replica shows values 32 ahead."""
    routed.database.execute("SELECT nextval('shop_item_id_seq')")
    routed.settle()
    for sql in (
        "SELECT last_value FROM shop_item_id_seq",
        "SELECT last_value FROM pg_sequences WHERE sequencename = 'shop_item_id_seq'",
        "SELECT pg_sequence_last_value('shop_item_id_seq')",
    ):
        with request_context(), routed.connection.cursor() as cursor:
            cursor.execute(sql)
            assert cursor.fetchall() == [(1,)]


@STRAIGHT
def test_what_psycopgs_own_block_wrote_is_read_after_it(routed: Routed) -> None:
    """connection.connection.transaction() commits at its end, and other requests' reads, which
    have its pin, see what it wrote."""
    with request_context() as request:
        routed.connection.ensure_connection()
        with routed.connection.connection.transaction():
            items().create(name="tea")
            routed.database.execute("CREATE TABLE other ()")  # flushes the WAL of the INSERT
            routed.settle()  # a position sampled now is one before the commit
            for replica in routed.cluster.replicas:
                replica.pause_replay()
        routed.connection.close()
        with within(request):
            assert items().count() == 1


def test_select_for_update_is_on_the_primary(routed: Routed) -> None:
    """A lock is taken where writes go, and only in a transaction, as Django has it."""
    from django.db import transaction
    from django.db.transaction import TransactionManagementError

    with transaction.atomic():
        assert list(items().select_for_update()) == []
        assert routed.holding() == {"primary"}
    with pytest.raises(TransactionManagementError):
        list(items().select_for_update())


def test_no_half_of_a_transaction_is_committed(routed: Routed) -> None:
    """When the connection is lost within atomic() and the code goes on, nothing more of that
    transaction runs, and nothing of it is committed."""
    from django.db import transaction
    from django.db.utils import DatabaseError

    def lose() -> None:
        with routed.connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid() FROM pg_advisory_xact_lock_shared(0)")
            (pid,) = cursor.fetchone()
            routed.database.execute(f"SELECT pg_terminate_backend({pid})")
            with contextlib.suppress(DatabaseError):
                cursor.execute("INSERT INTO shop_item (name) VALUES ('lost')")
            cursor.execute("INSERT INTO shop_item (name) VALUES ('alone')")

    def half() -> None:
        with transaction.atomic():
            items().create(name="first")
            lose()

    with pytest.raises(DatabaseError):
        half()
    assert routed.database.execute("SELECT name FROM shop_item") == []
    items().create(name="next")
    assert routed.database.execute("SELECT name FROM shop_item") == [("next",)]


def test_set_autocommit_false(routed: Routed) -> None:
    """Without autocommit all is one transaction on the primary until commit() or rollback()."""
    from django.db import transaction

    transaction.set_autocommit(False)
    try:
        assert routed.served() == "primary"
        items().create(name="tea")
        transaction.rollback()
        assert items().count() == 0
        items().create(name="tea")
        transaction.commit()
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)
    assert items().count() == 1


def test_iterator_goes_on_while_others_write(routed: Routed) -> None:
    """A server-side cursor lives on through writes, pins and the end of its replica's turn."""
    items().bulk_create([items().model(name=str(n)) for n in range(250)])
    routed.settle()
    with request_context():
        rows = items().order_by("id").iterator(chunk_size=50)
        first = next(rows)
        items().filter(pk=first.pk).update(name="changed")
        assert items().get(pk=first.pk).name == "changed"
        routed.connection.connection.rest()
        assert routed.served() in ("primary", "replica")
        assert len(list(rows)) == 249


def test_queries_are_counted_and_wrapped_as_ever(routed: Routed) -> None:
    """execute_wrapper, connection.queries and assertNumQueries' counter see what they did."""
    from django.test.utils import CaptureQueriesContext

    seen: list[str] = []

    def watch(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        seen.append(sql)
        assert context["connection"] is routed.connection
        return execute(sql, params, many, context)

    with routed.connection.execute_wrapper(watch), CaptureQueriesContext(routed.connection) as c:
        items().filter(name="it's").count()
        items().create(name="tea")
    assert len(seen) == len(c) == 2
    assert "'it''s'" in c[0]["sql"]


@STRAIGHT
def test_settings_made_are_there_wherever_a_statement_runs(routed: Routed) -> None:
    """What SET changed on the primary holds on a replica taken later, and after a write."""
    with request_context(), routed.connection.cursor() as cursor:
        cursor.execute("SET app.tenant = '7'")
        cursor.execute("SELECT current_setting('app.tenant', true), inet_server_port()")
        tenant, port = cursor.fetchone()
        assert (tenant, routed.role(port)) == ("7", "replica")
        with using_primary():
            cursor.execute("SELECT current_setting('app.tenant', true)")
            assert cursor.fetchone() == ("7",)
        routed.settle()
        routed.connection.connection.rest()
        cursor.execute("SELECT current_setting('app.tenant', true), inet_server_port()")
        tenant, port = cursor.fetchone()
        assert (tenant, routed.role(port)) == ("7", "replica")


def test_each_request_has_pins_of_its_own(routed: Routed) -> None:
    """One request's write does not send another's reads to the primary."""
    with routed.cluster.replay_paused():
        with request_context():
            items().create(name="tea")
            assert routed.served() == "primary"
        with request_context():
            assert routed.served() == "replica"


def test_a_read_only_transaction_is_on_one_replica(routed: Routed) -> None:
    """read_only() is a READ ONLY transaction on a replica; a write in it fails, and no pin ends
    it."""
    from django.db import transaction
    from django.db.utils import InternalError

    from router.django import read_only

    with read_only():
        assert routed.served() == "replica"
        with routed.connection.cursor() as cursor:
            cursor.execute("SHOW transaction_read_only")
            assert cursor.fetchone() == ("on",)
    with pytest.raises(InternalError), read_only():
        items().create(name="tea")
    with transaction.atomic(), read_only():
        assert routed.served() == "primary"
    assert items().count() == 0
    items().create(name="tea")


def test_threads_have_connections_of_their_own_and_one_router(routed: Routed) -> None:
    """Each thread's wrapper keeps its own connections; all ask one Router."""
    from django.db import connection

    found: list[Any] = []

    def work() -> None:
        try:
            items().count()
            found.append((connection.router, connection.connection))
        finally:
            connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    items().count()
    assert found[0][0] is routed.router
    assert found[0][1] is not routed.connection.connection


def test_types_registered_on_the_connection_reach_every_node(routed: Routed) -> None:
    """A type registered the psycopg way is known on replica and primary."""
    import psycopg
    from psycopg.types.composite import CompositeInfo, register_composite

    with using_primary(), routed.connection.cursor() as cursor:
        cursor.execute("CREATE TYPE pair AS (a int, b int)")
    routed.settle()
    with psycopg.connect(routed.database.primary_url()) as plain:
        info = CompositeInfo.fetch(plain, "pair")
    assert info is not None
    register_composite(info, routed.connection.connection)
    for block in (request_context, using_primary):
        with block(), routed.connection.cursor() as cursor:
            cursor.execute("SELECT ROW(1, 2)::pair")
            assert cursor.fetchone()[0].b == 2


@pytest.mark.parametrize("pool", [True, {"min_size": 1, "max_size": 2}])
def test_pools_of_psycopg(connect: Connect, pool: Any) -> None:
    """With OPTIONS["pool"] each node has a pool; a connection goes back to it with close()."""
    routed = connect(CONN_MAX_AGE=0, OPTIONS={"pool": pool})
    for _ in range(5):
        with request_context():
            assert routed.served() == "replica"
            items().create(name="tea")
            assert routed.served() in ("primary", "replica")
        routed.connection.close()
    pools = routed.connection.cluster._pools
    assert {n.role.name for n in pools} == {"PRIMARY", "REPLICA"}
    routed.settle()
    assert items().count() == 5


def test_a_full_pool_says_so_and_blacklists_nobody(connect: Connect) -> None:
    """Busy is not broken: waiting for a pool's connection in vain leaves the node in."""
    from django.db import OperationalError, connections

    pool = {"min_size": 0, "max_size": 1, "timeout": 1.0}
    routed = connect(CONN_MAX_AGE=0, OPTIONS={"pool": pool})
    with using_primary():
        assert routed.served() == "primary"
        other = routed.connection.copy()
        with pytest.raises(OperationalError, match=r"primary.*pool's 1 conn.*max_size in OPT"):
            other.cursor().execute("SELECT 1")
        other.close()
    assert routed.router.blacklisted == {}
    assert connections["default"] is routed.connection


@pytest.mark.parametrize("binding", [False, True])
def test_server_side_binding(connect: Connect, binding: bool) -> None:
    """Both ways of binding parameters read from a replica, iterator() included."""
    routed = connect(OPTIONS={"server_side_binding": binding})
    assert list(items().filter(name="x")) == []
    assert list(items().filter(name="x").iterator()) == []
    assert routed.holding() == {"replica"}


def test_a_dead_primary_leaves_reads(make_cluster: Any, connect: Connect) -> None:
    """With the primary gone reads go on, also of a process that starts then; writes say so."""
    from django.db import OperationalError

    from router.errors import PrimaryUnavailable
    from tests.conftest import Database

    cluster = make_cluster(2)
    cluster.primary.execute("CREATE TABLE shop_item (id bigserial PRIMARY KEY, name text)")
    cluster.wait_caught_up()
    of = Database(cluster, "postgres")
    routed = connect(of)
    assert items().count() == 0
    cluster.primary.stop("immediate")
    for again in (False, True):
        if again:
            routed.connection.close()
        assert items().count() == 0
        assert routed.served() == "replica"
        with request_context(), pytest.raises(OperationalError) as caught:
            items().create(name="tea")
        assert isinstance(caught.value, PrimaryUnavailable)
    fresh = connect(of, ROUTER={"name": "another process"})
    assert fresh.served() == "replica"


@STRAIGHT
def test_a_replicas_options_are_its_own(connect: Connect, database: Any) -> None:
    """OPTIONS of one of REPLICAS hold for its connections, over those of the database."""
    replicas = [
        {"HOST": server.host, "PORT": server.port, "OPTIONS": {"application_name": "reads"}}
        for server in database.cluster.replicas
    ]
    routed = connect(REPLICAS=replicas, OPTIONS={"application_name": "writes"})
    for where, name in ((using_primary, "writes"), (using_replica, "reads")):
        with where(), routed.connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('application_name')")
            assert cursor.fetchone() == (name,)


@STRAIGHT
def test_a_dead_replica_is_invisible(make_cluster: Any, connect: Connect) -> None:
    """A replica that dies under kept connections or pools fails no read."""
    from tests.conftest import Database

    cluster = make_cluster(2)
    cluster.primary.execute("CREATE TABLE shop_item (id bigserial PRIMARY KEY, name text)")
    cluster.wait_caught_up()
    of = Database(cluster, "postgres")
    kept = connect(of)
    assert kept.served() == "replica"
    held = kept.connection.connection.checkout.replica.node
    pooled = connect(of, CONN_MAX_AGE=0, OPTIONS={"pool": True})
    assert pooled.served() == "replica"
    cluster.server_at(held.port).stop("immediate")
    for routed in (kept, pooled):
        for _ in range(4):
            assert routed.served() == "replica"
            routed.connection.close_if_unusable_or_obsolete()
        assert routed.connection.connection is None or routed.holding() == {"replica"}


@STRAIGHT
@pytest.mark.parametrize("checks", [True, False])
def test_a_restarted_server_is_not_noticed(
    make_cluster: Any, connect: Connect, checks: bool
) -> None:
    """Connections that are older than their server's restart are replaced before a statement
    fails on them, on the primary too, with health checks or without, and whatever transaction was
    the last on them."""
    from tests.conftest import Database

    cluster = make_cluster(1)
    cluster.primary.execute("CREATE TABLE shop_item (id bigserial PRIMARY KEY, name text)")
    cluster.wait_caught_up()
    routed = connect(Database(cluster, "postgres"), CONN_HEALTH_CHECKS=checks)
    requests = (
        lambda: read_only(routed), lambda: atomic(routed), routed.served, items().count,
        lambda: items().create(name="tea"), lambda: read_only(routed), lambda: atomic(routed),
    )  # fmt: skip
    for _ in range(2):
        for each in requests:
            request(each)
        for server in cluster.servers:
            server.stop()
            server.start()
        routed.settle()
    for each in requests:
        request(each)
    with using_primary():
        assert items().count() == 9


def request(work: Callable[[], Any]) -> Any:
    """Do `work` as Django's handlers have a view do it: connections are looked after around it."""
    from django.db import close_old_connections

    close_old_connections()
    try:
        with request_context():
            return work()
    finally:
        close_old_connections()


def atomic(routed: Routed) -> None:
    from django.db import transaction

    with transaction.atomic():
        assert routed.served() == "primary"
        items().create(name="tea")


def read_only(routed: Routed) -> None:
    from router.django import read_only as block

    with block(), routed.connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('transaction_read_only')")
        assert cursor.fetchone() == ("on",)


def execute(*statements: str) -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def in_a_block(*statements: str) -> None:
    from router.django import read_only as block

    with block():
        execute(*statements)


def by_hand(*statements: str) -> None:
    from django.db import connection

    connection.ensure_connection()
    connection.connection.autocommit = False
    execute(*statements)


def commit_by_hand() -> None:
    from django.db import transaction

    transaction.set_autocommit(False)
    execute("SELECT 1")
    transaction.commit()
    transaction.set_autocommit(True)


KEPT: dict[str, dict[str, Any]] = {
    "with health checks": {"CONN_MAX_AGE": 60, "CONN_HEALTH_CHECKS": True},
    "without": {"CONN_MAX_AGE": None},
    "in a pool": {"CONN_MAX_AGE": 0, "OPTIONS": {"pool": {"min_size": 1, "max_size": 1}}},
}

IN_TRANSACTION = (
    "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%%' AND datname = %s"
)

ONE_REQUESTS: dict[str, Callable[[], Any]] = {
    "reads alone": lambda: in_a_block("SELECT 1"),
    "fails in read_only()": lambda: in_a_block("SELECT 1/0"),
    "writes in read_only()": lambda: in_a_block("INSERT INTO shop_item (name) VALUES ('no')"),
    "commits by hand": commit_by_hand,
    "leaves a transaction it began by hand": lambda: by_hand("SELECT 1"),
    "leaves one it began by SQL": lambda: execute("BEGIN", "SELECT 1"),
    "leaves one that failed": lambda: execute("BEGIN", "SELECT 1/0"),
    "leaves one nobody saw begin": lambda: execute("SELECT 1; BEGIN"),
}


@STRAIGHT
@pytest.mark.parametrize("how", list(KEPT))
def test_what_one_request_does_the_next_need_not_know(connect: Connect, how: str) -> None:
    """Whatever a request does to its thread's connection, the next ones read, have transactions
    and write, and no server is left in a transaction."""
    from django.db import DatabaseError

    routed = connect(**KEPT[how])
    for work in ONE_REQUESTS.values():
        for _ in range(2):
            with contextlib.suppress(DatabaseError):
                request(work)
        request(lambda: read_only(routed))
        request(lambda: atomic(routed))
        request(routed.await_replica)
        for server in routed.cluster.servers:
            assert server.execute(IN_TRANSACTION, [routed.database.name]) == [(0,)]
    with using_primary():
        assert items().count() == len(ONE_REQUESTS)


@STRAIGHT
def test_a_replica_that_dies_within_read_only_is_forgotten(connect: Connect) -> None:
    """A session that ends inside read_only(), or at its end, costs that block and no more."""
    from django.db import DatabaseError

    def dies(after: int) -> None:
        from router.django import read_only as block

        with block():
            assert routed.served() == "replica"
            for server in routed.cluster.replicas:
                server.execute(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                    "WHERE datname = %s AND application_name LIKE 'pg-router replica%%'",
                    [routed.database.name],
                )
            for _ in range(after):
                routed.served()

    routed = connect(CONN_HEALTH_CHECKS=True, ROUTER={"blacklist_duration": 0.05})
    for after in (1, 0):
        with contextlib.suppress(DatabaseError):
            request(partial(dies, after))
        for _ in range(2):
            request(lambda: atomic(routed))
            request(routed.await_replica)
            request(lambda: read_only(routed))
    with using_primary():
        assert items().count() == 4


@STRAIGHT
def test_threads_may_enter_one_read_only_at_once(routed: Routed) -> None:
    """Who leaves a read_only() that another thread is in as well has transactions that write
    again, and the other one when it leaves."""
    from django.db import connection

    from router.django import read_only as block

    shared = block()
    inside, over = threading.Event(), threading.Event()
    found: list[Any] = []

    def work() -> None:
        try:
            with shared:
                items().count()
                inside.set()
                assert over.wait(10)
            items().create(name="tea")
            found.append(connection.read_only)
        finally:
            connection.close()

    thread = threading.Thread(target=work)
    try:
        with shared:
            thread.start()
            assert inside.wait(10)
        atomic(routed)
    finally:
        over.set()
        thread.join()
    assert found == [False]
    assert items().count() == 2


@STRAIGHT
def test_what_is_set_on_the_connection_holds_for_transactions(routed: Routed) -> None:
    """isolation_level, read_only and deferrable of connection.connection hold in atomic(), in
    psycopg's own block, and after autocommit was switched off and on."""
    import psycopg
    from django.db import connection, transaction

    def in_force() -> Any:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT current_setting('transaction_isolation'), "
                "current_setting('transaction_read_only'), "
                "current_setting('transaction_deferrable')"
            )
            return cursor.fetchone()

    connection.ensure_connection()
    facade = connection.connection
    facade.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
    facade.read_only = facade.deferrable = True
    for _ in range(2):
        with transaction.atomic():
            assert in_force() == ("serializable", "on", "on")
        with facade.transaction():
            assert in_force() == ("serializable", "on", "on")
        transaction.set_autocommit(False)
        assert in_force() == ("serializable", "on", "on")
        with pytest.raises(psycopg.ProgrammingError, match="read_only"):
            facade.read_only = None
        transaction.rollback()
        transaction.set_autocommit(True)
    facade.read_only = facade.deferrable = facade.isolation_level = None
    with transaction.atomic():
        assert in_force() == ("read committed", "off", "off")


def test_a_forked_child_opens_its_own(routed: Routed) -> None:
    """A child process neither uses nor closes the sockets its parent had open."""
    import multiprocessing

    def work(pipe: Any) -> None:
        items().create(name="child")
        pipe.send((routed.served(), items().count()))
        pipe.close()
        os._exit(0)

    items().create(name="parent")
    routed.settle()
    routed.await_replica()
    before = _session(routed)
    ours, theirs = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=work, args=(theirs,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
        child.start()
    assert ours.poll(30)
    assert ours.recv()[1] == 2
    child.join(30)
    with using_primary():
        assert items().count() == 2
    assert _session(routed) == before


def _session(routed: Routed) -> int:
    """That on the primary which serves now, as its driver knows it."""
    with using_primary():
        assert items().exists()
    return int(routed.connection.connection.checkout.primary.dbapi.info.backend_pid)


def test_copy_and_callproc_go_where_they_belong(routed: Routed) -> None:
    """COPY into a table and a function that writes are on the primary and pin; the next request
    reads replicas again, whatever the function may have left in its session."""
    from django.db import close_old_connections

    with routed.connection.cursor() as cursor, using_primary():
        cursor.execute(
            "CREATE FUNCTION add_item(text) RETURNS bigint LANGUAGE sql AS "
            "'INSERT INTO shop_item (name) VALUES ($1) RETURNING id'"
        )
    with request_context():
        with routed.cluster.replay_paused():
            with routed.connection.cursor() as cursor:
                with cursor.copy("COPY shop_item (name) FROM STDIN") as copy:
                    copy.write_row(("tea",))
                cursor.callproc("add_item", ["milk"])
            assert items().count() == 2
        routed.settle()
        close_old_connections()
        routed.await_replica()


@STRAIGHT
def test_a_stream_and_a_copy_of_a_read_are_on_a_replica(routed: Routed) -> None:
    """They bind nothing, and a stream that nobody reads to its end keeps nobody waiting."""
    from django.db import close_old_connections

    with request_context():
        with routed.connection.cursor() as cursor:
            (row,) = cursor.stream("SELECT inet_server_port()")
            assert routed.role(row[0]) == "replica"
            with cursor.copy("COPY (SELECT inet_server_port()) TO STDOUT") as copy:
                assert [routed.role(int(row[0])) for row in copy.rows()] == ["replica"]
            assert routed.served() == "replica"
            rows = cursor.stream("SELECT generate_series(1, 100000)")
            assert next(rows) == (1,)
        close_old_connections()
        assert routed.served() == "replica"


@STRAIGHT
def test_session_state_ends_with_the_request(routed: Routed) -> None:
    """A session advisory lock keeps a request on the primary, and the next one reads replicas."""
    from django.db import close_old_connections

    with request_context(), routed.connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(7)")
        assert routed.served() == "primary"
    routed.settle()
    close_old_connections()
    with request_context():
        routed.await_replica()
        with routed.connection.cursor() as cursor, using_primary():
            cursor.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
            assert cursor.fetchone() == (0,)


def test_servers_see_node_and_reason(connect: Connect) -> None:
    """Connections are named after their node, and with sql_comment statements say why they are
    there."""
    routed = connect(ROUTER={"sql_comment": True})
    with routed.connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('application_name'), current_query()")
        name, text = cursor.fetchone()
    assert name.startswith("pg-router replica")
    assert text.endswith(",router_reason='read'*/")


def test_a_hint_in_the_text_says_where(routed: Routed) -> None:
    """A comment sends a read to the primary, or to a replica whatever the pin; no write."""

    def served(sql: str) -> str:
        with routed.connection.cursor() as cursor:
            cursor.execute(sql)
            return routed.role(cursor.fetchone()[0])

    with request_context(), routed.cluster.replay_paused():
        assert served("SELECT inet_server_port() /* router: primary */") == "primary"
        with routed.connection.cursor() as cursor:
            cursor.execute("INSERT INTO shop_item (name) VALUES ('tea') /* router: replica */")
        assert routed.served() == "primary"
        assert served("/* router: replica */ SELECT inet_server_port()") == "replica"
        assert items().count() == 1
