"""Django's own test suite on this backend with two live replicas, beside the same on Django's.

    python -m tests.suites.django_suite [APP …] [--keep DIR] [--only plain|routed]

Fetches the sdist of the installed Django with pip, runs the apps on Django's own backend and then
on `router.django`, and lists every test that passes plainly and fails routed. Exits with 1 if
there is any without an explanation. Prints how many statements replicas served, by app. Nothing
of the sdist is kept in the repository.
"""

import argparse
import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from router.testing import Cluster
from router.testing.versions import locate, version_of
from tests.suites.sdist import fetch

# Not db_functions: its hashes are pgcrypto's, which the embedded servers lack.
APPS = (
    "backends", "transactions", "transaction_hooks", "basic", "queries", "aggregation",
    "select_for_update", "servers", "test_utils", "test_runner", "bulk_create", "delete",
    "expressions", "annotations", "lookup", "many_to_many", "many_to_one", "model_forms",
    "schema", "introspection", "fixtures", "get_or_create", "update", "raw_query", "defer",
    "select_related", "prefetch_related", "inspectdb", "async", "db_utils", "migrations",
    "postgres_tests",
)  # fmt: skip

TIMEOUT = 2400  # seconds for one app

SETTINGS = """
_replicas = {replicas!r}
DATABASES = {{
    name: {{
        "ENGINE": {engine!r}, "NAME": name, "HOST": {host!r},
        "PORT": {port}, "USER": "postgres", "PASSWORD": "suite",
        **({{"REPLICAS": _replicas}} if _replicas else {{}}),
    }}
    for name in ("default", "other")
}}
SECRET_KEY = "not a secret"
USE_TZ = False
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
"""

_LAZY = "connects at the first statement, so with settings that were changed meanwhile"
_POOLS = "each node has a pool of its own, and the wrapper none"
_PG = "backends.postgresql.tests.Tests."
EXPLAINED: dict[str, str] = {
    f"{_PG}test_bypass_role_configuration": _LAZY,
    f"{_PG}test_connect_role": _LAZY,
    "backends.tests.BackendTestCase.test_unicode_password": _LAZY,
    f"{_PG}test_connect_pool": _POOLS,
    f"{_PG}test_connect_pool_set_to_true": _POOLS,
    f"{_PG}test_pooling_health_checks": _POOLS,
    f"{_PG}test_pooling_not_support_persistent_connections": _POOLS,
}
"""Tests that differ for a reason a facade cannot remove, by id, each with the reason."""


