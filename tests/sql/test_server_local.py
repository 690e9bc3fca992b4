"""Answers that are the server's own: which of PostgreSQL's functions and views give them."""

import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from router.sql.builtins import RELATIONS, STABLE, VOLATILE
from router.sql.classifier import Classifier, classify
from router.sql.functions import HARMLESS, LOCAL, LOCAL_SETTINGS, PRIMARYS, SIGNALS, UNSAFE
from router.sql.intent import Intent, Kind
from router.testing import Cluster
from tests.sql.statements import CATALOG

pytestmark = pytest.mark.once  # it is about the server, not about Python

WHO_ANSWERS = {
    "pg_is_in_recovery", "pg_is_wal_replay_paused", "pg_get_wal_replay_pause_state",
    "pg_last_wal_receive_lsn", "pg_last_wal_replay_lsn", "pg_last_xact_replay_timestamp",
}  # fmt: skip
"""What is asked to learn which server answers, and how far it is: wherever a read goes."""

SAME_EVERYWHERE = {
    # a replica has them from its primary
    "pg_database_size", "pg_indexes_size", "pg_relation_size", "pg_table_size",
    "pg_tablespace_size", "pg_total_relation_size", "pg_partition_ancestors", "pg_partition_tree",
    "pg_xact_status", "txid_status", "pg_get_multixact_members", "lo_get",
    "pg_control_init",
    # the installation brings them
    "pg_collation_actual_version", "pg_database_collation_actual_version", "pg_jit_available",
    "pg_get_wait_events", "pg_get_wal_resource_managers",
    # of the statement alone
    "amvalidate", "array_sample", "array_shuffle", "bernoulli", "clock_timestamp",
    "current_query", "gen_random_uuid", "pg_sleep", "pg_sleep_for", "pg_sleep_until", "random",
    "random_normal", "system", "timeofday", "uuidv4", "uuidv7",
}  # fmt: skip
"""Volatile functions that say the same on each node, or nothing about the node."""

STATISTICS_OF_PLANNING = {
    "pg_statistic", "pg_statistic_ext", "pg_statistic_ext_data", "pg_statistics_obj_is_visible",
    "pg_stats", "pg_stats_ext", "pg_stats_ext_exprs",
}  # fmt: skip
"""What ANALYZE has found, which is replicated."""

STABLE_AND_FREE = re.compile(
    # the catalog, and what is computed of arguments
    r"""pg_(\w+_is_visible|has_role|get_(acl|catalog_foreign_keys|constraintdef|expr|function_\w+
    |functiondef|indexdef|keywords|object_address|partition_constraintdef|partkeydef
    |publication_tables|replica_identity_index|ruledef|serial_sequence|statisticsobjdef\w*
    |triggerdef|userbyid|viewdef)|describe_object|identify_object\w*|basetype|typeof|column_\w+
    |char_to_encoding|encoding_to_char|collation_for|filenode_relation|relation_filenode
    |relation_filepath|relation_is_\w+|index\w*_has_property|input_\w+|options_to_table
    |replication_origin_oid|sequence_parameters|settings_get_flags|split_walfile_name
    |tablespace_(databases|location)|\w+_recv|\w+_send|mcv_list_items|extension_update_paths
    # the installation
    |available_extension\w*|config|numa_available|timezone_\w+
    # the session, as each node's is made to be
    |client_encoding|trigger_depth)""",
    re.VERBOSE,
)
"""Stable functions whose answer is not the server's own."""


def test_the_table_is_of_what_there_is_with_a_reason_for_each() -> None:
    """Each name is one of PostgreSQL's own, that no other table takes from replicas."""
    assert set(LOCAL) <= STABLE | VOLATILE | RELATIONS
    assert set(LOCAL).isdisjoint({*UNSAFE, *PRIMARYS})
    assert all(LOCAL.values())
    assert all(LOCAL_SETTINGS.values())
    assert set(SIGNALS) <= set(UNSAFE)


