# ruff: noqa: E501 - a statement a line
"""Statements and what each must be called: the table of the classifier's tests and of the oracle.

One statement a line; a line that starts with spaces goes on with the one before. `SCHEMA` makes
what they speak of, on a real server; `CATALOG` is what such a server said of it.
"""

import json
from importlib.resources import files
from typing import Any, NamedTuple

from router.sql.catalog import Catalog

SCHEMA = files("tests.sql").joinpath("schema.sql").read_text("utf-8")


def rows() -> dict[str, list[list[Any]]]:
    """What a server that has run `SCHEMA` answers to `Catalog.QUERIES`, as record_rows wrote it."""
    text = files("tests.sql").joinpath("rows.json").read_text("utf-8")
    return json.loads(text)  # type: ignore[no-any-return]


CATALOG = Catalog.from_rows(rows())


class Case(NamedTuple):
    """A statement, the kind it must be given and a piece of the reason."""

    sql: str
    kind: str
    reason: str


def _cases(kind: str, reason: str, lines: str) -> list[Case]:
    found: list[str] = []
    for line in lines.strip("\n").splitlines():
        if line.startswith(" ") and found:
            found[-1] += "\n" + line
        elif line:
            found.append(line)
    return [Case(sql, kind, reason) for sql in found]


_READS = _cases(
    "READ",
    "SELECT",
    r"""
SELECT 1
select 1;
SELECT 1;;
(SELECT 1)
((SELECT 1))
SELECT
SELECT * FROM users
SELECT * FROM public.users
SELECT * FROM ONLY users
TABLE users
VALUES (1, 'a'), (2, 'b')
SELECT id, name FROM users WHERE id = 1
SELECT DISTINCT name FROM users
SELECT DISTINCT ON (name) name, id FROM users ORDER BY name, id
SELECT name, count(*) FROM users GROUP BY name HAVING count(*) > 1
SELECT name, count(*) FROM users GROUP BY ROLLUP (name)
SELECT name, active, count(*) FROM users GROUP BY GROUPING SETS ((name), (active), ())
SELECT name, grouping(name) FROM users GROUP BY CUBE (name)
SELECT * FROM users ORDER BY name DESC NULLS LAST LIMIT 10 OFFSET 5
SELECT * FROM users ORDER BY id FETCH FIRST 3 ROWS ONLY
SELECT * FROM users ORDER BY name FETCH FIRST 3 ROWS WITH TIES
SELECT * FROM users ORDER BY id USING <
SELECT u.name, o.total FROM users u JOIN orders o ON o.user_id = u.id
SELECT * FROM users u LEFT JOIN orders o USING (id)
SELECT * FROM users NATURAL JOIN orders
SELECT * FROM users CROSS JOIN orders
SELECT * FROM users u, LATERAL (SELECT * FROM orders o WHERE o.user_id = u.id LIMIT 1) x
SELECT * FROM users u FULL OUTER JOIN orders o ON u.id = o.user_id
SELECT 1 UNION SELECT 2
SELECT 1 UNION ALL SELECT 2 INTERSECT SELECT 3 EXCEPT SELECT 4
(SELECT id FROM users) UNION (SELECT id FROM orders) ORDER BY 1
WITH x AS (SELECT * FROM users) SELECT * FROM x
WITH x AS MATERIALIZED (SELECT 1) SELECT * FROM x
WITH x AS NOT MATERIALIZED (SELECT 1 AS a), y AS (SELECT a FROM x) SELECT * FROM y
WITH RECURSIVE t(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM t WHERE n < 10) SELECT * FROM t
WITH RECURSIVE r AS (SELECT id, manager FROM users WHERE id = 1 UNION ALL
  SELECT u.id, u.manager FROM users u JOIN r ON u.manager = r.id) SELECT * FROM r
WITH x AS (WITH y AS (SELECT 1 AS a) SELECT * FROM y) SELECT * FROM x
WITH users AS (SELECT * FROM users) SELECT * FROM users
SELECT * FROM (SELECT * FROM (SELECT * FROM users) a) b
SELECT (SELECT max(total) FROM orders)
SELECT * FROM users WHERE id IN (SELECT user_id FROM orders)
SELECT * FROM users WHERE EXISTS (SELECT FROM orders WHERE user_id = users.id)
SELECT * FROM users WHERE id = ANY (ARRAY[1, 2])
SELECT * FROM users WHERE id > ALL (SELECT user_id FROM orders WHERE false)
SELECT ARRAY(SELECT id FROM users)
SELECT ARRAY[1, 2], ROW(1, 'a'), (ARRAY[1, 2, 3])[1:2]
SELECT CASE WHEN active THEN 1 ELSE 0 END FROM users
SELECT CASE id WHEN 1 THEN 'one' END FROM users
SELECT coalesce(name, ''), nullif(name, ''), greatest(1, 2), least(1, 2) FROM users
SELECT name LIKE 'a%', name ILIKE '%b', name SIMILAR TO 'a|b', name ~ '^a', name !~* 'b' FROM users
SELECT * FROM users WHERE name NOT LIKE 'x%' AND id BETWEEN 1 AND 5 AND id NOT BETWEEN 8 AND 9
SELECT * FROM users WHERE id BETWEEN SYMMETRIC 5 AND 1
SELECT * FROM users WHERE name IS NULL OR active IS NOT TRUE OR name IS DISTINCT FROM 'a'
SELECT id::text, CAST(id AS bigint), '2024-01-01'::timestamptz, date '2024-01-01' FROM users
SELECT interval '1 day', timestamp '2024-01-01' AT TIME ZONE 'UTC'
SELECT 'a'::varchar(10), 1::numeric(10, 2), '{1,2}'::int[], '{1}'::_int4
SELECT now(), current_timestamp, current_date, localtime, current_user, session_user
SELECT transaction_timestamp(), statement_timestamp(), clock_timestamp(), timeofday()
SELECT random(), gen_random_uuid(), uuidv7()
SELECT pg_sleep(0)
SELECT version(), current_database(), current_schema(), current_schemas(true)
SELECT pg_catalog.version()
SELECT current_setting('search_path'), current_setting('app.tenant', true)
SELECT pg_backend_pid(), inet_server_port(), pg_is_in_recovery()
SELECT pg_last_wal_replay_lsn(), pg_last_xact_replay_timestamp(), pg_last_wal_receive_lsn()
SELECT pg_relation_size('users'), pg_total_relation_size('users'::regclass)
SELECT to_regclass('users'), 'users'::regclass, format_type(23, -1)
SELECT sum(total) OVER (PARTITION BY user_id ORDER BY id ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM orders
SELECT row_number() OVER w, rank() OVER w FROM users WINDOW w AS (ORDER BY id)
SELECT count(*) FILTER (WHERE active), string_agg(name, ',' ORDER BY name) FROM users
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY total) FROM orders
SELECT json_agg(u), jsonb_object_agg(id, name), array_agg(id) FROM users u
SELECT data->'a'->>'b', data #>> '{a,b}', data @> '{"a": 1}', data - 'a' FROM users
SELECT * FROM users WHERE data ? 'a' OR data ?| ARRAY['a'] OR data ?& ARRAY['a', 'b']
SELECT data['a']['b'] FROM users
SELECT jsonb_path_query(data, '$.a') FROM users
SELECT * FROM jsonb_array_elements('[1,2]') WITH ORDINALITY AS t(v, n)
SELECT * FROM json_to_recordset('[{"a":1}]') AS x(a int, b text)
SELECT * FROM unnest(ARRAY[1,2], ARRAY['a','b']) AS t(a, b)
SELECT * FROM ROWS FROM (generate_series(1, 2), generate_series(3, 4)) AS t(a, b)
SELECT * FROM generate_series(1, 10) AS g(i)
SELECT * FROM generate_series('2024-01-01'::date, '2024-02-01', interval '1 day')
SELECT * FROM users TABLESAMPLE bernoulli (50)
SELECT * FROM users TABLESAMPLE SYSTEM (10) REPEATABLE (5)
SELECT to_tsvector('english', name) @@ to_tsquery('english', 'a') FROM users
SELECT ts_rank(to_tsvector(name), plainto_tsquery('a')), ts_headline('a b', 'a'::tsquery) FROM users
SELECT ts_rewrite('a & b'::tsquery, 'a'::tsquery, 'c'::tsquery)
SELECT extract(year FROM created_at), date_trunc('day', created_at) FROM users
SELECT substring(name FROM 1 FOR 2), position('a' IN name), trim(both ' ' FROM name), overlay('ab' PLACING 'c' FROM 1) FROM users
SELECT name COLLATE "C" FROM users ORDER BY name COLLATE "C"
SELECT 5 % 2, 2 ^ 3, -1, @ -5, |/ 4, 5 & 3, 1 << 2
SELECT 'a' || 'b' || name FROM users
SELECT U&'d\0061t', E'a\'b', $$a'b$$, $x$ $$ $x$
SELECT 'DELETE FROM users'
SELECT 'FOR UPDATE'
SELECT 1 AS "for update", 2 AS "insert"
SELECT "name" FROM "users" -- FOR UPDATE
SELECT 1 /* INSERT INTO users */
/* leading */ SELECT 1
-- leading
 SELECT 1
/*+ SeqScan(users) */ SELECT * FROM users
/* nested /* comment */ still */ SELECT 1
SELECT xmlelement(name foo, 'bar'), xmlforest(1 AS a)
SELECT * FROM xmltable('/a/b' PASSING ('<a><b>1</b></a>'::xml) COLUMNS v int PATH '.')
SELECT '{"a":1}' IS JSON, json_object('a': 1), json_array(1, 2), json_arrayagg(id) FROM users
SELECT json_value('{"a":1}', '$.a' RETURNING int), json_query('{"a":[1]}', '$.a'), json_exists('{}', '$.a')
SELECT * FROM json_table('[1]', '$[*]' COLUMNS (v int PATH '$')) x
SELECT * FROM active_users
SELECT * FROM totals
SELECT * FROM events
SELECT * FROM tenants
SELECT 'tickets'::regclass, pg_sequence_parameters('tickets'::regclass), pg_get_serial_sequence('users', 'id')
SELECT seqstart, seqincrement FROM pg_sequence
SELECT start_value, increment FROM information_schema.sequences
SELECT relname FROM pg_class WHERE relkind = 'S'
SELECT add_one(1), add_one(add_one(2))
SELECT public.add_one(id) FROM users
SELECT peek(1)
SELECT * FROM users_of(1)
SELECT next_to(id) FROM users
SELECT total(1)
SELECT quoted_words()
SELECT twice(1), tidy(name) FROM users
SELECT add_up(id) FROM users
SELECT 1 ==~ 'a'
SELECT 1 OPERATOR(pg_catalog.+) 2
SELECT 1 OPERATOR(public.==~) 'a'
SELECT 'sad'::mood, 'happy'::public.mood
SELECT ROW(1, 2)::pair, (ROW(1, 2)::pair).a
SELECT 'a@b'::email
SELECT 'a=>1'::hstore ? 'a'
SELECT 'A'::citext = 'a'
SELECT similarity('a', 'b'), 'a' % 'b'
SELECT hstore('a', 'b')
SELECT (u).name, (u.*).email, u FROM users u
SELECT name, nextval FROM (SELECT name, 1 AS nextval FROM users) x
SELECT * FROM pg_class, pg_catalog.pg_namespace n WHERE n.oid = relnamespace
SELECT * FROM information_schema.tables
SELECT * FROM pg_stat_activity
SELECT * FROM pg_locks
SELECT * FROM pg_settings WHERE name = 'work_mem'
SELECT pg_get_viewdef('active_users'::regclass), obj_description('users'::regclass), col_description('users'::regclass, 1)
SELECT pg_get_constraintdef(oid), pg_get_indexdef(conindid) FROM pg_constraint
SELECT has_table_privilege('users', 'select'), pg_table_is_visible('users'::regclass)
SELECT pg_size_pretty(pg_database_size(current_database()))
SELECT relname, age(relfrozenxid) FROM pg_class WHERE relkind = 'r'
SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_temp'
SELECT xmin, ctid, tableoid::regclass FROM users
SELECT %s
SELECT %s::int, %(name)s::text
SELECT * FROM users WHERE id = %s AND name = %s
SELECT * FROM users WHERE id = %(id)s OR name LIKE %(pat)s
SELECT * FROM users WHERE id IN (%s, %s, %s)
SELECT * FROM users WHERE id IN %s
SELECT * FROM users WHERE id = ANY(%s)
SELECT * FROM users WHERE name LIKE 'a%%' AND id = %s
SELECT 5 %% 2 = %s
SELECT * FROM users LIMIT %s OFFSET %s
SELECT %b, %t
SELECT data->>%s FROM users WHERE data ? %s
SELECT * FROM users WHERE id=%s AND id<%s OR id>=%(x)s::int
SELECT * FROM users AS "%s" WHERE name = '%s' AND email = "%s".email
SELECT * FROM users WHERE id = $1 AND name = $2
SELECT * FROM users WHERE id = $1::int AND tags && $2::text[]
SELECT * FROM users WHERE id = :id AND name = :name
SELECT :a::int, (ARRAY[1,2,3])[1:2]
SELECT * FROM users WHERE created_at > '2024-01-01 10:30:00'::timestamptz + :gap::interval
SELECT * FROM users WHERE created_at < :a -- :b
SELECT interval %s
SELECT date %(day)s
SELECT 1; SELECT 2
SELECT 1 FROM users; TABLE orders;
""",
)

