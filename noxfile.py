"""`nox` runs everything .ci/run runs; `nox -l` lists the sessions."""

import json
import os
import sys
import tomllib
from pathlib import Path

import nox

nox.needs_version = ">=2025.5"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "types", "docs", "tests", "tests-sqlalchemy20"]

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
PYTHONS = sorted({"3.11", "3.12", "3.13", "3.14", HERE})
OTHER_PYTHONS = [version for version in PYTHONS if version != HERE]

# An interpreter the machine lacks is skipped with a message, even where CI is set, unless the
# command line names it; .ci/run names them all and says --no-error-on-missing-interpreters.
nox.options.error_on_missing_interpreters = any(a.startswith("tests-3") for a in sys.argv)
# uv would look for other interpreters on GitHub.
os.environ.setdefault("UV_PYTHON_DOWNLOADS", "never")

# What depends on the versions of SQLAlchemy and the drivers.
ON_PACKAGES = tuple(
    f"tests/{name}" for name in ("checkout", "flask", "metrics", "native", "sqlalchemy", "surface")
)
# What depends on the server's version: by the router's queries, by the server's answers, or by
# what happens there.
ON_EACH = ("tests/failover/test_following.py", "tests/failover/test_lost_writes.py")
RULES = {door: f"tests/{door}/test_rules.py" for door in ("native", "django", "sqlalchemy")}
# What the oldest and the newest server say is nearly enough to know of the rest: those between see
# each door's rules by turns.
BETWEEN = {"15": RULES["native"], "16": RULES["django"], "17": RULES["sqlalchemy"]}
ON_ENDS = (
    *(*ON_EACH, *RULES.values()),
    *(f"tests/native/test_{door}.py" for door in ("asyncpg_connection", "asyncpg_pool")),
    *(f"tests/native/test_{door}.py" for door in ("psycopg", "psycopg_async")),
    *("tests/sqlalchemy/test_pins.py", "tests/sqlalchemy/test_traps.py"),
    *("tests/doctor/test_doctor.py", "tests/status/test_report.py"),
)
# What is said of SQLAlchemy on the newest Python, which event loops and greenlets feel most.
ON_TASKS = "not psycopg2 and not pg8000 and not (sqlalchemy and psycopg)"
# Of the drivers one of each kind; on all but the newest server by turns.
BOTH = "not psycopg2 and not pg8000 and not (sqlalchemy and psycopg_async)"
PSYCOPG, ASYNCPG = f"{BOTH} and not asyncpg", "not psycopg and not pg8000"
BY_TURNS = {"14": PSYCOPG, "15": ASYNCPG, "16": PSYCOPG, "17": ASYNCPG, "19": BOTH}
ON_PGBOUNCER = (
    *(f"tests/{name}" for name in ("cli", "django", "doctor", "native", "sqlalchemy")),
    *("-m", "not slow", "-k", "pgbouncer"),
)
# The tests run on the PostgreSQL of the wheel, 18, and the PgBouncer of this system; and so on
# others: by name, the environment that chooses it and the tests it concerns.
SERVERS = {
    f"postgresql-{version}": (
        {"PG_ROUTER_TEST_VERSION": version},
        (
            *((*ON_EACH, BETWEEN[version]) if version in BETWEEN else ON_ENDS),
            *("-m", "not slow", "-k", drivers),
        ),
    )
    for version, drivers in BY_TURNS.items()
} | {
    f"pgbouncer-{suite}": ({"PG_ROUTER_TEST_PGBOUNCER": suite}, ON_PGBOUNCER)
    for suite in ("trixie", "sid")
}

PYPROJECT = nox.project.load_toml("pyproject.toml")
EXTRAS = "asyncpg,demo,django,flask,opentelemetry,prometheus,redis"


