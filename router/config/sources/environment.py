"""Options in the environment: a prefix and the option's name in capitals."""

from collections.abc import Mapping

from router.config.sources.settings import Settings

OTHERS = frozenset({"status_token"})
"""Names that are the command line's own, and may stand in an application's environment too."""


def read(environ: Mapping[str, str], prefix: str) -> Settings:
    """Every variable that begins with `prefix`, empty ones and `OTHERS` left out."""
    values: dict[str, object] = {
        name: value
        for key, value in environ.items()
        if key.startswith(prefix)
        and value
        and (name := key.removeprefix(prefix).lower()) not in OTHERS
    }
    return Settings.of(values, lambda name: prefix + name.upper())
