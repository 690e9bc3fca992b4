"""What a statement does: the table, what never changes it, and what no text can do."""

import threading
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from router.sql.builtins import STABLE, VOLATILE
from router.sql.catalog import BUILTIN, Catalog
from router.sql.classifier import Classifier, classify
from router.sql.functions import HARMLESS, SAFE, UNSAFE
from router.sql.intent import Intent, Kind, OnStandby, Verb
from tests.sql import made
from tests.sql.made import function
from tests.sql.statements import CATALOG, STATEMENTS, Case, rows


@pytest.mark.parametrize("case", STATEMENTS, ids=lambda c: c.sql[:60] or "empty")
def test_table(case: Case) -> None:
    """Each statement of the table has its kind, for the reason given."""
    intent = classify(case.sql, CATALOG)
    assert (intent.kind.name, case.reason in intent.reason) == (case.kind, True), intent


def test_table_is_large_and_has_no_doubles() -> None:
    """The table holds at least 300 different statements."""
    assert len({c.sql for c in STATEMENTS}) == len(STATEMENTS) >= 300


# -- the catalog not loaded -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "SHOW search_path",
        "SELECT pg_catalog.version()",
        "SELECT current_schema(), now()",
        "SELECT relname FROM pg_catalog.pg_class WHERE relname = %(name)s::VARCHAR",
        "SELECT * FROM information_schema.tables",
        "WITH t AS (SELECT 1 AS a) SELECT * FROM t",
        "WITH RECURSIVE t AS (SELECT 1 AS a UNION SELECT a + 1 FROM t) SELECT * FROM t",
        "SELECT 'plain'::regclass",
    ],
)
def test_reads_without_a_catalog(sql: str) -> None:
    """What speaks of PostgreSQL's own objects only is a read before the catalog is loaded."""
    assert classify(sql).kind is Kind.READ


@pytest.mark.parametrize(
    ("around", "kind"),
    [
        ("lower(~~REPL~~)", Kind.READ),
        ("CAST(~~REPL~~ AS TEXT)", Kind.READ),
        ("~~REPL~~ || 'x'", Kind.READ),
        ("'[]' || ~~REPL~~", Kind.READ),
        ("pg_notify('x', ~~REPL~~)", Kind.WRITE),
    ],
)
def test_in_within_an_expression_is_what_that_is(around: str, kind: Kind) -> None:
    """Where SQLAlchemy will write an expression of a type's around each value of an ``IN``, the
    expression is judged, not its placeholder."""
    sql = f"SELECT 1 FROM pg_class WHERE relname IN (__[POSTCOMPILE_re-l_1~~{around}~~])"
    assert classify(sql).kind is kind


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM users",
        "SELECT f(1)",
        "SELECT pg_catalog.f(1)",
        "SELECT 1 === 2",
        "SELECT 'a'::mood",
        "SELECT * FROM tables",
        "WITH t AS (SELECT * FROM t) SELECT * FROM t",
        "SELECT * FROM (WITH t AS (SELECT 1) SELECT * FROM t) x, t",
        "WITH t AS (SELECT 1) SELECT * FROM public.t",
    ],
)
def test_doubts_without_a_catalog(sql: str) -> None:
    """An object of the user's is not known to be harmless before the catalog is loaded."""
    intent = classify(sql, BUILTIN)
    assert intent.kind is Kind.WRITE
    assert "catalog is not loaded" in intent.reason


# -- the fields beside the kind -------------------------------------------------------------------

