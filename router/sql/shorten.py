"""Long texts made short before they are parsed: what is repeated in them is said once.

A bulk INSERT, an IN list or a chain of ORs has thousands of members that name the same objects
and differ in constants and parameters only. The parser takes microseconds for each token and
holds the GIL meanwhile; what such a text does, one member of each shape says as well.

What is left out was taken apart by PostgreSQL's own rules for literals, names and comments. Where
a list holds anything else it ends there, and a text whose constants say what it does stays whole.
"""

import re
from functools import lru_cache

from router.sql import placeholders

LONG = 2048
"""Characters from which on a text is shortened; a shorter one is parsed in about 2 ms."""

MAX_SHORTENED = 16 << 20
"""Characters of a text that is shortened, which takes some 30 ms for each megabyte."""

WORTH = 1024
"""Characters that a list or literal must have for being shortened."""

ARGUMENTS = 101
"""Members that stay of what may be the arguments of a function, whose number tells overloads
apart: none takes more than 100.

Source: max_function_args in https://www.postgresql.org/docs/current/runtime-config-preset.html
"""

SAYING = ("set_config", "current_setting", "pg_input_is_valid", "pg_input_error_info", "dblink",
          "u&", "%%")  # fmt: skip
"""What is in a text whose constants say what it does, or that is read in two ways."""

_AT_ONCE = 64  # members that one match takes: it holds the GIL
_ALONE = r"(?<![\w$.\x80-\U0010ffff])"  # no letter or dot stands before it
_STRING = rf"(?:{_ALONE}[eE]'(?:[^'\\]++|\\.|'')*+'|'[^']*+(?:''[^']*+)*+')"
_NUMBER = rf"{_ALONE}(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++)(?![\w$.])"
_PLACEHOLDER = rf"(?:%(?:\([^()'\"$;/*\n\r-]*+\))?+s(?!\w)|\$[0-9]++|{_ALONE}(?<!:):[A-Za-z_]\w*+)"
# Of other literals some end elsewhere than they seem to: what begins with U&' or N' is no atom.
_WORD = r"[A-Za-z_\x80-\U0010ffff][\w$\x80-\U0010ffff]*+(?!'|&['\"])"
# In a name with other characters a constant might be found.
_QUOTED = r"\"[A-Za-z_][\w$]*+\""
_ATOM = (
    rf"\s++|{_STRING}|{_WORD}|[0-9]++|{_PLACEHOLDER}|{_QUOTED}|-(?!-)|/(?!\*)"
    r"|[*<>=~!@\#^&|`?:.+%\[\]]"
)
_CASTS = r"(?:\s*+::\s*+[A-Za-z_][\w.]*+(?:\[\])?+)*+"


def _row(inner: str, atoms: int) -> str:
    return rf"\((?:,|{_ATOM}{inner}){{,{atoms}}}+\)"


_ROW = _row("|" + _row("|" + _row("", 100), 200), 2000)
_VALUE = rf"(?:[-+]?+{_NUMBER}|{_STRING}|{_PLACEHOLDER}|(?i:null|true|false|default)\b)"
_MEMBER = rf"(?:{_ROW}|{_VALUE}){_CASTS}"
_ARGUMENT = rf"\s*+,\s*+{_MEMBER}"
# One of a chain may have no brackets. The AND of a BETWEEN is no link, so there the chain ends.
_LINKED = rf"(?:(?!(?i:and|or|between)\b)(?:{_ATOM})|{_row('|' + _row('', 100), 200)})++"
_LINK = rf"\s*+\b(?i:or|and)\b{_LINKED}"
_FURTHER = rf"(?:{_ARGUMENT}|{_LINK}|\s*+\b(?i:union(?:\s++all)?+)\s*+{_ROW})"


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text, re.VERBOSE | re.DOTALL | re.ASCII)


_FIRST = _pattern(_MEMBER)
_FURTHER_ONE = _pattern(_FURTHER)
_FURTHER_SOME = _pattern(rf"(?:{_FURTHER}){{1,{_AT_ONCE}}}+")
_FURTHER_ARGUMENTS = _pattern(rf"(?:{_ARGUMENT}){{1,{ARGUMENTS - 1}}}+")
_STATEMENT = _pattern(rf"(?:{_ATOM}|,|{_ROW}){{1,20000}}+(?:;|\Z)")
_PLAIN = re.compile(r"\s*(?:insert|update|delete|merge|select)\b", re.IGNORECASE)
_BETWEEN = _pattern(r"(?:[^'\"$/(\[-]{1,4096}+|-(?!-)|/(?!\*)){1,64}+")
"""What is not looked at on the way from list to list."""

_BETWEEN_CHAINS = _pattern(
    r"(?:[^'\"$/(\[\s-]{1,4096}+|\s++(?!(?i:or|and)\b)|-(?!-)|/(?!\*)){1,256}+"
)
"""As `_BETWEEN`, for a text with `CHAINED` ANDs and ORs."""

CHAINED = 32
"""ANDs and ORs from which on a chain of them is looked for outside of brackets too."""

