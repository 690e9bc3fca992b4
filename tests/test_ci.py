"""What .ci/run says of a small tree: red, flaky and green, and that it always comes to an end."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scripts.ci import Check, Run, Session

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.once
TWO_CORES = ("-p", "xdist.plugin", "--numprocesses", "2")

ONCE = """
import pathlib, pytest

def test_passes():
    pass

@pytest.mark.parametrize("sql", ["SELECT 1::int", "a b[0]", "é"])
def test_fails_once(sql, tmp_path_factory):
    seen = pathlib.Path(__file__).with_name(f"seen {sql}")
    if not seen.exists():
        seen.touch()
        pytest.fail("the first time")
"""


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugins of this environment take seconds to load, and nothing here needs them."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)


def run(
    tmp_path: Path, *steps: Check | Session, seconds: float = 300, kind: type[Run] = Run
) -> int:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return kind(time.monotonic() + seconds, tmp_path / "work", root=tmp_path).all(steps)


def session(name: str, *arguments: str, bound: float = 60) -> Session:
    return Session(name, Path(sys.executable), (name, *arguments), bound=bound)


def tree(tmp_path: Path, **files: str) -> Path:
    for name, text in files.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / f"test_{name}.py").write_text(text)
    return tmp_path


def closing(out: str) -> list[str]:
    return out.partition("== in short\n")[2].splitlines()


def test_what_passes_the_second_time_is_flaky_and_green(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each test that failed on two cores and passes alone is named as flaky, and the run is
    green; the last line counts."""
    tree(tmp_path, once=ONCE)
    assert run(tmp_path, session("once", *TWO_CORES)) == 0
    *_, first, second, third, last = closing(capfd.readouterr().out)
    assert [first, second, third] == [
        r"flaky: once once/test_once.py::test_fails_once[SELECT 1::int]",
        r"flaky: once once/test_once.py::test_fails_once[\xe9]",
        r"flaky: once once/test_once.py::test_fails_once[a b[0]]",
    ]
    assert last == "4 passed, 0 failed"


