"""The RQ part of docs/how-to/use-with-celery-and-rq.md, on a real Redis and a real worker."""

import importlib
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from redis import Redis
from rq import Queue, SimpleWorker

import router

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "use-with-celery-and-rq.md").read_text()
(JOBS,) = re.findall(r"(?ms)^```python\n# jobs\.py\n(.*?)^```", PAGE)


@pytest.mark.usefixtures("replay_paused")
def test_a_job_sees_what_the_request_that_queued_it_wrote(
    primary_url: str,
    replica_urls: list[str],
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A job with the pins in its meta reads the write on the primary; one without reads a replica
    that has not replayed it."""
    (tmp_path / "jobs.py").write_text(JOBS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PG_ROUTER_URL", primary_url)
    monkeypatch.setenv("PG_ROUTER_REPLICAS", ",".join(replica_urls))
    monkeypatch.setenv("PG_ROUTER_PIN_LSN", "commit")
    monkeypatch.setenv("PIN_SECRET", "a secret of the tests")
    jobs: Any = importlib.import_module("jobs")
    # The worker handles them, and keeps its handlers when it ends.
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with Redis.from_url(redis_url) as connection:
            queue = Queue(connection=connection)
            with router.request_context():
                with jobs.engine.begin() as written:
                    written.execute(sa.text("INSERT INTO item (name) VALUES ('tea')"))
                pinned = queue.enqueue(jobs.count_items, meta=jobs.carrier.headers())
            plain = queue.enqueue(jobs.count_items)
            SimpleWorker([queue], connection=connection).work(burst=True)
            assert (pinned.return_value(), plain.return_value()) == (1, 0)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        jobs.engine.dispose()
        del sys.modules["jobs"]
