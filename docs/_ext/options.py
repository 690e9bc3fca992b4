"""The table of options, made from `router.config.Config` so that the page cannot drift from it."""

import re
from dataclasses import Field, fields
from inspect import cleandoc
from typing import Any

from router.config.config import Config
from router.config.options import OPTIONS

HEAD = "| option | type | default | meaning |\n|---|---|---|---|\n"
UNITS = {"float": "seconds", "float or None": "seconds"}


def table() -> str:
    """Every option of `Config` but the servers, as a Markdown table."""
    said = meanings()
    rows = [_row(f, said[f.name]) for f in fields(Config) if f.name in OPTIONS]
    return HEAD + "".join(rows)


def meanings() -> dict[str, str]:
    """What `Config`'s docstring says of each attribute, one line each."""
    # Python 3.13 takes the indentation out of a docstring itself; cleandoc() does it for all.
    _, _, section = cleandoc(Config.__doc__ or "").partition("Attributes:\n")
    entry = re.compile(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entry.findall(section)}


def _row(option: Field[Any], meaning: str) -> str:
    kind = _kind(option.type)
    unit = ", bytes" if option.name.endswith("_bytes") else ""
    unit = unit or (f", {UNITS[kind]}" if kind in UNITS else "")
    default = repr(option.default).replace("'", '"')
    return f"| `{option.name}` | {kind}{unit} | `{default}` | {_quoted(meaning)} |\n"


def _kind(annotation: Any) -> str:
    if isinstance(annotation, type):
        return annotation.__name__
    text = str(annotation).replace("tuple[str, ...]", "list of str")
    text = text.replace("router.balance.Balancer", "callable")
    # Its meaning says what is given and returned.
    text = re.sub(r"collections\.abc\.Callable\[.*\]", "callable", text)
    if text.startswith("typing.Literal"):
        return " or ".join(f'`"{word}"`' for word in re.findall(r"'([^']*)'", text))
    return text.replace("|", "or")


def _quoted(text: str) -> str:
    return re.sub(r'"([^"]+)"', r'`"\1"`', text).replace("|", r"\|")
