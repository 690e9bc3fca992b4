"""The public surface of pg-router: recorded, and compared with the recording.

What users hold on to must not change while the insides are moved: names and signatures, options,
commands, events, metrics, reasons, findings, keys of settings, and the order of SQLAlchemy's pool
events. `test_surface.py` compares all of that with ``recorded.json``: what is new is welcome and
only told; what is gone or changed fails. Where the change is meant, write it anew and say it in
CHANGELOG.md:

    python -m tests.surface.surface            # show what differs; pool events are left out
    python -m tests.surface.surface --write    # record it; starts a cluster for the pool events

A section is a mapping of one line to one line, so that the recording's diff reads as a list of
what users will notice. Names are public if the documentation says so (`paths.py`), and described
without modules (`describe.py`). The other sections are taken from the running code, or by reading
all of ``router/`` for a shape of code, never from a file that may move.
"""

import argparse
import ast
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click

from tests.surface import pool_events
from tests.surface.describe import annotation, default_of, described
from tests.surface.paths import PYPROJECT, REFERENCE, ROOT, NotFound, annotated, documented

RECORDED = Path(__file__).with_name("recorded.json")
POOL_EVENTS = "pool events"

Section = dict[str, str]
Surface = dict[str, Section]


def names(recorded: Mapping[str, str] = {}) -> Section:
    """Every documented name, and every recorded one: that a page no longer tells of it takes it
    from nobody.

    Args:
        recorded: names by which code in the field may call us.
    """
    found = {}
    for path in sorted(documented() | set(recorded)):
        try:
            found[path] = described(path)
        except NotFound:
            if path not in recorded:
                raise
    return found


def entry_points() -> Section:
    """What other programs find us by."""
    project = PYPROJECT["project"]
    groups = {"console_scripts": project["scripts"], **project["entry-points"]}
    found = {f"extra: {name}": "" for name in project["optional-dependencies"]}
    for group, points in groups.items():
        for name, target in points.items():
            there = EntryPoint(name, target, group).load()
            found[f"{group}: {name}"] = type(there).__name__
    return found


def options() -> Section:
    """The options of a Router: type and default."""
    from router import Config

    notes = annotated(Config)
    return {
        one.name: f"{annotation(notes[one.name])}{default_of(one)}"
        for one in fields(Config)
        if not one.name.startswith("_")
    }


def settings() -> Section:
    """The keys in the reference's tables, with their defaults, and the ids of Django's checks
    and of the spans' attributes as they stand in the code."""
    found = {}
    for page in sorted(REFERENCE.glob("*.md")):
        if page.stem == "command-line":  # see `commands`
            continue
        head: list[str] = []
        for line in page.read_text().splitlines():
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            if not cells:
                head = []
            elif not head:
                head = cells
            elif head[0] in ("option", "key", "setting", "variable") and cells[0].startswith("`"):
                row = dict(zip(head, cells, strict=False))
                default = " ".join(re.findall(r"`([^`]+)`", row.get("default", "")))
                for key in re.findall(r"`([^`]+)`", cells[0]):
                    found[f"{page.stem}: {key}"] = f"default {default}" if default else ""
    shape = re.compile(r"pg_router\.[EWI]\d{3}|db\.router\.\w+")
    for node in _code():
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and shape.fullmatch(text):
            found[f"in the code: {text}"] = ""
    return found


def commands() -> Section:
    """The commands, their arguments and options; those of Flask and Django as well."""
    from router.cli.app import app

    found = dict(_click("pg-router", app))
    found |= dict(_flask())
    found |= dict(_django())
    return found


def _click(path: str, command: click.Command) -> Iterator[tuple[str, str]]:
    statuses = re.search(r"Exit status:(.*)", " ".join((command.help or "").split()))
    codes = re.findall(r"\b(?:0|1|2|130)\b", statuses[1]) if statuses else []
    yield path, f"exit status {', '.join(codes)}" if codes else ""
    for one in command.params:
        if "--help" not in one.opts:
            yield f"{path} {' '.join([*one.opts, *one.secondary_opts])}", _parameter(one)
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from _click(f"{path} {name}", inner)