_OTHER_READS = [
    *_cases("READ", "SHOW", """
SHOW search_path
SHOW ALL
SHOW transaction_isolation
SHOW TIME ZONE
SHOW SESSION AUTHORIZATION
"""),
    *_cases("READ", "EXPLAIN", """
EXPLAIN SELECT 1
EXPLAIN SELECT * FROM users
EXPLAIN (COSTS OFF, FORMAT JSON) SELECT * FROM users
EXPLAIN (ANALYZE false) SELECT 1
EXPLAIN (ANALYZE off, VERBOSE) SELECT * FROM users
EXPLAIN (ANALYZE 0) DELETE FROM users
EXPLAIN INSERT INTO users (id) VALUES (100)
EXPLAIN UPDATE users SET name = 'a'
EXPLAIN DELETE FROM users
EXPLAIN MERGE INTO users u USING orders o ON u.id = o.id WHEN MATCHED THEN DELETE
EXPLAIN WITH x AS (DELETE FROM users RETURNING *) SELECT * FROM x
EXPLAIN SELECT * FROM users FOR UPDATE
EXPLAIN SELECT nextval('tickets')
EXPLAIN SELECT touch(1)
EXPLAIN VERBOSE TABLE users
EXPLAIN DECLARE c CURSOR FOR SELECT 1
EXPLAIN ANALYZE SELECT * FROM users
EXPLAIN (ANALYZE, BUFFERS) SELECT count(*) FROM users
EXPLAIN (ANALYZE true, TIMING off) SELECT 1
"""),
    *_cases("READ", "COPY TO STDOUT", """
COPY users TO STDOUT
COPY users (id, name) TO STDOUT (FORMAT csv, HEADER)
COPY (SELECT * FROM users) TO STDOUT
COPY (SELECT * FROM users WHERE id > 5) TO STDOUT WITH CSV
"""),
    *_cases("READ", "CURSOR", """
DECLARE c CURSOR FOR SELECT * FROM users
DECLARE c BINARY INSENSITIVE NO SCROLL CURSOR WITHOUT HOLD FOR SELECT 1
"""),
    *_cases("READ", "FETCH", "FETCH 10 FROM c\nFETCH ALL IN c\nFETCH c"),
    *_cases("READ", "DO", "DO $$begin end$$\nDO LANGUAGE plpgsql 'begin perform 1; end'"),
    *_cases("READ", "MOVE", "MOVE FORWARD 2 IN c"),
    *_cases("READ", "CLOSE", "CLOSE c\nCLOSE ALL"),
    *(Case(sql, "READ", "empty") for sql in ("", " ", ";", ";;", "-- nothing", "/* a /* b */ */")),
]  # fmt: skip

