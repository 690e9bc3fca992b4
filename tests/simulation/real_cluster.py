"""A real cluster to hold the model to, and what has to be awaited there before it can be compared.

Nothing here waits for a length of time: each wait is for something that the server tells.
"""

import os
import signal
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Self

import psycopg

from router.testing import Cluster, Server
from tests.simulation.postgres import SCHEMA

DATABASE = "app"
USER = "app"
ADMIN = "postgres"
WATCHER = "watcher"
"""A role that may not see the WAL receivers."""
MAX_CONNECTIONS = 16
PATIENCE = 30.0
"""Seconds that anything may take which has to happen."""
_POLL = 0.001

_SETTINGS = {
    "max_connections": str(MAX_CONNECTIONS),
    "autovacuum": "off",
    "bgwriter_delay": "10s",
    "bgwriter_lru_maxpages": "0",
    "checkpoint_timeout": "1h",
    # The WAL writer sleeps when it is stopped, and holds no lock then.
    "wal_writer_delay": "10s",
    "max_standby_streaming_delay": "0",
    "max_standby_archive_delay": "0",
    # Whoever waits longer has looked for a deadlock, and says so in the log: of two, the one that
    # closes the circle finds it.
    "deadlock_timeout": "10ms",
    "log_lock_waits": "on",
}


class Late(AssertionError):
    """What had to happen on the real servers did not."""


class Answer(NamedTuple):
    """What a statement gave, in the model or on a real server; `status` is that of the session's
    transaction then."""

    rows: list[tuple[Any, ...]]
    rowcount: int
    tag: str
    sqlstate: str
    text: str
    ended: bool
    status: str


class RealSession:
    """A connection with a thread of its own, where its statements may wait for locks."""

    def __init__(self, server: Server, user: str, settings: Mapping[str, str]) -> None:
        options = " ".join(f"-c {n}={_escaped(v)}" for n, v in settings.items())
        self.connection = psycopg.connect(
            server.conninfo(DATABASE), user=user, options=options, autocommit=True
        )
        self.pid = self.connection.info.backend_pid
        self._farewell = ("", "")  # SQLSTATE and text of a FATAL that came as a notice
        self.connection.add_notice_handler(self._hear)
        self._thread: ThreadPoolExecutor | None = None

    def submit(self, text: str, params: Mapping[str, Any] | None) -> "Future[Answer]":
        """Run a statement in the background."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1)
        return self._thread.submit(self.run, text, params)

    def run(self, text: str, params: Mapping[str, Any] | None) -> Answer:
        """Run a statement."""
        connection = self.connection
        try:
            cursor = connection.execute(text.encode(), params, prepare=False)
            rows = cursor.fetchall() if cursor.description else []
        except psycopg.Error as error:
            state, told = error.sqlstate or "", error.diag.message_primary or ""
            if not state:
                (state, told), self._farewell = self._farewell, ("", "")
            return Answer([], 0, "", state, told, connection.closed, self.status)
        tag = cursor.statusmessage or ""
        return Answer(rows, cursor.rowcount, tag, "", "", False, self.status)

    def _hear(self, notice: psycopg.errors.Diagnostic) -> None:
        # One that arrives right behind the answer before is a notice to libpq, and the next
        # statement's error has no SQLSTATE.
        if notice.severity_nonlocalized == "FATAL":
            self._farewell = (notice.sqlstate or "", notice.message_primary or "")

    @property
    def status(self) -> str:
        """Of its transaction, in libpq's words."""
        return self.connection.info.transaction_status.name

    def close(self) -> None:
        """Close it; nothing may be under way."""
        self.connection.close()
        if self._thread is not None:
            self._thread.shutdown()


class State(NamedTuple):
    """What a standby tells of its replication; positions in bytes, `port` of its upstream."""

    received: int
    replayed: int
    streaming: bool
    timeline: int
    port: int


