"""What other routers fell into, and nothing else in this directory holds."""

import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.orm.exc import StaleDataError

import router
from router.testing import Proxy
from tests.conftest import MakeCluster
from tests.sqlalchemy.kit import EVERY_DOOR, PORT, Routed, as_soon_as, insert

COUNT = sa.text("SELECT count(*) FROM item")


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Counted(Base):
    __tablename__ = "counted"
    id: Mapped[int] = mapped_column(primary_key=True)
    stock: Mapped[int]
    version: Mapped[int] = mapped_column()
    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012 - SQLAlchemy's own name


def within(seconds: float, holds: Callable[[], bool]) -> None:
    """Ask again: what the probes find comes when it comes."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def sqlstate(error: sa.exc.DBAPIError) -> str:
    return str(getattr(error.orig, "sqlstate", ""))


# -- the ORM -----------------------------------------------------------------------------------


def test_a_version_counter_stops_a_write_computed_from_an_old_read(routed: Routed) -> None:
    """Who changes what an old replica showed gets StaleDataError, and nobody's write is undone."""
    Base.metadata.tables["counted"].create(routed.engine)
    with Session(routed.engine) as session:
        session.add(Counted(id=1, stock=100))
        session.commit()
    routed.settle()
    with routed.paused(), router.request_context(), Session(routed.engine) as session:
        routed.execute_on_primary("UPDATE counted SET stock = 70, version = version + 1")
        seen = session.get_one(Counted, 1)
        assert seen.stock == 100
        seen.stock -= 30
        with pytest.raises(StaleDataError):
            session.commit()


def test_hidden_reads_after_a_commit_find_what_was_written(routed: Routed) -> None:
    """With replay paused, an expired attribute, refresh() and a query see the commit."""
    with routed.paused(), router.request_context(), Session(routed.engine) as session:
        item = Item(name="mine")
        session.add(item)
        session.commit()
        assert item.name == "mine"
        session.refresh(item)
        assert session.query(Item).count() == 1
        assert session.query(Item).filter_by(name="mine").delete() == 1
        session.commit()
        assert session.query(Item).count() == 0


# -- transactions ------------------------------------------------------------------------------


@EVERY_DOOR
def test_an_aborted_transaction_stays_aborted(routed: Routed) -> None:
    """After an error in a transaction a read does not escape to a replica: it fails as well."""
    with routed.engine.connect() as connection:
        insert(connection)
        with pytest.raises(sa.exc.DBAPIError, match="division by zero"):
            connection.execute(sa.text("SELECT 1 / 0"))
        with pytest.raises(sa.exc.DBAPIError, match="aborted"):
            connection.execute(PORT)
        connection.rollback()
        assert connection.scalar(COUNT) == 0


@EVERY_DOOR
def test_no_half_of_a_transaction_is_committed(routed: Routed) -> None:
    """When the connection is lost in a transaction and the code goes on, nothing more of that
    transaction runs, on no node."""
    with routed.engine.connect() as connection:
        insert(connection)
        pid = connection.scalar(sa.text("SELECT pg_backend_pid()"))
        routed.execute_on_primary(f"SELECT pg_terminate_backend({pid}, 5000)")
        with pytest.raises(sa.exc.DBAPIError):
            insert(connection)
        with pytest.raises((router.TransactionLost, sa.exc.InvalidRequestError)):
            insert(connection)
    assert routed.count() == 0


def test_a_read_only_transaction_does_not_move(routed: Routed) -> None:
    """Reads of one snapshot are not gone on with on another node when theirs is lost."""
    replica = routed.cluster.replicas[0]
    with Proxy(replica.host, replica.port) as proxy:
        engine = routed.another(replicas=[proxy.url(replica.url(routed.dbname))])
        read_only = engine.execution_options(postgresql_readonly=True)
        with read_only.connect() as connection:
            connection.begin()
            assert connection.scalar(PORT) == replica.port
            proxy.cut()
            with pytest.raises(sa.exc.DBAPIError):
                connection.scalar(PORT)
            connection.rollback()
        assert "retried" not in engine.router.stats()["events"]


