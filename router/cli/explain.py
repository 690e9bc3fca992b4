"""``pg-router explain``."""

import click

import router as pg_router
from router.config import masked
from router.errors import RouterError


@click.command()
@click.argument("sql")
@click.option(
    "--url",
    metavar="URL",
    envvar="PG_ROUTER_URL",
    help="The primary's URL; without one only the intent is told. [env: PG_ROUTER_URL]",
)
@click.option(
    "--replica", "replicas", metavar="URL", multiple=True, help="A replica's; may be repeated."
)
def explain(sql: str, url: str | None, replicas: tuple[str, ...]) -> None:
    """Say what a statement does and where it would go now. Nothing is sent.

    Exit status: 0 told, 1 it could not run anywhere now, 2 wrong usage.
    """
    if url is None:
        if replicas:
            raise click.UsageError("--replica needs --url as well")
        click.echo(pg_router.explain(sql))
        return
    try:
        engine = pg_router.create_engine(url, replicas=list(replicas))
        try:
            told = pg_router.explain(sql, engine.router)
        finally:
            engine.dispose()
    except RouterError as error:
        raise click.ClickException(masked(str(error))) from None
    click.echo(told)
    if told.problem:
        raise SystemExit(1)
