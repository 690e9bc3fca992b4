"""Patches a traced engine's dialect, to tag spans; publishes metrics by OpenTelemetry.

from router.opentelemetry import publish, tag_spans

publish(engine)
tag_spans(engine)
"""

from collections.abc import Callable, Iterable, Mapping
from functools import cache, lru_cache
from typing import Any

from opentelemetry import metrics as otel
from opentelemetry import trace
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

from router import metrics
from router.cluster.router import Router
from router.errors import ConfigError
from router.metrics import METRICS, Metric
from router.rules.decision import Reason
from router.target import router_of

NODE, ROLE, REASON = "db.router.node", "db.router.role", "db.router.reason"
"""The spans' attributes: the node's name, "primary" or "replica", and the reason's name."""

TRANSACTION = Reason.TRANSACTION
"""By a name of its own: in Python 3.11 a member is slow to reach through its enumeration."""


def publish(target: object, provider: MeterProvider | None = None) -> None:
    """Publish the metrics of a cluster as observable instruments, read when they are exported.

    Their names are those of `router.metrics`.

    Args:
        target: a routed engine or a `router.Router`; in Django ``connection.router``.
        provider: of the meter; the global one by default.

    Raises:
        ConfigError: the target is none of these.
    """
    router, _ = router_of(target)
    meter = otel.get_meter("router", meter_provider=provider)
    for metric in METRICS:
        make: Callable[..., Any] = (
            meter.create_observable_counter
            if metric.kind == "counter"
            else meter.create_observable_gauge
        )
        make(metric.name, callbacks=[_callback(router, metric)], description=metric.help)


Observe = Callable[[CallbackOptions], Iterable[Observation]]


def _callback(router: Router, metric: Metric) -> Observe:
    def observe(options: CallbackOptions) -> Iterable[Observation]:
        read = metrics.counts if metric.kind == "counter" else metrics.states
        for other, labels, value in read(router):
            if other is metric:
                yield Observation(value, dict(zip(metric.labels, labels, strict=True)))

    return observe


def tag_spans(engine: Any) -> None:
    """Set `NODE`, `ROLE` and `REASON` on the span of each statement of a SQLAlchemy engine.

    The span is the one that OpenTelemetry's instrumentation of SQLAlchemy made for the statement,
    else the current one. They name the node that served it in the end, or that failed it last.

    Args:
        engine: a routed engine, synchronous or asynchronous.

    Raises:
        ConfigError: it is none.
    """
    sync = getattr(engine, "sync_engine", engine)
    if not isinstance(getattr(getattr(sync, "pool", None), "router", None), Router):
        raise ConfigError(f"tag_spans: {type(engine).__name__} is no routed engine")
    dialect = sync.dialect
    # No events: SQLAlchemy asks after their listeners some twenty times about each statement,
    # which costs more than the tags.
    if not hasattr(dialect, "router_tags"):
        dialect.__class__ = _tagging(dialect.__class__)


@cache
def _tagging(dialect: Any) -> type[Any]:
    """The subclass of `dialect` that tags: it runs a statement after its span was made, in
    ``before_cursor_execute``, and before that ends, in ``after_cursor_execute`` or
    ``handle_error``."""

    class Tagging(dialect):  # type: ignore[misc]
        __slots__ = ()  # keeps the object layout, so that the engine's dialect can take this class
        supports_statement_cache = dialect.supports_statement_cache
        router_tags = True

        def do_execute(
            self, cursor: Any, statement: str, parameters: Any, context: Any = None
        ) -> None:
            try:
                super().do_execute(cursor, statement, parameters, context)
            finally:
                _tag(context)

        def do_executemany(
            self, cursor: Any, statement: str, parameters: Any, context: Any = None
        ) -> None:
            try:
                super().do_executemany(cursor, statement, parameters, context)
            finally:
                _tag(context)

        def do_execute_no_params(self, cursor: Any, statement: str, context: Any = None) -> None:
            try:
                super().do_execute_no_params(cursor, statement, context)
            finally:
                _tag(context)

    return Tagging


def _tag(context: Any) -> None:
    route = getattr(context, "router_route", None)
    inside: Any = getattr(context, "router_inside", None)
    if route is None and inside is None:
        return
    span = getattr(context, "_otel_span", None) or trace.get_current_span()
    if not span.is_recording():
        return
    if route is None:
        tags = _tags(inside[1].node.name, True, TRANSACTION)
    else:
        decision = route.decision
        tags = _tags(route.held.node.name, decision.on_primary, decision.reason)
    span.set_attributes(tags)


@lru_cache(maxsize=1024)
def _tags(node: str, on_primary: bool, reason: Reason) -> Mapping[str, str]:
    role = "primary" if on_primary else "replica"
    return {NODE: node, ROLE: role, REASON: reason.name.lower()}
