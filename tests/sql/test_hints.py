"""What a comment of a statement says of where it is to run."""

import pytest

from router.explain import explain
from router.sql.classifier import Classifier, classify
from router.sql.intent import Kind
from tests.sql.statements import CATALOG


@pytest.mark.parametrize(
    ("sql", "hint"),
    [
        ("/* router: primary */ SELECT 1", "primary"),
        ("SELECT /* router: replica */ 1", "replica"),
        ("SELECT 1 /*router:primary*/", "primary"),
        ("SELECT 1 /* Router :  PRIMARY */ -- x", "primary"),
        ("-- x\nSELECT 1 /* other */ /* router: primary */", "primary"),
        ("SELECT 1 /* router: replica */ /* router: primary */", "primary"),
        ("SELECT 1 /* router: replica */ WHERE %(a)s = 1", "replica"),
        ("SELECT '/* router: primary */'", None),
        ('SELECT 1 AS "/* router: primary */"', None),
        ("SELECT $$ /* router: primary */ $$", None),
        ("SELECT E'\\' /* router: primary */'", None),
        ("SELECT 1 -- /* router: primary */", None),
        ("SELECT 1 /* /* router: primary */ */", None),
        ("SELECT 1 /* use router: primary */", None),
        ("SELECT 1 /* router: primary, or not */", None),
        ("SELECT 1 /* router: primary", None),
        ("SELECT 1 /* router: primry */", None),
    ],
)
def test_only_a_comment_of_its_own_is_a_hint(sql: str, hint: str | None) -> None:
    """A hint is a comment that says nothing else, outside of literals, names and other comments;
    the primary wins over a replica."""
    assert classify(sql).hint == hint


@pytest.mark.parametrize(
    "sql", ["INSERT INTO users VALUES (1)", "SELECT touch(1)", "SELECT 1 FOR UPDATE", "SELEC 1",
            "CALL p()", "BEGIN", "SET a.b = 'c'"],
)  # fmt: skip
def test_a_hint_makes_no_read(sql: str) -> None:
    """What is no read is not sent to a replica by a hint, and not refused for it."""
    without = classify(sql, CATALOG)
    assert without.kind is not Kind.READ
    assert classify(f"/* router: replica */ {sql}", CATALOG) == without


def test_an_option_turns_them_off() -> None:
    """Where texts have comments of others, none of them says anything."""
    sql = "SELECT 1 /* router: primary */"
    assert Classifier(CATALOG)(sql).hint == "primary"
    assert Classifier(CATALOG, hints=False)(sql).hint is None


def test_a_long_text_keeps_its_hint() -> None:
    """A comment that is left out before the text is parsed was read before."""
    rows = ", ".join(f"({i})" for i in range(9_999))
    assert classify(f"VALUES {rows} /* router: primary */").hint == "primary"


def test_explain_shows_what_is_no_hint() -> None:
    """A hint is told, and so is one that says nothing known."""
    assert "a hint in it asks for the primary" in str(explain("SELECT 1 /* router: primary */"))
    assert "no hint: 'primry'" in str(explain("SELECT 1 /* router: primry */"))