_LETTER = r"[\w$.\x80-\U0010ffff]"
# It begins with a set of characters, which makes the search for it three times as fast.
_CONSTANT = _pattern(rf"""
    ['eE%$:.0-9] (?:
      (?<=') [^']*+(?:''[^']*+)*+' (?P<literal>)
    | (?<=[0-9]) (?<!{_LETTER}[0-9]) [0-9]*+
      (?: \.[0-9]*+ (?P<numeric>) | (?P<integer>) ) (?![\w$.])
    | (?<=\.) (?<!{_LETTER}\.) [0-9]++ (?![\w$.]) (?P<fraction>)
    | (?<=%) (?:\([^()'\"$;/*\n\r-]*+\))?+ s(?!\w) (?P<named>)
    | (?<=\$) [0-9]++ (?P<numbered>)
    | (?<=:) (?<!{_LETTER}:) (?<!::) [A-Za-z_]\w*+ (?P<colon>)
    | (?<=[eE]) (?<!{_LETTER}[eE]) '(?:[^'\\]++|\\.|'')*+' (?P<escaped>)
    )
""")
_INSTEAD = {
    "literal": "''", "escaped": "''", "integer": "0", "numeric": "0.5", "fraction": "0.5",
    "named": "%s", "numbered": "$1", "colon": ":p",
}  # fmt: skip
"""What stands for all constants or parameters of a kind."""

_MARKS = {"literal": "\0", "integer": "\1", "numeric": "\2", "fraction": "\2",
          "named": "\3", "numbered": "\4", "colon": "\5"}  # fmt: skip
_MARKED = {
    "\0": rf"(?:{_STRING})",
    "\1": r"[0-9]++(?![\w$.])",
    "\2": r"(?:[0-9]++\.[0-9]*+|\.[0-9]++)(?![\w$.])",
    "\3": r"%(?:\([^()'\"$;/*\n\r-]*+\))?+s(?!\w)",
    "\4": r"\$[0-9]++",
    "\5": r":[A-Za-z_]\w*+",
}
"""What a constant or parameter of a shape stands for."""

_SHAPES = 8
_WORTH_A_PATTERN = 16_384  # characters: it takes a millisecond to be compiled

_SCALARS = (
    (re.compile(r"(?:\s*+,\s*+[-+]?+[0-9]++(?=\s*+[,)\]])){1,4096}+"), ", 0"),
    (re.compile(r"(?:\s*+,\s*+'[^']*+'(?=\s*+[,)\]])){1,1024}+"), ", ''"),
    (_pattern(r"(?:\s*+,\s*+\$[0-9]++(?=\s*+[,)\]])){1,1024}+"), ", $1"),
    (_pattern(r"(?:\s*+,\s*+%(?:\([\w]++\))?+s(?=\s*+[,)\]])){1,1024}+"), ", %s"),
)
"""Members of one shape, which need not be looked at one by one."""

_NO_ARGUMENTS = re.compile(r"(?:\bvalues\s*|\bin\s*\(\s*|\[\s*)\Z", re.IGNORECASE)
"""What stands before a list that is none of arguments."""

_VALUED = re.compile(r"(?:[(,=<>|\[]|\b(?:select|like|then|else))\s*\Z", re.IGNORECASE)
"""What stands before a literal that is a value, and not a body of statements."""

_LOOKED_BACK = 16  # characters


def shortened(sql: str) -> str:
    """`sql`, or a text that names the same objects in the same ways and repeats less."""
    if len(sql) <= LONG or len(sql) > MAX_SHORTENED:
        return sql
    lower = sql.lower()
    if any(word in lower for word in SAYING):
        return sql
    chains = lower.count(" or ") + lower.count(" and ") > CHAINED
    return _lists(_statements(sql) if ";" in sql else sql, chains)


def _statements(sql: str) -> str:
    """`sql` without statements that differ from another only in constants."""
    out: list[str] = []
    seen: set[str] = set()
    at = 0
    while (found := _STATEMENT.match(sql, at)) is not None:
        at = found.end()
        if _PLAIN.match(found[0]):
            shape = _shape(found[0])
            if shape in seen:
                continue
            seen.add(shape)
        out.append(found[0])
    return "".join([*out, sql[at:]])


def _lists(sql: str, chains: bool) -> str:
    """`sql` with its long lists, literals and with `chains` ANDs and ORs short, and a space for
    each comment."""
    out: list[str] = []
    at = copied = 0
    between = _BETWEEN_CHAINS if chains else _BETWEEN
    while at < len(sql):
        if found := between.match(sql, at):
            at = found.end()
            continue
        begin, instead = at, None
        at, instead = _at(sql, at)
        if at < 0:
            break  # a literal or comment without an end
        if instead is not None:
            out += (sql[copied:begin], instead)
            copied = at
    return "".join([*out, sql[copied:]])


