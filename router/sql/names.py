"""What a parse tree names: functions, relations, types and operators, and what its form shows."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from router.sql import functions, grammar
from router.sql.grammar import strings
from router.sql.intent import Kind
from router.sql.objects import NO_TYPES, Effect
from router.sql.settings import pasted

NO_NAMES: frozenset[str] = frozenset()
COMPARISONS = ("=", "<>", "<", "<=", ">", ">=")
"""Operators that the form of an expression implies, though its text names none."""

SYSTEM_COLUMNS = frozenset({"cmin", "cmax"})
"""Columns that differ on a standby: no record of WAL has them, so replay sets others."""


def type_names(name: str) -> tuple[str, ...]:
    """`name` of a type, and where it may be that of its arrays, the name of their elements'."""
    return (name, name[1:]) if name[:1] == "_" else (name,)


class Call(NamedTuple):
    """A function that is called: its schema where one is given, and how many arguments it gets
    where that is known."""

    schema: str | None
    name: str
    n: int | None


class Named(NamedTuple):
    """A relation or type by its name, with its schema where one is given."""

    schema: str | None
    name: str


class Form(NamedTuple):
    """What the form of a statement shows that makes it no read.

    Attributes:
        reason: the words of it.
        effect: what a standby makes of it.
        executed: it does nothing where the statement is only planned.
    """

    reason: str
    effect: Effect
    executed: bool = False


@dataclass(frozen=True, slots=True)
class SetConfig:
    """A call of set_config(): its arguments, None for one that is not a constant."""

    name: str | None
    local: bool | None


