"""Long texts made short: what they name stays, what they repeat goes."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.sql import bounds, parser
from router.sql.classifier import classify
from router.sql.intent import Kind
from router.sql.names import Names
from router.sql.shorten import ARGUMENTS, LONG, shortened
from tests.sql.statements import CATALOG, STATEMENTS

CONSTANTS = ["1", "-2", "1.5", ".5", "1e3", "'a'", "''", "'it''s'", "E'a\\'b'", "NULL", "true",
             "%s", "%(a_1)s", "$1", "DEFAULT", "'x'::date", "1::numeric(4,2)", "'[1]'::jsonb[]",
             "N'a, f(), b'", "B'1'", "X'1F'", "0x1F", "1_000", "'--'", "'/*'", "'$a$'", "'(' ",
             "$$a)$$", "$b$', '$b$"]  # fmt: skip
CALLS = ["now()", "peek(1)", "touch('a')", "nextval('s')", "ARRAY[1, 2]", "a.b", 't."c d"', "éa1",
         "(SELECT max(id) FROM users)", "ROW(1, f(2))", "x::citext", "a || b", "a /* c */ + 1",
         "-- d\n 7", "CASE WHEN a THEN 1 END", '"it\'s"', "\"a\"", "a -1", "a - -1", "x.y.z(1)",
         "VARIADIC c", "a @> b", "q(r(s(t(u(1)))))", "a$b$c", "U&'\\0061'", "current_setting('a')",
         "a = 1", "b BETWEEN 1 AND 2", "NOT c", "d IN (1, 2)", "e LIKE 'f' ESCAPE 'g'",
         "pg_catalog.int4(1)", "a1.b2", "'a' 'b'"]  # fmt: skip
members = st.sampled_from(CONSTANTS * 3 + CALLS)
rows = st.lists(members, min_size=1, max_size=4).map(lambda m: f"({', '.join(m)})")
FRAMES = [
    "INSERT INTO t (a) VALUES {}",
    "SELECT * FROM u WHERE a IN ({})",
    "SELECT f({})",
    "SELECT ARRAY[{}]",
    "SELECT {}",
    "VALUES {}",
    "UPDATE t SET a = v.a FROM (VALUES {}) v",
    "SELECT 1 WHERE {}",
    "SELECT 1 FROM t WHERE a = {} ORDER BY 1",
    "SELECT CASE WHEN {} THEN 1 END",
    "SELECT * FROM u WHERE (b = 2 AND (a IN ({}) OR c))",
]


def said(sql: str) -> tuple[object, ...] | None:
    """All that the tree of `sql` names, None where it does not parse."""
    try:
        statements = parser.parse(sql)
    except (parser.NotParsed, bounds.TooComplex):
        return None
    names = Names()
    for node in statements:
        names.walk(node["stmt"])
    calls = {c._replace(n=c.n and min(c.n, ARGUMENTS)) for c in names.calls}  # more are too many
    return (
        calls, set(names.types), set(names.casts), set(names.relations),
        names.operators, names.columns, names.attributes, names.written, names.whole,
        set(names.forms), names.binds, names.holds, names.ddl, bool(names.configs), names.local,
    )  # fmt: skip


@settings(max_examples=400)
@given(
    st.sampled_from(FRAMES),
    st.lists(st.one_of(members, rows), min_size=1, max_size=5),
    st.sampled_from([", ", ",", " OR ", "\n  ,  ", " UNION ALL ", "; ", " and "]),
    st.sampled_from([4_000, 4_000, 40_000]),
    st.integers(0, 2**32),
)
def test_what_is_left_names_the_same(
    frame: str, shapes: list[str], separator: str, size: int, seed: int
) -> None:
    """Whatever a long list holds, in whatever order: if it parses, then the short one does, and
    names the same objects in the same ways."""
    chosen = random.Random(seed).choices(shapes, k=size // min(map(len, shapes)) + 10)
    sql = frame.format(separator.join(chosen))
    whole = said(sql)
    if whole is not None:
        assert said(shortened(sql)) == whole


@settings(max_examples=400)
@given(st.lists(st.sampled_from([*CONSTANTS, *CALLS, *"(),;'\"$[]:%E\\é", "--", "/*", "*/", "\n",
                                 " OR ", "f", "values ", "in ("]), min_size=1, max_size=12),
       st.integers(0, 2**32))  # fmt: skip
def test_no_soup_of_tokens_hides_a_name(tokens: list[str], seed: int) -> None:
    """Nothing that a text names is lost, however its tokens fall together."""
    chosen = random.Random(seed).choices(tokens, k=30)
    sql = "SELECT " + "".join(chosen) + ", ".join(["1"] * 2000)
    whole = said(sql)
    if whole is not None:
        assert said(shortened(sql)) == whole


@pytest.mark.parametrize(
    ("sql", "at_most"),
    [
        ("INSERT INTO t VALUES " + ", ".join(f"({i}, 'n {i}', now())" for i in range(5000)), 80),
        ("SELECT * FROM users WHERE id IN (" + ",".join(map(str, range(300_000))) + ")", 60),
        ("SELECT * FROM users WHERE id IN (" + ", ".join(["%(id_1)s::INT"] * 9000) + ")", 70),
        ("SELECT * FROM users WHERE "
         + " OR ".join(f'("users"."id" = {i} AND "users"."name" = \'{i}\')' for i in range(999)),
         220),
        ("SELECT * FROM users WHERE "
         + " OR ".join(f'"users"."id" = {i} AND "users"."name" = \'{i}\'' for i in range(999)),
         150),
        (";".join(f"UPDATE t SET a = {i}, b = 'x{i}' WHERE id = {i}" for i in range(100)), 160),
        ("SELECT '" + "x" * 100_000 + "'", 20),
        ("SELECT 1 " + "/* a " * 5000 + "*/" * 5000, 20),
    ],
    ids=lambda v: v[:30] if isinstance(v, str) else None,
)  # fmt: skip
def test_what_bulk_statements_become(sql: str, at_most: int) -> None:
    """Rows, lists, chains of ORs, batches, literals and comments are all but left out."""
    assert len(shortened(sql)) <= at_most


def test_the_number_of_arguments_is_kept() -> None:
    """A list that may be a function's arguments stays longer than any function has."""
    sql = f"SELECT f({', '.join(['1'] * LONG)})"
    assert shortened(sql).count(",") == ARGUMENTS


