"""DNS names that move: addresses to lead to, and processes with host names of their own."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import sqlalchemy as sa

from router.testing import Proxy, Server
from router.testing.ports import free_port
from tests.servers import missing

ROOT = Path(__file__).parents[2]


class Address(Proxy):
    """The address of one server: `host`, of 127.0.0.0/8, and a port that all addresses share, as
    those of a managed service share 5432. It leads to all of `servers` by turns."""

    def __init__(self, host: str, port: int, *servers: Server) -> None:
        super().__init__(servers[0].host, servers[0].port)
        self.host = host
        self.port = port
        self._servers = servers

    def _accept(self, listener: object) -> None:
        server = self._servers[self.connections % len(self._servers)]
        self.lead_to(server.host, server.port)
        super()._accept(listener)  # type: ignore[arg-type]


class Names:
    """A file of host names that the resolver of one process reads in place of /etc/hosts."""

    def __init__(self, home: Path) -> None:
        self.file = home / "hosts"
        self._moved: dict[str, str] = {}

    def lead(self, name: str, address: str) -> None:
        """Let `name` stand for `address` from now on."""
        self._moved[name] = address
        lines = ["127.0.0.1 localhost", *(f"{a} {n}" for n, a in self._moved.items())]
        # In place, for the process has this very file mounted.
        self.file.write_text("\n".join(lines) + "\n")

    @contextmanager
    def process(self, module: str, *args: str) -> Iterator["subprocess.Popen[str]"]:
        """``python -m module``, for which the names hold; ended with the block."""
        mounted = 'mount --bind "$0" /etc/hosts && exec "$@"'
        command = [*namespace(), "sh", "-c", mounted, str(self.file), sys.executable, "-m", module]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen([*command, *args], cwd=ROOT, text=True, **pipes) as process:
            try:
                yield process
            finally:
                process.kill()


class Place(Protocol):
    """Where somebody listens."""

    @property
    def host(self) -> str: ...

    @property
    def port(self) -> int: ...


class Endpoint:
    """Another place than a server's own that leads to it, as `tests.failover.kit.doors` asks."""

    def __init__(self, place: Place, server: Server) -> None:
        self.host, self.port = place.host, place.port
        self._server = server

    def url(self, dbname: str = "postgres", driver: str | None = None) -> str:
        """The URL of `dbname` there, for SQLAlchemy's `driver`."""
        url = sa.make_url(self._server.url(dbname, driver))
        return url.set(host=self.host, port=self.port).render_as_string(False)


class Endpoints(NamedTuple):
    """The places of a cluster, where they are not the servers' own."""

    primary: Endpoint | Server
    replicas: list[Endpoint]


@contextmanager
def names() -> Iterator[Names]:
    """Host names of the test's own, forgotten after the block."""
    home = Path(tempfile.mkdtemp(prefix="names-"))
    try:
        yield Names(home)
    finally:
        shutil.rmtree(home)


def namespace() -> Sequence[str]:
    """The command that runs another with mounts of its own. Where the kernel lets nobody have
    them the test is skipped; in CI it fails."""
    command = ["unshare", "--mount", *(["--map-root-user"] * (os.geteuid() != 0))]
    if not shutil.which("unshare") or subprocess.run([*command, "true"], check=False).returncode:
        missing("this system lets no process have mounts of its own: run it as root")
    return command


__all__ = ["Address", "Endpoint", "Endpoints", "Names", "free_port", "names"]
