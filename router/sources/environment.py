"""Options in the environment: a prefix and the option's name in capitals."""

from collections.abc import Mapping

from router.sources.settings import Settings


def read(environ: Mapping[str, str], prefix: str) -> Settings:
    """Every variable that begins with `prefix`, empty ones left out."""
    values: dict[str, object] = {
        key.removeprefix(prefix).lower(): value
        for key, value in environ.items()
        if key.startswith(prefix) and value
    }
    return Settings.of(values, lambda name: prefix + name.upper())
