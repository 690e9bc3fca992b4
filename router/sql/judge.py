"""By what a statement is judged."""

from collections.abc import Iterable

from router.sql import functions
from router.sql.catalog import Cast, Catalog, Function, Operator, Relation, Type

Object = Function | Relation | Type | Operator | Cast


class Judge:
    """The catalog and the users' rules, with what was already found harmless under them."""

    __slots__ = ("attributes", "catalog", "harmless", "implicit", "read", "write")

    def __init__(
        self, catalog: Catalog, read: Iterable[str] = (), write: Iterable[str] = ()
    ) -> None:
        self.catalog: Catalog = catalog
        self.read: frozenset[str] = frozenset(read)
        self.write: frozenset[str] = frozenset(write)
        # Names that would be a call where a column is expected.
        self.attributes: frozenset[str] = frozenset(functions.UNSAFE).union(catalog.functions)
        # Only ever grows, by whole objects: safe to share between threads.
        self.harmless: set[Object] = set()
        self.implicit: tuple[Object, ...] = tuple(catalog.implicit())
