"""``pg-router status``."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from router.cli.ask import Answer, ask
from router.cli.source import config_of, servers
from router.config import masked
from router.core import Router
from router.status import NodeStatus, Status
from router.status import status as status_of
from router.target import router_of


@click.command()
@servers
@click.option(
    "--watch",
    metavar="SECONDS",
    type=click.FloatRange(0.2),
    help="Ask again so often, until Ctrl-C.",
)
@click.option("--json", "as_json", is_flag=True, help="One object; with --watch one a line.")
def status(
    url: str | None,
    replicas: tuple[str, ...],
    file: Path | None,
    section: str,
    system: str | None,
    *,
    watch: float | None,
    as_json: bool,
) -> None:
    """Ask every node how it is, and who is connected to it.

    The blacklist and the traffic of an application are in its own process: its status page and
    Router.stats() have them.

    Exit status: 0 a primary answers, 1 none does, 2 wrong usage, 130 a --watch was interrupted.
    """
    router, _ = router_of(config_of(url, replicas, file, section, system))
    try:
        while True:
            router.refresh()
            found, answers = status_of(router), _asked(router)
            if as_json:
                told = json.dumps(_plain(found, answers), indent=None if watch else 2)
            else:
                told = table(found, answers)
            if watch and not as_json:
                click.clear()  # does nothing where standard output is no terminal
            click.echo(told)
            if not watch:
                break
            time.sleep(watch)
    finally:
        router.close()
    if not found.writable:
        raise SystemExit(1)


def _asked(router: Router) -> dict[str, Answer]:
    return {node.name: ask(router.config, server) for node, server in router.servers.items()}


def _plain(found: Status, answers: Mapping[str, Answer]) -> dict[str, Any]:
    nodes = []
    for node in found.nodes:
        row = {**asdict(node), "role": str(node.role), "problem": masked(node.problem)}
        nodes.append({**row, "asked": asdict(answers.get(node.name, Answer()))})
    return {**asdict(found), "writable": found.writable, "nodes": nodes}


def table(found: Status, answers: Mapping[str, Answer]) -> str:
    """`found` as columns, and under each node who is connected to it."""
    lines = [f"{found.cluster}: " + ("writable" if found.writable else "no primary")]
    lines.append(f"{'node':<12} {'role':<8} {'state':<8} {'lag':>17} {'connections':>12}  address")
    for node in found.nodes:
        answer = answers.get(node.name, Answer())
        room = "?" if answer.room is None else str(answer.room.free)
        used = f"{answer.connections if answer.room else '?'} of {room}"
        state = "problem" if node.problem else ("in use" if node.reads else "unused")
        lines.append(
            f"{node.name:<12} {node.role!s:<8} {state:<8} {_lag(node):>17} {used:>12}  "
            f"{node.address}"
        )
        if node.problem:
            lines.append(f"    {masked(node.problem)}")
        elif answer.problem:
            lines.append(f"    not asked for its connections: {answer.problem}")
        lines += [
            f"    PgBouncer, {one.user} by {one.mode}: {one.clients} clients, "
            f"{one.waiting} waiting ({one.longest:.1f} s), {one.busy} server connections busy, "
            f"{one.idle} idle"
            for one in answer.pools
        ]
        lines += [
            f"    {one.application}: {one.connections}, {one.busy} busy" for one in answer.clients
        ]
    return "\n".join(lines)


def _lag(node: NodeStatus) -> str:
    parts = []
    if node.lag_seconds is not None:
        parts.append(f"{node.lag_seconds:.1f} s")
    if node.lag_bytes is not None:
        parts.append(f"{node.lag_bytes} B")
    return ", ".join(parts) or "-"
