"""A set_config() whose parameters say what it sets: looked at when they arrive."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.sql.classifier import Classifier, classify
from router.sql.intent import Intent, Kind, OnStandby
from router.sql.settings import boolean

PGHISTORY = (
    "SELECT set_config('pghistory.context_id', %s, %s), "
    "set_config('pghistory.context_metadata', %s, %s)"
)
IS_TRUE: tuple[Any, ...] = (True, "true", "TRUE", "t", "yes", "y", "on", "1", " On ", "tr", 1)
IS_FALSE: tuple[Any, ...] = (False, "false", "F", "no", "n", "off", "OF", "0", 0)


@pytest.fixture
def classifier() -> Classifier:
    return Classifier()


def resolved(classifier: Classifier, sql: str, *sets: Any) -> Intent:
    return classifier.given(sql, classifier(sql), sets)


@pytest.mark.parametrize(
    ("sql", "keys"),
    [
        ("SELECT set_config('a.b', %s, %s)", (1,)),
        ("SELECT set_config(%s, %s, %s)", (0, 2)),
        ("SELECT set_config(%(name)s, %(value)s, %(here)s::bool)", ("name", "here")),
        ("SELECT set_config(%(name)s::VARCHAR, %(name)s, true)", ("name",)),
        ("SELECT set_config('a.b', $2, $1)", (0,)),
        ("SELECT set_config(:name, :value, false)", ("name",)),
        ("SELECT '%%s', set_config('a.b', %s, %s)", (1,)),
        ("SELECT set_config('a.b', 'c', %s); SELECT /* %s */ %s", (0,)),
        (PGHISTORY, (1, 3)),
        ("WITH x AS (SELECT set_config('a.b', 'c', %b)) SELECT * FROM x", (0,)),
        ("SELECT set_config('a.b', %s, true)", ()),
        ("SELECT set_config('a.b', $1, %s)", ()),  # which of the two is the driver's?
        ("SELECT other('a.b', %s, %s)", ()),
        ("SELECT 1", ()),
    ],
)
def test_the_parameters_that_decide_are_known_by_the_text(
    sql: str, keys: tuple[int | str, ...]
) -> None:
    """By position as drivers count, or by name; none where nothing is to be decided."""
    assert set(classify(sql).parameters) == set(keys)


@pytest.mark.parametrize(("values", "local"), [(IS_TRUE, True), (IS_FALSE, False)])
def test_is_local_is_read_as_postgresql_reads_it(
    classifier: Classifier, values: tuple[Any, ...], local: bool
) -> None:
    """With is_local bound, the intent is that of the literal, whatever way it is written."""
    literal = classify(f"SELECT set_config('a.b', 'c', {local})")
    assert literal.kind is Kind.SESSION
    assert literal.local is local
    for value in values:
        assert resolved(classifier, "SELECT set_config('a.b', %s, %s)", ("c", value)) == literal


@pytest.mark.parametrize("value", [None, "maybe", "o", "", object(), 1.0, b"true", [True]])
def test_what_is_no_plain_value_decides_nothing(classifier: Classifier, value: object) -> None:
    """The checkout is bound, as without the parameters."""
    found = resolved(classifier, "SELECT set_config('a.b', %s, %s)", ("c", value))
    assert found.kind is Kind.WRITE
    assert found.binds
    assert found.holds


@pytest.mark.parametrize("parameters", [None, (), {}, ("c",), {"local": True}, 7])
def test_parameters_that_do_not_fit_decide_nothing(
    classifier: Classifier, parameters: object
) -> None:
    """Whatever the driver will say of them, nothing is taken for true."""
    found = resolved(classifier, "SELECT set_config('a.b', %s, %s)", parameters)
    assert found.binds


def test_a_name_that_arrives_is_the_setting(classifier: Classifier) -> None:
    """In lower case, as in the text; one of the transaction's own modes is that."""
    sql = "SELECT set_config(%(n)s, %(v)s, %(l)s)"
    found = resolved(classifier, sql, {"n": "App.Tenant", "v": "7", "l": False})
    assert (found.kind, found.settings, found.local) == (Kind.SESSION, ("app.tenant",), False)
    mode = resolved(classifier, sql, {"n": "transaction_isolation", "v": "x", "l": True})
    assert mode.kind is Kind.TRANSACTION
    level = {"n": "default_transaction_isolation", "v": "serializable", "l": False}
    assert resolved(classifier, sql, level).binds
    unknown = resolved(classifier, sql, {"n": object(), "v": "x", "l": False})
    assert (unknown.kind, unknown.settings) == (Kind.SESSION, None)


