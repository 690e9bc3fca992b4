"""Django's compilers for PostgreSQL, but for an UPDATE that reads before it writes."""

from typing import Any

from django.db.backends.postgresql.compiler import (
    SQLAggregateCompiler,
    SQLCompiler,
    SQLDeleteCompiler,
    SQLInsertCompiler,
)
from django.db.backends.postgresql.compiler import SQLUpdateCompiler as _SQLUpdateCompiler

from router.rules.context import using_primary

__all__ = [
    "SQLAggregateCompiler",
    "SQLCompiler",
    "SQLDeleteCompiler",
    "SQLInsertCompiler",
    "SQLUpdateCompiler",
]


class SQLUpdateCompiler(_SQLUpdateCompiler):
    """With multi-table inheritance an UPDATE first asks which rows of the parent are meant."""

    def pre_sql_setup(self) -> Any:
        with using_primary():
            return super().pre_sql_setup()