_WRITES = [
    *_cases("WRITE", "INSERT", """
INSERT INTO users (id) VALUES (100)
INSERT INTO users (id) SELECT 101
INSERT INTO users (id) VALUES (1) ON CONFLICT DO NOTHING
INSERT INTO users (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET name = excluded.name
INSERT INTO users (id) VALUES (102) RETURNING id
INSERT INTO users DEFAULT VALUES
INSERT INTO users (id, name) VALUES (%s, %s)
INSERT INTO users (id, name) VALUES (%(id)s, %(name)s) RETURNING id
INSERT INTO users (id, name) VALUES ($1, $2)
INSERT INTO users (id, name) VALUES (:id, :name)
INSERT INTO users (id) VALUES %s
WITH x AS (INSERT INTO users (id) VALUES (1) RETURNING *) SELECT * FROM x
WITH x AS (SELECT 1 AS id) INSERT INTO users (id) SELECT id FROM x
WITH a AS (WITH b AS (INSERT INTO users (id) VALUES (1) RETURNING id) SELECT * FROM b) SELECT * FROM a
/* comment */ INSERT INTO users (id) VALUES (1)
-- SELECT
 INSERT INTO users (id) VALUES (1)
EXPLAIN ANALYZE INSERT INTO users (id) VALUES (1)
"""),
    *_cases("WRITE", "UPDATE", """
UPDATE users SET name = 'a'
UPDATE users SET name = 'a' FROM orders WHERE orders.user_id = users.id RETURNING *
UPDATE ONLY users SET (name, email) = (SELECT 'a', 'b')
WITH x AS (SELECT 1) UPDATE users SET name = 'a'
WITH x AS (UPDATE users SET name = 'a' RETURNING id) SELECT count(*) FROM x
/*/**/SELECT*/ UPDATE users SET name = 'a'
update users set name = %s where id = %s
"""),
    *_cases("WRITE", "DELETE", """
DELETE FROM users
DELETE FROM users USING orders WHERE orders.user_id = users.id
DELETE FROM users WHERE id = 1 RETURNING *
EXPLAIN ANALYZE DELETE FROM users
EXPLAIN (ANALYZE true) DELETE FROM users
EXPLAIN (ANALYZE) DELETE FROM users
EXPLAIN (analyze on, verbose) DELETE FROM users
EXPLAIN (ANALYZE 1) DELETE FROM users
EXPLAIN (ANALYZE false, ANALYZE true) DELETE FROM users
SELECT * FROM users WHERE id IN (WITH d AS (DELETE FROM orders RETURNING user_id) SELECT user_id FROM d)
SELECT 1 UNION (WITH d AS (DELETE FROM orders RETURNING user_id) SELECT user_id FROM d)
"""),
    *_cases("WRITE", "MERGE", """
MERGE INTO users u USING orders o ON u.id = o.user_id WHEN MATCHED THEN UPDATE SET name = 'a'
MERGE INTO users u USING orders o ON u.id = o.user_id WHEN NOT MATCHED THEN INSERT (id) VALUES (1)
WITH m AS (MERGE INTO users u USING orders o ON u.id = o.id WHEN MATCHED THEN DELETE RETURNING u.id) SELECT * FROM m
"""),
    *_cases("WRITE", "TRUNCATE", "TRUNCATE users\nTRUNCATE TABLE users, orders CASCADE"),
    *_cases("WRITE", "FOR UPDATE", """
SELECT * FROM users FOR UPDATE
SELECT * FROM users FOR UPDATE;
SELECT * FROM users
  FOR UPDATE
SELECT * FROM users FOR UPDATE NOWAIT
SELECT * FROM users FOR UPDATE SKIP LOCKED
SELECT * FROM users FOR UPDATE OF users LIMIT 1
SELECT * FROM users LIMIT 1 FOR UPDATE
SELECT * FROM (SELECT * FROM users FOR UPDATE) x
SELECT * FROM users WHERE id IN (SELECT id FROM orders FOR UPDATE)
WITH x AS (SELECT * FROM users FOR UPDATE SKIP LOCKED) SELECT * FROM x
(SELECT * FROM users FOR UPDATE)
SELECT * FROM users FOR UPDATE -- a comment
SELECT * FROM users WHERE id = %s FOR UPDATE
EXPLAIN ANALYZE SELECT * FROM users FOR UPDATE
"""),
    *_cases("WRITE", "FOR NO KEY UPDATE", "SELECT * FROM users FOR NO KEY UPDATE"),
    *_cases("WRITE", "FOR SHARE", "SELECT * FROM users FOR SHARE\nselect * from users for share of users"),
    *_cases("WRITE", "FOR KEY SHARE", "SELECT * FROM users FOR KEY SHARE"),
    *_cases("WRITE", "SELECT INTO", """
SELECT * INTO new_users FROM users
SELECT 1 AS a INTO TEMP scratch2
SELECT 1 AS a INTO UNLOGGED scratch3
"""),
    *_cases("WRITE", "advances a sequence", """
SELECT nextval('tickets')
SELECT pg_catalog.nextval('tickets')
SELECT setval('tickets', 5)
SELECT id, nextval('tickets') FROM users
SELECT * FROM users WHERE id = (SELECT nextval('tickets'))
SELECT ('tickets'::text).nextval
SELECT ('tickets'::regclass).nextval
SELECT x.nextval FROM (SELECT 1 AS a) x, LATERAL (SELECT 'tickets'::text) y
VALUES (nextval('tickets'))
SELECT coalesce(NULL, nextval('tickets'))
WITH x AS (SELECT nextval('tickets')) SELECT * FROM x
SELECT 1 ORDER BY nextval('tickets')
SELECT 1 LIMIT nextval('tickets')
SELECT * FROM nextval('tickets')
EXPLAIN ANALYZE SELECT nextval('tickets')
COPY (SELECT nextval('tickets')) TO STDOUT
"""),
    *_cases("WRITE", "advisory lock", """
SELECT pg_advisory_lock(1)
SELECT pg_advisory_lock(1, 2)
SELECT pg_advisory_xact_lock(1)
SELECT pg_advisory_lock_shared(1)
SELECT pg_try_advisory_lock(1)
SELECT pg_try_advisory_xact_lock(1)
SELECT pg_try_advisory_xact_lock_shared(1)
SELECT pg_advisory_unlock(1)
SELECT pg_advisory_unlock_all()
SELECT * FROM users WHERE pg_try_advisory_xact_lock(id)
WITH x AS (SELECT pg_advisory_lock(1)) SELECT * FROM x
SELECT PG_ADVISORY_LOCK(1)
SELECT "pg_advisory_lock"(1)
SELECT pg_advisory_lock(%s)
SELECT * FROM locked_users
SELECT * FROM nested_locked
SELECT count(*) FROM (SELECT * FROM nested_locked) x
SELECT sly_lock(1)
SELECT sly_try(1)
SELECT outer_sly(1)
SELECT atomic_sly()
SELECT sly_return()
SELECT * FROM sly_view
SELECT * FROM guarded
SELECT 1::watched
SELECT CAST(1 AS watched_too)
EXPLAIN SELECT sly_lock(1)
"""),
    *_cases("WRITE", "currval", "SELECT currval('tickets')\nSELECT ('tickets'::regclass).currval"),
    *_cases("WRITE", "lastval", "SELECT lastval()"),
    *_cases("WRITE", "notification", "SELECT pg_notify('a', 'b')"),
    *_cases("WRITE", "transaction id", """
SELECT txid_current()
SELECT txid_current_if_assigned()
SELECT pg_current_xact_id()
SELECT pg_current_xact_id_if_assigned()
"""),
    *_cases("WRITE", "snapshot", "SELECT pg_export_snapshot()\nSELECT txid_current_snapshot()"),
    *_cases("WRITE", "is a sequence", """
SELECT last_value FROM tickets
SELECT last_value, is_called FROM tickets
SELECT log_cnt FROM public.tickets
SELECT * FROM tickets
SELECT * FROM ONLY tickets
TABLE tickets
SELECT last_value FROM audit."Odd Seq"
SELECT last_value FROM "tickets" AS t
SELECT name, (SELECT last_value FROM tickets) FROM users
SELECT * FROM users, tickets WHERE id < last_value
WITH t AS (SELECT last_value FROM tickets) SELECT * FROM t
SELECT 1 UNION ALL SELECT last_value FROM tickets
EXPLAIN ANALYZE SELECT last_value FROM tickets
COPY (SELECT last_value FROM tickets) TO STDOUT
DECLARE c CURSOR FOR SELECT last_value FROM tickets
SELECT * FROM last_ticket
SELECT ticket()
SELECT odd_ticket()
"""),
    *_cases("WRITE", "of a sequence", """
SELECT * FROM pg_sequences
SELECT last_value FROM pg_catalog.pg_sequences WHERE sequencename = 'tickets'
SELECT pg_sequence_last_value('tickets')
SELECT pg_catalog.pg_sequence_last_value('tickets'::regclass)
SELECT ('tickets'::regclass).pg_sequence_last_value
SELECT * FROM pg_get_sequence_data('tickets')
SELECT any_ticket()
"""),
    *_cases("WRITE", "prepared transaction", """
SELECT gid FROM pg_prepared_xacts
SELECT pg_prepared_xact()
"""),
    *_cases("WRITE", "large object", """
SELECT lo_create(0)
SELECT lo_open(1, 131072)
SELECT lo_put(1, 0, 'a')
SELECT lo_unlink(1)
SELECT loread(0, 10)
SELECT lo_from_bytea(0, 'a')
"""),
    *_cases("WRITE", " server it runs on", """
SELECT lo_export(1, '/tmp/x')
SELECT lo_import('/tmp/x')
SELECT pg_read_file('postgresql.conf')
SELECT pg_ls_dir('.')
SELECT * FROM pg_ls_waldir()
"""),
    *_cases("WRITE", "server", """
SELECT pg_terminate_backend(1)
SELECT pg_cancel_backend(1)
SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE false
SELECT pg_reload_conf()
SELECT pg_rotate_logfile()
SELECT pg_promote()
SELECT pg_wal_replay_pause()
SELECT pg_stat_reset()
SELECT pg_stat_reset_shared('bgwriter')
SELECT pg_stat_reset_single_table_counters(1)
SELECT pg_log_backend_memory_contexts(pg_backend_pid())
"""),
    *_cases("WRITE", "control", """
SELECT pg_backup_start('x')
SELECT pg_create_physical_replication_slot('x')
SELECT pg_drop_replication_slot('x')
SELECT pg_logical_slot_get_changes('x', NULL, NULL)
SELECT pg_replication_origin_create('x')
"""),
    *_cases("WRITE", "primary", """
SELECT pg_current_wal_lsn()
SELECT pg_current_wal_insert_lsn()
SELECT pg_switch_wal()
SELECT pg_create_restore_point('x')
SELECT pg_logical_emit_message(true, 'a', 'b')
"""),
    *_cases("WRITE", "hidden in its argument", """
SELECT query_to_xml('delete from users', true, false, '')
SELECT table_to_xml('users', true, false, '')
SELECT database_to_xml(true, false, '')
SELECT ts_stat('select vector from x')
SELECT ts_rewrite('a'::tsquery, 'select t, s from aliases')
"""),
    *_cases("WRITE", "random()", "SELECT setseed(0.5)"),
    *_cases("WRITE", "foreign table", "SELECT * FROM remote_log"),
    *_cases("WRITE", "further server", """
SELECT * FROM dblink('dbname=x', 'delete from users') AS t(a int)
SELECT dblink_connect('dbname=x')
"""),
    *_cases("WRITE", "UPDATE", """
SELECT touch(1)
SELECT public.touch(1)
SELECT audit.log('a')
SELECT log('a'::text)
SELECT * FROM touch(1)
SELECT * FROM users WHERE touch(id) = 1
SELECT * FROM touched
"""),
    *_cases("WRITE", "advances a sequence", """
SELECT total(1, 2)
SELECT fallback(1)
SELECT fallback(1, 2)
SELECT many(1, 2, 3)
SELECT many(VARIADIC ARRAY[1])
SELECT "Odd Name"()
SELECT u.loud FROM users u
SELECT loud(u) FROM users u
SELECT (u).loud FROM users u
SELECT 1 === 'a'
SELECT 1 OPERATOR(public.===) 'a'
SELECT id FROM users WHERE id === 'x'
SELECT 'sad'::mood::int
SELECT bad_up(id) FROM users
SELECT bad_up(id) OVER () FROM users
"""),
    *_cases("WRITE", "CREATE", "SELECT make_temp()"),
    *_cases("WRITE", "session state", "SELECT set_tenant('a')"),
    *_cases("WRITE", "dynamic SQL", "SELECT dynamic('select 1')"),
    *_cases("WRITE", "unlogged", """
SELECT * FROM cache_entries
SELECT * FROM over_cache
SELECT * FROM metrics
SELECT * FROM parent
SELECT * FROM users WHERE id::text IN (SELECT k FROM cache_entries)
COPY cache_entries TO STDOUT
EXPLAIN SELECT * FROM cache_entries
"""),
    *_cases("WRITE", "not in the catalog", """
SELECT * FROM nowhere
SELECT * FROM audit.users
SELECT nothing(1)
SELECT pg_catalog.touch(1)
SELECT 'a'::novel
SELECT 1 <==> 2
SELECT * FROM users TABLESAMPLE system_rows (10)
"""),
    *_cases("WRITE", "does not parse", """
SELEC 1
SELECT * FROM
SELECT 'unterminated
INSERT INTO
SELECT 1 FROM users WHERE (
SELECT %s %s %s
BEGIN TRAN
foo
SELECT "unterminated
SELECT 1 /* unterminated
SELECT $$unterminated
SELECT @@
"""),
    *_cases("WRITE", "COPY FROM", "COPY users FROM STDIN\nCOPY users FROM '/tmp/x'\nCOPY users FROM PROGRAM 'true'"),
    *_cases("WRITE", "COPY TO PROGRAM", "COPY users TO PROGRAM 'true'\nCOPY (SELECT 1) TO PROGRAM 'true'"),
    *_cases("WRITE", "COPY TO a file", "COPY users TO '/tmp/router-copy'\nCOPY (SELECT 1) TO '/tmp/router-copy'"),
    *_cases("WRITE", "COPY of", "COPY (DELETE FROM users RETURNING *) TO STDOUT\nCOPY locked_users TO STDOUT"),
    *_cases("WRITE", "PREPARE", "PREPARE p AS SELECT 1\nPREPARE p (int) AS INSERT INTO users (id) VALUES ($1)\nPREPARE p AS SELECT nextval('tickets')"),
    *_cases("WRITE", "EXECUTE", "EXECUTE p\nEXECUTE p (1)\nEXPLAIN EXECUTE p"),
    *_cases("WRITE", "DEALLOCATE", "DEALLOCATE p\nDEALLOCATE ALL"),
    *_cases("WRITE", "WITH HOLD", "DECLARE c CURSOR WITH HOLD FOR SELECT 1"),
    *_cases("WRITE", "DECLARE CURSOR for", "DECLARE c CURSOR FOR SELECT * FROM users FOR UPDATE\nDECLARE c CURSOR FOR SELECT nextval('tickets')"),
    *_cases("WRITE", "LISTEN", "LISTEN a\nUNLISTEN a\nUNLISTEN *"),
    *_cases("WRITE", "NOTIFY", "NOTIFY a\nNOTIFY a, 'payload'"),
    *_cases("WRITE", "LOCK", "LOCK users\nLOCK TABLE users IN ACCESS SHARE MODE\nLOCK TABLE users IN EXCLUSIVE MODE NOWAIT"),
    *_cases("WRITE", "CALL", "CALL something()\nCALL something(1, 2)"),
    *_cases("WRITE", "DO", "DO $$begin perform pg_advisory_lock(1); end$$\nDO LANGUAGE plpgsql 'begin delete from users; end'"),
    *_cases("WRITE", "DISCARD", "DISCARD SEQUENCES\nDISCARD TEMP"),
    *_cases("WRITE", "VACUUM", "VACUUM\nVACUUM ANALYZE users"),
    *_cases("WRITE", "ANALYZE", "ANALYZE\nANALYZE users"),
    *_cases("WRITE", "CHECKPOINT", "CHECKPOINT"),
    *_cases("WRITE", "LOAD", "LOAD 'auto_explain'"),
    *_cases("WRITE", "REINDEX", "REINDEX TABLE users"),
    *_cases("WRITE", "CLUSTER", "CLUSTER users"),
    *_cases("WRITE", "REFRESH", "REFRESH MATERIALIZED VIEW totals\nREFRESH MATERIALIZED VIEW CONCURRENTLY totals"),
    *_cases("WRITE", "ALTER SYSTEM", "ALTER SYSTEM SET work_mem = '4MB'\nALTER SYSTEM RESET ALL"),
    *_cases("WRITE", "CREATE", """
CREATE TABLE t (a int)
CREATE TEMP TABLE t (a int)
CREATE UNLOGGED TABLE t (a int)
CREATE TABLE t AS SELECT * FROM users
CREATE TEMP TABLE t AS SELECT 1
CREATE TABLE IF NOT EXISTS t (LIKE users)
CREATE INDEX ON users (name)
CREATE INDEX CONCURRENTLY i ON users (name)
CREATE VIEW v AS SELECT 1
CREATE OR REPLACE TEMP VIEW v AS SELECT 1
CREATE MATERIALIZED VIEW m AS SELECT 1
CREATE SEQUENCE s
CREATE SCHEMA s
CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'select 1'
CREATE PROCEDURE p() LANGUAGE sql AS 'select 1'
CREATE TRIGGER t BEFORE INSERT ON users EXECUTE FUNCTION suppress_redundant_updates_trigger()
CREATE TYPE colour AS ENUM ('a')
CREATE DOMAIN d AS int
CREATE ROLE r
CREATE EXTENSION hstore
CREATE DATABASE d
CREATE POLICY p ON users USING (true)
CREATE RULE r AS ON INSERT TO users DO NOTHING
CREATE PUBLICATION p FOR ALL TABLES
CREATE STATISTICS s ON name, email FROM users
"""),
    *_cases("WRITE", "ALTER", """
ALTER TABLE users ADD COLUMN x int
ALTER TABLE users RENAME TO people
ALTER TABLE users RENAME COLUMN name TO title
ALTER SEQUENCE tickets RESTART
ALTER TABLE users ENABLE ROW LEVEL SECURITY
ALTER ROLE postgres SET work_mem = '4MB'
ALTER DATABASE postgres SET work_mem = '4MB'
"""),
    *_cases("WRITE", "DROP", "DROP TABLE users\nDROP VIEW IF EXISTS active_users\nDROP INDEX CONCURRENTLY i\nDROP DATABASE d"),
    *_cases("WRITE", "GRANT", "GRANT SELECT ON users TO public\nREVOKE ALL ON users FROM public\nGRANT a TO b"),
    *_cases("WRITE", "COMMENT", "COMMENT ON TABLE users IS 'x'"),
    *_cases("WRITE", "SET TRANSACTION SNAPSHOT".removeprefix("SET "), "SET TRANSACTION SNAPSHOT '00000003-0000001B-1'"),
    *_cases("WRITE", "several statements", """
SELECT 1; DELETE FROM users
DELETE FROM users; SELECT 1
BEGIN; SELECT 1
SET a.b = 'c'; SELECT 1
SET LOCAL a.b = 'c'; SELECT 1
BEGIN; INSERT INTO users (id) VALUES (1); COMMIT
SELECT 1; COMMIT
BEGIN; COMMIT
SET LOCAL a.b = 'c'; SET a.c = 'd'
"""),
    *_cases("WRITE", "set_config", """
SELECT set_config('app.tenant', id::text, false) FROM users
SELECT set_config('app.tenant', 'a', %s)
SELECT set_config('app.tenant', 'a', $1)
SELECT set_config('app.tenant', random()::text, true)
SELECT set_config('a.b', 'c', true), set_config('a.c', 'd', false)
WITH x AS (SELECT set_config('a.b', name, false) FROM users) SELECT * FROM x
COPY (SELECT set_config('a.b', 'c', false)) TO STDOUT
"""),
    *_cases("WRITE", "default_transaction_isolation", """
SET default_transaction_isolation = 'serializable'
SET default_transaction_isolation TO 'repeatable read'
SELECT set_config('default_transaction_isolation', 'serializable', false)
"""),
    *_cases("WRITE", "SERIALIZABLE", "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE"),
    *_cases("WRITE", "", "SELECT * FROM pg_temp.users\nSELECT * FROM PG_Temp.users\nSET search_path = pg_temp, public\nSELECT pg_temp.f()\nSELECT set_config('search_path', 'pg_temp', false)\nSELECT 'a'::pg_temp.t\nCREATE TABLE pg_temp.t (a int)"),
]  # fmt: skip

