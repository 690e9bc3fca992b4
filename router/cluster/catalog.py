"""What statements are classified by: the rules of the configuration, and the server's catalog."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from router.cluster.state import State
from router.sql.catalog import BUILTIN, Catalog
from router.sql.classifier import Classifier

if TYPE_CHECKING:
    from router.cluster.router import Router

SQL_SHOWN = 300
"""Characters of a statement an event may carry: its text holds placeholders, never parameters."""


class CatalogInForce:
    """The catalog statements are classified by; any thread. `routers` gives those of the process.

    Attributes:
        classifier: says what statements do.
        current: the one in force, `router.sql.catalog.BUILTIN` while none was read.
        generation: how often DDL may have changed it.
    """

    def __init__(self, state: State, routers: Callable[[], "list[Router]"]) -> None:
        config = state.config
        self._state = state
        self._routers = routers
        self._lock = state.runtime.lock()
        self.classifier: Classifier = Classifier(
            read_functions=config.read_functions,
            write_functions=config.write_functions,
            read_patterns=config.read_patterns,
            write_patterns=config.write_patterns,
            rule=config.rule,
            hints=config.hints,
        )
        self.current: Catalog = BUILTIN
        self.generation: int = 0

    def learn(self, catalog: Catalog, generation: int) -> bool:
        """Classify by `catalog`, unless DDL was run since `generation`, when reading it began."""
        with self._lock:
            if generation != self.generation:
                return False
            if self.current is not catalog:  # else what was classified by it stays known
                self.current = catalog
                self.classifier.replace_catalog(catalog)
            return True

    def ddl(self) -> None:
        """DDL is about to be sent, or its transaction has ended: what is known may be wrong.

        Until the catalog has been read again, statements over relations go to the primary.
        """
        with self._lock:
            self.generation += 1
            if self.current is not BUILTIN:
                self.current = BUILTIN
                self.classifier.replace_catalog(BUILTIN)
        if self._state.monitor is not None:
            self._state.monitor.refresh_catalog()
        for router in self._routers():  # over the same database perhaps
            if router.catalog is not self:
                router.catalog.doubt()

    def doubt(self) -> None:
        """DDL may have been run that nobody saw: look soon whether the catalog is the same. It
        stays in force until then."""
        if self._state.monitor is not None:
            self._state.monitor.doubt_catalog()

    def heal(self, sql: str, state: str, reason: str) -> None:
        """Remember that a standby refused `sql`, which had been taken for a read, with the
        SQLSTATE `state` and, in one line, the `reason`."""
        self.classifier.learn_write(sql, f"a replica refused it ({state})")
        self._state.telemetry.event(
            "healed",
            level="warning",
            sql=sql if len(sql) <= SQL_SHOWN else sql[:SQL_SHOWN] + "…",
            reason=reason,
            advice="add its function to write_functions, or run it inside using_primary()",
        )
