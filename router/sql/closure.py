"""What each object of a database can reach, computed once for each reading of its catalog.

Nodes are the functions, relations, types, operators and casts; edges are what each uses, as the
server itself keeps it: the trees it stores, the columns that name functions, the bodies. What
nobody vouches for is unknown, so whatever reaches it is no read. A statement names objects and
asks what was found of them here; nothing is followed for it.
"""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from router.sql import functions, parser
from router.sql.graph import Graph, Node
from router.sql.names import Names
from router.sql.nodetree import Uses, items, uses
from router.sql.objects import Effect
from router.sql.plpgsql import scan
from router.sql.queries import FIRST
from router.sql.tables import Tables

Rows = Mapping[str, Iterable[Sequence[Any]]]
Bodies = dict[bytes, Names]
"""What bodies name, by a digest of their text: kept from one reading to the next."""

UNASKED = (25, 114, 3802)
"""Oids of text, json and jsonb. Functions and operators of PostgreSQL's own, in SQL such as
``anynonarray || text`` and in C such as to_json(), cast whatever they are given to these."""

SEQUENCE = "is a sequence, whose values a replica shows before they are given out"
"""WAL logs a sequence 32 values ahead, so no replica, however near, has its ``last_value``.

Source: SEQ_LOG_VALS in https://github.com/postgres/postgres/blob/REL_18_STABLE/src/backend/commands/sequence.c
"""

FORMS = frozenset({"bool", "float4", "float8", "int4", "int8", "xml"})
"""Types that some form takes, WHERE and LIMIT for instance, to which it casts as an assignment
does. Source: coerce_to_boolean() and coerce_to_specific_type() in
https://github.com/postgres/postgres/blob/REL_18_STABLE/src/backend/parser/parse_coerce.c
"""

UNLOGGED = "is unlogged: a replica has nothing of it"
PLANS_ONLY = frozenset({"$libdir/postgres_fdw", "$libdir/file_fdw"})
"""Libraries of foreign-data wrappers that change nothing when they plan: at most they have the
further server plan as well, or look how long a file is."""

FOREIGN = "it acts on a further server"

_WHERE = {
    "policy": "its policy {}", "virtual": "its virtual column {}", "domain": "its constraint {}",
    "view": "", "constraint": "its constraint {}", "index": "its index {}",
    "statistics": "its statistics {}", "partition": "its partition key",
}  # fmt: skip
"""Expressions that reading may evaluate, by kind, and how a chain calls them."""

_PLANNED = frozenset({"constraint", "index", "statistics", "partition"})
"""Those that only the planner evaluates, which runs no volatile function."""

_WRITTEN = {
    "rule": "its rule {}", "default": "the default of its column {}", "when": "its trigger {}",
    "check": "its policy {}", "type default": "its default", "constraint": "its constraint {}",
}  # fmt: skip
"""Expressions that are evaluated when rows change."""


