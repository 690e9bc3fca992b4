"""Finds and ends the processes of a private directory; run as a script it is the watchdog.

A server's processes are known by their command lines: the postmaster names its data directory,
its children show ``cluster_name``, and both contain ``<private directory>/<server>``. That holds
where parentage does not (children of a killed postmaster) and where ``/proc/<pid>/cwd`` may not
be read (root in a container without CAP_SYS_PTRACE).

The watchdog waits for the death of the process that owns the directory, however it died, SIGKILL
included. PR_SET_PDEATHSIG would fire as soon as the *thread* that started the server ended, and
could not remove the directory. It runs with ``python -I -S``, hence the standard library only.
"""

import contextlib
import ctypes
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

_PROGRAMS = {b"postgres", b"initdb", b"pg_basebackup", b"cp"}
_POLL = 0.005  # seconds


def of(directory: Path, server: str | None = None) -> set[int]:
    """The process ids that work for `directory` (named below a parent unique to us), or for one
    server in it. Zombies do not count."""
    token = re.escape(directory.name.encode()) + b"/"
    if server is not None:
        token += re.escape(server.encode()) + rb"(?!\w)"
    wanted = re.compile(token)
    return {pid for pid, line in _command_lines() if _is_program(line) and wanted.search(line)}


def _is_program(line: bytes) -> bool:
    # Somebody's `tail -f <directory>/primary.log` is none of ours.
    program = re.split(rb"[\0 ]", line, maxsplit=1)[0]
    return program == b"postgres:" or program.rsplit(b"/", 1)[-1] in _PROGRAMS


def _command_lines() -> Iterator[tuple[int, bytes]]:
    if not Path("/proc/self/cmdline").exists():
        listing = subprocess.run(
            ["ps", "-A", "-ww", "-o", "pid=,command="], capture_output=True, check=True
        ).stdout
        for row in listing.splitlines():
            pid, _, line = row.strip().partition(b" ")
            yield int(pid), line.strip()
        return
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                yield int(entry.name), (entry / "cmdline").read_bytes()


def send(pids: set[int], number: signal.Signals) -> None:
    """Signal `number` to each of `pids` that still exists."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def postmaster(data: Path) -> int | None:
    """The process id in postmaster.pid of the directory `data`, if there is such a file."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int((data / "postmaster.pid").read_text().splitlines()[0])
    return None


def gone(directory: Path, server: str | None, timeout: float) -> bool:
    """Wait up to `timeout` seconds until `directory`, or one `server` in it, has no process;
    whether so."""
    deadline = time.monotonic() + timeout
    while of(directory, server):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL)
    return True


def kill(directory: Path, server: str | None = None, timeout: float = 10.0) -> None:
    """SIGKILL every process of a `server` in `directory`, or of all, until none is left.

    Raises TimeoutError after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while pids := of(directory, server):  # again: a postmaster forks until it is dead
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {sorted(pids)} of {directory} survive SIGKILL")
        send(pids, signal.SIGKILL)
        time.sleep(_POLL)


def end(directory: Path) -> None:
    """End every server of `directory` at once and remove it, with the shared memory it used."""
    if not directory.exists():
        return
    working = of(directory)
    masters = {pid for data in directory.iterdir() if (pid := postmaster(data)) in working}
    # An immediate shutdown first: the server then frees its System V objects itself.
    send(masters, signal.SIGQUIT)
    send(working, signal.SIGCONT)
    gone(directory, None, 2.0)
    kill(directory)
    for data in directory.iterdir():
        free_shared_memory(data)
    for _ in range(5):  # a last file may appear while the tree is being removed
        shutil.rmtree(directory, ignore_errors=True)
        if not directory.exists():
            break


def free_shared_memory(data: Path) -> None:
    """Remove the System V segment that a killed server of `data` leaves in the kernel."""
    # Line 7 of a killed server's postmaster.pid: key and id.
    try:
        key, shmid = (data / "postmaster.pid").read_text().splitlines()[6].split()
        segments = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    except (OSError, IndexError, ValueError):
        return
    for fields in map(str.split, segments):
        # nattch 0 and the same key: the id was not given to someone else meanwhile.
        if (int(fields[0]) & 0xFFFFFFFF, fields[1], fields[6]) == (int(key), shmid, "0"):
            ctypes.CDLL(None).shmctl(int(shmid), 0, None)


def _await_death(parent: int) -> None:
    try:
        fd = os.pidfd_open(parent)
    except (AttributeError, OSError):
        while os.getppid() == parent:
            time.sleep(0.1)
        return
    if os.getppid() == parent:
        select.select([fd], [], [])


if __name__ == "__main__":
    _await_death(int(sys.argv[2]))
    end(Path(sys.argv[1]))
