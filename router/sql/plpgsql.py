"""What a text names that has no parse tree: a body in PL/pgSQL, a text kept from the parser.

Every word and every operator outside literals and comments counts as a name, of whatever it may
be the name. libpg_query has a parser for PL/pgSQL, which is not used: it leaves out the defaults
of record variables, takes each type for a scalar, and refuses bodies that PostgreSQL runs.
"""

import re
from collections.abc import Iterator
from sys import intern
from typing import NamedTuple

from router.sql import bounds, placeholders
from router.sql.names import COMPARISONS, SYSTEM_COLUMNS, Call, Named, Names, SetConfig
from router.sql.objects import Effect

NAME_BYTES = 63
"""Bytes of a name that count; the server cuts off the rest. Source: NAMEDATALEN in
https://github.com/postgres/postgres/blob/REL_18_STABLE/src/include/pg_config_manual.h"""

# What is skipped as a literal or a comment here must be one to PostgreSQL's lexer too.
# Source: https://github.com/postgres/postgres/blob/REL_18_STABLE/src/backend/parser/scan.l
_TOKEN = re.compile(
    r"""
    \s*+
    (?:
        (?P<escaped> [eE]'(?:[^'\\]++|\\.|'')*+' )
      | (?P<literal> '[^']*+(?:''[^']*+)*+' )
      | (?P<unicode> [uU]&"[^"]*+(?:""[^"]*+)*+" )
      | (?P<quoted> "[^"]*+(?:""[^"]*+)*+" )
      | (?P<number>
            (?: [0-9][0-9_]*+ (?:\.(?!\.)[0-9_]*+)?+ | \.[0-9][0-9_]*+ ) (?:[eE][-+]?[0-9]++)?+
          | \$[0-9]++
        )
      | (?P<word> [A-Za-z_\x80-\U0010ffff][\w$\x80-\U0010ffff]*+ )
      | (?P<dollar> \$ (?:[A-Za-z_\x80-\U0010ffff][\w\x80-\U0010ffff]*+)?+ \$ )
      | (?P<line> --[^\n\r]*+ )
      | (?P<comment> /\* )
      | (?P<operator> (?: (?!--|/\*) [-+*/<>=~!@#%^&|`?] )++ )
      | (?P<mark> :: | := | \.\. | . )
    )
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_DEFINES = re.compile(r"\b(?:create|alter|drop)\b", re.IGNORECASE)
_ASCII = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
_SPECIAL = frozenset("~!@#%^&|`?")

# After these a statement begins.
_BEFORE = frozenset({"", ";", "begin", "then", "else", "loop", ">>", "declare"})

_REFUSED = frozenset(
    {
        "alter", "analyze", "cluster", "comment", "create", "drop", "grant", "import", "listen",
        "notify", "reassign", "refresh", "reindex", "revoke", "security", "truncate", "vacuum",
    }
)  # fmt: skip
_DDL = frozenset(
    {
        "alter", "comment", "create", "drop", "grant", "import", "refresh", "reassign", "reindex",
        "revoke", "security",
    }
)  # fmt: skip
_ACTS = frozenset(
    {
        "checkpoint", "copy", "deallocate", "discard", "do", "load", "lock", "prepare", "reset",
        "set", "unlisten",
    }
)  # fmt: skip
_ENDS = frozenset({"commit", "rollback", "abort", "savepoint"})
_BINDS = frozenset({"discard", "do", "listen", "load", "prepare", "reset", "set", "unlisten"})
_CHANGES = frozenset({"insert", "update", "delete", "merge"})
_BEFORE_RELATION = frozenset(
    {"(", "concurrently", "from", "into", "materialized", "only", "table", "view"}
)
_COMPARES = frozenset(
    {"in", "any", "some", "all", "case", "nullif", "distinct", "between", "using", "natural"}
)
_MATCHES = frozenset({"like", "ilike", "similar"})
_MATCHING = ("~~", "!~~", "~~*", "!~~*", "~", "!~")


class _Token(NamedTuple):
    kind: str
    text: str


def scan(source: str) -> Names:
    """What `source` names, a body in PL/pgSQL or statements of SQL."""
    names = Names()
    names.loose = True
    if len(source) > bounds.MAX_SCANNED:
        names.binds = names.ddl = True
        names.refuse("a text too long to be looked through", Effect.UNKNOWN)
        return names
    _read(list(_tokens(source, names)), names, source)
    return names


def _tokens(source: str, names: Names) -> Iterator[_Token]:
    """The tokens of `source` without comments; a name as the server knows it."""
    at = 0
    while (found := _TOKEN.match(source, at)) is not None:
        at = found.end()
        kind = found.lastgroup or ""
        text = found[kind]
        if kind == "word":
            yield _Token("word", _cut(text.translate(_ASCII)))
        elif kind == "quoted":
            yield _Token("name", _cut(text[1:-1].replace('""', '"')))
        elif kind == "literal":
            if "\\'" in text:
                names.refuse("a literal that depends on a setting", Effect.UNKNOWN)
            yield _Token("literal", text[1:-1].replace("''", "'"))
        elif kind == "dollar":
            end = source.find(text, at)
            if end < 0:
                break
            yield _Token("literal", source[at:end])
            at = end + len(text)
        elif kind == "comment":
            at = placeholders.comment_end(source, at)
            if at < 0:
                break
        elif kind == "operator":
            yield from _operators(text)
        elif kind == "unicode":
            names.refuse("a name with escapes in it", Effect.UNKNOWN)
        elif kind != "line":
            yield _Token(kind, text)


def _operators(text: str) -> Iterator[_Token]:
    """`text` as operators: none ends in a sign unless it has a character that no sign is."""
    end = len(text)
    if _SPECIAL.isdisjoint(text):
        while end > 1 and text[end - 1] in "+-":
            end -= 1
    yield _Token("operator", {"!=": "<>"}.get(text[:end], text[:end]))
    for sign in text[end:]:
        yield _Token("operator", sign)


def _cut(name: str) -> str:
    """`name` as far as it counts, the same object wherever it recurs: bodies share their names."""
    if len(name) * 4 > NAME_BYTES:
        name = name.encode(errors="replace")[:NAME_BYTES].decode(errors="ignore")
    return intern(name)


_NOTHING = _Token("", "")


def _read(tokens: list[_Token], names: Names, source: str) -> None:
    before = _NOTHING
    starts = True
    for i, token in enumerate(tokens):
        kind, text = token
        if kind == "operator":
            names.operators.add(text)
        elif kind == "word" or kind == "name":
            following = tokens[i + 1].text if i + 1 < len(tokens) else ""
            _name(names, tokens, i, before.text == ".", following == "(")
            if kind == "word" and before.text != ".":
                if starts:
                    named = i + 2 < len(tokens) and tokens[i + 2].text == "."  # SET local.x = …
                    _statement(names, tokens, i, "" if named else following)
                _word(names, tokens, i, before.text, source)
        starts = text in _BEFORE and kind != "literal" and kind != "name"
        before = token


def _name(names: Names, tokens: list[_Token], i: int, dotted: bool, called: bool) -> None:
    """The word or quoted name at `i` may be the name of anything; a function where it is
    `called`, or `dotted`."""
    name = tokens[i].text
    names.mentioned.add(name)
    if name in SYSTEM_COLUMNS:
        names.refuse(name, Effect.ACTS)
    if name.startswith("pg_temp"):
        names.binds = True
        names.refuse("names pg_temp", Effect.UNKNOWN)
    if not name.isascii():
        names.mentioned.add(name.lower())  # where an encoding has one byte for each letter
    if called:
        schema = tokens[i - 2].text if dotted and i > 1 else None
        if name == "set_config" and schema in (None, "pg_catalog"):
            names.configs.append(_config(tokens, i + 2))
        else:
            if name == "current_setting" and i + 2 < len(tokens):
                names.asks(_asked(tokens, i + 2))
            names.calls[Call(schema, name, None)] = None
            if not name.isascii():
                names.calls[Call(schema, name.lower(), None)] = None
    elif dotted:
        names.attributes.add(name)


def _asked(tokens: list[_Token], i: int) -> str | None:
    """The setting that is named at `i`, None where nobody knows."""
    kind, text = tokens[i]
    whole = tokens[i + 1].text in (")", ",") if i + 1 < len(tokens) else True
    return text if kind == "literal" and (whole or "." in text) else None


def _statement(names: Names, tokens: list[_Token], i: int, following: str) -> None:
    """What the statement that begins with the word at `i` does, as far as no name in it says."""
    word = tokens[i].text
    if word in ("copy", "refresh", "truncate"):
        _written(names, tokens, i + 1)
    while word == "truncate" and i < len(tokens) and tokens[i].text != ";":
        if tokens[i].text == ",":
            _written(names, tokens, i + 1)
        i += 1
    if word == "show":
        names.asks(following)
    if word in _REFUSED:
        names.refuse(word.upper(), Effect.REFUSED)
        names.ddl = names.ddl or word in _DDL
    elif word in _ACTS and following != "constraints":
        names.refuse(word.upper(), Effect.UNKNOWN if word in ("copy", "do") else Effect.ACTS)
    elif word in _ENDS:
        names.refuse(word.upper(), Effect.UNKNOWN)
    if word == "do":
        names.ddl = True
    if word in _BINDS and following not in ("local", "constraints"):
        names.binds = True


def _word(names: Names, tokens: list[_Token], i: int, before: str, source: str) -> None:
    """What the word at `i` says wherever it stands."""
    word = tokens[i].text
    if word in _CHANGES:
        if word == "update" and before in ("for", "key"):
            names.refuse("SELECT … FOR UPDATE", Effect.REFUSED, executed=True)
        else:
            names.refuse(word.upper(), Effect.REFUSED, executed=True)
            _written(names, tokens, i + 1)
    elif word == "share" and before in ("for", "key"):
        names.refuse("SELECT … FOR SHARE", Effect.REFUSED, executed=True)
    elif word == "execute":
        _dynamic(names, tokens, i + 1, source)
    elif word == "temp" or word == "temporary":
        names.binds = True
    elif word in _COMPARES:
        names.operators.update(COMPARISONS)
    elif word in _MATCHES:
        names.operators.update(_MATCHING)


def _written(names: Names, tokens: list[_Token], i: int) -> None:
    """The relation changed by the statement whose first word stands before `i`."""
    while i < len(tokens) and tokens[i].text in _BEFORE_RELATION:
        i += 1
    if i < len(tokens) and tokens[i].kind in ("word", "name"):
        if i + 2 < len(tokens) and tokens[i + 1].text == ".":
            i += 2
            names.written.add(Named(tokens[i - 2].text, tokens[i].text))
        else:
            names.written.add(Named(None, tokens[i].text))
        if tokens[i].text == "pg_settings":  # its rule calls set_config() instead
            names.binds = True
            names.refuse("UPDATE pg_settings", Effect.ACTS)


def _dynamic(names: Names, tokens: list[_Token], i: int, source: str) -> None:
    """EXECUTE: a literal is read in turn, and of anything else nobody knows what it says."""
    if i < len(tokens) and tokens[i].kind == "literal":
        end = tokens[i + 1] if i + 1 < len(tokens) else _Token("mark", ";")
        # A literal goes on in the next one.
        if end.kind != "literal" and end.text in (";", "into", "using", "loop"):
            inner = tokens[i].text
            words = list(_tokens(inner, names))
            if _Token("word", "declare") in words:
                names.binds = True
                names.refuse("DECLARE", Effect.ACTS)
            _read(words, names, inner)
            return
    names.binds = True
    names.ddl = names.ddl or bool(_DEFINES.search(source))
    names.refuse("dynamic SQL", Effect.UNKNOWN)


def _config(tokens: list[_Token], i: int) -> SetConfig:
    """The arguments of the set_config() whose bracket stands before `i`."""
    arguments: list[list[_Token]] = [[]]
    depth = 0
    for token in tokens[i:]:
        if token.text == ")" and token.kind == "mark" and not depth:
            break
        if token.kind == "mark":
            depth += (token.text in "([") - (token.text in ")]")
        if token.text == "," and not depth:
            arguments.append([])
        else:
            arguments[-1].append(token)
    if len(arguments) != 3:
        return SetConfig(None, None)
    (name, _, local) = arguments
    said = ("true", "false", "t", "f", "on", "off")
    known = len(local) == 1 and (
        local[0].text.lower() in said[: None if local[0].kind == "literal" else 2]
    )
    return SetConfig(
        name[0].text.lower() if len(name) == 1 and name[0].kind == "literal" else None,
        local[0].text.lower() in ("true", "t", "on") if known else None,
    )
