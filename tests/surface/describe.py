"""How a public name is described in one line: what a caller can see of it, whatever file holds it.

Annotations are told as they are written, names without their modules; defaults as values. Both
are the same on every version of Python, which `inspect.signature` is not.
"""

import ast
import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum, EnumMeta
from functools import cached_property
from types import FunctionType
from typing import Any

from tests.surface.paths import annotated, find, ours, tree


def described(path: str) -> str:
    """One line about what stands at a path.

    Raises:
        NotFound: nothing does.
    """
    owner, value = find(path)
    if path.endswith("()"):
        return constructor(value)
    if inspect.ismodule(value):
        return "module"
    if isinstance(value, type):
        return kind_of(value)
    if isinstance(owner, EnumMeta) and isinstance(value, owner):
        return f"member = {value.value!r}"
    name = path.rpartition(".")[2]
    if isinstance(value, classmethod | staticmethod):
        return f"{type(value).__name__} {function(value.__func__)}"
    if isinstance(value, property | cached_property):  # told as an attribute, which it may become
        get = value.fget if isinstance(value, property) else value.func
        settable = isinstance(value, property) and value.fset is not None
        returns = _returns(get).replace(" -> ", ": ", 1) if get is not None else ""
        return f"attribute{returns}{', settable' if settable else ''}"
    if isinstance(owner, type) and not callable(inspect.unwrap(value)):
        return attribute(owner, name)
    if callable(value):
        return function(value)
    return f"value {shown(value)}"


def kind_of(kind: type) -> str:
    """A class and what it is, by the names of its bases: those of other projects that we name,
    and our public ones."""
    direct = {base for one in ours(kind) for base in one.__bases__}
    bases = [
        base.__name__ for base in kind.__mro__[1:]
        if base is not object and base.__name__ not in ("ABC", "Generic")
        and (_is_public(base) if base in ours(kind) else base in direct)
    ]  # fmt: skip
    word = "exception" if issubclass(kind, BaseException) else "class"
    if isinstance(kind, EnumMeta):
        word = "enum"
    return f"{word} ({', '.join(bases)})" if bases else word


def _is_public(base: type) -> bool:
    import router

    return base.__name__ in router.__all__


def constructor(kind: type) -> str:
    """The arguments a class is made with."""
    if is_dataclass(kind):
        told = annotated(kind)
        parts = []
        for one in fields(kind):
            if one.init:
                note = f": {annotation(told[one.name])}" if one.name in told else ""
                parts.append(one.name + note + default_of(one))
        return f"({', '.join(parts)})"
    for name in ("__init__", "__new__"):
        for base in kind.__mro__:
            made = vars(base).get(name)
            if made is None or base is object:
                continue
            if base not in ours(kind):
                return f"as {base.__name__}"
            return function(made)
    return "()"


def default_of(one: Field[Any]) -> str:
    """The default of a dataclass's field, with the sign before it; empty for none."""
    if one.default is not MISSING:
        return f" = {shown(one.default)}"
    return " = …" if one.default_factory is not MISSING else ""


def attribute(owner: type, name: str) -> str:
    """An attribute of a class or of its instances."""
    if is_dataclass(owner):
        for one in fields(owner):
            if one.name == name:
                note = annotated(owner).get(name)
                return f"attribute{_colon(note)}{default_of(one)}"
    for base in ours(owner):
        note = annotated(base).get(name)
        if note is not None:
            defaults = getattr(owner, "_field_defaults", {}) if issubclass(owner, tuple) else {}
            default = f" = {shown(defaults[name])}" if name in defaults else ""
            return f"attribute{_colon(note)}{default}"
        if isinstance(vars(base).get(name), property):
            break
    return "attribute"


def _colon(note: ast.expr | None) -> str:
    return f": {annotation(note)}" if note is not None else ""


