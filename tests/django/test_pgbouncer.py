"""Django through a real PgBouncer that pools by transaction."""

import gc
import threading
from typing import Any

import pytest

from router import ConfigError, SessionRefused, using_primary, using_replica
from router.config.config import Config
from router.django import bouncer
from tests.conftest import Database
from tests.django.conftest import Connect, Routed, settings_of, through_pgbouncer
from tests.pgbouncer import STORM, judge_prepared, prepared

THROUGH = pytest.mark.doors("pgbouncer")
BOUNCED = {"HOST": "h", "NAME": "shop", "ROUTER": {"pgbouncer": True}}


@THROUGH
def test_no_server_side_cursor_is_opened(connect: Connect) -> None:
    """iterator() fetches at once without being told to, because a cursor needs a transaction that
    lasts; without PgBouncer it streams."""
    from tests.django.shop.models import Item

    routed = connect()
    assert routed.connection.settings_dict["DISABLE_SERVER_SIDE_CURSORS"] is True
    Item.objects.bulk_create([Item(name=str(n)) for n in range(50)])
    rows = Item.objects.order_by("id").iterator(chunk_size=10)
    next(rows)
    with routed.connection.cursor() as cursor, using_replica():
        cursor.execute("SELECT count(*) FROM pg_cursors")
        assert cursor.fetchone() == (0,)
    assert len(list(rows)) == 49


@THROUGH
def test_what_needs_a_session_is_refused(connect: Connect) -> None:
    """A SET would reach other clients: it is refused before it is sent, and SET LOCAL works."""
    from django.db import NotSupportedError, transaction

    routed = connect()
    with (
        routed.connection.cursor() as cursor,
        pytest.raises(SessionRefused, match="SET LOCAL") as refused,
    ):
        cursor.execute("SET statement_timeout = 5")
    assert isinstance(refused.value, NotSupportedError)
    with transaction.atomic(), routed.connection.cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = 5000")


@THROUGH
def test_what_needs_a_session_goes_over_session_url(connect: Connect, database: Database) -> None:
    """With session_url a SET, and what follows it, is on the primary past PgBouncer, until the
    request ends; the next one is back on a replica."""
    routed = connect(ROUTER={"session_url": database.primary_url()})
    with routed.connection.cursor() as cursor:
        cursor.execute("SET app.tenant = 'seven'")
        for _ in range(3):
            cursor.execute("SELECT current_setting('app.tenant'), pg_backend_pid()")
            assert cursor.fetchone()[0] == "seven"
        cursor.execute("SELECT pg_advisory_lock(1)")
        assert routed.served() == "primary"
    routed.connection.close_if_unusable_or_obsolete()
    routed.await_replica()
    held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
    assert database.execute(held) == [(0,)]


@THROUGH
def test_migrate_has_a_session_of_its_own(connect: Connect, database: Database) -> None:
    """With session_url all of a migration is one server session past PgBouncer."""
    from django.core.management import call_command
    from django.db.models.signals import post_migrate

    routed = connect(ROUTER={"session_url": database.primary_url()})
    past: list[bool] = []

    def look(**_: Any) -> None:
        past.append(routed.connection.connection.checkout.dedicated)

    post_migrate.connect(look)
    try:
        call_command("migrate", verbosity=0)
    finally:
        post_migrate.disconnect(look)
    assert past
    assert all(past)
    routed.await_replica()


@THROUGH
def test_a_session_url_that_leads_elsewhere_is_refused(
    connect: Connect, database: Database
) -> None:
    """A replica's address in session_url is found out before anything runs there."""
    routed = connect(ROUTER={"session_url": database.replica_urls()[0]})
    with (
        routed.connection.cursor() as cursor,
        pytest.raises(SessionRefused, match="session_url: the server there is not the primary"),
    ):
        cursor.execute("SET app.tenant = 'seven'")


