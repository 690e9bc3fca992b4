"""A short ORM read with nothing published, with Prometheus, with tagged spans, with a comment.

Tags are timed beside the span that is there without them: the request's, or the one that
OpenTelemetry's instrumentation makes for each statement.
"""

import threading

import sqlalchemy as sa
from opentelemetry import trace
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry, generate_latest
from sqlalchemy.orm import Session

import router
from benchmarks.harness import compare, keep, show
from router.opentelemetry import tag_spans
from router.prometheus import publish
from router.sqlalchemy import RoutedEngine
from router.testing import Cluster

SCRAPE = 1.0
"""Seconds between two scrapes, fifteen times as often as Prometheus asks by default."""


def main() -> None:
    """Measure, print, keep."""
    with Cluster(replicas=2) as cluster:
        urls = [server.url(driver="psycopg") for server in cluster.servers]

        def made(**options: object) -> RoutedEngine:
            engine = router.create_engine(urls[0], replicas=urls[1:], **options)
            engine.router.start()
            engine.router.refresh()
            return engine

        off, prometheus, spans, comment = made(), made(), made(), made(sql_comment=True)
        traced, tagged = made(), made()
        engines = (off, prometheus, spans, comment, traced, tagged)
        registry = CollectorRegistry()
        publish(prometheus, registry)
        trace.set_tracer_provider(TracerProvider())
        # It names SQLAlchemy below 2.1 as its range.
        SQLAlchemyInstrumentor().instrument(engines=[traced, tagged], skip_dep_check=True)
        for engine in (spans, tagged):
            tag_spans(engine)
        tracer = trace.get_tracer("bench")
        done = threading.Event()

        def scrape() -> None:
            while not done.wait(SCRAPE):
                generate_latest(registry)

        scraper = threading.Thread(target=scrape)
        scraper.start()
        statement = sa.text("SELECT 1")

        def read(engine: RoutedEngine) -> None:
            with Session(engine) as session:
                session.execute(statement).scalar_one()

        def in_span(engine: RoutedEngine) -> None:
            with tracer.start_as_current_span("request"):
                read(engine)

        contenders = {
            "nothing published": lambda: read(off),
            "Prometheus, scraped every second": lambda: read(prometheus),
            "in a request's span": lambda: in_span(off),
            "in a request's span, tagged": lambda: in_span(spans),
            "in a statement's span": lambda: read(traced),
            "in a statement's span, tagged": lambda: read(tagged),
            "sql_comment": lambda: read(comment),
        }
        baseline = "nothing published"
        found = compare(contenders, baseline=baseline, rounds=120)
        show("A short ORM session with one read", found, baseline)
        print(f"  kept in {keep('telemetry', found)}")
        done.set()
        scraper.join()
        for engine in engines:
            engine.dispose()


if __name__ == "__main__":
    main()
