"""One PostgreSQL server of a test cluster."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from router.testing import processes
from router.testing.ports import HOST, free_port
from router.testing.programs import Account

if TYPE_CHECKING:
    import psycopg

    from router.testing.cluster import Cluster

USER = "postgres"
POLL = 0.005  # seconds between two looks at a server
_CONNECT_TIMEOUT = 5  # seconds
_STOP = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
_PAGE = 8192  # bytes of a WAL page
_SEGMENT = 16 << 20  # bytes of a WAL segment


class ServerFailed(RuntimeError):
    """A server did not start, stop or follow; the message ends with its own log."""


class Server:
    """A server of a Cluster, which makes it: its name stays, its role may change.

    `name` is "primary", "replica1" … after the role it began with; `upstream` is the server it
    replicates from, None for a primary. Every method that waits raises TimeoutError or
    ServerFailed when its time is over.
    """

    def __init__(
        self, cluster: "Cluster", name: str, home: Path, binaries: Path, who: Account
    ) -> None:
        self.name = name
        self.host = HOST
        self.port: int = free_port()
        self.upstream: Server | None = None
        self.data: Path = home / name
        self._cluster = cluster
        self._home = home
        self._binaries = binaries
        self._who = who
        self._log = home / f"{name}.log"
        # How its processes are recognised (processes.py), and its answers.
        self._title = f"{home.name}/{name}"
        self._process: subprocess.Popen[Any] | None = None
        self._frozen = False
        self._lag = 0.0

    def __repr__(self) -> str:
        role = f"replica of {self.upstream.name}" if self.upstream else "primary"
        state = "frozen" if self._frozen else "running" if self.running else "stopped"
        return f"<Server {self.name} {self.host}:{self.port} {role}, {state}, pid {self.pid}>"

    @property
    def pid(self) -> int | None:
        """The postmaster's process id while it runs."""
        return self._process.pid if self._process is not None and self.running else None

    @property
    def running(self) -> bool:
        """Whether the postmaster lives; a frozen one does."""
        return self._process is not None and self._process.poll() is None

    @property
    def frozen(self) -> bool:
        """Whether freeze() is in effect."""
        return self._frozen

    @property
    def lag(self) -> float:
        """The seconds given to set_lag()."""
        return self._lag

    def url(self, dbname: str = "postgres", driver: str | None = None) -> str:
        """postgresql://… of `dbname` or, with a `driver`, postgresql+driver://…; holds any
        password."""
        scheme = f"postgresql+{driver}" if driver else "postgresql"
        secret = self._cluster.password
        user = USER if secret is None else f"{USER}:{quote(secret, safe='')}"
        return f"{scheme}://{user}@{self.host}:{self.port}/{quote(dbname, safe='')}"

    def conninfo(self, dbname: str = "postgres") -> str:
        """The key=value form of libpq, of `dbname`; holds the password, if any."""
        parts = {"host": self.host, "port": str(self.port), "user": USER, "dbname": dbname}
        if self._cluster.password is not None:
            parts["password"] = self._cluster.password
        return " ".join(f"{key}={_quoted(value)}" for key, value in parts.items())

    def log(self, lines: int | None = None, since: int = 0) -> str:
        """What the server wrote, or its last `lines`, from byte `since` (see log_size) on."""
        try:
            text = self._log.read_bytes()[since:].decode(errors="replace")
        except FileNotFoundError:
            return ""
        return text if lines is None else "\n".join(text.splitlines()[-lines:])

    @property
    def log_size(self) -> int:
        """Bytes written to the log until now."""
        try:
            return self._log.stat().st_size
        except FileNotFoundError:
            return 0

    def execute(
        self,
        sql: str,
        params: Sequence[Any] | Mapping[str, Any] | None = None,
        dbname: str = "postgres",
    ) -> list[tuple[Any, ...]]:
        """Run `sql` with `params` in autocommit on a connection of its own to `dbname`; its rows,
        if any.

        Raises psycopg.Error; connecting takes at most 5 s.
        """
        with self._connect(dbname) as connection:
            cursor = connection.execute(sql.encode(), params)
            return cursor.fetchall() if cursor.description else []

    def _connect(self, dbname: str = "postgres") -> "psycopg.Connection[tuple[Any, ...]]":
        import psycopg

        return psycopg.connect(
            self.conninfo(dbname), autocommit=True, connect_timeout=_CONNECT_TIMEOUT
        )

    def is_in_recovery(self) -> bool:
        """Whether the server itself says that it is a standby."""
        return bool(self.execute("SELECT pg_is_in_recovery()")[0][0])

    def start(self, timeout: float = 30.0) -> None:
        """Start it, unless it runs, and wait `timeout` seconds at most until it answers a
        query."""
        if not self.running:
            self._launch()
        self._await_answer(timeout)

    def stop(self, mode: str = "fast", timeout: float = 30.0) -> None:
        """Shut it down in `timeout` seconds: by `mode` "fast", "smart" (waits for clients) or
        "immediate" (as in a crash).

        A primary's fast shutdown waits for replicas that are connected, so thaw frozen ones.
        """
        if mode not in _STOP:
            raise ValueError(f"mode={mode!r} is unknown: use one of {', '.join(_STOP)}")
        if self._process is None or not self.running:
            return
        self._process.send_signal(_STOP[mode])
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(
                f"{self.name} did not stop in {timeout:g} s: "
                'use mode="immediate", or thaw what it waits for'
            ) from None
        processes.gone(self._home, self.name, timeout)

    def kill(self) -> None:
        """SIGKILL the postmaster and its children, and wait until all are gone."""
        processes.kill(self._home, self.name)
        if self._process is not None:
            self._process.wait(10)
        processes.free_shared_memory(self.data)
        self._frozen = False

    def freeze(self) -> None:
        """SIGSTOP every process: connections are accepted by the kernel, nothing answers."""
        stopped: set[int] = set()
        # The postmaster first, then again until no child is new: one may be forked meanwhile.
        if self.pid is not None:
            processes.send({self.pid}, signal.SIGSTOP)
        while fresh := processes.of(self._home, self.name) - stopped:
            processes.send(fresh, signal.SIGSTOP)
            stopped |= fresh
        self._frozen = True

    def thaw(self) -> None:
        """Undo freeze()."""
        processes.send(processes.of(self._home, self.name), signal.SIGCONT)
        self._frozen = False

    def pause_replay(self, timeout: float = 10.0) -> None:
        """Stop replaying; WAL still arrives. Returns, in `timeout` seconds, when replay stands
        still."""
        self.execute("SELECT pg_wal_replay_pause()")
        paused = "SELECT pg_get_wal_replay_pause_state() = 'paused'"
        if self._cluster.version < 14:
            paused = "SELECT pg_is_wal_replay_paused()"  # asked for, at least
        self._until(paused, timeout, "did not pause its replay")

    def resume_replay(self) -> None:
        """Undo pause_replay(); harmless when nothing is paused."""
        if self.is_in_recovery():
            self.execute("SELECT pg_wal_replay_resume()")

    def set_lag(self, seconds: float) -> None:
        """Replay each commit `seconds` after the primary made it; 0 ends that."""
        self._lag = seconds
        self.configure()
        self._until(
            "SELECT setting::float8 = %s FROM pg_settings WHERE name = 'recovery_min_apply_delay'",
            10.0,
            "did not take recovery_min_apply_delay",
            [round(seconds * 1000)],
        )

    def promote(self, timeout: float = 30.0) -> None:
        """Make it a primary, and the cluster's; returns, in `timeout` seconds, when it accepts
        writes.

        The old primary is left as it is: kill it first, or Cluster.rejoin() it afterwards.
        """
        self.execute("SELECT pg_promote(true, %s)", [max(1, round(timeout))])
        self._until("SELECT NOT pg_is_in_recovery()", timeout, "did not leave recovery")
        self.upstream = None
        self._cluster.promoted(self)

    def wait_caught_up(self, timeout: float = 10.0, lsn: int | None = None) -> None:
        """Wait, `timeout` seconds at most, until it has replayed what the primary has written by
        now (or up to `lsn`)."""
        if self.upstream is None:
            return
        target = self._cluster.primary.insert_lsn() if lsn is None else lsn
        self._until(
            "SELECT pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0') >= %s",
            timeout,
            f"has not replayed up to {target >> 32:X}/{target & 0xFFFFFFFF:X}",
            [target],
        )

    def insert_lsn(self) -> int:
        """Where the WAL ends on this primary, as a number of bytes, in reach of every replica."""
        with self._connect() as connection:
            row = connection.execute(
                "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0'),"
                " pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0')"
            ).fetchone()
            assert row is not None
            lsn = _end_of_record(int(row[0]))
            if lsn > row[1]:
                # Only flushed WAL is sent, and an open transaction's may stay unflushed.
                flush = "false, 'pg-router', '', true"
                if self._cluster.version < 17:
                    flush = "true, 'pg-router', ''"  # by the commit of its transaction
                connection.execute(f"SELECT pg_logical_emit_message({flush})".encode())
        return lsn

    def configure(self) -> None:
        """Write this server's own settings and have a running server read them."""
        settings = {
            "port": str(self.port),
            "cluster_name": self._title,
            "recovery_min_apply_delay": f"{round(self._lag * 1000)}ms",
        }
        if self.upstream is not None:
            upstream = self.upstream.conninfo()
            settings["primary_conninfo"] = f"{upstream} application_name={self.name}"
            settings["primary_slot_name"] = self.name
            self.write("standby.signal", "")
        self.write("server.conf", conf(settings))
        if self.pid is not None:
            processes.send({self.pid}, signal.SIGHUP)

    def write(self, name: str, text: str) -> None:
        """Make `text` the file `name` of the data directory, readable by the server's account
        only."""
        path = self.data / name
        fresh = path.with_name(name + ".new")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        self._who.own(fresh)
        fresh.replace(path)

    def launch(self) -> None:
        """Configure it and start it for the first time, without waiting."""
        self.configure()
        self._launch()

    def settle(self, timeout: float) -> None:
        """Wait `timeout` seconds until it answers; on another port when somebody took its own."""
        for _ in range(5):
            try:
                return self._await_answer(timeout)
            except ServerFailed:
                if self.running or "Address already in use" not in self.log(15):
                    raise
            self.port = free_port()
            self.launch()
        raise self.failure("found no free port")

    def reap(self) -> None:
        """Collect the exit status of a server that has been ended."""
        if self._process is not None:
            self._process.wait(10)

    def failure(self, what: str) -> ServerFailed:
        """The error to raise: `what` became of it, with the end of the log."""
        return ServerFailed(f"{self.name} {what}; its log ends:\n{self.log(15) or '(empty)'}")

    def _launch(self) -> None:
        # In a session of its own: the terminal's Ctrl-C is for the caller, who then closes.
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._binaries / "postgres"), "-D", str(self.data)],
                cwd=self._home,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self._who.options(),
            )

    def _await_answer(self, timeout: float) -> None:
        import psycopg

        deadline = time.monotonic() + timeout
        while True:
            if not self.running:
                raise self.failure("ended while it was starting")
            try:
                ((title,),) = self.execute("SHOW cluster_name")
            except psycopg.OperationalError:
                title = ""
            # Another server may have taken the port; ours then ends without it.
            if title == self._title:
                return
            if time.monotonic() > deadline:
                raise self.failure(f"did not answer in {timeout:g} s")
            time.sleep(POLL)

    def _until(
        self, sql: str, timeout: float, complaint: str, params: Sequence[Any] | None = None
    ) -> None:
        """Ask until the answer is true, over as few connections as the server allows."""
        import psycopg

        deadline = time.monotonic() + timeout
        last = ""
        while True:
            try:
                with self._connect() as connection:
                    while time.monotonic() < deadline:
                        row = connection.execute(sql.encode(), params).fetchone()
                        if row is not None and row[0] is True:
                            return
                        time.sleep(POLL)
            except psycopg.OperationalError as error:  # e.g. it is restarting
                last = f" ({type(error).__name__} on its port)"
            if not self.running:
                raise self.failure(f"{complaint}: it is not running")
            if time.monotonic() >= deadline:
                raise TimeoutError(f"{self.name} {complaint} in {timeout:g} s{last}")
            time.sleep(POLL)


def conf(settings: Mapping[str, str]) -> str:
    """`settings` as the text of a configuration file."""
    return "".join(
        "{} = '{}'\n".format(name, value.replace("\\", "\\\\").replace("'", "''"))
        for name, value in settings.items()
    )


def _quoted(value: str) -> str:
    return "'{}'".format(value.replace("\\", "\\\\").replace("'", "\\'"))


def _end_of_record(lsn: int) -> int:
    """At a page boundary the insert position lies behind the header of a page still to come,
    which no replica reaches before the next record (xlog.c: XLogBytePosToRecPtr against
    XLogBytePosToEndRecPtr)."""
    header = 40 if lsn % _SEGMENT < _PAGE else 24
    return lsn - header if lsn % _PAGE == header else lsn
