"""The status page in a Flask app: off until a key mounts it, and guarded there."""

from typing import Any

import pytest
from flask import Flask, session, url_for

from router.errors import ConfigError
from router.flask import ENDPOINT, Router
from tests.conftest import Database
from tests.flask.conftest import MakeApp


async def coroutine(environ: Any) -> bool:
    return False


TOKEN = "a token of some length"


def test_no_key_no_page(app: Flask) -> None:
    """Without the key the app has no such URL, and nothing follows its Routers."""
    assert app.test_client().get("/router/").status_code == 404
    with app.app_context():
        (router,) = app.extensions["router"].owner.routers.values()
    assert router.observers == []


def test_the_key_mounts_the_page(make_app: MakeApp, items: Database) -> None:
    """Below the prefix are page, JSON and health, each bind by its name; the app's own stay."""
    bind = {"url": items.primary_url(), "replicas": items.replica_urls(), "name": "stats"}
    app = make_app(ROUTER_STATUS_URL_PREFIX="/ops/router/", ROUTER_BINDS={"stats": bind})
    client = app.test_client()
    page = client.get("/ops/router", follow_redirects=True)
    assert "<title>pg-router</title>" in page.text
    assert "nonce-" in page.headers["Content-Security-Policy"]
    assert client.get("/ops/router/health").json == {"status": "ready"}
    assert client.get("/ops/router/health/writable").status_code == 200
    shown = client.get("/ops/router/status").json
    assert shown is not None
    assert {cluster["name"] for cluster in shown["clusters"]} == {"default", "stats"}
    assert client.get("/").status_code == 200
    assert client.get("/ops/router/nothing").status_code == 404
    assert client.post("/ops/router/status").status_code == 405
    with app.test_request_context():
        assert url_for(ENDPOINT) == "/ops/router/"


def test_strangers_are_refused(make_app: MakeApp) -> None:
    """Without guard or token only this machine is let in; public health is for all."""
    app = make_app(ROUTER_STATUS_URL_PREFIX="/router", ROUTER_STATUS_PUBLIC_HEALTH=True)
    client = app.test_client()
    stranger: dict[str, Any] = {"environ_base": {"REMOTE_ADDR": "10.0.0.7"}}
    assert client.get("/router/status").status_code == 200
    assert client.get("/router/status", **stranger).status_code == 403
    assert client.get("/router/health", **stranger).json == {"status": "ready"}


def test_a_token_of_the_configuration(make_app: MakeApp) -> None:
    """The token of the configuration lets in, and nothing else does."""
    app = make_app(ROUTER_STATUS_URL_PREFIX="/router", ROUTER_STATUS_TOKEN=TOKEN)
    client = app.test_client()
    assert client.get("/router/status").status_code == 401
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert client.get("/router/status", headers=bearer).status_code == 200
    assert client.get("/router/status", auth=("anybody", TOKEN)).status_code == 200


def test_a_guard_may_look_at_the_session(make_app: MakeApp) -> None:
    """The guard runs within the request, so who has logged in is known to it."""
    app = make_app(
        ROUTER_STATUS_URL_PREFIX="/router",
        ROUTER_STATUS_GUARD=lambda environ: session.get("role") == "admin",
    )
    client = app.test_client()
    assert client.get("/router/").status_code == 403
    with client.session_transaction() as cookie:
        cookie["role"] = "admin"
    assert client.get("/router/").status_code == 200


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("URL_PREFIX", "router", "ROUTER_STATUS_URL_PREFIX: 'router' is no path"),
        ("URL_PREFIX", "/", "ROUTER_STATUS_URL_PREFIX: '/' is no path"),
        ("URL_PREFIX", True, "ROUTER_STATUS_URL_PREFIX: True is no path"),
        ("GUARD", "admin", "ROUTER_STATUS_GUARD: 'admin' cannot be called"),
        ("GUARD", coroutine, "ROUTER_STATUS_GUARD: it is a coroutine function"),
        ("TOKEN", "short", "ROUTER_STATUS_TOKEN: it has 5 characters"),
    ],
)
def test_a_wrong_key_is_named(items: Database, key: str, value: Any, message: str) -> None:
    """What is wrong is told by the key's name, and the app is left as it was."""
    app = Flask("shop")
    app.config.update(
        SECRET_KEY="dev",
        ROUTER_DATABASE_URI=items.primary_url(),
        ROUTER_STATUS_URL_PREFIX="/router",
    )
    app.config[f"ROUTER_STATUS_{key}"] = value
    with pytest.raises(ConfigError, match=message):
        Router(app)
    assert "router" not in app.extensions
    assert ENDPOINT not in app.view_functions
