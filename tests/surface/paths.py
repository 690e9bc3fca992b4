"""Which names of pg-router are public: what the documentation, the examples and the packaging say.

A path is dotted, as a user writes it: ``router.Router.add_replica``. With ``()`` behind it, it
stands for the constructor of a class. Where the code behind a path is defined is nobody's concern.
"""

import ast
import inspect
import re
import tomllib
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from enum import EnumMeta
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
]
EXAMPLES = sorted((ROOT / "examples").rglob("*.py"))
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = ("router", "router.asyncpg", "router.django", "router.psycopg", "router.sqlalchemy",
            "router.testing")  # fmt: skip
"""Those whose ``__all__`` is documented."""

ERRORS = ("router.asyncpg.errors", "router.psycopg.errors", "router.sqlalchemy.errors")
"""Those that reference/errors.md says to have errors that are a driver's as well."""

BY_PROSE = (
    "router.django.base.DatabaseWrapper",  # what Django looks for in ENGINE
    "router.Router.telemetry",  # reference/events.md: its hooks
    "router.PinCarrier.telemetry",  # reference/middleware.md: likewise
    "router.sqlalchemy.RoutedAsyncEngine.router",
    "router.django.base.DatabaseWrapper.router",
    "router.django.base.DatabaseWrapper.hold_session",
)
"""Public by a sentence or a snippet that nothing here can read."""

