"""The options by which a command is told about the servers, and the Config they make."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from router.config.config import Config
from router.errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])

PREFIX = "PG_ROUTER_"
SYSTEMS: dict[str, Callable[[], Config]] = {
    "libpq": Config.from_libpq,
    "mediafusion": Config.from_mediafusion,
}
"""Variables of others that can be read, beside our own."""


def servers(command: F) -> F:
    """Give a command the options `config_of` takes."""
    options = (
        click.option("--url", metavar="URL", help="The primary's URL."),
        click.option(
            "--replica", "replicas", metavar="URL", multiple=True, help="May be repeated."
        ),
        click.option(
            "--file",
            metavar="FILE",
            type=click.Path(dir_okay=False, path_type=Path),
            help="A TOML file. Variables PG_ROUTER_… win over it.",
        ),
        click.option("--section", default="pg-router", show_default=True, help="Its table."),
        click.option(
            "--from",
            "system",
            type=click.Choice(list(SYSTEMS)),
            help="Read these variables in place of PG_ROUTER_….",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def config_of(
    url: str | None, replicas: tuple[str, ...], file: Path | None, section: str, system: str | None
) -> Config:
    """The Config that the options of `servers` and the environment ask for.

    Raises:
        ClickException: an option is wrong, in one line.
    """
    given = [
        name for name, value in (("--url", url), ("--file", file), ("--from", system)) if value
    ]
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(given)} exclude each other: give one")
    try:
        beside: dict[str, Any] = {"replicas": list(replicas)} if replicas else {}
        if url is not None:
            return Config.from_url(url, **beside)
        if file is not None:
            return Config.from_toml(file, section, prefix=PREFIX, **beside)
        found = SYSTEMS[system]() if system else Config.from_env(PREFIX)
        return found.but(**beside) if beside else found
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