@pytest.mark.parametrize(
    ("sql", "parameters"),
    [
        (PGHISTORY, ("1", True, "{}", True)),
        (f"{PGHISTORY}; INSERT INTO pg_class VALUES (%s)", ("1", True, "{}", True, 5)),
        ("INSERT INTO pg_class SELECT set_config('a.b', %s, %s)", ("c", True)),
        ("SELECT set_config('a.b', %s, %s) FROM pg_class", ("c", True)),
        ("COPY (SELECT set_config('a.b', %s, %s)) TO STDOUT", ("c", True)),
    ],
)
def test_a_local_one_binds_nothing_wherever_it_stands(
    classifier: Classifier, sql: str, parameters: tuple[Any, ...]
) -> None:
    """As django-pghistory sends it, before each statement that writes."""
    assert classifier(sql).binds
    assert not resolved(classifier, sql, parameters).binds
    for_good = tuple(False if p is True else p for p in parameters)
    found = resolved(classifier, sql, for_good)
    assert found.binds or found.kind is Kind.SESSION


def test_several_sets_are_one_where_they_do_the_same(classifier: Classifier) -> None:
    """As executemany gives them."""
    sql = "SELECT set_config(%s, %s, %s)"
    both = resolved(classifier, sql, ("a.b", "1", True), ("a.c", "2", True))
    assert (both.kind, both.local, both.settings) == (Kind.SESSION, True, ("a.b", "a.c"))
    assert resolved(classifier, sql, ("a.b", "1", True), ("a.c", "2", False)).binds
    assert resolved(classifier, sql, ("a.b", "1", True), ("a.c", "2", None)).binds
    many = [(f"a.{n}", "1", True) for n in range(1000)]
    assert classifier.given(sql, classifier(sql), many).binds
    assert classifier.given(sql, classifier(sql), []) == classifier(sql)


def test_what_was_asked_before_changes_nothing(classifier: Classifier) -> None:
    """The intent by the text stays what it was, and each set of parameters has its own."""
    sql = "SELECT set_config('a.b', %s, %s)"
    before = classifier(sql)
    for value in (True, False, None, True):
        assert resolved(classifier, sql, ("c", value)) == resolved(Classifier(), sql, ("c", value))
        assert classifier(sql) == before


def test_a_rule_of_the_users_own_has_the_last_word() -> None:
    """What it says is not looked at again when the parameters arrive."""
    sql = "SELECT set_config('a.b', 'c', %s)"
    classifier = Classifier(rule=lambda text: classify(text))
    assert classifier(sql).parameters == ()
    assert Classifier(write_patterns=["set_config"])(sql).parameters == ()


@pytest.mark.parametrize(
    ("value", "computed"),
    [
        ("'c'", False),
        ("%s", False),
        ("%s::text", False),
        ("CAST(%s AS VARCHAR)", False),
        ("7::text", False),
        ("now()::text", True),
        ("'now'::timestamptz::text", True),
        ("current_setting('a.a') || 'b'", True),
        ("version()", True),
    ],
)
def test_a_value_that_is_no_constant_is_computed(value: str, computed: bool) -> None:
    """It is journaled as what it gave."""
    found = classify(f"SELECT set_config('a.b', {value}, false)")
    assert (found.kind, found.computed, found.settings) == (Kind.SESSION, computed, ("a.b",))
    where = classify("SELECT set_config('a.b', 'c', false) WHERE now() > '2020-01-01'")
    assert where.computed


