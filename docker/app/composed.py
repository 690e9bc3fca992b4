"""The example blog as compose.yaml runs it: pins are kept by user in Redis, beside the cookie."""

import os
from typing import Any

from blog import create_app
from flask import Config

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
