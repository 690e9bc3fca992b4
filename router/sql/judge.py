"""By what a statement is judged."""

from collections.abc import Iterable

from router.sql import functions
from router.sql.catalog import Catalog


class Judge:
    """The catalog and the users' rules."""

    __slots__ = ("attributes", "catalog", "read", "write")

    def __init__(
        self, catalog: Catalog, read: Iterable[str] = (), write: Iterable[str] = ()
    ) -> None:
        self.catalog: Catalog = catalog
        self.read: frozenset[str] = frozenset(read)
        self.write: frozenset[str] = frozenset(write)
        # Names that would be a call, or a cast, where a column is expected.
        self.attributes: frozenset[str] = frozenset(functions.UNSAFE).union(
            (name for name in functions.LOCAL if name in functions.SAFE),
            ("current_setting",),
            (
                name
                for name, same in catalog.functions.items()
                if any(f.verdict or f.local or f.types for f in same)
            ),
            (name for name, same in catalog.types.items() if any(t.types for t in same)),
        )
