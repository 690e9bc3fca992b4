"""What prometheus-client asks of gunicorn where several workers are scraped as one."""

from typing import Any

from prometheus_client.multiprocess import mark_process_dead


def child_exit(server: Any, worker: Any) -> None:
    """Forget the gauges of a worker that is no more."""
    mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
