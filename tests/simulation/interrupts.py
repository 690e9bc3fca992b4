"""Interrupts of threads between any two statements of the router, as an operating system does.

Threads of a simulation take turns where they wait. With `install()` the modules of the router that
are imported from then on ask before each statement of a function whether another thread goes on
first, so that what is true at one line may have changed at the next.
"""

import ast
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import Any

import greenlet

EVERY = 50
"""Statements of the router between two interrupts, on average."""

CONCURRENT = tuple(f"router.{name}." for name in ("checkout", "cluster", "pins", "psycopg"))
"""Packages whose statements are interrupted: what threads share is here. What is pure, and caches
what it has found, would make a seed depend on those before it."""

_ASK = "__may_be_interrupted__"
_left = 1


def may_be_interrupted() -> None:
    """Let another simulated thread go on here, now and then, as the seed says."""
    global _left
    _left -= 1
    if _left > 0:
        return
    thread = getattr(greenlet.getcurrent(), "thread", None)
    if thread is None:
        return  # what judges and makes the simulation is interrupted by nobody
    scheduler = thread.scheduler
    _left = int(2 * EVERY * scheduler.rand.random()) + 1
    scheduler.pause()


def begin() -> None:
    """Begin a simulation: its interrupts depend on none before it."""
    global _left
    _left = 1


class _Asks(ast.NodeTransformer):
    """Puts the question before each statement within functions."""

    def _visit(self, node: Any) -> Any:
        self.generic_visit(node)
        node.body = _asking(node.body)
        return node

    visit_FunctionDef = visit_AsyncFunctionDef = _visit  # noqa: N815  (ast looks for these names)


def _asking(body: list[ast.stmt]) -> list[ast.stmt]:
    found: list[ast.stmt] = []
    for statement in body:
        for field in ("body", "orelse", "finalbody"):
            inner = getattr(statement, field, None)
            if inner and not isinstance(statement, _SCOPES):
                setattr(statement, field, _asking(inner))
        for handler in getattr(statement, "handlers", ()):
            handler.body = _asking(handler.body)
        if not isinstance(statement, (ast.Global, ast.Nonlocal)):
            call = ast.Call(ast.Name(_ASK, ast.Load()), [], [])
            found.append(ast.copy_location(ast.Expr(call), statement))
        found.append(statement)
    return found


_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


class _Loader(SourceFileLoader):
    def source_to_code(  # type: ignore[override]
        self, data: Any, path: Any, *, _optimize: int = -1
    ) -> CodeType:
        tree = _Asks().visit(ast.parse(data, path))
        return compile(ast.fix_missing_locations(tree), path, "exec", optimize=_optimize)

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)  # past the cache of compiled files
        return self.source_to_code(self.get_data(path), path)

    def exec_module(self, module: ModuleType) -> None:
        vars(module)[_ASK] = may_be_interrupted
        super().exec_module(module)


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(CONCURRENT):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            loader: Loader = _Loader(spec.loader.name, spec.loader.path)
            spec.loader = loader
        return spec


def install() -> None:
    """Have the router, which must not be imported yet, interrupted from now on."""
    if "router" in sys.modules:
        raise RuntimeError("router is imported already: interrupts come too late")
    sys.meta_path.insert(0, _Finder())
