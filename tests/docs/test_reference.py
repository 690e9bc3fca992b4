"""The reference pages name what the code has: options, reasons, errors, events."""

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

import router
from router.cli.app import app
from router.config.options import OPTIONS
from router.doctor.findings import LEVELS
from router.errors import RouterError
from router.pins.http import Pinning
from router.pins.options import PinOptions
from router.rules.decision import Reason

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"


def rows(page: str, until: str = "\0") -> Iterator[list[str]]:
    """The cells of every table row of a reference page, heads and rulers left out; up to
    the text `until`."""
    lines = (REFERENCE / page).read_text().partition(until)[0].splitlines()
    for before, line in zip(["", *lines], lines, strict=False):
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if cells and not line.startswith("|--") and before.startswith("|"):
            yield cells


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The extension that makes the table of options."""
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_ext"))
    yield importlib.import_module("options")
    del sys.modules["options"]


def test_every_option_is_in_the_table_with_its_meaning(options: Any) -> None:
    """The table of options has one row for each option, in order, none without a meaning."""
    lines = options.table().splitlines()[2:]
    assert [re.match(r"\| `(\w+)` ", line)[1] for line in lines] == list(OPTIONS)  # type: ignore[index]
    assert not [line for line in lines if re.search(r"\|\s*\|$", line)]


def test_every_reason_is_in_the_rules_table() -> None:
    """The rules table gives the text of every Reason, and no other."""
    told = [text for cells in rows("rules.md") for text in re.findall(r"“(.+?)”", cells[-1])]
    assert sorted(told) == sorted(str(reason) for reason in Reason)


def test_every_error_is_documented_with_its_base() -> None:
    """The table of errors names each public error and the class above it."""
    public = [getattr(router, name) for name in router.__all__]
    errors = {e for e in public if isinstance(e, type) and issubclass(e, RouterError)}
    table = rows("errors.md", until="\n## ")
    told = {name.strip("`"): base.strip("`") for name, base, _ in table}
    assert told == {e.__name__: e.__base__.__name__ for e in errors if e.__base__}


def events() -> dict[str, tuple[str, set[str]]]:
    """Every event the code can emit: its level and the names of its fields."""
    found: dict[str, tuple[str, set[str]]] = {}
    for path in sorted((ROOT / "router").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            owner = ast.unparse(node.func.value)
            if node.func.attr != "event" or not owner.endswith("telemetry"):
                continue
            name = ast.literal_eval(node.args[0])
            given = {k.arg: k.value for k in node.keywords if k.arg is not None}
            level = ast.literal_eval(given.pop("level", ast.Constant("info")))
            before = found.get(name, (level, set()))
            found[name] = (level, before[1] | set(given))
    return found


def test_every_event_is_documented_with_its_fields() -> None:
    """The table of events gives each event's name, level and fields as the code emits them."""
    assert len(events()) > 3
    told = {
        cells[0].strip("`"): (cells[1], set(re.findall(r"`(\w+)`", cells[2])))
        for cells in rows("events.md")
        if cells[1] in ("info", "warning", "error")
    }
    assert told == events()


def test_every_finding_of_the_doctor_is_documented_with_its_levels() -> None:
    """The table of findings gives each code and the levels at which the rules tell it."""
    found: dict[str, set[str]] = {}
    files = [ROOT / "router" / name for name in ("doctor/findings.py", "cli/shadow.py")]
    for node in (node for file in files for node in ast.walk(ast.parse(file.read_text()))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Finding":
            levels, code = node.args[0], ast.literal_eval(node.args[1])
            branches = [levels.body, levels.orelse] if isinstance(levels, ast.IfExp) else [levels]
            found.setdefault(code, set()).update(map(ast.literal_eval, branches))
    assert len(found) > 20
    table = [cells for cells in rows("doctor.md") if len(cells) == 3]
    told = {code.strip("`"): set(levels.split(", ")) for code, levels, _ in table}
    assert {code: told.get(code) for code in found} == found
    assert {code for code, levels in told.items() if levels <= set(LEVELS)} == set(found)


def test_every_option_of_the_middlewares_is_documented_with_its_default() -> None:
    """The table gives each option of a PinMiddleware, in order, and the default it has."""
    table = [cells for cells in rows("middleware.md") if len(cells) == 4]
    told = {name.strip("`"): default.strip("`") for name, _, default, _ in table}
    parameters = inspect.signature(Pinning).parameters.values()
    defaults = {
        p.name: "required" if p.default is p.empty else repr(p.default).replace("'", '"')
        for p in parameters
    }
    assert list(told.items()) == list(defaults.items())
    assert list(told) == list(PinOptions.__annotations__)


def sections() -> dict[str, str]:
    """The text about each command of `pg-router`, by name."""
    text = (REFERENCE / "command-line.md").read_text()
    parts = re.split(r"^## `pg-router ([\w-]+)[^`]*`\n", text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_every_command_is_documented_with_its_options() -> None:
    """The page has a section for each command, and names each option there, or says that the
    command takes those of another one."""
    context = click.Context(app)
    assert isinstance(app, click.Group)
    commands = {name: app.get_command(context, name) for name in app.list_commands(context)}
    told = sections()
    assert set(told) == set(commands)
    shared = set(re.findall(r"`(--[\w-]+)`", told["config"]))
    for name, command in commands.items():
        assert command is not None
        known = set(re.findall(r"`(--[\w-]+)", told[name]))
        if re.search(r"options\s+of\s+`pg-router config`", told[name]):
            known |= shared
        options = {p.opts[0] for p in command.params if isinstance(p, click.Option)}
        assert options - {"--help"} <= known, name


PACKAGES = ("router", "router.asyncpg", "router.django", "router.psycopg", "router.sqlalchemy",
            "router.testing")  # fmt: skip


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_in_the_python_api(package: str) -> None:
    """The page names all that a package says is public; what it takes from the code exists, or
    Sphinx refuses to build it."""
    page = (REFERENCE / "python-api.md").read_text() + (REFERENCE / "errors.md").read_text()
    told = {name.rpartition(".")[2] for name in re.findall(r"[\w.]+", page)}
    public = importlib.import_module(package).__all__
    assert public
    assert [name for name in public if name not in told and name != "__version__"] == []


def test_every_event_has_a_text_about_it() -> None:
    """No row of the table of events leaves its meaning empty."""
    assert not [cells for cells in rows("events.md") if not all(cells[:2]) or not cells[-1]]
