"""Which of PostgreSQL's own functions may run on a replica, and why the others may not.

Volatility is the general test (`router.sql.builtins`); this file holds the exceptions, each with
its reason. A function in none of the tables is not known, and runs on the primary.
Volatile built-ins were taken from pg_proc of PostgreSQL 18 and judged one by one.
"""

import fnmatch
from collections.abc import Iterator, Mapping
from functools import lru_cache

from router.sql.builtins import RELATIONS, STABLE, VOLATILE

_HARMLESS: Mapping[str, str] = {
    # volatile because each call gives another value; they change nothing
    "random random_normal array_sample array_shuffle": "a random value",
    "gen_random_uuid uuidv4 uuidv7": "a random value",
    "clock_timestamp timeofday": "the time of day",
    "pg_sleep pg_sleep_for pg_sleep_until": "waits",
    "bernoulli system": "TABLESAMPLE methods",
    "amvalidate": "checks an operator class",
    "current_query": "the statement itself",
    # sizes, descriptions and states that are read
    "pg_database_size pg_indexes_size pg_relation_size pg_table_size pg_tablespace_size "
    "pg_total_relation_size": "sizes on disk",
    "pg_partition_ancestors pg_partition_tree": "the shape of a partitioned table",
    "pg_collation_actual_version pg_database_collation_actual_version": "a library's version",
    "pg_control_* pg_get_wal_resource_managers pg_get_wait_events": "describes this server",
    "pg_jit_available pg_get_loaded_modules": "describes this server",
    "pg_blocking_pids pg_safe_snapshot_blocking_pids pg_lock_status": "locks as seen here",
    "pg_isolation_test_session_is_blocked": "locks as seen here",
    "pg_is_in_recovery pg_is_wal_replay_paused pg_get_wal_replay_pause_state "
    "pg_last_wal_receive_lsn pg_last_wal_replay_lsn pg_last_xact_replay_timestamp": (
        "asks a replica about its replay"
    ),
    "pg_stat_get_*": "statistics as seen here",
    "pg_stat_have_stats pg_notification_queue_usage": "statistics as seen here",
    "pg_xact_status txid_status pg_get_multixact_members": "replicated state",
    "lo_get": "a large object's bytes",
    "pg_get_aios pg_get_backend_memory_contexts pg_get_shmem_allocations "
    "pg_get_shmem_allocations_numa": "memory as seen here",
    "pg_hba_file_rules pg_ident_file_mappings pg_show_all_file_settings": "configuration as here",
    "pg_available_wal_summaries pg_wal_summary_contents pg_get_wal_summarizer_state": (
        "WAL summaries as here"
    ),
    "pg_show_replication_origin_status": "replication origins as here",
}

