"""What is known of a server's functions, relations, types and operators: by name, with a verdict.

Nothing is executed here. `Catalog.QUERIES` is run by whoever has a connection, in any order, on
the primary or a replica, by any role that may log in; `Catalog.from_rows` takes the rows.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, TypeVar

from router.sql.builtins import OPERATORS
from router.sql.closure import Bodies, Closure
from router.sql.graph import Node, told
from router.sql.objects import (
    NO_COLUMNS,
    NO_TYPES,
    Cast,
    Function,
    Operator,
    Relation,
    Type,
    Verdict,
)
from router.sql.queries import FIRST, QUERIES

N = TypeVar("N", Function, Relation, Type, Operator)


@dataclass(frozen=True, slots=True, eq=False)
class Catalog:
    """Everything that initdb did not make, by unqualified name.

    Attributes:
        loaded: False until it was read; then no user's object is known to be safe.
        unsafe_types: types whose values may not occur in a read: what comes with them is unsafe.
        operators: symbols that users gave an operator.
        judged_operators: operators by unsafe functions, by symbol.
        judged_casts: casts by unsafe functions that a statement has to ask for.
        local_types: types that make the answer one server's own, each with the reason.
        everywhere: what any statement may do unasked: casts or orders of built-in types.
        ddl_binds: an event trigger leaves something in the session that runs DDL.
        bodies: what bodies of functions name, for the next reading.
    """

    QUERIES: ClassVar[Mapping[str, str]] = QUERIES

    loaded: bool = False
    functions: Mapping[str, tuple[Function, ...]] = field(default_factory=dict)
    relations: Mapping[str, tuple[Relation, ...]] = field(default_factory=dict)
    types: Mapping[str, tuple[Type, ...]] = field(default_factory=dict)
    unsafe_types: Mapping[int, Verdict] = field(default_factory=dict)
    operators: frozenset[str] = frozenset()
    judged_operators: Mapping[str, tuple[Operator, ...]] = field(default_factory=dict)
    judged_casts: tuple[Cast, ...] = ()
    local_types: Mapping[int, str] = field(default_factory=dict)
    everywhere: Verdict | None = None
    ddl_binds: bool = False
    bodies: Bodies = field(default_factory=dict, repr=False)

    @classmethod
    def from_rows(
        cls,
        rows: Mapping[str, Iterable[Sequence[Any]]],
        *,
        read: Iterable[str] = (),
        write: Iterable[str] = (),
        bodies: Bodies | None = None,
    ) -> Self:
        """The catalog of `rows`: for each key of `QUERIES`, what its statement returned.

        It takes about 0.1 ms for each function that was not there before, in Python: keep it off
        threads that others wait for.

        Args:
            rows: the answers.
            read, write: names of functions that the user vouches for, or takes for writes.
            bodies: those of the reading before, which then cost nothing.
        """
        rules = frozenset(map(str.lower, read)), frozenset(map(str.lower, write))
        closure = Closure(rows, *rules, bodies or {})
        return cls(loaded=True, **_Told(closure).catalog())

    def unasked(self) -> Iterator[str]:
        """What keeps statements from replicas that do not name it, each with the statements and
        the chain: operators, implicit casts and orders by unsafe functions."""
        if self.everywhere is not None:
            yield f"every statement: {self.everywhere.why}"
        for symbol, operators in self.judged_operators.items():
            for operator in operators:
                if symbol in OPERATORS and not operator.operands and operator.verdict is not None:
                    yield f"every statement with {symbol}: {operator.verdict.why}"
        for verdict in self.unsafe_types.values():
            if " → casts " in verdict.why or " its order " in verdict.why:
                yield f"every statement that meets it: {verdict.why}"

    def __repr__(self) -> str:
        if not self.loaded:
            return "<Catalog not loaded>"
        return f"<Catalog of {len(self.relations)} relations, {len(self.functions)} functions>"


class _Told:
    """What a closure found, as statements ask for it."""

    def __init__(self, closure: Closure) -> None:
        graph = closure.graph()
        self._closure = closure
        self._binds = graph.binding()
        self._run: dict[Node, Verdict] = graph.verdicts(self._binds)
        self._planned = graph.planned(self._run)
        self._locals = graph.reaching(n for n in graph.nodes if n.local)
        self._operators = self._judged_operators()
        self._casts = self._judged_casts()
        self._unsafe = {t: self._run[n] for t, n in closure.types.items() if n in self._run}
        self._local_types = {
            t: told(n, self._locals) for t, n in closure.types.items() if n in self._locals
        }
        self._suspects = frozenset(
            [t for o in self._operators for t in o.operands]
            + [t for c in self._casts for t in (c.source, c.target)]
            + [*self._unsafe, *self._local_types]
        )

    def catalog(self) -> dict[str, Any]:
        """The fields of a Catalog."""
        operators = self._closure.rows["operators"]
        return {
            "functions": _by_name(map(self._function, self._closure.rows["functions"])),
            "relations": _by_name(
                self._relation(row) for row in self._closure.rows["relations"] if row[3] != "c"
            ),
            "types": _by_name(map(self._type, self._closure.rows["types"])),
            "unsafe_types": self._unsafe,
            "operators": frozenset(row[2] for row in operators),
            "judged_operators": _by_name(self._operators),
            "judged_casts": self._casts,
            "local_types": self._local_types,
            "everywhere": next(
                (self._run[n] for n in self._closure.anywhere if n in self._run), None
            ),
            "ddl_binds": self._closure.ddl in self._binds,
            "bodies": self._closure.bodies,
        }

    def _function(self, row: Sequence[Any]) -> Function:
        oid, schema, name, n, defaults, variadic = row[:6]
        node = self._closure.functions[oid]
        return Function(
            schema, name, n - defaults, None if variadic else n, self._run.get(node),
            self._planned.get(node), self._local(node),
            self._suspect(self._closure.signatures[oid]),
        )  # fmt: skip

    def _relation(self, row: Sequence[Any]) -> Relation:
        oid, schema, name = row[:3]
        node = self._closure.relations[oid]
        return Relation(
            schema, name, self._run.get(node), self._planned.get(node),
            self._closure.written[oid] in self._binds, self._local(node),
            self._columns(oid),
        )  # fmt: skip

    def _type(self, row: Sequence[Any]) -> Type:
        oid, schema, name = row[:3]
        parts = self._closure.parts[oid]
        return Type(schema, name, self._suspect(parts))

    def _columns(self, oid: int) -> Mapping[str, frozenset[int]]:
        columns = self._closure.columns.get(oid, {})
        found = {name: self._suspect(parts) for name, parts in columns.items()}
        return {name: types for name, types in found.items() if types} or NO_COLUMNS

    def _local(self, node: Node) -> str:
        return told(node, self._locals) if node in self._locals else ""

    def _suspect(self, types: frozenset[int]) -> frozenset[int]:
        return types & self._suspects or NO_TYPES

    def _judged_operators(self) -> tuple[Operator, ...]:
        found = []
        for oid, _, name, left, right, _, _ in self._closure.rows["operators"]:
            node = self._closure.operators[oid]
            if node in self._run or node in self._locals:
                verdicts = self._run.get(node), self._planned.get(node)
                operands = _users(left, right)
                found.append(Operator(name, *verdicts, operands, self._local(node)))
        return tuple(found)

    def _judged_casts(self) -> tuple[Cast, ...]:
        found = []
        for (source, target, _, _, _, name), node in self._closure.casts:
            if node in self._run or node in self._locals:
                taken = source if source >= FIRST else 0
                verdicts = self._run.get(node), self._planned.get(node)
                found.append(Cast(taken, target, name, *verdicts, self._local(node)))
        return tuple(found)


def _users(*types: int) -> frozenset[int]:
    """Those of `types` that initdb did not make."""
    return frozenset(t for t in types if t >= FIRST)


def _by_name(items: Iterable[N]) -> Mapping[str, tuple[N, ...]]:
    found: dict[str, list[N]] = {}
    for item in items:
        found.setdefault(item.name, []).append(item)
    return {name: tuple(same) for name, same in found.items()}


BUILTIN = Catalog()
"""The catalog that stands in until one was read: it knows nothing of any user."""
