"""Fetches the sources of an installed package, which hold the tests its wheel leaves out."""

import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path


def fetch(package: str, work: Path) -> Path:
    """The unpacked sdist of the installed `package` below `work`; nothing of it is kept here."""
    wanted = version(package)
    root = work / f"{package}-{wanted}"
    if not root.exists():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--no-binary", package, "--dest", str(work), f"{package}=={wanted}"]
        subprocess.run(command, check=True)
        (archive,) = work.glob(f"{package}-{wanted}.tar.gz")
        with tarfile.open(archive) as packed:
            packed.extractall(work, filter="data")
    return root
