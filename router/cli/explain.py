"""``pg-router explain``."""

import os

import click

import router as pg_router
from router.cli.source import PREFIX, Servers, servers
from router.errors import RouterError
from router.messages import masked
from router.target import router_of

NAMING = tuple(PREFIX + name for name in ("URL", "HOST", "PRIMARY"))
"""Variables that name a primary."""


@click.command()
@click.argument("sql")
@servers
def explain(where: Servers, sql: str) -> None:
    """Say what a statement does and where it would go now. Nothing is sent.

    Without --url, --file, --from and the variable PG_ROUTER_URL only what it does is told.

    Exit status: 0 told, 1 it could not run anywhere now, 2 wrong usage.
    """
    if not (where.url or where.file or where.system or any(map(os.environ.get, NAMING))):
        if where.replicas:
            raise click.UsageError("--replica needs --url as well")
        click.echo(pg_router.explain(sql))
        return
    its, _ = router_of(where.config())
    try:
        its.refresh()  # an application's router has looked more than once
        told = pg_router.explain(sql, its)
    except RouterError as error:
        raise click.ClickException(masked(str(error))) from None
    finally:
        its.close()
    click.echo(told)
    if told.problem:
        raise SystemExit(1)
