"""SQLAlchemy's own test suite through a routed engine, beside the same on a plain one.

    python -m tests.suites.sqlalchemy_suite [FILE …] [--driver asyncpg] [--keep DIR] [-k WORDS]
        [PYTEST ARGUMENTS]

Fetches the sdist of the installed SQLAlchemy with pip, runs the files on a plain engine and then
on one with two live replicas, and lists every test that passes plainly and fails routed. Exits
with 1 if there is any. Nothing of the sdist is kept in the repository. With an asynchronous driver
the suite runs itself in greenlets over an event loop.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from router.testing import Cluster, Server
from tests.suites.sdist import fetch

FILES = (
    "test/dialect/test_suite.py",
    "test/engine/test_execute.py",
    "test/engine/test_transaction.py",
)
DATABASE = "test"
TIMEOUT = 1800  # seconds for one of the two runs

_EAGER = "expects every engine.connect() to open a connection; a routed one waits for a statement"
_RECORD = "asks the pool's private record to connect anew; a routed checkout's record cannot"
_LATE = "uses a DBAPI connection whose checkout was closed, which the router refuses"
_HANDLE = "expects the next checkout to be the same object, which a closed one's keeper could use"
_IDENTITY = "compares the facade with the driver's connection behind it, which is the one set up"
_MOCK = "puts a mock in place of the driver's connection, which a transaction then seems open on"
_GREENLET = "takes driver_connection outside a greenlet, which SQLAlchemy's own engine cannot give"
_BETTER = "expects an error that only comes in a transaction; the read runs in none and succeeds"

EXPLAINED = {
    "test_insert_connect_is_definitely_first[False-False]": _EAGER,
    "test_insert_connect_is_definitely_first[True-False]": _EAGER,
    "test_insert_connect_is_definitely_first[True-True]": _EAGER,
    "test_close_parameter[False]": _HANDLE,
    "test_alter_invalidate_pool_stays_true": _RECORD,
    "test_alter_invalidate_pool_to_false": _RECORD,
    "test_deferrable_flag_connection[False]": _LATE,
    "test_deferrable_flag_connection[True]": _LATE,
    "test_deferrable_flag_engine": _LATE,
    "test_readonly_flag_connection[False]": _LATE,
    "test_readonly_flag_connection[True]": _LATE,
    "test_readonly_flag_engine[False]": _LATE,
    "test_readonly_flag_engine[True]": _LATE,
    "test_asyncpg_transactional_ping[False]": _LATE,
    "test_asyncpg_transactional_ping[True]": _LATE,
    "test_codec_registration[setup_asyncpg_json_codec]": _IDENTITY,
    "test_codec_registration[setup_asyncpg_jsonb_codec]": _IDENTITY,
    "test_asyncpg_terminate_catch": _MOCK,
    "test_failed_begin_recover": _GREENLET,
    "test_detect_stale_ddl_cache_raise_recover": _BETTER,
}
"""Tests that differ for a reason a facade cannot remove, by name, each with the reason.

What they are after is asked of a routed engine in tests/sqlalchemy/test_suite_findings.py.
"""


def main() -> int:
    """Run both, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("files", nargs="*", default=list(FILES), help="files of the sdist")
    parser.add_argument("--driver", default="psycopg", help="psycopg_async, asyncpg, …")
    parser.add_argument("--keep", metavar="DIR", help="work in DIR and leave it there")
    parser.add_argument("--only", choices=("plain", "routed"), help="run one of the two")
    parser.add_argument("-k", metavar="WORDS", help="only tests with these words, as in pytest")
    known, rest = parser.parse_known_args()
    if known.k:
        rest += ["-k", known.k]
    with tempfile.TemporaryDirectory(prefix="pg-router-suite-") as scratch:
        work = Path(known.keep or scratch)
        work.mkdir(parents=True, exist_ok=True)
        suite = fetch("sqlalchemy", work)
        files = known.files or list(FILES)
        results = {}
        for kind in (known.only,) if known.only else ("plain", "routed"):
            # A password, for some tests take the URL apart and expect one.
            replicas = 2 if kind == "routed" else 0
            with Cluster(replicas=replicas, password="routed") as cluster:
                prepare(cluster.primary)
                results[kind] = run(suite, work, kind, cluster, files, rest, known.driver)
        return report(results, work)


