"""Names PostgreSQL 18 brings, as scripts/make_builtins.py wrote them into ``builtins.txt``."""

from importlib.resources import files

_TEXT = files("router.sql").joinpath("builtins.txt").read_text("utf-8")
# A paragraph of the file is a kind and its names.
_NAMES = {kind: frozenset(names) for kind, *names in map(str.split, _TEXT.split("\n\n"))}

STABLE = _NAMES["STABLE"]
"""Functions of which every overload is immutable or stable."""

VOLATILE = _NAMES["VOLATILE"]
"""Functions of which some overload is volatile; `router.sql.functions` judges each."""

RELATIONS = _NAMES["RELATIONS"]
"""Tables and views of pg_catalog."""

TYPES = _NAMES["TYPES"]
"""Types of pg_catalog, without arrays and row types."""

OPERATORS = _NAMES["OPERATORS"]
"""Operators; none of PostgreSQL's own is backed by a volatile function."""