BINDS = """
CREATE TEMP TABLE t (a int)
CREATE TEMPORARY TABLE t AS SELECT 1
CREATE TEMP VIEW v AS SELECT 1
CREATE TEMP SEQUENCE s
SELECT 1 AS a INTO TEMP t
CREATE TABLE pg_temp.t (a int)
PREPARE p AS SELECT 1
EXECUTE p
LISTEN a
LOAD 'x'
DECLARE c CURSOR WITH HOLD FOR SELECT 1
SELECT pg_advisory_lock(1)
SELECT pg_try_advisory_lock(1)
SELECT pg_advisory_lock_shared(1)
INSERT INTO users (id) SELECT id FROM users WHERE pg_try_advisory_lock(1)
SELECT * FROM locked_users
SELECT outer_sly(1)
SELECT nextval('tickets'), pg_advisory_lock(1)
SELECT make_temp()
SELECT set_tenant('a')
INSERT INTO users (name) VALUES (set_tenant('a'))
CALL set_tenant('a')
CALL unheard_of()
SELECT unheard_of()
DO $$begin create temp table x (a int); end$$
DO $$begin perform set_config('a.b', 'c', false); end$$
DO $$begin set search_path = x; end$$
DO $$begin execute whatever; end$$
SELECT dynamic('create temp table x (a int)')
SELECT dblink_connect('x')
SELECT set_config('a.b', 'c', false), nextval('tickets')
SELECT set_config('a.b', name, false) FROM users
SELECT set_config('a.b', 'c', %s)
BEGIN; SELECT 1
SET a.b = 'c'; SELECT 1
SET a.b = c d
SET search_path = pg_temp
SET default_transaction_isolation = serializable
"""
FREE = """
SELECT 1
INSERT INTO users (id) VALUES (1)
SELECT pg_advisory_xact_lock(1)
SELECT pg_try_advisory_xact_lock_shared(1)
SELECT nextval('tickets')
CREATE TABLE t (a int)
CREATE VIEW v AS SELECT 1
SELECT touch(1)
DEALLOCATE ALL
SELECT set_config('a.b', 'c', true), nextval('tickets')
SELECT set_config('a.b', name, true) FROM users
SET LOCAL a.b = 'c'; SELECT 1
SET a.b = 'c'
DECLARE c CURSOR FOR SELECT 1
DO $$begin update users set name = 'x'; end$$
NOTIFY a
SELEC 1
"""


@pytest.mark.parametrize("sql", BINDS.strip().splitlines())
def test_binds(sql: str) -> None:
    """What leaves something in its server session, beyond the journal's sight, binds to it."""
    assert classify(sql, CATALOG).binds
    assert classify(sql, CATALOG).kind is Kind.WRITE


@pytest.mark.parametrize("sql", FREE.strip().splitlines())
def test_does_not_bind(sql: str) -> None:
    """What leaves nothing in its session, or what the journal follows, does not bind."""
    assert not classify(sql, CATALOG).binds


@pytest.mark.parametrize(
    ("sql", "local", "settings"),
    [
        ("SET search_path = a", False, ("search_path",)),
        ("SET Search_Path = a", False, ("search_path",)),
        ("SET LOCAL app.tenant = 'x'", True, ("app.tenant",)),
        ("SET TIME ZONE 'UTC'", False, ("timezone",)),
        ("SET NAMES 'utf8'", False, ("client_encoding",)),
        ("SET ROLE a", False, ("role",)),
        ("SET LOCAL ROLE a", True, ("role",)),
        ("RESET ROLE", False, ("role",)),
        ("SET SESSION AUTHORIZATION a", False, ("session_authorization",)),
        ("RESET ALL", False, None),
        ("DISCARD ALL", False, None),
        ("DISCARD PLANS", False, ()),
        ("SET CONSTRAINTS ALL DEFERRED", True, ()),
        ("SET a.b = 1; SET c.d = 2; SET a.b = 3", False, ("a.b", "c.d")),
        ("SET a.b = 1; RESET ALL", False, None),
        ("SELECT set_config('A.b', 'x', true)", True, ("a.b",)),
        ("SELECT set_config('a.b', %s, false)", False, ("a.b",)),
        ("SELECT set_config(%s, %s, false)", False, None),
        ("SELECT set_config('a.b', 'x', true), set_config('c.d', 'y', true)", True,
         ("a.b", "c.d")),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", False,
         ("default_transaction_read_only",)),
    ],
)  # fmt: skip
def test_session(sql: str, local: bool, settings: tuple[str, ...] | None) -> None:
    """Session statements say which settings they change and for how long."""
    intent = classify(sql, CATALOG)
    assert (intent.kind, intent.local, intent.settings) == (Kind.SESSION, local, settings)