_UNSAFE: Mapping[str, str] = {
    # a standby accepts them, and the effect is in the wrong place
    "pg_advisory_* pg_try_advisory_*": "an advisory lock excludes nobody on another server",
    "set_config": "changes session state",
    "pg_cancel_backend pg_terminate_backend pg_log_backend_memory_contexts": (
        "signals a process of the server it runs on"
    ),
    "pg_reload_conf pg_rotate_logfile pg_promote pg_wal_replay_pause pg_wal_replay_resume "
    "pg_log_standby_snapshot pg_stop_making_pinned_objects": "a command to the server it runs on",
    "pg_stat_reset* pg_stat_force_next_flush pg_stat_clear_snapshot": (
        "changes statistics of the server it runs on"
    ),
    "set_limit": "changes session state",  # of pg_trgm
    "setseed": "changes what random() gives in this session only",
    "pg_export_snapshot": "a snapshot of one server means nothing to another",
    "pg_current_snapshot txid_current_snapshot": "a snapshot of one server, not of its peers",
    "lo_open lo_close loread lowrite lo_lseek lo_lseek64 lo_tell lo_tell64 lo_truncate "
    "lo_truncate64": "large object descriptors belong to one transaction of one server",
    "lo_creat lo_create lo_from_bytea lo_put lo_unlink": "changes a large object",
    "lo_import lo_export": "reads or writes a file of the server it runs on",
    "pg_read_file pg_read_binary_file pg_stat_file pg_ls_* pg_current_logfile": (
        "shows files of the server it runs on"
    ),
    "pg_create_*_replication_slot pg_copy_*_replication_slot pg_drop_replication_slot "
    "pg_replication_slot_advance pg_logical_slot_* pg_sync_replication_slots "
    "pg_replication_origin_*": "replication control",
    "pg_backup_* pg_start_backup pg_stop_backup pg_is_in_backup pg_backup_start_time": (
        "backup control"
    ),
    "dblink* postgres_fdw_*": "acts on a further server",
    # they run SQL given as text, or read relations the grammar does not show
    "query_to_xml* cursor_to_xml* table_to_xml* schema_to_xml* database_to_xml*": (
        "runs SQL hidden in its argument"
    ),
    "ts_stat ts_rewrite": "runs SQL hidden in its argument",
    "currtid2": "reads a relation named by text",
    "satisfies_hash_partition": "hashes by the functions of a table named by oid",
    "domain_in domain_recv record_in record_recv array_in array_recv range_in range_recv "
    "multirange_in multirange_recv pg_input_is_valid pg_input_error_info": (
        "makes a value of a type that its argument names"
    ),
    "xpath_table crosstab* connectby*": "runs SQL hidden in its argument",
    # about this session, which lives on the primary
    "currval lastval": "a sequence value of the primary's session",
    "txid_current* pg_current_xact_id*": "a transaction id, given by the primary only",
    "pg_prepared_xact": "a standby shows no prepared transaction",
    "pg_sequence_last_value pg_get_sequence_data": (
        "a replica shows values of a sequence before they are given out"
    ),
    # a standby refuses them
    "nextval setval": "advances a sequence",
    "pg_nextoid": "takes an oid",
    "pg_notify": "sends a notification",
    "pg_current_wal_* pg_switch_wal pg_create_restore_point pg_logical_emit_message "
    "pg_walfile_name pg_walfile_name_offset pg_xact_commit_timestamp* pg_last_committed_xact": (
        "answers on the primary only"
    ),
    "brin_summarize_* brin_desummarize_range gin_clean_pending_list": "maintains an index",
    "pg_clear_*_stats pg_restore_*_stats": "writes statistics",
    "pg_extension_config_dump pg_import_system_collations": "writes the catalog",
    "binary_upgrade_*": "for pg_upgrade",
    # never called by hand
    "*handler plpgsql_* dsnowball_* RI_FKey_* suppress_redundant_updates_trigger "
    "tsvector_update_trigger* unique_key_recheck pg_event_trigger_*": "not for callers",
}

_LOCAL: Mapping[str, str] = {
    "pg_backend_pid": "the process that answers",
    "pg_my_temp_schema pg_is_other_temp_schema": "temporary tables of the session that answers",
    "pg_cursor pg_cursors pg_prepared_statement pg_prepared_statements pg_listening_channels": (
        "what the session that answers has open"
    ),
    "pg_lock_status pg_locks pg_blocking_pids pg_safe_snapshot_blocking_pids "
    "pg_isolation_test_session_is_blocked": "locks of that server's processes",
    "pg_stat_* pg_statio_*": "activity and counters there",
    "pg_notification_queue_usage": "the queue of notifications there",
    "pg_get_replication_slots pg_replication_slots pg_show_replication_origin_status "
    "pg_replication_origin_status": "who replicates from there, and how far",
    "pg_get_aios pg_aios pg_get_backend_memory_contexts pg_backend_memory_contexts "
    "pg_get_shmem_allocations pg_shmem_allocations pg_get_shmem_allocations_numa "
    "pg_shmem_allocations_numa pg_get_loaded_modules": "memory and I/O of that server's processes",
    "pg_postmaster_start_time pg_conf_load_time": "since when that server runs",
    "pg_show_all_settings pg_settings pg_show_all_file_settings pg_file_settings "
    "pg_hba_file_rules pg_ident_file_mappings": "how that server is configured",
    "pg_control_checkpoint pg_control_recovery pg_control_system": "that server's control file",
    "pg_available_wal_summaries pg_wal_summary_contents pg_get_wal_summarizer_state": (
        "WAL summaries there"
    ),
}
# Not in it, though they may differ: what is asked to learn which server answers
# (`pg_is_in_recovery()`, `pg_last_wal_replay_lsn()`, `inet_server_port()`, `inet_client_port()`,
# SHOW port), what a replica has from its primary (planner statistics, sizes on disk), and what the
# installation brings, which is the same wherever one cluster runs (`version()`, `pg_config()`).

