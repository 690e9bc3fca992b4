"""What .ci/run runs: each check and each session of tests, on past a red one; then once more,
alone, the tests that failed.

A test that passes the second time is told as flaky. Red (exit status 1) is whatever failed twice,
a linter, the types, the docs, a session that could not be installed or collected, and one that
its time bound ended. The last line counts: `N passed, N failed`.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parent.parent

MINUTES = 70  # for everything together; on two quiet cores it shall take 45 at most
AGAIN = 240.0  # seconds of them kept for what is run once more
CHECK = 600.0  # seconds for a linter, the types, the docs, and for installing a session
TESTS = 1800.0  # seconds for the tests of one session
GRACE = 30.0  # seconds for an interrupted pytest to say what has failed so far

BOTH_CORES = ("--numprocesses", "2", "--dist", "worksteal")
# What is marked slow is about load, what is marked once about neither load nor versions: both run
# on this Python alone.
ANY_VERSION = ("-m", "not slow and not once")
# Between the oldest and the newest Python: what the two say of the servers holds there too.
IN_THE_MIDDLE = ("-m", "not slow and not once and not cluster")


@dataclass(frozen=True, slots=True)
class Check:
    """A command that is green when it exits with 0."""

    name: str
    command: Sequence[str | Path]
    bound: float = CHECK  # seconds


@dataclass(frozen=True, slots=True)
class Session:
    """pytest, in an environment of its own."""

    name: str
    python: Path
    arguments: Sequence[str] = ()
    install: Sequence[str | Path] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    bound: float = TESTS  # seconds
    optional: bool = False  # left out where its interpreter is missing


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run of pytest ended."""

    status: int | None  # None: the time bound ended it
    seconds: float
    passed: int
    failed: list[str]  # node ids; of a file, where it could not be collected

    @property
    def why_red(self) -> str:
        """Why the run is red whatever a second one says; empty if that may save it."""
        if self.status is None:
            return _too_long(self.seconds)
        if broken := [name for name in self.failed if "::" not in name]:
            return f"could not be collected: {', '.join(broken)}"
        if self.status not in (0, 1) or (self.status and not self.failed):
            return f"pytest ended with exit status {self.status} and names no test for it"
        return ""


@dataclass
class Run:
    """One run of everything; time is in seconds of the monotonic clock."""

    deadline: float
    work: Path
    root: Path = ROOT
    passed: int = 0
    lines: list[str] = field(default_factory=list)
    flaky: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    _again: list[tuple[Session, list[str]]] = field(default_factory=list)

    def all(self, steps: Iterable[Check | Session]) -> int:
        """Run everything and say how it went; the exit status."""
        self.deadline -= AGAIN
        for step in steps:
            self._check(step) if isinstance(step, Check) else self._tests(step)
        self.deadline += AGAIN
        for session, names in self._again:
            self._once_more(session, names)
        self._say("in short")
        for line in self.lines:
            print(line)
        for line in self.flaky:
            print("flaky:", line)
        for line in self.failed:
            print("failed:", line)
        print(f"{self.passed} passed, {len(self.failed)} failed", flush=True)
        return 1 if self.failed else 0

    def _check(self, check: Check) -> None:
        self._say(check.name)
        status, seconds = self._execute(check.command, check.bound)
        self._note(check.name, seconds, "green" if status == 0 else "red")
        if status is None:
            self.failed.append(f"{check.name}: {_too_long(seconds)}")
        elif status:
            self.failed.append(f"{check.name}: exit status {status}")

    def _tests(self, session: Session) -> None:
        self._say(" ".join((session.name, *session.arguments)))
        if session.install:
            status, seconds = self._execute(session.install, CHECK)
            if status != 0:
                self._note(session.name, seconds, "red")
                self.failed.append(f"{session.name}: could not be installed")
                return
        if session.optional and not session.python.exists():
            self.lines.append(f"{session.name}: left out, its Python is not on this machine")
            return
        outcome = self._pytest(session, session.arguments, session.bound, self.work / session.name)
        self.passed += outcome.passed
        if why := outcome.why_red:
            self.failed.append(f"{session.name}: {why}")
        names = [name for name in outcome.failed if "::" in name]
        if names:
            self._again.append((session, names))
        said = f"{outcome.passed} passed, {len(names)} failed"
        self._note(session.name, outcome.seconds, f"{said}; {why}" if why else said)

    def _once_more(self, session: Session, names: list[str]) -> None:
        self._say(f"{session.name}: what failed, once more, alone")
        alone = ["-p", "no:xdist", *names]
        outcome = self._pytest(session, alone, AGAIN, self.work / f"{session.name}-again")
        again = [name for name in names if name in outcome.failed]
        # Each must be seen to pass: one that was skipped, or never reached, has not.
        if outcome.why_red or outcome.passed + len(again) != len(names):
            again = names
        self.passed += len(names) - len(again)
        self.failed += (f"{session.name} {name}" for name in again)
        self.flaky += (f"{session.name} {name}" for name in names if name not in again)

    def _pytest(
        self, session: Session, arguments: Sequence[str], bound: float, results: Path
    ) -> Outcome:
        cache, junit = results / "cache", results / "junit.xml"
        told = ("-o", f"cache_dir={cache}", f"--junitxml={junit}")
        command: list[str | Path] = [session.python, "-m", "pytest", *told, *arguments]
        status, seconds = self._execute(command, bound, session.environment)
        lastfailed = cache / "v" / "cache" / "lastfailed"
        failed = sorted(json.loads(lastfailed.read_text())) if lastfailed.exists() else []
        return Outcome(status, seconds, _passed(junit), failed)

    def _execute(
        self, command: Sequence[str | Path], bound: float, more: Mapping[str, str] = {}
    ) -> tuple[int | None, float]:
        """The exit status, None where the time bound ended it, and the seconds it took, with
        `more` in its environment."""
        began = time.monotonic()
        bound = min(bound, self.deadline - began)
        if bound <= 0:
            return None, 0.0
        # A group of its own, so that whatever a hanging command has started ends with it.
        process = subprocess.Popen(
            command,
            cwd=self.root,
            env={**os.environ, **more},
            stdin=subprocess.DEVNULL,
            process_group=0,
        )
        status: int | None = None
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = self._wait(process, bound)
        finally:
            if status is None:
                _end(process)
        return status, time.monotonic() - began

    def _wait(self, process: "subprocess.Popen[bytes]", bound: float) -> int:
        return process.wait(bound)

    def _say(self, what: str) -> None:
        print(f"\n== {what}", flush=True)

    def _note(self, name: str, seconds: float, said: str) -> None:
        self.lines.append(f"{name}: {seconds:.0f} s, {said}")


