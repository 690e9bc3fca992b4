"""The options that tell a command about the servers, and the Config they make."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Any

import click

from router.config.config import Config
from router.errors import ConfigError

PREFIX = "PG_ROUTER_"
SYSTEMS: dict[str, Callable[[], Config]] = {
    "libpq": Config.from_libpq,
    "mediafusion": Config.from_mediafusion,
}
"""Variables of others that can be read, beside our own."""


@dataclass(frozen=True, slots=True)
class Servers:
    """The values of the options that `servers` gives a command.

    Attributes:
        url: the primary's URL.
        replicas: the replicas' URLs.
        file: a TOML file.
        section: its table.
        system: whose variables are read in place of ours, one of `SYSTEMS`.
    """

    url: str | None
    replicas: tuple[str, ...]
    file: Path | None
    section: str
    system: str | None

    def config(self) -> Config:
        """The Config that they and the environment ask for.

        Raises:
            ClickException: an option is wrong, in one line.
        """
        named = (("--url", self.url), ("--file", self.file), ("--from", self.system))
        given = [name for name, value in named if value]
        if len(given) > 1:
            raise click.UsageError(f"{' and '.join(given)} exclude each other: give one")
        try:
            beside: dict[str, Any] = {"replicas": list(self.replicas)} if self.replicas else {}
            if self.url is not None:
                return Config.from_url(self.url, **beside)
            if self.file is not None:
                return Config.from_toml(self.file, self.section, prefix=PREFIX, **beside)
            found = SYSTEMS[self.system]() if self.system else Config.from_env(PREFIX)
            return found.but(**beside) if beside else found
        except ConfigError as error:
            raise click.UsageError(str(error)) from None


def servers(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give `command` options that say where the servers are; it is called with `Servers` first."""

    @wraps(command)
    def call(**given: Any) -> Any:
        told = Servers(**{field.name: given.pop(field.name) for field in fields(Servers)})
        return command(told, **given)

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
        call = option(call)
    return call
