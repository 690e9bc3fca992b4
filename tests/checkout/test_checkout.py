"""The short way through `Checkout.route` leads where the long one does."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.checkout.checkout import Checkout
from router.checkout.node_connection import NodeConnection
from router.checkout.route import Route
from router.cluster.router import Router
from router.config.config import Config
from router.errors import RouterError
from router.model import Lsn, Node, Report, Role
from router.rules.context import (
    LastRead,
    Pin,
    RoutingContext,
    request_context,
    using_primary,
    using_replica,
)
from router.rules.decision import Decision
from router.rules.journal import Entry


class Connection(NodeConnection):
    """A connection that does nothing."""

    errors = (OSError,)
    in_autocommit = True
    first_settings: ClassVar[dict[str, str]] = {}

    def __init__(self, node: Node) -> None:
        super().__init__(node, in_transaction=False)
        self.auto: bool | None = None

    def autocommit(self, value: bool) -> None:
        self.auto = value

    def run(self, *_: Any, **__: Any) -> None: ...

    def ask(self, sql: str) -> tuple[Any, ...]:
        return ("",)

    look = end = characterise = report_failure = give_back = discard = run  # type: ignore[assignment]
    fileno = sqlstate = run  # type: ignore[assignment]


@dataclass
class NoPools:
    """Connections made as they are asked for."""

    router: Router
    default_isolation: str
    driver_errors = (OSError,)
    translated: Callable[[RouterError], Exception] = lambda error: error
    hold: Callable[[Node], Connection] = Connection
    idle: Callable[[Node], Connection | None] = lambda node: None

    def start_router(self) -> None: ...


class LongWay(Checkout[Any]):
    """One that never takes the short way."""

    def _at_once(self, *_: Any) -> None:
        return None


class EventLoop(Checkout[Any]):
    """One that goes as an asynchronous adapter does: by what needs no waiting, if it can."""

    def idle_connection(self, decision: Decision) -> Connection:
        return Connection(self.router.balance(decision.nodes))

    def route(
        self,
        sql: str | None,
        *,
        explicit: bool,
        force: str | None = None,
        stream: bool = False,
        **more: Any,
    ) -> Route[Any]:
        self.explicit = explicit
        if force is None and sql is not None:
            context, decision = self.fast_read_on_primary(sql), self.router.view.any_within
            if context is not None and decision is not None:
                intent = self.router.intent(sql)
                return Route(self, sql, intent, self.primary, decision, context, False)
            ready = None if stream else self.route_without_waiting(sql)
            if ready is not None:
                return ready
        return super().route(sql, explicit=explicit, force=force, stream=stream, **more)


READS = (
    "SELECT 1", "SELECT now()", "DECLARE c CURSOR FOR SELECT 1", "SHOW work_mem", "UPDATE t",
    "SELECT pg_backend_pid()",
)  # fmt: skip
situations = st.fixed_dictionaries(
    {
        "sql": st.sampled_from(READS),
        "explicit": st.booleans(),
        "stream": st.sampled_from([False, False, True]),
        "force": st.sampled_from([None, None, None, "primary", "replica"]),
        "blacklisted": st.sets(st.sampled_from(["replica1", "replica2"])),
        "restarted": st.sets(st.sampled_from(["replica1", "replica2"])),
        "pinned": st.sampled_from([False, False, True]),
        "last": st.sampled_from([None, None, "replica1", "replica2"]),
        "held": st.sampled_from([None, "replica1", "replica2"]),
        "broken": st.sampled_from([False, False, True]),
        "in_transaction": st.sampled_from([None, None, "primary", "replica"]),
        "isolation": st.sampled_from(
            [None, "AUTOCOMMIT", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]
        ),
        "default": st.sampled_from(["READ COMMITTED", "REPEATABLE READ"]),
        "read_only": st.sampled_from([None, None, True]),
        "declared": st.sampled_from([False, False, True]),
        "bound": st.sampled_from([False, False, True]),
        "journal": st.sampled_from([False, False, True]),
        "dry_run": st.sampled_from([False, False, True]),
        "reads_in_transaction": st.sampled_from([False, False, True]),
        "block": st.sampled_from([None, None, "primary", "replica"]),
    }
)


def routed(kind: type[Checkout[Any]], given_: dict[str, Any]) -> tuple[object, ...]:
    """Where the statement of a situation goes by one way, or the error it gets."""
    with request_context() as context:
        return routed_in(context, kind, given_)


def routed_in(
    context: RoutingContext, kind: type[Checkout[Any]], given_: dict[str, Any]
) -> tuple[object, ...]:
    """The same in the context of a request."""
    now = [100.0]
    modes = {key: given_[key] for key in ("dry_run", "reads_in_transaction")}
    config = Config.from_url("postgresql://p/d", replicas=["a", "b"], name="one", **modes)
    router = Router(config, clock=lambda: now[0])
    router.started = True
    roles = {"primary": Role.PRIMARY, "replica1": Role.REPLICA, "replica2": Role.REPLICA}
    for at in (97.0, 99.0):
        for name, role in roles.items():
            router.observe(Report(name, at, role, Lsn(1000), 1, lag_seconds=0.0, streaming=True))
        for name in given_["restarted"] if at == 97.0 else ():
            router.observe(Report(name, 98.0, error="gone"))
    nodes = {node.name: node for node in router.servers}
    for name in given_["blacklisted"]:
        router.health.failed(nodes[name], "a test")
    if given_["pinned"]:
        context.pins.set(router.cluster, Pin(99.9))
    if given_["last"]:
        context.pins.reads[router.cluster] = LastRead(nodes[given_["last"]], 98.5)
    checkout = kind(NoPools(router, given_["default"]))  # type: ignore[arg-type]
    if kind is not EventLoop:
        checkout.pins = context.pins  # as a Session of its own has them
    if given_["held"]:
        checkout.replica = Connection(nodes[given_["held"]])
        checkout.replica.broken = given_["broken"]
        checkout.replica.in_transaction = given_["in_transaction"] == "replica"
    if given_["in_transaction"] == "primary":
        checkout.primary = Connection(nodes["primary"])
        checkout.timeline = checkout.router.view.timeline
        checkout.primary.in_transaction = True
    checkout.characterise(isolation=given_["isolation"], read_only=given_["read_only"])
    checkout.declared_read_only = given_["declared"]
    checkout.bound = given_["bound"]
    if given_["journal"]:
        checkout.journal.add(Entry("SET a.b = 1", None, False, ("a.b",)), transactional=False)
    options = {key: given_[key] for key in ("explicit", "stream", "force")}
    block: dict[str | None, Any] = {
        None: nullcontext,
        "primary": using_primary,
        "replica": using_replica,
    }
    router.balance = lambda found: found[0]
    try:
        with block[given_["block"]]():
            route: Route[Any] = checkout.route(given_["sql"], **options)
    except RouterError as error:
        return type(error), str(error)
    held = route.held
    return (
        held.node.name, route.decision, route.fresh, held.in_transaction, held.auto,
        route.intent, checkout.last is held, held.applied == checkout.journal.entries,
    )  # fmt: skip


@settings(max_examples=600)
@given(situations)
def test_every_way_leads_to_the_same_node(situation: dict[str, Any]) -> None:
    """Whatever is held, pinned, blacklisted or set, a read that takes the short way goes where
    the rules send it, for the same reason and in the same state."""
    expected = routed(LongWay, situation)
    assert routed(Checkout, situation) == expected
    assert routed(EventLoop, situation) == expected


@pytest.mark.parametrize(
    "what",
    [{"last": "replica1"}, {"held": None}, {"in_transaction": "primary", "explicit": True}],
    ids=["one more on the replica held", "the first of a checkout", "in a transaction"],
)
def test_the_short_way_is_taken(what: dict[str, Any]) -> None:
    """What most statements are decides nothing anew."""
    taken = []

    class Watched(Checkout[Any]):
        def _at_once(self, *args: Any) -> Any:
            taken.append(super()._at_once(*args))
            return taken[-1]

    plain = {
        "sql": "SELECT 1", "explicit": False, "stream": False, "force": None,
        "blacklisted": set(), "restarted": set(), "pinned": False, "last": None,
        "held": "replica1", "broken": False, "in_transaction": None, "isolation": None,
        "default": "READ COMMITTED", "read_only": None, "declared": False, "bound": False,
        "journal": False, "block": None, "dry_run": False, "reads_in_transaction": False,
    }  # fmt: skip
    found = routed(Watched, plain | what)
    assert found[0] == ("primary" if "explicit" in what else "replica1")
    assert taken != [None]
