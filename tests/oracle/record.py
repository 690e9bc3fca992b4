"""Asks a real standby about every statement of SQLAlchemy's and Django's own test suites, and of
PostgreSQL's own regression scripts.

    python -m tests.oracle.record [--only sqlalchemy|django|postgresql] [--keep DIR]
        [--files FILE …] [--apps APP …] [--scripts SCRIPT …] [--volatile-cast]

Prints three rates and every text that spoils one. Exits with 1 if there is any. The texts stay in
a temporary directory. `nox -s oracle` runs it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from router.testing import Cluster
from tests.oracle import postgresql
from tests.suites import sqlalchemy_suite
from tests.suites.sdist import fetch

SQLALCHEMY = (
    "test/dialect/test_suite.py",
    "test/dialect/postgresql",
    "test/engine",
    "test/sql",
    "test/orm",
)
# Not db_functions and postgres_tests: they need extensions the embedded servers lack.
DJANGO = (
    "aggregation", "aggregation_regress", "annotations", "backends", "basic", "bulk_create",
    "custom_lookups", "custom_managers", "datatypes", "dates", "datetimes",
    "defer", "delete", "distinct_on_fields", "expressions", "expressions_case",
    "expressions_window", "extra_regress", "filtered_relation", "foreign_object",
    "from_db_value", "generic_relations", "get_or_create", "indexes", "inspectdb",
    "introspection", "lookup", "many_to_many", "many_to_one", "migrations", "model_fields",
    "model_inheritance", "null_queries", "one_to_one", "or_lookups", "ordering",
    "prefetch_related", "queries", "raw_query", "schema", "select_for_update",
    "select_related", "transactions", "update",
)  # fmt: skip

SETTINGS = """
DATABASES = {{
    name: {{
        "ENGINE": "django.db.backends.postgresql", "NAME": name, "HOST": "{host}",
        "PORT": {port}, "USER": "postgres", "PASSWORD": "recorded",
    }}
    for name in ("default", "other")
}}
SECRET_KEY = "not a secret"
USE_TZ = False
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
"""

COLLECTIONS = ("sqlalchemy", "django", "postgresql")
TIMEOUT = 2400  # seconds for one suite


def main() -> int:
    """Record, judge, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=COLLECTIONS, help="one of the three")
    parser.add_argument("--keep", metavar="DIR", help="work in DIR and leave it there")
    parser.add_argument("--files", nargs="*", default=list(SQLALCHEMY), help="of SQLAlchemy")
    parser.add_argument("--apps", nargs="*", default=DJANGO, help="of Django")
    parser.add_argument("--scripts", nargs="*", default=[], help="of PostgreSQL")
    parser.add_argument("--volatile-cast", action="store_true", help="add one to PostgreSQL's")
    known = parser.parse_args()
    worst = 0
    with tempfile.TemporaryDirectory(prefix="pg-router-oracle-") as scratch:
        work = Path(known.keep or scratch)
        work.mkdir(parents=True, exist_ok=True)
        for suite in (known.only,) if known.only else COLLECTIONS:
            if suite == "postgresql":
                with Cluster(1, settings=postgresql.SETTINGS) as cluster:
                    done = postgresql.run(
                        work, cluster, volatile_cast=known.volatile_cast, only=known.scripts
                    )
                worst = max(worst, postgresql.report(done, work))
                continue
            target = work / f"{suite}.jsonl"
            target.unlink(missing_ok=True)
            with Cluster(1, password="recorded") as cluster:
                standby = cluster.replicas[0]
                os.environ["PG_ROUTER_RECORD"] = str(target)
                os.environ["PG_ROUTER_STANDBY"] = f"{standby.host}:{standby.port}"
                if suite == "sqlalchemy":
                    sqlalchemy(work, cluster, known.files)
                else:
                    django(work, cluster, known.apps)
            worst = max(worst, rates(suite, target))
    return worst


def sqlalchemy(work: Path, cluster: Cluster, files: list[str]) -> None:
    """Run SQLAlchemy's suite, recorded."""
    root = fetch("sqlalchemy", work)
    sqlalchemy_suite.prepare(cluster.primary)
    plugin = ["-p", "tests.oracle.recorder"]
    found = sqlalchemy_suite.run(root, work, "recorded", cluster, files, plugin)
    print(f"{len(found)} tests of SQLAlchemy {version('sqlalchemy')} were run")


def django(work: Path, cluster: Cluster, apps: list[str]) -> None:
    """Run Django's test apps, recorded."""
    root = fetch("django", work)
    (work / "recorded_settings.py").write_text(
        SETTINGS.format(host=cluster.primary.host, port=cluster.primary.port)
    )
    # Named by a model; the embedded servers are built without ICU.
    cluster.primary.execute('CREATE COLLATION "sv-x-icu" FROM "C"', dbname="template1")
    for name in ("default", "other"):
        cluster.primary.execute(f'CREATE DATABASE "{name}"')
    script = (
        "import runpy, sys; from tests.oracle import recorder; recorder.install(); "
        "sys.modules.pop('tests'); runpy.run_path('runtests.py', run_name='__main__')"
    )
    command = [sys.executable, "-W", "ignore", "-c", script, "--parallel=1", "--noinput"]
    command += ["--settings=recorded_settings", *apps]
    paths = [str(work), str(Path.cwd())]
    log = work / "django.log"
    print(f"running Django's tests; their output goes to {log}", flush=True)
    with log.open("w") as output:
        subprocess.run(
            command,
            cwd=root / "tests",
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT,
            check=False,
        )
    print(f"Django {version('django')}: {log.read_text().strip().splitlines()[-1]}")


def rates(suite: str, target: Path) -> int:
    """Print the three rates of one suite; 1 if any is not as it must be."""
    lines: list[dict[str, Any]] = [json.loads(line) for line in target.read_text().splitlines()]
    refused = [line for line in lines if line["refused"]]
    elsewhere = [line for line in lines if not line["refused"] and line["elsewhere"]]
    harmless = [line for line in lines if not line["refused"] and not line["elsewhere"]]
    loud = [line for line in refused if line["kind"] == "READ"]
    silent = [line for line in elsewhere if line["kind"] == "READ"]
    kept = [line for line in harmless if line["kind"] == "WRITE"]
    share = 1 - len(kept) / max(1, len(harmless))
    local = sum(line["local"] for line in harmless)
    print(
        f"\n{suite}: {len(lines):,} distinct statements judged\n"
        f"  refused by the standby: {len(refused):,}, called a read: {len(loud)}\n"
        f"  accepted with an effect elsewhere: {len(elsewhere):,}, called a read: {len(silent)}\n"
        f"  accepted harmlessly: {len(harmless):,}, free to leave the primary: {share:.2%}\n"
        f"  of these the primary answers because the answer is the server's own: {local:,}"
    )
    for title, wrong in (("LOUD", loud), ("SILENT", silent), ("KEPT", kept)):
        for line in wrong[:40]:
            print(f"  {title} [{line['reason']}] {' '.join(line['text'].split())[:200]}")
    return int(bool(loud or silent) or share < 0.97)


if __name__ == "__main__":
    sys.exit(main())
