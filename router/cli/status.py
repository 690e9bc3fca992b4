"""``pg-router status``."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import click

from router.cli.application import Application, ask_application
from router.cli.ask import Answer, arguments_for, ask
from router.cli.source import Servers, servers
from router.cluster.monitor import Monitor
from router.cluster.router import Router
from router.messages import masked
from router.status.report import NodeStatus, Status
from router.status.report import status as status_of


@click.command()
@servers
@click.option(
    "--watch",
    metavar="SECONDS",
    type=click.FloatRange(0.2),
    help="Ask again so often, until Ctrl-C.",
)
@click.option("--json", "as_json", is_flag=True, help="One object; with --watch one a line.")
@click.option(
    "--app", metavar="URL", help="An application's status page: its pools, traffic and blacklist."
)
@click.option(
    "--token",
    envvar="PG_ROUTER_STATUS_TOKEN",
    metavar="TOKEN",
    help="Of that page.",
    show_envvar=True,
)
def status(
    where: Servers, *, watch: float | None, as_json: bool, app: str | None, token: str | None
) -> None:
    """Ask every node how it is, and who is connected to it.

    The blacklist, the pools and the traffic of an application are in its own processes: --app asks
    its status page for them, of which one process answers.

    Exit status: 0 a primary answers, 1 none does, 2 wrong usage, 130 a --watch was interrupted.
    """
    if app is not None and not app.startswith(("http://", "https://")):
        raise click.BadParameter("give an http:// or https:// URL", param_hint="--app")
    config = where.config()
    router = Router(config)
    router.use_monitor(Monitor(router, lambda node: arguments_for(config, router.servers[node])))
    try:
        while True:
            router.refresh()
            found, answers = status_of(router), _asked(router)
            asked = None if app is None else ask_application(app, token, found.cluster)
            if as_json:
                told = json.dumps(_plain(found, answers, asked), indent=None if watch else 2)
            else:
                told = table(found, answers, asked)
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
    found = {}
    for node, server in router.servers.items():
        report = router.snapshot.reports.get(node.name)
        if report is not None and not report.ok:  # it would only be waited for once more
            found[node.name] = Answer(problem=masked(report.error))
        else:
            found[node.name] = ask(router.config, server)
    return found


def _plain(
    found: Status, answers: Mapping[str, Answer], app: Application | None
) -> dict[str, Any]:
    nodes = []
    for node in found.nodes:
        row = {**asdict(node), "role": str(node.role), "problem": masked(node.problem)}
        row["asked"] = asdict(answers.get(node.name, Answer()))
        nodes.append(row if app is None else {**row, "application": app.nodes.get(node.name)})
    told = {**asdict(found), "writable": found.writable, "nodes": nodes}
    if app is not None:
        told["application"] = {"process": app.process, "problem": app.problem}
    return told


def table(found: Status, answers: Mapping[str, Answer], app: Application | None = None) -> str:
    """`found` as columns; under each node what its server `answers`, and what `app` says of it."""
    lines = [f"{found.cluster}: " + ("writable" if found.writable else "no primary")]
    wide = max(12, *(len(node.name) for node in found.nodes))
    head = f"{'role':<8} {'state':<8} {'lag':>17} {'connections':>12}  address"
    lines.append(f"{'node':<{wide}} {head}")
    for node in found.nodes:
        answer = answers.get(node.name, Answer())
        room = "?" if answer.room is None else str(answer.room.free)
        used = f"{answer.connections if answer.room else '?'} of {room}"
        state = "problem" if node.problem else ("in use" if node.reads else "unused")
        lines.append(
            f"{node.name:<{wide}} {node.role!s:<8} {state:<8} {_lag(node):>17} {used:>12}  "
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
        if app is not None and (seen := app.nodes.get(node.name)) is not None:
            lines.append(f"    process {app.process} of the application: {_seen(seen)}")
    if app is not None and app.problem:
        lines.append(f"the application was not asked: {app.problem}")
    return "\n".join(lines)


def _seen(node: Mapping[str, Any]) -> str:
    """A node as an application's process has it; its version may be another one than ours."""
    parts, rate, use = [], node.get("statements_per_second"), node.get("connections")
    if rate is not None:
        parts.append(f"{rate} statements/s")
    if use:
        parts.append(f"connections: {use['in_use']} in use, {use['idle']} idle")
    if out := node.get("blacklisted"):
        left = out["seconds_left"]
        term = "until it is restored" if left is None else f"for {left} s more"
        parts.append(f"blacklisted {term}: {out['reason']}")
    return "; ".join(parts) or "nothing is known yet"


def _lag(node: NodeStatus) -> str:
    parts = [] if node.lag_seconds is None else [f"{node.lag_seconds:.1f} s"]
    parts += [] if node.lag_bytes is None else [f"{node.lag_bytes} B"]
    return ", ".join(parts) or "-"