def main() -> int:
    """Run both, compare, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("apps", nargs="*", default=list(APPS), help="apps of Django's tests")
    parser.add_argument("--keep", metavar="DIR", help="work in DIR and leave it there")
    parser.add_argument("--only", choices=("plain", "routed"), help="run one of the two")
    known = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pg-router-django-") as scratch:
        work = Path(known.keep or scratch).resolve()
        work.mkdir(parents=True, exist_ok=True)
        root = fetch("django", work)
        # PostgreSQL knows that setting since 18; those before are npm's and have the extensions.
        older = version_of(locate()) < (18,)
        settings = {} if older else {"extension_control_path": f"$system:{stand_ins()}"}
        results = {}
        for kind in (known.only,) if known.only else ("plain", "routed"):
            with Cluster(
                2 if kind == "routed" else 0, settings=settings, password="suite"
            ) as cluster:
                prepare(cluster)
                results[kind] = {app: run(root, work, kind, cluster, app) for app in known.apps}
        return report(results)


def stand_ins() -> Path:
    """Empty extensions of names that a migration of postgres_tests makes and no test of it uses.

    The wheel's servers are built without OpenSSL and libuuid.
    """
    home = Path(tempfile.mkdtemp(prefix="pg-router-extensions-", dir="/tmp"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    home.chmod(0o755)
    directory = home / "extension"
    directory.mkdir(mode=0o755)
    for name in ("pgcrypto", "uuid-ossp"):
        (directory / f"{name}.control").write_text("default_version = '1.0'\n")
        (directory / f"{name}--1.0.sql").write_text("")
    return home


def prepare(cluster: Cluster) -> None:
    """The databases the settings name."""
    # Named by a model; the embedded servers are built without ICU.
    cluster.primary.execute('CREATE COLLATION "sv-x-icu" FROM "C"', dbname="template1")
    for name in ("default", "other"):
        cluster.primary.execute(f'CREATE DATABASE "{name}"')
    cluster.wait_caught_up()


def run(root: Path, work: Path, kind: str, cluster: Cluster, app: str) -> dict[str, object]:
    """Run one app; what `tests.suites.django_results` wrote down of it."""
    routed = kind == "routed"
    (work / f"{kind}_settings.py").write_text(
        SETTINGS.format(
            engine="router.django" if routed else "django.db.backends.postgresql",
            host=cluster.primary.host,
            port=cluster.primary.port,
            replicas=[{"HOST": r.host, "PORT": r.port} for r in cluster.replicas],
        )
    )
    target, log = work / f"{kind}-{app}.json", work / f"{kind}-{app}.log"
    target.unlink(missing_ok=True)
    script = (
        "import runpy, sys; from tests.suites import django_results; django_results.install(); "
        "[sys.modules.pop(name) for name in list(sys.modules) if name.split('.')[0] == 'tests']; "
        "runpy.run_path('runtests.py', run_name='__main__')"
    )
    command = [sys.executable, "-W", "ignore", "-c", script, "--parallel=1", "--noinput"]
    command += [f"--settings={kind}_settings", app]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(work), str(Path(__file__).parents[2])]),
        "PG_ROUTER_RESULTS": str(target),
    }
    with log.open("w") as output:
        try:
            subprocess.run(
                command, cwd=root / "tests", env=environment, stdout=output,
                stderr=subprocess.STDOUT, timeout=TIMEOUT, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            sys.exit(f"{app} took more than {TIMEOUT} s on the {kind} backend: see {log}")
    if not target.exists():
        tail = "\n".join(log.read_text().splitlines()[-20:])
        sys.exit(f"{app} did not get far on the {kind} backend:\n{tail}")
    found: dict[str, object] = json.loads(target.read_text())
    told = [
        line for line in log.read_text().splitlines() if line.startswith(("Ran ", "FAILED ", "OK"))
    ]
    print(f"{kind:>6} {app:<20} {', '.join(told)}", flush=True)
    return found


def report(results: dict[str, dict[str, dict[str, object]]]) -> int:
    """Print the comparison; 1 if something passes plainly and fails routed, unexplained."""
    print(f"Django {version('django')}")
    outcomes: dict[str, dict[str, str]] = {}
    for kind, apps in results.items():
        outcomes[kind] = {}
        for app, found in apps.items():
            tests = found["tests"]
            assert isinstance(tests, dict)
            outcomes[kind] |= tests
            served = found["served"]
            assert isinstance(served, dict)
            total = sum(served.values())
            if total:
                away = sum(n for node, n in served.items() if node != "primary")
                print(f"  {app:<20} {total:>6} statements, {away / total:.1%} on replicas")
        tally = [list(outcomes[kind].values()).count(o) for o in ("passed", "failed", "skipped")]
        print(f"{kind:>6}: {tally[0]} passed, {tally[1]} failed, {tally[2]} skipped")
    if len(results) < 2:
        return 0
    plain, routed = outcomes["plain"], outcomes["routed"]
    worse = sorted(t for t, o in plain.items() if o == "passed" and routed.get(t) != "passed")
    for test in worse:
        why = EXPLAINED.get(test, "NOT EXPLAINED")
        print(f"  differs: {test} ({routed.get(test, 'did not run')}): {why}")
    unexplained = [test for test in worse if test not in EXPLAINED]
    print(f"{len(worse)} differ, {len(unexplained)} of them without an explanation")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
