"""What an engine blacklists beside a dead server."""

import sqlalchemy as sa

import router
from tests.sqlalchemy.kit import Routed, insert


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
