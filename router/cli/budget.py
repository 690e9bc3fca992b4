"""``pg-router budget``."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from router import console
from router.budget import ROOM_SQL, Demand, Line, Room, cure, horsies_worker
from router.cli.source import config_of, servers
from router.config import Config, Server, masked


@click.command()
@servers
@click.option("--workers", type=click.IntRange(1), help="Processes; in place of the option.")
@click.option(
    "--extra",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Connections of other programs to each server.",
)
@click.option(
    "--horsies",
    "processes",
    metavar="PROCESSES",
    type=click.IntRange(0),
    help="Add a Horsies worker with its default pools and this many processes.",
)
@click.option("--json", "as_json", is_flag=True, help="One object.")
def budget(
    url: str | None,
    replicas: tuple[str, ...],
    file: Path | None,
    section: str,
    system: str | None,
    *,
    workers: int | None,
    extra: int,
    processes: int | None,
    as_json: bool,
) -> None:
    """Count the connections that may be opened, and ask the servers whether they bear them.

    Exit status: 0 they do, 1 a server does not or cannot be asked, 2 wrong usage.
    """
    config = config_of(url, replicas, file, section, system)
    if workers is not None:
        config = config.but(workers=workers)
    if processes is not None:
        extra += horsies_worker(processes=processes)
    demand = config.demand(extra)
    lines = [_asked(config, *server, demand) for server in _addresses(config).items()]
    failed = any(line.over or line.room is None for line in lines)
    if as_json:
        told = [{**asdict(line), "over": line.over} for line in lines]
        click.echo(json.dumps({"ok": not failed, **asdict(demand), "servers": told}, indent=2))
    else:
        for text in (_sizes(config, demand), *map(str, lines), cure(lines)):
            if text:
                click.echo(text)
    if failed:
        raise SystemExit(1)


def _addresses(config: Config) -> dict[str, list[tuple[str, Server]]]:
    found: dict[str, list[tuple[str, Server]]] = {}
    for node, server in config.servers().items():
        found.setdefault(f"{server.host}:{server.port}", []).append((node.name, server))
    return found


def _sizes(config: Config, demand: Demand) -> str:
    if config.max_connections is None:
        return "each server: workers × (pool_size + max_overflow + 1 for the monitor)"
    return (
        f"pool_size: {config.max_connections} ÷ {config.workers} workers ÷ "
        f"{1 + len(config.replicas)} nodes = {demand.pool_size}; "
        "each server: workers × (pool_size + max_overflow + 1 for the monitor)"
    )


def _asked(config: Config, address: str, nodes: list[tuple[str, Server]], demand: Demand) -> Line:
    import psycopg

    names, count = tuple(name for name, _ in nodes), len(nodes)
    pooled = config.pooling(nodes[0][1]) != "off"
    needed = demand.on(count) if demand.bounded else None
    room, problem = None, ""
    try:
        arguments = {**config.libpq(), **nodes[0][1].connect_args()}
        if pooled:
            room = Room(int(console.read(arguments).settings["max_client_conn"]))
        else:
            with psycopg.connect(**arguments) as connection:
                row = connection.execute(ROOM_SQL).fetchone()
                assert row is not None
                room = Room(*row)
    except psycopg.Error as error:
        problem = masked(" ".join(str(error).split())) or type(error).__name__
    limit = "max_client_conn" if pooled else "max_connections"
    return Line(address, names, needed, demand.sum(count), room, problem, limit)