_SESSION = [
    *_cases("SESSION", "SET", """
SET search_path TO a, b
SET search_path = public
SET app.tenant = '42'
SET app.tenant TO 42
SET SESSION work_mem = '4MB'
SET TIME ZONE 'UTC'
SET NAMES 'utf8'
SET ROLE someone
SET ROLE NONE
SET SESSION AUTHORIZATION DEFAULT
SET SESSION AUTHORIZATION someone
SET statement_timeout = 0
SET client_encoding TO DEFAULT
SET app.tenant = %s
SET default_transaction_read_only = on
SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY
SET a.b = 'c'; SET d.e = 'f'
RESET app.tenant
RESET ALL
RESET ROLE
RESET SESSION AUTHORIZATION
"""),
    *_cases("SESSION", "SET LOCAL", """
SET LOCAL app.tenant = '42'
SET LOCAL ROLE someone
SET LOCAL app.tenant TO DEFAULT
SET LOCAL app.tenant = %s
SET LOCAL statement_timeout = '5s'
SET LOCAL a.b = 'c'; SET LOCAL d.e = 'f'
"""),
    *_cases("SESSION", "SET CONSTRAINTS", "SET CONSTRAINTS ALL DEFERRED\nSET CONSTRAINTS a, b IMMEDIATE"),
    *_cases("SESSION", "set_config()", """
SELECT set_config('app.tenant', '42', true)
SELECT set_config('app.tenant', '42', false)
SELECT set_config('app.tenant', %s, true)
SELECT set_config('app.tenant', %(tenant)s::text, 't')
SELECT set_config('app.tenant', $1, false)
SELECT pg_catalog.set_config('search_path', '', false)
SELECT 1, set_config('a.b', 'c', true), set_config('d.e', 'f', true)
SELECT set_config(%s, %s, true)
"""),
    *_cases("SESSION", "DISCARD", "DISCARD ALL\nDISCARD PLANS"),
]  # fmt: skip

