"""Publish a Router's metrics by OpenTelemetry, and say on spans where a statement went.

from router.opentelemetry import publish, tag_spans

publish(engine)
tag_spans(engine)
"""

from collections.abc import Callable, Iterable
from typing import Any

from opentelemetry import metrics as otel
from opentelemetry import trace
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

from router import metrics
from router.core import Router
from router.metrics import METRICS, Metric
from router.target import router_of

NODE, ROLE, REASON = "db.router.node", "db.router.role", "db.router.reason"
"""The spans' attributes: the node's name, "primary" or "replica", and the reason's name."""


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
        told = metrics.counts(router) if metric.kind == "counter" else metrics.states(router)
        for other, labels, value in told:
            if other is metric:
                yield Observation(value, dict(zip(metric.labels, labels, strict=True)))

    return observe


def tag_spans(engine: Any) -> None:
    """Set `NODE`, `ROLE` and `REASON` on the span of each statement of a SQLAlchemy engine.

    The span is the one that OpenTelemetry's instrumentation of SQLAlchemy made for the statement,
    else the current one.

    Args:
        engine: a routed engine, synchronous or asynchronous.

    Raises:
        sqlalchemy.exc.InvalidRequestError: it is no engine.
    """
    from sqlalchemy import event

    sync = getattr(engine, "sync_engine", engine)
    # Who was set up first is asked last: the instrumentation's span is there from its own
    # before_cursor_execute on, and ended in its after_cursor_execute.
    for name, listener in (("before_cursor_execute", _begun), ("after_cursor_execute", _ended)):
        if not event.contains(sync, name, listener):
            event.listen(sync, name, listener)


def _begun(
    conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool
) -> None:
    span = getattr(context, "_otel_span", None)
    if span is not None:
        _tag(span, context)


def _ended(
    conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool
) -> None:
    _tag(getattr(context, "_otel_span", None) or trace.get_current_span(), context)


def _tag(span: trace.Span, context: Any) -> None:
    route = getattr(context, "router_route", None)
    if route is not None and span.is_recording():
        span.set_attribute(NODE, route.held.node.name)
        span.set_attribute(ROLE, "primary" if route.decision.on_primary else "replica")
        span.set_attribute(REASON, route.decision.reason.name.lower())
