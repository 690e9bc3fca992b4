"""What was kept on the primary for nothing: a standby runs it, and what acts beside it stays."""

from collections.abc import Iterator

import psycopg
import pytest

from router.sql.catalog import Catalog
from router.sql.classifier import classify
from router.testing import Cluster

NAME = "freed"

EXTENSIONS = (
    "citext", "hstore", "ltree", "pg_trgm", "vector", "dblink", "postgres_fdw", "file_fdw",
    "pgstattuple", "pg_buffercache",
)  # fmt: skip

SCHEMA = """
CREATE TYPE span AS RANGE (subtype = float8);
CREATE TABLE item (id int PRIMARY KEY, name citext, s span, e vector(2));
INSERT INTO item VALUES (1, 'One', '[1,2]', '[1,2]');
CREATE INDEX ON item USING hnsw (e vector_l2_ops);
CREATE INDEX item_s ON item USING gist (s);
CREATE INDEX item_h ON item USING hash (id);
CREATE FUNCTION acts() RETURNS int LANGUAGE sql AS
    'SELECT 1 FROM (SELECT pg_advisory_xact_lock(1)) x';
CREATE VIEW acting AS SELECT acts() AS id;
CREATE SERVER loop FOREIGN DATA WRAPPER postgres_fdw;
CREATE USER MAPPING FOR PUBLIC SERVER loop;
CREATE FOREIGN TABLE far (id int) SERVER loop;
CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
CREATE FOREIGN TABLE line (text text) SERVER files OPTIONS (filename '/etc/hostname');
CREATE PROCEDURE counts(INOUT n int) LANGUAGE plpgsql AS
    $$ BEGIN n := (SELECT count(*) FROM item); END $$;
CREATE PROCEDURE ends() LANGUAGE plpgsql AS $$ BEGIN COMMIT; END $$;
SELECT lo_from_bytea(4711, 'a large object');
"""

FREE = (
    "SELECT 'x'::citext = 'X', name::text::citext, citext('a') FROM item",
    "SELECT span(1, 2), span(1, 2, '[]') && s, span_multirange(s) FROM item",
    "SELECT id FROM item WHERE s @> 1.5::float8",
    "SELECT id, e <-> '[3,4]', e + e, vector_dims(e) FROM item ORDER BY e <-> '[3,4]' LIMIT 3",
    "SELECT avg(e), l2_normalize(e), e::halfvec FROM item GROUP BY e",
    "SELECT lo_get(4711), lo_get(4711, 0, 3)",
    "SELECT dblink_build_sql_insert('item', '1', 1, '{1}', '{2}')",
    "SELECT dblink_build_sql_update('public.item', '1', 1, '{1}', '{2}')",
    "SELECT dblink_build_sql_delete('Item', '1', 1, '{1}')",
    "SELECT * FROM dblink_get_pkey('item')",
    "SELECT regproc('now'), regclass('item'), int4('1'), date('2020-01-01'), float8('1')",
    "EXPLAIN SELECT * FROM far",
    "EXPLAIN SELECT * FROM line",
    "DO $$ DECLARE n int; BEGIN SELECT count(*) INTO n FROM item; PERFORM n; END $$",
    "CALL counts(1)",
    "SELECT * FROM pgstattuple_approx('item'), pgstathashindex('item_h')",
    "SELECT count(*) FROM pg_buffercache",
)  # fmt: skip

KEPT = (
    "SELECT * FROM far",
    "SELECT * FROM line",
    "EXPLAIN ANALYZE SELECT * FROM line",
    "SELECT lo_put(4711, 0, 'b')",
    "SELECT lo_open(4711, 262144)",
    "SELECT dblink_build_sql_insert('acting', '1', 1, '{1}', '{2}')",
    "SELECT dblink_build_sql_insert(name::text, '1', 1, '{1}', '{2}') FROM item",
    "SELECT dblink_get_pkey('item'), dblink_get_pkey(name::text) FROM item",
    "SELECT dblink_exec('DROP TABLE item')",
    "SELECT pg_buffercache_evict(1)",
    "DO $$ BEGIN PERFORM acts(); END $$",
    "DO $$ BEGIN UPDATE item SET id = 2; END $$",
    "DO $$ BEGIN COMMIT; END $$",
    "DO $$ BEGIN EXECUTE concat('SELECT ', 1); END $$",
    "DO $$ BEGIN PERFORM set_config('a.b', 'c', false); END $$",
    "DO LANGUAGE sql 'SELECT 1'",
    "CALL counts(acts())",
    "CALL ends()",
    "CALL unknown()",
)  # fmt: skip


@pytest.fixture(scope="module")
def standby() -> Iterator[tuple[psycopg.Connection, Catalog]]:
    """A connection to a standby, and the catalog."""
    with Cluster(1) as cluster:
        cluster.primary.execute(f"CREATE DATABASE {NAME}")
        for extension in EXTENSIONS:
            cluster.primary.execute(f"CREATE EXTENSION {extension}", dbname=NAME)
        cluster.primary.execute(SCHEMA, dbname=NAME)
        cluster.wait_caught_up()
        with psycopg.connect(cluster.replicas[0].conninfo(NAME), autocommit=True) as connection:
            rows = {p: connection.execute(q).fetchall() for p, q in Catalog.QUERIES.items()}
            yield connection, Catalog.from_rows(rows)


def test_a_standby_runs_what_is_free(standby: tuple[psycopg.Connection, Catalog]) -> None:
    """Each is a read, and no standby refuses it."""
    connection, catalog = standby
    kept = {sql: found for sql in FREE if (found := classify(sql, catalog)).kind.name != "READ"}
    assert kept == {}
    for sql in FREE:
        connection.execute(sql)


def test_what_acts_beside_it_stays(standby: tuple[psycopg.Connection, Catalog]) -> None:
    """What is like it, and acts or may act, is no read."""
    assert [sql for sql in KEPT if classify(sql, standby[1]).kind.name == "READ"] == []