@pytest.mark.parametrize(
    ("sql", "verb", "read_only", "isolation"),
    [
        ("BEGIN", Verb.BEGIN, None, None),
        ("START TRANSACTION", Verb.BEGIN, None, None),
        ("BEGIN READ ONLY", Verb.BEGIN, True, None),
        ("BEGIN READ WRITE", Verb.BEGIN, False, None),
        ("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY", Verb.BEGIN, True,
         "REPEATABLE READ"),
        ("START TRANSACTION ISOLATION LEVEL SERIALIZABLE", Verb.BEGIN, None, "SERIALIZABLE"),
        ("SET TRANSACTION READ ONLY", Verb.SET, True, None),
        ("SET TRANSACTION ISOLATION LEVEL READ COMMITTED", Verb.SET, None, "READ COMMITTED"),
        ("SET transaction_read_only = on", Verb.SET, True, None),
        ("SET transaction_read_only = off", Verb.SET, False, None),
        ("SET LOCAL transaction_isolation = 'serializable'", Verb.SET, None, "SERIALIZABLE"),
        ("COMMIT", Verb.COMMIT, None, None),
        ("END", Verb.COMMIT, None, None),
        ("ABORT", Verb.ROLLBACK, None, None),
        ("SAVEPOINT a", Verb.SAVEPOINT, None, None),
        ("RELEASE a", Verb.RELEASE, None, None),
        ("ROLLBACK TO a", Verb.ROLLBACK_TO, None, None),
        ("PREPARE TRANSACTION 'a'", Verb.PREPARE, None, None),
        ("COMMIT PREPARED 'a'", Verb.COMMIT_PREPARED, None, None),
        ("ROLLBACK PREPARED 'a'", Verb.ROLLBACK_PREPARED, None, None),
    ],
)  # fmt: skip
def test_transaction(sql: str, verb: Verb, read_only: bool | None, isolation: str | None) -> None:
    """Transaction control says its verb and the modes it declares."""
    intent = classify(sql)
    assert (intent.kind, intent.verb) == (Kind.TRANSACTION, verb)
    assert (intent.read_only, intent.isolation) == (read_only, isolation)


@pytest.mark.parametrize(
    ("sql", "field"),
    [
        ("CREATE TABLE t (a int)", "ddl"),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'select 1'", "ddl"),
        ("ALTER TABLE users SET UNLOGGED", "ddl"),
        ("DROP VIEW v", "ddl"),
        ("CREATE TABLE t AS SELECT 1", "ddl"),
        ("SELECT 1 INTO t", "ddl"),
        ("CREATE EXTENSION hstore", "ddl"),
        ("SELECT 1; DROP VIEW v", "ddl"),
        ("DO $$begin create table x (a int); end$$", "ddl"),
        ("CALL make_temp()", "ddl"),
        ("SELECT make_temp()", "ddl"),
        ("VACUUM", "no_transaction"),
        ("CREATE DATABASE d", "no_transaction"),
        ("DROP DATABASE d", "no_transaction"),
        ("CREATE INDEX CONCURRENTLY i ON users (id)", "no_transaction"),
        ("DROP INDEX CONCURRENTLY i", "no_transaction"),
        ("REINDEX (CONCURRENTLY) TABLE users", "no_transaction"),
        ("REINDEX TABLE CONCURRENTLY users", "no_transaction"),
        ("REINDEX DATABASE d", "no_transaction"),
        ("ALTER SYSTEM SET a = 'b'", "no_transaction"),
        ("COMMIT PREPARED 'a'", "no_transaction"),
        ("DISCARD ALL", "no_transaction"),
        ("DECLARE c CURSOR FOR SELECT 1", "needs_transaction"),
        ("FETCH 1 FROM c", "needs_transaction"),
        ("CLOSE c", "needs_transaction"),
        ("SET LOCAL a.b = 'c'", "needs_transaction"),
    ],
)
def test_marks(sql: str, field: str) -> None:
    """A statement that needs or must not have a transaction block, or is DDL, says so."""
    assert getattr(classify(sql, CATALOG), field) is True


@pytest.mark.parametrize(
    "sql", ["INSERT INTO users VALUES (1)", "ANALYZE users", "REINDEX TABLE users", "SELECT 1"]
)
def test_unmarked(sql: str) -> None:
    """Data changes and plain maintenance are no DDL and run in any transaction."""
    intent = classify(sql, CATALOG)
    assert not any((intent.ddl, intent.no_transaction, intent.needs_transaction))


