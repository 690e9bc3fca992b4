"""What the words of a text say, where the grammar cannot: a body in PL/pgSQL, a text that is not
parsed."""

import re

from router.sql import bounds, functions

WORD = re.compile(
    r"""--[^\n]*|/\*.*?\*/|[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'"""
    r"""|"(?P<quoted>(?:[^"]|"")*)"|(?P<word>[^\W\d][\w$]*)|(?P<op>[-+*/<>=~!@#%^&|`?]+)""",
    re.DOTALL,
)
SETS = re.compile(
    r"(?:^|;|\b(?:begin|then|else|loop))\s*set\s+(?!local\b|constraints\b)", re.IGNORECASE
)

# Found in string literals too, for they may be dynamic SQL.
DEFINES = re.compile(r"\b(?:create|alter|drop)\b", re.IGNORECASE)

SESSION_WORDS = frozenset({"temp", "temporary", "listen", "prepare", "load", "discard"})
CALLED = re.compile(r"\s*\(")  # what follows the name of a function that is called


def mentions_session(sql: str) -> bool:
    """Whether `sql`, which the grammar refuses, may leave something behind in its session."""
    if len(sql) > bounds.MAX_SCANNED or SETS.search(sql):
        return True
    return any(
        word in SESSION_WORDS or functions.binds(word)
        for word in (m["word"].lower() for m in WORD.finditer(ended(sql)) if m["word"])
    )


def ended(source: str) -> str:
    """`source` without the signs of comments that do not end, each of which `WORD` would follow
    to the end of the text."""
    last = source.rfind("*/") + 2 if "*/" in source else 0
    return source[:last] + source[last:].replace("/*", "  ")
