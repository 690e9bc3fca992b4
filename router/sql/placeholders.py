"""Driver placeholders as the grammar knows them: `%s`, `%(x)s` and `:x` become `$n`.

Only outside literals, quoted identifiers and comments. What a placeholder stands for can never
be more than a value, so the rewriting cannot hide a call.
"""

import re
from collections.abc import Callable, Iterator

PASTED = "0"
"""The literal that stands for a parameter where the grammar takes none."""

_SKIP = r"""
    [^'"$%:/-]*+
    (?:
        '(?: (?<=[eE]')(?<![\w$][eE]') (?:[^'\\]|\\.|'')* | (?:[^']|'')* )'
      | "[^"]*"
      | (?P<line> --[^\n\r]*)
      | (?P<dollar> \$(?<![\w$]\$)(?:[^\W\d]\w*)?\$)
      | (?P<comment> /\*)
"""
# A name holds no parenthesis, quote or comment: it cannot swallow a call.
_PERCENT = re.compile(
    _SKIP
    + r"""
      | (?P<escape> %%)
      | (?P<mark> % (?: \( (?:[^()'"$;/*\n\r-]|-(?!-))* \) )? [sbt] (?!\w))
      | [$%:/-]
    )""",
    re.VERBOSE | re.DOTALL,
)
_COLON = re.compile(
    _SKIP
    + r"""
      | (?P<escape> ::)
      | (?P<mark> (?<![\w:$]) : [^\W\d]\w*)
      | [$%:/-]
    )""",
    re.VERBOSE | re.DOTALL,
)
_COMMENT = re.compile(r"/\*|\*/")


def dollars(n: int) -> str:
    """The parameter number `n`, where an expression may stand."""
    return f" ${n} "


def literals(n: int) -> str:
    """Some value for parameter `n`, where the grammar takes no parameter (``SET x = %s``)."""
    return f" '{PASTED}' "


def lists(n: int) -> str:
    """Some tuple for parameter `n`, as some drivers paste it (``IN %s``)."""
    return f" ('{PASTED}') "


def percent(sql: str, form: Callable[[int], str] = dollars) -> str | None:
    """`sql` with psycopg's placeholders rewritten by `form`; None when it has none."""
    return _rewrite(sql, _PERCENT, form, "%") if "%" in sql else None


def colon(sql: str, form: Callable[[int], str] = dollars) -> str | None:
    """`sql` with SQLAlchemy's ``:name`` rewritten by `form`; None when it has none."""
    return _rewrite(sql, _COLON, form, "::") if ":" in sql else None


def _rewrite(
    sql: str, pattern: re.Pattern[str], form: Callable[[int], str], escaped: str
) -> str | None:
    out: list[str] = []
    copied = count = 0
    changed = False
    for match in _found(sql, pattern):
        kind = match.lastgroup or ""
        out.append(sql[copied : match.start(kind)])
        if kind == "mark":
            count += 1
            out.append(form(count))
            changed = True
        else:
            out.append(escaped)
            changed = changed or escaped == "%"
        copied = match.end()
    return "".join([*out, sql[copied:]]) if changed else None


def keys(sql: str, *, colon: bool = False) -> tuple[int | str, ...]:
    """Where a driver finds the parameters of `sql`: for each placeholder in turn its name, or its
    position among those without one. They are psycopg's, or with `colon` ``:name``."""
    found: list[int | str] = []
    position = 0
    for match in _found(sql, _COLON if colon else _PERCENT):
        mark = match.group("mark")
        if mark is None:
            continue
        name = mark[1:] if colon else mark[2 : mark.rindex(")")] if mark[1] == "(" else None
        if name is None:
            found.append(position)
            position += 1
        else:
            found.append(name)
    return tuple(found)


def _found(sql: str, pattern: re.Pattern[str]) -> Iterator[re.Match[str]]:
    """Each placeholder and each escape of one that `pattern` finds outside of literals, quoted
    identifiers and comments."""
    at = 0
    while (match := pattern.match(sql, at)) is not None:
        kind = match.lastgroup
        at = match.end()
        if kind == "comment" or kind == "dollar":
            comment = kind == "comment"
            at = comment_end(sql, at) if comment else _quote_end(sql, match["dollar"], at)
            if at < 0:
                return
        elif kind == "mark" or kind == "escape":
            yield match


def uncommented(sql: str) -> str | None:
    """`sql` with a space for each comment; None when it has none, or one without an end.

    libpg_query does not look past a comment where PostgreSQL's own lexer looks ahead
    (``NULLS /* x */ LAST``).
    """
    out: list[str] = []
    copied = 0
    for begin, end in comments(sql):
        if end < 0:
            return None
        out += (sql[copied:begin], " ")
        copied = end
    return "".join([*out, sql[copied:]]) if copied else None


def comments(sql: str) -> Iterator[tuple[int, int]]:
    """Where each comment of `sql` begins and ends; -1 for a last one without an end."""
    if "--" not in sql and "/*" not in sql:
        return
    at = 0
    while (match := _COLON.match(sql, at)) is not None:
        at = match.end()
        kind = match.lastgroup
        if kind == "comment" or kind == "line":
            at = comment_end(sql, at) if kind == "comment" else at
            yield match.start(kind), at
        elif kind == "dollar":
            at = _quote_end(sql, match["dollar"], at)
        if at < 0:
            return


def _quote_end(sql: str, tag: str, at: int) -> int:
    """Where the literal opened by `tag` before `at` ends, -1 if it does not."""
    end = sql.find(tag, at)
    return end if end < 0 else end + len(tag)


def comment_end(sql: str, at: int) -> int:
    """Where the comment opened before `at` ends, -1 if it does not; comments nest."""
    depth = 1
    while depth and (match := _COMMENT.search(sql, at)) is not None:
        depth += 1 if match.group() == "/*" else -1
        at = match.end()
    return -1 if depth else at
