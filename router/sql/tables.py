"""The nodes of a catalog's objects, by oid and by name, and what a body or a tree uses of them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from router.sql import functions
from router.sql.graph import Node
from router.sql.names import Names, type_names
from router.sql.nodetree import CURRENT_SETTING, Uses
from router.sql.objects import NO_TYPES, Effect
from router.sql.queries import FIRST

HIDDEN = "it uses what is not in the catalog as last read, of pg_temp for instance"


def meant(
    table: Mapping[str, Sequence[tuple[str, int]]], schema: str | None, name: str
) -> Iterator[int]:
    """The oids in `table`, by name, of what `name` may mean, in any schema where none is said."""
    return (oid for where, oid in table.get(name, ()) if schema is None or schema == where)


class Tables:
    """The objects of a database.

    Attributes:
        functions, relations, written, types, operators, classes: nodes by oid; `written` stands
            for changes of a relation's rows, classes are operator classes.
        casts: rows of the catalog, each with its node.
        ddl: stands for changes of the catalog, which event triggers follow.
        parts: by type, the types its values are made of, itself included.
        columns: by relation and column, the same.
        signatures: by function, the same of what it takes and gives.
    """

    def __init__(self) -> None:
        self.functions: dict[int, Node] = {}
        self.relations: dict[int, Node] = {}
        self.written: dict[int, Node] = {}
        self.types: dict[int, Node] = {}
        self.operators: dict[int, Node] = {}
        self.casts: list[tuple[Sequence[Any], Node]] = []
        self.classes: dict[int, Node] = {}
        self.ddl: Node = Node("runs DDL")
        self.parts: dict[int, frozenset[int]] = {}
        self.columns: dict[int, dict[str, frozenset[int]]] = {}
        self.signatures: dict[int, frozenset[int]] = {}
        self.function_names: dict[str, list[tuple[str, int]]] = {}
        self.relation_names: dict[str, list[tuple[str, int]]] = {}
        self.type_names: dict[str, list[tuple[str, int]]] = {}
        self.builtins: dict[str, list[Node]] = {}
        self.builtin_relations: dict[str, Node] = {}
        # Operators by symbol, and casts by their source, that only some statements mean.
        self.symbols: dict[str, list[tuple[frozenset[int], Node]]] = {}
        # Casts and members of operator families that any statement may use unasked.
        self.anywhere: list[Node] = []
        self.asked: dict[int, list[tuple[int, str, Node]]] = {}

    def all_parts(self, types: Iterable[int]) -> frozenset[int]:
        """The types that values of `types` are made of, as far as the database made them."""
        found: set[int] = set()
        for oid in types:
            found |= self.parts.get(oid, NO_TYPES)
        return frozenset(found)

    def use(self, node: Node, table: dict[int, Node], oid: int | None, where: str = "") -> None:
        """Let `node` use what has `oid` in `table`, if that is a user's or may do harm."""
        if oid in CURRENT_SETTING and table is self.functions:
            node.local = node.local or functions.SOME_SETTING
        elif oid and oid in table:
            node.use(table[oid], where)
        elif oid and oid >= FIRST:
            node.does(Effect.UNKNOWN, HIDDEN)

    def use_tree(self, node: Node, named: Uses, where: str, *, planned: bool = False) -> None:
        """Let `node` use what a tree names; `where` says where the tree stands. With `planned`
        only the planner evaluates it."""
        for table, oids in (
            (self.functions, named.functions), (self.operators, named.operators),
            (self.relations, named.relations), (self.types, named.types),
        ):  # fmt: skip
            for oid in oids:
                used = table.get(oid)
                if used is None:
                    if oid >= FIRST and table is not self.relations:
                        node.does(Effect.UNKNOWN, HIDDEN)
                elif not (planned and used.volatile and not used.inlined):
                    node.use(used, where)
        node.local = node.local or named.setting
        if named.commands:
            node.does(Effect.ACTS, "reads cmin or cmax, which replay sets otherwise")

    def use_body(self, node: Node, named: Names, signature: frozenset[int]) -> None:
        """Let `node`, a function, use what its body names; `signature` has the types it takes
        and gives."""
        self._own(node, named)
        for call in named.calls:
            self._calls(node, call.schema, call.name, call.n)
        for name in sorted(named.attributes):
            self._calls(node, None, name, 1)
        for relation in named.relations:
            self._reads(node, *relation)
        for name in sorted(named.mentioned):
            self._reads(node, None, name)
        for schema, name in named.written:
            for oid in meant(self.relation_names, schema, name):
                node.changes.setdefault(self.written[oid], "")
        types = self.types_of(named, signature)
        for oid in sorted(types):
            self.use(node, self.types, oid)
        self.operate(node, named, types)

    def _own(self, node: Node, named: Names) -> None:
        """What the body of `node` does by itself."""
        for form in named.forms:
            node.does(form.effect, form.reason)
        if named.configs:
            node.does(Effect.ACTS, "set_config(): changes session state")
        node.binds = node.binds or named.binds or named.sets
        node.ddl = node.ddl or named.ddl
        node.local = node.local or named.local
        if named.ddl:
            node.changes.setdefault(self.ddl, "")

    def _calls(self, node: Node, schema: str | None, name: str, n: int | None) -> None:
        for oid in meant(self.function_names, schema, name):
            node.use(self.functions[oid])
        if schema in (None, "pg_catalog", "information_schema"):
            for builtin in self.builtins.get(name, ()):
                if not (name in functions.THREE and n == 3):
                    node.use(builtin)

    def _reads(self, node: Node, schema: str | None, name: str) -> None:
        for oid in meant(self.relation_names, schema, name):
            node.use(self.relations[oid])
        if schema in (None, "pg_catalog") and name in self.builtin_relations:
            node.use(self.builtin_relations[name])

    def types_of(self, named: Names, signature: frozenset[int]) -> frozenset[int]:
        """The types that can occur in a body: named, of columns, of what is called."""
        found = set(signature)
        names = {t.name for t in named.types} | named.mentioned
        names |= {c.name for c in named.calls if c.n in (None, 1)}  # d('1') may be a cast
        for name in names:
            for called in type_names(name):
                for oid in meant(self.type_names, None, called):
                    found |= self.parts[oid]
        for name in {r.name for r in named.relations} | named.mentioned:
            for oid in meant(self.relation_names, None, name):
                found |= named.met(name, self.columns.get(oid, {}))
        for name in {c.name for c in named.calls} | named.attributes:
            for oid in meant(self.function_names, None, name):
                found |= self.signatures[oid]
        return frozenset(found)

    def operate(self, node: Node, named: Names, types: frozenset[int]) -> None:
        """The operators and casts that a body with values of `types` can mean."""
        words = {functions.TYPE_WORDS.get(word, word) for word in named.mentioned}
        words |= {t.name for t in named.types}
        for symbol in sorted(named.operators):
            for of, operator in self.symbols.get(symbol, ()):
                if types >= of:
                    node.use(operator)
        for source, casts in self.asked.items():
            for target, name, cast in casts:
                # A body assigns, to variables and as its result: any cast of its values may be.
                if source in types or (source < FIRST and (target in types or name in words)):
                    node.use(cast)
