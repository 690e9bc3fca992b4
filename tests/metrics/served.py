"""A service as gunicorn runs it: a page that reads, one that writes, and the metrics of all
workers."""

import os
from typing import Any

import sqlalchemy as sa
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

import router
from router.prometheus import publish

engine = router.create_engine(
    os.environ["APP_PRIMARY"],
    os.environ["APP_REPLICAS"].split(","),
    name="served",
    probe_interval=0.1,
    blacklist_duration=0.5,
)
publish(engine)


def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    path = environ["PATH_INFO"]
    if path == "/metrics":
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
        body = generate_latest(registry)
    else:
        writes = path == "/write"
        sql = "INSERT INTO item VALUES (1)" if writes else "SELECT count(*) FROM item"
        with router.request_context(), engine.begin() if writes else engine.connect() as c:
            c.execute(sa.text(sql))
        body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]