_TRANSACTION = [
    *_cases("TRANSACTION", "BEGIN", """
BEGIN
BEGIN WORK
BEGIN TRANSACTION
START TRANSACTION
BEGIN READ ONLY
BEGIN READ WRITE
START TRANSACTION READ ONLY, ISOLATION LEVEL REPEATABLE READ
BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE
begin transaction isolation level read committed
/* c */ BEGIN -- d
"""),
    *_cases("TRANSACTION", "COMMIT", "COMMIT\nEND\nCOMMIT WORK\nEND TRANSACTION\nCOMMIT AND CHAIN\nCOMMIT PREPARED 'x'"),
    *_cases("TRANSACTION", "ROLLBACK", "ROLLBACK\nABORT\nROLLBACK AND NO CHAIN\nROLLBACK TO SAVEPOINT a\nROLLBACK TO a\nROLLBACK PREPARED 'x'"),
    *_cases("TRANSACTION", "SAVEPOINT", "SAVEPOINT a"),
    *_cases("TRANSACTION", "RELEASE", "RELEASE SAVEPOINT a\nRELEASE a"),
    *_cases("TRANSACTION", "PREPARE TRANSACTION", "PREPARE TRANSACTION 'x'"),
    *_cases("TRANSACTION", "SET", """
SET TRANSACTION READ ONLY
SET TRANSACTION ISOLATION LEVEL SERIALIZABLE
SET LOCAL transaction_read_only = on
SET transaction_isolation = 'repeatable read'
SELECT set_config('transaction_read_only', 'on', true)
"""),
]  # fmt: skip

STATEMENTS: tuple[Case, ...] = (*_READS, *_OTHER_READS, *_WRITES, *_SESSION, *_TRANSACTION)