def test_what_fails_twice_is_red_and_the_rest_is_run_all_the_same(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """After a red check and a red session the others are run; a test that fails twice, or does
    not pass the second time for another reason, is red beside a flaky one."""
    twice = "def test_twice():\n    assert 0\n"
    skips = ONCE.replace(
        "    if not", "    if seen.exists():\n        pytest.skip('')\n    if not"
    )
    teardown = (
        "import pytest\n\n@pytest.fixture\ndef broken():\n    yield\n    assert 0\n\n"
        "def test_teardown(broken):\n    pass\n"
    )
    tree(tmp_path, twice=twice + ONCE, skips=skips, teardown=teardown)
    status = run(
        tmp_path,
        Check("lint", ["false"]),
        *(session(name) for name in ("twice", "skips", "teardown")),
        Check("docs", ["true"]),
    )
    assert status == 1
    told = capfd.readouterr().out
    lines = closing(told)
    assert any(re.fullmatch(r"docs: \d+ s, green", line) for line in lines)
    assert len([line for line in lines if line.startswith("flaky: twice ")]) == 3
    failed = [line for line in lines if line.startswith("failed: ")]
    assert failed[0] == "failed: lint: exit status 1"
    assert failed[1] == "failed: twice twice/test_twice.py::test_twice"
    assert [line.partition("[")[0] for line in failed[2:5]] == [
        "failed: skips skips/test_skips.py::test_fails_once"
    ] * 3
    assert failed[5:] == ["failed: teardown teardown/test_teardown.py::test_teardown"]
    assert lines[-1] == "5 passed, 6 failed"


REPORTED = """
import os, pathlib

def pytest_runtest_logreport(report):
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        with pathlib.Path("reported").open("a") as file:
            print(report.nodeid, file=file)
"""

HANGS = """
def test_hangs():
    import subprocess
    script = "trap : INT; echo $$ >written; mv written sleeper; sleep 1000; sleep 1000"
    subprocess.run(["sh", "-c", script])
"""


class EndsWhatHangs(Run):
    """Its time bound is over once one test hangs and three have failed."""

    def _wait(self, process: "subprocess.Popen[bytes]", bound: float) -> int:
        sleeper, reported = (self.root / name for name in ("sleeper", "reported"))
        while process.poll() is None:
            if sleeper.exists() and reported.exists() and reported.read_text().count("\n") == 3:
                reported.unlink()
                raise subprocess.TimeoutExpired(process.args, bound)
            time.sleep(0.02)
        return process.returncode


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_what_hangs_is_ended_and_red(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A session that goes on beyond its bound is ended, with what it started, and said to be
    red; what had failed by then is run again."""
    tree(tmp_path, hangs=ONCE + HANGS)
    (tmp_path / "conftest.py").write_text(REPORTED)
    assert run(tmp_path, session("hangs", *TWO_CORES), kind=EndsWhatHangs) == 1
    lines = closing(capfd.readouterr().out)
    red = r"failed: hangs: ended after \d+ s: it took longer than its time bound"
    assert re.fullmatch(red, lines[-2])
    assert lines[-1] == "4 passed, 1 failed"
    assert len([line for line in lines if line.startswith("flaky: hangs ")]) == 3
    deadline = time.monotonic() + 20
    while not ended(int((tmp_path / "sleeper").read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_check_that_hangs_is_ended_and_what_follows_is_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A check is red at its time bound, and the next begins."""
    steps = (Check("types", ["sleep", "1000"], bound=0.1), Check("docs", ["true"]))
    assert run(tmp_path, *steps) == 1
    lines = closing(capfd.readouterr().out)
    assert lines[1] == "docs: 0 s, green"
    assert lines[2] == "failed: types: ended after 0 s: it took longer than its time bound"
    assert lines[3:] == ["0 passed, 1 failed"]


@pytest.mark.parametrize(
    ("text", "cores", "said"),
    [
        ("import no_such_module\n", (), "could not be collected: broken/test_broken.py"),
        ("import no_such_module\n", TWO_CORES, "could not be collected: broken/test_broken.py"),
        ("", (), "pytest ended with exit status 5 and names no test for it"),
        (
            "import os\nos._exit(7)\n",
            (),
            "pytest ended with exit status 7 and names no test for it",
        ),
    ],
    ids=["import error", "import error on two cores", "no test", "gone"],
)
def test_a_session_that_pytest_could_not_run_is_red(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    text: str,
    cores: tuple[str, ...],
    said: str,
) -> None:
    """What cannot be collected, has no tests, or takes pytest down with it is red and says so."""
    tree(tmp_path, broken=text)
    assert run(tmp_path, session("broken", *cores)) == 1
    *_, failed, last = closing(capfd.readouterr().out)
    assert re.fullmatch(f"failed: broken: {said}", failed)
    assert last == "0 passed, 1 failed"


def test_nothing_begins_when_no_time_is_left(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Once the time for everything is over the rest is red, unrun."""
    tree(tmp_path, good="def test_good():\n    pass\n")
    assert run(tmp_path, session("good"), Check("lint", ["true"]), seconds=1) == 1
    assert closing(capfd.readouterr().out)[-3:] == [
        "failed: good: not run: no time was left for it",
        "failed: lint: not run: no time was left for it",
        "0 passed, 2 failed",
    ]


def test_a_session_that_cannot_be_installed_is_red_and_one_without_its_python_is_left_out(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Only where its interpreter is missing may a session be left out, and it is told."""
    nowhere = tmp_path / "nowhere"
    steps = [
        Session("broken", Path(sys.executable), install=["false"], optional=True),
        Session("old", nowhere, install=["true"], optional=True),
    ]
    assert run(tmp_path, *steps) == 1
    lines = closing(capfd.readouterr().out)
    assert "old: left out, its Python is not on this machine" in lines
    assert lines[-2:] == ["failed: broken: could not be installed", "0 passed, 1 failed"]


@pytest.mark.parametrize(
    "script", [".ci/run", "scripts/debian-programs", "scripts/install-servers"]
)
def test_scripts_are_clean(script: str) -> None:
    """The scripts that CI starts with are such that shellcheck finds nothing in them."""
    command = (Path(sys.executable).with_name("shellcheck"), "--severity=style", ROOT / script)
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
