"""Statements of PostgreSQL 18, 19 and later, which the parser's grammar does not know."""

import pytest

from router.sql.classifier import NOT_PARSED, Classifier, classify
from router.sql.intent import Kind
from tests.sql.statements import CATALOG

READS = (
    "SELECT name, count(*) FROM users GROUP BY ALL",
    "SELECT lag(id) IGNORE NULLS OVER (ORDER BY id) FROM users",
    "SELECT * FROM GRAPH_TABLE (shop MATCH (c IS person) COLUMNS (c.name))",
    "WITH x AS (SELECT 1) SELECT * FROM GRAPH_TABLE (g MATCH (a) COLUMNS (a.b))",
    "(SELECT 1 FROM users GROUP BY ALL)",
)
WRITES = (
    "UPDATE users SET id = 1 RETURNING WITH (OLD AS o) o.id",
    "DELETE FROM users FOR PORTION OF valid FROM 1 TO 2",
    "INSERT INTO users VALUES (1) ON CONFLICT (id) DO SELECT RETURNING id",
    "WAIT FOR LSN '0/1'",
)
DDL = (
    "CREATE TABLE t (a int, b int GENERATED ALWAYS AS (a + 1) VIRTUAL)",
    "ALTER TABLE users ADD CONSTRAINT c NOT NULL id",
    "CREATE TABLE t (a int, CONSTRAINT c CHECK (a > 0) NOT ENFORCED)",
    "CREATE TABLE t (a int, b daterange, PRIMARY KEY (a, b WITHOUT OVERLAPS))",
    "CREATE PROPERTY GRAPH shop VERTEX TABLES (users)",
    "DROP PROPERTY GRAPH shop",
    "ALTER TABLE users SPLIT PARTITION p INTO (PARTITION q FOR VALUES IN (1))",
)


@pytest.mark.parametrize("sql", [*READS, *WRITES, *DDL])
def test_none_is_called_a_read_by_its_first_word(sql: str) -> None:
    """What only a later grammar knows is a write, and may be DDL: the primary runs it, which is
    right, and the catalog is looked at again."""
    intent = classify(sql, CATALOG)
    assert intent.kind is Kind.WRITE
    if intent.reason.startswith(NOT_PARSED):
        assert intent.ddl or intent.may_be_ddl


@pytest.mark.parametrize("sql", DDL)
def test_what_changes_the_catalog_is_known(sql: str) -> None:
    """Its first word says so."""
    assert classify(sql, CATALOG).ddl


def test_many_comments_are_passed_over_once() -> None:
    """Comments before a text that does not parse take time by their length, not by 2 to the power
    of their number, and none hides a read by being long."""
    comments = "/**/" * 4_000
    classifier = Classifier(CATALOG)
    classifier(f"{comments} {WRITES[0]}")
    assert classifier.unparsed == (0, "")
    classifier(f"{comments} {READS[0]}")
    assert classifier.unparsed == (1, READS[0])


def test_texts_that_cost_reads_are_counted() -> None:
    """Each text that begins like a read and does not parse counts once; the first one is kept."""
    classifier = Classifier(CATALOG)
    for sql in (*WRITES, *DDL, *READS, *READS, f"/* a */ -- b\n {READS[0]}"):
        classifier(sql)
    assert classifier.unparsed == (len(READS) + 1, READS[0])
    assert classifier.stats()["unparsed"] == len(READS) + 1
