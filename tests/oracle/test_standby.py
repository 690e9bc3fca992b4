"""The judge of the classifier: a real standby, asked to run every statement of the table."""

import re
from collections.abc import Iterator

import pgparse  # type: ignore[import-not-found]
import psycopg
import pytest
from psycopg import Connection

from router.sql import placeholders
from router.sql.catalog import Catalog
from router.sql.classifier import classify
from router.sql.intent import Kind, OnStandby
from router.testing import Cluster
from tests.oracle.judge import NOT_RUN, Verdict, run
from tests.sql.statements import SCHEMA, STATEMENTS, Case
from tests.sql.test_bounds import deepest, said, tree_depth

NAME = "oracle"

# Accepted by a standby, with an effect in the wrong place or an answer only the primary can give:
# the silent misroutes. By the reason the table expects, or by the text.
SILENT = re.compile(
    r"""
      advisory | set_config | is\ volatile | dynamic\ SQL | random\(\) | further\ server
    | foreign\ table | a\ sequence | transaction\ id | prepared\ transaction | snapshot
    | server\ it\ runs\ on | PROGRAM | a\ file
    | WITH\ HOLD | ^PREPARE$ | EXECUTE | LISTEN | DISCARD | CHECKPOINT | LOAD | ALTER\ SYSTEM
    | default_transaction | SERIALIZABLE | several\ statements | \bDO\b | DEALLOCATE | control
    | ^server$
    """,
    re.VERBOSE,
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A primary and a standby, with the objects the statements speak of."""
    with Cluster(1) as started:
        started.primary.execute(f"create database {NAME}")
        started.primary.execute(SCHEMA, dbname=NAME)
        started.replicas[0].wait_caught_up()
        yield started


@pytest.fixture(scope="module")
def standby(cluster: Cluster) -> Iterator[tuple[Connection, Catalog]]:
    """A connection to a standby that may be ruined, and the catalog."""
    with psycopg.connect(cluster.replicas[0].conninfo(NAME), autocommit=True) as connection:
        catalog = Catalog.from_rows(
            {part: connection.execute(sql).fetchall() for part, sql in Catalog.QUERIES.items()}
        )
        yield connection, catalog


def ask(connection: Connection, sql: str, *, transaction: bool) -> Verdict:
    """Run `sql` as it is, as a literal for each placeholder, and leave the session clean."""
    verdict = Verdict(False, True, "")
    for form in (placeholders.literals, placeholders.lists):
        text = placeholders.percent(sql, form) or placeholders.colon(sql, form) or sql
        text = re.sub(r"\$\d+", "'1'", text) if "$x$" not in text else text
        verdict = run(connection, text, transaction=transaction)
        if verdict.state != "42601":
            break
    return verdict


def test_the_standby_agrees(standby: tuple[Connection, Catalog]) -> None:
    """What a standby refuses is no read, nor what it does in the wrong place; the rest is."""
    connection, catalog = standby
    refused: list[Case] = []
    silent: list[Case] = []
    harmless: list[Case] = []
    broken: list[tuple[str, str]] = []
    for case in STATEMENTS:
        if NOT_RUN.search(case.sql):
            continue
        intent = classify(case.sql, catalog)
        inside = intent.needs_transaction or intent.verb is not None
        verdict = ask(connection, case.sql, transaction=inside)
        if verdict.refused:
            refused.append(case)
        elif not verdict.failed:
            acts = case.kind != "READ" and SILENT.search(case.reason)
            (silent if acts else harmless).append(case)
        elif intent.kind is Kind.READ and "libxml" not in verdict.message:
            broken.append((case.sql, verdict.message))

    def called(cases: list[Case], *kinds: Kind) -> list[str]:
        return [c.sql for c in cases if classify(c.sql, catalog).kind in kinds]

    kept = called(harmless, Kind.WRITE)
    rate = 1 - len(kept) / len(harmless)
    print(
        f"\nrefused by the standby: {len(refused)}, called a read: "
        f"{len(called(refused, Kind.READ))}"
        f"\naccepted, with an effect in the wrong place: {len(silent)}, called a read: "
        f"{len(called(silent, Kind.READ))}"
        f"\naccepted harmlessly: {len(harmless)}, free to leave the primary: {rate:.1%}"
    )
    assert not called(refused, Kind.READ)
    assert not called(silent, Kind.READ)
    assert rate >= 0.97, kept
    assert not broken
    assert len(refused) > 80
    assert len(harmless) > 200


def test_what_is_refused_by_the_standby_is_known(standby: tuple[Connection, Catalog]) -> None:
    """In a read-only transaction a statement is sent on, as one that a standby refuses by itself,
    only where it does, a cursor when it is read; and of what it refuses nearly all is."""
    connection, catalog = standby
    wrong: list[tuple[str, str]] = []
    kept: list[str] = []
    refused = 0
    for case in STATEMENTS:
        intent = classify(case.sql, catalog)
        if NOT_RUN.search(case.sql) or intent.kind is not Kind.WRITE or intent.no_transaction:
            continue
        verdict = ask(connection, case.sql, transaction=True)
        sent = intent.on_standby is OnStandby.REFUSED
        if sent and not verdict.failed and not case.sql.startswith("DECLARE"):
            wrong.append((case.sql, verdict.message))
        if verdict.refused:
            refused += 1
            if not sent:
                kept.append(case.sql)
    print(f"\nrefused by the standby: {refused}, not known to be: {len(kept)}: {kept}")
    assert not wrong
    assert refused > 60
    assert len(kept) <= refused // 8


def test_a_standby_shows_other_values_of_sequences(
    cluster: Cluster, standby: tuple[Connection, Catalog]
) -> None:
    """What reads a sequence tells something else on a caught-up standby, and is no read; what
    only describes one tells the same, and is a read."""
    primary = cluster.primary
    primary.execute("SELECT nextval('tickets')", dbname=NAME)
    cluster.replicas[0].wait_caught_up()
    same = [
        "SELECT * FROM pg_sequence_parameters('tickets'::regclass)",
        "SELECT * FROM pg_catalog.pg_sequence",
        "SELECT * FROM information_schema.sequences",
        "SELECT relname, relpages, reltuples FROM pg_class WHERE relkind = 'S'",
    ]
    asked = {case.sql for case in STATEMENTS if case.reason in ("is a sequence", "of a sequence")}
    differ = [sql for sql in asked if sql.startswith(("SELECT", "TABLE", "WITH"))]
    assert len(differ) > 20
    for sql in (*same, *differ):
        answers = [s.execute(sql, dbname=NAME) for s in (primary, cluster.replicas[0])]
        assert (answers[0] == answers[1]) is (sql in same), (sql, answers)
        assert classify(sql, standby[1]).kind is (Kind.READ if sql in same else Kind.WRITE)


FORMS = """
SELECT a¦ {} a
SELECT a¦ {}
SELECT¦ {}¦ a
SELECT a¦ IS {}
SELECT a¦ IS NOT {}
SELECT a¦ NOT {} a
SELECT a¦ {} NULL
SELECT a¦ {} TO a
SELECT a¦ {} (a)
SELECT ¦{}(¦a¦)
SELECT 1¦ {} SELECT 1
SELECT 1¦ {} (SELECT 1)
SELECT * FROM a¦ {} a
SELECT * FROM a¦ {} JOIN a
SELECT * FROM ¦{}(¦a¦)
SELECT CASE¦ {} a WHEN b THEN c¦ END
CREATE TABLE t (a int¦ {} a¦)
CREATE FUNCTION f() RETURNS int¦ {} ATOMIC SELECT 1;
¦{} ¦SELECT 1
""".strip().splitlines()


def test_no_word_nests_unseen(
    standby: tuple[Connection, Catalog], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No keyword the server knows makes a tree deeper than the text's tokens were said to."""
    words = [w for (w,) in standby[0].execute("SELECT word FROM pg_get_keywords()").fetchall()]
    parsed = 0
    for form in FORMS:
        head, left, middle, right = (*form.split("¦"), "", "", "")[:4]
        for word in words:
            sql = (head + left * 20 + middle + right * 20).replace("{}", word)
            try:
                tree = pgparse.parse(sql)
            except pgparse.PGQueryError:
                continue
            parsed += 1
            assert tree_depth(tree) <= deepest(said(sql, monkeypatch)), sql
    assert parsed > 500
