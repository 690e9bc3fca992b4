"""Where the servers are comes from the environment: GUESTBOOK_PRIMARY and GUESTBOOK_REPLICAS, each
``host:port``, the latter with commas."""

import os
import secrets

host, _, port = os.environ.get("GUESTBOOK_PRIMARY", "127.0.0.1:5432").partition(":")

DATABASES = {
    "default": {
        "ENGINE": "router.django",
        "NAME": os.environ.get("GUESTBOOK_DATABASE", "postgres"),
        "USER": os.environ.get("GUESTBOOK_USER", "postgres"),
        "PASSWORD": os.environ.get("GUESTBOOK_PASSWORD", ""),
        "HOST": host,
        "PORT": port,
        "CONN_MAX_AGE": 60,
        "REPLICAS": [r for r in os.environ.get("GUESTBOOK_REPLICAS", "").split(",") if r],
        # The position travels in the cookie, so that the next worker need not find one out.
        "ROUTER": {"name": "guestbook", "pin_lsn": "commit"},
    }
}
INSTALLED_APPS = ["router.django", "guestbook"]
MIDDLEWARE = [
    "router.django.middleware.PinMiddleware",  # first
    "django.middleware.common.CommonMiddleware",
]
SECRET_KEY = os.environ.get("GUESTBOOK_SECRET") or secrets.token_hex()
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
ROOT_URLCONF = "guestbook.urls"
WSGI_APPLICATION = "guestbook.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