def _install(session: nox.Session, *groups: str, constraints: str | None = None) -> None:
    pinned = ["--constraint", constraints] if constraints else []
    packages = nox.project.dependency_groups(PYPROJECT, *groups)
    session.install("-e", f".[{EXTRAS}]", *packages, *pinned)


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff: the linter and the formatter. `nox -s lint -- --fix` repairs what it can."""
    session.install(*nox.project.dependency_groups(PYPROJECT, "lint"))
    fix = "--fix" in session.posargs
    session.run("ruff", "check", *(["--fix"] if fix else []), ".")
    session.run("ruff", "format", *([] if fix else ["--diff"]), ".")


def _verify_types(session: nox.Session) -> None:
    """Fail where a public name is not wholly typed, but for what Django and asyncpg leave open."""
    untyped = ("router.django.", "router.asyncpg.")
    command = ("pyright", "--verifytypes", "router", "--ignoreexternal", "--outputjson")
    told = session.run(*command, silent=True, success_codes=[0, 1])
    found = json.loads(str(told))["typeCompleteness"]["symbols"]
    known = [s for s in found if s["isExported"] and not s["name"].startswith(untyped)]
    unknown = [s["name"] for s in known if not s["isTypeKnown"] or s["isTypeAmbiguous"]]
    if unknown or not known:
        session.error(f"not wholly typed: {', '.join(unknown) or 'nothing was found'}")
    print(f"{len(known)} public names, all typed")


@nox.session
def types(session: nox.Session) -> None:
    """Strict mypy, pyright, and no public name without a complete type."""
    _install(session, "typing")
    session.run("mypy")
    # pyright-python asks the npm registry for a newer self unless told not to.
    session.env["PYRIGHT_PYTHON_IGNORE_WARNINGS"] = "1"
    session.run("pyright")
    if Path("router/py.typed").exists():
        _verify_types(session)


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, every warning an error."""
    _install(session, "docs")
    session.run("sphinx-build", "-W", "--keep-going", "-q", "docs", "docs/_build/html")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The tests, on one interpreter each; arguments after -- go to pytest."""
    _install(session, "test")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
@nox.parametrize("server", list(SERVERS), ids=list(SERVERS))
def servers(session: nox.Session, server: str) -> None:
    """What depends on it, on one more PostgreSQL or PgBouncer; `-s "servers(pgbouncer-sid)"`."""
    _install(session, "test")
    if server.startswith("pgbouncer") or server == "postgresql-19":
        session.run("scripts/debian-programs", server, external=True)
    environment, chosen = SERVERS[server]
    session.run("python", "-m", "pytest", *chosen, *session.posargs, env=environment)


@nox.session
def poolers(session: nox.Session) -> None:
    """Pgpool-II and Odyssey in front of each server."""
    _install(session, "test")
    session.run("scripts/debian-programs", "odyssey", "pgpool", external=True)
    session.run("python", "-m", "pytest", "tests/poolers", *session.posargs)


@nox.session
def newest(session: nox.Session) -> None:
    """The tests that depend on a server, on PostgreSQL 19, Python 3.14 and pre-releases of all
    packages."""
    unpack = ("scripts/debian-programs", "postgresql-19", "python3.14")
    told = str(session.run(*unpack, external=True, silent=True))
    home = told.splitlines()[-1].partition(": ")[2]
    venv = Path(session.virtualenv.location) / "newest"
    python = f"{home}/usr/bin/python3.14"
    groups = nox.project.dependency_groups(PYPROJECT, "test")
    session.run("uv", "venv", "--clear", "--python", python, str(venv), external=True)
    install = ("uv", "pip", "install", "--prerelease", "allow", "--python", f"{venv}/bin/python")
    session.run(*install, "-e", f".[{EXTRAS}]", *groups, external=True)
    environment = {"PG_ROUTER_TEST_VERSION": "19"}
    chosen = (*ON_ENDS, "-m", "not slow", "-k", BOTH)
    command = (f"{venv}/bin/python", "-m", "pytest", *chosen, *session.posargs)
    session.run(*command, external=True, env=environment)


# On the oldest Python: old drivers have no wheels for a new one.
@nox.session(name="tests-sqlalchemy20", python=PYTHONS[0])
def tests_sqlalchemy20(session: nox.Session) -> None:
    """The tests on the oldest versions that pyproject.toml allows, SQLAlchemy 2.0 among them."""
    # Ours only: the floors of the test tools are not a promise to anybody.
    # Not in create_tmp(): that sets TMPDIR, and the clusters would leave memory for the disk.
    constraints = Path(session.virtualenv.location) / "lowest.txt"
    constraints.write_text("\n".join(_floors()))
    _install(session, "test", constraints=str(constraints))
    session.run("python", "-m", "pytest", *session.posargs)


def _floors() -> list[str]:
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    drivers = [s for s in project["optional-dependencies"]["asyncpg"] if s.startswith("asyncpg")]
    return [spec.replace(">=", "==") for spec in (*project["dependencies"], *drivers)]


@nox.session
def suite(session: nox.Session) -> None:
    """SQLAlchemy's own test suite through a routed engine (fetches its sdist; minutes)."""
    _install(session, "suites")
    session.run("python", "-m", "tests.suites.sqlalchemy_suite", *session.posargs)


@nox.session(name="suite-django")
def suite_django(session: nox.Session) -> None:
    """Django's own test suite on router.django (fetches its sdist; many minutes)."""
    _install(session, "suites")
    session.run("python", "-m", "tests.suites.django_suite", *session.posargs)


@nox.session
def oracle(session: nox.Session) -> None:
    """Ask a standby about each statement of SQLAlchemy's, Django's and PostgreSQL's tests."""
    _install(session, "suites")
    session.run("python", "-m", "tests.oracle.record", *session.posargs)


@nox.session
def consistency(session: nox.Session) -> None:
    """100,000 operations over lagging and dying replicas; `-- --operations N --seed S`."""
    _install(session, "test")
    session.run("python", "-m", "tests.consistency.run", *session.posargs)


@nox.session
def chaos(session: nox.Session) -> None:
    """Faults of every kind for half an hour; `nox -s chaos -- --minutes 5 --seed 7`."""
    _install(session, "test")
    session.run("python", "-m", "tests.chaos.run", *session.posargs)


@nox.session
def simulation(session: nox.Session) -> None:
    """Simulated applications, each from its seed; `nox -s simulation -- --seed 7 --seeds 100`."""
    _install(session, "test")
    session.run("python", "-m", "tests.simulation.run", *session.posargs)


@nox.session
def mutants(session: nox.Session) -> None:
    """Faults put into the router on purpose, each of which the simulation has to find."""
    _install(session, "test")
    session.run("python", "-m", "tests.simulation.mutants", *session.posargs)


@nox.session
def flask(session: nox.Session) -> None:
    """10,000 requests to examples/flask on gunicorn, over lag and a killed replica (minutes)."""
    _install(session, "test")
    session.run("python", "-m", "tests.flask.drive", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """The benchmarks; arguments name files, default all of benchmarks/bench_*.py."""
    _install(session, "bench")
    for script in session.posargs or sorted(map(str, Path("benchmarks").glob("bench_*.py"))):
        session.run("python", "-m", script.removesuffix(".py").replace("/", "."))
    session.run("python", "-m", "benchmarks.report")
