"""``pg-router wait``."""

import logging
import math
import time

import click

from router.cli.source import Servers, servers
from router.messages import masked
from router.status.report import Status, status
from router.target import router_of

PAUSE = 0.2
"""Seconds between two rounds of probes, so that they do not hammer a server that starts."""


@click.command()
@servers
@click.option(
    "--timeout",
    type=click.FloatRange(0),
    default=60.0,
    show_default=True,
    help="Seconds after which to give up.",
)
@click.option(
    "--need",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Replicas that have to be fit for reads as well.",
)
def wait(where: Servers, *, timeout: float, need: int) -> None:
    """Wait until the cluster is usable: a primary answers, and so many replicas are fit.

    For entry points of containers and units, before the application starts.

    Exit status: 0 it is usable, 1 it was not in time, 2 wrong usage.
    """
    if not math.isfinite(timeout):
        raise click.UsageError(f"--timeout {timeout:g}: give a number of seconds")
    config = where.config()
    if need > len(config.replicas):
        raise click.UsageError(
            f"--need {need}: only {len(config.replicas)} replicas are configured: give --replica"
        )
    router, _ = router_of(config)
    events, shown = logging.getLogger("router"), logging.StreamHandler()
    events.addHandler(shown)  # warnings and worse: why it takes so long
    until = time.monotonic() + timeout
    try:
        while True:
            snapshot = router.refresh(max(0.1, min(5.0, until - time.monotonic())))
            if (mistake := snapshot.impostor()) is not None:
                raise click.UsageError(masked(mistake))
            found = status(router)
            if usable(found, need):
                click.echo(masked(str(found)))
                return
            if time.monotonic() >= until:
                click.echo(masked(str(found)), err=True)
                raise click.ClickException(f"--timeout {timeout:g}: not usable in time")
            time.sleep(PAUSE)
    finally:
        router.close()
        events.removeHandler(shown)


def usable(found: Status, need: int) -> bool:
    """Whether `found` has a primary, and `need` replicas get reads."""
    fit = sum(node.reads and node.name != found.primary for node in found.nodes)
    return found.writable and fit >= need