def test_every_volatile_function_a_replica_may_run_is_judged() -> None:
    """It is the server's own, or asks who answers, or is the same everywhere; one of the three."""
    judged = [WHO_ANSWERS, SAME_EVERYWHERE, set(LOCAL) & set(HARMLESS)]
    assert set.union(*judged) == set(HARMLESS)
    assert sum(map(len, judged)) == len(HARMLESS)


def test_every_statistic_is_the_servers_own_but_those_of_planning() -> None:
    """Views and functions of counters and activity are in the table; what resets them is not."""
    named = {name for name in STABLE | VOLATILE | RELATIONS if name.startswith("pg_stat")}
    assert named - set(LOCAL) - set(UNSAFE) == STATISTICS_OF_PLANNING
    resets = {"reset", "clear", "force", "file"}
    assert all(name.split("_")[2] in resets for name in named & set(UNSAFE))


@pytest.fixture(scope="module")
def primary(cluster: Cluster) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(cluster.primary.conninfo("postgres")) as connection:
        yield connection


def test_every_stable_function_of_a_server_is_judged(
    primary: psycopg.Connection[Any],
) -> None:
    """Of the functions that a server of any version calls stable and that have its prefix, those
    outside the table are known to say the same everywhere."""
    found = primary.execute(
        "SELECT DISTINCT proname FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND "
        "oid < 16384 AND provolatile = 's' AND proname LIKE 'pg\\_%'"
    )
    names = {name for (name,) in found} & STABLE
    assert len(names) > 100
    left = {n for n in names - set(LOCAL) - set(UNSAFE) if not STABLE_AND_FREE.fullmatch(n)}
    assert left == set()
    assert not [name for name in LOCAL if STABLE_AND_FREE.fullmatch(name)]


def test_a_view_is_the_servers_own_where_what_it_calls_is(
    primary: psycopg.Connection[Any],
) -> None:
    """Each of PostgreSQL's views is in the table exactly if its query names something that is."""
    views = primary.execute(
        "SELECT viewname, definition FROM pg_views WHERE schemaname = 'pg_catalog'"
    )
    found: dict[str, str] = dict(views.fetchall())
    named = {view: set(re.findall(r"\bpg_\w+", text)) for view, text in found.items()}
    own = {view for view, names in named.items() if names & set(LOCAL)}
    assert own - set(PRIMARYS) == {view for view in found if view in LOCAL}


@pytest.mark.parametrize(
    ("sql", "names"),
    [
        ("SELECT pg_backend_pid()", "pg_backend_pid()"),
        ("SELECT pg_catalog.pg_backend_pid() AS pid", "pg_backend_pid()"),
        ("SELECT * FROM pg_locks", "pg_locks"),
        ("TABLE pg_catalog.pg_stat_activity", "pg_stat_activity"),
        ("VALUES (pg_postmaster_start_time())", "pg_postmaster_start_time()"),
        ("SELECT 1 WHERE EXISTS (SELECT FROM pg_stat_replication)", "pg_stat_replication"),
        ("WITH s AS (TABLE pg_replication_slots) SELECT * FROM s", "pg_replication_slots"),
        ("SELECT * FROM pg_lock_status()", "pg_lock_status()"),
        ("SELECT relname FROM pg_class WHERE pg_stat_get_live_tuples(oid) > 0", "live_tuples()"),
        ("SELECT current_setting('Transaction_Read_Only')", "transaction_read_only"),
        ("SELECT current_setting('in_hot_standby', true)", "in_hot_standby"),
        ("SHOW transaction_read_only", "transaction_read_only"),
        ("SHOW in_hot_standby", "in_hot_standby"),
        ("SHOW ALL", "all"),
        ("EXPLAIN ANALYZE SELECT * FROM pg_locks", "pg_locks"),
        ("COPY (SELECT * FROM pg_locks) TO STDOUT", "pg_locks"),
        ("DECLARE c CURSOR FOR SELECT * FROM pg_locks", "pg_locks"),
        ("SELECT 1; SELECT pg_backend_pid()", "pg_backend_pid()"),
        ("SELECT * FROM busy", "reads pg_locks: locks of that server's processes"),
        ("SELECT * FROM busier", "reads pg_locks: locks of that server's processes"),
        ("SELECT me()", "calls pg_backend_pid(): the process that answers"),
        ("SELECT mine()", "calls pg_backend_pid(): the process that answers"),
        ("SELECT ~~~ 1", "calls pg_blocking_pids(): locks of that server's processes"),
        ("SELECT read_only()", "calls public.read_only(): transaction_read_only"),
    ],
)
def test_a_read_of_it_says_what(sql: str, names: str) -> None:
    """It stays a read, and its reason names what made it the server's own, in whatever it is."""
    for _ in range(2):  # what was judged once is remembered
        intent = JUDGE(sql)
        assert (intent.kind, intent.server_local) == (Kind.READ, True), intent
        assert intent.reason.endswith(names), intent


