"""What a parse tree names: functions, relations, types and operators, and what its form shows."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from router.sql import functions, grammar
from router.sql.builtins import OPERATORS, RELATIONS, TYPES
from router.sql.catalog import Catalog, Function
from router.sql.grammar import strings
from router.sql.intent import OnStandby
from router.sql.judge import Judge, Object
from router.sql.settings import pasted


@dataclass(frozen=True, slots=True)
class SetConfig:
    """A call of set_config(): its arguments, None for one that is not a constant."""

    name: str | None
    local: bool | None


NO_NAMES: frozenset[str] = frozenset()


class Tree:
    """What a statement's form shows, and what it names: `router.sql.reach.Walk` looks behind that.

    Attributes:
        found: why it is not a read, by its form or by a function known to be unsafe.
        doubt: why it is not known to be a read.
        binds: it leaves something behind in its session.
        holds: it does so for certain.
        ddl: it makes or changes a relation, or runs code that seems to.
        configs: calls of set_config() in the statement itself.
        acts: a standby does not refuse something it reaches.
        unseen: it reaches a function or operator that nobody knows.
        varies: what makes a second run on another node give something else.
    """

    __slots__ = (
        "_owner", "_plan_only", "_scope", "_seen", "_todo", "_touched", "acts", "binds",
        "catalog", "configs", "ddl", "doubt", "found", "holds", "judge", "unseen", "varies",
    )  # fmt: skip

    def __init__(self, judge: Judge, *, plan_only: bool = False) -> None:
        self.found: str = ""
        self.doubt: str = ""
        self.binds: bool = False
        self.holds: bool = False
        self.ddl: bool = False
        self.acts: bool = False
        self.unseen: bool = False
        self.configs: list[SetConfig] = []
        self.varies: str = ""
        self.catalog: Catalog = judge.catalog
        self.judge: Judge = judge
        self._plan_only = plan_only
        self._scope = NO_NAMES
        self._owner = ""
        self._touched = False
        self._todo: list[Object] = []
        self._seen: set[Object] = set()

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

    def _refuse(self, reason: str, *, acts: bool = True) -> None:
        """Call the statement no read, for `reason`; `acts`: a standby would run it."""
        if acts:
            self.acts = True
        if not self.found:
            self.found = f"{reason}, inside {self._owner}" if self._owner else reason

    def _unknown(self, what: str, *, called: bool = False) -> None:
        if called:
            self.unseen = True
        if not self.doubt:
            why = "in the catalog as last read"
            if not self.catalog.loaded:
                why = "PostgreSQL's own and the catalog is not loaded"
            self.doubt = f"{what} is not {why}" + (
                f", inside {self._owner}" if self._owner else ""
            )

    def _reach(self, items: Iterable[Object]) -> None:
        self._touched = True
        self._todo.extend(items)

    def walk(self, root: dict[str, Any]) -> None:
        """Look at every node from `root` down."""
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
            self.walk(cte)
            self._scope |= {cte["ctename"]}
        self.walk({key: value for key, value in node.items() if key != "withClause"})
        self._scope = outer

    def _statement(self, key: str, node: dict[str, Any]) -> bool:
        if not (self._plan_only and key in grammar.DML):
            self._refuse(grammar.statement_name(key), acts=not grammar.refused(key, node))
        if key == "UpdateStmt" and grammar.names(node["relation"], "pg_settings"):
            # Its rule calls set_config() instead, which a standby does as well.
            self.acts = True
            if not self._plan_only:
                self.binds = self.holds = True
        return self._query(node)

    def _locking(self, node: dict[str, Any]) -> bool:
        if not self._plan_only:
            lock = grammar.LOCKS.get(node.get("strength", ""), "FOR …")
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
        self._names(strings(node["method"]), None)
        return True

    def _call(self, node: dict[str, Any]) -> bool:
        parts, args, judge = node["funcname"], node.get("args", ()), self.judge
        if len(parts) == 1 and not judge.write:
            name = parts[0]["String"]["sval"]
            # The usual case: a function of PostgreSQL's own, which no rule and no user hides.
            if name in functions.STABLE_SAFE and name not in judge.catalog.functions:
                return True
        names = strings(parts)
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
        users = self._users(name, schema, n)
        if users:
            self._reach(users)
        if builtin and name in functions.SAFE:
            if name in functions.HARMLESS:
                self.varies = self.varies or f"{name}()"
            return
        why = functions.unsafe(name)
        if why is not None:
            self._unsafe(name, n, why)
        elif not users:
            self.binds = True  # it may set what the journal never sees
            self._unknown(f"{name}()", called=True)

    def _unsafe(self, name: str, n: int | None, why: str) -> None:
        """A function that only the primary may run, with `n` arguments where that is known."""
        if name in functions.THREE and n == 3:
            return  # the form that runs no SQL given as text
        if self._plan_only and name in functions.PLANNED:
            return  # the planner does not run it
        if functions.binds(name):
            self.binds = self.holds = True
        self._refuse(f"{name}(): {why}", acts=name not in functions.REFUSED)

    def _users(self, name: str, schema: str | None, n: int | None) -> tuple[Function, ...]:
        """The database's own functions that a call may mean."""
        found = self.catalog.functions.get(name, ())
        if schema is not None:
            found = tuple(f for f in found if f.schema == schema)
        return tuple(f for f in found if f.accepts(n))

    @staticmethod
    def _ruled(rules: frozenset[str], parts: list[str]) -> bool:
        return bool(rules) and (parts[-1] in rules or ".".join(parts[-2:]) in rules)

    def _named(self, name: str) -> None:
        """A function known by its bare name: of an aggregate, an operator, a cast."""
        if users := self.catalog.functions.get(name):
            self._reach(users)
        if (why := functions.UNSAFE.get(name)) is not None:
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
        for name in strings(fields):
            if name in functions.UNSAFE:
                self._names([name], 1)
            elif name in self.catalog.functions and not self._ruled(self.judge.read, [name]):
                self._reach(f for f in self.catalog.functions[name] if f.accepts(1))

    def _cast(self, node: dict[str, Any]) -> bool:
        casts = self.catalog.casts
        if casts:
            ((arg, _),) = node["arg"].items()
            names = strings(node["typeName"]["names"])
            # A literal or a parameter becomes the type at once, without a cast.
            if names[-1] in casts and arg not in ("A_Const", "ParamRef"):
                self._reach(casts[names[-1]])
        return True

    def _type_name(self, node: dict[str, Any]) -> bool:
        names = node.get("names")
        if not names:
            return True
        parts = strings(names)
        name = parts[-1]
        schema = parts[-2] if len(parts) > 1 else None
        if name[:1] == "_" and (name[1:] in TYPES or name[1:] in self.catalog.types):
            name = name[1:]
        if found := self.catalog.types.get(name):
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
            if found := self.catalog.operators.get(name):
                self._reach(found)
            elif name not in OPERATORS and name not in grammar.WORD_OPERATORS:
                self._unknown(f"operator {name}", called=True)
        return True