LOCAL_SETTINGS: Mapping[str, str] = {
    "transaction_read_only": "a replica's transactions always are",
    "in_hot_standby": "on for a replica",
    "primary_conninfo": "a replica's only",
    "primary_slot_name": "a replica's only",
}
"""Settings, as SHOW names them, that are another on a standby by its nature, each with the reason.
What is set for a session is the same on every node, see `router.rules.journal`."""

SOME_SETTING = "a setting that is named only when it runs"

SIGNALS = frozenset(
    {"pg_cancel_backend", "pg_terminate_backend", "pg_log_backend_memory_contexts"}
)
"""Functions that take a process id and signal that process, of the server they run on."""

PRIMARYS: Mapping[str, str] = {
    "pg_prepared_xacts": _UNSAFE["pg_prepared_xact"],
    "pg_sequences": _UNSAFE["pg_sequence_last_value pg_get_sequence_data"],
}
"""Relations of PostgreSQL's own that show something else on a standby, each with the reason."""

NAMING_RELATIONS = frozenset(
    {
        "dblink_build_sql_delete", "dblink_build_sql_insert", "dblink_build_sql_update",
        "dblink_get_pkey",
    }
)  # fmt: skip
"""Functions of dblink that read the relation whose name is their first argument, and do nothing
else."""

NAMED_BY_TEXT = "it reads a relation named by text"
"""Why they are unsafe, where that is not known."""

LOCAL_OF_EXTENSIONS: Mapping[str, str] = {
    "pg_stat_statements": "statements counted there",
    "pg_stat_statements_info": "statements counted there",
    "pg_buffercache_pages": "buffers there",
    "pg_buffercache_summary": "buffers there",
    "pg_buffercache_usage_counts": "buffers there",
}
"""As `LOCAL`, functions in C of extensions that are `VOUCHED`."""

REFUSED = frozenset(
    {
        "nextval", "pg_create_restore_point", "pg_current_wal_flush_lsn",
        "pg_current_wal_insert_lsn", "pg_current_wal_lsn", "pg_current_xact_id", "pg_notify",
        "pg_switch_wal", "setval", "txid_current",
    }
)  # fmt: skip
"""Unsafe functions that a standby refuses to run, before anything of them acts."""

BINDS = (
    "pg_advisory_lock*", "pg_try_advisory_lock*", "dblink_connect*", "dblink_open",
    "pg_replication_origin_session_setup", "setseed", "set_config", "set_limit",
    "pg_create_*_replication_slot", "pg_copy_*_replication_slot",  # those may be temporary
    "pg_backup_start", "pg_start_backup",
)  # fmt: skip
"""Functions whose effect stays with the server session that ran them."""

THREE = frozenset({"ts_rewrite"})
"""Functions that run SQL given as text with two arguments, and are immutable with three."""


VOUCHED = frozenset(
    {
        # of PostgreSQL's own distribution
        "amcheck", "autoinc", "bloom", "btree_gin", "btree_gist", "citext", "cube", "dict_int",
        "dict_xsyn", "earthdistance", "fuzzystrmatch", "hstore", "intagg", "intarray", "isn", "lo",
        "ltree", "moddatetime", "pg_buffercache", "pg_stat_statements", "pg_trgm", "pgcrypto",
        "pgrowlocks", "pgstattuple", "plpgsql", "seg", "sslinfo", "tablefunc", "tcn",
        "tsm_system_rows", "tsm_system_time", "unaccent",
        "uuid-ossp", "xml2", "hstore_plperl", "ltree_plpython3u", "refint",
        # of others, known for values and indexes
        "address_standardizer", "h3", "h3_postgis", "hll", "ip4r", "mobilitydb", "ogr_fdw",
        "pg_uuidv7", "pgroonga", "pgrouting", "pg_bigm", "pg_hashids", "postgis",
        "postgis_raster", "postgis_sfcgal", "postgis_topology", "prefix", "q3c", "rum", "semver",
        "timescaledb", "topn", "ulid", "unit", "vector", "vectorscale", "zhparser",
    }
)  # fmt: skip
"""Extensions whose functions in C do what their volatility says: none that is not volatile acts.
What of them runs SQL given as text or acts elsewhere is unsafe by its name."""

