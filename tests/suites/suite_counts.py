"""A pytest plugin that writes down which node served how many statements of a run."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest

_served: Counter[str] = Counter()


def pytest_configure(config: pytest.Config) -> None:
    """Keep every Router's tally, also of engines that are gone by the end."""
    from router.core import Router

    made: list[Router] = []
    init = Router.__init__

    def remember(self: Router, *args: object, **kwargs: object) -> None:
        init(self, *args, **kwargs)  # type: ignore[arg-type]
        made.append(self)

    Router.__init__ = remember  # type: ignore[method-assign, assignment]

    def finish() -> None:
        for router in made:
            for node, reasons in router.stats()["decisions"].items():
                _served[node] += sum(reasons.values())
        target = os.environ.get("PG_ROUTER_COUNTS")
        if target and _served:
            Path(target).write_text(json.dumps(_served))

    config.add_cleanup(finish)