def prepare(primary: Server) -> None:
    """The database and schemas README.unittests.rst asks for."""
    primary.execute(f"CREATE DATABASE {DATABASE}")
    for statement in (
        "CREATE SCHEMA test_schema",
        "CREATE SCHEMA test_schema_2",
        "CREATE EXTENSION IF NOT EXISTS hstore",
        "CREATE EXTENSION IF NOT EXISTS citext",
        f"ALTER DATABASE {DATABASE} SET default_text_search_config = 'pg_catalog.english'",
    ):
        primary.execute(statement, dbname=DATABASE)


def run(
    suite: Path,
    work: Path,
    kind: str,
    cluster: Cluster,
    files: list[str],
    rest: list[str],
    driver: str = "psycopg",
) -> dict[str, str]:
    """Run pytest on `files`; the outcome of each test by its id."""
    xml, counts = work / f"{kind}.xml", work / f"{kind}.json"
    counts.unlink(missing_ok=True)
    # -s: the sdist's conftest then leaves the installed, compiled SQLAlchemy alone.
    command = [sys.executable, "-s", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["-p", "no:timeout", "-p", "no:randomly", "-p", "suite_counts"]
    command += ["-o", "addopts=", "-p", "warnings", "-p", "logging", "--tb=short"]
    dburi = cluster.primary.url(DATABASE, driver=driver)
    command += [f"--junitxml={xml}", "--dburi", dburi, *files, *rest]
    here = Path(__file__).parent
    environment = os.environ | {
        "PYTHONPATH": f"{here}{os.pathsep}{here.parent.parent}",
        "PG_ROUTER_COUNTS": str(counts),
        "PG_ROUTER_PORT": str(cluster.primary.port),
        "PG_ROUTER_REPLICAS": ",".join(
            f"{r.host}:{r.port}" for r in cluster.replicas if kind == "routed"
        ),
    }
    cluster.wait_caught_up()
    log = work / f"{kind}.log"
    print(f"running on a {kind} engine; its output goes to {log}", flush=True)
    with log.open("w") as output:
        try:
            subprocess.run(
                command,
                cwd=suite,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            sys.exit(f"the {kind} run took more than {TIMEOUT} s:\n{log.read_text()[-3000:]}")
    if not xml.exists():
        sys.exit(f"pytest did not get far on the {kind} engine:\n{log.read_text()[-3000:]}")
    return outcomes(xml)


def outcomes(xml: Path) -> dict[str, str]:
    """The outcome (passed, failed, skipped) by test id."""
    found: dict[str, str] = {}
    for case in ElementTree.parse(xml).iter("testcase"):  # our own file
        name = f"{case.get('classname')}::{case.get('name')}"
        kinds = {child.tag for child in case}
        failed = kinds & {"failure", "error"}
        outcome = "failed" if failed else "skipped" if "skipped" in kinds else "passed"
        if found.get(name) != "failed":  # an error in teardown is a second entry
            found[name] = outcome
    return found


def report(results: dict[str, dict[str, str]], work: Path) -> int:
    """Print the comparison; 1 if something passes plainly and fails routed."""
    for kind, found in results.items():
        tally = {o: list(found.values()).count(o) for o in ("passed", "failed", "skipped")}
        print(f"{kind:>7}: {tally['passed']} passed, {tally['failed']} failed, "
              f"{tally['skipped']} skipped")  # fmt: skip
    counts = work / "routed.json"
    if counts.exists():
        served = json.loads(counts.read_text())
        total = sum(served.values()) or 1
        shares = ", ".join(f"{node} {n} ({n / total:.1%})" for node, n in sorted(served.items()))
        print(f" served: {shares}")
    if len(results) < 2:
        return 0
    plain, routed = results["plain"], results["routed"]
    worse = sorted(t for t, o in plain.items() if o == "passed" and routed.get(t) != "passed")
    unexplained = [test for test in worse if test.rpartition("::")[2] not in EXPLAINED]
    for test in worse:
        why = EXPLAINED.get(test.rpartition("::")[2], "NOT EXPLAINED")
        print(f"  differs: {test} ({routed.get(test, 'did not run')}): {why}")
    print(
        f"{len(worse)} pass on a plain engine and not through the router, "
        f"{len(unexplained)} of them without an explanation"
    )
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