def test_a_write_in_autocommit_is_not_sent_again(routed: Routed) -> None:
    """A connection cut while a write runs is an error: the server does what it got, once."""
    primary = routed.cluster.primary
    slow = sa.text("INSERT INTO item (name) SELECT 'x' FROM pg_advisory_xact_lock(7)")
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory' AND datname = %s"

    def waiting() -> Any:
        return primary.execute(waits, [routed.dbname])[0][0]

    with (
        psycopg.connect(primary.conninfo(routed.dbname)) as holder,
        Proxy(primary.host, primary.port) as proxy,
    ):
        holder.execute("SELECT pg_advisory_lock(7)")
        engine = routed.another(
            url=proxy.url(primary.url(routed.dbname)), isolation_level="AUTOCOMMIT"
        )
        with engine.connect() as connection:
            insert(connection)
            with as_soon_as(waiting, proxy.cut), pytest.raises(sa.exc.DBAPIError):
                connection.execute(slow)
        assert waiting() == 1  # what was sent a second time would wait beside the first
    within(10, lambda: routed.count() == 2)
    assert waiting() == 0


def test_a_stream_cut_half_way_is_an_error(routed: Routed) -> None:
    """Rows that were delivered are not delivered again from another node."""
    replica = routed.cluster.replicas[0]
    with Proxy(replica.host, replica.port) as proxy:
        engine = routed.another(replicas=[proxy.url(replica.url(routed.dbname))])
        with engine.connect().execution_options(yield_per=100) as connection:
            rows = connection.execute(sa.text("SELECT g FROM generate_series(1, 100000) g"))
            assert rows.fetchmany(150)[-1] == (150,)
            proxy.cut()
            with pytest.raises(sa.exc.DBAPIError):
                rows.all()
            rows.close()


# -- pins and lag ------------------------------------------------------------------------------


def test_a_rolled_back_write_leaves_its_pin(routed: Routed) -> None:
    """What was sent may have been seen: a rollback does not let reads back to a late replica."""
    with routed.paused(), router.request_context(), routed.engine.connect() as connection:
        insert(connection)
        connection.rollback()
        assert routed.served(connection) == "primary"


def test_an_idle_primary_makes_no_replica_late(routed: Routed) -> None:
    """When nothing is written the age of the last replayed transaction grows, and reads stay on
    the replicas."""
    engine = routed.another(max_lag_seconds=0.3)
    age = "SELECT extract(epoch FROM now() - pg_last_xact_replay_timestamp())"
    within(10, lambda: all(r.execute(age)[0][0] > 1 for r in routed.cluster.replicas))
    assert len(engine.router.refresh().replicas) == 2
    with router.request_context(), engine.connect() as connection:
        assert routed.served(connection) == "replica"


# -- health ------------------------------------------------------------------------------------


@pytest.fixture
def quick() -> dict[str, Any]:
    return {"probe_interval": 0.1, "probe_timeout": 0.5, "blacklist_duration": 0.2}


def test_a_promoted_replicas_pooled_connections_are_the_primarys(
    make_cluster: MakeCluster, quick: dict[str, Any]
) -> None:
    """Writes reach the promoted server, reads leave it for the replica that is left, and the old
    primary, back as a replica, gets reads and no writes."""
    cluster = make_cluster(2)
    cluster.primary.execute("CREATE TABLE item (id serial PRIMARY KEY, name text)")
    cluster.wait_caught_up()
    old, heir, other = cluster.servers
    engine = router.create_engine(old.url(), [heir.url(), other.url()], **quick)

    def read() -> int:
        with router.request_context(), engine.connect() as connection:
            return int(connection.scalar(PORT) or 0)

    def written() -> bool:
        try:
            with engine.begin() as connection:
                insert(connection)
                assert connection.scalar(PORT) == heir.port
        except sa.exc.OperationalError:
            return False
        return True

    try:
        within(10, lambda: read() == heir.port)  # its pool has a connection from then on
        old.stop()
        heir.promote()
        cluster.repoint()
        within(20, written)
        assert heir.execute("SELECT count(*) FROM item") == [(1,)]
        within(20, lambda: {read() for _ in range(5)} == {other.port})
        cluster.rejoin(old)
        within(20, lambda: {read() for _ in range(20)} == {other.port, old.port})
        assert written()
    finally:
        engine.dispose()


