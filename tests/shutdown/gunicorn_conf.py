from typing import Any


def worker_exit(server: Any, worker: Any) -> None:
    from tests.shutdown.app import engine

    engine.dispose()
