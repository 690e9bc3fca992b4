"""Catalogs made by hand, of the few functions a test speaks of."""

from collections.abc import Sequence
from typing import Any

from router.sql.catalog import Catalog
from tests.sql.statements import rows

FIRST = 900_000
"""The oid of the first function made here: greater than any that the recorded rows have."""


def function(
    schema: str,
    name: str,
    n: int = 0,
    source: str = "select 1",
    *,
    volatile: bool = False,
    language: str = "sql",
    twins: Sequence[int] | None = None,
    extension: str | None = None,
) -> list[Any]:
    """The row of a function with `n` arguments of type int, without its oid."""
    return [
        schema, name, n, 0, False, volatile, language, source, None, None, 23, [23] * n, twins,
        extension, None, None, [None, None], ", ".join(["integer"] * n),
    ]  # fmt: skip


def catalog(*functions: list[Any]) -> Catalog:
    """What was recorded, with these `functions` in place of its own."""
    told = rows()
    told["functions"] = [[FIRST + i, *row] for i, row in enumerate(functions)]
    return Catalog.from_rows(told)
