"""The text of what a driver is given to execute."""

from dataclasses import dataclass
from typing import Any

import pytest
from psycopg import sql
from psycopg2 import sql as sql2  # type: ignore[import-untyped]

from router.checkout.text import text_of


@dataclass
class Value:
    """An Interpolation of Python 3.14's template strings."""

    value: Any
    format_spec: str = ""


class Template(tuple[Any, ...]):
    """A Template of Python 3.14: iterating over it gives its strings and Interpolations."""

    interpolations = ()


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("SELECT 0", "SELECT 0"),
        (b"SELECT 1", "SELECT 1"),
        (b"SELECT '\xff'", "SELECT '\ufffd'"),
        (sql.SQL("SELECT {}").format(sql.Identifier("a b")), 'SELECT "a b"'),
        (sql.SQL("SELECT {}").format(sql.Literal(7)), "SELECT 7"),
        (sql2.SQL("SELECT 2"), "SELECT 2"),
        (sql2.SQL("SELECT {}").format(sql2.Identifier("a")), None),
        (Template(("SELECT ", Value(7), " WHERE ", Value(8, "s"))), "SELECT %s WHERE %s"),
        (Template(("SELECT ", Value('a"b', "i"))), 'SELECT "a""b"'),
        (Template(("SELECT ", Value("it's", "l"))), "SELECT 'it''s'"),
        (Template(("SELECT ", Value(sql.Identifier("a")), Value(Template((", 1",))))),
         'SELECT "a", 1'),
        (Template(("SELECT ", Value(object(), "l"))), None),
        (object(), None),
    ],
)  # fmt: skip
def test_of_every_form(query: Any, text: str | None) -> None:
    """A str, bytes, what composes SQL and templates are known; what needs a connection is not."""
    assert text_of(query) == text
