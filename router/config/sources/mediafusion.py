"""The variables MediaFusion is configured by, as its documentation lists them."""

import difflib
from collections.abc import Callable, Mapping

from router.config.options import number
from router.config.sources.settings import Settings
from router.errors import ConfigError

OPTIONS: dict[str, str] = {
    "POSTGRES_URI": "url",
    "POSTGRES_READ_URI": "replicas",
    "POSTGRES_USE_PGBOUNCER": "pgbouncer",
    "DB_MAX_CONNECTIONS": "max_connections",
    "GUNICORN_WORKERS": "workers",
}

DEFAULTS: dict[str, str] = {"DB_MAX_CONNECTIONS": "50", "GUNICORN_WORKERS": "3"}

REDIS: dict[str, tuple[str, Callable[[str], float]]] = {
    "REDIS_MAX_CONNECTIONS": ("max_connections", int),
    "REDIS_RETRY_ATTEMPTS": ("retries", int),
    "REDIS_RETRY_DELAY": ("retry_delay", float),
    "REDIS_CONNECTION_TIMEOUT": ("timeout", float),
}
"""Variables of its Redis, each with an option of `router.redis.RedisPinStore.from_url` and the
kind of that."""

_OFF = ("false", "0", "no", "off")

_DOCKER = {
    f"POSTGRES_{name}"
    for name in ("USER", "PASSWORD", "DB", "HOST", "PORT", "INITDB_ARGS", "HOST_AUTH_METHOD")
}
"""Variables that PostgreSQL's official image reads: no misspelt ones of MediaFusion."""


def read(environ: Mapping[str, str]) -> Settings:
    """MediaFusion's variables in `environ`, its defaults for those that are not set.

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
    if str(values.get("pgbouncer", "false")).lower() in _OFF:
        values.pop("pgbouncer", None)
        sources.pop("pgbouncer", None)
    return Settings(values, sources)


def read_redis(environ: Mapping[str, str]) -> tuple[str, dict[str, float]]:
    """The URL of MediaFusion's Redis, and the options of a pin store that `environ` sets. Its
    defaults for the others are not taken: they let a call take 40 seconds.

    Raises:
        ConfigError: ``REDIS_URL`` is not set, or another is no number.
    """
    url = environ.get("REDIS_URL")
    if not url:
        raise ConfigError("REDIS_URL: not set: give Redis' URL, such as redis://redis:6379")
    options = {
        name: number(value, key, kind)
        for key, (name, kind) in REDIS.items()
        if (value := environ.get(key))
    }
    if environ.get("REDIS_ENABLE_CIRCUIT_BREAKER", "").lower() in _OFF:
        options["failures"] = 0
    return url, options
