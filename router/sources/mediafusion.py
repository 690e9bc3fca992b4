"""The variables MediaFusion is configured by, as its documentation lists them."""

import difflib
from collections.abc import Mapping

from router.errors import ConfigError
from router.sources.settings import Settings

OPTIONS: dict[str, str] = {
    "POSTGRES_URI": "url",
    "POSTGRES_READ_URI": "replicas",
    "POSTGRES_USE_PGBOUNCER": "pgbouncer",
    "DB_MAX_CONNECTIONS": "max_connections",
    "GUNICORN_WORKERS": "workers",
}

DEFAULTS: dict[str, str] = {"DB_MAX_CONNECTIONS": "50", "GUNICORN_WORKERS": "3"}

_DOCKER = {
    f"POSTGRES_{name}"
    for name in ("USER", "PASSWORD", "DB", "HOST", "PORT", "INITDB_ARGS", "HOST_AUTH_METHOD")
}
"""What else is called so: the official image of PostgreSQL reads them."""


def read(environ: Mapping[str, str]) -> Settings:
    """MediaFusion's variables, its defaults for those that are not set.

    Raises:
        ConfigError: ``POSTGRES_URI`` is not set, or one looks like a misspelt name.
    """
    for key in environ.keys() - OPTIONS.keys() - _DOCKER:
        close = difflib.get_close_matches(key, OPTIONS, n=1, cutoff=0.85)
        if close and key.startswith(("POSTGRES_", "DB_MAX_")):
            raise ConfigError(f"{key}: no such variable (did you mean {close[0]!r}?)")
    if not environ.get("POSTGRES_URI"):
        raise ConfigError("POSTGRES_URI: not set: give the primary's URL")
    given = {key: value for key in OPTIONS if (value := environ.get(key))}
    values: dict[str, object] = {}
    sources = {}
    for key, value in {**DEFAULTS, **given}.items():
        name = OPTIONS[key]
        values[name] = [value] if name == "replicas" else value
        sources[name] = key if key in given else f"MediaFusion's default for {key}"
    if str(values.get("pgbouncer", "false")).lower() in ("false", "0", "no", "off"):
        values.pop("pgbouncer", None)
        sources.pop("pgbouncer", None)
    return Settings(values, sources)