def function(value: Any) -> str:
    """The arguments of a function and what it returns."""
    value = inspect.unwrap(value)
    if not isinstance(value, FunctionType):
        value = getattr(value, "__func__", None) or vars(type(value)).get("__call__", value)
        if not isinstance(value, FunctionType):
            return "callable"
    package = value.__module__.partition(".")[0]
    if package != "router":  # its arguments are its project's business
        return f"as {package} has it"
    node = _definition(value)
    if node is None:
        return "callable"
    word = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    return f"{word} {_arguments(value, node.args)}{_returns(value)}"


def _definition(value: FunctionType) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    for node in ast.walk(tree(value)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            return node
    return None


def _returns(value: Callable[..., Any]) -> str:
    node = _definition(inspect.unwrap(value))
    if node is None or node.returns is None:
        return ""
    return f" -> {annotation(node.returns)}"


def _arguments(value: FunctionType, given: ast.arguments) -> str:
    defaults = value.__defaults__ or ()
    keywords = value.__kwdefaults__ or {}
    positional = [*given.posonlyargs, *given.args]
    first = len(positional) - len(defaults)
    parts: list[str] = []
    for i, arg in enumerate(positional):
        if i == 0 and arg.arg in ("self", "cls"):
            continue
        default = f" = {shown(defaults[i - first])}" if i >= first else ""
        parts.append(arg.arg + _colon(arg.annotation) + default)
        if i + 1 == len(given.posonlyargs):
            parts.append("/")
    if given.vararg is not None:
        parts.append(f"*{given.vararg.arg}{_colon(given.vararg.annotation)}")
    elif given.kwonlyargs:
        parts.append("*")
    for arg in given.kwonlyargs:
        default = f" = {shown(keywords[arg.arg])}" if arg.arg in keywords else ""
        parts.append(arg.arg + _colon(arg.annotation) + default)
    if given.kwarg is not None:
        parts.append(f"**{given.kwarg.arg}{_colon(given.kwarg.annotation)}")
        parts.extend(_unpacked(value, given.kwarg.annotation))
    return f"({', '.join(parts)})"


def _unpacked(value: FunctionType, note: ast.expr | None) -> list[str]:
    """The keys of ``**options: Unpack[SomeTypedDict]``."""
    if not (isinstance(note, ast.Subscript) and ast.unparse(note.value).endswith("Unpack")):
        return []
    name = annotation(note.slice)
    keys = value.__globals__.get(name)
    required: frozenset[str] = getattr(keys, "__required_keys__", frozenset())
    optional: frozenset[str] = getattr(keys, "__optional_keys__", frozenset())
    return [f"{{{', '.join(sorted(required) + [f'{key}?' for key in sorted(optional)])}}}"]


class _Bare(ast.NodeTransformer):
    """Drops the modules of names, and the quotes around annotations."""

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        return ast.Name(node.attr)

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        if isinstance(node.value, str):
            return self.visit(ast.parse(node.value, mode="eval").body)  # type: ignore[no-any-return]
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        node.value = self.visit(node.value)
        if ast.unparse(node.value) != "Literal":
            node.slice = self.visit(node.slice)
        return node


def annotation(note: ast.expr) -> str:
    """An annotation as it is written, without modules and quotes."""
    copied = ast.parse(ast.unparse(note), mode="eval").body
    return ast.unparse(ast.fix_missing_locations(_Bare().visit(copied)))


def shown(value: Any) -> str:
    """A default or a constant, the same in every process and on every version."""
    if isinstance(value, Enum):
        return f"{type(value).__name__}.{value.name}"
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return repr(value)
    if isinstance(value, tuple):
        return f"({', '.join(map(shown, value))})"
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, frozenset | set):
        return f"{{{', '.join(sorted(map(shown, value)))}}}"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{shown(k)}: {shown(v)}' for k, v in value.items())}}}"
    name = getattr(value, "__name__", None)
    return name if isinstance(name, str) else f"<{type(value).__name__}>"
