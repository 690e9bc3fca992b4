"""What the parser is given: no text ends the process, holds it for long, or slips by as a read."""

import subprocess
import sys
import time
from bisect import bisect_left
from typing import Any

import pgparse  # type: ignore[import-not-found]
import pytest

from router.sql import bounds
from router.sql.catalog import BUILTIN
from router.sql.classifier import Classifier, classify
from router.sql.intent import Kind
from router.sql.shorten import MAX_SHORTENED, shortened
from tests.sql import made
from tests.sql.shapes import FLAT, NESTING, Shape
from tests.sql.statements import CATALOG

STACK = 256 << 10
"""Bytes: a small stack, twice what musl gives a thread by default."""

# What it prints last, should it die, is what it died of.
CHILD = """
import sys, threading
from router.sql.classifier import classify
from tests.sql.shapes import NESTING
from tests.sql.test_bounds import most

def run():
    for shape in NESTING:
        for n in {sizes}:
            print(n, shape, flush=True)
            classify(shape.text(n))
    for text in ("1" + "+1" * 100_000, "1" + " UNION SELECT 1" * 10_000):
        print(text[:20], flush=True)
        classify(f"SELECT {{text}}")
    print("alive", flush=True)

threading.stack_size({stack})
thread = threading.Thread(target=run)
thread.start()
thread.join()
"""


def most(shape: Shape) -> int:
    """How often the parser is given the part repeated, at most."""
    return bisect_left(range(1, 1_000), True, key=lambda n: not _passes(shape.text(n)))


def _passes(sql: str) -> bool:
    try:
        bounds.check(sql)
    except bounds.TooComplex:
        return False
    return True


def _live(sizes: str, stack: int) -> None:
    child = [sys.executable, "-c", CHILD.format(sizes=sizes, stack=stack)]
    ran = subprocess.run(child, capture_output=True, text=True, timeout=120, check=False)
    assert ran.stdout.splitlines()[-1:] == ["alive"], (ran.returncode, ran.stdout[-200:])


def test_no_depth_ends_the_process() -> None:
    """Whatever nests 1,000 or 4,000 levels deep is classified on a stack of 256 kB."""
    _live("(1_000, 4_000)", STACK)