class RealCluster:
    """A primary and two standbys where nothing is flushed, written or tidied up unasked."""

    def __init__(self, make: Callable[..., Cluster] = Cluster) -> None:
        self.cluster = make(2, settings=_SETTINGS)
        self._admins: dict[str, psycopg.Connection[Any]] = {}
        self._stopped: dict[str, int] = {}

    def __enter__(self) -> Self:
        self.cluster.start()
        primary = self.cluster.primary
        primary.execute(f"CREATE ROLE {USER} LOGIN; CREATE ROLE {WATCHER}")
        primary.execute(f"CREATE DATABASE {DATABASE}")
        primary.execute(SCHEMA, dbname=DATABASE)
        for kind in ("TABLES", "SEQUENCES"):
            primary.execute(f"GRANT ALL ON ALL {kind} IN SCHEMA public TO {USER}", dbname=DATABASE)
        self.cluster.wait_caught_up()
        self.still(primary)
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._admins.values():
            connection.close()
        self.cluster.close()

    @property
    def servers(self) -> list[Server]:
        """The primary, then the others."""
        primary = self.cluster.primary
        return [primary, *(s for s in self.cluster.servers if s is not primary)]

    def ask(self, server: Server, text: str, params: Any = None) -> list[tuple[Any, ...]]:
        """Run a statement on `server` as a superuser, over the one connection kept for that."""
        cursor = self.admin(server).execute(text.encode(), params, prepare=False)
        return cursor.fetchall() if cursor.description else []

    def admin(self, server: Server) -> "psycopg.Connection[Any]":
        """The connection that `ask` uses."""
        found = self._admins.get(server.name)
        if found is None or found.closed:
            info = server.conninfo(DATABASE)
            found = self._admins[server.name] = psycopg.connect(info, autocommit=True)
        return found

    def forget(self, server: Server) -> None:
        """The server has ended: so has its connection."""
        if found := self._admins.pop(server.name, None):
            found.close()

    def as_watcher(self, server: Server, text: str) -> tuple[Any, ...]:
        """The row of a query asked by a role without privileges."""
        self.ask(server, f"SET ROLE {WATCHER}")
        try:
            (row,) = self.ask(server, text)
        finally:
            self.ask(server, "RESET ROLE")
        return row

    # -- the WAL writer -----------------------------------------------------------------------

    def still(self, server: Server) -> None:
        """Stop the WAL writer of a primary: only commits flush from now on."""
        text = (
            "SELECT pid FROM pg_stat_activity"
            " WHERE backend_type = 'walwriter' AND wait_event = 'WalWriterMain'"
        )

        def asleep() -> bool:
            found = self.ask(server, text)
            if found:
                self._stopped[server.name] = found[0][0]
                os.kill(found[0][0], signal.SIGSTOP)
            return bool(found)

        self.until(asleep, f"the WAL writer of {server.name} does not rest")

    def loosen(self, server: Server) -> None:
        """Let the WAL writer of `server` run, as a shutdown needs it."""
        if pid := self._stopped.pop(server.name, 0):
            os.kill(pid, signal.SIGCONT)

    # -- waiting ------------------------------------------------------------------------------

    def until(self, condition: Callable[[], bool], complaint: str) -> None:
        """Wait until `condition` holds."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                raise Late(complaint)
            time.sleep(_POLL)

    def state(self, server: Server) -> State:
        """What the standby `server` tells."""
        ((received, replayed, streaming, timeline, port),) = self.ask(
            server,
            "SELECT pg_wal_lsn_diff(pg_last_wal_receive_lsn(), '0/0')::bigint,"
            " pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')::bigint,"
            " pid IS NOT NULL, received_tli, sender_port"
            " FROM (SELECT) AS one LEFT JOIN pg_stat_wal_receiver ON true",
        )
        # After a start nothing counts as received before the receiver gets something new.
        received, replayed = received or 0, replayed or 0
        return State(max(received, replayed), replayed, streaming, timeline or 0, port or 0)

    def sent(self, server: Server, standby: bool) -> int:
        """Up to where `server` sends WAL."""
        if standby:
            return self.state(server).received
        text = "SELECT pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0')::bigint"
        return int(self.ask(server, text)[0][0])

    def flush(self, server: Server) -> None:
        """Flush all WAL of the primary `server`."""
        self.ask(server, "SELECT pg_logical_emit_message(false, 'simulation', '', true)")

    def await_gone(self, server: Server, pid: int) -> None:
        """Wait until the session of `pid` has ended."""
        text = "SELECT 1 FROM pg_stat_activity WHERE pid = %s"
        self.until(lambda: not self.ask(server, text, [pid]), f"session {pid} does not end")

    def clients(self, server: Server) -> int:
        """How many clients are connected."""
        text = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
        return int(self.ask(server, text)[0][0])

    def logged(self, server: Server, text: str, since: int) -> bool:
        """Whether `text` is in the log of `server` from byte `since` on."""
        with server._log.open("rb") as log:
            log.seek(since)
            return text.encode() in log.read()

    def synchronous(self, server: Server, names: str) -> None:
        """Have commits on `server` wait for one of the standbys `names`, empty for none."""
        self.ask(server, f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
        self.ask(server, "SELECT pg_reload_conf()")
        wanted = "quorum" if names else "async"
        text = (
            "SELECT current_setting('synchronous_standby_names') = %s AND NOT EXISTS"
            " (SELECT FROM pg_stat_replication WHERE sync_state <> %s)"
        )
        self.until(lambda: self.ask(server, text, [names, wanted]) == [(True,)], "no reload")
        # Commits ask what the checkpointer has read, which it does before anything else.
        self.ask(server, "CHECKPOINT")

    def await_event(self, server: Server, pid: int, event: str) -> None:
        """Wait until the session of `pid` waits for `event`."""
        text = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event = %s"
        self.until(lambda: bool(self.ask(server, text, [pid, event])), f"no wait for {event}")

    # -- what is done to servers --------------------------------------------------------------

    def kill(self, server: Server) -> None:
        server.kill()
        self._stopped.pop(server.name, None)
        self.forget(server)

    def stop(self, server: Server) -> None:
        self.loosen(server)
        server.stop()
        self.forget(server)

    def start(self, server: Server, *, primary: bool) -> None:
        server.start()
        if primary:
            self.still(server)

    def thaw(self, server: Server, *, primary: bool) -> None:
        server.thaw()
        if primary:
            self.still(server)

    def promote(self, server: Server) -> None:
        server.promote()
        # Until the checkpoint that follows, a crash would have it begin at an earlier one.
        self.ask(server, "CHECKPOINT")
        self.still(server)

    def follow(self, server: Server, upstream: Server) -> None:
        """As `Cluster.repoint`, but to any server, and for one that may not be able to."""
        self._make_slot(upstream, server.name)
        server.upstream = upstream
        server.configure()

    def rejoin(self, server: Server) -> None:
        self.forget(server)
        self._stopped.pop(server.name, None)
        server._lag = 0.0
        self.cluster.rejoin(server)
        for standby in self.cluster.replicas:
            if standby.upstream is server:  # whose slot has gone with the data
                self._make_slot(server, standby.name)

    def _make_slot(self, server: Server, name: str) -> None:
        self.ask(
            server,
            "SELECT pg_create_physical_replication_slot(%(name)s, true)"
            " WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = %(name)s)",
            {"name": name},
        )

    def lock_and_commit(self, text: str) -> None:
        """Run `text` on the primary in a transaction that leaves a commit record."""
        admin = self.admin(self.cluster.primary)
        with admin.transaction():
            admin.execute(text.encode())
            admin.execute("SELECT pg_current_xact_id()")

    def clear(self) -> None:
        """Empty the tables, by one commit on the primary."""
        admin = self.admin(self.cluster.primary)
        with admin.transaction():
            admin.execute("UPDATE item SET value = NULL WHERE value IS NOT NULL")
            admin.execute("UPDATE counter SET n = 0 WHERE n <> 0")
            admin.execute("DELETE FROM journal")
            admin.execute("SELECT pg_current_xact_id()")


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace(" ", "\\ ")
