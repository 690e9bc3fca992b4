"""``pg-router budget``."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TypeVar

import click

from router.cli.source import Servers, servers
from router.config.budget import ROOM_SQL, Demand, Line, Room, cure, horsies_worker, opened
from router.config.config import Config
from router.config.server import Server
from router.doctor import pgbouncer_console as console
from router.messages import one_line

T = TypeVar("T")


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
    where: Servers, *, workers: int | None, extra: int, processes: int | None, as_json: bool
) -> None:
    """Count the connections that may be opened, and ask the servers whether they bear them.

    Exit status: 0 they do, 1 a server does not or cannot be asked, 2 wrong usage.
    """
    config = where.config()
    if workers is not None:
        config = config.but(workers=workers)
    if processes is not None:
        extra += horsies_worker(processes=processes)
    demand = config.demand(extra)
    lines = [
        line
        for address, nodes in _addresses(config).items()
        for line in _asked(config, address, nodes, demand)
    ]
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
    each = "each server: workers × (pool_size + max_overflow + 1 for the monitor)"
    if config.max_connections is None:
        return each
    return (
        f"pool_size: {config.max_connections} ÷ {config.workers} workers ÷ "
        f"{1 + len(config.replicas)} nodes = {demand.pool_size}; {each}"
    )


def _asked(
    config: Config, address: str, nodes: list[tuple[str, Server]], demand: Demand
) -> Iterator[Line]:
    """A line for the server at an address, or for a PgBouncer and each server behind it."""
    names, count = tuple(name for name, _ in nodes), len(nodes)
    needed, said = demand.on(count) if demand.bounded else None, demand.sum(count)
    first = nodes[0][1]
    if config.pooling(first) == "off":
        yield Line(address, names, needed, said, *_room(config, first))
        return
    limit = "max_client_conn"
    told, problem = _told(lambda: console.read({**config.libpq(), **first.connect_args()}))
    if told is None:
        yield Line(address, names, needed, said, None, problem, limit)
        return
    clients = Room(int(told.settings[limit]))
    yield Line(address, names, needed, said, clients, limit=limit)
    behind: dict[str, dict[str, str]] = {}
    for name, server in nodes:
        dbname = server.dbname or server.user
        if database := told.databases.get(dbname):
            place = "{host}:{port}".format_map(database)
            behind.setdefault(place, {})[dbname] = name
    for place, those in behind.items():
        sizes = [opened(told.databases[dbname]) for dbname in those]
        total = f" = {sum(sizes)}" if len(sizes) > 1 else ""
        said = f"pool_size {' + '.join(map(str, sizes))}{total}"
        at = next(server for name, server in nodes if name in those.values())
        room = _room(config, at)
        yield Line(f"{place} behind {address}", tuple(those.values()), sum(sizes), said, *room)


def _room(config: Config, server: Server) -> tuple[Room | None, str]:
    """The connections that the server bears, a PgBouncer before it or not; or why it is silent."""
    import psycopg

    def ask() -> Room:
        with psycopg.connect(**{**config.libpq(), **server.connect_args()}) as connection:
            row = connection.execute(ROOM_SQL).fetchone()
            assert row is not None
            return Room(*row)

    return _told(ask)


def _told(ask: Callable[[], T]) -> tuple[T | None, str]:
    import psycopg

    try:
        return ask(), ""
    except psycopg.Error as error:
        return None, one_line(error)