def test_half_the_stack_is_left() -> None:
    """What is deep and is parsed all the same needs no more than half a stack of 256 kB."""
    _live("(most(shape),)", STACK // 2)


@pytest.mark.parametrize("shape", NESTING, ids=str)
def test_depth_is_bounded_from_above(shape: Shape, monkeypatch: pytest.MonkeyPatch) -> None:
    """No statement's tree is deeper than its tokens were said to allow."""
    for n in (1, 2, 5, 40):
        sql = shape.text(n)
        assert tree_depth(pgparse.parse(sql)) <= deepest(said(sql, monkeypatch))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT " + "1+x.and+" * 40 + "1",
        "SELECT " + "1+x . and+" * 40 + "1",
        "SELECT " + "1+x./**/and+" * 40 + "1",
        "SELECT " + "1+x--\n.and+" * 40 + "1",
        "SELECT " + "1 + join(2) + " * 40 + "1",
        "SELECT E'a'\n'\\', '" + " || 1" * 40 + " || E'\\''",
        "SELECT 'a\\'" + " || 1" * 40 + " || 'b'",
        "SELECT a$b$" + " || 1" * 40 + " || a$b$",
        "SELECT /* /* */ ' */ 1" + " || 1" * 40 + " /* ' */",
        'SELECT "a""\'"' + " || 1" * 40 + ' || "b\'"',
        "SELECT $$ ' $$" + " || 1" * 40 + " || $$ ' $$",
        "SELECT 1" + "union SELECT 1" * 40,
        "SELECT CASE WHEN x.end THEN 1 ELSE "
        + "CASE WHEN x.end THEN 1 ELSE " * 40
        + "1"
        + " END" * 41,
    ],
)
def test_no_literal_hides_depth(sql: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What only looks like a literal, a comment or a separator does not hide operators."""
    try:
        depth = tree_depth(pgparse.parse(sql))
    except pgparse.PGQueryError:
        return
    assert depth <= deepest(said(sql, monkeypatch))


def said(sql: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """The depth that `sql` is said to have at most."""
    found: list[int] = []
    with monkeypatch.context() as patched:
        patched.setattr(bounds, "_plain", lambda sql: False)
        patched.setattr(bounds, "_bound", found.append)
        bounds.check(sql)
    return max(found)


def deepest(levels: int) -> int:
    """How deep a tree of dicts and lists may be for a text said to have `levels`."""
    return 24 + 5 * levels


def tree_depth(tree: Any) -> int:
    """How deep a tree of dicts and lists is."""
    depth, level = 0, [tree]
    while level:
        depth += 1
        items = [i for t in level for i in (t.values() if isinstance(t, dict) else t)]
        level = [i for i in items if isinstance(i, dict | list)]
    return depth


# -- what is made of a text that is not parsed ----------------------------------------------------


@pytest.mark.parametrize(
    "shape", [s for s in NESTING if shortened(s.text(700)) == s.text(700)], ids=str
)
def test_what_is_too_deep_is_a_write(shape: Shape) -> None:
    """A text that is not parsed runs on the primary, which says why."""
    intent = classify(shape.text(700), CATALOG)
    assert intent.kind is Kind.WRITE
    assert intent.reason == "not parsed: it nests deeper than 256 levels"


@pytest.mark.parametrize("n", [1, 100, 500])
@pytest.mark.parametrize("shape", FLAT, ids=str)
def test_what_is_flat_stays_a_read(shape: Shape, n: int) -> None:
    """A long list, a long chain of ANDs and a literal of any content are read on a replica."""
    assert classify(shape.text(n), CATALOG).kind is Kind.READ


def test_a_list_of_twenty_thousand() -> None:
    """A list as long as drivers take parameters for is a read, cast or not."""
    for item in ("%s", "%(id_1)s::INTEGER", "$1::INTEGER", "1"):
        sql = f"SELECT * FROM users WHERE id IN ({', '.join([item] * 20_000)})"
        assert classify(sql, CATALOG).kind is Kind.READ


def test_a_large_literal_is_nothing_to_fear() -> None:
    """Megabytes of literal are parsed: they are one token."""
    assert classify(f"SELECT '{'(' * 3_000_000}'", CATALOG).kind is Kind.READ


CHAIN = "1" + " + 1" * 1_000


@pytest.mark.parametrize(
    ("sql", "binds", "ddl"),
    [
        (f"SELECT {CHAIN} FROM users", False, False),
        (f"SELECT {CHAIN} FROM users;\n", False, False),
        (f"INSERT INTO users (id) VALUES ({CHAIN})", False, False),
        (f"SELECT {CHAIN}, peek(1)", False, False),
        (f"SELECT {CHAIN}, pg_advisory_lock(1)", True, False),
        (f"SELECT {CHAIN}, sly_lock(1)", True, False),
        (f"SELECT {CHAIN} FROM locked_users", True, False),
        (f"SELECT set_tenant('a'), {CHAIN}", True, False),
        (f"SELECT make_temp(), {CHAIN}", True, True),
        (f"CREATE TABLE t AS SELECT {CHAIN}", False, True),
        (f"CREATE TEMP TABLE t AS SELECT {CHAIN}", True, True),
        (f"BEGIN; SELECT {CHAIN}", True, False),
        (f"SET a.b = 'c'; SELECT {CHAIN}", True, False),
        (f"SELECT '{'x' * MAX_SHORTENED}'", True, True),
        ("SELECT 1" + ", a" * (bounds.MAX_SCANNED // 3), True, True),
        ("SELECT 1" + ", a" * (bounds.MAX_TOKENS + 1), False, False),
    ],
    ids=lambda v: v[:20] + v[-30:] if isinstance(v, str) else None,
)
def test_words_say_the_rest(sql: str, binds: bool, ddl: bool) -> None:
    """Of a text that is not parsed its words say whether it binds, or may have been DDL."""
    intent = classify(sql, CATALOG)
    assert intent.kind is Kind.WRITE
    assert intent.reason.startswith("not parsed: ")
    assert (intent.binds, intent.ddl, intent.holds) == (binds, ddl, False)


def test_without_a_catalog_it_binds() -> None:
    """Before the catalog is read, nobody knows what a function in such a text leaves behind."""
    assert classify(f"SELECT {CHAIN}, f(1)", BUILTIN).binds


def test_ddl_of_a_later_grammar() -> None:
    """What the grammar does not know may have been DDL of a newer server."""
    assert classify("CREATE SOMETHING NEW").ddl
    assert classify("ALTER TABLE users SOMETHING NEW").ddl
    assert not classify("SELEC 1").ddl


def test_what_the_catalog_holds_is_bounded_too() -> None:
    """Bodies are kept from the parser like statements; what reaches one is a write."""
    deep = "SELECT " + "1+" * 30_000 + "1"
    wide = "SELECT 1 " + "-- x\n" * bounds.MAX_LENGTH
    for text in (deep, wide):
        catalog = made.catalog(
            made.function("public", "f", 0, text),
            made.function("public", "g", 0, f"begin {text}; end", language="plpgsql"),
        )
        assert classify("SELECT f()", catalog).kind is Kind.WRITE
        assert classify("SELECT g()", catalog).kind is (Kind.READ if text is deep else Kind.WRITE)


# -- time -----------------------------------------------------------------------------------------

N = 1_000_000
SLOW = {
    "a list": "SELECT 1 IN (" + "1," * N + "1)",
    "a list that is just parsed": "SELECT 1 IN (" + "1," * (bounds.MAX_TOKENS - 9) + "1)",
    "a chain that is just parsed": "SELECT a" + " AND a=b" * (bounds.MAX_TOKENS // 4 - 9),
    "statements": "SELECT 1;" * (N // 9),
    "ten megabytes": "SELECT '" + "1," * (5 * N) + "'",
    "ten megabytes that do not parse": "SELEC " + "1," * (5 * N),
    "words": "foo " * (N // 4),
    "parentheses": "(" * N,
    "operators": "SELECT " + "+" * N,
    "lines of comment": "-- x\n" * (N // 5) + "SELECT 1",
    "comments": "/**/" * (N // 4) + "SELECT 1",
    "nested comments": "/*" * (N // 2),
    "a comment without an end, not the first": "SELEC /* a */" + " /* b" * 12_000,
    "dollars": "SELECT '%', :a " + "".join(f"$a{i}$ " for i in range(N // 8)),
    "dollars after words": "SELECT '%', :a " + "".join(f"€$a{i}$ " for i in range(50_000)),
    "placeholders that are none": "%( " * (N // 3),
    "a literal without an end": "SELECT '" + "x " * N,
}


@pytest.mark.parametrize("name", SLOW)
def test_no_text_takes_long(name: str) -> None:
    """A text of a megabyte, or of ten, takes two seconds of the processor at most."""
    began = time.process_time()
    intent = classify(SLOW[name], CATALOG)
    assert time.process_time() - began < 4
    assert len(intent.reason) < 300


def test_the_cache_serves_them_too() -> None:
    """A text that was not parsed is not looked at again."""
    classifier = Classifier(CATALOG)
    sql = "SELECT " + "1+" * 100_000 + "1"
    assert classifier(sql) is classifier(sql)
    assert classifier.stats()["misses"] == 1
