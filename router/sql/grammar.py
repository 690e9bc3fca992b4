"""Tables over PostgreSQL's grammar, and how its nodes are read.

A node is a mapping of one name, such as ``SelectStmt``, to its fields; the names are those of
PostgreSQL's nodes/parsenodes.h.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from router.sql.intent import Kind, Verb

TRANSACTION = {f"TRANS_STMT_{verb.name}": verb for verb in Verb} | {"TRANS_STMT_START": Verb.BEGIN}
"""Verbs by the kind of a TransactionStmt."""

LOCKS = {
    "LCS_FORUPDATE": "FOR UPDATE",
    "LCS_FORNOKEYUPDATE": "FOR NO KEY UPDATE",
    "LCS_FORSHARE": "FOR SHARE",
    "LCS_FORKEYSHARE": "FOR KEY SHARE",
}

NODE_SUFFIX = "Stmt"
DML = frozenset({"InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt"})

# Statements that change data or server state and nothing the catalog says.
NOT_DDL = frozenset(
    {
        *DML, "CopyStmt", "CallStmt", "DoStmt", "LockStmt", "NotifyStmt", "ListenStmt",
        "UnlistenStmt", "TruncateStmt", "VacuumStmt", "ClusterStmt", "ReindexStmt",
        "CheckPointStmt", "LoadStmt", "PrepareStmt", "ExecuteStmt", "DeallocateStmt",
        "ExplainStmt", "DiscardStmt", "AlterSystemStmt", "CommentStmt", "SecLabelStmt",
        "DeclareCursorStmt", "ConstraintsSetStmt", "SelectStmt",
    }
)  # fmt: skip

# Statements that a standby runs, or does not refuse by their kind alone. It refuses every other
# statement that is no read, before it looks further.
# Source: ClassifyUtilityCommandAsReadOnly in PostgreSQL's tcop/utility.c
RUN_BY_STANDBY = frozenset(
    {
        "AlterSystemStmt", "CallStmt", "CheckPointStmt", "CopyStmt", "DeallocateStmt",
        "DeclareCursorStmt", "DiscardStmt", "DoStmt", "ExecuteStmt", "ExplainStmt", "LoadStmt",
        "LockStmt", "PrepareStmt", "SelectStmt", "UnlistenStmt", "VariableSetStmt",
    }
)  # fmt: skip

ROW_EXCLUSIVE = 3  # the strongest lock that can be taken during recovery, storage/lockdefs.h

BINDING = frozenset({"PrepareStmt", "ExecuteStmt", "ListenStmt", "UnlistenStmt", "LoadStmt"})
# Statements that change rows of the relation they name, or look at each row, though no query does.
CHANGING = frozenset({"AlterTableStmt", "RefreshMatViewStmt"})
# Statements that event triggers follow, though they change nothing the router knows.
FIRING = frozenset({"CommentStmt", "SecLabelStmt", "ReindexStmt"})
ALONE = frozenset(
    {"CreatedbStmt", "DropdbStmt", "CreateTableSpaceStmt", "DropTableSpaceStmt",
     "AlterSystemStmt"}
)  # fmt: skip

HOLD = 0x0020  # CURSOR_OPT_HOLD, nodes/parsenodes.h
ON = frozenset({"1", "true", "on", "yes", "t", "y"})
OFF = frozenset({"0", "false", "off", "no", "f", "n"})
SNAPSHOT_LEVELS = frozenset({"REPEATABLE READ", "SERIALIZABLE"})

WORD_OPERATORS = frozenset(
    {"BETWEEN", "NOT BETWEEN", "BETWEEN SYMMETRIC", "NOT BETWEEN SYMMETRIC"}
)

_NAMES = {
    "CreateStmt": "CREATE TABLE",
    "ViewStmt": "CREATE VIEW",
    "IndexStmt": "CREATE INDEX",
    "CreateTableAsStmt": "CREATE TABLE AS",
    "CreatedbStmt": "CREATE DATABASE",
    "DropdbStmt": "DROP DATABASE",
    "RenameStmt": "ALTER … RENAME",
    "RuleStmt": "CREATE RULE",
    "CheckPointStmt": "CHECKPOINT",
    "CreateSeqStmt": "CREATE SEQUENCE",
    "CreateTrigStmt": "CREATE TRIGGER",
}

_VALUES = {"String": "sval", "Integer": "ival", "Boolean": "boolval"}  # as an A_Const names them

_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")


def statement_name(name: str) -> str:
    """The statement whose node is called `name`, as people write it."""
    return _NAMES.get(name) or _CAMEL.sub(" ", name.removesuffix(NODE_SUFFIX)).upper()


def refused(name: str, body: Mapping[str, Any]) -> bool:
    """Whether a standby refuses the statement `body`, whose node is called `name`, by its kind."""
    if name == "LockStmt":
        return int(body.get("mode", 0)) > ROW_EXCLUSIVE
    return name not in RUN_BY_STANDBY


def runs_alone(body: Mapping[str, Any]) -> bool:
    """Whether `body` is a form of a statement that cannot run in a transaction block."""
    return (
        bool(body.get("concurrent"))
        or bool(body.get("is_vacuumcmd"))
        or body.get("kind") in ("REINDEX_OBJECT_DATABASE", "REINDEX_OBJECT_SYSTEM")
        or any(
            o.get("DefElem", {}).get("defname") == "concurrently" for o in body.get("params", ())
        )
    )


def constant(node: Any, default: str | None = None) -> str | None:
    """The literal `node` as text, a boolean in lower case; None for what is no literal, and
    `default` where there is no node."""
    if not node:
        return default
    ((kind, body),) = node.items() if len(node) == 1 else (("", {}),)
    if kind == "TypeCast":
        return constant(body.get("arg"))
    values = body if kind == "A_Const" else {_VALUES.get(kind): body}
    if "sval" in values:
        return str(values["sval"].get("sval", ""))
    if "ival" in values:
        return str(values["ival"].get("ival", 0))
    if "boolval" in values:
        return "true" if values["boolval"].get("boolval") else "false"
    return None


def strings(nodes: Iterable[dict[str, Any]]) -> list[str]:
    """The parts of a name, given its `nodes`."""
    return [n["String"].get("sval", "") for n in nodes if "String" in n]


def names(relation: Mapping[str, Any], name: str) -> bool:
    """Whether the RangeVar `relation` may be the one in pg_catalog that is called `name`."""
    named = relation.get("relname") == name
    return named and relation.get("schemaname", "pg_catalog") == "pg_catalog"


def names_temp(root: dict[str, Any], kind: Kind) -> bool:
    """Whether something below `root` names pg_temp. A literal does not, unless the statement is of
    the `kind` SESSION: SET search_path names schemas in literals."""
    stack: list[Any] = [root]
    while stack:
        node = stack.pop()
        if isinstance(node, list):
            stack += node
        elif isinstance(node, dict):
            for key, value in node.items():
                named = key in ("schemaname", "String") or (key == "sval" and kind is Kind.SESSION)
                if named and "pg_temp" in str(value):
                    return True
                stack.append(value)
    return False
