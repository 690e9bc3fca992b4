"""Tables over PostgreSQL's grammar, and how its nodes are read.

A node is a mapping of one name, such as ``SelectStmt``, to its fields; the names are those of
PostgreSQL's nodes/parsenodes.h.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from router.sql.intent import Kind, Verb

TRANSACTION = {
    "TRANS_STMT_BEGIN": Verb.BEGIN,
    "TRANS_STMT_START": Verb.BEGIN,
    "TRANS_STMT_COMMIT": Verb.COMMIT,
    "TRANS_STMT_ROLLBACK": Verb.ROLLBACK,
    "TRANS_STMT_SAVEPOINT": Verb.SAVEPOINT,
    "TRANS_STMT_RELEASE": Verb.RELEASE,
    "TRANS_STMT_ROLLBACK_TO": Verb.ROLLBACK_TO,
    "TRANS_STMT_PREPARE": Verb.PREPARE,
    "TRANS_STMT_COMMIT_PREPARED": Verb.COMMIT_PREPARED,
    "TRANS_STMT_ROLLBACK_PREPARED": Verb.ROLLBACK_PREPARED,
}

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

# What a standby runs, or makes a point of not refusing; every other statement that is no read it
# refuses by its kind, before it looks further.
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


_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")


def statement_name(name: str) -> str:
    """The statement whose node is called `name`, as people write it."""
    words = _CAMEL.sub(" ", name.removesuffix(NODE_SUFFIX)).upper()
    return _NAMES.get(name, words)


def refused(name: str, body: Mapping[str, Any]) -> bool:
    """Whether a standby refuses a statement by its kind."""
    if name == "LockStmt":
        return int(body.get("mode", 0)) > ROW_EXCLUSIVE
    return name not in RUN_BY_STANDBY


def runs_alone(body: Mapping[str, Any]) -> bool:
    """Whether it is a form of a statement that cannot run in a transaction block."""
    return (
        bool(body.get("concurrent"))
        or bool(body.get("is_vacuumcmd"))
        or body.get("kind") in ("REINDEX_OBJECT_DATABASE", "REINDEX_OBJECT_SYSTEM")
        or any(
            o.get("DefElem", {}).get("defname") == "concurrently" for o in body.get("params", ())
        )
    )


def constant(node: Any, default: str | None = None) -> str | None:
    """The value of a literal as text, in lower case where it is a boolean; None if it is none."""
    if not node:
        return default
    ((kind, body),) = node.items() if len(node) == 1 else (("", {}),)
    if kind == "TypeCast":
        return constant(body.get("arg"))
    if kind == "String":
        return str(body.get("sval", ""))
    if kind == "Integer":
        return str(body.get("ival", 0))
    if kind == "Boolean":
        return "true" if body.get("boolval") else "false"
    if kind == "A_Const":
        if "sval" in body:
            return str(body["sval"].get("sval", ""))
        if "ival" in body:
            return str(body["ival"].get("ival", 0))
        if "boolval" in body:
            return "true" if body["boolval"].get("boolval") else "false"
    return None


def strings(nodes: Iterable[dict[str, Any]]) -> list[str]:
    """The parts of a name."""
    return [n["String"].get("sval", "") for n in nodes if "String" in n]


def names_temp(root: dict[str, Any], kind: Kind) -> bool:
    """Whether pg_temp is named, not only spoken of in a literal; what is SET may well name it."""
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