class Names:
    """Collects what is named below a node of a parse tree.

    Attributes:
        calls, relations, types, operators: what is named; the first three in order.
        casts: types that a value, not a bare literal, is cast to.
        columns: names of columns, or of what a column belongs to.
        attributes: those behind a dot, which call a function where no column has that name.
        aliases: names given to relations.
        whole: it takes all columns of something.
        written: relations whose rows are changed.
        naming: functions that read a relation, and whether all calls say its name in the text,
            which is among the `relations` then.
        mentioned: names in a text without a tree, which may be of anything.
        forms: what makes it no read by itself.
        binds: it leaves something behind in its session.
        holds: it does so for certain.
        ddl: it makes or changes a relation.
        loose: there was no tree: any word may be a name, and each assignment a cast.
        configs: calls of set_config().
        local: a setting it asks for that is another one on each server; empty for none.
    """

    __slots__ = (
        "_scope", "aliases", "attributes", "binds", "calls", "casts", "columns", "configs",
        "ddl", "forms", "holds", "local", "loose", "mentioned", "naming", "operators",
        "relations", "types", "whole", "written",
    )  # fmt: skip

    def __init__(self) -> None:
        self.calls: dict[Call, None] = {}
        self.relations: dict[Named, None] = {}
        self.types: dict[Named, None] = {}
        self.casts: dict[Named, None] = {}
        self.operators: set[str] = set()
        self.columns: set[str] = set()
        self.attributes: set[str] = set()
        self.aliases: set[str] = set()
        self.whole: bool = False
        self.written: set[Named] = set()
        self.mentioned: set[str] = set()
        self.naming: dict[str, bool] = {}
        self.forms: list[Form] = []
        self.configs: list[SetConfig] = []
        self.binds: bool = False
        self.holds: bool = False
        self.ddl: bool = False
        self.local: str = ""
        self.loose: bool = False
        self._scope = NO_NAMES

    @property
    def sets(self) -> bool:
        """Whether it calls a set_config() that outlives the transaction, or may."""
        return any(not config.local for config in self.configs)

    def walk(self, root: dict[str, Any]) -> "Names":
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
                elif kind is list and key not in _SAID:
                    extend(value)
        return self

    def body(self, statements: list[dict[str, Any]]) -> "Names":
        """Look at the `statements` of a function's body."""
        for node in statements:
            self._scope = NO_NAMES
            for name, body in node["stmt"].items():
                if name[-4:] == grammar.NODE_SUFFIX and name not in grammar.NOT_DDL:
                    self.ddl = self.ddl or name not in ("VariableSetStmt", "TransactionStmt")
                if name in grammar.BINDING or name == "DiscardStmt":
                    self.binds = True
                temp = grammar.names_temp(body, Kind.WRITE)
                if temp:
                    self.refuse("names pg_temp", Effect.UNKNOWN)
                if temp or name == "DeclareCursorStmt":
                    self.binds = True
                self.ddl = self.ddl or name in grammar.FIRING
                if name == "VariableSetStmt" and not body.get("is_local"):
                    self.binds = True
            self.walk(node["stmt"])
        return self

    def kept(self) -> "Names":
        """The same, for keeping: what is empty takes no memory. Nothing may be added any more."""
        for slot in self.__slots__:
            value = getattr(self, slot)
            for nothing in _NOTHING:
                if type(value) is type(nothing) and not value:
                    setattr(self, slot, nothing)
        return self

    def refuse(self, reason: str, effect: Effect, *, executed: bool = False) -> None:
        """It is no read, for `reason`."""
        self.forms.append(Form(reason, effect, executed))

    def asks(self, setting: str | None) -> None:
        """It asks for `setting`, None for one that is no constant."""
        if setting is None:
            self.local = self.local or functions.SOME_SETTING
        elif setting.lower() in functions.LOCAL_SETTINGS:
            self.local = self.local or setting.lower()

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
        dml = key in grammar.DML
        if dml:
            target = node["relation"]
            self.writes(target)
        elif key in grammar.CHANGING and "relation" in node:
            self.writes(node["relation"])
        elif key == "TruncateStmt":
            for target in node["relations"]:
                self.writes(target["RangeVar"])
        effect = Effect.REFUSED if grammar.refused(key, node) else Effect.ACTS
        self.refuse(grammar.statement_name(key), effect, executed=dml)
        if key == "UpdateStmt" and grammar.names(node["relation"], "pg_settings"):
            # Its rule calls set_config() instead, which a standby does as well.
            self.refuse("UPDATE pg_settings", Effect.ACTS)
            self.binds = self.holds = True
        return self._query(node)

    def writes(self, relation: Mapping[str, Any]) -> None:
        """It changes the rows of the RangeVar `relation`."""
        self.written.add(Named(relation.get("schemaname"), relation["relname"]))

    def _locking(self, node: dict[str, Any]) -> bool:
        lock = grammar.LOCKS.get(node.get("strength", ""), "FOR …")
        self.refuse(f"SELECT … {lock}", Effect.REFUSED, executed=True)
        return False

    def _into(self, node: dict[str, Any]) -> bool:
        self.refuse("SELECT INTO", Effect.REFUSED)
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
        if "alias" in node:
            self._alias(node["alias"])
        if node.get("relpersistence") == "t":
            self.binds = self.holds = True
        schema = node.get("schemaname")
        if schema is not None or name not in self._scope:
            self.relations[Named(schema, name)] = None
        return False

    def _sample(self, node: dict[str, Any]) -> bool:
        self._called(strings(node["method"]), None)
        return True

    def _call(self, node: dict[str, Any]) -> bool:
        names, args = strings(node["funcname"]), node.get("args", ())
        name = names[-1]
        if name == "set_config" and names[0] in ("set_config", "pg_catalog"):
            self.configs.append(_config(args))
            return True
        if name == "current_setting" and args:
            named = grammar.constant(args[0]) or _prefix(args[0])
            if named is not None or not _is_parameter(args[0]):
                self.asks(named)
        if name in _NAMING_TYPES and self._names_type(args):
            return True
        n = len(args)
        if name in functions.NAMING_RELATIONS:
            self.naming[name] = self._names_relation(args) and self.naming.get(name, True)
        if "agg_within_group" in node:  # what the values are ordered by are arguments too
            n += len(node["agg_order"])
        self._called(names, None if "func_variadic" in node else n)
        return True

    def _called(self, parts: list[str], n: int | None) -> None:
        self.calls[Call(parts[-2] if len(parts) > 1 else None, parts[-1], n)] = None

    def _names_type(self, args: Any) -> bool:
        """Whether a function that is given the name of a type as text says it as a constant."""
        said = grammar.constant(args[1]) if len(args) > 1 else None
        if said is None or '"' in said:
            return False
        parts = [p.strip('" ') for p in said.split("(")[0].replace("[]", "").split(".")]
        word = parts[-1].lower()
        for name in {
            functions.TYPE_WORDS.get(word, parts[-1]),
            word,
        } - functions.TYPE_WORDS.keys():
            self.types[Named(parts[-2] if len(parts) > 1 else None, name)] = None
        return True

    def _names_relation(self, args: Any) -> bool:
        """Whether a function that reads the relation it is given by name gets it as a constant."""
        said = grammar.constant(args[0]) if args else None
        if said is None or not _RELATION.fullmatch(said):
            return False
        *schema, name = said.lower().split(".")
        self.relations[Named(schema[0] if schema else None, name)] = None
        self.whole = True
        return True

    def met(self, relation: str, columns: Mapping[str, frozenset[int]]) -> frozenset[int]:
        """Of the types of `columns`, those whose values can occur where `relation` is read."""
        if not columns:
            return NO_TYPES
        named = self.columns
        if self.loose or self.whole or relation in named or not self.aliases.isdisjoint(named):
            return frozenset().union(*columns.values())
        return frozenset().union(*(columns[name] for name in columns.keys() & named))

    def _column(self, node: dict[str, Any]) -> bool:
        first, *more = fields = node["fields"]
        column = fields[-1].get("String", {}).get("sval")
        if column in SYSTEM_COLUMNS:
            self.refuse(column, Effect.ACTS)
        try:
            self.columns.add(first["String"]["sval"])
            # x.f calls f(x) when x has no column f.
            for item in more:
                name = item["String"]["sval"]
                self.columns.add(name)
                self.attributes.add(name)
        except KeyError:
            self.whole = True  # the star, which comes last
        return False

    def _alias(self, node: dict[str, Any]) -> bool:
        self.aliases.add(node["aliasname"])
        if "colnames" in node:
            self.whole = True  # what they rename is not known here
        return False

    def _indirection(self, node: dict[str, Any]) -> bool:
        names = strings(node["indirection"])
        self.attributes.update(names)
        self.columns.update(names)
        self.whole = self.whole or any("A_Star" in part for part in node["indirection"])
        return True

    def _cast(self, node: dict[str, Any]) -> bool:
        ((kind, arg),) = node["arg"].items()
        # A string becomes the type at once, without a cast.
        if kind != "A_Const" or not ("sval" in arg or "isnull" in arg):
            parts = strings(node["typeName"]["names"])
            self.casts[Named(parts[-2] if len(parts) > 1 else None, parts[-1])] = None
        return True

    def _type_name(self, node: dict[str, Any]) -> bool:
        names = node.get("names")
        if not names:
            return True
        parts = strings(names)
        self.types[Named(parts[-2] if len(parts) > 1 else None, parts[-1])] = None
        return False

    def _operator(self, node: dict[str, Any]) -> bool:
        names = node.get("name") or node.get("operName") or node.get("useOp")
        if names:
            name = names[-1]["String"]["sval"]
            if name in grammar.WORD_OPERATORS:
                self.operators.update(COMPARISONS)
            else:
                self.operators.add(name)
        elif "testexpr" in node:  # x IN (SELECT …)
            self.operators.add("=")
        return True

    def _join(self, node: dict[str, Any]) -> bool:
        if "usingClause" in node:
            self.columns.update(strings(node["usingClause"]))
            self.operators.add("=")
        elif "isNatural" in node:
            self.whole = True
            self.operators.add("=")
        return True

    def _case(self, node: dict[str, Any]) -> bool:
        if "arg" in node:
            self.operators.add("=")
        return True