def _too_long(seconds: float) -> str:
    if not seconds:
        return "not run: no time was left for it"
    return f"ended after {seconds:.0f} s: it took longer than its time bound"


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Interrupt as Ctrl-C does, upon which pytest says what failed so far; then kill."""
    for signum, patience in ((signal.SIGINT, GRACE), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signum)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)


def _passed(junit: Path) -> int:
    """How many tests passed, of which a failing teardown is not one."""
    if not junit.exists():
        return 0
    bad = {"failure", "error", "skipped"}
    # A test that was interrupted stands there without its name.
    cases = [case for case in ElementTree.parse(junit).iter("testcase") if case.get("name")]
    return sum(bad.isdisjoint(child.tag for child in case) for case in cases)


def plan() -> list[Check | Session]:
    """What there is to run: the linters, the types, the docs, the tests on the oldest versions
    and on every Python found here, all tests on this Python, and on it those that depend on a
    server on others of its kind."""
    sys.path.insert(0, str(ROOT))
    import noxfile  # needs nox, which only .venv has

    nox = Path(sys.executable).with_name("nox")
    install = (nox, "--install-only", "--no-error-on-missing-interpreters", "--session")

    def tests(name: str, *arguments: str, optional: bool = False) -> Session:
        python = ROOT / ".nox" / name.replace(".", "-") / "bin" / "python"
        arguments = (*BOTH_CORES, *arguments)
        return Session(name, python, arguments, (*install, name), optional=optional)

    here = f"tests-{noxfile.HERE}"

    oldest = (*noxfile.ON_PACKAGES, *ANY_VERSION, "-k", noxfile.BOTH)

    def servers(name: str, environment: Mapping[str, str], chosen: Sequence[str]) -> Session:
        return replace(tests(here, *chosen), name=name, environment=environment)

    def other(version: str) -> Session:
        there = [v for v in noxfile.PYTHONS if shutil.which(f"python{v}")]
        ends = (noxfile.PYTHONS[0], *there[-1:])
        chosen = (*ANY_VERSION, "-k", noxfile.ON_TASKS) if version in ends else IN_THE_MIDDLE
        return tests(f"tests-{version}", *chosen, optional=True)

    return [
        *(Check(name, (nox, "--session", name)) for name in ("lint", "types", "docs")),
        tests("tests-sqlalchemy20", *oldest, optional=True),
        *map(other, noxfile.OTHER_PYTHONS),
        tests(here, "--durations", "15"),
        *(servers(name, *one) for name, one in noxfile.SERVERS.items()),
    ]


def main() -> int:
    """Parse the command line and run; the exit status."""
    parser = argparse.ArgumentParser(prog=".ci/run", description=(__doc__ or "").split("\n\n")[1])
    steps = {step.name: step for step in plan()}
    parser.add_argument(
        "sessions", nargs="*", metavar="SESSION", help=f"default all: {' '.join(steps)}"
    )
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for everything together")
    parser.add_argument("--spent", type=float, default=0, help="seconds of them spent already")
    options = parser.parse_args()
    if unknown := [name for name in options.sessions if name not in steps]:
        parser.error(f"no such session: {' '.join(unknown)}; there are {' '.join(steps)}")
    # A terminated run must end what it has started, as an interrupted one does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # Started in a shell's background we would ignore it, and so would the sessions we interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="ci-") as work:
        deadline = time.monotonic() + options.minutes * 60 - options.spent
        wanted = options.sessions or list(steps)
        return Run(deadline, Path(work)).all(steps[name] for name in wanted)


if __name__ == "__main__":
    sys.exit(main())
