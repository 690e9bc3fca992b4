"""``pg-router doctor``."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import click

from router.cli.shadow import shadow
from router.cli.source import Servers, servers
from router.doctor.diagnosis import doctor as examined
from router.doctor.findings import LEVELS


@click.command()
@servers
@click.option("--json", "as_json", is_flag=True, help="One object.")
@click.option("--strict", is_flag=True, help="Let a warning count as an error.")
def doctor(where: Servers, *, as_json: bool, strict: bool) -> None:
    """Ask every server, and find what is wrong with it or with what was said of it.

    One line for each finding, with the cure. Nothing is changed.

    Exit status: 0 no error was found, 1 one was, 2 wrong usage.
    """
    found = examined(where.config())
    if (taken := shadow(Path.cwd())) is not None:
        findings = sorted([*found.findings, taken], key=lambda each: LEVELS.index(each.level))
        found = replace(found, findings=tuple(findings))
    failed = found.failed(strict=strict)
    click.echo(json.dumps({"ok": not failed, **asdict(found)}, indent=2) if as_json else found)
    if failed:
        raise SystemExit(1)