# -- the tables of functions ----------------------------------------------------------------------


def test_every_volatile_builtin_is_judged() -> None:
    """Each volatile function PostgreSQL brings is in exactly one table, with a reason."""
    assert set(HARMLESS).isdisjoint(UNSAFE)
    assert set(HARMLESS) | set(UNSAFE) >= VOLATILE
    assert all(HARMLESS.values())
    assert all(UNSAFE.values())


def test_safe_functions_are_builtins_without_the_unsafe() -> None:
    """Safe is what PostgreSQL calls stable or this house calls harmless, and nothing else."""
    assert SAFE.isdisjoint(UNSAFE)
    assert SAFE <= STABLE | VOLATILE


@pytest.mark.parametrize("name", sorted(UNSAFE))
def test_unsafe_function(name: str) -> None:
    """A call of an unsafe built-in is a write, qualified or not."""
    if name == "set_config":
        return
    assert classify(f'SELECT "{name}"(1)').kind is Kind.WRITE
    assert classify(f'SELECT pg_catalog."{name}"(1)').kind is Kind.WRITE
    assert classify(f'SELECT (SELECT 1)."{name}"').kind is Kind.WRITE


# -- overloads, schemas, shadows ------------------------------------------------------------------


ACTS = "select nextval('tickets')::int"


def test_a_users_overload_of_a_builtin_name_counts() -> None:
    """A function of the user's that acts, with a built-in's name, makes its calls writes."""
    catalog = made.catalog(function("public", "lower", 1, ACTS, volatile=True))
    assert classify("SELECT lower('A')", catalog).kind is Kind.WRITE
    assert classify("SELECT pg_catalog.lower('A')", catalog).kind is Kind.READ
    assert classify("SELECT other.lower('A')", catalog).kind is Kind.WRITE


def test_an_overload_with_other_arguments_does_not_count() -> None:
    """An overload that cannot take the arguments given is not what is called."""
    catalog = made.catalog(function("public", "lower", 3, ACTS, volatile=True))
    assert classify("SELECT lower('A')", catalog).kind is Kind.READ
    assert classify("SELECT lower('A', 1, 2)", catalog).kind is Kind.WRITE


def test_the_same_name_in_another_schema_counts_unqualified() -> None:
    """Any schema may come first in search_path, so all of them count."""
    catalog = made.catalog(function("a", "f"), function("b", "f", 0, ACTS))
    assert classify("SELECT f()", catalog).kind is Kind.WRITE
    assert classify("SELECT b.f()", catalog).kind is Kind.WRITE
    assert classify("SELECT a.f()", catalog).kind is Kind.READ


@pytest.mark.parametrize("language", ["plpython3u", "plperl", "pltclu", "plv8"])
def test_other_languages_may_do_anything(language: str) -> None:
    """A body that cannot be read is not trusted, whatever the function was declared."""
    catalog = made.catalog(function("public", "f", 0, "return 1", language=language))
    intent = classify("SELECT f()", catalog)
    assert intent.kind is Kind.WRITE
    assert language in intent.reason


def test_an_alias_of_an_internal_function_is_that_function() -> None:
    """LANGUAGE internal gives a built-in another name, not another effect."""
    lock = next(oid for oid, name, _ in rows()["builtins"] if name == "pg_advisory_lock")
    lower = 870
    for twins, kind in (([lower], Kind.READ), ([lock], Kind.WRITE), ([], Kind.WRITE)):
        catalog = made.catalog(function("public", "f", 1, "", language="internal", twins=twins))
        assert classify("SELECT f(1)", catalog).kind is kind


def test_recursive_functions_end() -> None:
    """Functions that call each other are judged together, once."""
    for lock, kind in (("1", Kind.READ), ("pg_advisory_lock(1)", Kind.WRITE)):
        catalog = made.catalog(
            function("p", "f", 0, "select g()"),
            function("p", "g", 0, f"select f() from (select {lock}) x"),
        )
        assert classify("SELECT f()", catalog).kind is kind
        assert classify("SELECT g()", catalog).kind is kind


