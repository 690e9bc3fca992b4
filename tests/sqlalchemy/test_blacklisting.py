"""What an engine blacklists beside a dead server."""

import pytest
import sqlalchemy as sa

import router
from router.rules.decision import Reason
from tests.conftest import MakeCluster
from tests.sqlalchemy.kit import PORT, Routed, insert


def test_a_sqlstate_of_the_users_own_blacklists_and_the_read_runs_elsewhere(
    routed: Routed,
) -> None:
    """A replica whose disk fails answers an error listed in blacklist_sqlstates: it is out, and
    the caller sees the answer of another node."""
    engine = routed.another(blacklist_sqlstates="58", read_functions=["from_disk"])
    routed.execute_on_primary(
        "CREATE FUNCTION from_disk() RETURNS int STABLE LANGUAGE plpgsql AS $$ BEGIN "
        "IF pg_is_in_recovery() THEN RAISE EXCEPTION 'disk' USING ERRCODE = '58030'; END IF; "
        "RETURN inet_server_port(); END $$"
    )
    routed.cluster.wait_caught_up()
    with router.request_context(), engine.connect() as connection:
        port = connection.scalar(sa.text("SELECT from_disk()"))
    assert routed.name_of(port) == "primary"
    assert set(engine.router.blacklisted) == {"replica1", "replica2"}
    assert {e.reason[:5] for e in engine.router.blacklisted.values()} == {"58030"}


def test_a_node_taken_out_by_hand_meets_no_statement(routed: Routed) -> None:
    """blacklist() empties a replica of reads at once, restore() brings them back, and a checkout
    that was reading there finishes elsewhere."""
    engine = routed.engine
    with router.request_context(), engine.connect() as connection:
        assert routed.served(connection) == "replica"
        for name in ("replica1", "replica2"):
            engine.router.blacklist(name, "a test")
        assert routed.served(connection) == "primary"
        insert(connection)
        connection.rollback()
    for name in ("replica1", "replica2"):
        engine.router.restore(name)
    with router.request_context(), engine.connect() as connection:
        assert routed.served(connection) == "replica"


def test_reads_go_on_where_the_primary_is_dead_and_every_replica_blacklisted(
    make_cluster: MakeCluster,
) -> None:
    """A replica that clients could not use a moment ago, but that answers, is better than an
    error: before the router knows that the primary is gone, and after."""
    cluster = make_cluster(2)
    primary, *replicas = cluster.urls("postgres")
    url = primary.replace("postgresql:", "postgresql+psycopg:", 1)
    engine = router.create_engine(url, replicas, probe_interval=30)
    decided = engine.router.telemetry.decisions
    try:
        engine.router.start()
        for node in engine.router.replicas:
            engine.router.health.failed(node, "a test")
        cluster.primary.stop("immediate")
        ports = {replica.port for replica in cluster.replicas}
        for known in (False, True):
            if known:
                engine.router.refresh()
            with router.request_context(), engine.connect() as connection:
                assert connection.scalar(PORT) in ports
            with pytest.raises(router.PrimaryUnavailable), engine.begin() as connection:
                connection.execute(sa.text("CREATE TABLE t ()"))
        assert sum(n for (_, why), n in decided.total().items() if why is Reason.LAST_RESORT) == 2
    finally:
        engine.dispose()
