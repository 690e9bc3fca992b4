"""What the tests of failover managers share: their processes, and clients at work meanwhile."""

import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count, pairwise
from pathlib import Path
from typing import Any, Self, TypeVar

import psycopg
import sqlalchemy as sa

import router
from router.errors import RouterError
from router.sqlalchemy import RoutedEngine
from router.testing import processes, programs
from router.testing.ports import HOST
from tests.failover import kit
from tests.servers import end_group, home

WRITE = "INSERT INTO item (name) VALUES (:name) RETURNING inet_server_port()"
TABLE = "CREATE TABLE item (id serial PRIMARY KEY, name text NOT NULL)"
TRIED = re.compile(r"INSERT INTO item .*\n.*\$1 = '([^']*)'")
S = TypeVar("S", bound="Server")
PACE = 0.005  # seconds between two statements of a client
SERVER = {
    "dynamic_shared_memory_type": "mmap",
    "fsync": "off",
    "log_statement": "mod",  # a test asks the log where a write was tried
    "max_connections": "100",
    "max_wal_size": "256MB",
    "min_wal_size": "32MB",
    "shared_buffers": "32MB",
    "unix_socket_directories": "",
}
"""Settings for servers that a manager starts."""


@dataclass
class Stage:
    """A directory for servers and their managers, which run as the account that PostgreSQL may run
    under."""

    home: Path
    who: programs.Account
    stack: ExitStack

    def directory(self, name: str) -> Path:
        """A new private one of the account."""
        path = self.home / name
        path.mkdir(mode=0o700)
        self.who.own(path)
        return path

    def start(self, name: str, *command: object, **env: str) -> "subprocess.Popen[bytes]":
        """Start `command`, whose output goes to the log called `name`; ended with the stage."""
        options = self._options(env)
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                self._command(*command), stdout=log, stderr=log, start_new_session=True, **options
            )
        self.stack.callback(end_group, process)
        return process

    def run(self, *command: object, **env: str) -> str:
        """Run `command` to its end; what it said."""
        done = subprocess.run(
            self._command(*command),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
            **self._options(env),
        )
        assert not done.returncode, f"{command}: {done.stdout}"
        return str(done.stdout)

    def log(self, name: str) -> Path:
        return self.home / f"{name}.log"

    def _options(self, env: dict[str, str]) -> dict[str, Any]:
        options = self.who.options()
        # The account is taken by setpriv, which leaves it a capability.
        return {
            "env": options["env"] | env, "stdin": subprocess.DEVNULL, "umask": 0o077,
            "cwd": self.home,
        }  # fmt: skip

    def _command(self, *command: object) -> list[str]:
        # Whoever kills the tests kills their managers, which would start their servers anew.
        prefix = ["setpriv", "--pdeathsig=KILL"]
        if self.who.uid is not None:
            prefix += [f"--reuid={self.who.uid}", f"--regid={self.who.gid}", "--clear-groups"]
            # The interpreter and the wheel may be in root's own directory.
            prefix += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
        # env: a capability counts only from the program on that setpriv starts.
        return [*prefix, "env", *map(str, command)]


@contextmanager
def set_up() -> Iterator[Stage]:
    """A stage whose processes and directories are gone after the block."""
    with home() as (path, who), ExitStack() as stack:
        yield Stage(path, who, stack)


