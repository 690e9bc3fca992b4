"""What the server says of its functions, relations, types and operators: SQL text and values.

Nothing is executed here. `Catalog.QUERIES` is run by whoever has a connection, in any order, on
the primary or a replica, by any role that may log in; `Catalog.from_rows` takes the rows.
PostgreSQL 13 and later.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Self, TypeVar

_USER = "n.nspname <> 'information_schema' and n.nspname !~ '^pg_'"

FUNCTIONS = f"""
    select n.nspname, p.proname, p.pronargs, p.pronargdefaults, p.provariadic <> 0,
        p.provolatile = 'v', l.lanname,
        case when l.lanname = 'c' then ''
             when l.lanname = 'sql' and p.prosrc = '' then pg_get_functiondef(p.oid)
             else p.prosrc end,
        case when a.aggfnoid is null then '{{}}' else array(
            select s.proname::text from pg_proc s
            where s.oid in (a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn,
                a.aggdeserialfn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn)
        ) end
    from pg_proc p
    join pg_namespace n on n.oid = p.pronamespace
    join pg_language l on l.oid = p.prolang
    left join pg_aggregate a on a.aggfnoid = p.oid
    where {_USER}
"""

RELATIONS = f"""
    select c.oid::int8, n.nspname, c.relname, c.relkind::text, c.relpersistence::text,
        case when c.relkind = 'v' then pg_get_viewdef(c.oid) else '' end,
        array(
            select pg_get_expr(polqual, polrelid) from pg_policy
            where polrelid = c.oid and polqual is not null and polcmd in ('r', '*')
        ) || array(
            select pg_get_expr(adbin, adrelid) from pg_attribute a
            join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
            where a.attrelid = c.oid and a.attgenerated = 'v' and not a.attisdropped
        )
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where {_USER} and c.relkind in ('r', 'v', 'm', 'f', 'p', 'S') and c.relpersistence <> 't'
"""

SEQUENCE = "is a sequence, whose values a replica shows before they are given out"
"""WAL logs a sequence 32 values ahead, so no replica, however near, has its ``last_value``.

Source: SEQ_LOG_VALS in https://github.com/postgres/postgres/blob/REL_18_STABLE/src/backend/commands/sequence.c
"""

INHERITS = "select inhparent::int8, inhrelid::int8 from pg_inherits"

TYPES = f"""
    select n.nspname, t.typname,
        array(
            select p.proname::text from pg_proc p where p.oid in (t.typinput, t.typoutput)
        ),
        array(
            select pg_get_expr(conbin, 0) from pg_constraint
            where contypid = t.oid and contype = 'c'
        ),
        (select b.typname from pg_type b where t.typtype = 'd' and b.oid = t.typbasetype)
    from pg_type t join pg_namespace n on n.oid = t.typnamespace
    where {_USER} and t.typname !~ '^_'
"""

CASTS = f"""
    select t.typname, p.proname, k.castcontext::text
    from pg_cast k join pg_proc p on p.oid = k.castfunc join pg_type t on t.oid = k.casttarget
    join pg_namespace n on n.oid = p.pronamespace
    where {_USER}
"""

OPERATORS = f"""
    select n.nspname, o.oprname, p.proname
    from pg_operator o join pg_namespace n on n.oid = o.oprnamespace
    join pg_proc p on p.oid = o.oprcode
    where {_USER}
"""


@dataclass(frozen=True, slots=True, eq=False)
class Function:
    """One overload of a function that a user made.

    Attributes:
        least, most: how many arguments it takes; `most` is None for a variadic one.
        source: its body; empty where that is machine code.
        calls: functions an aggregate is made of.
    """

    schema: str
    name: str
    least: int
    most: int | None
    volatile: bool
    language: str
    source: str
    calls: tuple[str, ...] = ()

    def accepts(self, n: int | None) -> bool:
        """Whether a call with `n` arguments may mean this overload; None is any number."""
        return n is None or (self.least <= n and (self.most is None or n <= self.most))


@dataclass(frozen=True, slots=True, eq=False)
class Relation:
    """A table, view, sequence or the like.

    Attributes:
        kind: pg_class.relkind.
        source: a view's query.
        expressions: what reading it evaluates: policies, virtual columns.
        refused: why a replica must not read it, as far as it can be said without its source.
    """

    schema: str
    name: str
    kind: str
    source: str = ""
    expressions: tuple[str, ...] = ()
    refused: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Type:
    """A type.

    Attributes:
        calls: its input and output functions.
        expressions: a domain's constraints.
        base: a domain's base type.
    """

    schema: str
    name: str
    calls: tuple[str, ...] = ()
    expressions: tuple[str, ...] = ()
    base: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Operator:
    """An operator and the function behind it."""

    schema: str
    name: str
    call: str


@dataclass(frozen=True, slots=True, eq=False)
class Cast:
    """A cast to the type `name` by a user's function."""

    name: str
    call: str
    implicit: bool


