"""The example blog as compose.yaml runs it: pins are kept by user in Redis, beside the cookie."""

import os
from typing import Any

from blog import create_app
from blog.models import db
from flask import Config, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from router.prometheus import publish
from router.redis import RedisPinStore
from router.wsgi import cookie


def identify(environ: dict[str, Any]) -> str | None:
    """Who calls, as the session cookie says: the same user on the phone and on the laptop."""
    if cookie(environ, app.config["SESSION_COOKIE_NAME"]) is None:
        return None
    session = app.session_interface.open_session(app, app.request_class(environ))
    number = None if session is None else session.get("user")
    return None if number is None else str(number)


settings = Config(".")
settings.from_prefixed_env("BLOG")
settings.setdefault("ROUTER_PINS", {})
settings["ROUTER_PINS"] |= {
    "store": RedisPinStore.from_url(os.environ["REDIS_URL"]),
    "identify": identify,
}
app = create_app(settings)
with app.app_context():
    publish(db.engine)


def metrics() -> Response:
    """What every worker counted, as PROMETHEUS_MULTIPROC_DIR has it."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


app.add_url_rule("/metrics", view_func=metrics)
