"""An app, a client and a runner, as Pallets' projects have them, over a database with replicas."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient, FlaskCliRunner

from router.flask import Router
from router.rules.context import ROOT
from tests.conftest import Database
from tests.flask.kit import views

MakeApp = Callable[..., Flask]


@pytest.fixture
def items(database: Database) -> Database:
    """A database with one table ``item``, everywhere."""
    database.execute("CREATE TABLE item (id serial PRIMARY KEY, name text NOT NULL)")
    database.cluster.wait_caught_up()
    return database


@pytest.fixture
def make_app(items: Database) -> Iterator[MakeApp]:
    """Makes apps with a Router of their own; their engines are closed with the test."""
    made: list[Flask] = []

    def make(*, extension: Router | None = None, **config: Any) -> Flask:
        app = Flask("shop")
        app.config.from_mapping(
            TESTING=False,  # else a stranger shares the test's pins
            SECRET_KEY="dev",
            ROUTER_DATABASE_URI=items.primary_url(),
            ROUTER_REPLICAS=items.replica_urls(),
        )
        app.config.update(config)
        router = extension or Router()
        router.init_app(app)
        views(app, lambda: router.session)
        made.append(app)
        return app

    yield make
    for app in made:
        with app.app_context():
            for engine in app.extensions["router"].owner.engines.values():
                engine.dispose()
    ROOT.pins.clear()


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    return make_app()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def runner(app: Flask) -> FlaskCliRunner:
    return app.test_cli_runner()


@pytest.fixture
def paused(items: Database) -> Iterator[None]:
    """Replay stands still on every replica."""
    with items.cluster.replay_paused():
        yield