@dataclass
class Server:
    """A PostgreSQL that a manager runs: the manager's process, and the server's directory."""

    name: str
    port: int
    data: Path
    log: Path
    manager: "subprocess.Popen[bytes] | None" = None

    def url(self, driver: str = "") -> str:
        return f"postgresql{driver}://postgres@{HOST}:{self.port}/postgres"

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url(), autocommit=True, connect_timeout=2) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def answers(self, sql: str) -> bool:
        """Whether `sql` is true there; not while it does not answer."""
        with suppress(psycopg.OperationalError):
            return self.execute(sql)[0][0] is True
        return False

    @property
    def leads(self) -> bool:
        return self.answers("SELECT NOT pg_is_in_recovery()")

    @property
    def streams(self) -> bool:
        return self.answers(
            "SELECT pg_is_in_recovery() AND EXISTS"
            " (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming')"
        )

    def kill(self) -> None:
        """SIGKILL the manager, the server and its children."""
        if self.manager is not None:
            end_group(self.manager)
        self._signal(signal.SIGKILL)
        until(lambda: not self._pids(), f"{self.name} is gone")
        processes.free_shared_memory(self.data)

    def freeze(self) -> None:
        """SIGSTOP all of them, as when a virtual machine is paused."""
        if self.manager is not None:
            self.manager.send_signal(signal.SIGSTOP)
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Undo freeze(): the server first, which is then without its manager for a moment."""
        processes.send(self._pids(), signal.SIGCONT)
        if self.manager is not None:
            self.manager.send_signal(signal.SIGCONT)

    def tried(self, since: int) -> set[str]:
        """What clients tried to write there, by its log from byte `since` on."""
        return set(TRIED.findall(self.log.read_bytes()[since:].decode(errors="replace")))

    def _signal(self, number: signal.Signals) -> None:
        # The postmaster first, then again until no child is new: one may be forked meanwhile.
        seen: set[int] = set()
        while fresh := self._pids() - seen:
            processes.send(fresh, number)
            seen |= fresh

    def _pids(self) -> set[int]:
        master = processes.postmaster(self.data)
        if master is None:
            return set()
        with suppress(OSError):
            state = Path(f"/proc/{master}/stat").read_text().rsplit(")", 1)[1].split()[0]
            if state != "Z":
                children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
                return {master, *map(int, children)}
        return set()


until = partial(kit.until, timeout=60.0)
"""Waits for what a manager does by itself, which takes its time."""


def successor(others: Sequence[S]) -> tuple[S, float]:
    """The one of `others` that is promoted, and when that was seen."""
    when = until(lambda: any(server.leads for server in others), "another is promoted")
    return next(server for server in others if server.leads), when


def follows(engine: RoutedEngine, server: Server) -> bool:
    """Whether `server` is the primary to the router."""
    primary = engine.router.primary
    return primary is not None and primary.port == server.port


def serving(engine: RoutedEngine) -> set[int]:
    """The ports of the servers that serve some reads."""
    ports = set()
    for _ in range(20):
        with engine.connect() as connection:
            ports.add(connection.scalar(sa.text(kit.PORT)))
    return ports


def reads_on(engine: RoutedEngine, server: Server) -> bool:
    """Whether some reads are served there."""
    return server.port in serving(engine)


@contextmanager
def routed(
    leader: Server, *others: Server, first: Server, **options: Any
) -> Iterator[RoutedEngine]:
    """An engine whose URL names `first`, in use: it writes on `leader` and reads on `others`."""
    engine = router.create_engine(first.url("+psycopg"), blacklist_duration=1, **options)
    try:
        engine.router.start()
        until(lambda: follows(engine, leader), "the leader is followed")
        wanted = {other.port for other in others}
        until(lambda: serving(engine) == wanted, "the others serve reads")
        yield engine
    finally:
        engine.dispose()


@dataclass(frozen=True)
class Acknowledged:
    at: float
    port: int


@dataclass
class Load:
    """Threads that read and write through a routed engine until the block ends; one of two writers
    does so in transactions, the other in autocommit.

    Attributes:
        acknowledged: by what they wrote: when, and on which server.
        refused: when a write failed, and how.
        begun: when each write was begun.
        failed: the reads that failed.
        served: how many reads each server answered, by its port.
    """

    engine: RoutedEngine
    name: str = "w"
    acknowledged: dict[str, Acknowledged] = field(default_factory=dict)
    refused: list[tuple[float, Exception]] = field(default_factory=list)
    begun: dict[str, float] = field(default_factory=dict)
    failed: list[Exception] = field(default_factory=list)
    served: dict[int, int] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self._over = threading.Event()
        work: list[Callable[[], None]] = [partial(self._write, "autocommit")]
        work += [partial(self._write, "READ COMMITTED"), self._read, self._read]
        self._threads = [threading.Thread(target=each, daemon=True) for each in work]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in self._threads)

    def first(self, server: Server) -> float | None:
        """When `server` first acknowledged a write, if it did."""
        found = list(self.acknowledged.values())
        return min((a.at for a in found if a.port == server.port), default=None)

    def late(self, since: float) -> set[int]:
        """The ports of the servers that acknowledged writes after the moment `since`."""
        return {a.port for a in self.acknowledged.values() if a.at > since}

    def judge(self) -> None:
        """No read failed; and a write that did told what SQLAlchemy's users expect."""
        assert self.failed == []
        for _, error in self.refused:
            assert isinstance(error, (sa.exc.DBAPIError, RouterError)), error

    def judge_move(self, new: Server, since: float) -> None:
        """As `judge`; and writes acknowledged after `since` were so by `new`, which has them."""
        self.judge()
        assert self.late(since) == {new.port}
        assert self.missing(new, since) == set()

    def pause(self) -> float:
        """The longest time in which no write was acknowledged, in seconds."""
        times = sorted(a.at for a in self.acknowledged.values())
        return max(b - a for a, b in pairwise(times))

    def missing(self, server: Server, since: float = 0.0) -> set[str]:
        """What was acknowledged after `since` and is not on `server`."""
        there = {name for (name,) in server.execute("SELECT name FROM item")}
        return {name for name, a in self.acknowledged.items() if a.at > since} - there

    def _write(self, isolation: str) -> None:
        engine = self.engine.execution_options(isolation_level=isolation.upper())
        for number in count():
            if self._over.wait(PACE):
                return
            name = f"{self.name} {isolation} {number}"
            self.begun[name] = time.monotonic()
            try:
                with router.request_context(), engine.begin() as connection:
                    port = connection.execute(sa.text(WRITE), {"name": name}).scalar_one()
            except Exception as error:
                self.refused.append((time.monotonic(), error))
            else:
                self.acknowledged[name] = Acknowledged(time.monotonic(), port)

    def _read(self) -> None:
        while not self._over.wait(PACE):
            try:
                with router.request_context(), self.engine.connect() as connection:
                    port = connection.execute(sa.text(kit.PORT)).scalar_one()
                    self.served[port] = self.served.get(port, 0) + 1
            except Exception as error:
                self.failed.append(error)
