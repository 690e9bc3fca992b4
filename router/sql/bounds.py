"""How long and how deep a text may be that the parser is given.

libpg_query, and the decoder of what it returns, call themselves once for each level of a
statement, and nothing stops them at the end of the thread's stack: ``SELECT 1+1+…`` of some length
ends the process with SIGSEGV. So the depth of each text is bounded by its tokens before it is
parsed. The tokens are counted as well, because the parser holds the GIL while it works.
"""

import re
from collections.abc import Mapping
from string import ascii_lowercase

MAX_LENGTH = 4 << 20
"""Characters of a text that is parsed, literals included; a megabyte of literals takes 10 ms."""

MAX_SCANNED = 1 << 16
"""Characters of a text that is searched by words where it is not parsed: 1.5 s per megabyte."""

MAX_TOKENS = 8_192
"""Tokens of a text that is parsed, and its commas, brackets and comments."""

MAX_DEPTH = 256
"""Levels of a text that is parsed, each of at most 310 bytes of stack.

Measured with some eighty shapes of statements on CPython 3.11 to 3.13, x86-64: whatever is let
through fits on a stack of 128 kB, so it takes half of one of 256 kB.
"""

_TOO_MANY = f"it has more than {MAX_TOKENS:,} tokens"


class TooComplex(ValueError):
    """The text is longer, or nests deeper, than what the parser is given."""


