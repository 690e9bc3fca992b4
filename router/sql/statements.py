"""What each kind of statement is: a read, a write, a matter of the session or transaction."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from router.sql import functions, grammar
from router.sql.intent import Intent, Kind, OnStandby, Verb
from router.sql.judge import Judge
from router.sql.names import Names
from router.sql.objects import Effect
from router.sql.plpgsql import scan
from router.sql.reach import Reach
from router.sql.settings import repeats

_SELECT = Intent(Kind.READ, "SELECT")

OWN_ANSWER = "whose answer is that server's own"
"""What the reason of a read says that is `server_local`."""


def statement(node: dict[str, Any], judge: Judge) -> Intent:
    """What the parsed statement `node` does, judged by `judge`."""
    ((name, body),) = node.items()
    if name == "SelectStmt":
        return _select(node, judge)
    special = _STATEMENTS.get(name)
    if special is not None:
        return special(body, judge)
    walk = Reach(Names().walk(node), judge)
    alone = grammar.runs_alone(body)
    ddl = name not in grammar.NOT_DDL or walk.ddl
    fires = ddl or name in grammar.FIRING
    walk.binds = walk.binds or (fires and judge.catalog.ddl_binds)  # by an event trigger
    return _write(
        walk,
        "ANALYZE" if name == "VacuumStmt" and not alone else grammar.statement_name(name),
        stays=name in grammar.BINDING,
        ddl=ddl,
        no_transaction=name in grammar.ALONE or alone,
        on_standby=_there(name, node, walk),
    )


def _write(walk: Reach, reason: str, *, stays: bool = False, **rest: Any) -> Intent:
    """A write that reaches what `walk` found; with `stays` it leaves something in its session."""
    # The journal does not see a set_config() in a write, so the session must be kept.
    stays = stays or walk.names.sets
    binds, holds = walk.binds or stays, walk.holds or stays
    signals = walk.signals
    return Intent(Kind.WRITE, reason, binds=binds, holds=holds, signals=signals, **rest)


def _read(what: str, local: str) -> Intent:
    """A read by `what`; `local` is what it names whose answer is the server's own, if anything."""
    if local:
        return Intent(Kind.READ, f"{what}, {OWN_ANSWER}: {local}", server_local=True)
    return Intent(Kind.READ, what)


def _there(name: str, node: dict[str, Any], walk: Reach) -> OnStandby:
    """What a standby makes of a statement that is no query. It refuses a utility before it looks
    further, and what changes rows when that begins to execute: only what the planner runs can act
    before."""
    if not grammar.refused(name, node[name]):
        return OnStandby.ACTS
    if name not in grammar.DML or walk.on_standby is OnStandby.REFUSED:
        return OnStandby.REFUSED
    planned = Reach(walk.names, walk.judge, plan_only=True)
    return planned.on_standby if planned.effect > Effect.REFUSED else OnStandby.REFUSED


def _select(node: dict[str, Any], judge: Judge) -> Intent:
    walk = Reach(Names().walk(node), judge)
    if walk.reason:
        return _write(walk, walk.reason, ddl=walk.ddl, on_standby=walk.on_standby)
    if walk.names.configs:
        return _session(walk, computed=not repeats(node))
    return _read("SELECT", walk.local) if walk.local else _SELECT


def _session(walk: Reach, *, computed: bool) -> Intent:
    """A SELECT that calls set_config, perhaps with a value that is `computed`."""
    configs = walk.names.configs
    local = configs[0].local
    if walk.varies or any(c.local is not local for c in configs) or local is None:
        why = "set_config() with an is_local that is not a constant"
        if walk.varies:
            why = f"set_config() beside {walk.varies}"
        elif local is not None:
            why = "set_config() local and not"
        return _unjournaled(why, sets=not all(c.local for c in configs))
    names = [c.name for c in reversed(configs)]  # the walk goes from the last to the first
    settings = None if None in names else tuple(dict.fromkeys(n for n in names if n))
    if computed and settings is None:  # nobody can ask what it has set
        return _unjournaled("set_config() of a name that is not a constant", sets=not local)
    return _special_setting(settings, None) or Intent(
        Kind.SESSION, "set_config()", local=local, settings=settings, needs_transaction=local,
        computed=computed,
    )  # fmt: skip


def _unjournaled(why: str, *, sets: bool) -> Intent:
    """A SELECT that calls set_config and cannot be brought to another node; with `sets` what it
    sets outlives the transaction. Else it ends with that, which is all on one node."""
    there = OnStandby.ACTS if sets else OnStandby.DOUBTED
    return Intent(Kind.WRITE, why, binds=sets, holds=sets, on_standby=there)


def _special_setting(settings: Iterable[str] | None, value: str | None) -> Intent | None:
    """The intent where one of `settings` changes the transaction's own mode, else None."""
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
                read_only=_on(value) if name == "transaction_read_only" else None,
                isolation=value.upper() if name == "transaction_isolation" and value else None,
            )
    return None


def _on(value: str | None) -> bool | None:
    """A boolean setting's `value`; None where none is given."""
    return value not in grammar.OFF if value else None


def _modes(options: Iterable[dict[str, Any]]) -> tuple[bool | None, str | None]:
    read_only: bool | None = None
    isolation: str | None = None
    for option in options:
        element = option.get("DefElem", {})
        name, value = element.get("defname"), grammar.constant(element.get("arg"))
        if name == "transaction_read_only":
            read_only = value not in grammar.OFF
        elif name == "transaction_isolation" and value is not None:
            isolation = value.upper()
    return read_only, isolation


