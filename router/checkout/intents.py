"""What the statements of a checkout do, once their parameters are known."""

from typing import Any, TypeVar

from router.checkout.node_connection import NodeConnection
from router.checkout.text import text_of
from router.checkout.transaction import Transactions
from router.rules.decide import SESSION
from router.rules.journal import streamed
from router.sql.intent import Intent, Kind, OnStandby

UNKNOWN = Intent(Kind.WRITE, "not a statement the router can see", on_standby=OnStandby.UNSEEN)

H = TypeVar("H", bound=NodeConnection)


class Intents(Transactions[H]):
    """What statements do: by their text, and by the parameters that `Intent.parameters` names."""

    def text_of(self, query: Any) -> str | None:
        """The text of a driver's `query`, None where it cannot be told."""
        return text_of(query)

    def given(self, sql: str, intent: Intent, parameters: Any, *, many: bool) -> Intent:
        """What `sql`, which does `intent` as far as its text says, does with its `parameters`, of
        which with `many` there are several sets."""
        if many and not isinstance(parameters, list | tuple):
            return intent  # an iterator can be walked through once only
        sets = parameters if many else (parameters,)
        return self.router.classifier.given(sql, intent, sets)

    def intent_of(self, sql: str | None, parameters: Any, *, rows: bool = False) -> Intent:
        """What `sql` does with its `parameters`; with `rows` they are asked for one by one."""
        if sql is None:
            return UNKNOWN
        intent = self.router.classifier(sql)
        if intent.parameters:
            intent = self.given(sql, intent, parameters, many=False)
        return streamed(intent, rows=rows)

    def repeatable(self, sql: str | None, sets: Any) -> Any:
        """The `sets` of parameters of `sql` as a list, where they have to be looked at before or
        after it runs."""
        if sql is None or isinstance(sets, list | tuple):
            return sets
        intent = self.router.classifier(sql)
        return list(sets) if intent.kind is SESSION or intent.parameters else sets