class Closure(Tables):
    """The graph of one catalog's objects.

    Args:
        rows: the answers to `router.sql.queries.QUERIES`.
        read, write: names of functions that the user vouches for, or takes for writes.
        bodies: what earlier readings found in bodies; what is used of it is kept in `bodies`.
    """

    def __init__(
        self, rows: Rows, read: frozenset[str], write: frozenset[str], bodies: Bodies
    ) -> None:
        self.rows: dict[str, list[Sequence[Any]]] = {k: list(v) for k, v in rows.items()}
        self.bodies: Bodies = {}
        self._before = bodies
        self._read, self._write = read, write
        self._stored: set[int] = set()
        # A further server that is asked when a statement runs, and not where it is only planned.
        self.remote: Node = Node("is a foreign table")
        self.remote.volatile = True
        self.remote.does(Effect.ACTS, FOREIGN)
        super().__init__()

    def graph(self) -> Graph:
        """Make the nodes and edges."""
        self._make_builtins()
        self._make_nodes()
        self._make_types()
        self._make_operators()
        self._make_relations()
        for row in self.rows["functions"]:
            self.signatures[row[0]] = self.all_parts([row[11], *row[12]])
        for row in self.rows["functions"]:
            self._function(row)
        for (oid,) in self.rows["temps"]:
            if oid in self.functions:
                self.functions[oid].binds = True
        self._make_triggers()
        every = (
            self.functions, self.relations, self.written, self.types, self.operators, self.classes
        )  # fmt: skip
        nodes = [node for table in every for node in table.values()]
        nodes += [node for _, node in self.casts]
        nodes += [*self.builtin_relations.values(), self.ddl, self.remote]
        return Graph(dict.fromkeys(nodes))

    # -- what there is ---------------------------------------------------------------------------

    def _make_builtins(self) -> None:
        """Of PostgreSQL's own, what a replica must not run, or answers otherwise."""
        for oid, name, n in self.rows["builtins"]:
            if n < 0:
                node = self.relations[oid] = Node(f"reads {name}")
                self.builtin_relations[name] = node
                if name in functions.PRIMARYS:
                    node.does(Effect.ACTS, functions.PRIMARYS[name])
                node.local = functions.LOCAL.get(name, "")
            elif not (name in functions.THREE and n == 3):
                self._make_builtin(oid, name)

    def _make_builtin(self, oid: int, name: str) -> None:
        why, local = functions.unsafe(name), functions.LOCAL.get(name, "")
        known = name in functions.SAFE
        if known and not local:
            return
        node = self.functions[oid] = Node(f"calls {name}()")
        self.builtins.setdefault(name, []).append(node)
        node.volatile = name in functions.PLANNED or not (known or why)
        node.local = local
        node.binds, node.signals = functions.binds(name), name in functions.SIGNALS
        if why is not None:
            node.does(Effect.REFUSED if name in functions.REFUSED else Effect.ACTS, why)
        elif not known:
            node.does(Effect.UNKNOWN, "nobody knows what it does")

    def _make_nodes(self) -> None:
        for oid, schema, name, _, _, _, volatile, language, *_, arguments in self.rows[
            "functions"
        ]:
            node = self.functions[oid] = Node(f"calls {schema}.{name}({arguments})")
            node.volatile, node.inlined = volatile, language == "sql"
            self.function_names.setdefault(name, []).append((schema, oid))
        for oid, schema, name, kind, *_ in self.rows["relations"]:
            self.relations[oid] = Node(f"reads {schema}.{name}")
            self.written[oid] = Node(f"changes {schema}.{name}")
            if kind != "c":
                self.relation_names.setdefault(name, []).append((schema, oid))
        for oid, schema, name, *_ in self.rows["types"]:
            self.types[oid] = Node(f"uses type {schema}.{name}")
            self.type_names.setdefault(name, []).append((schema, oid))
        for oid, schema, name, left, right, *_ in self.rows["operators"]:
            node = self.operators[oid] = Node(f"uses operator {schema}.{name}")
            of = frozenset(t for t in (left, right) if t in self.types)
            self.symbols.setdefault(name, []).append((of, node))
        for oid, name, _ in self.rows["classes"]:
            self.classes[oid] = Node(f"orders by {name}")

    # -- types, and what comes with their values -------------------------------------------------

    def _make_types(self) -> None:
        made_of = self._made_of()
        rows = {row[0]: row[5] for row in self.rows["relations"]}
        for oid in self.types:
            self.parts[oid] = self._parts(oid, made_of)
            for part in self.parts[oid]:
                self.use(self.types[oid], self.types, part)
        for relation, name, oid in self.rows["columns"]:
            if oid in self.parts:
                self.columns.setdefault(relation, {})[name] = self.parts[oid]
        for relation, oid in rows.items():
            if oid in self.parts:  # the whole row
                self.columns.setdefault(relation, {})[""] = self.parts[oid]
        self._make_casts()

    def _made_of(self) -> dict[int, list[int]]:
        """By type, those that a value of it has values of, or may be taken for."""
        columns: dict[int, list[int]] = {}
        for relation, _, oid in self.rows["columns"]:
            columns.setdefault(relation, []).append(oid)
        made_of: dict[int, list[int]] = {}
        for oid, _, _, _, base, element, relation, calls in self.rows["types"]:
            made_of[oid] = [base, element, *columns.get(relation, ())]
            for call in calls:
                self.use(self.types[oid], self.functions, call)
        for oid, sub, subclass, calls, multi in self.rows["ranges"]:
            made_of[oid].append(sub)
            if multi in self.types:
                made_of[multi].append(oid)
            self.use(self.types[oid], self.classes, subclass)
            for call in calls:
                self.use(self.types[oid], self.functions, call)
        rows = {row[0]: row[5] for row in self.rows["relations"]}
        kin = [(row[5], row[6]) for row in self.rows["relations"]]
        kin += [(rows.get(child), rows.get(parent)) for parent, child in self.rows["inherits"]]
        for oid, wider in kin:  # a row of the one is a row of the other, too
            if oid in made_of and wider:
                made_of[oid].append(wider)
        return made_of

    def _parts(self, oid: int, made_of: dict[int, list[int]]) -> frozenset[int]:
        found: set[int] = set()
        todo = [oid]
        while todo:
            part = todo.pop()
            if part and part not in found:
                found.add(part)
                todo.extend(made_of.get(part, ()))
        return frozenset(found)

    def _make_casts(self) -> None:
        for row in self.rows["casts"]:
            source, target, call, context, source_name, target_name = row
            implicit = context == "i" or (context == "a" and target_name in FORMS)
            node = Node(f"casts {source_name} to {target_name}")
            self.casts.append((row, node))
            self.use(node, self.functions, call)
            if context != "e" and source < FIRST and target < FIRST:
                self.anywhere.append(node)
            if implicit or target in UNASKED:
                # Whatever has a value of one of the two may cast it unasked.
                for oid in (source, target):
                    if oid in self.types:
                        self.types[oid].use(node)
            else:
                self.asked.setdefault(source, []).append((target, target_name, node))

    def _make_operators(self) -> None:
        for oid, _, _, _, _, calls, others in self.rows["operators"]:
            node = self.operators[oid]
            # To estimate how many rows it finds, the planner may run it, volatile or not.
            node.volatile = False if calls[1] or calls[2] else None
            for call in calls:
                self.use(node, self.functions, call)
            for other in others:  # the planner may turn it round
                if other in self.operators:  # and no mere name
                    node.use(self.operators[other])
        families: dict[int, list[Node]] = {}
        for family, left, right, call, operator, orders in self.rows["families"]:
            member = self.functions.get(call) or self.operators.get(operator)
            if member is None:
                continue
            families.setdefault(family, []).append(member)
            if orders and left < FIRST and right < FIRST:
                self.anywhere.append(member)
            for oid in {left, right} & self.types.keys():
                self.types[oid].use(member, "its order")
        for oid, _, family in self.rows["classes"]:
            for member in families.get(family, ()):
                self.classes[oid].use(member)

    # -- relations -------------------------------------------------------------------------------

    def _make_relations(self) -> None:
        for oid, _, _, kind, persistence, _, _, wrapper in self.rows["relations"]:
            node = self.relations[oid]
            _keep(node, kind, persistence, self.remote if wrapper in PLANS_ONLY else None)
            for parts in self.columns.get(oid, {}).values():
                for part in parts:
                    self.use(self.written[oid], self.types, part)
            self.written[oid].use(node)
        for parent, child in self.rows["inherits"]:
            if parent in self.relations and child in self.relations:
                # A partition is read by its parent's key too, and its rows are its parent's.
                self.relations[parent].use(self.relations[child], "has a child, which")
                self.written[parent].use(self.written[child])
        for oid, opclass in self.rows["uses"]:
            if oid in self.relations:
                self.use(self.relations[oid], self.classes, opclass)
        # What a materialized view holds was computed when it was refreshed.
        self._stored = {row[0] for row in self.rows["relations"] if row[3] == "m"}
        for oid, kind, name, tree in self.rows["expressions"]:
            self._expression(oid, kind, name, tree)
        for parent, child in self.rows["inherits"]:
            self._inherit_key(parent, child)

    def _expression(self, oid: int, kind: str, name: str, tree: str) -> None:
        named = uses(tree)
        node = self.types.get(oid) if kind in ("domain", "type default") else None
        node = node or self.relations.get(oid)
        if node is not None and kind in _WHERE and not (kind == "view" and oid in self._stored):
            planned = kind in _PLANNED
            self.use_tree(node, named, _WHERE[kind].format(name), planned=planned)
        if oid in self.written:
            if kind in _WRITTEN or kind in _PLANNED:
                where = _WRITTEN.get(kind) or _WHERE[kind]
                self.use_tree(self.written[oid], named, where.format(name))
            self._rewritten(oid, kind, named)

    def _rewritten(self, oid: int, kind: str, named: Uses) -> None:
        """What a change of a view's rows, or one that a rule replaces, comes to."""
        written = self.written[oid]
        if kind == "view" and oid in self._stored:  # it is run when that is refreshed
            self.use_tree(written, named, "")
        elif kind in ("rule", "view"):  # it changes some of the relations it names
            for relation in named.relations:
                if self._sets(relation):
                    written.binds = True
                if relation in self.written:
                    written.changes.setdefault(self.written[relation], "")

    def _sets(self, relation: int) -> bool:
        """Whether `relation` is pg_settings, whose rule calls set_config() on UPDATE."""
        own = self.builtin_relations.get("pg_settings")
        return own is not None and self.relations.get(relation) is own

    def _inherit_key(self, parent: int, child: int) -> None:
        """What bounds a partition is made of its parent's key, and checked when it is read."""
        above, below = self.relations.get(parent), self.relations.get(child)
        if above is not None and below is not None:
            for used, where in above.uses.items():
                if where == _WHERE["partition"] or used in self.classes.values():
                    below.use(used, "its parent's partition key")

    def _make_triggers(self) -> None:
        for oid, name, call in self.rows["triggers"]:
            node = self.written.get(oid) if oid else self.ddl
            if node is not None:
                self.use(node, self.functions, call, f"its trigger {name}")
        for parent, child in self.rows["cascades"]:
            if parent in self.written and child in self.written:
                self.written[parent].changes.setdefault(self.written[child], "by a foreign key")

    # -- functions -------------------------------------------------------------------------------

    def _function(self, row: Sequence[Any]) -> None:
        (
            oid, schema, name, n, _, _, volatile, language, source, tree, defaults, _, _,
            twins, extension, parts, sort, states, arguments,
        ) = row  # fmt: skip
        node = self.functions[oid]
        for part in self.signatures[oid]:
            self.use(node, self.types, part)
        if ruled(self._write, schema, name):
            node.does(Effect.ACTS, "it is in write_functions")
        elif ruled(self._read, schema, name):
            return
        why = functions.unsafe(name)
        if why is not None and (extension or language == "c"):
            node.does(Effect.ACTS, why)
            node.binds = functions.binds(name)
        if defaults:
            trees = items(defaults)
            for which, default in enumerate(trees, n - len(trees) + 1):
                self.use_tree(node, uses(default), f"the default of its {_nth(which)} argument")
        if parts is not None:
            self._aggregate(node, parts, sort, states)
        elif language == "sql" and tree:
            named = uses(tree)
            self.use_tree(node, named, "")
            self._form(node, tree)
            # What it gives is cast to what it was declared to give, which no tree shows.
            self.operate(node, Names(), self.all_parts(named.types) | self.signatures[oid])
        elif language in ("sql", "plpgsql"):
            self.use_body(node, self._named(language, source), self.signatures[oid])
        elif language == "internal":
            self._internal(node, twins)
        elif language == "c":
            _compiled(node, extension, name, volatile, arguments)
        else:
            node.does(Effect.UNKNOWN, f"{language}, which may do anything")
            node.binds = volatile

    def _aggregate(
        self, node: Node, parts: Iterable[int], sort: int | None, states: Iterable[int | None]
    ) -> None:
        node.volatile = True  # no planner runs it
        for part in parts:
            self.use(node, self.functions, part)
        self.use(node, self.operators, sort)
        for oid in self.all_parts(t for t in states if t):
            self.use(node, self.types, oid)

    def _internal(self, node: Node, twins: Iterable[int] | None) -> None:
        if not twins:
            node.does(Effect.UNKNOWN, "it is C that nobody vouches for")
        for twin in twins or ():
            self.use(node, self.functions, twin)

    def _form(self, node: Node, tree: str) -> None:
        """What the commands of a body that is kept as a tree are."""
        if ":commandType 5" in tree or ":commandType 6" in tree:
            node.does(Effect.UNKNOWN, "a statement that is no query")
            node.binds = True
        elif any(f":commandType {n}" in tree for n in (2, 3, 4, 7)):
            node.does(Effect.REFUSED, "it changes rows")
            for oid in uses(tree).relations:
                if oid in self.written:
                    node.changes.setdefault(self.written[oid], "")
                if self._sets(oid):  # which a standby does as well
                    node.does(Effect.ACTS, "UPDATE pg_settings")
                    node.binds = True
        elif ":rowMarks ({" in tree:
            node.does(Effect.REFUSED, "it locks rows")

    def _named(self, language: str, source: str) -> Names:
        """What a body names, as an earlier reading of the catalog found it or afresh."""
        key = blake2b(f"{language} {source}".encode(errors="replace"), digest_size=16).digest()
        named = self._before.get(key) or self.bodies.get(key)
        if named is None:
            named = scan(source) if language == "plpgsql" else sql_body(source)
        self.bodies[key] = named.kept()
        return named