DRIVERS = {
    "router.psycopg.Connection": "psycopg.Connection",
    "router.psycopg.AsyncConnection": "psycopg.AsyncConnection",
    "router.psycopg.Cursor": "psycopg.Cursor",
    "router.psycopg.AsyncCursor": "psycopg.AsyncCursor",
    "router.psycopg.ConnectionPool": "psycopg_pool.ConnectionPool",
    "router.psycopg.AsyncConnectionPool": "psycopg_pool.AsyncConnectionPool",
    "router.asyncpg.Connection": "asyncpg.Connection",
    "router.asyncpg.Pool": "asyncpg.Pool",
}
"""Classes that "have the methods of" a driver's class (reference/python-api.md): public is what
both define."""

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`(router(?:\.\w+)+)")
_TEXT = re.compile(r"""["'](router(?:\.\w+)+)["']""")
_DIRECTIVE = re.compile(
    r"^ *\.\. (?P<kind>auto\w+|py:\w+):: (?P<path>router[\w.]*)(?P<call>\(.*\))?\n"
    r"(?:   :members:(?P<members>.*(?:\n {7}.*)*))?",
    re.MULTILINE,
)


class NotFound(LookupError):
    """Nothing stands at a path."""


def find(path: str) -> tuple[Any, Any]:
    """What stands at a path, and the module or class it is taken from.

    A function goes before a module of the same name, as ``router.explain`` does; what is behind
    the module, ``router.explain.Explanation``, is found as well.

    Raises:
        NotFound: there is no such thing.
    """
    parts = path.removesuffix("()").split(".")
    for n in range(1, len(parts) + 1):
        try:
            owner: Any = import_module(".".join(parts[:n]))
        except ModuleNotFoundError as error:
            if not (error.name or "").startswith("router"):
                raise
            break
        if n == len(parts):
            return owner, owner
        try:
            return _inside(owner, parts[n:])
        except NotFound:
            continue
    raise NotFound(path)


def _inside(owner: Any, names: list[str]) -> tuple[Any, Any]:
    missing = object()
    for i, name in enumerate(names):
        if isinstance(owner, type):  # a property, not its value
            found = inspect.getattr_static(owner, name, missing)
        else:
            found = getattr(owner, name, missing)
        if found is missing:
            if i == len(names) - 1 and isinstance(owner, type) and name in instance_names(owner):
                return owner, Instance(name)
            raise NotFound(name)
        if i == len(names) - 1:
            return owner, found
        owner = found
    raise NotFound(".".join(names))


class Instance:
    """An attribute that the instances of a class have, and the class itself has not."""

    def __init__(self, name: str) -> None:
        self.name = name


def ours(kind: type) -> list[type]:
    """The classes of pg-router among a class and its bases."""
    return [base for base in kind.__mro__ if base.__module__.partition(".")[0] == "router"]


@cache
def instance_names(kind: type) -> set[str]:
    """The attributes that the bodies and methods of a class give to its instances."""
    found: set[str] = set()
    for base in ours(kind):
        found |= annotated(base).keys()
        for node in ast.walk(tree(base)):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.ctx, ast.Store)
                and isinstance(node.value, ast.Name)
                and node.value.id == "self"
            ):
                found.add(node.attr)
    return found


@cache
def tree(thing: Any) -> ast.AST:
    """The source of a class or a function as a tree; an empty one where there is none."""
    try:
        source = inspect.getsource(thing)
    except (OSError, TypeError):
        return ast.Module([], [])
    return ast.parse("if 1:\n" + source if source[:1].isspace() else source)


@cache
def annotated(kind: type) -> dict[str, ast.expr]:
    """The annotations of a class and, in its methods, of ``self``, as they are written."""
    found: dict[str, ast.expr] = {}
    for node in ast.walk(tree(kind)):
        if isinstance(node, ast.ClassDef):
            for line in node.body:
                if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                    found.setdefault(line.target.id, line.annotation)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Attribute):
            found.setdefault(node.target.attr, node.annotation)
    return found


def documented() -> set[str]:
    """Every public path."""
    found = set(BY_PROSE)
    for package in PACKAGES:
        found.add(package)
        found |= {f"{package}.{name}" for name in import_module(package).__all__}
    for page in PAGES:
        text = page.read_text()
        found |= {path for path in _INLINE.findall(text) if _is_public(path)}
        found |= {path for path in _TEXT.findall(text) if _exists(path)}
        for language, code in _FENCE.findall(text):
            if language == "python":
                found |= set(_imported(ast.parse(code)))
    for example in EXAMPLES:
        text = example.read_text()
        found |= {path for path in _TEXT.findall(text) if _exists(path)}
        found |= set(_imported(ast.parse(text)))
    for page in sorted(REFERENCE.glob("*.md")):
        found |= set(_directives(page.read_text()))
    for module in ERRORS:
        found |= {module} | {f"{module}.{name}" for name in _errors(module)}
    for path in DRIVERS:
        found |= {f"{path}.{name}" for name in _mirrored(path)}
    return {path for path in found if path != "router.__version__"}


def _exists(path: str) -> bool:
    try:
        find(path)
    except NotFound:
        return False
    return True


def _is_public(path: str) -> bool:
    """Whether an inline `router.x.y` is a name: `router` is often a variable, whose attributes
    may be called as modules of ours are."""
    return _exists(path) and not inspect.ismodule(find(path)[1])


def _imported(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.partition(".")[0] == "router")
        elif (
            isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "router"
        ):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _directives(text: str) -> Iterator[str]:
    for found in _DIRECTIVE.finditer(text):
        path = found["path"]
        yield path
        kind = find(path)[1]
        if not isinstance(kind, type) or found["kind"] == "py:class":  # written out by hand
            continue
        if found["call"] != "()" and not issubclass(kind, BaseException):
            yield f"{path}()"
        yield from (f"{path}.{name}" for name in _members(kind, found["members"]))


def _members(kind: type, told: str | None) -> set[str]:
    """The members of a class that Sphinx shows: those the directive names, or all with a
    docstring where it names none; and those of the docstring's section "Attributes"."""
    if isinstance(kind, EnumMeta):
        return set(kind.__members__)
    names = set(re.findall(r"\w+", told or ""))
    if told is not None and not names:
        names = {
            name for name, value in vars(kind).items()
            if not name.startswith("_") and getattr(value, "__doc__", None)
            and (callable(value) or isinstance(value, property | classmethod | staticmethod))
        }  # fmt: skip
    attributes = attributes_told(kind)
    if not attributes and is_dataclass(kind):
        attributes = {f.name for f in fields(kind) if not f.name.startswith("_")}
    if issubclass(kind, tuple):  # a NamedTuple
        attributes |= set(getattr(kind, "_fields", ()))
    return names | attributes


def attributes_told(kind: type) -> set[str]:
    """The names in the section "Attributes" of a class's docstring."""
    _, _, section = inspect.cleandoc(vars(kind).get("__doc__") or "").partition("Attributes:\n")
    section = section.partition("\n\n")[0]
    return {
        name.strip("*` ")
        for line in re.findall(r"^ {4}(\w[\w, `]*):", section, re.MULTILINE)
        for name in line.split(",")
    }


def _errors(module: str) -> list[str]:
    """The errors that a documented module of errors defines."""
    found = import_module(module)
    return [
        name for name, value in vars(found).items()
        if isinstance(value, type) and issubclass(value, Exception)
        and not name.startswith("_") and value.__module__ == module
    ]  # fmt: skip


def _mirrored(path: str) -> set[str]:
    module, _, name = DRIVERS[path].rpartition(".")
    theirs = set(dir(getattr(import_module(module), name)))
    mine = {name for base in ours(find(path)[1]) for name in vars(base)}
    return {name for name in mine & theirs if not name.startswith("_")}
