"""Loaded before Django's ``runtests.py``: writes down each test's outcome, and who served what."""

import json
import os
import unittest
from collections import Counter
from pathlib import Path
from typing import Any

_OUTCOMES: dict[str, str] = {}


def install() -> None:
    """Watch every result, and write it down when the runner has put away its databases."""
    from django.test import runner

    class Result(unittest.TextTestResult):
        def addSuccess(self, test: Any) -> None:  # noqa: N802
            super().addSuccess(test)
            _OUTCOMES.setdefault(test.id(), "passed")

        def addFailure(self, test: Any, err: Any) -> None:  # noqa: N802
            super().addFailure(test, err)
            _OUTCOMES[test.id()] = "failed"

        def addError(self, test: Any, err: Any) -> None:  # noqa: N802
            super().addError(test, err)
            _OUTCOMES[test.id()] = "failed"

        def addSkip(self, test: Any, reason: str) -> None:  # noqa: N802
            super().addSkip(test, reason)
            _OUTCOMES[test.id()] = "skipped"

        def addExpectedFailure(self, test: Any, err: Any) -> None:  # noqa: N802
            super().addExpectedFailure(test, err)
            _OUTCOMES[test.id()] = "passed"

        def addUnexpectedSuccess(self, test: Any) -> None:  # noqa: N802
            super().addUnexpectedSuccess(test)
            _OUTCOMES[test.id()] = "failed"

        def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:  # noqa: N802
            super().addSubTest(test, subtest, err)
            if err is not None:
                _OUTCOMES[test.id()] = "failed"

    runner.DiscoverRunner.test_runner.resultclass = Result
    plain = runner.DiscoverRunner.get_resultclass
    runner.DiscoverRunner.get_resultclass = lambda self: plain(self) or Result
    from router.cluster.router import Router

    made: list[Router] = []
    init = Router.__init__

    def remember(self: Router, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        made.append(self)

    Router.__init__ = remember  # type: ignore[method-assign]
    teardown = runner.DiscoverRunner.teardown_databases

    def finish(self: Any, *args: Any, **kwargs: Any) -> Any:
        served: Counter[str] = Counter()
        for router in made:
            for node, reasons in router.stats()["decisions"].items():
                served[node] += sum(reasons.values())
        written = {"tests": _OUTCOMES, "served": served}
        Path(os.environ["PG_ROUTER_RESULTS"]).write_text(json.dumps(written))
        return teardown(self, *args, **kwargs)

    runner.DiscoverRunner.teardown_databases = finish
