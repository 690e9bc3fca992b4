"""What each server answers for itself is asked of the primary, unless somebody wants another."""

from collections.abc import Mapping
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

import router
from router import request_context, using_replica
from router.errors import PrimaryUnavailable, ReplicaWriteRefused
from router.rules.decision import Reason
from router.sql.builtins import RELATIONS
from router.sql.functions import LOCAL, LOCAL_SETTINGS
from tests.sqlalchemy.kit import EVERY_DOOR, EVERY_DRIVER, PORT, Routed

pytestmark = pytest.mark.once  # it is about the server, not about Python

PID = sa.text("SELECT pg_backend_pid()")
WHERE = sa.text("SELECT inet_server_port(), pg_backend_pid()")
CALLS = """SELECT proname, string_agg('NULL::' || format_type(type, NULL), ', ' ORDER BY place)
           FROM pg_proc LEFT JOIN unnest(proargtypes) WITH ORDINALITY AS a (type, place) ON true
           WHERE pronamespace = 'pg_catalog'::regnamespace AND proname = ANY(%s)
           GROUP BY pg_proc.oid, proname"""


def statements(routed: Routed) -> list[str]:
    """A statement over each relation and function of the table, and of each setting, that tells
    which server runs it; nothing is called, for some want what the servers are built without."""
    calls = routed.cluster.primary.execute(CALLS, [sorted(LOCAL)])
    named = [f"{name}({arguments or ''})" for name, arguments in calls]
    named += [
        name
        for (name,) in routed.cluster.primary.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'pg_catalog'::regnamespace AND "
            "relname = ANY(%s) ORDER BY 1",
            [sorted(set(LOCAL) & RELATIONS)],
        )
    ]
    found = [f"(SELECT count(*) FROM {each} AS x WHERE false)" for each in named]
    found += [f"current_setting('{name}', true)" for name in LOCAL_SETTINGS]
    return [f"SELECT inet_server_port(), {each}" for each in found]


@EVERY_DOOR
def test_each_of_the_table_is_answered_by_the_primary_and_by_a_replica_where_asked(
    routed: Routed,
) -> None:
    """Every function, view and setting of the table, by itself, in a block and as an option."""
    asked = statements(routed)
    assert len(asked) > 150
    with routed.engine.connect() as connection:
        for sql in asked:
            text = sa.text(sql.replace("::", r"\:\:"))
            assert routed.name_of(connection.execute(text).one()[0]) == "primary", sql
            with using_replica():
                assert routed.name_of(connection.execute(text).one()[0]) == "replica", sql
            forced = text.execution_options(router="replica")
            assert routed.name_of(connection.execute(forced).one()[0]) == "replica", sql


@EVERY_DRIVER
def test_its_answer_pins_nobody_and_begins_no_transaction(routed: Routed) -> None:
    """It runs in autocommit, is counted by its own reason, and reads go on at the replicas."""
    with routed.engine.connect() as connection:
        port, pid = connection.execute(WHERE).one()
        assert routed.name_of(port) == "primary"
        state = routed.cluster.primary.execute(
            "SELECT state FROM pg_stat_activity WHERE pid = %s", [pid]
        )
        assert state == [("idle",)]
        assert routed.served(connection) == "replica"
    its = routed.engine.router
    assert its.decisions.total()["primary", Reason.SERVER_LOCAL] == 1
    assert router.current_context().pins.get(its.cluster) is None


def test_what_a_standby_is_by_nature_is_told_of_the_primary(routed: Routed) -> None:
    """SHOW and current_setting() of what differs on a standby are the primary's."""
    with routed.engine.connect() as connection:
        for name in ("transaction_read_only", "in_hot_standby"):
            assert connection.scalar(sa.text(f"SHOW {name}")) == "off"
            assert connection.scalar(sa.text(f"SELECT current_setting('{name}')")) == "off"
            with using_replica():
                assert connection.scalar(sa.text(f"SHOW {name}")) == "on"


def test_a_view_and_a_function_over_it_are_the_primarys_too(routed: Routed) -> None:
    """What the catalog shows to reach such a name is judged by it."""
    routed.execute_on_primary(
        "CREATE VIEW busy AS SELECT inet_server_port() AS port, count(*) FROM pg_locks",
        "CREATE FUNCTION me() RETURNS int STABLE LANGUAGE plpgsql AS "
        "'BEGIN RETURN inet_server_port() + 0 * pg_backend_pid(); END'",
    )
    engine = routed.another()
    engine.router.refresh()
    for sql in ("SELECT port FROM busy", "SELECT me()"):
        with engine.connect() as connection:
            for _ in range(2):
                port = connection.scalar(sa.text(sql))
                assert routed.name_of(port) == "primary"
                assert routed.served(connection) == "replica"
                with using_replica():
                    assert routed.name_of(connection.scalar(sa.text(sql))) == "replica"


@EVERY_DRIVER
def test_a_transaction_asks_the_server_it_is_open_on(routed: Routed) -> None:
    """In one that is declared read-only, on a replica, it speaks of that session; in one on the
    primary of the primary's."""
    with routed.engine.connect() as connection:
        connection = connection.execution_options(postgresql_readonly=True)
        with connection.begin():
            assert routed.served(connection) == "replica"
            port, pid = connection.execute(WHERE).one()
            assert routed.name_of(port) == "replica"
            assert connection.execute(WHERE).one() == (port, pid)
    with routed.engine.begin() as connection:
        assert routed.name_of(connection.execute(WHERE).one()[0]) == "primary"


