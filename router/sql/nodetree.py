"""The trees in which PostgreSQL stores expressions: which objects one names, by oid."""

import re
from typing import NamedTuple

from router.sql import functions

_FIELD = re.compile(r":(\w+) (?:\(o ([\d ]+)\)|(\d{3,10})\b)")

_FUNCTIONS = frozenset(
    {"funcid", "opfuncid", "aggfnoid", "winfnoid", "hashfuncid", "negfuncid", "startInRangeFunc",
     "endInRangeFunc", "elemfuncid", "tsmhandler"}
)  # fmt: skip
_OPERATORS = frozenset({"opno", "opnos", "eqop", "sortop", "cycle_mark_neop"})
_RELATIONS = frozenset({"relid", "resorigtbl"})


class Uses(NamedTuple):
    """Oids of what a tree names, a setting it asks for that is another one on each server, and
    whether it reads the command counters of rows."""

    functions: set[int]
    operators: set[int]
    relations: set[int]
    types: set[int]
    setting: str
    commands: bool


def uses(tree: str) -> Uses:
    """What `tree`, the text of a pg_node_tree, names.

    The names of fields are those of PostgreSQL's nodes/primnodes.h and nodes/parsenodes.h, and
    each field that holds a type is called so at its end.
    """
    found = Uses(set(), set(), set(), set(), _setting(tree), bool(_COMMANDS.search(tree)))
    for field, several, one in _FIELD.findall(tree):
        if field in _FUNCTIONS:
            into = found.functions
        elif field in _OPERATORS:
            into = found.operators
        elif field in _RELATIONS:
            into = found.relations
        elif field.lower().endswith(("type", "types", "typeid", "typid")):
            into = found.types
        else:
            continue
        if one:
            into.add(int(one))
        else:
            into.update(map(int, several.split()))
    return found


_COMMANDS = re.compile(r":varattno -[35] ")  # cmin and cmax, access/sysattr.h
CURRENT_SETTING = (2077, 3294)
"""Oids of current_setting(), with one argument and with two."""

_ASKED = re.compile(
    rf":funcid (?:{'|'.join(map(str, CURRENT_SETTING))}) .*?:args \(\{{(\w+)([^{{}}]*)"
)
_BYTES = re.compile(r":constvalue \d+ \[ ([-\d ]+) \]")


def _setting(tree: str) -> str:
    """The setting that current_setting() is asked for in `tree`, where it is another one on each
    server or is not known; empty for none."""
    for kind, fields in _ASKED.findall(tree):
        value = _BYTES.search(fields)
        if kind != "CONST" or value is None:
            return functions.SOME_SETTING
        name = bytes(int(b) & 255 for b in value[1].split())[4:].decode(errors="replace").lower()
        if name in functions.LOCAL_SETTINGS:
            return name
    return ""


_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)


def items(tree: str) -> list[str]:
    """The nodes of `tree`, the text of a list of them."""
    found: list[str] = []
    depth = begins = 0
    for match in _BRACE.finditer(tree):
        if match[0] == "{":
            begins = begins if depth else match.start()
            depth += 1
        elif match[0] == "}":
            depth -= 1
            if not depth:
                found.append(tree[begins : match.end()])
    return found