def test_a_read_only_primary_is_the_primary(routed: Routed) -> None:
    """default_transaction_read_only makes no replica of it: its refusal is what the writer sees,
    and reads go on."""
    routed.execute_on_primary(
        f"ALTER DATABASE {routed.dbname} SET default_transaction_read_only = on"
    )
    routed.cluster.wait_caught_up()
    engine = routed.another()
    for _ in range(3):
        with router.request_context(), engine.connect() as connection:
            assert routed.served(connection) == "replica"
            with pytest.raises(sa.exc.DBAPIError, match="read-only transaction"):
                insert(connection)
    primary = engine.router.refresh().primary
    assert primary is not None
    assert primary.name == "primary"


def test_a_frozen_primary_holds_up_no_writer(
    make_cluster: MakeCluster, quick: dict[str, Any]
) -> None:
    """Once probes have found a primary frozen writes fail at once, reads go on, and both are well
    when it thaws."""
    cluster = make_cluster(1)
    cluster.primary.execute("CREATE TABLE item (id serial PRIMARY KEY, name text)")
    cluster.wait_caught_up()
    primary, replica = cluster.servers
    engine = router.create_engine(primary.url(), [replica.url()], **quick)

    def write() -> None:
        with engine.begin() as connection:
            insert(connection)

    try:
        write()
        cluster.wait_caught_up()
        primary.freeze()
        within(10, lambda: engine.router.snapshot.down("primary") is not None)
        started = time.monotonic()
        with router.request_context(), pytest.raises(router.PrimaryUnavailable):
            write()
        assert time.monotonic() - started < 5
        with router.request_context(), engine.connect() as connection:
            assert connection.scalar(PORT) == replica.port
        primary.thaw()
        within(20, lambda: engine.router.snapshot.down("primary") is None)
        write()
    finally:
        primary.thaw()
        engine.dispose()


@EVERY_DOOR
def test_being_busy_or_wrong_blacklists_nobody(routed: Routed) -> None:
    """Statement and lock time-outs and a violated constraint are the caller's: each is seen as the
    server said it, and no node is left out for it."""
    insert_first = "INSERT INTO item (id, name) VALUES (1, 'a')"
    routed.execute_on_primary(insert_first)
    engine = routed.engine
    cases = {
        "57014": ["SET LOCAL statement_timeout = 50", "SELECT pg_sleep(30)"],
        "55P03": ["SET LOCAL lock_timeout = 50", "LOCK TABLE item"],
        "23505": [insert_first],
    }
    with engine.begin() as holder:
        holder.execute(sa.text("LOCK TABLE item IN SHARE UPDATE EXCLUSIVE MODE"))
        for state, statements in cases.items():
            with router.request_context(), engine.connect() as connection:
                *before, last = map(sa.text, statements)
                for statement in before:
                    connection.execute(statement)
                with pytest.raises(sa.exc.DBAPIError) as caught:
                    connection.execute(last)
                assert sqlstate(caught.value) == state
                connection.rollback()
    assert engine.router.blacklisted == {}


def test_a_replica_that_is_dead_at_the_start_joins_unseen(routed: Routed) -> None:
    """An engine starts with a replica refused, no read fails for it, none fails when it comes."""
    near, far = routed.cluster.replicas
    with Proxy(far.host, far.port) as proxy:
        proxy.refuse()
        engine = routed.another(
            replicas=[near.url(routed.dbname), proxy.url(far.url(routed.dbname))],
            blacklist_duration=0.2,
            balance="round_robin",
        )

        def ports() -> set[Any]:
            found = set()
            for _ in range(4):
                with router.request_context(), engine.connect() as connection:
                    found.add(connection.scalar(PORT))
            return found

        assert ports() == {near.port}
        proxy.heal()
        within(20, lambda: ports() == {near.port, far.port})


