"""What OpenTelemetry is told: metrics by a meter, and where a statement went on its span."""

from typing import Any

import pytest
import sqlalchemy as sa
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import router
from router.metrics import METRICS
from router.opentelemetry import NODE, REASON, ROLE, publish, tag_spans
from router.sqlalchemy import RoutedEngine


def work(engine: RoutedEngine) -> None:
    with router.request_context(), engine.connect() as connection:
        connection.execute(sa.text("SELECT 1"))
        connection.execute(sa.text("CREATE TEMP TABLE t ()"))
        connection.execute(sa.text("SELECT 2"))
        connection.rollback()


def test_a_meter_reads_every_metric(engine: RoutedEngine) -> None:
    """Instruments have the documented names, and say where statements went."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    publish(engine, provider)
    work(engine)
    data: Any = reader.get_metrics_data()
    (scope,) = data.resource_metrics[0].scope_metrics
    found = {metric.name: list(metric.data.data_points) for metric in scope.metrics}
    assert found.keys() == {metric.name for metric in METRICS}
    counted = {
        (p.attributes["node"].rstrip("12"), p.attributes["reason"]): p.value
        for p in found["pg_router_statements"]
    }
    assert counted["replica", "read"] == 1
    assert counted["primary", "write"] == 1
    provider.shutdown()


@pytest.mark.parametrize("first", ["tags", "spans"])
def test_spans_say_where_the_statement_went(engine: RoutedEngine, first: str) -> None:
    """The instrumentation's span of each statement has node, role and reason, whichever of the
    two was set up first."""
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    instrumentor = SQLAlchemyInstrumentor()
    if first == "tags":
        tag_spans(engine)
    # It names SQLAlchemy below 2.1 as its range, and works beyond.
    instrumentor.instrument(engine=engine, tracer_provider=provider, skip_dep_check=True)
    tag_spans(engine)
    try:
        work(engine)
    finally:
        instrumentor.uninstrument()
    told: list[Any] = [span.attributes for span in spans.get_finished_spans()]
    told = [attributes for attributes in told if NODE in attributes]
    assert [(a[NODE].rstrip("12"), a[ROLE], a[REASON]) for a in told] == [
        ("replica", "replica", "read"),
        ("primary", "primary", "write"),
        ("primary", "primary", "transaction"),
    ]


def test_without_instrumentation_the_current_span_is_tagged(engine: RoutedEngine) -> None:
    """An application's own span says where its last statement went."""
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    tag_spans(engine)
    with provider.get_tracer("test").start_as_current_span("page"):
        work(engine)
    (span,) = spans.get_finished_spans()
    assert span.attributes is not None
    assert span.attributes[ROLE] == "primary"


def test_a_statement_that_failed_is_tagged(engine: RoutedEngine) -> None:
    """The span of a failed statement says which node failed it, and the application's own
    listeners go on being asked."""
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    tag_spans(engine)
    tag_spans(engine)
    seen: list[str] = []
    sa.event.listen(engine, "before_cursor_execute", lambda *args: seen.append(args[2]))
    with (
        provider.get_tracer("test").start_as_current_span("page"),
        engine.connect() as connection,
        pytest.raises(sa.exc.DataError),
    ):
        connection.execute(sa.text("SELECT 1/0"))
    assert seen == ["SELECT 1/0"]
    (span,) = spans.get_finished_spans()
    assert span.attributes is not None
    assert span.attributes[ROLE] == "replica"


@pytest.mark.parametrize("target", [None, "engine", sa.create_engine("postgresql+psycopg://x/y")])
def test_only_a_routed_engine_can_be_tagged(target: object) -> None:
    """Anything else is refused, with its kind."""
    with pytest.raises(router.ConfigError, match=r"tag_spans: \w+ is no routed engine"):
        tag_spans(target)
