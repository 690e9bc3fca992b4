"""Calls of set_config(): which parameters say what is set, and what a second run would set."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from router.sql import grammar, placeholders

Key = int | str
"""Where a driver finds a parameter: its position, from 0, or its name."""

Value = str | bool | None
"""What a parameter says of a setting: its name, or whether it is local; None for what is neither
for certain, such as a value that the driver is yet to adapt."""

_NATIVE = re.compile(r"\$\d")
_SAYING = (0, 2)
"""The arguments of set_config() that say which setting, and for how long."""

# Types whose text does not depend on settings, or on when it is asked for.
_PLAIN = frozenset(
    {"text", "varchar", "bpchar", "name", "int2", "int4", "int8", "bool", "uuid", "numeric"}
)


def parameters(sql: str, statements: Sequence[dict[str, Any]]) -> tuple[Key, ...]:
    """The parameters that say which settings the parsed `statements` of `sql` set by set_config(),
    and for how long; empty where that stands in the text, or cannot be told."""
    if "set_config" not in sql.lower():
        return ()
    numbers = [n for _, _, n in _saying(statements)]
    keys = _keys(sql) if numbers else None
    if keys is None:
        return ()
    try:
        return tuple(dict.fromkeys(keys[n - 1] if keys else n - 1 for n in numbers))
    except IndexError:
        return ()


def values(keys: Iterable[Key], given: Any) -> tuple[Value, ...]:
    """What `given`, one set of parameters as a driver takes it, has at `keys`."""
    return tuple(_value(given, key) for key in keys)


def fill(sql: str, statements: Sequence[dict[str, Any]], known: Mapping[Key, Value]) -> None:
    """Write what is `known` of its parameters into the parsed `statements` of `sql`, as if it had
    stood in the text."""
    keys = _keys(sql) or ()
    for args, i, n in list(_saying(statements)):
        value = known.get(keys[n - 1] if keys else n - 1)
        if i == _SAYING[1]:
            value = boolean(value)
        if isinstance(value, bool):
            args[i] = {"A_Const": {"boolval": {"boolval": value}}}
        elif value is not None:
            args[i] = {"A_Const": {"sval": {"sval": value}}}


def boolean(value: Value) -> bool | None:
    """`value` as PostgreSQL reads it for a boolean, None where it would refuse it.

    Source: parse_bool_with_len in PostgreSQL's utils/adt/bool.c
    """
    if value is None or isinstance(value, bool):
        return value
    said = value.strip(" \t\n\r\v\f").lower()
    if said and ("true".startswith(said) or "yes".startswith(said) or said in ("on", "1")):
        return True
    if said and ("false".startswith(said) or "no".startswith(said) or said in ("of", "off", "0")):
        return False
    return None


def repeats(select: Mapping[str, Any]) -> bool:
    """Whether the SelectStmt `select`, which calls set_config(), sets the same wherever it runs:
    all it does is to call it, with values that are constants or parameters."""
    body = select.get("SelectStmt", {})
    if any(body.get(key) for key in _MORE) or body.get("op") != "SETOP_NONE":
        return False
    for target in body.get("targetList", ()):
        value = target.get("ResTarget", {}).get("val", {})
        call = value.get("FuncCall")
        if call is None:
            if not _fixed(value):
                return False
        elif grammar.strings(call["funcname"])[-1] != "set_config" or not all(
            _fixed(a) for a in call.get("args", ())
        ):
            return False
    return True


_MORE = ("fromClause", "whereClause", "groupClause", "havingClause", "withClause", "valuesLists",
         "limitCount", "limitOffset", "sortClause", "windowClause", "distinctClause")  # fmt: skip
"""What a SELECT may have beside what it computes."""


def pasted(node: Mapping[str, Any]) -> bool:
    """Whether `node` is the literal that stands for a parameter where the grammar takes none."""
    literal: str | None = node.get("A_Const", {}).get("sval", {}).get("sval")
    return literal == placeholders.PASTED


def _fixed(node: Mapping[str, Any]) -> bool:
    """Whether `node` is a constant or a parameter, cast at most to what has one text."""
    while (cast := node.get("TypeCast")) is not None:
        *schema, name = grammar.strings(cast["typeName"]["names"])
        if name not in _PLAIN or schema not in ([], ["pg_catalog"]):
            return False
        node = cast["arg"]
    return "A_Const" in node or "ParamRef" in node


def _keys(sql: str) -> tuple[Key, ...] | None:
    """The keys of the placeholders of `sql` in their order, empty where they are PostgreSQL's own;
    None where both are there: nobody knows which the driver takes for one."""
    native = _NATIVE.search(sql) is not None
    keys = placeholders.keys(sql) if "%" in sql else ()
    if keys:
        return None if native else keys
    return () if native else placeholders.keys(sql, colon=True)


def _saying(statements: Sequence[dict[str, Any]]) -> Iterator[tuple[list[Any], int, int]]:
    """Each parameter that says something in a call of set_config(): the call's arguments, which of
    them it is, and its number."""
    stack: list[Any] = list(statements)
    while stack:
        node = stack.pop()
        if isinstance(node, list):
            stack += node
        elif isinstance(node, dict):
            stack += node.values()
            args = node.get("args")
            if isinstance(args, list) and len(args) == 3 and _sets(node):
                for i in _SAYING:
                    arg = args[i]
                    while isinstance(arg, dict) and "TypeCast" in arg:
                        arg = arg["TypeCast"].get("arg")
                    number = (arg or {}).get("ParamRef", {}).get("number", 0)
                    if number:
                        yield args, i, number


def _sets(call: Mapping[str, Any]) -> bool:
    name = call.get("funcname")
    return isinstance(name, list) and grammar.strings(name)[-1:] == ["set_config"]


def _value(given: Any, key: Key) -> Value:
    try:
        value = given[key]
    except (IndexError, KeyError, TypeError):
        return None
    kind = type(value)
    if kind is int:
        return str(value)
    return value if kind is bool or kind is str else None