# -- what never changes an intent -----------------------------------------------------------------

_NOISE = st.sampled_from(
    [" ", "\n", "\t", "  ", " /* x */ ", " /* a /* b */ c */ ", " -- y\n", "\r\n", " /*;*/ "]
)
_PLAIN = [
    c
    for c in STATEMENTS
    if not any(mark in c.sql for mark in ("'", '"', "$$", "--", "/*", "$x$", "@@", "%", ":", "="))
    and c.reason != "does not parse"
]


def _same(a: Intent, b: Intent) -> bool:
    return replace(a, reason="") == replace(b, reason="")


@given(st.sampled_from(_PLAIN), st.lists(_NOISE, min_size=1, max_size=6), st.randoms())
def test_whitespace_comments_and_case_change_nothing(
    case: Case, noise: list[str], random: "object"
) -> None:
    """Comments and whitespace between words, and the case of letters, never change an intent."""
    words = case.sql.split()
    swap = [str.upper, str.lower, str.swapcase]
    changed = noise[0] + "".join(
        swap[i % 3](word) + noise[i % len(noise)] for i, word in enumerate(words)
    )
    assert _same(classify(changed, CATALOG), classify(case.sql, CATALOG))


@given(st.sampled_from([c for c in STATEMENTS if c.sql[:6].upper() in ("SELECT", "VALUES")]),
       st.integers(1, 5))  # fmt: skip
def test_parentheses_change_nothing(case: Case, depth: int) -> None:
    """Parentheses around a query never change its intent."""
    before = classify(case.sql, CATALOG)
    wrapped = classify("(" * depth + case.sql.rstrip("; ") + "\n" + ")" * depth, CATALOG)
    if ";" in case.sql.rstrip("; ") or "does not parse" in wrapped.reason:
        assert wrapped.kind is Kind.WRITE
    else:
        assert _same(before, wrapped)


_WHOLE = st.sampled_from([c for c in STATEMENTS if c.reason != "does not parse"])


@given(_WHOLE, _WHOLE)
def test_a_string_of_two_is_no_weaker_than_either(a: Case, b: Case) -> None:
    """Two statements in one string are a read only if both are."""
    first, second = classify(a.sql, CATALOG), classify(b.sql, CATALOG)
    both = classify(f"{a.sql}\n;{b.sql}", CATALOG)
    if both.kind is Kind.READ:
        assert first.kind is second.kind is Kind.READ
    if first.ddl or second.ddl:
        assert both.ddl or "does not parse" in both.reason


# -- what no text can do --------------------------------------------------------------------------

_PIECES = st.sampled_from(
    [
        "SELECT",
        "FROM",
        "WHERE",
        "(",
        ")",
        ";",
        ",",
        "*",
        "users",
        "1",
        "'a'",
        '"',
        "'",
        "$$",
        "$1",
        "%s",
        "%(a)s",
        ":x",
        "::",
        "--",
        "/*",
        "*/",
        "FOR",
        "UPDATE",
        "WITH",
        "AS",
        "INSERT",
        "INTO",
        "SET",
        "LOCAL",
        "nextval('tickets')",
        "[",
        "]",
        ".",
        "=",
        "%",
        "%%",
        "E'",
        "\\",
        "$a$",
        "\n",
        "\x00",
        "é",
        "☃",
        "||",
        "?",
        "?|",
        "BEGIN",
    ]
)


@given(st.one_of(st.text(max_size=200), st.lists(_PIECES, max_size=30).map(" ".join)))
@example("\0")
@example("SELECT '\ud800'")
@example("SELECT " + "(" * 20_000)
@example("SELECT 1" + "+1" * 5_000)
@example("SELECT * FROM " + "(SELECT * FROM " * 900 + "users" + ") x" * 900)
@example("/*" * 5_000)
@example("$$" + "'" * 1001)
@example("%(" * 2_000)
@example("SELECT 1\0; DELETE FROM users")
def test_any_text(sql: str) -> None:
    """No text raises, and none that PostgreSQL's grammar refuses is a read."""
    intent = classify(sql, CATALOG)
    assert isinstance(intent, Intent)
    assert intent.reason
    if "\0" in sql or "does not parse" in intent.reason:
        assert intent.kind is Kind.WRITE