def _transaction(body: dict[str, Any], judge: Judge) -> Intent:
    verb = grammar.TRANSACTION[body["kind"]]
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
            if isolation in grammar.SNAPSHOT_LEVELS:
                return Intent(
                    Kind.WRITE, f"SET SESSION CHARACTERISTICS … {isolation}", binds=True,
                    holds=True, read_only=read_only, isolation=isolation,
                )  # fmt: skip
            settings = tuple(
                "default_" + a["DefElem"]["defname"] for a in body["args"] if "DefElem" in a
            )
            return Intent(
                Kind.SESSION, "SET SESSION CHARACTERISTICS", settings=settings,
                read_only=read_only, isolation=isolation,
            )  # fmt: skip
        return Intent(Kind.WRITE, f"SET {name.upper()}")
    values = [grammar.constant(a) for a in body.get("args", ())]
    value = values[0] if len(values) == 1 else None
    verb = "RESET" if kind == "VAR_RESET" else "SET LOCAL" if local else "SET"
    if kind in ("VAR_SET_DEFAULT", "VAR_RESET"):
        value = "DEFAULT"
    read_only = _on(value) if name == "default_transaction_read_only" else None
    return _special_setting((name,), value) or Intent(
        Kind.SESSION, f"{verb} {name}", local=local, settings=(name,), needs_transaction=local,
        read_only=read_only, computed=kind == "VAR_SET_CURRENT",
    )  # fmt: skip


def _constraints(body: dict[str, Any], judge: Judge) -> Intent:
    # It has a meaning for writes only, and names constraints of tables: the primary's business.
    return Intent(Kind.SESSION, "SET CONSTRAINTS", local=True, needs_transaction=True)


def _show(body: dict[str, Any], judge: Judge) -> Intent:
    name = body["name"].lower()
    own = name in functions.LOCAL_SETTINGS or name == "all"
    return _read("SHOW", name if own else "")


def _explain(body: dict[str, Any], judge: Judge) -> Intent:
    query = body["query"]
    options = [option["DefElem"] for option in body.get("options", ())]
    if any(
        o["defname"] == "analyze" and grammar.constant(o.get("arg"), "on") not in grammar.OFF
        for o in options
    ):
        intent = statement(query, judge)
        return replace(intent, reason=f"EXPLAIN ANALYZE of {intent.reason}")
    if "DeclareCursorStmt" in query:
        query = query["DeclareCursorStmt"]["query"]
    (name,) = query
    if name != "SelectStmt" and name not in grammar.DML:
        intent = statement(query, judge)
        # Only planned: a standby refuses nothing of it by its kind.
        reason = f"EXPLAIN of {intent.reason}"
        return replace(intent, kind=Kind.WRITE, reason=reason, on_standby=OnStandby.ACTS)
    walk = Reach(Names().walk(query), judge, plan_only=True)
    if walk.reason:
        return Intent(Kind.WRITE, f"EXPLAIN of {walk.reason}", on_standby=walk.on_standby)
    return Intent(Kind.READ, "EXPLAIN")


def _copy(body: dict[str, Any], judge: Judge) -> Intent:
    names = Names().walk(body)
    if body.get("is_from"):
        names.writes(body["relation"])
    walk = Reach(names, judge)
    if body.get("is_from"):
        return _write(walk, "COPY FROM", on_standby=OnStandby.REFUSED)
    if body.get("is_program"):
        return _write(walk, "COPY TO PROGRAM")
    if body.get("filename"):
        return _write(walk, "COPY TO a file")
    configs = walk.names.configs
    if walk.reason or configs:
        there = OnStandby.ACTS if configs else walk.on_standby
        return _write(walk, f"COPY of {walk.reason or 'set_config()'}", on_standby=there)
    return _read("COPY TO STDOUT", walk.local)


def _declare(body: dict[str, Any], judge: Judge) -> Intent:
    intent = statement(body["query"], judge)
    if body.get("options", 0) & grammar.HOLD:
        return Intent(Kind.WRITE, "DECLARE … WITH HOLD", binds=True, holds=True)
    if intent.kind is not Kind.READ:
        reason = f"DECLARE CURSOR for {intent.reason}"
        return replace(intent, kind=Kind.WRITE, reason=reason, binds=True)
    reason = f"DECLARE CURSOR for {intent.reason}" if intent.server_local else "DECLARE CURSOR"
    return replace(intent, reason=reason, needs_transaction=True)


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
    said = {
        element["defname"]: grammar.constant(element.get("arg")) or ""
        for argument in body.get("args", ())
        if (element := argument.get("DefElem"))
    }
    names = scan(said.get("as", ""))
    walk = Reach(names, judge)
    binds = walk.binds or names.sets
    if said.get("language", "plpgsql").lower() != "plpgsql":
        binds = True  # nobody reads it
    elif not (walk.reason or binds or walk.ddl):
        return _read("DO", walk.local)
    return Intent(Kind.WRITE, "DO", binds=binds, ddl=walk.ddl, signals=walk.signals)


def _procedure(body: dict[str, Any], judge: Judge) -> Intent:
    """A CALL: of the procedure, and of what gives its arguments."""
    walk = Reach(Names().walk({"FuncCall": body["funccall"]}), judge)
    if walk.reason or walk.binds or walk.names.sets or walk.ddl:
        reason = f"CALL: {walk.reason}" if walk.reason else "CALL"
        return _write(walk, reason, ddl=walk.ddl, on_standby=walk.on_standby)
    return _read("CALL", walk.local)


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
    "CallStmt": _procedure,
}
