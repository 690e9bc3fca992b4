"""What every door's test of the rules table runs."""

NOT_READS = [
    "INSERT INTO item (name) VALUES ('a') RETURNING inet_server_port()",
    "WITH w AS (INSERT INTO item VALUES (9, 'a')) SELECT inet_server_port()",
    "SELECT inet_server_port() FROM item FOR UPDATE",
    "SELECT inet_server_port(), nextval('item_id_seq')",
    "SELECT inet_server_port(), last_value FROM item_id_seq",
    "SELECT inet_server_port(), pg_sequence_last_value('item_id_seq')",
    "SELECT inet_server_port() FROM pg_sequences",
    "SELECT inet_server_port(), pg_advisory_xact_lock(1)",
    "SELECT inet_server_port(), no_such_volatility()",
]
"""Statements that only the primary may run."""
