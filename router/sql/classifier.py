"""SQL text -> Intent: what a statement does, by PostgreSQL's own grammar and the server's catalog.

Only what is positively recognised as a read is called one. Whatever does not parse, is of an
unknown kind, or reaches a function, relation, type or operator not known to be harmless, is a
write: the primary runs it, which is always right.
"""

import enum
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pgparse  # type: ignore[import-not-found]  # an extension module without stubs

from router import registry
from router.sql import bounds, functions, placeholders
from router.sql.builtins import OPERATORS, RELATIONS, TYPES
from router.sql.catalog import BUILTIN, UNLOGGED, Cast, Catalog, Function, Operator, Relation, Type


class Kind(enum.Enum):
    """What a statement is to the router."""

    READ = "read"
    WRITE = "write"
    SESSION = "session"
    TRANSACTION = "transaction"


class Verb(enum.Enum):
    """Which transaction control; SET is ``SET TRANSACTION …``."""

    BEGIN = "BEGIN"
    COMMIT = "COMMIT"
    ROLLBACK = "ROLLBACK"
    SAVEPOINT = "SAVEPOINT"
    RELEASE = "RELEASE"
    ROLLBACK_TO = "ROLLBACK TO"
    PREPARE = "PREPARE TRANSACTION"
    COMMIT_PREPARED = "COMMIT PREPARED"
    ROLLBACK_PREPARED = "ROLLBACK PREPARED"
    SET = "SET TRANSACTION"


class OnStandby(enum.Enum):
    """What becomes of a statement that is no read, in a read-only transaction on a standby."""

    REFUSED = "the standby refuses it by itself, before anything of it acts"
    DOUBTED = "it names a relation or type that is not in the catalog as last read"
    UNSEEN = "nobody knows what it calls"
    ACTS = "it acts there in silence, or may"


@dataclass(frozen=True, slots=True)
class Intent:
    """What a statement does.

    Attributes:
        kind: what it is to the router.
        reason: what in the statement decided, printable.
        binds: it leaves something only that server session has (a temporary table, a session
            advisory lock, PREPARE, LISTEN …), or takes it away from the journal's sight.
        holds: it binds for certain, as the statement itself says; not by what a function might do.
        local: of SESSION: what it sets ends with the transaction.
        settings: of SESSION: the settings it changes, in lower case; None when any may be.
        verb: of TRANSACTION: which.
        read_only: the declared mode, None when nothing was declared.
        isolation: the declared level, in upper case, None when nothing was declared.
        needs_transaction: it works in a real transaction block only.
        ddl: it changes what the catalog says.
        no_transaction: it cannot run in a transaction block.
        on_standby: of WRITE: what a standby would make of it.
    """

    kind: Kind
    reason: str
    binds: bool = False
    holds: bool = False
    local: bool = False
    settings: tuple[str, ...] | None = ()
    verb: Verb | None = None
    read_only: bool | None = None
    isolation: str | None = None
    needs_transaction: bool = False
    ddl: bool = False
    no_transaction: bool = False
    on_standby: OnStandby = OnStandby.ACTS

    @property
    def writes(self) -> bool:
        """Whether there is something to be read afterwards that was not there before."""
        return self.kind is Kind.WRITE or self.verb is Verb.COMMIT_PREPARED


_EMPTY = Intent(Kind.READ, "empty")
_SELECT = Intent(Kind.READ, "SELECT")