def test_a_computed_value_of_an_unknown_setting_binds() -> None:
    """Nobody can ask what it gave."""
    assert classify("SELECT set_config('a.' || 'b', now()::text, false)").binds
    local = classify("SELECT set_config('a.' || 'b', now()::text, true)")
    assert local.kind is Kind.WRITE
    assert not local.binds
    assert classify("SELECT set_config('a.b', version(), false); RESET ALL").binds


def test_set_from_current_is_computed() -> None:
    """What is current here need not be so on another node."""
    found = classify("SET work_mem FROM CURRENT")
    assert (found.kind, found.computed, found.settings) == (Kind.SESSION, True, ("work_mem",))
    assert not classify("SET work_mem = '5MB'").computed


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE pg_settings SET setting = '5MB' WHERE name = 'work_mem'",
        "UPDATE pg_catalog.pg_settings SET setting = %s WHERE name = %s",
        "WITH x AS (UPDATE pg_settings SET setting = 'a' WHERE name = 'b' RETURNING 1) SELECT 1",
        "EXPLAIN ANALYZE UPDATE pg_settings SET setting = 'a' WHERE name = 'b'",
    ],
)
def test_pg_settings_is_a_way_to_set(sql: str) -> None:
    """An UPDATE of it calls set_config(), which a standby does as well."""
    found = classify(sql)
    assert found.kind is Kind.WRITE
    assert found.binds
    assert found.holds
    assert found.on_standby is OnStandby.ACTS


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE public.pg_settings SET setting = 'a'",
        "UPDATE pg_class SET relname = 'pg_settings'",
        "EXPLAIN UPDATE pg_settings SET setting = 'a'",
    ],
)
def test_another_update_is_none(sql: str) -> None:
    """Nor is one that is only planned."""
    assert not classify(sql).binds


@pytest.mark.parametrize(
    "sql", ["COPY t FROM STDIN WHERE set_config('a.b', 'c', false) = 'c'",
            "COPY (SELECT set_config('a.b', 'c', false)) TO PROGRAM 'cat'",
            "COPY (SELECT set_config('a.b', 'c', false)) TO '/tmp/x'"],
)  # fmt: skip
def test_each_copy_that_sets_binds(sql: str) -> None:
    """Whichever way it goes."""
    assert classify(sql).binds


def test_a_literal_pasted_for_a_parameter_decides_nothing() -> None:
    """Where the grammar takes no parameter, one is parsed as some literal: not as this one."""
    assert classify("SET work_mem = %s; SELECT set_config('a.b', 'c', %s)").binds
    found = classify("SELECT set_config('a.b', 'c', %s) WHERE 1 IN %s")
    assert found.kind is Kind.WRITE
    assert found.binds


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT set_config('a.b', version(), false)",
        "SELECT set_config('a.b', 'c', %s)",
        "SET work_mem = '5MB'",
    ],
)
def test_what_a_replica_refused_still_sets(classifier: Classifier, sql: str) -> None:
    """Known for a write by then, it runs on the primary, where its session is kept."""
    classifier.learn_write(sql, "a replica refused it")
    classifier.learn_write(sql, "a replica refused it again")
    assert (classifier(sql).kind, classifier(sql).binds) == (Kind.WRITE, True)
    local = "SELECT set_config('a.b', version(), true)"
    for text in (local, "SELECT 1"):
        classifier.learn_write(text, "a replica refused it")
        assert not classifier(text).binds


def texts() -> Iterator[str]:
    yield from ("true", "false", "yes", "no", "on", "off", "1", "0", "t", "f")


@given(st.one_of(st.text(max_size=6), st.sampled_from(list(texts()))))
def test_a_boolean_is_never_both(text: str) -> None:
    """Upper case and spaces around it change nothing."""
    assert boolean(text) in (None, True, False)
    if text.isascii():
        assert boolean(f" {text.upper()}\n") == boolean(text)
