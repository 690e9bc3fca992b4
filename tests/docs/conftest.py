"""What the pages' snippets run on: a fresh database with one table, on live replicas."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pins.conftest import RedisServer, redis_server

__all__ = ["redis_server"]  # a fixture here as well


@pytest.fixture
def primary_url(database: Any) -> str:
    """The primary's URL; its database holds the table ``item``."""
    database.execute("CREATE TABLE item (id serial PRIMARY KEY, name text NOT NULL)")
    database.cluster.wait_caught_up()
    return str(database.primary_url())


@pytest.fixture
def replica_urls(database: Any) -> list[str]:
    """The URLs of two replicas."""
    return list(database.replica_urls())


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The URL of a Redis."""
    return redis_server.url


@pytest.fixture
def django_project(monkeypatch: pytest.MonkeyPatch) -> None:
    """A project of Django's, as `manage.py` finds one."""
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "tests.django.settings")


@pytest.fixture
def service_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two servers by names that libpq knows."""
    path = tmp_path / "pg_service.conf"
    path.write_text("[shop]\nhost=db1\ndbname=shop\n[shop_replica]\nhost=db2\n")
    monkeypatch.setenv("PGSERVICEFILE", str(path))
    return path


@pytest.fixture
def replay_paused(primary_url: str, database: Any) -> Iterator[None]:
    """Replay stands still, so that a write stays unseen on the replicas."""
    with database.cluster.replay_paused():
        yield


@pytest.fixture
def celery_worker_of() -> Any:
    """Given a Celery app, a block in which a worker within this process serves it."""
    from celery.contrib.testing.worker import start_worker

    def start(app: Any) -> Any:
        app.conf.broker_transport_options = {"polling_interval": 0.05}  # seconds; 1 by default
        return start_worker(app, pool="solo", perform_ping_check=False)

    return start
