"""Options in the environment: a prefix and the option's name in capitals."""

from collections.abc import Mapping

from router.config.sources.settings import Settings

OTHERS = frozenset({"status_token"})
"""Names, without the prefix, that only the command line reads: they are no options."""


def read(environ: Mapping[str, str], prefix: str) -> Settings:
    """Every variable of `environ` that begins with `prefix`, empty ones and `OTHERS` left out."""
    values: dict[str, object] = {
        name: value
        for key, value in environ.items()
        if key.startswith(prefix)
        and value
        and (name := key.removeprefix(prefix).lower()) not in OTHERS
    }
    return Settings.of(values, lambda name: prefix + name.upper())