def _keep(node: Node, kind: str, persistence: str, remote: Node | None) -> None:
    """Note what keeps a relation of this `kind` and `persistence` on the primary; of a foreign
    table whose planning does nothing it is `remote`."""
    if kind == "S":
        node.does(Effect.ACTS, SEQUENCE)
    elif kind == "f" and remote is not None:
        node.use(remote)
    elif kind == "f":
        node.does(Effect.ACTS, f"is a foreign table: {FOREIGN}")
    elif persistence == "u":
        node.does(Effect.REFUSED, UNLOGGED)


def _compiled(
    node: Node, extension: str | None, name: str, volatile: bool, arguments: str
) -> None:
    """Note what a function in C does."""
    node.binds = functions.binds(name)
    if extension == "dblink" and name in functions.NAMING_RELATIONS:
        node.does(Effect.ACTS, functions.NAMED_BY_TEXT)
    elif not functions.vouched(extension, name, volatile, arguments):
        node.does(Effect.UNKNOWN, "it is C that nobody vouches for")
    else:
        node.local = functions.LOCAL_OF_EXTENSIONS.get(name, "")


def _nth(n: int) -> str:
    """`n` as an ordinal, "2nd"."""
    if n % 100 in (11, 12, 13):
        return f"{n}th"
    return f"{n}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(n % 10, 'th') }"


def ruled(rules: frozenset[str], schema: str | None, name: str) -> bool:
    """Whether a user's `rules` name the function."""
    return bool(rules) and (name in rules or f"{schema}.{name}" in rules)


def sql_body(source: str) -> Names:
    """What the body `source` of a function in SQL names."""
    try:
        return Names().body(parser.tree(source))
    except (parser.NotParsed, RecursionError, UnicodeError, ValueError):
        named = scan(source)
        named.refuse("a text that does not parse", Effect.UNKNOWN)
        return named