@pytest.mark.parametrize("hidden", ["touch(1)", "pg_advisory_lock(1)", "nextval('tickets')"])
@pytest.mark.parametrize("place", [0, 1, 500, 999, -1])
def test_one_member_decides(hidden: str, place: int) -> None:
    """One call that acts makes a long list a write, wherever it stands in it."""
    members = [f"({i}, 'a')" for i in range(1000)]
    assert classify(f"VALUES {', '.join(members)}", CATALOG).kind is Kind.READ
    members[place] = f"(1, {hidden}::text)"
    assert classify(f"VALUES {', '.join(members)}", CATALOG).kind is Kind.WRITE


def test_a_text_whose_constants_count_stays_whole() -> None:
    """set_config() is known by the name of what it sets, and so are its like."""
    for call in ("set_config('a.b', 'c', false)", "current_setting('in_hot_standby')"):
        sql = "SELECT " + ", ".join([call] * 500)
        assert shortened(sql) == sql


ROWS = ", ".join(f"({i}, 'n{i}')" for i in range(400))
LIST = ", ".join(map(str, range(900)))
COMPANY = {
    "a comment": lambda sql, rows, values: f"/* {values * 3} */ {sql}",
    "rows before it": lambda sql, rows, values: f"INSERT INTO users VALUES {rows}; {sql}",
    "a list beside it": lambda sql, rows, values: f"SELECT 1 WHERE 1 IN ({values}); {sql}",
    "rows around it": lambda sql, rows, values: f"SELECT * FROM (VALUES {rows}) v, ({sql}) q",
}


@pytest.mark.parametrize("company", COMPANY)
def test_a_long_text_does_what_a_short_one_does(company: str) -> None:
    """Each statement of the table, in long company, is what it is in short company."""
    make = COMPANY[company]
    for case in STATEMENTS:
        long = classify(make(case.sql, ROWS, LIST), CATALOG)
        short = classify(make(case.sql, "(1, 'a')", "1"), CATALOG)
        assert replace(long, reason="") == replace(short, reason=""), case.sql
