"""A project whose one alias is a fresh database with two live replicas."""

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from router.context import ROOT
from tests.conftest import Database

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
        held = [h.dbapi for h in (checkout.primary, checkout.replica) if h is not None]
        kept = [line.dbapi for line in facade.nodes._kept.values()]
        return {self.role(c.info.port) for c in (*held, *kept)}

    def settle(self) -> None:
        """Let the replicas catch up and the router see it."""
        self.cluster.wait_caught_up()
        self.router.refresh()


@pytest.fixture
def connect(database: Database) -> Iterator[Connect]:
    """Puts an alias "default" of a fresh database in place, with settings of one's own."""
    import django
    from django.db import connections

    django.setup()
    database.execute("CREATE TABLE shop_item (id bigserial PRIMARY KEY, name text NOT NULL)")
    database.cluster.wait_caught_up()
    made: list[Any] = []

    def connect(of: Database = database, *, start: bool = True, **changes: Any) -> Routed:
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