def _parameter(one: click.Parameter) -> str:
    kind = one.type
    parts = [one.param_type_name, kind.name]
    if isinstance(kind, click.Choice):
        parts.append(f"one of {', '.join(map(str, kind.choices))}")
    if isinstance(kind, click.IntRange | click.FloatRange):
        parts.append(f"{kind.min} to {kind.max}")
    if isinstance(one, click.Option) and one.is_flag:
        parts[1] = "flag"
    elif isinstance(one.default, str | int | float) and not isinstance(one.default, bool):
        parts.append(f"default {one.default!r}")  # click's "no default" has many forms
    parts += [word for word in ("required", "multiple") if getattr(one, word, False)]
    if one.envvar:
        parts.append(f"environment {one.envvar}")
    return ", ".join(parts)


def _flask() -> Iterator[tuple[str, str]]:
    from flask import Flask

    from router.flask import Router

    app = Flask("surface")
    app.config.update(SQLALCHEMY_DATABASE_URI="postgresql://localhost/surface", ROUTER_PINS=False)
    Router(app)
    for name, command in app.cli.commands.items():
        yield from _click(f"flask {name}", command)


def _django() -> Iterator[tuple[str, str]]:
    # Django finds them by these paths, so they do not move.
    from router.django.management.commands import migrate, router

    for name, module in (("router", router), ("migrate", migrate)):
        parser = argparse.ArgumentParser()
        if module.Command.__dict__.get("add_arguments") is None:
            yield f"manage.py {name}", ""
            continue
        if name == "router":
            module.Command.add_arguments(SimpleNamespace(), parser)
            yield from _argparse(f"manage.py {name}", parser)