def test_a_transaction_on_a_replica_that_nobody_declared_is_left(routed: Routed) -> None:
    """Reads run in transactions there, and yet this one is the primary's."""
    engine = routed.another(reads_in_transaction=True)
    with engine.connect() as connection:
        assert routed.served(connection) == "replica"
        assert routed.name_of(connection.execute(WHERE).one()[0]) == "primary"


@EVERY_DRIVER
def test_the_option_any_takes_it_for_a_read_like_others(routed: Routed) -> None:
    """With server_local="any" whoever serves the read answers."""
    engine = routed.another(server_local="any")
    with engine.connect() as connection:
        port, pid = connection.execute(WHERE).one()
        assert routed.name_of(port) == "replica"
        assert connection.execute(WHERE).one() == (port, pid)
        assert connection.scalar(sa.text("SHOW transaction_read_only")) == "on"


def test_a_session_reads_its_own_process_id_from_where_it_writes(routed: Routed) -> None:
    """The id an ORM session learns is that of the session that then writes."""
    with Session(routed.engine) as session:
        pid = session.scalar(PID)
        session.execute(sa.text("INSERT INTO item (name) VALUES ('a')"))
        assert session.scalar(PID) == pid


def test_without_a_primary_there_is_no_answer(routed: Routed) -> None:
    """It fails as a write does, and not by another server's answer; a replica may be asked."""
    engine = routed.another()
    engine.router.health.blacklist("primary", "a test")
    with engine.connect() as connection:
        assert routed.served(connection) == "replica"
        with pytest.raises(PrimaryUnavailable):
            connection.execute(PID)
        with using_replica():
            assert routed.name_of(connection.execute(WHERE).one()[0]) == "replica"


# -- signals -----------------------------------------------------------------------------------

CANCEL = sa.text("SELECT inet_server_port(), pg_cancel_backend(:pid)")


def doubts(engine: Any) -> list[Mapping[str, Any]]:
    """Where the events go that say a process id may be of another server."""
    seen: list[Mapping[str, Any]] = []
    engine.router.telemetry.hooks.append(
        lambda name, fields: seen.append(fields) if name == "signal_doubted" else None
    )
    return seen


@EVERY_DRIVER
def test_a_query_is_cancelled_by_the_process_id_that_was_read(routed: Routed) -> None:
    """What pg_cancel_backend() is given is of the server it runs on, which finds the process."""
    seen = doubts(routed.engine)
    with routed.engine.connect() as one, routed.engine.connect() as other:
        pid = one.scalar(PID)
        port, found = other.execute(CANCEL, {"pid": pid}).one()
        other.commit()
    assert (routed.name_of(port), found, seen) == ("primary", True, [])


@EVERY_DRIVER
def test_a_process_id_of_a_replica_is_not_used_on_the_primary_without_a_word(
    routed: Routed,
) -> None:
    """An event names the replica that was asked before, in this checkout or this request."""
    seen = doubts(routed.engine)
    with routed.engine.connect() as connection:
        with using_replica():
            assert connection.scalar(PID)
        connection.execute(CANCEL, {"pid": -1})
        connection.rollback()
    assert [fields["node"][:7] for fields in seen] == ["replica"]
    assert "connect to that server itself" in seen[0]["advice"]
    with routed.engine.connect() as connection:  # another checkout, outside any request
        connection.execute(CANCEL, {"pid": -1})
        connection.rollback()
    assert len(seen) == 1
    with request_context():
        with using_replica(), routed.engine.connect() as connection:
            connection.execute(sa.text("SELECT pid FROM pg_stat_activity"))
        with routed.engine.begin() as connection:
            connection.execute(PORT)
            connection.execute(CANCEL, {"pid": -1})
    assert len(seen) == 2
    with request_context(), routed.engine.begin() as connection:
        connection.execute(CANCEL, {"pid": -1})
    assert len(seen) == 2


def test_with_the_option_any_the_same_is_said(routed: Routed) -> None:
    """Whoever takes any server's answer is told as well."""
    engine = routed.another(server_local="any")
    seen = doubts(engine)
    with engine.connect() as connection:
        connection.execute(PID)
        connection.execute(CANCEL, {"pid": -1})
        connection.rollback()
    assert len(seen) == 1


def test_a_signal_asked_onto_a_replica_says_what_to_do(routed: Routed) -> None:
    """The error says where signals go, and how a process of a replica is reached."""
    cure = "signals a process of the primary: for one of a replica connect to that server itself"
    with routed.engine.connect() as connection:
        with using_replica(), pytest.raises(ReplicaWriteRefused, match=cure):
            connection.execute(CANCEL, {"pid": 1})
        connection = connection.execution_options(postgresql_readonly=True)
        with pytest.raises(ReplicaWriteRefused, match=cure):
            connection.execute(CANCEL, {"pid": 1})


def test_explain_says_how_a_replica_is_asked(routed: Routed) -> None:
    """The explanation names what made it the server's own, the node, the rule and the way out."""
    text = str(router.explain("SELECT * FROM pg_locks", routed.engine.router))
    assert "intent:  read: SELECT, whose answer is that server's own: pg_locks" in text
    assert "using_replica() asks a replica" in text
    assert "goes to: primary" in text
    assert f"because: {Reason.SERVER_LOCAL}" in text
