"""Where a statement would go now, and why, in words."""

from dataclasses import dataclass

from router.cluster.router import Router
from router.errors import RouterError
from router.rules.context import RoutingContext
from router.rules.decision import Decision
from router.rules.situation import Situation, Transaction
from router.sql.catalog import BUILTIN, Catalog
from router.sql.classifier import classify
from router.sql.hints import NODES, hints
from router.sql.intent import Intent, Kind


@dataclass(frozen=True, slots=True)
class Explanation:
    """One statement's intent, and what the rules make of it.

    Attributes:
        sql: the statement.
        intent: what it does, and what in it decided that.
        decision: the candidates and the rule; None without a cluster, or when it is refused.
        problem: why it could not run anywhere now, empty when it could.
    """

    sql: str
    intent: Intent
    decision: Decision | None = None
    problem: str = ""

    def __str__(self) -> str:
        intent = self.intent
        lines = [f"intent:  {intent.kind.value}: {intent.reason}"]
        notes = [
            note
            for applies, note in (
                (intent.binds, "the checkout then stays on the primary"),
                (intent.local, "it lasts until the transaction ends"),
                (intent.needs_transaction, "it needs a real transaction"),
                (intent.server_local, "using_replica() asks a replica"),
                (intent.no_transaction, "it cannot run in a transaction"),
                (intent.ddl, "the catalog is read again afterwards"),
            )
            if applies
        ]
        if intent.hint:
            notes.append(f"a hint in it asks for the {intent.hint}")
        notes += [f"no hint: {said!r}" for said in hints(self.sql) if said not in NODES]
        if intent.settings:
            notes.append(f"it sets {', '.join(intent.settings)}")
        if notes:
            lines.append(f"note:    {'; '.join(notes)}")
        if intent.kind is Kind.WRITE:
            lines.append(f"standby: {intent.on_standby.value}")
        if self.decision is not None:
            nodes = " or ".join(str(node) for node in self.decision.nodes)
            lines += [f"goes to: {nodes}", f"because: {self.decision.reason}"]
        elif self.problem:
            lines.append(f"fails:   {self.problem}")
        return "\n".join(lines)


def explain(
    sql: str,
    router: Router | None = None,
    *,
    transaction: Transaction = Transaction.NONE,
    catalog: Catalog = BUILTIN,
) -> Explanation:
    """Say what `sql` does and, given a Router, where it would go now. Nothing is sent.

    Args:
        sql: the statement, with the placeholders of any driver.
        router: the Router of an engine; without one only the intent is told.
        transaction: what would surround the statement.
        catalog: what is known of the server, where there is no Router.
    """
    if router is None:
        return Explanation(sql, classify(sql, catalog))
    router.start()
    intent = router.intent(sql)
    try:
        # A context of its own: explaining pins nobody, and nobody's pin decides.
        decision = router.decide(intent, Situation(transaction), context=RoutingContext())
    except RouterError as error:
        return Explanation(sql, intent, problem=str(error))
    return Explanation(sql, intent, decision)
