"""A project whose one alias is a fresh database with two live replicas."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from sqlalchemy import make_url

from router.rules.context import ROOT
from tests.conftest import Database
from tests.pgbouncer import bouncer

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.django.settings")

Settings = dict[str, Any]
Connect = Callable[..., "Routed"]


def settings_of(database: Database, **changes: Any) -> Settings:
    """The value of ``DATABASES["default"]`` for `database`."""
    primary = database.cluster.primary
    return {
        "ENGINE": "router.django",
        "NAME": database.name,
        "USER": "postgres",
        "HOST": primary.host,
        "PORT": primary.port,
        "CONN_MAX_AGE": None,
        "REPLICAS": [{"HOST": r.host, "PORT": r.port} for r in database.cluster.replicas],
        **changes,
    }


@contextmanager
def through_pgbouncer(
    database: Database, pool_size: int = 20, patience: int = 3, prepared: int | None = None
) -> Iterator[Settings]:
    """A PgBouncer in front of every server, and the settings that lead through it."""
    with bouncer(
        database.cluster, database.name, pool_size, patience=patience, prepared=prepared
    ) as (primary, replicas):
        server = make_url(primary)
        yield {
            "HOST": server.host,
            "PORT": server.port,
            "NAME": server.database,
            "REPLICAS": [{"NAME": make_url(replica).database} for replica in replicas],
        }


class Routed:
    """The default alias of the project, and who served what."""

    def __init__(self, database: Database, wrapper: Any) -> None:
        self.database = database
        self.cluster = database.cluster
        self.connection = wrapper

    @property
    def router(self) -> Any:
        return self.connection.router

    def served(self) -> str:
        """The role of the server that runs a read now, as it says itself."""
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT inet_server_port()")
            return self.role(cursor.fetchone()[0])

    def role(self, port: int) -> str:
        """The role, "primary" or "replica", of the server that listens on `port`."""
        return "primary" if port == self.cluster.primary.port else "replica"

    def await_replica(self, timeout: float = 10.0) -> None:
        """Read until a replica serves it: what ends a pin is a probe, and nobody awaits that."""
        deadline = time.monotonic() + timeout
        while self.served() != "replica":
            assert time.monotonic() < deadline, self.router.stats()
            time.sleep(0.005)

    def holding(self) -> set[str]:
        """The roles of the servers whose connections are held or kept."""
        facade = self.connection.connection
        checkout = facade.checkout
        held = [h.node for h in (checkout.primary, checkout.replica) if h is not None]
        primary = self.router.primary
        nodes = {*held, *facade.nodes._kept}
        return {"primary" if node is primary else "replica" for node in nodes}

    def settle(self) -> None:
        """Let the replicas catch up and the router see it."""
        self.cluster.wait_caught_up()
        self.router.refresh()


EVERY_WAY = pytest.mark.doors("plain", pytest.param("pgbouncer", marks=pytest.mark.slow))
"""Straight to the servers, and through a PgBouncer that pools by transaction."""
STRAIGHT = pytest.mark.doors("plain")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test each way that its nearest mark ``doors`` names."""
    if "way" in metafunc.fixturenames:
        mark = metafunc.definition.get_closest_marker("doors")
        metafunc.parametrize("way", mark.args if mark else STRAIGHT.args, indirect=True)


@pytest.fixture
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def connect(database: Database, way: str) -> Iterator[Connect]:
    """Puts an alias "default" of a fresh database in place, with settings of one's own."""
    import django
    from django.db import connections

    django.setup()
    database.execute("CREATE TABLE shop_item (id bigserial PRIMARY KEY, name text NOT NULL)")
    database.cluster.wait_caught_up()
    made: list[Any] = []
    stack = ExitStack()

    def connect(of: Database = database, *, start: bool = True, **changes: Any) -> Routed:
        if way == "pgbouncer":
            changes = {**stack.enter_context(through_pgbouncer(of)), **changes}
            changes["ROUTER"] = {"pgbouncer": True, **changes.get("ROUTER", {})}
        connections.settings = connections.configure_settings(
            {"default": settings_of(of, **changes)}
        )
        if hasattr(connections._connections, "default"):
            del connections["default"]
        wrapper = connections["default"]
        if start:
            made.append(wrapper)
            wrapper.router.start()
        return Routed(of, wrapper)

    yield connect
    for wrapper in made:
        wrapper.in_atomic_block = wrapper.closed_in_transaction = False
        wrapper.close()
        wrapper.cluster.close()
    stack.close()
    ROOT.pins.clear()


@pytest.fixture
def routed(connect: Connect) -> Routed:
    return connect()


@pytest.fixture
def settings() -> Iterator[Any]:
    """Changes Django's settings until the test ends; ``.key`` is the SECRET_KEY there was."""
    from django.conf import settings as django_settings
    from django.test import override_settings

    changed: list[Any] = []

    def change(**values: Any) -> None:
        block = override_settings(**values)
        block.enable()
        changed.append(block)

    change.key = django_settings.SECRET_KEY  # type: ignore[attr-defined]
    yield change
    for block in reversed(changed):
        block.disable()