@THROUGH
def test_another_database_is_refused(connect: Connect, database: Database) -> None:
    """Neither session_url nor the NAME of a replica behind PgBouncer may lead to another database:
    the first is found out before anything runs there, the other at the first statement."""
    meant = f"the primary's '{database.name}'"
    routed = connect(ROUTER={"session_url": database.cluster.primary.url("postgres")})
    with (
        routed.connection.cursor() as cursor,
        pytest.raises(SessionRefused, match=f"the database there is 'postgres', and {meant}"),
    ):
        cursor.execute("SET app.tenant = 'seven'")
    replica = {"HOST": database.cluster.replicas[0].host, "NAME": "postgres"}
    replica |= {"PORT": str(database.cluster.replicas[0].port)}
    routed = connect(start=False, REPLICAS=[replica])
    with pytest.raises(ConfigError, match=r"replicas\[0\]: replica1 .* opens the database"):
        routed.served()


@pytest.mark.doors("plain", "pgbouncer")
def test_a_schema_is_on_every_node_or_refused(
    connect: Connect, database: Database, way: str
) -> None:
    """Names mean the own schema on primary and replica; behind a PgBouncer that does not begin its
    sessions there the first statement is refused, saying what to write."""
    database.execute("CREATE SCHEMA mine")
    database.cluster.wait_caught_up()
    routed = connect(ROUTER={"schema": "mine"})
    with routed.connection.cursor() as cursor:
        if way == "pgbouncer":
            with pytest.raises(ConfigError, match=r"schema: behind PgBouncer.*pgbouncer-ini"):
                cursor.execute("SHOW search_path")
            return
        for where in (using_primary, using_replica):
            with where():
                cursor.execute("SELECT current_setting('search_path'), inet_server_port()")
                path, port = cursor.fetchone()
            assert path == '"mine"'
            assert routed.role(port) == where.__name__.removeprefix("using_")


def storm(routed: Routed, queries: int) -> list[str]:
    """Run as many queries from 16 threads, a tenth of them writes, and others row by row; what
    went wrong."""
    from django.db import connections

    from tests.django.shop.models import Item

    failures: list[str] = []

    def work(seed: int) -> None:
        for n in range(queries // 16):
            try:
                if n % 10 == seed % 10:
                    Item.objects.create(name=str(n))
                elif n % 10 == 5:
                    list(Item.objects.order_by("id")[:20].iterator(chunk_size=10))
                else:
                    Item.objects.filter(pk__gt=n, name__startswith=str(seed)).count()
            except Exception as error:
                failures.append(f"{type(error).__name__}: {error}")
        connections.close_all()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


@pytest.mark.slow
def test_threads_share_four_server_connections(database: Database, connect: Connect) -> None:
    """16 threads run a storm of queries over four server connections without one error."""
    with through_pgbouncer(database, pool_size=4, patience=60) as changes:
        options = {"pgbouncer": "transaction", "probe_timeout": 5.0}
        assert storm(connect(**changes, ROUTER=options), STORM) == []


@pytest.mark.filterwarnings("ignore:.* was deleted while still open:ResourceWarning")
def test_with_the_mode_left_off_cursors_are_lost(database: Database, connect: Connect) -> None:
    """The same run without the mode fails by server-side cursors: the one above is awake. Django
    prepares no statements unless told to."""
    with through_pgbouncer(database, pool_size=4, patience=60) as changes:
        # Replicas by another name are not to be had without it.
        failures = storm(connect(**changes | {"REPLICAS": []}), 1_600)
    gc.collect()  # Django leaves the cursors that failed to it
    assert any("cursor" in failure for failure in failures)


def test_a_pgbouncer_that_keeps_prepared_statements_may_have_them(
    database: Database, connect: Connect
) -> None:
    """With prepare_threshold and prepared_statements psycopg prepares what Django repeats: with no
    error from PgBouncer 1.21 on, where max_prepared_statements is set; before, they collide."""
    with through_pgbouncer(database, pool_size=4, patience=60, prepared=100) as changes:
        options = {"pgbouncer": True, "prepared_statements": True, "probe_timeout": 5.0}
        prepare = {"prepare_threshold": 1, "server_side_binding": True}
        failures = storm(connect(**changes, ROUTER=options, OPTIONS=prepare), 1_600)
        url = f"postgresql://postgres@{changes['HOST']}:{changes['PORT']}/{changes['NAME']}"
        kept = prepared(url)
    judge_prepared(failures, kept)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"OPTIONS": {"prepare_threshold": 5}}, "prepare_threshold.*1.21"),
        ({"OPTIONS": {"assume_role": "x"}}, "assume_role.*SET ROLE"),
        ({"OPTIONS": {"options": "-c work_mem=8MB"}}, "options: PgBouncer refuses"),
        (
            {"REPLICAS": [{"HOST": "r", "OPTIONS": {"options": "-c work_mem=8MB"}}]},
            r"REPLICAS'\]\[0\]\['OPTIONS'\]: options: PgBouncer refuses",
        ),
    ],
)
def test_options_that_cannot_work_are_refused(changes: Any, said: str) -> None:
    """What would fail at some statement, or leak to others, is named with its cure at first."""
    database = {**BOUNCED, **changes}
    with pytest.raises(ConfigError, match=said):
        bouncer.check(Config.from_django(database, "main"), database, "main")


