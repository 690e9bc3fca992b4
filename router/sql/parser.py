"""The way to the parser: placeholders rewritten, and nothing that would end the process."""

import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import pgparse  # type: ignore[import-not-found]  # an extension module without stubs

from router.sql import bounds, placeholders

T = TypeVar("T")

GRAMMAR = 17
"""The version of PostgreSQL whose grammar is known here."""

NotParsed = pgparse.PGQueryError

_LITERAL = re.compile(r"__\[POSTCOMPILE_[^\s\]~]+(?:~~(.*?)~~REPL~~(.*?)~~)?\]")
"""What SQLAlchemy replaces by values just before it is sent: the id of a two-phase commit, or what
``IN`` compares with, each within the expression that its type puts around a value."""


def parse(sql: str) -> list[dict[str, Any]]:
    """The statements of `sql`, with the placeholders of any driver.

    Raises:
        bounds.TooComplex: it is too long or too deep for the parser.
        NotParsed: it does not parse, in any reading.
        ValueError: it has a zero byte in it.
    """
    return _read(sql, tree)


def fingerprint(sql: str) -> str:
    """What texts share that differ from `sql` in comments, spaces, constants and parameters only.

    Raises:
        bounds.TooComplex, NotParsed, ValueError: as `parse`.
    """
    return _read(sql, _fingerprint)


def _read(sql: str, by: Callable[[str], T]) -> T:
    """What `by` makes of `sql` in the first reading that parses."""
    if "\0" in sql:
        raise ValueError(sql)
    if len(sql) > bounds.MAX_TOKENS:
        bounds.check(sql)  # before placeholders are looked for, which takes its time
    try:
        return by(placeholders.percent(sql) or sql)
    except NotParsed as error:
        for again in _variants(sql):
            try:
                return by(again)
            except NotParsed:
                continue
        raise error from None


def _variants(sql: str) -> Iterable[str]:
    """Other readings of a text that does not parse at first."""
    if "%" in sql:
        yield sql
    if "__[POSTCOMPILE_" in sql:
        yield _LITERAL.sub(r"\1'0'\2", sql)
    bare = placeholders.uncommented(sql)
    for text in (sql,) if bare is None else (bare, sql):
        if bare is not None and text is bare:
            yield placeholders.percent(bare) or bare
        for rewrite in (placeholders.percent, placeholders.colon):
            for form in (placeholders.dollars, placeholders.literals, placeholders.lists):
                rewritten = rewrite(text, form)
                if rewritten is not None:
                    yield rewritten


def tree(sql: str) -> list[dict[str, Any]]:
    """Parse `sql`. Only this and `fingerprint` lead to the parser: nothing too deep reaches it.

    Raises:
        bounds.TooComplex: it is too long or too deep for the parser.
        NotParsed: it does not parse.
    """
    bounds.check(sql)
    return pgparse.parse(sql)  # type: ignore[no-any-return]


def _fingerprint(sql: str) -> str:
    bounds.check(sql)
    return pgparse.fingerprint(sql)  # type: ignore[no-any-return]


def message(error: Exception) -> str:
    """What `error`, the parser's, says of a text, in one line."""
    # It quotes the text from where it went wrong, a literal without an end for instance.
    return " ".join(str(error.args[0])[:200].split()) if error.args else "syntax error"
