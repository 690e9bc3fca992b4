"""``pg-router config``."""

import json

import click

from router.cli.source import Servers, servers


@click.command()
@servers
@click.option("--json", "as_json", is_flag=True, help="A list of objects.")
def config(where: Servers, *, as_json: bool) -> None:
    """Show every setting and where it came from. Nothing is connected to.

    Without --url, --file and --from the variables PG_ROUTER_… are read. Passwords are not shown.

    Exit status: 0 shown, 2 a setting is wrong.
    """
    told = where.config().explain()
    if not as_json:
        click.echo(told)
        return
    rows = [{"name": n, "value": value, "source": source} for n, value, source in told.rows]
    click.echo(json.dumps(rows, indent=2))
