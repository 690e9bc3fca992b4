"""What a statement reaches: the catalog is asked about each name in it."""

from collections.abc import Iterable

from router.sql import functions
from router.sql.builtins import OPERATORS, RELATIONS, TYPES
from router.sql.closure import ruled
from router.sql.intent import OnStandby
from router.sql.judge import Judge
from router.sql.names import Call, Named, Names, type_names
from router.sql.objects import (
    NO_TYPES,
    Cast,
    Effect,
    Function,
    Operator,
    Relation,
    Verdict,
)

_OWN_SCHEMAS = (None, "pg_catalog", "information_schema")


class Reach:
    """What `names` reach, judged by `judge`; with `plan_only` of a statement that is only planned.

    Attributes:
        found: why it is not a read.
        doubt: why it is not known to be a read: a name that is not in the catalog.
        effect: what a standby makes of it.
        binds: it leaves something behind in its session, or nobody knows.
        holds: it does so for certain.
        ddl: it changes what the catalog says, or runs code that seems to.
        varies: what makes a second run on another node give something else.
        local: what it names first whose answer is the server's own; see `functions.LOCAL`.
        signals: it signals a process of the server.
    """

    __slots__ = (
        "_plan_only", "_types", "binds", "ddl", "doubt", "effect", "found", "holds", "judge",
        "local", "names", "signals", "varies",
    )  # fmt: skip

    def __init__(self, names: Names, judge: Judge, *, plan_only: bool = False) -> None:
        self.found: str = ""
        self.doubt: str = ""
        self.effect: Effect = Effect.SAFE
        self.binds: bool = names.binds
        self.holds: bool = names.holds
        self.ddl: bool = names.ddl
        self.varies: str = ""
        self.local: str = ""
        self.signals: bool = False
        self.names: Names = names
        self.judge: Judge = judge
        self._plan_only = plan_only
        self._types: set[int] = set()
        for form in names.forms:
            if not (plan_only and form.executed):
                self._refuse(form.reason, form.effect)
        self._answers(names.local)
        self._ask()

    @property
    def reason(self) -> str:
        """Why it is not a read; empty when it is one."""
        return self.found or self.doubt

    @property
    def on_standby(self) -> OnStandby:
        """What a standby makes of what is no read."""
        if self.effect is Effect.ACTS:
            return OnStandby.ACTS
        if self.effect is Effect.UNKNOWN:
            return OnStandby.UNSEEN
        return OnStandby.REFUSED if self.found else OnStandby.DOUBTED

    def _ask(self) -> None:
        names, judge, catalog = self.names, self.judge, self.judge.catalog
        simple, users = functions.STABLE_SAFE, catalog.functions
        for call in names.calls:
            name = call.name
            # The usual case: a function of PostgreSQL's own, which no rule and no user hides.
            if name not in simple or name in users or call.schema is not None or judge.write:
                self._call(call)
            if call.n == 1 and name in catalog.types:
                self._type(Named(call.schema, name))  # d('1') is a cast
        self._ask_others()

    def _ask_others(self) -> None:
        names, judge, catalog = self.names, self.judge, self.judge.catalog
        for relation in names.relations:
            self._relation(relation)
        for type_ in names.types:
            self._type(type_)
        for symbol in names.operators:
            if symbol not in OPERATORS and symbol not in catalog.operators:
                self._unknown(f"operator {symbol}", called=True)
        if not judge.attributes.isdisjoint(names.attributes):
            self._attributes()
        for name in names.mentioned:
            self._mentioned(name)
        if names.written or self.ddl:
            self._changes()
        if catalog.everywhere is not None:
            self._weigh_verdict(catalog.everywhere)
        if self._types or catalog.judged_operators or catalog.judged_casts:
            self._by_types()

    def _refuse(self, reason: str, effect: Effect) -> None:
        """Call the statement no read, for `reason`."""
        self.effect = max(self.effect, effect)
        if not self.found:
            self.found = reason

    def _answers(self, what: str) -> None:
        """Note `what` it reads, whose answer is the server's own; a plan is the same anywhere."""
        if what and not (self.local or self._plan_only):
            self.local = what
            self.varies = self.varies or what

    def _unknown(self, what: str, *, called: bool = False) -> None:
        if called:
            self.effect = max(self.effect, Effect.UNKNOWN)
        if not self.doubt:
            why = "in the catalog as last read"
            if not self.judge.catalog.loaded:
                why = "PostgreSQL's own and the catalog is not loaded"
            self.doubt = f"{what} is not {why}"

    def _weigh(self, found: Function | Relation | Operator | Cast) -> None:
        verdict = found.planned if self._plan_only else found.verdict
        if verdict is not None:
            self._weigh_verdict(verdict)
        self._answers(found.local)

    def _weigh_verdict(self, verdict: Verdict) -> None:
        self._refuse(verdict.why, verdict.effect)
        self.binds = self.binds or verdict.binds
        self.ddl = self.ddl or verdict.ddl
        self.signals = self.signals or verdict.signals

    # -- functions -------------------------------------------------------------------------------

    def _call(self, call: Call) -> None:
        schema, name, n = call
        judge = self.judge
        if ruled(judge.write, schema, name):
            self._refuse(f"{name}() is in write_functions", Effect.ACTS)
        elif ruled(judge.read, schema, name):
            return
        users = self._users(call)
        if schema in _OWN_SCHEMAS and name in functions.SAFE:
            if name in functions.LOCAL:
                self._answers(f"{name}()")
            if name in functions.HARMLESS and not self.varies:
                self.varies = f"{name}()"
            return
        why = functions.unsafe(name)
        if why is not None:
            self._unsafe(name, n, why)
        elif not (users or self.names.loose or (n == 1 and self._is_type(name))):
            self.binds = True  # it may set what the journal never sees
            self._unknown(f"{name}()", called=True)

    def _users(self, call: Call) -> bool:
        """Weigh the functions of users that `call` may mean; whether there are any."""
        schema, name, n = call
        users = [
            f
            for f in self.judge.catalog.functions.get(name, ())
            if schema in (None, f.schema) and f.accepts(n)
        ]
        named = self.names.naming.get(name, False)
        self._functions(f for f in users if not (named and _reads_what_is_named(f)))
        return bool(users)

    def _is_type(self, name: str) -> bool:
        """Whether a call of what is called `name`, and no function, is a cast."""
        return name in TYPES or name in self.judge.catalog.types

    def _functions(self, users: Iterable[Function]) -> None:
        for function in users:
            self._weigh(function)
            self._types |= function.types

    def _unsafe(self, name: str, n: int | None, why: str) -> None:
        """A function that only the primary may run, with `n` arguments where that is known."""
        if name in functions.THREE and n == 3:
            return  # the form that runs no SQL given as text
        if self._plan_only and name in functions.PLANNED:
            return  # the planner does not run it
        if functions.binds(name):
            self.binds = self.holds = True
        self.signals = self.signals or name in functions.SIGNALS
        refused = name in functions.REFUSED
        self._refuse(f"{name}(): {why}", Effect.REFUSED if refused else Effect.ACTS)

    def _attributes(self) -> None:
        """x.f calls f(x), or casts x, where x has no column f."""
        catalog = self.judge.catalog
        for name in sorted(self.judge.attributes & self.names.attributes):
            if name in functions.UNSAFE or name in functions.LOCAL:
                self._call(Call(None, name, 1))
            elif name == "current_setting":
                self._answers(functions.SOME_SETTING)
            elif name in catalog.functions and not ruled(self.judge.read, None, name):
                self._functions(f for f in catalog.functions[name] if f.accepts(1))
            for found in catalog.types.get(name, ()):
                self._types |= found.types

    # -- relations, types ------------------------------------------------------------------------

    def _relation(self, relation: Named) -> None:
        schema, name = relation
        if not self.varies:
            self.varies = name
        builtin = name in RELATIONS and schema in (None, "pg_catalog")
        if builtin:
            self._own_relation(name)
        found = False
        for item in self.judge.catalog.relations.get(name, ()):
            if schema is None or schema == item.schema:
                self._weigh(item)
                self._types |= self.names.met(name, item.columns)
                found = True
        if not (found or builtin or schema == "information_schema"):
            self._unknown(name)

    def _own_relation(self, name: str) -> None:
        """A table or view of pg_catalog."""
        if name in functions.PRIMARYS:
            self._refuse(f"{name}: {functions.PRIMARYS[name]}", Effect.ACTS)
        elif name in functions.LOCAL:
            self._answers(name)

    def _type(self, type_: Named) -> None:
        schema, name = type_
        own = schema in _OWN_SCHEMAS
        types = self.judge.catalog.types
        if own and name in TYPES and name not in types:
            return
        called = type_names(name)
        found = [item for each in called for item in types.get(each, ())]
        for item in found:
            if schema is None or schema == item.schema:
                self._types |= item.types
        if not (found or (own and called[-1] in TYPES) or _is_row(schema, name, self.judge)):
            self._unknown(f"type {name}")

    def _mentioned(self, name: str) -> None:
        """A name, in a text without a tree, that may be a relation's or a type's."""
        catalog = self.judge.catalog
        if name in RELATIONS:
            self._own_relation(name)
        for relation in catalog.relations.get(name, ()):
            self._weigh(relation)
            self._types |= self.names.met(name, relation.columns)
        for found in catalog.types.get(name, ()):
            self._types |= found.types

    def _changes(self) -> None:
        """What triggers and the like leave in the session when rows or the catalog change."""
        catalog = self.judge.catalog
        if self.ddl and catalog.ddl_binds:
            self.binds = True
        for schema, name in self.names.written:
            if any(
                r.written_binds
                for r in catalog.relations.get(name, ())
                if schema in (None, r.schema)
            ):
                self.binds = True

    def _by_types(self) -> None:
        """What unsafe functions come with the types that can occur."""
        catalog = self.judge.catalog
        for type_ in sorted(self._types & catalog.unsafe_types.keys()):
            self._weigh_verdict(catalog.unsafe_types[type_])
        for type_ in sorted(self._types & catalog.local_types.keys()):
            self._answers(catalog.local_types[type_])
        for symbol in self.names.operators & catalog.judged_operators.keys():
            for operator in catalog.judged_operators[symbol]:
                if operator.operands <= self._types:
                    self._weigh(operator)
        targets = self._targets() if catalog.judged_casts else NO_TYPES
        names = {name for _, name in self.names.casts}
        for cast in catalog.judged_casts:
            met = not cast.source or cast.source in self._types or self.names.loose
            asked = cast.target in targets or cast.target_name in names
            if met and asked:
                self._weigh(cast)

    def _targets(self) -> frozenset[int]:
        """The types that values are cast to, with those these are made of."""
        found: set[int] = set()
        for _, name in self.names.casts:
            for called in type_names(name):
                for item in self.judge.catalog.types.get(called, ()):
                    found |= item.types
        return frozenset(found)


def _is_row(schema: str | None, name: str, judge: Judge) -> bool:
    """Whether the type called `name` is made of the columns of a relation."""
    if schema == "information_schema" or name in judge.catalog.relations:
        return True
    return name in RELATIONS and schema in (None, "pg_catalog")


def _reads_what_is_named(function: Function) -> bool:
    """Whether all that makes `function` unsafe is that somebody names the relation it reads."""
    return function.verdict is not None and function.verdict.why.endswith(functions.NAMED_BY_TEXT)
