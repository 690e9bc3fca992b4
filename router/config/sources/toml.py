"""A table of a TOML file."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from router.config.sources.settings import Settings
from router.errors import ConfigError
from router.messages import did_you_mean, one_line


def read(path: Path, section: str) -> Settings:
    """The options in the table `section` of `path`, with dots for one table inside another.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or has no such table.
    """
    try:
        found: object = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}: name a file that can be read") from None
    except ValueError as error:
        raise ConfigError(f"{path}: not TOML: {one_line(error)}") from None
    for name in section.split("."):
        tables = {k: v for k, v in _mapping(found).items() if isinstance(v, Mapping)}
        if name not in tables:
            raise ConfigError(f"{path}: no table [{section}]{did_you_mean(name, tables)}")
        found = tables[name]
    return Settings.of(_mapping(found), lambda name: f"{path} [{section}] {name}")


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