VOUCHED_VOLATILE = frozenset(
    {
        "gen_random_bytes", "gen_random_uuid", "gen_salt", "pgp_pub_encrypt",
        "pgp_pub_encrypt_bytea", "pgp_sym_encrypt", "pgp_sym_encrypt_bytea", "uuid_generate_v1",
        "uuid_generate_v1mc", "uuid_generate_v4", "uuid_generate_v7", "normal_rand",
        "st_generatepoints", "pgstattuple", "pgstatindex", "pg_relpages", "pgstatginindex",
        "pgstathashindex", "pgstattuple_approx", *LOCAL_OF_EXTENSIONS,
    }
)  # fmt: skip
"""Functions in C of those extensions that are volatile and yet fine on a replica."""


def vouched(extension: str | None, name: str, volatile: bool, arguments: str) -> bool:
    """Whether somebody vouches for the function `name` in C, of `extension` if of any, that takes
    `arguments`. What takes an ``internal`` one is called by the server alone, for an index
    or an aggregate: nobody cares whether it was declared volatile, as pgvector's are."""
    inner = "internal" in arguments.split(", ")
    return extension in VOUCHED and (not volatile or inner or name in VOUCHED_VOLATILE)


TYPE_WORDS: Mapping[str, str] = {
    "bigint": "int8", "bit": "bit", "boolean": "bool", "char": "bpchar", "character": "bpchar",
    "dec": "numeric", "decimal": "numeric", "double": "float8", "float": "float8", "int": "int4",
    "integer": "int4", "real": "float4", "smallint": "int2", "string": "text",
}  # fmt: skip
"""Words of the grammar that name a type of PostgreSQL's own, with the name in the catalog."""


def _expand(
    table: Mapping[str, str], known: frozenset[str] = STABLE | VOLATILE
) -> Iterator[tuple[str, str]]:
    for patterns, reason in table.items():
        for pattern in patterns.split():
            for name in fnmatch.filter(known, pattern) if "*" in pattern else (pattern,):
                yield name, reason


UNSAFE: Mapping[str, str] = dict(_expand(_UNSAFE))
"""Functions that only the primary may run, each with the reason."""

HARMLESS: Mapping[str, str] = {n: r for n, r in _expand(_HARMLESS) if n not in UNSAFE}
"""Functions that are volatile and yet fine on a replica, each with the reason."""

LOCAL: Mapping[str, str] = {
    n: r for n, r in _expand(_LOCAL, STABLE | VOLATILE | RELATIONS) if n not in UNSAFE
}
"""Functions and relations of pg_catalog whose answer describes the server or the session that
gives it, each with what it is about. Another server's is no less true, and another answer."""

PLANNED = VOLATILE
"""Functions that never run while a statement is only planned: the planner folds none of these."""

SAFE = (STABLE | frozenset(HARMLESS)) - frozenset(UNSAFE)
"""Every function of pg_catalog and information_schema that a replica may run."""

STABLE_SAFE = SAFE - frozenset(HARMLESS) - frozenset(LOCAL) - {"current_setting"}
"""Functions a replica may run that are not volatile either, and say the same wherever they run."""

_PATTERNS = tuple(
    (pattern, reason)
    for patterns, reason in _UNSAFE.items()
    for pattern in patterns.split()
    if pattern.startswith(("dblink", "postgres_fdw", "crosstab", "connectby", "xpath_table"))
)


@lru_cache(10_000)
def unsafe(name: str) -> str | None:
    """Why a function must run on the primary, judged by its name alone; None if nothing says so.

    Extensions install where they like, so their functions are known by name in any schema.
    """
    reason = UNSAFE.get(name)
    if reason is None and name not in NAMING_RELATIONS:
        for pattern, why in _PATTERNS:
            if fnmatch.fnmatchcase(name, pattern):
                return why
    return reason


def binds(name: str) -> bool:
    """Whether what the function `name` does stays with one server session."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in BINDS)
