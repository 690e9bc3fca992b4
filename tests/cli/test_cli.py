"""The command line as a shell sees it: output, exit status, and nothing left behind."""

import os
import pty
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from router.cli.app import app
from router.cli.workload import Ledger
from router.testing import Cluster

COMMAND = (sys.executable, "-m", "router.cli")


def run(*arguments: str, **options: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"NO_COLOR": "1"} | options
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
        env=environment,
    )


def test_a_plain_demo_succeeds_and_says_so() -> None:
    """A short demo ends with status 0, a summary without failures, and every act played."""
    done = run("demo", "--plain", "--seconds", "8", "--threads", "3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 failed" in done.stdout
    assert "0 lost, 0 stored twice" in done.stdout
    assert "0 missed an own write" in done.stdout
    assert "replica1 is killed" in done.stdout
    assert "replica1 blacklisted" in done.stdout
    assert "primary is now replica2" in done.stdout
    assert "no time was left" not in done.stdout
    assert done.stderr == ""


def test_the_live_demo_draws_on_a_terminal() -> None:
    """On a terminal the demo draws tables, and ends with status 0."""
    main, side = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "110", "LINES": "50"}
    command = [*COMMAND, "demo", "--seconds", "6", "--threads", "2", "--replicas", "1"]
    with subprocess.Popen(command, stdout=side, stderr=side, env=environment) as process:
        os.close(side)
        seen = _read_all(main)
        assert process.wait(60) == 0, seen[-2000:]
    os.close(main)
    assert "blacklisted" in seen
    assert "statements" in seen
    assert "No request failed" in seen


def _read_all(descriptor: int) -> str:
    seen = b""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if select.select([descriptor], [], [], 1.0)[0]:
            try:
                part = os.read(descriptor, 65536)
            except OSError:  # the other side is closed
                break
            if not part:
                break
            seen += part
    return seen.decode("utf-8", "replace")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing(number: signal.Signals) -> None:
    """Ctrl-C or SIGTERM in the middle ends with status 130; no directory and no server is left."""
    with tempfile.TemporaryDirectory() as home:
        Path(home).chmod(0o755)
        environment = os.environ | {"TMPDIR": home, "PYTHONUNBUFFERED": "1"}
        command = [*COMMAND, "demo", "--plain", "--seconds", "60"]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if "all is well" in line:
                    break
            process.send_signal(number)
            rest, _ = process.communicate(timeout=60)
        assert process.returncode == 130, rest
        assert "Traceback" not in rest
        left = [p.name for p in Path(home).iterdir() if "pg-router" in p.name and p.is_dir()]
        assert left == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("demo", "--seconds", "1"), "--seconds"),
        (("demo", "--replicas", "0"), "--replicas"),
        (("dmeo",), "dmeo"),
        (("explain",), "SQL"),
        (("explain", "SELECT 1", "--replica", "h"), "--url"),
    ],
)
def test_wrong_usage_is_status_2_and_names_the_mistake(
    arguments: tuple[str, ...], message: str
) -> None:
    """Wrong usage ends with status 2 and a message that names what was wrong."""
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_help_and_version_load_no_command() -> None:
    """--help lists every command and --version the version, without SQLAlchemy or rich."""
    code = (
        "import sys; sys.argv=['pg-router', sys.argv[1]]\n"
        "from router.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([m for m in ('sqlalchemy', 'rich', 'psycopg') if m in sys.modules])"
    )
    for option, word in (("--help", "explain"), ("--version", "0.")):
        done = subprocess.run(
            [sys.executable, "-c", code, option], capture_output=True, text=True, check=True
        )
        assert word in done.stdout
        assert done.stdout.endswith("[]\n")


def test_a_missing_package_is_named_with_its_cure() -> None:
    """Without click the command says which extra brings it, with status 2."""
    code = "import sys; sys.modules['click'] = None\nfrom router.cli import main\nmain()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "pip install 'pg-router[cli]'" in done.stderr


def test_explain_without_a_cluster() -> None:
    """``pg-router explain`` tells the intent without any server."""
    result = CliRunner().invoke(app, ["explain", "SELECT nextval('s')"])
    assert result.exit_code == 0
    assert result.output.startswith("intent:  write:")
    assert "nextval" in result.output


def test_explain_on_a_cluster(cluster: Cluster) -> None:
    """With the cluster's URLs it names the nodes and the rule."""
    arguments = ["explain", "SELECT 1", "--url", cluster.primary.url()]
    for replica in cluster.replicas:
        arguments += ["--replica", replica.url()]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "replica1" in result.output
    assert "because: a read" in result.output


def test_the_verdict_names_everything_that_went_wrong() -> None:
    """Failed requests, stale reads, lost and doubled writes, and no request at all are faults."""
    ledger = Ledger()
    assert ledger.verdict(0, 0) == ["no request was made"]
    ledger.requests["timeline"] = 3
    assert ledger.verdict(0, 0) == []
    ledger.failures.append("boom")
    ledger.stale.append("post 1")
    assert len(ledger.verdict(2, 1)) == 4