def _argparse(path: str, parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    yield path, ""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield from _argparse(f"{path} {name}", inner)
        elif not isinstance(action, argparse._HelpAction):
            default = "" if action.default is None else f", default {action.default!r}"
            words = " ".join(action.option_strings) or action.dest
            yield f"{path} {words}", f"{action.nargs}{default}"


def exit_codes() -> Section:
    """The statuses that the page tells of, and those that the code of the command line gives."""
    page = (REFERENCE / "command-line.md").read_text()
    found = {f"documented: {code}": "" for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    for path in sorted((ROOT / "router" / "cli").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Assign):
                if ast.unparse(node.targets[0]) in ("MISSING", "INTERRUPTED"):
                    found[f"in the code: {ast.unparse(node.value)}"] = ""
            elif isinstance(node, ast.Call) and node.args:
                called = ast.unparse(node.func).rpartition(".")[2]
                given = node.args[0].value if isinstance(node.args[0], ast.Constant) else None
                if called in ("exit", "SystemExit", "Exit") and isinstance(given, int):
                    found[f"in the code: {given}"] = ""
    return found


@cache
def _code() -> tuple[ast.AST, ...]:
    """Every node of every file of the package, wherever it stands."""
    return tuple(
        node
        for path in sorted((ROOT / "router").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
    )


def events() -> Section:
    """The events: level and the names of the fields."""
    levels: dict[str, set[str]] = {}
    told: dict[str, set[str]] = {}
    for node in _code():
        if not (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "event"
            and ast.unparse(node.func.value).endswith("telemetry")
            and isinstance(node.args[0], ast.Constant)
        ):
            continue
        name = str(node.args[0].value)
        given = {k.arg: k.value for k in node.keywords if k.arg is not None}
        level = ast.literal_eval(given.pop("level", ast.Constant("info")))
        levels.setdefault(name, set()).add(level)
        told.setdefault(name, set()).update(given)
    return {
        name: f"{'/'.join(sorted(levels[name]))}: {', '.join(sorted(told[name]))}"
        for name in levels
    }


def reasons() -> Section:
    """The reasons of routes, by name: their texts."""
    return {
        ast.unparse(line.targets[0]): ast.literal_eval(line.value)
        for node in _code()
        if isinstance(node, ast.ClassDef) and node.name == "Reason"
        for line in node.body
        if isinstance(line, ast.Assign) and isinstance(line.value, ast.Constant)
    }


def findings() -> Section:
    """The findings of the doctor: the levels at which each is told."""
    found: dict[str, set[str]] = {}
    for node in _code():
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Finding"):
            levels, code = node.args[0], ast.literal_eval(node.args[1])
            branches = [levels.body, levels.orelse] if isinstance(levels, ast.IfExp) else [levels]
            found.setdefault(code, set()).update(map(ast.literal_eval, branches))
    return {code: ", ".join(sorted(levels)) for code, levels in found.items()}


def metrics() -> Section:
    """What Prometheus and OpenTelemetry are given: kind, labels and help."""
    from prometheus_client import CollectorRegistry

    import router
    import router.opentelemetry
    import router.prometheus

    target = router.Router(router.Config.from_url("postgresql://localhost/surface"))
    made: list[Any] = []

    class Registry(CollectorRegistry):
        def register(self, collector: Any) -> None:
            made.append(collector)

    registry = Registry()
    router.prometheus.publish(target, registry)
    found = {}
    for one in made:
        if hasattr(one, "_labelnames"):  # not the collector that takes the values
            buckets = f" buckets {one._kwargs['buckets']}" if one._type == "histogram" else ""
            found[f"prometheus: {one._name}"] = (
                f"{one._type} {', '.join(one._labelnames)}{buckets}: {one._documentation}"
            )
    given: Section = {}

    class Meter:
        def __getattr__(self, kind: str) -> Callable[..., None]:
            def make(name: str, **options: Any) -> None:
                what = kind.removeprefix("create_")
                given[f"opentelemetry: {name}"] = f"{what}: {options.get('description')}"

            return make

    provider: Any = SimpleNamespace(get_meter=lambda *_, **__: Meter())
    router.opentelemetry.publish(target, provider)
    target.close()
    return found | given


def record(recorded: Mapping[str, Section] = {}) -> Surface:
    """All sections but the pool events, which need a cluster.

    Args:
        recorded: an earlier recording, whose names are looked up as well.
    """
    return {
        "names": names(recorded.get("names", {})),
        "entry points": entry_points(),
        "options": options(),
        "settings": settings(),
        "commands": commands(),
        "exit codes": exit_codes(),
        "events": events(),
        "metrics": metrics(),
        "reasons": reasons(),
        "findings": findings(),
    }


def load() -> Surface:
    """The recording."""
    found: Surface = json.loads(RECORDED.read_text())
    return found


def write(surface: Surface) -> None:
    """Make `surface` the recording: sorted, one item a line."""
    RECORDED.write_text(json.dumps(surface, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


@dataclass(frozen=True, slots=True)
class Difference:
    """What is not as it was recorded, one line for each item.

    Attributes:
        broken: what is gone or changed.
        added: what is new.
    """

    broken: tuple[str, ...]
    added: tuple[str, ...]

    def __str__(self) -> str:
        lines = [*self.broken, *(f"(new, allowed) {line}" for line in self.added)]
        return "\n".join(lines)


def compare(before: Mapping[str, str], now: Mapping[str, str], section: str) -> Difference:
    """How one section differs from its recording."""
    broken = []
    for key, was in before.items():
        if key not in now:
            broken.append(f"{section}: GONE {key}: {was}")
        elif now[key] != was:
            broken.append(f"{section}: CHANGED {key}: {was!r} is now {now[key]!r}")
    added = [f"{section}: {key}: {now[key]}" for key in now if key not in before]
    return Difference(tuple(broken), tuple(added))


CURE = """
Users hold on to what is above. If the change is meant, record it with
    python -m tests.surface.surface --write
and say in CHANGELOG.md what they have to do."""


def main() -> int:
    """Show how the surface differs from the recording, or record it; 1 if something broke."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--write", action="store_true", help="record it")
    wanted = parser.parse_args()
    before = load() if RECORDED.exists() else {}
    now = record({} if wanted.write else before)
    broken = False
    for section, items in now.items():
        found = compare(before.get(section, {}), items, section)
        broken = broken or bool(found.broken)
        if str(found):
            print(found)
    if wanted.write:
        now[POOL_EVENTS] = next(pool_events.own_cluster())
        write(now)
        return 0
    if broken:
        print(CURE)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