T = TypeVar("T", Function, Relation, Type, Operator, Cast)


@dataclass(frozen=True, slots=True, eq=False)
class Catalog:
    """Everything in the schemas of users, by unqualified name.

    Attributes:
        loaded: False until it was read; then no user's object is known to be safe.
    """

    QUERIES: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "functions": FUNCTIONS,
            "relations": RELATIONS,
            "inherits": INHERITS,
            "types": TYPES,
            "casts": CASTS,
            "operators": OPERATORS,
        }
    )

    loaded: bool = False
    functions: Mapping[str, tuple[Function, ...]] = field(default_factory=dict)
    relations: Mapping[str, tuple[Relation, ...]] = field(default_factory=dict)
    types: Mapping[str, tuple[Type, ...]] = field(default_factory=dict)
    casts: Mapping[str, tuple[Cast, ...]] = field(default_factory=dict)
    operators: Mapping[str, tuple[Operator, ...]] = field(default_factory=dict)

    @classmethod
    def from_rows(cls, rows: Mapping[str, Iterable[Sequence[Any]]]) -> Self:
        """The catalog of `rows`: for each key of `QUERIES`, what its statement returned."""
        functions = (
            Function(s, name, n - defaults, None if variadic else n, volatile, language, source,
                     tuple(calls))
            for s, name, n, defaults, variadic, volatile, language, source, calls in rows[
                "functions"
            ]
        )  # fmt: skip
        types = (
            Type(s, name, tuple(calls), tuple(checks), base or "")
            for s, name, calls, checks, base in rows["types"]
        )
        return cls(
            loaded=True,
            functions=_by_name(functions),
            relations=_by_name(_relations(rows)),
            types=_by_name(types),
            casts=_by_name(Cast(name, call, kind == "i") for name, call, kind in rows["casts"]),
            operators=_by_name(Operator(*row) for row in rows["operators"]),
        )

    def implicit(self) -> Iterator[Operator | Cast]:
        """What a statement may use without naming it: comparisons and implicit casts."""
        for name in ("=", "<>", "<", "<=", ">", ">="):
            yield from self.operators.get(name, ())
        for casts in self.casts.values():
            yield from (cast for cast in casts if cast.implicit)

    def __repr__(self) -> str:
        if not self.loaded:
            return "<Catalog not loaded>"
        return f"<Catalog of {len(self.relations)} relations, {len(self.functions)} functions>"


UNLOGGED = "is unlogged: a replica has nothing of it"


def _relations(rows: Mapping[str, Iterable[Sequence[Any]]]) -> Iterable[Relation]:
    found = list(rows["relations"])
    refused: dict[int, str] = {}
    for oid, _, _, kind, persistence, _, _ in found:
        if kind == "S":
            refused[oid] = SEQUENCE
        elif kind == "f":
            refused[oid] = "is a foreign table: it acts on a further server"
        elif persistence == "u":
            refused[oid] = UNLOGGED
    parents: dict[int, list[int]] = {}
    for parent, child in rows["inherits"]:
        parents.setdefault(child, []).append(parent)
    todo = list(refused)
    while todo:
        child = todo.pop()
        for parent in parents.get(child, ()):
            if parent not in refused:
                refused[parent] = f"has a child that {refused[child]}"
                todo.append(parent)
    for oid, schema, name, kind, _, source, expressions in found:
        yield Relation(schema, name, kind, source, tuple(expressions), refused.get(oid, ""))


def _by_name(items: Iterable[T]) -> Mapping[str, tuple[T, ...]]:
    found: dict[str, list[T]] = {}
    for item in items:
        found.setdefault(item.name, []).append(item)
    return MappingProxyType({name: tuple(same) for name, same in found.items()})


BUILTIN = Catalog()
"""The catalog that stands in until one was read: it knows nothing of any user."""
