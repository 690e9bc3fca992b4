"""A pytest plugin that routes every engine of a run, and writes down which node served what.

The suite makes most of its engines from ``config.db.url``, which no longer says ``plugin=router``;
so ``create_engine`` itself adds it, for URLs of the cluster's primary.
"""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

_served: Counter[str] = Counter()


def pytest_configure(config: pytest.Config) -> None:
    """Route what is made, and keep every Router's tally, also of engines gone by the end."""
    if os.environ.get("PG_ROUTER_REPLICAS"):
        _route_every_engine(os.environ["PG_ROUTER_PORT"], os.environ["PG_ROUTER_REPLICAS"])

    from router.cluster.router import Router

    made: list[Router] = []
    init = Router.__init__

    def remember(self: Router, *args: object, **kwargs: object) -> None:
        init(self, *args, **kwargs)  # type: ignore[arg-type]
        made.append(self)

    Router.__init__ = remember  # type: ignore[method-assign]

    def finish() -> None:
        for router in made:
            for node, reasons in router.stats()["decisions"].items():
                _served[node] += sum(reasons.values())
        target = os.environ.get("PG_ROUTER_COUNTS")
        if target and _served:
            Path(target).write_text(json.dumps(_served))

    config.add_cleanup(finish)


def _route_every_engine(port: str, replicas: str) -> None:
    import sqlalchemy
    from sqlalchemy import engine
    from sqlalchemy.ext.asyncio import engine as asynchronous

    plain = engine.create_engine

    def create_engine(url: Any, **options: Any) -> Any:
        parsed = sqlalchemy.make_url(url)
        # A pool or creator of its own is what such a test is about.
        own = options.keys() & {"pool", "creator", "module", "_initialize", "plugins"}
        if str(parsed.port) == port and not own and "plugin" not in parsed.query:
            options |= {"plugins": ["router"], "router_replicas": replicas}
        return plain(url, **options)

    engine.create_engine = create_engine
    sqlalchemy.create_engine = create_engine
    asynchronous._create_engine = create_engine  # type: ignore[attr-defined]