JUDGE = Classifier(CATALOG)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT pg_is_in_recovery(), pg_last_wal_replay_lsn(), inet_server_port(), version()",
        "SELECT current_setting('app.tenant'), current_setting(%s)",
        "SELECT * FROM pg_stats JOIN pg_class ON relname = tablename",
        "SELECT pg_relation_size('users'), pg_database_size('shop')",
        "SELECT * FROM information_schema.tables",
        "SHOW search_path",
        "EXPLAIN SELECT * FROM pg_locks WHERE pid = pg_backend_pid()",
        "WITH pg_locks AS (SELECT 1) SELECT * FROM pg_locks",
        "SELECT pg_backend_pid FROM (VALUES (1)) AS t (pg_backend_pid)",
        "SELECT * FROM users",
    ],
)
def test_what_is_the_same_everywhere_is_a_read_like_others(sql: str) -> None:
    """What a replica has from its primary, who answers, a plan, and another's name."""
    intent = JUDGE(sql)
    assert (intent.kind, intent.server_local) == (Kind.READ, False), intent


def test_what_is_known_to_be_harmless_is_not_taken_for_the_same_everywhere() -> None:
    """A view that was met before is still the server's own, also inside another one."""
    judge = Classifier(CATALOG)
    for sql in ("TABLE users", "TABLE busy", "TABLE busier", "SELECT 1 FROM busier, users"):
        assert judge(sql).server_local is (sql != "TABLE users"), sql


def test_users_say_otherwise() -> None:
    """A function in `read_functions` and a text of `read_patterns` are reads like others."""
    judge = Classifier(CATALOG, read_functions=["pg_backend_pid", "me"], read_patterns=["locks"])
    for sql in ("SELECT pg_backend_pid()", "SELECT me()", "SELECT * FROM pg_locks"):
        assert (judge(sql).kind, judge(sql).server_local) == (Kind.READ, False)


def test_beside_set_config_it_is_a_write() -> None:
    """The setting is replayed on other nodes, where the answer would be another one."""
    intent = classify("SELECT set_config('a.b', 'c', false), pg_backend_pid()")
    assert (intent.kind, intent.reason) == (Kind.WRITE, "set_config() beside pg_backend_pid()")


@pytest.mark.parametrize(
    ("sql", "signals"),
    [
        ("SELECT pg_cancel_backend(1)", True),
        ("SELECT pg_terminate_backend(pid) FROM pg_stat_activity", True),
        ("SELECT 1; SELECT pg_log_backend_memory_contexts(1)", True),
        ("DO 'BEGIN PERFORM pg_cancel_backend(1); END'", True),
        ("SELECT pg_advisory_lock(1)", False),
        ("SELECT pg_backend_pid()", False),
    ],
)
def test_a_signal_is_known_as_one(sql: str, signals: bool) -> None:
    """What takes a process id is told apart from other writes, inside code too."""
    intent: Intent = classify(sql)
    assert intent.signals is signals
    assert (intent.kind is Kind.WRITE) is (signals or "advisory" in sql)
