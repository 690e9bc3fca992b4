"""The private directory of one cluster: locked while its owner lives, swept after that."""

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from router.testing import processes
from router.testing.programs import Account, temporary_root

_PREFIX = "pg-router-test-"
_LOCK = "owner"
_ABANDONED = 3600.0  # seconds after which a directory without a lock file is nobody's


class Home:
    """A fresh directory that disappears, with every server in it, when its owner dies.

    The owner holds an flock, not a process id: ids of another container mean nothing here,
    while the lock of a living owner is seen through a shared /tmp.
    """

    def __init__(self, who: Account) -> None:
        root = temporary_root(who)
        sweep(root)
        self._lock: int | None = None
        while self._lock is None:
            self.path: Path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
            # The servers' account must pass through; only their own directories are theirs.
            self.path.chmod(0o711)
            # None: a sweeper was faster than we between open and lock, and removes the directory.
            self._lock = _take(self.path, create=True)
        self._watchdog: subprocess.Popen[bytes] | None = None
        if sys.executable:
            self._watchdog = subprocess.Popen(
                [sys.executable, "-I", "-S", processes.__file__, str(self.path), str(os.getpid())],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # out of reach of the terminal's Ctrl-C and hang-up
            )

    def remove(self) -> None:
        """End all servers, remove the directory, dismiss the watchdog. May be called again."""
        processes.end(self.path)
        if self._watchdog is not None:
            self._watchdog.kill()
            self._watchdog.wait()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def sweep(root: Path) -> None:
    """Remove what dead owners left in `root`: their watchdog was killed with them."""
    for directory in root.glob(f"{_PREFIX}????????"):
        try:
            status = directory.lstat()
            if status.st_uid != os.geteuid() or not directory.is_dir() or directory.is_symlink():
                continue
            if not (directory / _LOCK).exists():
                if time.time() - status.st_mtime > _ABANDONED:
                    shutil.rmtree(directory, ignore_errors=True)
                continue
            lock = _take(directory, create=False)
        except OSError:  # another sweeper's, or its owner is just closing it
            continue
        if lock is not None:
            processes.end(directory)
            os.close(lock)


def _take(directory: Path, *, create: bool) -> int | None:
    fd = os.open(directory / _LOCK, os.O_RDWR | (os.O_CREAT if create else 0), 0o600)
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return fd
    os.close(fd)
    return None
