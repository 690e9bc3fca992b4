"""``pg-router config``."""

import json
from pathlib import Path

import click

from router.cli.source import config_of, servers


@click.command()
@servers
@click.option("--json", "as_json", is_flag=True, help="A list of objects.")
def config(
    url: str | None,
    replicas: tuple[str, ...],
    file: Path | None,
    section: str,
    system: str | None,
    *,
    as_json: bool,
) -> None:
    """Show every setting and where it came from. Nothing is connected to.

    Without --url, --file and --from the variables PG_ROUTER_… are read. Passwords are not shown.

    Exit status: 0 shown, 2 a setting is wrong.
    """
    told = config_of(url, replicas, file, section, system).explain()
    if not as_json:
        click.echo(told)
        return
    rows = [{"name": n, "value": value, "source": source} for n, value, source in told.rows]
    click.echo(json.dumps(rows, indent=2))