_NOTHING: tuple[set[Any], dict[Any, None], list[Any]] = (set(), {}, [])

_Check = Callable[[Names, dict[str, Any]], bool]


def _LEAF(walk: Names, node: dict[str, Any]) -> bool:  # noqa: N802 - a constant
    """Nothing below is of interest."""
    return False


_SAID = frozenset({"funcname", "name", "operName", "useOp"})
"""Lists of the parts of a name, at which a check has looked."""

_RELATION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)?", re.ASCII)
"""A relation's name in text, without quotes."""

_NAMING_TYPES = frozenset({"pg_input_is_valid", "pg_input_error_info"})

# Node or field to what is looked at there; a check says whether to go on below. The grammar's
# other names are added as they are met.
_CHECKS: dict[str, _Check | None] = {
    "A_Const": _LEAF,
    "A_Expr": Names._operator,
    "A_Indirection": Names._indirection,
    "A_Star": _LEAF,
    "Alias": Names._alias,
    "CaseExpr": Names._case,
    "ColumnRef": Names._column,
    "FuncCall": Names._call,
    "JoinExpr": Names._join,
    "LockingClause": Names._locking,
    "ParamRef": _LEAF,
    "RangeTableSample": Names._sample,
    "RangeVar": Names._range,
    "ReturnStmt": None,  # a function's body
    "SelectStmt": Names._query,
    "SortBy": Names._operator,
    "String": _LEAF,
    "SubLink": Names._operator,
    "TypeCast": Names._cast,
    "TypeName": Names._type_name,
    "alias": Names._alias,
    "funccall": Names._call,
    "intoClause": Names._into,
    "larg": Names._query,
    "rarg": Names._query,
    "rel": Names._new,
    "relation": Names._range,
    "sequence": Names._new,
    "typeName": Names._type_name,
    "view": Names._new,
}


def _learn(key: str) -> _Check | None:
    def statement(walk: Names, node: dict[str, Any]) -> bool:
        return walk._statement(key, node)

    check = statement if key[-4:] == grammar.NODE_SUFFIX and key[0] <= "Z" else None
    _CHECKS[key] = check
    return check


def _is_parameter(node: dict[str, Any]) -> bool:
    while "TypeCast" in node:
        node = node["TypeCast"]["arg"]
    return "ParamRef" in node


def _prefix(name: dict[str, Any]) -> str | None:
    """What `name` begins with, where that shows that it is no setting of PostgreSQL's own."""
    while (joined := name.get("A_Expr", {})).get("kind") == "AEXPR_OP" and "lexpr" in joined:
        name = joined["lexpr"]
    begins = grammar.constant(name) or ""
    return begins if "." in begins else None


def _config(args: Any) -> SetConfig:
    if len(args) != 3 or any("NamedArgExpr" in a for a in args):
        return SetConfig(None, None)
    name, local = (None if pasted(args[i]) else grammar.constant(args[i]) for i in (0, 2))
    local = (local or "").lower()
    known = local in grammar.ON or local in grammar.OFF
    return SetConfig(
        None if name is None else name.lower(), local in grammar.ON if known else None
    )
