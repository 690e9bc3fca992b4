"""What a statement reaches: through views, function bodies, types and operators too."""

import re
from typing import Any

from router.sql import bounds, functions, parser
from router.sql.catalog import UNLOGGED, Function, Relation, Type
from router.sql.grammar import BINDING, NODE_SUFFIX, NOT_DDL
from router.sql.tree import NO_NAMES, Tree
from router.sql.words import CALLED, DEFINES, SESSION_WORDS, SETS, WORD, ended


class Walk(Tree):
    """Everything a statement reaches, through views and function bodies too."""

    __slots__ = ()

    binds: bool
    ddl: bool

    def run(self, node: dict[str, Any]) -> None:
        """Walk the statement `node` and what it reaches."""
        self.walk(node)
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
        if not (self.found or self.doubt or self.binds or self.local or self._plan_only):
            judge.harmless |= seen

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
        else:
            self._internal(f.source)

    def _internal(self, name: str) -> None:
        """The function of PostgreSQL's own that one of the user's calls by the name in C."""
        if name not in functions.SAFE:
            self._refuse(name)
        elif name in functions.LOCAL:
            self._answers(f"{name}()")

    def _folded(self, f: Function) -> None:
        """The planner may run a function that is not volatile, to fold or to estimate."""
        walk = Walk(self.judge)
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
            statements = parser.tree(sql)
        except (parser.NotParsed, RecursionError, UnicodeError, ValueError):
            self.scan(sql)
            self._refuse("a text that does not parse")
            return
        for node in statements:
            self._scope = NO_NAMES
            body = node["stmt"]
            for name in body:
                if name[-4:] == NODE_SUFFIX and name not in NOT_DDL:
                    self.ddl = True
                if name in BINDING or name == "VariableSetStmt":
                    self.binds = True
                if name == "CreateFunctionStmt":
                    body = body[name].get("sql_body", {})
            self.walk(body)

    def scan(self, source: str) -> None:
        """Look through the PL/pgSQL body `source`: each name that may be unsafe counts as used."""
        catalog = self.catalog
        if len(source) > bounds.MAX_SCANNED:
            self.binds = self.ddl = True
            self._refuse("a text too long to be looked through")
            return
        source = ended(source)
        if SETS.search(source):
            self.binds = True
        if DEFINES.search(source):
            self.ddl = True
        for setting in functions.LOCAL_SETTINGS:  # in string literals too, for current_setting()
            if setting in source.lower():
                self._answers(setting)
        for match in WORD.finditer(source):
            word, op = match["word"], match["op"]
            if op is not None:
                self._todo.extend(catalog.operators.get(op, ()))
                continue
            if word is not None:
                name = word.lower()
                if name in SESSION_WORDS:
                    self.binds = True
                elif name == "execute":
                    self.binds = True
                    self._refuse("dynamic SQL")
            elif match["quoted"] is not None:
                name = match["quoted"].replace('""', '"')
            else:
                continue
            if not self._ruled(self.judge.read, [name]):
                self._mentioned(name, match)
                if name in functions.LOCAL:
                    self._answers(name)
            if name in functions.PRIMARYS:
                self._refuse(f"{name}: {functions.PRIMARYS[name]}")
            self._todo.extend(catalog.relations.get(name, ()))
            self._todo.extend(catalog.types.get(name, ()))

    def _mentioned(self, name: str, match: re.Match[str]) -> None:
        """A name in a text that may be a function's: one that is unsafe counts as called wherever
        it stands, another where a call can be."""
        why = functions.unsafe(name)
        if why is not None:
            self.binds = self.binds or functions.binds(name)
            self.signals = self.signals or name in functions.SIGNALS
            self._refuse(f"{name}(): {why}")
            return
        found = self.catalog.functions.get(name)
        if found is None:
            return
        if CALLED.match(match.string, match.end()):
            self._todo.extend(found)
        elif match.string[match.start() - 1] == ".":
            self._todo.extend(f for f in found if f.accepts(1))