def test_without_a_blacklist_a_dead_replica_costs_no_read(routed: Routed) -> None:
    """With blacklist_duration=0 nobody goes round in circles: reads go to the primary, in time."""
    replica = routed.cluster.replicas[0]
    with Proxy(replica.host, replica.port) as proxy:
        engine = routed.another(
            replicas=[proxy.url(replica.url(routed.dbname))], blacklist_duration=0
        )
        with router.request_context(), engine.connect() as connection:
            assert connection.scalar(PORT) == replica.port
        proxy.refuse()
        proxy.cut()
        started = time.monotonic()
        for _ in range(20):
            with router.request_context(), engine.connect() as connection:
                assert routed.served(connection) == "primary"
        assert time.monotonic() - started < 10
        assert engine.router.blacklisted == {}


def test_a_read_that_replay_cancels_runs_elsewhere(make_cluster: MakeCluster) -> None:
    """A recovery conflict on a replica is seen by nobody, and does not blacklist it."""
    settings = {"max_standby_streaming_delay": "0", "hot_standby_feedback": "off"}
    cluster = make_cluster(1, settings=settings)
    cluster.primary.execute("CREATE TABLE item (id serial PRIMARY KEY, name text)")
    cluster.primary.execute("INSERT INTO item (name) SELECT 'x' FROM generate_series(1, 1000)")
    cluster.wait_caught_up()
    primary, replica = cluster.servers
    engine = router.create_engine(primary.url(), [replica.url()])
    running = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    found: list[Any] = []

    def read() -> None:
        with router.request_context(), engine.connect() as connection:
            # On the replica it would sleep for longer than it is let.
            slow = "SELECT inet_server_port(), pg_sleep(CASE WHEN pg_is_in_recovery() THEN 60 END)"
            found.append(connection.execute(sa.text(slow)).one()[0])

    try:
        reader = threading.Thread(target=read)
        reader.start()
        within(10, lambda: replica.execute(running) == [(1,)])
        primary.execute("DELETE FROM item")
        primary.execute("VACUUM item")
        reader.join(30)
        assert found == [primary.port]
        assert engine.router.stats()["events"]["retried"] == 1
        assert engine.router.blacklisted == {}
    finally:
        engine.dispose()


def test_a_deadlock_with_replay_is_tried_once_on_each_node(routed: Routed) -> None:
    """What every replica cancels with 40P01, as a deadlock with replay is, the primary answers in
    the end: no round is run twice, and nobody is blacklisted."""
    routed.execute_on_primary(
        "CREATE FUNCTION unlucky() RETURNS int LANGUAGE plpgsql STABLE AS $$ BEGIN "
        "IF pg_is_in_recovery() THEN RAISE 'deadlock' USING ERRCODE = '40P01'; END IF; "
        "RETURN inet_server_port(); END $$"
    )
    routed.settle()
    engine = routed.another()
    with router.request_context(), engine.connect() as connection:
        port = connection.scalar(sa.text("SELECT unlucky()"))
    assert port == routed.cluster.primary.port
    assert engine.router.stats()["events"] == {"retried": 2}
    assert engine.router.blacklisted == {}


# -- plans -------------------------------------------------------------------------------------


@pytest.mark.doors("psycopg", "psycopg_async")  # the others keep no plan, or see to it themselves
def test_a_plan_older_than_a_migration_is_no_write(routed: Routed) -> None:
    """A column that another process adds costs a statement kept prepared a detour, no error; it is
    no write for that, and is read from replicas as before, with the new column."""
    star = sa.text("SELECT *, inet_server_port() AS port FROM item WHERE id > :id")
    routed.execute_on_primary("INSERT INTO item (name) VALUES ('a')")
    routed.settle()

    def read() -> Any:
        with router.request_context(), routed.engine.connect() as connection:
            return connection.execute(star, {"id": 0}).one()

    for _ in range(20):
        assert len(read()) == 3
    routed.execute_on_primary("ALTER TABLE item ADD COLUMN price int")
    routed.settle()
    for _ in range(5):
        assert len(read()) == 4
    assert routed.name_of(read().port) == "replica"
    events = routed.engine.router.stats()["events"]
    assert "retried" in events
    assert "healed" not in events
    assert "blacklisted" not in events