_TRANSACTION = {
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

_LOCKS = {
    "LCS_FORUPDATE": "FOR UPDATE",
    "LCS_FORNOKEYUPDATE": "FOR NO KEY UPDATE",
    "LCS_FORSHARE": "FOR SHARE",
    "LCS_FORKEYSHARE": "FOR KEY SHARE",
}

_NODE_SUFFIX = "Stmt"
_DML = frozenset({"InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt"})

# Statements that change data or server state and nothing the catalog says.
_NOT_DDL = frozenset(
    {
        *_DML, "CopyStmt", "CallStmt", "DoStmt", "LockStmt", "NotifyStmt", "ListenStmt",
        "UnlistenStmt", "TruncateStmt", "VacuumStmt", "ClusterStmt", "ReindexStmt",
        "CheckPointStmt", "LoadStmt", "PrepareStmt", "ExecuteStmt", "DeallocateStmt",
        "ExplainStmt", "DiscardStmt", "AlterSystemStmt", "CommentStmt", "SecLabelStmt",
        "DeclareCursorStmt", "ConstraintsSetStmt", "SelectStmt",
    }
)  # fmt: skip

# What a standby runs, or makes a point of not refusing; every other statement that is no read it
# refuses by its kind, before it looks further.
# Source: ClassifyUtilityCommandAsReadOnly in PostgreSQL's tcop/utility.c
_RUN_BY_STANDBY = frozenset(
    {
        "AlterSystemStmt", "CallStmt", "CheckPointStmt", "CopyStmt", "DeallocateStmt",
        "DeclareCursorStmt", "DiscardStmt", "DoStmt", "ExecuteStmt", "ExplainStmt", "LoadStmt",
        "LockStmt", "PrepareStmt", "SelectStmt", "UnlistenStmt", "VariableSetStmt",
    }
)  # fmt: skip

_ROW_EXCLUSIVE = 3  # the strongest lock that can be taken during recovery, storage/lockdefs.h

_BINDING = frozenset({"PrepareStmt", "ExecuteStmt", "ListenStmt", "UnlistenStmt", "LoadStmt"})
_ALONE = frozenset(
    {"CreatedbStmt", "DropdbStmt", "CreateTableSpaceStmt", "DropTableSpaceStmt",
     "AlterSystemStmt"}
)  # fmt: skip

_HOLD = 0x0020  # CURSOR_OPT_HOLD, nodes/parsenodes.h
_ON = frozenset({"1", "true", "on", "yes", "t", "y"})
_OFF = frozenset({"0", "false", "off", "no", "f", "n"})
_SNAPSHOT_LEVELS = frozenset({"REPEATABLE READ", "SERIALIZABLE"})

_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_WORD = re.compile(
    r"""--[^\n]*|/\*.*?\*/|[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'"""
    r"""|"(?P<quoted>(?:[^"]|"")*)"|(?P<word>[^\W\d][\w$]*)|(?P<op>[-+*/<>=~!@#%^&|`?]+)""",
    re.DOTALL,
)
_SETS = re.compile(
    r"(?:^|;|\b(?:begin|then|else|loop))\s*set\s+(?!local\b|constraints\b)", re.IGNORECASE
)

# In strings too: dynamic SQL.
_DEFINES = re.compile(r"\b(?:create|alter|drop)\b", re.IGNORECASE)


def classify(sql: str, catalog: Catalog = BUILTIN) -> Intent:
    """Say what `sql` does, judged by `catalog`. Never raises, whatever the text.

    Args:
        sql: one or more statements, with the placeholders of any driver.
        catalog: what is known of the server; without it only statements over PostgreSQL's own
            relations and functions can be reads.
    """
    return _classify(sql, _Judge(catalog))


def _classify(sql: str, judge: "_Judge") -> Intent:
    try:
        statements = _parse(sql)
        intents = [_statement(node["stmt"], judge) for node in statements]
    except pgparse.PGQueryError as error:
        return Intent(
            Kind.WRITE,
            f"does not parse: {_message(error)}",
            binds=_mentions_session(sql),
            ddl=bool(_DEFINES.search(sql)),
            on_standby=OnStandby.UNSEEN,
        )
    except bounds.TooComplex as error:
        return _unparsed(sql, str(error), judge)
    except (RecursionError, UnicodeError, ValueError, MemoryError) as error:
        return Intent(
            Kind.WRITE,
            f"does not parse: {type(error).__name__}",
            binds=True,
            ddl=bool(_DEFINES.search(sql)),
            on_standby=OnStandby.UNSEEN,
        )
    intent = _strongest(intents)
    if "pg_temp" in sql.lower() and any(_names_temp(node, intent.kind) for node in statements):
        reason = intent.reason if intent.kind is Kind.WRITE else "names pg_temp"
        intent = replace(intent, kind=Kind.WRITE, reason=reason, binds=True, holds=True)
    return intent


def _unparsed(sql: str, why: str, judge: "_Judge") -> Intent:
    """The intent of a text that is kept from the parser: a write, and the rest by its words."""
    walk = _Walk(judge)
    walk.scan(sql)
    walk.resolve()
    return Intent(
        Kind.WRITE,
        f"not parsed: {why}",
        # Several statements may set anything, or leave a transaction open.
        binds=walk.binds or not judge.catalog.loaded or ";" in sql.rstrip("; \t\r\n"),
        ddl=walk.ddl,
        on_standby=OnStandby.ACTS if walk.acts else OnStandby.UNSEEN,
    )


def _names_temp(root: dict[str, Any], kind: Kind) -> bool:
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


def _message(error: Exception) -> str:
    # It quotes the text from where it went wrong, a literal without an end for instance.
    return " ".join(str(error.args[0])[:200].split()) if error.args else "syntax error"


def _mentions_session(sql: str) -> bool:
    """Whether a text the grammar refuses may leave something behind in its session."""
    if len(sql) > bounds.MAX_SCANNED or _SETS.search(sql):
        return True
    return any(
        word in {"temp", "temporary", "listen", "prepare", "set_config", "load", "discard"}
        or functions.binds(word)
        for word in (m["word"].lower() for m in _WORD.finditer(_ended(sql)) if m["word"])
    )


def _ended(source: str) -> str:
    """`source` without the signs of comments that do not end, each of which `_WORD` would follow
    to the end of the text."""
    last = source.rfind("*/") + 2 if "*/" in source else 0
    return source[:last] + source[last:].replace("/*", "  ")


_LITERAL = re.compile(r"__\[POSTCOMPILE_\w+\]")
"""What SQLAlchemy replaces by a literal just before it is sent: the id of a two-phase commit."""


def _parse(sql: str) -> list[dict[str, Any]]:
    if "\0" in sql:
        raise ValueError(sql)
    if len(sql) > bounds.MAX_TOKENS:
        bounds.check(sql)  # before placeholders are looked for, which takes its time
    try:
        return _tree(placeholders.percent(sql) or sql)
    except pgparse.PGQueryError as error:
        for again in _variants(sql):
            try:
                return _tree(again)
            except pgparse.PGQueryError:
                continue
        raise error from None


def _variants(sql: str) -> Iterable[str]:
    """Other readings of a text that does not parse at first."""
    if "%" in sql:
        yield sql
    if "__[POSTCOMPILE_" in sql:
        yield _LITERAL.sub("'0'", sql)
    bare = placeholders.uncommented(sql)
    for text in (sql,) if bare is None else (bare, sql):
        if bare is not None and text is bare:
            yield placeholders.percent(bare) or bare
        for rewrite in (placeholders.percent, placeholders.colon):
            for form in (placeholders.dollars, placeholders.literals, placeholders.lists):
                rewritten = rewrite(text, form)
                if rewritten is not None:
                    yield rewritten


def _tree(sql: str) -> list[dict[str, Any]]:
    """The only way to the parser.

    Raises:
        bounds.TooComplex: it is not for the parser.
        pgparse.PGQueryError: it does not parse.
    """
    bounds.check(sql)
    return pgparse.parse(sql)  # type: ignore[no-any-return]


def _strongest(intents: list[Intent]) -> Intent:
    if len(intents) == 1:
        return intents[0]
    if not intents:
        return _EMPTY
    kinds = {i.kind for i in intents}
    needs = any(i.needs_transaction for i in intents)
    if kinds == {Kind.READ}:
        return Intent(Kind.READ, intents[0].reason, needs_transaction=needs)
    if kinds == {Kind.SESSION} and len({(i.local, i.no_transaction) for i in intents}) == 1:
        names: list[str] = []
        for i in intents:
            if i.settings is None:
                return replace(intents[0], settings=None)
            names.extend(n for n in i.settings if n not in names)
        return replace(intents[0], settings=tuple(names), read_only=None, isolation=None)
    order = (Kind.WRITE, Kind.TRANSACTION, Kind.SESSION)
    strongest = min((i for i in intents if i.kind in order), key=lambda i: order.index(i.kind))
    return Intent(
        Kind.WRITE,
        f"several statements, one of them {strongest.reason}",
        # What they set, or a transaction they leave open, nobody follows: stay with that session.
        binds=any(
            i.binds or i.kind is Kind.TRANSACTION or (i.kind is Kind.SESSION and not i.local)
            for i in intents
        ),
        holds=any(i.holds or (i.kind is Kind.SESSION and not i.local) for i in intents),
        ddl=any(i.ddl for i in intents),
        no_transaction=any(i.no_transaction for i in intents),
        on_standby=_together(intents),
    )


def _together(intents: list[Intent]) -> OnStandby:
    """What a standby makes of several statements: those before the refused one have acted."""
    if any(i.kind is Kind.TRANSACTION or i.kind is Kind.SESSION for i in intents):
        return OnStandby.ACTS
    found = {i.on_standby for i in intents if i.kind is Kind.WRITE}
    return max(found, key=list(OnStandby).index)


def _statement(node: dict[str, Any], judge: "_Judge") -> Intent:
    ((name, body),) = node.items()
    if name == "SelectStmt":
        return _select(node, judge)
    special = _STATEMENTS.get(name)
    if special is not None:
        return special(body, judge)
    walk = _Walk(judge)
    walk.run(node)
    sets = any(not c.local for c in walk.configs)
    return Intent(
        Kind.WRITE,
        "ANALYZE" if name == "VacuumStmt" and not _alone(body) else _statement_name(name),
        binds=walk.binds or sets or name in _BINDING,
        holds=walk.holds or sets or name in _BINDING,
        ddl=name not in _NOT_DDL or walk.ddl,
        no_transaction=name in _ALONE or _alone(body),
        on_standby=_there(name, node, walk),
    )


def _there(name: str, node: dict[str, Any], walk: "_Walk") -> OnStandby:
    """What a standby makes of a statement that is no query.

    It refuses a utility before looking further, and what changes rows when it begins to execute:
    all that can act before is what the planner runs.
    """
    if not _refused(name, node[name]):
        return OnStandby.ACTS
    if name not in _DML or walk.on_standby is OnStandby.REFUSED:
        return OnStandby.REFUSED
    planned = _Walk(walk.judge, plan_only=True)
    planned.run(node)
    return planned.on_standby if planned.acts or planned.unseen else OnStandby.REFUSED


def _refused(name: str, body: Mapping[str, Any]) -> bool:
    """Whether a standby refuses a statement by its kind."""
    if name == "LockStmt":
        return int(body.get("mode", 0)) > _ROW_EXCLUSIVE
    return name not in _RUN_BY_STANDBY


def _alone(body: Mapping[str, Any]) -> bool:
    return (
        bool(body.get("concurrent"))
        or bool(body.get("is_vacuumcmd"))
        or body.get("kind") in ("REINDEX_OBJECT_DATABASE", "REINDEX_OBJECT_SYSTEM")
        or any(
            o.get("DefElem", {}).get("defname") == "concurrently" for o in body.get("params", ())
        )
    )


def _statement_name(name: str) -> str:
    words = _CAMEL.sub(" ", name.removesuffix(_NODE_SUFFIX)).upper()
    return _NAMES.get(name, words)


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


def _select(node: dict[str, Any], judge: "_Judge") -> Intent:
    walk = _Walk(judge)
    walk.run(node)
    if walk.reason:
        # set_config in a write: the journal does not see it, so the session must be kept.
        sets = any(not c.local for c in walk.configs)
        return Intent(
            Kind.WRITE,
            walk.reason,
            binds=walk.binds or sets,
            holds=walk.holds or sets,
            ddl=walk.ddl,
            on_standby=walk.on_standby,
        )
    if not walk.configs:
        return _SELECT
    return _session(walk)


def _session(walk: "_Walk") -> Intent:
    """A SELECT that calls set_config."""
    configs = walk.configs
    local = configs[0].local
    if walk.varies or any(c.local is not local for c in configs) or local is None:
        why = "set_config() with an is_local that is not a constant"
        if walk.varies:
            why = f"set_config() beside {walk.varies}"
        elif local is not None:
            why = "set_config() local and not"
        sets = not all(c.local for c in configs)
        # Local settings end with the transaction, which is all on one node.
        there = OnStandby.ACTS if sets else OnStandby.DOUBTED
        return Intent(Kind.WRITE, why, binds=sets, holds=sets, on_standby=there)
    names = [c.name for c in reversed(configs)]  # the walk goes from the last to the first
    settings = None if None in names else tuple(dict.fromkeys(n for n in names if n))
    special = _special_setting(settings, None, local)
    if special is not None:
        return special
    return Intent(
        Kind.SESSION, "set_config()", local=local, settings=settings, needs_transaction=local
    )


def _special_setting(
    settings: Iterable[str] | None, value: str | None, local: bool
) -> Intent | None:
    """Settings by which the transaction's own mode changes."""
    for name in settings or ():
        if name == "default_transaction_isolation":
            level = (value or "").upper()
            if level not in ("READ COMMITTED", "READ UNCOMMITTED", "DEFAULT"):
                # Each read on a snapshot of its own would break what was asked for.
                return Intent(Kind.WRITE, f"SET {name}", binds=True, holds=True)
        elif name in ("transaction_isolation", "transaction_read_only", "transaction_deferrable"):
            return Intent(
                Kind.TRANSACTION,
                f"SET {name}",
                verb=Verb.SET,
                read_only=value not in _OFF if name == "transaction_read_only" and value else None,
                isolation=value.upper() if name == "transaction_isolation" and value else None,
            )
    return None


# -- statements with a rule of their own -------------------------------------------------------


def _modes(options: Iterable[dict[str, Any]]) -> tuple[bool | None, str | None]:
    read_only: bool | None = None
    isolation: str | None = None
    for option in options:
        element = option.get("DefElem", {})
        name, value = element.get("defname"), _constant(element.get("arg"))
        if name == "transaction_read_only":
            read_only = value not in _OFF
        elif name == "transaction_isolation" and value is not None:
            isolation = value.upper()
    return read_only, isolation


def _transaction(body: dict[str, Any], judge: "_Judge") -> Intent:
    verb = _TRANSACTION[body["kind"]]
    read_only, isolation = _modes(body.get("options", ()))
    reason = verb.value
    if read_only:
        reason += " READ ONLY"
    if isolation:
        reason += f" ISOLATION LEVEL {isolation}"
    if body.get("chain"):
        reason += " AND CHAIN"
    return Intent(
        Kind.TRANSACTION,
        reason,
        verb=verb,
        read_only=read_only,
        isolation=isolation,
        no_transaction=verb in (Verb.COMMIT_PREPARED, Verb.ROLLBACK_PREPARED),
    )


def _set(body: dict[str, Any], judge: "_Judge") -> Intent:
    kind = body["kind"]
    local = bool(body.get("is_local"))
    name = body.get("name", "").lower()
    if kind == "VAR_RESET_ALL":
        return Intent(Kind.SESSION, "RESET ALL", settings=None)
    if kind == "VAR_SET_MULTI":
        read_only, isolation = _modes(body.get("args", ()))
        if name == "transaction":
            return Intent(
                Kind.TRANSACTION, "SET TRANSACTION", verb=Verb.SET, read_only=read_only,
                isolation=isolation,
            )  # fmt: skip
        if name == "session characteristics":
            if isolation in _SNAPSHOT_LEVELS:
                return Intent(
                    Kind.WRITE, f"SET SESSION CHARACTERISTICS … {isolation}", binds=True,
                    holds=True,
                    read_only=read_only, isolation=isolation,
                )  # fmt: skip
            settings = tuple(
                "default_" + a["DefElem"]["defname"] for a in body["args"] if "DefElem" in a
            )
            return Intent(
                Kind.SESSION, "SET SESSION CHARACTERISTICS", settings=settings,
                read_only=read_only, isolation=isolation,
            )  # fmt: skip
        return Intent(Kind.WRITE, f"SET {name.upper()}")
    values = [_constant(a) for a in body.get("args", ())]
    value = values[0] if len(values) == 1 else None
    verb = "RESET" if kind == "VAR_RESET" else "SET LOCAL" if local else "SET"
    if kind in ("VAR_SET_DEFAULT", "VAR_RESET"):
        value = "DEFAULT"
    special = _special_setting((name,), value, local)
    if special is not None:
        return special
    return Intent(
        Kind.SESSION,
        f"{verb} {name}",
        local=local,
        settings=(name,),
        needs_transaction=local,
        read_only=value not in _OFF if name == "default_transaction_read_only" and value else None,
    )


def _constraints(body: dict[str, Any], judge: "_Judge") -> Intent:
    # It has a meaning for writes only, and names constraints of tables: the primary's business.
    return Intent(Kind.SESSION, "SET CONSTRAINTS", local=True, needs_transaction=True)


def _show(body: dict[str, Any], judge: "_Judge") -> Intent:
    return Intent(Kind.READ, "SHOW")


def _explain(body: dict[str, Any], judge: "_Judge") -> Intent:
    query = body["query"]
    analyze = any(
        o["DefElem"]["defname"] == "analyze"
        and _constant(o["DefElem"].get("arg"), "on") not in _OFF
        for o in body.get("options", ())
    )
    ((name, inner),) = query.items()
    if analyze:
        intent = _statement(query, judge)
        return replace(intent, reason=f"EXPLAIN ANALYZE of {intent.reason}")
    if name == "DeclareCursorStmt":
        query = inner["query"]
        ((name, inner),) = query.items()
    if name != "SelectStmt" and name not in _DML:
        intent = _statement(query, judge)
        # Only planned: nothing of it is refused by its kind.
        return replace(
            intent,
            kind=Kind.WRITE,
            reason=f"EXPLAIN of {intent.reason}",
            on_standby=OnStandby.ACTS,
        )
    walk = _Walk(judge, plan_only=True)
    walk.run(query)
    if walk.reason:
        return Intent(Kind.WRITE, f"EXPLAIN of {walk.reason}", on_standby=walk.on_standby)
    return Intent(Kind.READ, "EXPLAIN")


def _copy(body: dict[str, Any], judge: "_Judge") -> Intent:
    walk = _Walk(judge)
    walk.run(body)
    if body.get("is_from"):
        return Intent(Kind.WRITE, "COPY FROM", binds=walk.binds, on_standby=OnStandby.REFUSED)
    if body.get("is_program"):
        return Intent(Kind.WRITE, "COPY TO PROGRAM", binds=walk.binds)
    if body.get("filename"):
        return Intent(Kind.WRITE, "COPY TO a file", binds=walk.binds)
    if walk.reason or walk.configs:
        binds = walk.binds or bool(walk.configs)
        holds = walk.holds or bool(walk.configs)
        return Intent(
            Kind.WRITE,
            f"COPY of {walk.reason or 'set_config()'}",
            binds=binds,
            holds=holds,
            on_standby=OnStandby.ACTS if walk.configs else walk.on_standby,
        )
    return Intent(Kind.READ, "COPY TO STDOUT")


def _declare(body: dict[str, Any], judge: "_Judge") -> Intent:
    intent = _statement(body["query"], judge)
    if body.get("options", 0) & _HOLD:
        return Intent(Kind.WRITE, "DECLARE … WITH HOLD", binds=True, holds=True)
    if intent.kind is not Kind.READ:
        return replace(
            intent, kind=Kind.WRITE, reason=f"DECLARE CURSOR for {intent.reason}", binds=True
        )
    return Intent(Kind.READ, "DECLARE CURSOR", needs_transaction=True)


def _cursor(verb: str) -> Callable[[dict[str, Any], "_Judge"], Intent]:
    return lambda body, judge: Intent(
        Kind.READ, "MOVE" if body.get("ismove") else verb, needs_transaction=True
    )


def _discard(body: dict[str, Any], judge: "_Judge") -> Intent:
    target = body.get("target", "DISCARD_ALL").removeprefix("DISCARD_")
    if target == "ALL":
        return Intent(Kind.SESSION, "DISCARD ALL", settings=None, no_transaction=True)
    if target == "PLANS":
        return Intent(Kind.SESSION, "DISCARD PLANS")
    return Intent(Kind.WRITE, f"DISCARD {target}")


def _code(body: dict[str, Any], judge: "_Judge") -> Intent:
    walk = _Walk(judge)
    for argument in body.get("args", ()):
        element = argument.get("DefElem", {})
        if element.get("defname") == "as":
            walk.scan(_constant(element.get("arg")) or "")
    walk.resolve()
    return Intent(Kind.WRITE, "DO", binds=walk.binds, ddl=walk.ddl)


_STATEMENTS: Mapping[str, Callable[[dict[str, Any], "_Judge"], Intent]] = {
    "TransactionStmt": _transaction,
    "VariableSetStmt": _set,
    "ConstraintsSetStmt": _constraints,
    "VariableShowStmt": _show,
    "ExplainStmt": _explain,
    "CopyStmt": _copy,
    "DeclareCursorStmt": _declare,
    "FetchStmt": _cursor("FETCH"),
    "ClosePortalStmt": _cursor("CLOSE"),
    "DiscardStmt": _discard,
    "DoStmt": _code,
}


def _constant(node: Any, default: str | None = None) -> str | None:
    """The value of a literal as text, in lower case where it is a boolean; None if it is none."""
    if not node:
        return default
    ((kind, body),) = node.items() if len(node) == 1 else (("", {}),)
    if kind == "TypeCast":
        return _constant(body.get("arg"))
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


# -- what a statement reaches --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Config:
    """A call of set_config; None for what is not a constant."""

    name: str | None
    local: bool | None


_Object = Function | Relation | Type | Operator | Cast
_NO_NAMES: frozenset[str] = frozenset()


class _Judge:
    """The catalog and the users' rules, with what was already found harmless under them."""

    __slots__ = ("attributes", "catalog", "harmless", "implicit", "read", "write")

    def __init__(
        self, catalog: Catalog, read: Iterable[str] = (), write: Iterable[str] = ()
    ) -> None:
        self.catalog = catalog
        self.read = frozenset(read)
        self.write = frozenset(write)
        # Names that would be a call where a column is expected.
        self.attributes = frozenset(functions.UNSAFE).union(catalog.functions)
        # Only ever grows, by whole objects: safe to share between threads.
        self.harmless: set[_Object] = set()
        self.implicit: tuple[_Object, ...] = tuple(catalog.implicit())


class _Walk:
    """Everything a statement reaches, through views and function bodies too.

    Attributes:
        found: why it is not a read, by its form or by a function known to be unsafe.
        doubt: why it is not known to be a read.
        binds: it leaves something behind in its session.
        holds: it does so for certain.
        ddl: it makes or changes a relation, or runs code that seems to.
        configs: calls of set_config in the statement itself.
        acts: something it reaches is not refused by a standby.
        unseen: it reaches a function or operator that nobody knows.
        varies: what makes a second run of it on another node give something else.
    """

    __slots__ = (
        "_owner", "_plan_only", "_scope", "_seen", "_todo", "_touched", "acts", "binds",
        "catalog", "configs", "ddl", "doubt", "found", "holds", "judge", "unseen", "varies",
    )  # fmt: skip

    def __init__(self, judge: _Judge, *, plan_only: bool = False) -> None:
        self.found = ""
        self.doubt = ""
        self.binds = False
        self.holds = False
        self.ddl = False
        self.acts = False
        self.unseen = False
        self.configs: list[_Config] = []
        self.varies = ""
        self.catalog = judge.catalog
        self.judge = judge
        self._plan_only = plan_only
        self._scope = _NO_NAMES
        self._owner = ""
        self._touched = False
        self._todo: list[_Object] = []
        self._seen: set[_Object] = set()

    @property
    def reason(self) -> str:
        """Why it is not a read; empty when it is one."""
        return self.found or self.doubt

    @property
    def on_standby(self) -> OnStandby:
        """What a standby makes of what is no read."""
        if self.acts:
            return OnStandby.ACTS
        if self.unseen:
            return OnStandby.UNSEEN
        return OnStandby.REFUSED if self.found else OnStandby.DOUBTED

    def run(self, node: dict[str, Any]) -> None:
        """Walk a statement and what it reaches."""
        self._tree(node)
        self.resolve()

    def resolve(self) -> None:
        """Walk what was reached until nothing new is."""
        judge, seen, todo = self.judge, self._seen, self._todo
        if self._touched:
            todo.extend(judge.implicit)
        while todo:
            item = todo.pop()
            if item in seen or item in judge.harmless:
                continue
            seen.add(item)
            self._owner = item.name
            if isinstance(item, Function):
                self._function(item)
            elif isinstance(item, Relation):
                self._relation(item)
            elif isinstance(item, Type):
                self._type(item)
            else:
                self._named(item.call)
        if not (self.found or self.doubt or self.binds or self._plan_only):
            judge.harmless |= seen

    def _refuse(self, reason: str, *, acts: bool = True) -> None:
        """Call it no read.

        Args:
            reason: why.
            acts: a standby would run it all the same.
        """
        if acts:
            self.acts = True
        if not self.found:
            self.found = f"{reason}, inside {self._owner}" if self._owner else reason

    def _unknown(self, what: str, *, called: bool = False) -> None:
        if called:
            self.unseen = True
        if not self.doubt:
            if self.catalog.loaded:
                self.doubt = f"{what} is not in the catalog as last read"
            else:
                self.doubt = f"{what} is not PostgreSQL's own and the catalog is not loaded"
            if self._owner:
                self.doubt += f", inside {self._owner}"

    def _reach(self, items: Iterable[_Object]) -> None:
        self._touched = True
        self._todo.extend(items)

    # -- the tree ------------------------------------------------------------------------------

    def _tree(self, root: dict[str, Any]) -> None:
        checks, leaf, stack = _CHECKS, _LEAF, [root]
        pop, push, extend = stack.pop, stack.append, stack.extend
        while stack:
            for key, value in pop().items():
                kind = type(value)
                if kind is dict:
                    try:
                        check = checks[key]
                    except KeyError:
                        check = _learn(key)
                    if check is not leaf and (check is None or check(self, value)):
                        push(value)
                elif kind is list:
                    extend(value)

    def _query(self, node: dict[str, Any]) -> bool:
        if "withClause" in node:
            self._with(node)
            return False
        return True

    def _with(self, node: dict[str, Any]) -> None:
        """Walk a query that has CTEs: each sees those before it, or all of them if RECURSIVE."""
        clause = node["withClause"]
        outer = self._scope
        ctes = [c["CommonTableExpr"] for c in clause["ctes"]]
        if clause.get("recursive"):
            self._scope = outer.union([c["ctename"] for c in ctes])
        for cte in ctes:
            self._tree(cte)
            self._scope |= {cte["ctename"]}
        self._tree({key: value for key, value in node.items() if key != "withClause"})
        self._scope = outer

    def _statement(self, key: str, node: dict[str, Any]) -> bool:
        if not (self._plan_only and key in _DML):
            self._refuse(_statement_name(key), acts=not _refused(key, node))
        return self._query(node)

    def _locking(self, node: dict[str, Any]) -> bool:
        if not self._plan_only:
            lock = _LOCKS.get(node.get("strength", ""), "FOR …")
            self._refuse(f"SELECT … {lock}", acts=False)
        return False

    def _into(self, node: dict[str, Any]) -> bool:
        self._refuse("SELECT INTO", acts=False)
        self.ddl = True
        return True

    def _new(self, node: dict[str, Any]) -> bool:
        """A relation to be made."""
        if node.get("relpersistence") == "t":
            self.binds = self.holds = True
        return True

    def _range(self, node: dict[str, Any]) -> bool:
        name = node.get("relname")
        if name is None:
            return True
        if node.get("relpersistence") == "t":
            self.binds = self.holds = True
        schema = node.get("schemaname")
        if schema is None and name in self._scope:
            return False
        if not self.varies:
            self.varies = name
        found = self.catalog.relations.get(name, ())
        builtin = name in RELATIONS
        if name in functions.PRIMARYS and schema in (None, "pg_catalog"):
            self._refuse(f"{name}: {functions.PRIMARYS[name]}")
        if schema is not None:
            if schema == "information_schema" or (schema == "pg_catalog" and builtin):
                return False
            builtin = False
            found = tuple(r for r in found if r.schema == schema)
        if found:
            self._reach(found)
        elif not builtin:
            self._unknown(name)
        return False

    def _sample(self, node: dict[str, Any]) -> bool:
        self._names(_strings(node["method"]), None)
        return True

    def _call(self, node: dict[str, Any]) -> bool:
        parts = node["funcname"]
        args = node.get("args", ())
        judge = self.judge
        if len(parts) == 1 and not judge.write:
            name = parts[0]["String"]["sval"]
            # The usual case, without ado.
            if name in functions.STABLE_SAFE and name not in judge.catalog.functions:
                return True
        names = _strings(parts)
        if (
            names in (["set_config"], ["pg_catalog", "set_config"])
            and not (self._owner or self._plan_only)
            and "set_config" not in judge.catalog.functions
            and not self._ruled(judge.write, names)
        ):
            self.configs.append(_config(args))
            return True
        self._names(names, None if node.get("func_variadic") else len(args))
        return True

    def _names(self, parts: list[str], n: int | None) -> None:
        """A function called by name, with `n` arguments where that is known."""
        name = parts[-1]
        schema = parts[-2] if len(parts) > 1 else None
        judge = self.judge
        if self._ruled(judge.write, parts):
            self._refuse(f"{name}() is in write_functions")
        elif self._ruled(judge.read, parts):
            return
        builtin = schema is None or schema in ("pg_catalog", "information_schema")
        users = tuple(
            f
            for f in self.catalog.functions.get(name, ())
            if (f.schema == schema if schema is not None else True) and f.accepts(n)
        )
        if users:
            self._reach(users)
        if builtin and name in functions.SAFE:
            if name in functions.HARMLESS:
                self.varies = self.varies or f"{name}()"
            return
        why = functions.unsafe(name)
        if why is not None:
            if name in functions.THREE and n == 3:
                return
            if self._plan_only and name in functions.PLANNED:
                return
            if functions.binds(name):
                self.binds = self.holds = True
            self._refuse(f"{name}(): {why}", acts=name not in functions.REFUSED)
        elif not users:
            self.binds = True  # it may set what the journal never sees
            self._unknown(f"{name}()", called=True)

    @staticmethod
    def _ruled(rules: frozenset[str], parts: list[str]) -> bool:
        return bool(rules) and (parts[-1] in rules or ".".join(parts[-2:]) in rules)

    def _named(self, name: str) -> None:
        """A function known by its bare name: of an aggregate, an operator, a cast."""
        users = self.catalog.functions.get(name)
        if users:
            self._reach(users)
        why = functions.UNSAFE.get(name)
        if why is not None:
            self._refuse(f"{name}(): {why}")

    def _column(self, node: dict[str, Any]) -> bool:
        # x.f calls f(x) when x has no column f.
        fields = node["fields"]
        if len(fields) > 1:
            attributes = self.judge.attributes
            try:
                for item in fields:
                    if item["String"]["sval"] in attributes:
                        self._attributes(fields[1:])
                        break
            except KeyError:
                pass  # the star, which comes last
        return False

    def _indirection(self, node: dict[str, Any]) -> bool:
        self._attributes(node["indirection"])
        return True

    def _attributes(self, fields: list[dict[str, Any]]) -> None:
        for name in _strings(fields):
            if name in functions.UNSAFE:
                self._names([name], 1)
            elif name in self.catalog.functions and not self._ruled(self.judge.read, [name]):
                self._reach(f for f in self.catalog.functions[name] if f.accepts(1))

    def _cast(self, node: dict[str, Any]) -> bool:
        casts = self.catalog.casts
        if casts:
            ((arg, _),) = node["arg"].items()
            names = _strings(node["typeName"]["names"])
            # A literal or a parameter becomes the type at once, without a cast.
            if names[-1] in casts and arg not in ("A_Const", "ParamRef"):
                self._reach(casts[names[-1]])
        return True

    def _type_name(self, node: dict[str, Any]) -> bool:
        names = node.get("names")
        if not names:
            return True
        parts = _strings(names)
        name = parts[-1]
        schema = parts[-2] if len(parts) > 1 else None
        if name[:1] == "_" and (name[1:] in TYPES or name[1:] in self.catalog.types):
            name = name[1:]
        found = self.catalog.types.get(name)
        if found:
            self._reach(found)
        elif not (
            (name in TYPES and schema in (None, "pg_catalog"))
            or schema == "information_schema"
            or name in self.catalog.relations
            or (name in RELATIONS and schema in (None, "pg_catalog"))
        ):
            self._unknown(f"type {name}")
        return False

    def _operator(self, node: dict[str, Any]) -> bool:
        names = node.get("name") or node.get("operName") or node.get("useOp")
        if names:
            name = names[-1]["String"]["sval"]
            found = self.catalog.operators.get(name)
            if found:
                self._reach(found)
            elif name not in OPERATORS and name not in _WORD_OPERATORS:
                self._unknown(f"operator {name}", called=True)
        return True

    # -- the catalog's objects -----------------------------------------------------------------

    def _function(self, f: Function) -> None:
        judge, names = self.judge, [f.schema, f.name]
        if self._ruled(judge.write, names):
            self._refuse(f"{f.name}() is in write_functions")
        elif self._ruled(judge.read, names):
            return
        self._owner = ""
        why = functions.unsafe(f.name)
        if why is not None:
            self._refuse(f"{f.name}(): {why}")
            self.binds = self.binds or functions.binds(f.name)
        if self._plan_only:
            if not f.volatile:
                self._folded(f)
            return
        if f.volatile:
            self._refuse(f"{f.name}() is volatile")
        self._owner = f"{f.name}()"
        for name in f.calls:
            self._named(name)
        if f.language == "c" or f.calls:
            return
        if f.language == "sql":
            self._source(f.source)
        elif f.language == "plpgsql":
            self.scan(f.source)
        elif f.language != "internal":
            self.binds = self.binds or f.volatile
            self._refuse(f"{f.language}, which may do anything")
        elif f.source not in functions.SAFE:
            self._refuse(f"{f.source}")

    def _folded(self, f: Function) -> None:
        """The planner may run a function that is not volatile, to fold or to estimate."""
        walk = _Walk(self.judge)
        walk._todo.append(f)
        walk.resolve()
        self._owner = ""
        if walk.reason:
            self._refuse(walk.reason)

    def _relation(self, r: Relation) -> None:
        if r.refused:
            self._owner = ""
            self._refuse(f"{r.name} {r.refused}", acts=UNLOGGED not in r.refused)
            self._owner = r.name
        if r.source:
            self._source(r.source)
        for expression in r.expressions:
            self._source(f"SELECT {expression}")

    def _type(self, t: Type) -> None:
        for name in t.calls:
            self._named(name)
        for expression in t.expressions:
            self._source(f"SELECT {expression}")
        if t.base:
            self._reach(self.catalog.types.get(t.base, ()))

    def _source(self, sql: str) -> None:
        """The query of a view, or the body of a function in SQL."""
        try:
            statements = _tree(sql)
        except (pgparse.PGQueryError, RecursionError, UnicodeError, ValueError):
            self.scan(sql)
            self._refuse("a text that does not parse")
            return
        for node in statements:
            self._scope = _NO_NAMES
            body = node["stmt"]
            for name in body:
                if name[-4:] == _NODE_SUFFIX and name not in _NOT_DDL:
                    self.ddl = True
                if name in _BINDING or name == "VariableSetStmt":
                    self.binds = True
                if name == "CreateFunctionStmt":
                    body = body[name].get("sql_body", {})
            self._tree(body)

    def scan(self, source: str) -> None:
        """A body in PL/pgSQL: every name in it that could be unsafe counts as used."""
        catalog = self.catalog
        if len(source) > bounds.MAX_SCANNED:
            self.binds = self.ddl = True
            self._refuse("a text too long to be looked through")
            return
        source = _ended(source)
        if _SETS.search(source):
            self.binds = True
        if _DEFINES.search(source):
            self.ddl = True
        for match in _WORD.finditer(source):
            word, op = match["word"], match["op"]
            if op is not None:
                self._todo.extend(catalog.operators.get(op, ()))
                continue
            if word is not None:
                name = word.lower()
                if name in _SESSION_WORDS:
                    self.binds = True
                elif name == "execute":
                    self.binds = True
                    self._refuse("dynamic SQL")
            elif match["quoted"] is not None:
                name = match["quoted"].replace('""', '"')
            else:
                continue
            if not self._ruled(self.judge.read, [name]):
                why = functions.unsafe(name)
                if why is not None:
                    self.binds = self.binds or functions.binds(name)
                    self._refuse(f"{name}(): {why}")
                elif name in catalog.functions and _CALLED.match(source, match.end()):
                    self._todo.extend(catalog.functions[name])
                elif name in catalog.functions and source[match.start() - 1] == ".":
                    self._todo.extend(f for f in catalog.functions[name] if f.accepts(1))
            if name in functions.PRIMARYS:
                self._refuse(f"{name}: {functions.PRIMARYS[name]}")
            self._todo.extend(catalog.relations.get(name, ()))
            self._todo.extend(catalog.types.get(name, ()))


_SESSION_WORDS = frozenset({"temp", "temporary", "listen", "prepare", "load", "discard"})
_CALLED = re.compile(r"\s*\(")
_WORD_OPERATORS = frozenset(
    {"BETWEEN", "NOT BETWEEN", "BETWEEN SYMMETRIC", "NOT BETWEEN SYMMETRIC"}
)

_Check = Callable[[_Walk, dict[str, Any]], bool]


def _LEAF(walk: _Walk, node: dict[str, Any]) -> bool:  # noqa: N802 - a constant
    """Nothing below is of interest."""
    return False


# Node or field to what is looked at there; a check says whether to go on below. The grammar's
# other names are added as they are met.
_CHECKS: dict[str, _Check | None] = {
    "A_Const": _LEAF,
    "A_Expr": _Walk._operator,
    "A_Indirection": _Walk._indirection,
    "A_Star": _LEAF,
    "Alias": _LEAF,
    "ColumnRef": _Walk._column,
    "FuncCall": _Walk._call,
    "LockingClause": _Walk._locking,
    "ParamRef": _LEAF,
    "RangeTableSample": _Walk._sample,
    "RangeVar": _Walk._range,
    "ReturnStmt": None,  # a function's body
    "SelectStmt": _Walk._query,
    "SortBy": _Walk._operator,
    "String": _LEAF,
    "SubLink": _Walk._operator,
    "TypeCast": _Walk._cast,
    "TypeName": _Walk._type_name,
    "alias": _LEAF,
    "funccall": _Walk._call,
    "intoClause": _Walk._into,
    "larg": _Walk._query,
    "rarg": _Walk._query,
    "rel": _Walk._new,
    "relation": _Walk._range,
    "sequence": _Walk._new,
    "typeName": _Walk._type_name,
    "view": _Walk._new,
}


def _learn(key: str) -> _Check | None:
    def statement(walk: _Walk, node: dict[str, Any]) -> bool:
        return walk._statement(key, node)

    check = statement if key[-4:] == _NODE_SUFFIX and key[0] <= "Z" else None
    _CHECKS[key] = check
    return check


def _strings(nodes: Iterable[dict[str, Any]]) -> list[str]:
    return [n["String"].get("sval", "") for n in nodes if "String" in n]


def _config(args: Any) -> _Config:
    if len(args) != 3 or any("NamedArgExpr" in a for a in args):
        return _Config(None, None)
    name, local = _constant(args[0]), (_constant(args[2]) or "").lower()
    return _Config(
        name.lower() if name is not None else None,
        True if local in _ON else False if local in _OFF else None,
    )


# -- the cache -----------------------------------------------------------------------------------

Rule = Callable[[str], Intent | Kind | None]


class Classifier:
    """Intents by text: bounded, safe under threads, bound to a catalog and to users' rules.

    A text seen before costs one dict look-up and takes no lock.

    Args:
        catalog: what is known of the server.
        read_functions: functions to be taken as harmless, by name or schema.name.
        write_functions: functions to be taken as writes, likewise.
        read_patterns: regular expressions; a text in which one is found is a read.
        write_patterns: regular expressions; a text in which one is found is a write, before all.
        rule: asked after the patterns; None leaves the answer to the grammar.
        max_entries: how many texts are remembered.

    Attributes:
        known: what was told already, by text; for reading.
    """

    def __init__(
        self,
        catalog: Catalog = BUILTIN,
        *,
        read_functions: Iterable[str] = (),
        write_functions: Iterable[str] = (),
        read_patterns: Iterable[str | re.Pattern[str]] = (),
        write_patterns: Iterable[str | re.Pattern[str]] = (),
        rule: Rule | None = None,
        max_entries: int = 10_000,
    ) -> None:
        self._functions = (
            frozenset(f.lower() for f in read_functions),
            frozenset(f.lower() for f in write_functions),
        )
        self._judge = _Judge(catalog, *self._functions)
        self._read = tuple(re.compile(p) for p in read_patterns)
        self._write = tuple(re.compile(p) for p in write_patterns)
        self._rule = rule
        self._max = max_entries
        self._lock = registry.lock()
        self.known: dict[str, Intent] = {}
        self._learnt: dict[str, Intent] = {}
        self._misses = 0

    def __call__(self, sql: str) -> Intent:
        """What `sql` does."""
        intent = self.known.get(sql)
        return intent if intent is not None else self._miss(sql)

    def __len__(self) -> int:
        return len(self.known)

    def stats(self) -> dict[str, int]:
        """Texts remembered, texts learnt as writes by healing, and parses so far."""
        return {
            "entries": len(self.known), "learnt": len(self._learnt), "misses": self._misses,
        }  # fmt: skip

    def learn_write(self, sql: str, reason: str) -> None:
        """Take `sql` for a write from now on: a replica refused it."""
        with self._lock:
            intent = Intent(Kind.WRITE, reason, on_standby=OnStandby.REFUSED)
            self._bound(self._learnt)[sql] = intent
            self._bound(self.known)[sql] = self._learnt[sql]

    def replace_catalog(self, catalog: Catalog) -> None:
        """Judge by `catalog` from now on; forgets what was judged by the one before."""
        judge = _Judge(catalog, *self._functions)
        with self._lock:
            self._judge = judge
            # A new dict: a miss under way keeps writing into the one it started with.
            self.known = dict(self._learnt)

    def _miss(self, sql: str) -> Intent:
        with self._lock:
            cache, judge = self.known, self._judge
            self._misses += 1
        intent = self._decide(sql, judge)
        with self._lock:
            self._bound(cache)[sql] = self._learnt.get(sql, intent)
            return cache[sql]

    def _decide(self, sql: str, judge: _Judge) -> Intent:
        for pattern in self._write:
            if pattern.search(sql):
                return Intent(Kind.WRITE, f"matches write_patterns {pattern.pattern!r}")
        for pattern in self._read:
            if pattern.search(sql):
                return Intent(Kind.READ, f"matches read_patterns {pattern.pattern!r}")
        if self._rule is not None:
            said = self._rule(sql)
            if isinstance(said, Kind):
                return Intent(said, "the rule given by the user")
            if said is not None:
                return said
        return _classify(sql, judge)

    def _bound(self, cache: dict[str, Intent]) -> dict[str, Intent]:
        """Make room in `cache`: the oldest tenth goes."""
        if len(cache) >= self._max:
            for key in list(cache)[: max(1, self._max // 10)]:
                del cache[key]
        return cache