def test_what_newer_versions_allow_can_be_asked_for() -> None:
    """PgBouncer 1.21 keeps prepared statements apart: who says so may have them."""
    options = {"pgbouncer": True, "prepared_statements": True}
    database = {**BOUNCED, "ROUTER": options, "OPTIONS": {"prepare_threshold": 5}}
    bouncer.check(Config.from_django(database, "main"), database, "main")
    with pytest.raises(ConfigError, match="Django keeps none"):
        Config.from_django({**database, "ROUTER": {"prepared_statements": True}}, "main")


def test_one_pgbouncer_knows_the_replicas_by_name() -> None:
    """A replica may be another name behind the same PgBouncer; host and port are the primary's."""
    database = {**BOUNCED, "PORT": 6432, "REPLICAS": [{"NAME": "shop_replica1"}]}
    (replica,) = Config.from_django(database, "main").replicas
    assert (replica.host, replica.port, replica.dbname) == ("h", 6432, "shop_replica1")


def test_a_replica_says_its_own_pgbouncer() -> None:
    """It may stand without one, or be the only one behind one, under a name of its own."""
    replicas = [{"HOST": "r1", "pgbouncer": "off"}, {"NAME": "shop_r2"}]
    config = Config.from_django({**BOUNCED, "REPLICAS": replicas}, "main")
    assert [config.pooling(s) for s in config.replicas] == ["off", "transaction"]
    alone = {"HOST": "b", "NAME": "shop_r1", "pgbouncer": True}
    config = Config.from_django({"HOST": "h", "NAME": "shop", "REPLICAS": [alone]}, "main")
    assert [config.pooling(s) for s in config.replicas] == ["transaction"]
    assert bouncer.shared(config)


def test_tests_leave_named_replicas_alone(
    database: Database,
    connect: Connect,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A test database has no name of its own behind PgBouncer on a replica, nor in a URL: reads of
    tests would go to real data, so such a replica is left out, in a spawned worker too."""
    # A worker runs tests until it ends: what it notes here must not outlive this test.
    monkeypatch.setattr("router.django.creation._tested", set())
    routed = connect(
        start=False,
        ROUTER={"pgbouncer": "session", "session_url": "postgresql://db/real"},
        REPLICAS=[
            {"NAME": database.name},
            database.replica_urls()[0],
            settings_of(database)["REPLICAS"][0],
        ],
    )
    creation = routed.connection.creation
    creation._leave_real_data_alone()
    assert [sorted(r) for r in routed.connection.settings_dict["REPLICAS"]] == [["HOST", "PORT"]]
    assert routed.connection.settings_dict["ROUTER"] == {"pgbouncer": "session"}
    assert "left out" in capfd.readouterr().err
    routed.connection.settings_dict["REPLICAS"].append({"NAME": database.name})
    creation.setup_worker_connection(1)
    assert [sorted(r) for r in routed.connection.settings_dict["REPLICAS"]] == [["HOST", "PORT"]]