_Check = Callable[[Tree, dict[str, Any]], bool]


def _LEAF(walk: Tree, node: dict[str, Any]) -> bool:  # noqa: N802 - a constant
    """Nothing below is of interest."""
    return False


# Node or field to what is looked at there; a check says whether to go on below. The grammar's
# other names are added as they are met.
_CHECKS: dict[str, _Check | None] = {
    "A_Const": _LEAF,
    "A_Expr": Tree._operator,
    "A_Indirection": Tree._indirection,
    "A_Star": _LEAF,
    "Alias": _LEAF,
    "ColumnRef": Tree._column,
    "FuncCall": Tree._call,
    "LockingClause": Tree._locking,
    "ParamRef": _LEAF,
    "RangeTableSample": Tree._sample,
    "RangeVar": Tree._range,
    "ReturnStmt": None,  # a function's body
    "SelectStmt": Tree._query,
    "SortBy": Tree._operator,
    "String": _LEAF,
    "SubLink": Tree._operator,
    "TypeCast": Tree._cast,
    "TypeName": Tree._type_name,
    "alias": _LEAF,
    "funccall": Tree._call,
    "intoClause": Tree._into,
    "larg": Tree._query,
    "rarg": Tree._query,
    "rel": Tree._new,
    "relation": Tree._range,
    "sequence": Tree._new,
    "typeName": Tree._type_name,
    "view": Tree._new,
}


def _learn(key: str) -> _Check | None:
    def statement(walk: Tree, node: dict[str, Any]) -> bool:
        return walk._statement(key, node)

    check = statement if key[-4:] == grammar.NODE_SUFFIX and key[0] <= "Z" else None
    _CHECKS[key] = check
    return check


def _config(args: Any) -> SetConfig:
    if len(args) != 3 or any("NamedArgExpr" in a for a in args):
        return SetConfig(None, None)
    name, local = (None if pasted(args[i]) else grammar.constant(args[i]) for i in (0, 2))
    local = (local or "").lower()
    known = local in grammar.ON or local in grammar.OFF
    return SetConfig(
        None if name is None else name.lower(), local in grammar.ON if known else None
    )