# -- the classifier -------------------------------------------------------------------------------


def test_remembers_by_text() -> None:
    """A text is judged once."""
    classifier = Classifier(CATALOG)
    first = classifier("SELECT * FROM users")
    assert classifier("SELECT * FROM users") is first
    assert (len(classifier), classifier.stats()["misses"]) == (1, 1)


def test_is_bounded() -> None:
    """No more texts are kept than asked for, and the newest is among them."""
    classifier = Classifier(CATALOG, max_entries=20)
    for i in range(100):
        classifier(f"SELECT {i}")
        classifier.learn_write(f"SELECT -{i}", "refused")
        assert len(classifier) <= 20
    assert classifier("SELECT -99").kind is Kind.WRITE


def test_learns_writes() -> None:
    """A text a replica refused is a write from then on, whatever the catalog says later."""
    classifier = Classifier(CATALOG)
    assert classifier("SELECT 1").kind is Kind.READ
    classifier.learn_write("SELECT 1", "a replica refused it (25006)")
    assert classifier("SELECT 1") == Intent(
        Kind.WRITE, "a replica refused it (25006)", on_standby=OnStandby.REFUSED
    )
    classifier.replace_catalog(BUILTIN)
    assert classifier("SELECT 1").kind is Kind.WRITE


def test_a_new_catalog_is_a_new_judgement() -> None:
    """What was judged by the old catalog is forgotten."""
    classifier = Classifier()
    assert classifier("SELECT * FROM users").kind is Kind.WRITE
    classifier.replace_catalog(CATALOG)
    assert classifier("SELECT * FROM users").kind is Kind.READ
    classifier.replace_catalog(BUILTIN)
    assert classifier("SELECT * FROM users").kind is Kind.WRITE


def test_users_functions() -> None:
    """read_functions and write_functions override what the catalog says, by either name."""
    read = ["touch", "audit.log", "Dynamic", "sly_lock"]
    write = ["add_one", "public.peek", "lower"]
    classifier = Classifier(
        Catalog.from_rows(rows(), read=read, write=write),
        read_functions=read,
        write_functions=write,
    )
    for sql in ("touch(1)", "public.touch(1)", "audit.log('a')", "dynamic('x')", "sly_lock(1)",
                "outer_sly(1)"):  # fmt: skip
        assert classifier(f"SELECT {sql}").kind is Kind.READ, sql
    for sql in ("add_one(1)", "peek(1)", "public.peek(1)", "lower('A')", "pg_catalog.lower('A')"):
        intent = classifier(f"SELECT {sql}")
        assert intent.kind is Kind.WRITE, sql
        assert "write_functions" in intent.reason
    assert classifier("SELECT log('a'::text)").kind is Kind.READ


def test_users_patterns_and_rule() -> None:
    """write_patterns come first, then read_patterns, then the rule, then the grammar."""
    classifier = Classifier(
        CATALOG,
        read_patterns=[r"(?i)^select .* -- replica$"],
        write_patterns=["primary"],
        rule=lambda sql: Kind.WRITE if "rule" in sql else None,
    )
    assert classifier("SELECT nextval('tickets') -- replica").kind is Kind.READ
    assert classifier("SELECT 'primary' -- replica").kind is Kind.WRITE
    assert classifier("SELECT 'rule' -- replica").kind is Kind.READ
    assert classifier("SELECT 'rule'").reason == "the rule given by the user"
    assert classifier("SELECT 1").kind is Kind.READ


def test_threads_share_it() -> None:
    """Many threads over few entries: each answer is right, and the bound holds."""
    classifier = Classifier(CATALOG, max_entries=50)
    wrong: list[str] = []

    def work(seed: int) -> None:
        for i in range(300):
            case = STATEMENTS[(i * seed) % len(STATEMENTS)]
            if classifier(case.sql).kind.name != case.kind:
                wrong.append(case.sql)
            if i % 50 == 0:
                classifier.replace_catalog(CATALOG)

    threads = [threading.Thread(target=work, args=(n,)) for n in (1, 3, 7, 11)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(classifier) <= 50