_IDENT = r"[A-Za-z_\x80-\U0010ffff][\w$\x80-\U0010ffff]*+"
_ESCAPED = r"'(?:[^'\\]++|\\.|'')*+'"
# What is skipped as a literal or a comment here must be one to PostgreSQL's lexer too.
# Source: https://github.com/postgres/postgres/blob/REL_17_STABLE/src/backend/parser/scan.l
_TOKEN = re.compile(
    rf"""
    \s*+
    (?:
      (?P<plain>
          [eE]{_ESCAPED}  # which may go on after a line's end
          (?: (?:[ \t\f\v]|--[^\n\r]*+)*+ [\n\r] (?:\s++|--[^\n\r]*+[\n\r])*+ {_ESCAPED} )*+
        | '[^']*+(?:''[^']*+)*+'
        | "[^"]*+(?:""[^"]*+)*+"
        | (?: 0[xXoObB][0-9a-fA-F_]++ | (?: [0-9][0-9_]*+ (?:\.[0-9_]*+)?+ | \.[0-9][0-9_]*+ )
              (?:[eE][-+]?+[0-9][0-9_]*+)?+ )
        | \$[0-9]++
        | \.\s*+(?:{_IDENT}|\*)  # no keyword, whatever it is
      )
    | (?P<word> {_IDENT} )
    | (?P<dollar> \$ (?:[A-Za-z_\x80-\U0010ffff][\w\x80-\U0010ffff]*+)?+ \$ )
    | (?P<line> --[^\n\r]*+ )
    | (?P<comment> /\* )
    | (?P<operator>
          % (?:\(\w++\))?+ [sbt] (?![\w$\x80-\U0010ffff])  # a driver's placeholder
        | :: | \|\| | ->>?+ | \#>>?+ | [<>!:]= | <> | => | [-+*/<>=~!@\#%^&|`?:]
      )
    | (?P<mark> [()\[\],;] )
    | (?P<other> . )
    )
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_COMMENT = re.compile(r"/\*[-+*/<>=~!@#%^&|`?]{,4096}|\*/")
"""What opens or ends a comment. The server's lexer reads on through the operator characters that
follow the sign which opens one."""

_BRACKET = 2  # levels that a pair of brackets adds
_BODY = 4  # levels that a function's body of statements adds

_LEVELS: Mapping[str, int] = {
    **dict.fromkeys(("not", "is", "isnull", "notnull", "at", "case"), 2),
    **dict.fromkeys(
        ("collate", "like", "ilike", "similar", "in", "any", "some", "all", "overlaps", "operator",
         "between", "order", "passing", "value"),
        1,
    ),
}  # fmt: skip
"""Words that are operators, or used like one, with the levels each adds at most."""

_QUERY = frozenset({"select", "values", "table", "with"})
_JOINING = frozenset({"join", "union", "intersect", "except"})

# As bytes, which are taken apart in a fifth of the time that a str takes.
_KEYWORDS = frozenset(k.encode() for k in (*_LEVELS, *_QUERY, *_JOINING, "and", "or"))
_OPERATORS = b"-+*/<>=~!@#%^&|`?:"
_LETTERS = bytes(b if chr(b) in ascii_lowercase else ord(" ") for b in range(256))


def _plain(sql: str) -> bool:
    """Whether `sql` has too few operators and brackets to nest deep, wherever they stand."""
    if 2 * len(sql) <= MAX_DEPTH:
        return True
    if len(sql) > MAX_TOKENS:
        return False
    text = sql.lower().encode(errors="surrogatepass")
    if b"atomic" in text:
        return False
    levels = len(text) - len(text.translate(None, _OPERATORS))
    levels += 2 * (text.count(b"(") + text.count(b"["))
    words = sum(map(_KEYWORDS.__contains__, text.translate(_LETTERS).split()))
    return levels + 2 * words <= MAX_DEPTH


def check(sql: str) -> None:
    """Raise where `sql` is too much for the parser.

    The depth is bounded from above. What stands between two commas of the same brackets is as deep
    as its operators are many, plus its deepest brackets; so is what stands between AND and OR,
    since the grammar makes a chain of either one flat list. JOIN and UNION reach across both.

    Raises:
        TooComplex: `sql` is too long, has too many tokens or nests too deep; says which.
    """
    if _plain(sql):
        return
    if len(sql) > MAX_LENGTH:
        raise TooComplex(f"it is longer than {MAX_LENGTH:,} characters")
    tokens = marks = at = bodies = 0
    # Of the brackets the token stands in: the operators since the last separator, the deepest
    # brackets among them, the deepest stretch between separators, what reaches across separators,
    # whether there is a query, and the deepest statement.
    own = inner = best = across = query = done = 0
    # Whether the next AND is a BETWEEN's, and whether AND and OR separate nothing (in a CASE).
    between = whole = False
    outside: list[tuple[int, int, int, int, int, int, bool, bool]] = []
    match = _TOKEN.match
    while (found := match(sql, at)) is not None:
        at = found.end()
        kind = found.lastgroup
        if kind == "mark" or kind == "line" or kind == "comment":
            marks += 1
        else:
            tokens += 1
        if tokens > MAX_TOKENS or marks > MAX_TOKENS:
            raise TooComplex(_TOO_MANY)
        if kind == "mark":
            mark = sql[at - 1]
            if mark == "(" or mark == "[":
                outside.append((own, inner, best, across, query, done, between, whole))
                own = inner = best = across = query = done = 0
                between = whole = False
                continue
            best = max(best, own + inner)
            own = inner = 0
            between = whole = False
            if mark == ",":
                continue
            done = max(done, query + across + best)
            _bound(done + bodies)
            if mark == ";":
                best = across = query = 0
            elif outside:
                depth = done + _BRACKET
                own, inner, best, across, query, done, between, whole = outside.pop()
                inner = max(inner, depth)
            continue
        if kind == "operator":
            own += 1
        elif kind == "word":
            word = found["word"].lower()
            if word == "and" or word == "or":
                if between and word == "and":
                    between = False
                elif whole:
                    own += 1
                else:
                    best = max(best, own + inner)
                    own = inner = 0
            elif word in _LEVELS:
                own += _LEVELS[word]
                between = between or word == "between"
                whole = whole or word == "case"
            elif word in _JOINING:
                across += 1
            elif word in _QUERY:
                query = 1
            elif word == "atomic":
                bodies += _BODY
        elif kind == "comment":
            at, marks = _comment(sql, at - 2, marks)
            if at < 0:
                return  # it has no end, as the parser will say
        elif kind == "dollar":
            tag = found["dollar"]
            end = sql.find(tag, at)
            if end < 0:
                return
            at = end + len(tag)
        elif kind == "other":
            char = sql[at - 1]
            if char in "'\"$":
                return  # a literal without an end
            # A comment may stand between a dot and a name: AND may be the name of a column here.
            whole = whole or char == "."
    _bound(max(done, query + across + max(best, own + inner)) + bodies)


def _comment(sql: str, at: int, marks: int) -> tuple[int, int]:
    """Where the comment that begins at `at` ends, -1 if it does not, and `marks` with its own."""
    nested = 0
    while (edge := _COMMENT.search(sql, at)) is not None:
        at = edge.start() + 2
        nested += 1 if edge[0] != "*/" else -1
        if not nested:
            return at, marks
        marks += len(edge[0])
        if marks > MAX_TOKENS:
            raise TooComplex(_TOO_MANY)
    return -1, marks


def _bound(depth: int) -> None:
    if depth > MAX_DEPTH:
        raise TooComplex(f"it nests deeper than {MAX_DEPTH} levels")
