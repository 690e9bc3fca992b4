"""What each kind of statement is: a read, a write, a matter of the session or transaction."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from router.sql.grammar import (
    ALONE,
    BINDING,
    DML,
    HOLD,
    NOT_DDL,
    OFF,
    SNAPSHOT_LEVELS,
    TRANSACTION,
    constant,
    refused,
    runs_alone,
    statement_name,
)
from router.sql.intent import Intent, Kind, OnStandby, Verb
from router.sql.judge import Judge
from router.sql.reach import Walk

_SELECT = Intent(Kind.READ, "SELECT")


def statement(node: dict[str, Any], judge: Judge) -> Intent:
    """What one parsed statement does, judged by `judge`."""
    ((name, body),) = node.items()
    if name == "SelectStmt":
        return _select(node, judge)
    special = _STATEMENTS.get(name)
    if special is not None:
        return special(body, judge)
    walk = Walk(judge)
    walk.run(node)
    sets = any(not c.local for c in walk.configs)
    return Intent(
        Kind.WRITE,
        "ANALYZE" if name == "VacuumStmt" and not runs_alone(body) else statement_name(name),
        binds=walk.binds or sets or name in BINDING,
        holds=walk.holds or sets or name in BINDING,
        ddl=name not in NOT_DDL or walk.ddl,
        no_transaction=name in ALONE or runs_alone(body),
        on_standby=_there(name, node, walk),
    )


def _there(name: str, node: dict[str, Any], walk: Walk) -> OnStandby:
    """What a standby makes of a statement that is no query.

    It refuses a utility before looking further, and what changes rows when it begins to execute:
    all that can act before is what the planner runs.
    """
    if not refused(name, node[name]):
        return OnStandby.ACTS
    if name not in DML or walk.on_standby is OnStandby.REFUSED:
        return OnStandby.REFUSED
    planned = Walk(walk.judge, plan_only=True)
    planned.run(node)
    return planned.on_standby if planned.acts or planned.unseen else OnStandby.REFUSED


def _select(node: dict[str, Any], judge: Judge) -> Intent:
    walk = Walk(judge)
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


def _session(walk: Walk) -> Intent:
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
                read_only=value not in OFF if name == "transaction_read_only" and value else None,
                isolation=value.upper() if name == "transaction_isolation" and value else None,
            )
    return None


# -- statements with a rule of their own -------------------------------------------------------


def _modes(options: Iterable[dict[str, Any]]) -> tuple[bool | None, str | None]:
    read_only: bool | None = None
    isolation: str | None = None
    for option in options:
        element = option.get("DefElem", {})
        name, value = element.get("defname"), constant(element.get("arg"))
        if name == "transaction_read_only":
            read_only = value not in OFF
        elif name == "transaction_isolation" and value is not None:
            isolation = value.upper()
    return read_only, isolation


def _transaction(body: dict[str, Any], judge: Judge) -> Intent:
    verb = TRANSACTION[body["kind"]]
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


def _set(body: dict[str, Any], judge: Judge) -> Intent:
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
            if isolation in SNAPSHOT_LEVELS:
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
    values = [constant(a) for a in body.get("args", ())]
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
        read_only=value not in OFF if name == "default_transaction_read_only" and value else None,
    )


def _constraints(body: dict[str, Any], judge: Judge) -> Intent:
    # It has a meaning for writes only, and names constraints of tables: the primary's business.
    return Intent(Kind.SESSION, "SET CONSTRAINTS", local=True, needs_transaction=True)


def _show(body: dict[str, Any], judge: Judge) -> Intent:
    return Intent(Kind.READ, "SHOW")


def _explain(body: dict[str, Any], judge: Judge) -> Intent:
    query = body["query"]
    analyze = any(
        o["DefElem"]["defname"] == "analyze" and constant(o["DefElem"].get("arg"), "on") not in OFF
        for o in body.get("options", ())
    )
    ((name, inner),) = query.items()
    if analyze:
        intent = statement(query, judge)
        return replace(intent, reason=f"EXPLAIN ANALYZE of {intent.reason}")
    if name == "DeclareCursorStmt":
        query = inner["query"]
        ((name, inner),) = query.items()
    if name != "SelectStmt" and name not in DML:
        intent = statement(query, judge)
        # Only planned: nothing of it is refused by its kind.
        return replace(
            intent,
            kind=Kind.WRITE,
            reason=f"EXPLAIN of {intent.reason}",
            on_standby=OnStandby.ACTS,
        )
    walk = Walk(judge, plan_only=True)
    walk.run(query)
    if walk.reason:
        return Intent(Kind.WRITE, f"EXPLAIN of {walk.reason}", on_standby=walk.on_standby)
    return Intent(Kind.READ, "EXPLAIN")


def _copy(body: dict[str, Any], judge: Judge) -> Intent:
    walk = Walk(judge)
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


def _declare(body: dict[str, Any], judge: Judge) -> Intent:
    intent = statement(body["query"], judge)
    if body.get("options", 0) & HOLD:
        return Intent(Kind.WRITE, "DECLARE … WITH HOLD", binds=True, holds=True)
    if intent.kind is not Kind.READ:
        return replace(
            intent, kind=Kind.WRITE, reason=f"DECLARE CURSOR for {intent.reason}", binds=True
        )
    return Intent(Kind.READ, "DECLARE CURSOR", needs_transaction=True)


def _cursor(verb: str) -> Callable[[dict[str, Any], Judge], Intent]:
    return lambda body, judge: Intent(
        Kind.READ, "MOVE" if body.get("ismove") else verb, needs_transaction=True
    )


def _discard(body: dict[str, Any], judge: Judge) -> Intent:
    target = body.get("target", "DISCARD_ALL").removeprefix("DISCARD_")
    if target == "ALL":
        return Intent(Kind.SESSION, "DISCARD ALL", settings=None, no_transaction=True)
    if target == "PLANS":
        return Intent(Kind.SESSION, "DISCARD PLANS")
    return Intent(Kind.WRITE, f"DISCARD {target}")


def _code(body: dict[str, Any], judge: Judge) -> Intent:
    walk = Walk(judge)
    for argument in body.get("args", ()):
        element = argument.get("DefElem", {})
        if element.get("defname") == "as":
            walk.scan(constant(element.get("arg")) or "")
    walk.resolve()
    return Intent(Kind.WRITE, "DO", binds=walk.binds, ddl=walk.ddl)


_STATEMENTS: Mapping[str, Callable[[dict[str, Any], Judge], Intent]] = {
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