def _at(sql: str, at: int) -> tuple[int, str | None]:
    """Where to go on behind what begins at `at`, -1 for nowhere, and what stands in its place."""
    char = sql[at]
    if char == "'":
        return _literal(sql, at)
    if char == '"':
        return sql.find('"', at + 1) + 1 or -1, None
    if char == "$":
        return _dollar(sql, at), None
    if char == "-":
        end = _LINE.search(sql, at)
        return (len(sql) if end is None else end.start()), " "
    if char == "/":
        return placeholders.comment_end(sql, at + 2), " "
    return _list(sql, at) if char in "([" else _chain(sql, at)


_LINE = re.compile(r"[\n\r]")
_DOLLAR = re.compile(r"\$(?:[A-Za-z_\x80-\U0010ffff][\w\x80-\U0010ffff]*)?\$", re.ASCII)
_LITERAL = _pattern(_STRING)
_NAMED = re.compile(r"[\w$\x80-\U0010ffff]", re.ASCII)


def _literal(sql: str, at: int) -> tuple[int, str | None]:
    escaped = _LITERAL.match(sql, at - 1) if at and sql[at - 1] in "eE" else None
    found = escaped or _LITERAL.match(sql, at)
    if found is None:
        return -1, None
    value = escaped is None and _VALUED.search(sql, max(0, at - _LOOKED_BACK), at)
    return found.end(), "''" if value and found.end() - at > WORTH else None


def _dollar(sql: str, at: int) -> int:
    """Behind the dollar-quoted literal at `at`, if one begins there; -1 if it has no end."""
    found = None if at and _NAMED.match(sql[at - 1]) else _DOLLAR.match(sql, at)
    if found is None:
        return at + 1
    end = sql.find(found[0], found.end())
    return end if end < 0 else end + len(found[0])


def _list(sql: str, at: int) -> tuple[int, str | None]:
    """A list of rows whose first begins at `at`, or of values behind the bracket there."""
    for begin in (at, at + 1):
        found = _FIRST.match(sql, begin)
        if found is None:
            continue
        end, short = _members(sql, begin, found.end())
        if short is not None:
            return end, sql[at:begin] + short
        if end - begin < WORTH and begin == at:
            return end, None
    return at + 1, None


def _chain(sql: str, at: int) -> tuple[int, str | None]:
    """A chain of ANDs or ORs behind the spaces at `at`."""
    end, short = _members(sql, at, at)
    return max(end, at + 1), short


def _members(sql: str, begin: int, end: int) -> tuple[int, str | None]:
    """Behind the list whose first member ends at `end`, and that list with one member of each
    shape; None if it is short."""
    stays = end
    before = _NO_ARGUMENTS.search(sql, max(0, begin - _LOOKED_BACK), begin)
    if begin < end and before is None and (more := _FURTHER_ARGUMENTS.match(sql, end)) is not None:
        stays = end = more.end()
    shapes: dict[str, None] = {}
    begun = end
    alike = None
    while (found := _some(sql, end, alike)) is not None:
        end, members = found
        shapes.update(members)
        if alike is None and len(sql) - end > _WORTH_A_PATTERN and len(shapes) <= _SHAPES:
            alike = _pattern_of(tuple(shapes))
    if sum(map(len, shapes)) + WORTH // 4 > end - begun:
        return end, None
    return end, _shape(sql[begin:stays]) + "".join(shapes)


def _some(sql: str, at: int, alike: re.Pattern[str] | None) -> tuple[int, dict[str, None]] | None:
    """Behind some further members at `at`, and one of each shape unless all are as `alike` has
    it; None where the list ends."""
    if alike is not None and (found := alike.match(sql, at)):
        return found.end(), {}
    for pattern, shape in _SCALARS:
        if found := pattern.match(sql, at):
            return found.end(), {shape: None}
    if (found := _FURTHER_SOME.match(sql, at)) is None:
        return None
    text = _shape(found[0])
    first = _FURTHER_ONE.match(text)
    if first is not None and text == first[0] * (len(text) // first.end()):
        return found.end(), {first[0]: None}
    members = _FURTHER_ONE.findall(text)
    # Where anything is lost on the way it all stays.
    whole = sum(map(len, members)) == len(text)
    return found.end(), dict.fromkeys(members if whole else [found[0]])


@lru_cache(64)
def _pattern_of(shapes: tuple[str, ...]) -> re.Pattern[str]:
    """What matches further members of these `shapes` faster than what matches any."""
    each = []
    for shape in shapes:
        marked = _CONSTANT.sub(lambda found: _MARKS[found.lastgroup or ""], shape)
        pattern = re.escape(marked)
        for mark, constant in _MARKED.items():
            pattern = pattern.replace(mark, constant)
        each.append(pattern)
    return re.compile(f"(?:{'|'.join(each)}){{1,1024}}+", re.DOTALL | re.ASCII)


def _shape(text: str) -> str:
    """`text` with all constants and parameters of a kind the same."""
    return _CONSTANT.sub(_instead, text)


def _instead(found: re.Match[str]) -> str:
    return _INSTEAD[found.lastgroup or ""]
