"""A small PostgreSQL cluster in memory: its WAL, timelines, transactions and replication.

It is held to real servers by ``test_reality.py``. Nothing here reads a clock or draws lots by
itself: time arrives as `now`, in seconds, and chance as a `random.Random`. What it does not
understand raises NotImplementedError.
"""

import heapq
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import floor, inf
from random import Random
from typing import Any, NamedTuple, TypeAlias

from router.connect.probe import (
    PAGE_HEADER,
    PROBE_SQL,
    ROLE_SQL,
    SEGMENT_HEADER,
    WAL_PAGE,
)

READ = "SELECT value FROM item WHERE id = %(id)s"
LOCK = READ + " FOR UPDATE"
UPDATE = "UPDATE item SET value = %(value)s WHERE id = %(id)s"
INCREMENT = "UPDATE counter SET n = n + 1 WHERE id = %(id)s"
COUNT = "SELECT n FROM counter WHERE id = %(id)s"
APPEND = "INSERT INTO journal (op) VALUES (%(op)s)"
ONE = "SELECT 1"
DIVIDE = "SELECT 1/0"
SLEEP = "SELECT pg_sleep(%(s)s)"
NEXTVAL = "SELECT nextval('seq')"
TENANT = "SELECT current_setting('app.tenant', true)"

IDS = 100
SCHEMA = f"""
CREATE TABLE item (id int PRIMARY KEY, value text);
CREATE TABLE counter (id int PRIMARY KEY, n bigint NOT NULL);
CREATE TABLE journal (op text);
CREATE SEQUENCE seq;
INSERT INTO item SELECT id, NULL FROM generate_series(0, {IDS - 1}) AS id;
INSERT INTO counter SELECT id, 0 FROM generate_series(0, {IDS - 1}) AS id;
"""
"""What a real server must have to answer as the model does."""

START = 0x1000000
"""Where the WAL of a new cluster begins."""
SEGMENT = 16 << 20
"""Bytes of a WAL segment."""
WAL_WRITER_DELAY = 0.2
"""Seconds; setting ``wal_writer_delay``."""
WAL_RECEIVER_TIMEOUT = 60.0
"""Seconds a WAL receiver waits for an upstream that is silent."""
SEQUENCE_AHEAD = 32
"""Values of a sequence that one WAL record covers."""
SUPERUSERS = frozenset({"postgres"})
SUPERUSER_RESERVED = 3
"""Setting ``superuser_reserved_connections``."""

CATCH_UP = 0.5
"""Seconds at most from when a standby that was started lets sessions in to when it has replayed
what it had received."""
POSTMASTER_EXIT = "terminating connection due to unexpected postmaster exit"
"""What a session says that finds the postmaster dead before it is killed itself."""
ORPHANS = 0.2
"""How many of the sessions of a server that is killed say so."""

READ_COMMITTED = "read committed"
REPEATABLE_READ = "repeatable read"
SERIALIZABLE = "serializable"

Key: TypeAlias = tuple[str, int]
"""Table and id of a row."""


class Refused(Exception):
    """An error of the server: its SQLSTATE, empty where the connection just broke, its text, and
    whether the session is over (FATAL)."""

    def __init__(self, sqlstate: str, text: str, ends: bool = False) -> None:
        super().__init__(sqlstate, text)
        self.sqlstate = sqlstate
        self.text = text
        self.ends = ends


class Blocked(Exception):
    """The statement waits for a lock that the transaction `by` holds: execute it again, with the
    same arguments, once ``by.over``."""

    def __init__(self, by: "Transaction") -> None:
        super().__init__(by)
        self.by = by


class Where(NamedTuple):
    """A place in history: what a read saw, or the end of a commit record."""

    server: str
    timeline: int
    lsn: int


class Rows(NamedTuple):
    """What a statement gave; `rowcount` is -1 where the server tells none."""

    rows: list[tuple[Any, ...]]
    rowcount: int
    tag: str
    at: Where | None


class Commit(NamedTuple):
    """One commit record; `lsn` is its end, `ops` what `APPEND` added, as often as it did."""

    txid: int
    server: str
    timeline: int
    lsn: int
    when: float
    writes: Mapping[Key, Any]
    ops: tuple[str, ...]


class Ran(NamedTuple):
    """One data statement that a server executed without an error.

    Attributes:
        op: the tag its client gave.
        lsn: the snapshot of a read; of a write where the WAL ended then.
        settings: what differs from the session's start.
        session: the session's id.
        txid: of its transaction; 0 of a read without one.
    """

    op: str
    sql: str
    server: str
    timeline: int
    lsn: int
    when: float
    settings: tuple[tuple[str, str], ...]
    session: int
    txid: int
    writes: bool


class Line:
    """The WAL of one timeline from where it left its `parent`, at `begin`.

    The versions of each row, and each end of a transaction, are kept by position, in order.
    """

    __slots__ = (
        "begin", "checkpoints", "commits", "ends", "number", "parent", "versions", "whens",
    )  # fmt: skip

    def __init__(self, number: int, parent: "Line | None", begin: int) -> None:
        self.number = number
        self.parent = parent
        self.begin = begin
        self.versions: dict[Key, tuple[list[int], list[Any]]] = {}
        self.ends: list[int] = []
        self.whens: list[float] = []
        self.commits: list[tuple[int, int, float]] = []  # position, transaction, when
        self.checkpoints: list[tuple[int, int]] = []  # end of the record, where replay would begin

    def value(self, key: Key, lsn: int) -> Any:
        """The newest version of the row `key` up to `lsn`."""
        line: Line | None = self
        while line is not None:
            found = line.versions.get(key)
            if found is not None:
                at = bisect_right(found[0], lsn)
                if at:
                    return found[1][at - 1]
            lsn = min(lsn, line.begin)
            line = line.parent
        return _FIRST[key[0]]

    def changed(self, key: Key) -> int:
        """Where the newest version of the row `key` was committed."""
        line: Line | None = self
        limit: float = inf
        while line is not None:
            found = line.versions.get(key)
            at = 0 if found is None else bisect_right(found[0], limit)
            if found is not None and at:
                return found[0][at - 1]
            limit = min(limit, line.begin)
            line = line.parent
        return 0

    def put(self, lsn: int, when: float, txid: int, writes: Mapping[Key, Any]) -> None:
        """A commit record that ends at `lsn`."""
        for key, value in writes.items():
            self.put_version(key, lsn, value)
        self.ends.append(lsn)
        self.whens.append(when)
        self.commits.append((lsn, txid, when))

    def put_version(self, key: Key, lsn: int, value: Any) -> None:
        """A version of the row `key` from `lsn` on."""
        found = self.versions.get(key)
        if found is None:
            found = self.versions[key] = ([], [])
        found[0].append(lsn)
        found[1].append(value)

    def cut(self, lsn: int) -> list[int]:
        """Forget what is past `lsn`, which nobody else has; returns the transactions lost."""
        for lsns, values in self.versions.values():
            keep = bisect_right(lsns, lsn)
            del lsns[keep:], values[keep:]
        keep = bisect_right(self.ends, lsn)
        del self.ends[keep:], self.whens[keep:]
        keep = bisect_left(self.commits, (lsn + 1,))
        lost = [txid for _, txid, _ in self.commits[keep:]]
        del self.commits[keep:]
        self.checkpoints = [found for found in self.checkpoints if found[0] <= lsn]
        return lost

    def last_checkpoint(self, upto: float) -> tuple[int, int]:
        """Where replay would begin by the last checkpoint up to `upto`, and its timeline."""
        line: Line | None = self
        while line is not None:
            for end, redo in reversed(line.checkpoints):
                if end <= upto:
                    return redo, line.number
            upto = min(upto, line.begin)
            line = line.parent
        return START, 1

    def last_end(self, after: int, upto: int) -> float | None:
        """When the last transaction ended whose record is past `after` and not past `upto`."""
        line: Line | None = self
        while line is not None:
            at = bisect_right(line.ends, upto)
            if at:
                return line.whens[at - 1] if line.ends[at - 1] > after else None
            upto = min(upto, line.begin)
            line = line.parent
        return None

    def ends_between(self, after: int, upto: int) -> Iterator[int]:
        """The ends of transactions past `after`, up to `upto`, in order."""
        if self.parent is not None and after < self.begin:
            yield from self.parent.ends_between(after, min(upto, self.begin))
        yield from self.ends[bisect_right(self.ends, after) : bisect_right(self.ends, upto)]

    def commits_between(self, after: int, upto: int) -> Iterator[tuple[int, float]]:
        """The commits past `after`, up to `upto`, in order, and when they were made."""
        if self.parent is not None and after < self.begin:
            yield from self.parent.commits_between(after, min(upto, self.begin))
        for at in range(bisect_left(self.commits, (after + 1,)), len(self.commits)):
            lsn, _, when = self.commits[at]
            if lsn > upto:
                break
            yield lsn, when

    def left_at(self, older: "Line") -> float | None:
        """Up to where this one has all of `older` in its history; None where it has nothing."""
        line, limit = self, inf
        while line is not older:
            limit = min(limit, line.begin)
            if line.parent is None:
                return None
            line = line.parent
        return limit


_FIRST: dict[str, Any] = {"item": None, "counter": 0, "seq": 0}


class World:
    """A primary and its replicas.

    `archive`: the servers share the histories of all timelines, so that each promotion takes a
    number of its own; else two that cannot know of each other take the same.
    `monitor_sees_receivers`: whether the role that probes may see ``pg_stat_wal_receiver``.
    `background`: whether servers write and flush WAL, and make restartpoints, by themselves.
    Delays are in seconds.
    """

    def __init__(
        self,
        rand: Random,
        *,
        replicas: int = 2,
        monitor_sees_receivers: bool = True,
        max_connections: int = 100,
        receive_delay: float = 0.001,
        replay_delay: float = 0.001,
        archive: bool = True,
        start_delay: float = 0.3,
        database: str = "app",
        background: bool = True,
    ) -> None:
        self.rand = rand
        self.monitor_sees_receivers = monitor_sees_receivers
        self.receive_delay = receive_delay
        self.replay_delay = replay_delay
        self.archive = archive
        self.start_delay = start_delay
        self.database = database
        self.background = background
        self.system_id = "7400000000000000001"
        self.now = 0.0
        self.commits: list[Commit] = []
        self.ran: list[Ran] = []
        self.lines: list[Line] = [Line(1, None, START)]
        self.lost: set[int] = set()
        self._home: dict[int, Line] = {}  # by transaction: where its commit record is
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._numbers = 0
        self.servers: list[Server] = [Server(self, "primary", 5001, max_connections)]
        self.servers += [
            Server(self, f"replica{n}", 5001 + n, max_connections) for n in range(1, replicas + 1)
        ]
        primary = self.servers[0]
        primary.open_for_writes(0.0)
        for server in self.servers[1:]:
            server.copy(primary)
            server.connect(0.0)

    def number(self) -> int:
        """A number nobody had before."""
        self._numbers += 1
        return self._numbers

    def advance(self, now: float) -> None:
        """Let everything happen that happens by itself until `now`."""
        events = self._events
        while events and events[0][0] <= now:
            when, _, happen, args = heapq.heappop(events)
            if when > self.now:
                self.now = when
            happen(when, *args)
        if now > self.now:
            self.now = now

    def at(self, when: float, happen: Callable[..., None], *args: Any) -> None:
        """Have ``happen(when, *args)`` called at `when`."""
        self._numbers += 1
        heapq.heappush(self._events, (when, self._numbers, happen, args))

    def surviving(self) -> tuple[int, int]:
        """Timeline and flush position of the primary with the highest timeline that is alive, or
        else was alive last."""
        primaries = [server for server in self.servers if not server.recovering]
        alive = [server for server in primaries if server.running]
        if alive:
            best = max(alive, key=lambda s: (s.line.number, s.since))
        elif primaries:
            best = max(primaries, key=lambda s: (s.ended, s.line.number))
        else:
            best = max(self.servers, key=lambda s: (s.line.number, s.received))
            return best.line.number, best.received
        return best.line.number, best.flushed

    def has(self, commit: Commit, timeline: int, lsn: int) -> bool:
        """Whether the history of `timeline` up to `lsn` has `commit`."""
        return self.contains(commit, self._line(timeline), lsn)

    def contains(self, commit: Commit, line: Line, lsn: int) -> bool:
        """Whether `line` up to `lsn`, with all before it, has `commit`."""
        if commit.txid in self.lost:
            return False
        limit = line.left_at(self._home[commit.txid])
        return limit is not None and commit.lsn <= min(lsn, limit)

    def value(self, key: Key, timeline: int, lsn: int) -> Any:
        """The value of the row `key` in the history of `timeline` up to `lsn`."""
        return self._line(timeline).value(key, lsn)

    def _line(self, number: int) -> Line:
        return next(line for line in reversed(self.lines) if line.number == number)

    def branch(self, parent: Line, begin: int, least: int) -> Line:
        """A new timeline that leaves `parent` at `begin`; its number is past `least`."""
        known = max(line.number for line in self.lines) if self.archive else least
        line = Line(max(known, least) + 1, parent, begin)
        self.lines.append(line)
        return line

    def committed(self, commit: Commit, line: Line) -> None:
        """Take note of a commit record on `line`."""
        line.put(commit.lsn, commit.when, commit.txid, commit.writes)
        self.commits.append(commit)
        self._home[commit.txid] = line


class Server:
    """One PostgreSQL server. What a method's name says happens at `now`, at once."""

    def __init__(self, world: World, name: str, port: int, max_connections: int) -> None:
        self.world = world
        self.name = name
        self.host = "127.0.0.1"
        self.port = port
        self.max_connections = max_connections
        self.auth_delay = 0.0
        self.login_refused = ""
        self.running = True
        self.frozen = False
        self.recovering = False
        self.sessions: dict[int, Session] = {}
        self.line = world.lines[0]
        self.end = START  # of the last record
        self.flushed = START
        self.received = START
        self.replayed = START
        self.upstream: Server | None = None
        self.streaming = False
        self.source: Server | None = None  # whom its WAL receiver is connected to
        self.paused = False
        self.lag = 0.0
        self.ready = 0.0  # from when on it lets sessions in
        self.since = 0.0  # when it became a primary
        self.ended = 0.0  # when it last ended
        self.began: int | None = None  # where its recovery ended, of a primary
        self.locks: dict[Key, Transaction] = {}
        self.greatest = 1  # timeline it knows of
        self._control = 1  # timeline in its control file
        self._checkpoint = START  # from where it would replay
        self._since_replay: int | None = None  # where its replay began when it was started
        self._downstream: dict[str, Server] = {}
        self._async = START  # what the WAL writer shall flush
        self._whole = START  # the last record that a full page ends after
        self._writing = False
        self._life = 0  # of the process
        self._stream = 0  # of the WAL receiver
        self._crashed = False  # when it ended last
        self._noted = 0  # where WAL ended at the last housekeeping
        self._sequence = (0, 0)  # the last value, and the last that is logged

    def __repr__(self) -> str:
        role = "standby" if self.recovering else "primary"
        state = "frozen" if self.frozen else "running" if self.running else "stopped"
        at = f"{self.replayed:#x}/{self.received:#x}" if self.recovering else f"{self.insert:#x}"
        return f"<Server {self.name} {role} {state} timeline {self.line.number} {at}>"

    @property
    def timeline(self) -> int:
        """The timeline it is on."""
        return self.line.number

    @property
    def insert(self) -> int:
        """Where the next record begins, which on a fresh page is behind the page's header."""
        return self.end + _header(self.end)

    @property
    def position(self) -> int:
        """Up to where it sees commits."""
        return self.replayed if self.recovering else self.end

    # -- sessions ---------------------------------------------------------------------------

    def login(
        self, now: float, *, user: str = "app", settings: Mapping[str, str] | None = None
    ) -> "Session":
        """A new session. Refused with FATAL while it starts, is full, or lets nobody in."""
        if not self.running:
            raise Refused("", "connection refused", ends=True)
        if now < self.ready:
            raise Refused("57P03", "the database system is starting up", ends=True)
        if self.login_refused:
            text = _LOGIN_TEXTS.get(self.login_refused, "login refused").format(user=user)
            raise Refused(self.login_refused, text, ends=True)
        if len(self.sessions) >= self.max_connections:
            raise Refused("53300", "sorry, too many clients already", ends=True)
        free = self.max_connections - len(self.sessions)
        if user not in SUPERUSERS and free <= SUPERUSER_RESERVED:
            text = "remaining connection slots are reserved for roles with the SUPERUSER attribute"
            raise Refused("53300", text, ends=True)
        session = Session(self, self.world.number(), user, settings or {})
        self.sessions[session.id] = session
        return session

    def terminate(self, session: "Session", sqlstate: str, now: float) -> None:
        """End one session; the next that its client hears is a FATAL of `sqlstate`."""
        session.end(sqlstate, Refused(sqlstate, _ENDS[sqlstate], ends=True), now)

    def conflict(self, now: float, rand: Random) -> None:
        """Replay has to remove what is still seen by sessions: a standby ends those that idle in
        a transaction, and cancels the query of those that run one."""
        if not self.recovering:
            return
        for session in list(self.sessions.values()):
            transaction = session.transaction
            if transaction is not None and transaction.sees_old_rows and rand.random() < 0.5:
                self.terminate(session, "40001", now)
            elif rand.random() < 0.5:
                session.cancel_next(now)

    def _kill_sessions(self, now: float) -> None:
        for session in list(self.sessions.values()):
            orphan = self.world.rand.random() < ORPHANS
            refused = Refused("57P01", POSTMASTER_EXIT, ends=True) if orphan else _broken()
            session.end("killed", refused, now, vanish=True)
        self.locks.clear()

    # -- what is done to it -----------------------------------------------------------------

    def kill(self, now: float) -> None:
        """SIGKILL of all its processes: what was not flushed is lost."""
        if not self.running:
            return
        self._kill_sessions(now)
        self._down(now)
        if self.recovering:
            # Replay begins again at the last restartpoint, and lets sessions in on the way.
            behind = self.replayed - self._checkpoint
            self.replayed -= int(behind * self.world.rand.random())
            self._since_replay = self._checkpoint
        else:
            self.world.lost.update(self.line.cut(self.flushed))
            self.end = self.flushed
            self.began = self.flushed
            self._since_replay = None  # crash recovery takes no note of when commits were made
            self._crashed = True

    def stop(self, now: float) -> None:
        """Fast shutdown: standbys that stream get everything, the shutdown checkpoint too."""
        if not self.running:
            return
        for session in list(self.sessions.values()):
            self.terminate(session, "57P01", now)
        if not self.recovering:
            self.checkpoint(now)
            self.began = None
            self._since_replay = None
        else:
            self._restartpoint()
            self._since_replay = self._checkpoint
        for standby in list(self._downstream.values()):
            if not standby.frozen:
                standby.receive(now, self._sent(), standby._stream)
        self._down(now)

    def _down(self, now: float) -> None:
        self.running = self.frozen = self.paused = False
        self.ended = now
        self._life += 1
        self._writing = False
        self._disconnect()
        for standby in list(self._downstream.values()):
            standby._disconnect()

    def start(self, now: float) -> None:
        """Start it again, a primary as a primary, a standby as a standby."""
        if self.running:
            return
        self.running = True
        self.ready = now + self.world.start_delay * self.world.rand.random()
        if self.recovering:
            # It lets sessions in once it is consistent, which may be before it has replayed all.
            longest = CATCH_UP if self.world.background else 0.0
            caught_up = self.ready + longest * self.world.rand.random()
            self.world.at(caught_up, self._replay, self.received, self._life)
            self._try_to_connect(caught_up)
        else:
            self.open_for_writes(now)
            if self._crashed:
                self._crashed = False
                self.checkpoint(now)
        self._call_downstream(self.ready)

    def freeze(self, now: float) -> None:
        """SIGSTOP of all its processes: nothing answers, and nothing happens."""
        if self.running:
            self.frozen = True
            for standby in self._downstream.values():
                self.world.at(now + WAL_RECEIVER_TIMEOUT, standby._give_up, standby._stream)

    def thaw(self, now: float) -> None:
        """SIGCONT: it goes on with what it had missed."""
        if not self.frozen:
            return
        self.frozen = False
        if self.recovering:
            source = self.source
            if source is not None and self.name in source._downstream:
                self.world.at(now, self.receive, source._sent(), self._stream)
            self.world.at(now, self._replay, self.received, self._life)
            self._try_to_connect(now)
        elif self.end > self.flushed:
            self._writing = False
            self._wake_writer(now)
        self._tell_downstream(now)
        self._call_downstream(now)

    def promote(self, now: float) -> None:
        """Replay all that was received, and begin a timeline."""
        if not self.running or self.frozen or not self.recovering:
            return
        self._disconnect()
        self._end_timeline(now)
        self.upstream = None
        self.recovering = self.paused = False
        self.replayed = self.received
        self.line = self.world.branch(self.line, self.received, self.greatest)
        self.greatest = self.line.number
        self.began = self.end = self.flushed = self._async = self._whole = self.received
        self.open_for_writes(now)
        self.flush(self.append(), now)  # XLOG_END_OF_RECOVERY
        self.checkpoint(now)
        self._call_downstream(now)

    def follow(self, upstream: "Server", now: float) -> None:
        """A new ``primary_conninfo``, and reload; not for a primary."""
        if not self.recovering:
            raise ValueError(f"{self.name} is a primary: rewind it")
        self.upstream = upstream
        self._try_to_connect(now)

    def rewind(self, upstream: "Server", now: float) -> None:
        """Make it a standby of `upstream`, with the data of that one."""
        self._kill_sessions(now)
        self._down(now)
        if not upstream.recovering:
            upstream.checkpoint(now)
        self.copy(upstream)
        self.running = True
        self.lag = 0.0
        self.ready = now + self.world.start_delay * self.world.rand.random()
        self._try_to_connect(self.ready)
        self._call_downstream(self.ready)

    def copy(self, upstream: "Server") -> None:
        """Take the data of `upstream` as they are now, and follow it."""
        self.recovering = True
        self.upstream = upstream
        self.line = upstream.line
        self.received = self.replayed = upstream._sent()
        self._checkpoint = self._since_replay = upstream._checkpoint
        self._control = upstream._control
        self.greatest = upstream.greatest
        self.began = None
        self._crashed = False

    def pause(self, now: float) -> None:
        """``pg_wal_replay_pause()``: WAL still arrives."""
        self.paused = self.recovering

    def resume(self, now: float) -> None:
        """``pg_wal_replay_resume()``."""
        self.paused = False
        if self.recovering and self.running:
            self._replay(now, self.received, self._life)

    def set_lag(self, seconds: float, now: float | None = None) -> None:
        """``recovery_min_apply_delay``: replay each commit that much later than it was made."""
        self.lag = seconds
        if self.recovering and self.running:
            self._replay(self.world.now if now is None else now, self.received, self._life)

    # -- writing WAL ------------------------------------------------------------------------

    def open_for_writes(self, now: float) -> None:
        """It has become a primary that takes writes."""
        self.since = now
        self._async = self._whole = self.end
        self._writing = False
        logged = self.line.value(("seq", 0), self.end)
        self._sequence = (logged, logged)
        if self.world.background:
            self.world.at(now + self.world.rand.uniform(1, 8), self._keep_house, self._life)

    def append(self, size: int = 0) -> int:
        """Insert a record of `size` bytes, by default a drawn one; returns where it ends."""
        left = size or 56 + 8 * int(self.world.rand.random() * 43)
        began = at = self.end
        while True:
            at += _header(at)
            room = WAL_PAGE - at % WAL_PAGE
            if left < room:
                break
            self._whole = began if left > room else at + left
            at += room
            left -= room
            if not left:
                break
        self.end = at + left
        return self.end

    def flush(self, lsn: int, now: float) -> None:
        """Flush WAL up to `lsn`; standbys are sent it."""
        if lsn > self.flushed:
            self.flushed = lsn
            if self._downstream:
                self._tell_downstream(now)

    def flush_later(self, lsn: int, now: float) -> None:
        """Have the WAL writer flush up to `lsn`."""
        self._async = lsn
        self._wake_writer(now)

    def _wake_writer(self, now: float) -> None:
        if not self._writing and self.world.background:
            self._writing = True
            tick = (floor(now / WAL_WRITER_DELAY) + 1) * WAL_WRITER_DELAY
            self.world.at(tick, self._write, self._life)

    def _write(self, now: float, life: int) -> None:
        """The WAL writer's turn: asynchronous commits, and whole pages."""
        if life == self._life and not self.frozen:
            self._writing = False
            self.flush(max(self._async, self._whole), now)

    def checkpoint(self, now: float) -> None:
        """A checkpoint of a primary."""
        self._control = self.line.number
        self._checkpoint = self.end
        self.flush(self.append(120), now)
        self.line.checkpoints.append((self.end, self._checkpoint))

    def _keep_house(self, now: float, life: int) -> None:
        """What a primary writes by itself, now and then, if anything was written since."""
        if life != self._life or self.recovering:
            return
        rand = self.world.rand
        self.world.at(now + rand.uniform(1, 8), self._keep_house, life)
        if self.frozen or self._noted == self.end:
            return
        lot = rand.random()
        if lot < 0.5:
            self.flush_later(self.append(), now)  # running transactions, for standbys
        elif lot < 0.8:
            self.append()  # a page that a reader tidied up; nobody waits for that
        elif lot < 0.95:
            self.checkpoint(now)
        else:  # on to the next segment
            self.append(24)
            self.end = (self.end // SEGMENT + 1) * SEGMENT
            self.flush(self.end, now)
        self._noted = self.end

    def nextval(self, transaction: "Transaction") -> int:
        """The next value of the sequence; each record covers some more, which a crash skips."""
        value, logged = self._sequence
        value += 1
        if value > logged:
            logged = value + SEQUENCE_AHEAD
            # It holds whatever becomes of the transaction.
            self.line.put_version(("seq", 0), self.append(), logged)
            transaction.writes_now()
        self._sequence = (value, logged)
        return value

    # -- streaming and replay ---------------------------------------------------------------

    def _sent(self) -> int:
        """Up to where it sends WAL to standbys."""
        return self.received if self.recovering else self.flushed

    @property
    def _busy(self) -> bool:
        """Whether the startup process waits in replay, and so looks after no WAL receiver."""
        return self.paused or self.replayed < self.received

    def _delay(self, seconds: float) -> float:
        return seconds * (0.5 + self.world.rand.random())

    def _tell_downstream(self, now: float) -> None:
        lsn = self._sent()
        for standby in self._downstream.values():
            when = now + self._delay(self.world.receive_delay)
            self.world.at(when, standby.receive, lsn, standby._stream)

    def _call_downstream(self, now: float) -> None:
        """Those that follow it find that it is there."""
        for standby in self.world.servers:
            if standby.upstream is self:
                standby._try_to_connect(now)

    def _try_to_connect(self, now: float) -> None:
        self.world.at(now + self._delay(0.02), self.connect)

    def connect(self, now: float) -> None:
        """Start a WAL receiver, where the upstream is there and the startup process wants it."""
        upstream = self.upstream
        if upstream is None or not self.recovering or not self.running or self.frozen:
            return
        if self._busy:
            return
        if self.source is not upstream:
            self._disconnect()
        if not upstream.running or upstream.frozen:
            return
        if now < max(self.ready, upstream.ready):
            self._try_to_connect(max(self.ready, upstream.ready))
            return
        if self.streaming and upstream.line is self.line:
            return
        self._disconnect()
        self._attach(upstream, now)

    def _attach(self, upstream: "Server", now: float) -> None:
        """Stream from `upstream` if this server's WAL is part of its history."""
        limit = upstream.line.left_at(self.line)
        if limit is None:
            return
        # A receiver fetches the histories of all its upstream's timelines first.
        self.greatest = max(self.greatest, upstream.line.number)
        if self.received > limit:
            # It asks for the segment from its start: if that is common, the receiver stays, and
            # waits for a timeline that the startup process will not go to.
            if self.received - self.received % SEGMENT <= limit:
                self.streaming, self.source = True, upstream
            return
        self.streaming, self.source = True, upstream
        if self.line is not upstream.line:
            self._end_timeline(now)
            self.line = upstream.line
            if self.world.background:
                when = now + self.world.rand.uniform(1, 20)
                self.world.at(when, self._timed_restartpoint, self._life)
        upstream._downstream[self.name] = self
        self.world.at(now, self.receive, upstream._sent(), self._stream)

    def _end_timeline(self, now: float) -> None:
        """Those that stream from it get the rest of its timeline, and have to ask for the next."""
        for standby in list(self._downstream.values()):
            if not standby.frozen:
                standby.receive(now, self._sent(), standby._stream)
            standby._try_to_connect(now)
        self._downstream.clear()

    def _disconnect(self) -> None:
        self.streaming = False
        self.source = None
        self._stream += 1
        for server in self.world.servers:
            server._downstream.pop(self.name, None)

    def _give_up(self, now: float, stream: int) -> None:
        """A WAL receiver's upstream has been silent for too long."""
        source = self.source
        if stream == self._stream and source is not None and source.frozen:
            self._disconnect()

    def receive(self, now: float, lsn: int, stream: int) -> None:
        """The WAL receiver of `stream` has got WAL up to `lsn`, and flushed it."""
        if stream != self._stream or self.frozen or lsn <= self.received:
            return
        self.received = lsn
        if self._downstream:
            self._tell_downstream(now)
        self.world.at(now + self._delay(self.world.replay_delay), self._replay, lsn, self._life)

    def _replay(self, now: float, lsn: int, life: int) -> None:
        """Replay up to `lsn`, or the first commit that is too new."""
        if life != self._life or not self.recovering or self.paused or self.frozen:
            return
        lsn = min(lsn, self.received)
        if self.lag:
            for end, when in self.line.commits_between(self.replayed, lsn):
                if when + self.lag > now:
                    lsn = end - 8  # within that record
                    self.world.at(when + self.lag, self._replay, self.received, life)
                    break
        if lsn > self.replayed:
            self.replayed = lsn
        if self.replayed == self.received and self.source is not (self.upstream or self):
            self.connect(now)

    def _timed_restartpoint(self, now: float, life: int) -> None:
        """The control file of a standby comes to tell its timeline, sooner or later."""
        if life != self._life or not self.recovering:
            return
        self._restartpoint()
        if self._control != self.line.number:
            self.world.at(now + 5.0, self._timed_restartpoint, life)

    def _restartpoint(self) -> None:
        """Take the last checkpoint that was replayed as the place where replay would begin."""
        redo, number = self.line.last_checkpoint(self.replayed)
        if redo > self._checkpoint:
            self._checkpoint, self._control = redo, number

    # -- what it tells ----------------------------------------------------------------------

    def probe(self, now: float) -> tuple[Any, ...]:
        """The row of `PROBE_SQL`."""
        world, line = self.world, self.line
        last = None
        if self._since_replay is not None:
            upto = self.replayed if self.recovering or self.began is None else self.began
            last = line.last_end(self._since_replay, upto)
        age = None if last is None else now - last
        if not self.recovering:
            began = None if self.began is None else _text(self.began)
            insert, flushed = _text(self.insert), _text(self.flushed)
            return (False, insert, line.number, world.system_id, age, False, None, began, flushed,
                    world.database)  # fmt: skip
        received = line.number if self.streaming and world.monitor_sees_receivers else None
        timeline = self._control if received is None else received
        return (True, _text(self.replayed), timeline, world.system_id, age, self.streaming,
                received, None, None, world.database)  # fmt: skip


class Transaction:
    """One transaction, or a savepoint's part of one while it holds locks of its own."""

    __slots__ = (
        "_over", "deferrable", "failed", "frames", "id", "into", "isolation", "keys", "ops",
        "portal", "read_only", "session", "snapshot", "snapshot_taken", "top", "waiting",
        "writes", "wrote",
    )  # fmt: skip

    def __init__(self, session: "Session", number: int, isolation: str, read_only: bool) -> None:
        self.session = session
        self.id = number
        self.isolation = isolation
        self.read_only = read_only
        self.deferrable = False
        self.failed = False
        self.wrote = False  # it has a number on the server, and so a record of its end
        self.snapshot: tuple[Line, int] | None = None
        self.snapshot_taken = False
        self.portal = False  # its last statement was a query that leaves its portal open
        self.waiting: Transaction | None = None
        self.writes: dict[Key, Any] = {}
        self.ops: list[str] = []
        self.keys: list[Key] = []
        self.frames: list[Frame] = []
        self.top: Transaction = self
        self.into: Transaction | None = None
        self._over = False

    @property
    def over(self) -> bool:
        """Whether what it had locked is free again."""
        return self._over or (self.into is not None and self.into.over)

    @property
    def sees_old_rows(self) -> bool:
        """Whether it holds a snapshot while it idles. In READ COMMITTED that of its last query
        where that had parameters: its portal, which has no name, stays until the next statement.
        """
        return not self.failed and (self.snapshot is not None or self.portal)

    @property
    def holder(self) -> "Transaction":
        """What new locks belong to."""
        return self.frames[-1].hold if self.frames else self

    def writes_now(self) -> None:
        """It gets a number on the server, and so does each part of it, and a record of its end."""
        self.wrote = True
        for frame in self.frames:
            frame.hold.wrote = True

    def vanish(self) -> None:
        """The server is killed: it leaves no record."""
        self.wrote = False
        for frame in self.frames:
            frame.hold.wrote = False

    def free(self, locks: dict[Key, "Transaction"]) -> None:
        """Give up the locks that are its own."""
        for key in self.keys:
            locks.pop(key, None)
        self.keys = []
        self._over = True


@dataclass(slots=True)
class Frame:
    """A savepoint: its name, and all as it was then."""

    name: str
    hold: Transaction
    writes: dict[Key, Any]
    ops: int
    read_only: bool
    settings: dict[str, str]
    local: dict[str, str]


class Session:
    """One session on `server`. `why` says how it ended: "closed", "killed", or the SQLSTATE."""

    __slots__ = (
        "_asynchronous", "_cancel", "_changed", "_custom", "_default_read_only", "_isolation",
        "_last", "_local", "_plain", "_reset", "_saved", "_set", "id", "open", "server",
        "transaction", "user", "why", "world",
    )  # fmt: skip

    def __init__(
        self, server: Server, number: int, user: str, settings: Mapping[str, str]
    ) -> None:
        self.server = server
        self.world = server.world
        self.id = number
        self.user = user
        self.open = True
        self.why = ""
        self.transaction: Transaction | None = None
        self._last: Refused | None = None
        self._cancel = -inf  # until when the next query meets a conflict
        self._custom: set[str] = set()
        self._reset: dict[str, str] = {}
        # Both are replaced whole, so that what a savepoint remembers stays as it was.
        self._set: dict[str, str] = {}
        self._local: dict[str, str] = {}
        self._saved: tuple[dict[str, str], dict[str, str]] = (self._set, self._local)
        for name, value in settings.items():
            known = self._name(name)
            self._reset[known] = _value(known, value)
        self._settings_changed()

    def __repr__(self) -> str:
        return f"<Session {self.id} on {self.server.name} {self.why or 'open'}>"

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction block is open, be it a failed one."""
        return self.transaction is not None

    @property
    def failed(self) -> bool:
        """Whether the open transaction block can only be rolled back."""
        return self.transaction is not None and self.transaction.failed

    @property
    def read_only(self) -> bool:
        """Whether what runs next may not write."""
        if self.transaction is not None:
            return self.transaction.read_only
        return self.server.recovering or self._default_read_only

    @property
    def settings(self) -> dict[str, str]:
        """What differs from the session's start."""
        return {**self._set, **self._local}

    def execute(
        self, sql: str, params: Mapping[str, Any] | Sequence[Any] | None, now: float, op: str = ""
    ) -> Rows:
        """Run one statement. Raises Refused, or Blocked: see there."""
        if not self.open:
            refused, self._last = self._last, None
            raise refused or _broken()
        statement = _STATEMENTS.get(sql) or _understood(sql)
        transaction = self.transaction
        if transaction is None:
            return statement.run(self, params, now, op)
        if transaction.failed and not statement.ends:
            text = (
                "current transaction is aborted, commands ignored until end of transaction block"
            )
            raise Refused("25P02", text)
        transaction.portal = False
        try:
            rows = statement.run(self, params, now, op)
            transaction.portal = statement.query and bool(params)
            return rows
        except Refused as refused:
            if refused.ends:
                self._last = None
            elif self.transaction is transaction:
                self._fail(transaction, now)
            raise

    def cancel(self, now: float) -> Refused:
        """Cancel the statement that is blocked; returns the error it gets."""
        if self.transaction is not None:
            self._fail(self.transaction, now)
        return Refused("57014", "canceling statement due to user request")

    def cancel_next(self, now: float) -> None:
        """The query that runs in the next second meets a recovery conflict."""
        self._cancel = now + 1.0

    def close(self, now: float) -> None:
        """The client went away."""
        if self.open:
            self.end("closed", None, now)

    def end(self, why: str, last: Refused | None, now: float, *, vanish: bool = False) -> None:
        """End it; its transaction is rolled back, or with `vanish` just gone."""
        if not self.open:
            return
        self.open = False
        self.why = why
        self._last = last
        transaction = self.transaction
        if transaction is not None:
            if vanish:
                transaction.vanish()
            self._undo(transaction, now)
            self.transaction = None
        self.server.sessions.pop(self.id, None)

    # -- transactions -----------------------------------------------------------------------

    def _begin(self) -> Transaction:
        read_only = self._default_read_only or self.server.recovering
        number = self.world.number()
        return Transaction(self, number, self._isolation, read_only)

    def _snapshot(self, transaction: Transaction) -> tuple[Line, int]:
        """What a statement of `transaction` sees."""
        server = self.server
        transaction.snapshot_taken = True
        if transaction.isolation is READ_COMMITTED:
            return server.line, server.position
        if transaction.snapshot is None:
            if transaction.isolation is SERIALIZABLE:
                if server.recovering:
                    raise Refused("0A000", "cannot use serializable mode in a hot standby")
                if transaction.read_only and transaction.deferrable:
                    self._await_safe_snapshot()
            transaction.snapshot = (server.line, server.position)
        return transaction.snapshot

    def _await_safe_snapshot(self) -> None:
        for session in self.server.sessions.values():
            other = session.transaction
            if other is None or other.over or other.read_only or session is self:
                continue
            if other.isolation is SERIALIZABLE and other.snapshot is not None:
                raise Blocked(other)

    def _commit(self, transaction: Transaction, now: float) -> int:
        """Commit; returns where the WAL of the server then ends."""
        server = self.server
        transaction._over = True
        if transaction.wrote:
            end = server.append()
            commit = Commit(
                transaction.id, server.name, server.line.number, end, now, transaction.writes,
                tuple(transaction.ops),
            )  # fmt: skip
            self.world.committed(commit, server.line)
            (server.flush_later if self._asynchronous else server.flush)(end, now)
        for frame in transaction.frames:
            frame.hold.free(server.locks)
        transaction.free(server.locks)
        return server.end

    def _undo(self, transaction: Transaction, now: float) -> None:
        """Roll back what `transaction` did, and free its locks."""
        server = self.server
        for frame in reversed(transaction.frames):
            self._abort(frame.hold, now)
        wrote = transaction.wrote
        end = self._abort(transaction, now)
        if wrote:
            server.flush_later(end, now)
        transaction.writes, transaction.ops = {}, []
        transaction.waiting = None

    def _abort(self, part: Transaction, now: float) -> int:
        """Free the locks of a transaction, or of a part of one; its record is no commit."""
        server = self.server
        if part.wrote:
            part.wrote = False
            server.line.ends.append(server.append())
            server.line.whens.append(now)
        part.free(server.locks)
        return server.end

    def _fail(self, transaction: Transaction, now: float) -> None:
        """A statement in `transaction` failed: its locks are free at once, or those taken since
        the last savepoint."""
        transaction.failed = True
        transaction.waiting = None
        if transaction.frames:
            self._unwind(transaction, len(transaction.frames) - 1, now)
        else:
            self._undo(transaction, now)

    def _unwind(self, transaction: Transaction, at: int, now: float) -> None:
        """Undo what was done since the savepoint `at`."""
        for frame in reversed(transaction.frames[at:]):
            self._abort(frame.hold, now)
        frame = transaction.frames[at]
        transaction.writes = dict(frame.writes)
        del transaction.ops[frame.ops :]

    def _leave(self, settings: tuple[dict[str, str], dict[str, str]]) -> None:
        """No transaction block is open any more; `settings` are in force."""
        self.transaction = None
        self._set, self._local = settings
        self._settings_changed()

    # -- settings ---------------------------------------------------------------------------

    def _name(self, name: str) -> str:
        """`name` as it is kept. Refused where the server knows no such setting."""
        known = name.lower()
        if known in _DEFAULTS:
            return known
        if "." in known:
            self._custom.add(known)
            return known
        raise Refused("42704", f'unrecognized configuration parameter "{name}"')

    def _get(self, name: str) -> str | None:
        """The value of the setting `name`, None where there is none."""
        for values in (self._local, self._set, self._reset, _DEFAULTS):
            if name in values:
                return values[name]
        return "" if name in self._custom else None

    def _show(self, name: str) -> str | None:
        name = name.lower()
        if name == "transaction_read_only":
            return "on" if self.read_only else "off"
        if name == "transaction_isolation":
            return self.transaction.isolation if self.transaction else self._isolation
        return self._get(name)

    def _put(self, name: str, value: str | None, local: bool) -> str:
        """Set `name`, to its first value where `value` is None; returns what it then is."""
        known = self._name(name)
        if value is not None:
            value = _value(known, value)
        if local and self.transaction is None:
            return self._first(known) if value is None else value
        kept = {n: v for n, v in self._local.items() if n != known}
        if local:
            self._local = {**kept, known: self._first(known) if value is None else value}
        else:
            self._local = kept
            self._set = {n: v for n, v in self._set.items() if n != known}
            if value is not None and value != self._first(known):
                self._set[known] = value
        self._settings_changed()
        return self._get(known) or ""

    def _first(self, name: str) -> str:
        return self._reset.get(name, _DEFAULTS.get(name, ""))

    def _settings_changed(self) -> None:
        self._changed = tuple(sorted(self.settings.items()))
        self._isolation = _LEVELS[self._get("default_transaction_isolation") or READ_COMMITTED]
        self._default_read_only = self._get("default_transaction_read_only") == "on"
        self._plain = self._isolation is not SERIALIZABLE
        self._asynchronous = self._get("synchronous_commit") == "off"


# -- data statements ------------------------------------------------------------------------


def _note(
    session: Session, op: str, sql: str, now: float, line: Line, lsn: int, txid: int, writes: bool
) -> Where:
    name, timeline = session.server.name, line.number
    session.world.ran.append(
        Ran(op, sql, name, timeline, lsn, now, session._changed, session.id, txid, writes)
    )
    return Where(name, timeline, lsn)


def _meet_conflict(session: Session, now: float) -> None:
    if session._cancel > -inf:
        met, session._cancel = now <= session._cancel, -inf
        server, transaction = session.server, session.transaction
        if met and server.recovering:
            if transaction is not None and transaction.frames:
                # To abort the inner transaction would not be enough.
                server.terminate(session, "40001", now)
                raise Refused("40001", _ENDS["40001"], ends=True)
            raise Refused("40001", "canceling statement due to conflict with recovery")


def _look(session: Session, now: float) -> tuple[Line, int]:
    """What a query sees; in autocommit as in a transaction."""
    if session._cancel > -inf:
        _meet_conflict(session, now)
    transaction, server = session.transaction, session.server
    if transaction is not None:
        return session._snapshot(transaction)
    if session._plain:
        return server.line, server.position
    return session._snapshot(session._begin())


def _get_id(params: Any, index: int = 0) -> int:
    return int(params["id"] if isinstance(params, Mapping) else params[index])


def _select(sql: str, table: str, session: Session, params: Any, now: float, op: str) -> Rows:
    number = params["id"] if type(params) is dict else _get_id(params)
    line, lsn = _look(session, now)
    transaction = session.transaction
    where = _note(session, op, sql, now, line, lsn, transaction.id if transaction else 0, False)
    if not 0 <= number < IDS:
        return Rows([], 0, "SELECT 0", where)
    key = (table, number)
    if transaction is not None and key in transaction.writes:
        value = transaction.writes[key]
    else:
        value = line.value(key, lsn)
    return Rows([(value,)], 1, "SELECT 1", where)


def _may_write(session: Session, what: str) -> None:
    if session.read_only:
        raise Refused("25006", f"cannot execute {what} in a read-only transaction")


_Change: TypeAlias = Callable[[Session, Transaction, Any, Line, int], Rows]


def _write(
    sql: str, what: str, change: _Change, session: Session, params: Any, now: float, op: str
) -> Rows:
    """Run what `change` does, in the open transaction or one of its own."""
    _may_write(session, what)
    open_one = session.transaction
    transaction = session._begin() if open_one is None else open_one
    line, lsn = session._snapshot(transaction)
    rows = change(session, transaction, params, line, lsn)
    if open_one is None:
        wrote = transaction.wrote
        end = session._commit(transaction, now)
        where = _note(session, op, sql, now, session.server.line, end, transaction.id, wrote)
        return Rows(rows.rows, rows.rowcount, rows.tag, where)
    server = session.server
    where = _note(session, op, sql, now, server.line, server.end, transaction.id, True)
    return Rows(rows.rows, rows.rowcount, rows.tag, where)


def _take(session: Session, transaction: Transaction, key: Key, lsn: int) -> None:
    """Lock the row `key`, of which the statement sees the version of `lsn`."""
    locks = session.server.locks
    owner = locks.get(key)
    if owner is not None and owner.top is not transaction:
        _wait(transaction, owner)
    transaction.waiting = None
    if transaction.isolation is not READ_COMMITTED and session.server.line.changed(key) > lsn:
        raise Refused("40001", "could not serialize access due to concurrent update")
    if owner is None:
        holder = transaction.holder
        locks[key] = holder
        holder.keys.append(key)
    transaction.writes_now()
    session.server.append()


def _wait(transaction: Transaction, owner: Transaction) -> None:
    """Block, or find that this would close a circle of waits."""
    other: Transaction | None = owner.top
    while other is not None and not other.over:
        other = None if other.waiting is None else other.waiting.top
        if other is transaction:
            raise Refused("40P01", "deadlock detected")
    transaction.waiting = owner
    raise Blocked(owner)


def _lock_item(
    session: Session, transaction: Transaction, params: Any, line: Line, lsn: int
) -> Rows:
    number = _get_id(params)
    if not 0 <= number < IDS:
        return Rows([], 0, "SELECT 0", None)
    key = ("item", number)
    _take(session, transaction, key, lsn)
    if key in transaction.writes:
        value = transaction.writes[key]
    else:
        value = session.server.line.value(key, session.server.end)
    return Rows([(value,)], 1, "SELECT 1", None)


def _update_item(
    session: Session, transaction: Transaction, params: Any, line: Line, lsn: int
) -> Rows:
    number = _get_id(params, 1)
    if not 0 <= number < IDS:
        return Rows([], 0, "UPDATE 0", None)
    key = ("item", number)
    _take(session, transaction, key, lsn)
    transaction.writes[key] = params["value"] if isinstance(params, Mapping) else params[0]
    return Rows([], 1, "UPDATE 1", None)


def _increment(
    session: Session, transaction: Transaction, params: Any, line: Line, lsn: int
) -> Rows:
    number = _get_id(params)
    if not 0 <= number < IDS:
        return Rows([], 0, "UPDATE 0", None)
    key = ("counter", number)
    _take(session, transaction, key, lsn)
    writes, server = transaction.writes, session.server
    count = writes[key] if key in writes else server.line.value(key, server.end)
    writes[key] = count + 1
    return Rows([], 1, "UPDATE 1", None)


def _append(session: Session, transaction: Transaction, params: Any, line: Line, lsn: int) -> Rows:
    transaction.ops.append(params["op"] if isinstance(params, Mapping) else params[0])
    transaction.writes_now()
    session.server.append()
    return Rows([], 1, "INSERT 0 1", None)


def _nextval(
    session: Session, transaction: Transaction, params: Any, line: Line, lsn: int
) -> Rows:
    return Rows([(session.server.nextval(transaction),)], 1, "SELECT 1", None)


# -- other queries --------------------------------------------------------------------------


def _row(row: tuple[Any, ...], tag: str = "SELECT 1") -> Rows:
    return Rows([row], 1, tag, None)


def _select_one(session: Session, params: Any, now: float, op: str) -> Rows:
    _look(session, now)
    return Rows([(1,)], 1, "SELECT 1", None)


def _divide(session: Session, params: Any, now: float, op: str) -> Rows:
    _look(session, now)
    raise Refused("22012", "division by zero")


def _sleep(session: Session, params: Any, now: float, op: str) -> Rows:
    _look(session, now)
    return Rows([("",)], 1, "SELECT 1", None)


def _probe(session: Session, params: Any, now: float, op: str) -> Rows:
    _look(session, now)
    return Rows([session.server.probe(now)], 1, "SELECT 1", None)


def _role(session: Session, params: Any, now: float, op: str) -> Rows:
    _look(session, now)
    row = (session.server.recovering, *[None] * 8, session.world.database)
    return Rows([row], 1, "SELECT 1", None)


def _tenant(session: Session, params: Any, now: float, op: str) -> Rows:
    line, lsn = _look(session, now)
    transaction = session.transaction
    where = _note(session, op, TENANT, now, line, lsn, transaction.id if transaction else 0, False)
    return Rows([(session._show("app.tenant"),)], 1, "SELECT 1", where)


def _current_settings(
    names: tuple[tuple[str, bool], ...], session: Session, params: Any, now: float, op: str
) -> Rows:
    _look(session, now)
    row = []
    for name, missing_ok in names:
        value = session._show(name)
        if value is None and not missing_ok:
            raise Refused("42704", f'unrecognized configuration parameter "{name}"')
        row.append(value)
    return _row(tuple(row))


def _show(name: str, session: Session, params: Any, now: float, op: str) -> Rows:
    value = session._show(name)
    if value is None:
        raise Refused("42704", f'unrecognized configuration parameter "{name}"')
    return _row((value,), "SHOW")


def _set_config(
    name: str, value: str, local: bool, session: Session, params: Any, now: float, op: str
) -> Rows:
    _look(session, now)
    if value.startswith("%"):
        key = value[2:-2]
        value = params[key] if isinstance(params, Mapping) else params[0]
    return _row((session._put(name, value, local),))


# -- utility statements ---------------------------------------------------------------------


def _done(tag: str) -> Rows:
    return Rows([], -1, tag, None)


def _set(
    name: str, value: str | None, local: bool, session: Session, params: Any, now: float, op: str
) -> Rows:
    session._put(name, value, local)
    return _done("RESET" if value is None and not local else "SET")


def _set_default(
    name: str, local: bool, session: Session, params: Any, now: float, op: str
) -> Rows:
    session._put(name, None, local)
    return _done("SET")


def _reset_all(session: Session, params: Any, now: float, op: str) -> Rows:
    session._set, session._local = {}, {}
    session._settings_changed()
    return _done("RESET")


def _discard_all(session: Session, params: Any, now: float, op: str) -> Rows:
    if session.transaction is not None:
        raise Refused("25001", "DISCARD ALL cannot run inside a transaction block")
    _reset_all(session, params, now, op)
    return _done("DISCARD ALL")


def _empty(session: Session, params: Any, now: float, op: str) -> Rows:
    return _done("")


def _deallocate_all(session: Session, params: Any, now: float, op: str) -> Rows:
    return _done("DEALLOCATE ALL")


Mode: TypeAlias = tuple[str, str | bool]


def _begin_statement(
    tag: str, modes: tuple[Mode, ...], session: Session, params: Any, now: float, op: str
) -> Rows:
    transaction = session.transaction
    if transaction is None:  # else a warning, and the modes count all the same
        transaction = session._begin()
        _apply(modes, transaction, session)
        session.transaction = transaction
        session._saved = (session._set, session._local)
    else:
        _apply(modes, transaction, session)
    return _done(tag)


def _apply(modes: tuple[Mode, ...], transaction: Transaction, session: Session) -> None:
    """Make `modes` those of `transaction`."""
    seen, nested = transaction.snapshot_taken, bool(transaction.frames)
    recovering = session.server.recovering
    for name, value in modes:
        if name == "isolation":
            if value != transaction.isolation:
                if seen or nested:
                    raise Refused("25001", "SET TRANSACTION ISOLATION LEVEL must be called before any query")  # fmt: skip  # noqa: E501
                if value == SERIALIZABLE and recovering:
                    raise Refused("0A000", "cannot use serializable mode in a hot standby")
            transaction.isolation = _LEVELS[str(value)]
        elif name == "read_only":
            if not value and transaction.read_only:
                if nested and transaction.frames[-1].read_only:
                    raise Refused("25001", "cannot set transaction read-write mode inside a read-only transaction")  # fmt: skip  # noqa: E501
                if seen:
                    text = "transaction read-write mode must be set before any query"
                    raise Refused("25001", text)
                if recovering:
                    text = "cannot set transaction read-write mode during recovery"
                    raise Refused("0A000", text)
            transaction.read_only = bool(value)
        else:
            if seen or nested:
                text = "SET TRANSACTION [NOT] DEFERRABLE must be called before any query"
                raise Refused("25001", text)
            transaction.deferrable = bool(value)


def _set_transaction(
    modes: tuple[Mode, ...], session: Session, params: Any, now: float, op: str
) -> Rows:
    # Outside a transaction block it warns, and has no effect that lasts.
    _apply(modes, session.transaction or session._begin(), session)
    return _done("SET")


_CHARACTERISTICS = {
    "isolation": "default_transaction_isolation",
    "read_only": "default_transaction_read_only",
    "deferrable": "default_transaction_deferrable",
}


def _set_characteristics(
    modes: tuple[Mode, ...], session: Session, params: Any, now: float, op: str
) -> Rows:
    for name, value in modes:
        text = value if isinstance(value, str) else "on" if value else "off"
        session._put(_CHARACTERISTICS[name], text, False)
    return _done("SET")


def _commit_statement(session: Session, params: Any, now: float, op: str) -> Rows:
    transaction = session.transaction
    if transaction is None:
        return _done("COMMIT")
    if transaction.failed:
        return _rollback(session, params, now, op)
    end = session._commit(transaction, now)
    session._leave((session._set, {}))
    server = session.server
    return Rows([], -1, "COMMIT", Where(server.name, server.line.number, end))


def _rollback(session: Session, params: Any, now: float, op: str) -> Rows:
    transaction = session.transaction
    if transaction is not None:
        session._undo(transaction, now)
        session._leave(session._saved)
    return _done("ROLLBACK")


def _savepoint(name: str, session: Session, params: Any, now: float, op: str) -> Rows:
    transaction = _block(session, "SAVEPOINT")
    hold = Transaction(session, transaction.id, transaction.isolation, False)
    hold.top = transaction
    transaction.frames.append(
        Frame(
            name,
            hold,
            dict(transaction.writes),
            len(transaction.ops),
            transaction.read_only,
            session._set,
            session._local,
        )
    )
    return _done("SAVEPOINT")


def _block(session: Session, what: str) -> Transaction:
    if session.transaction is None:
        raise Refused("25P01", f"{what} can only be used in transaction blocks")
    return session.transaction


def _found(transaction: Transaction, name: str) -> int:
    for at in range(len(transaction.frames) - 1, -1, -1):
        if transaction.frames[at].name == name:
            return at
    raise Refused("3B001", f'savepoint "{name}" does not exist')


def _release(name: str, session: Session, params: Any, now: float, op: str) -> Rows:
    transaction = _block(session, "RELEASE SAVEPOINT")
    at = _found(transaction, name)
    frames = transaction.frames[at:]
    del transaction.frames[at:]
    into = transaction.holder
    for frame in frames:
        frame.hold.into = into
        into.keys += frame.hold.keys
        into.wrote |= frame.hold.wrote
    transaction.read_only = frames[0].read_only
    return _done("RELEASE")


def _rollback_to(name: str, session: Session, params: Any, now: float, op: str) -> Rows:
    transaction = _block(session, "ROLLBACK TO SAVEPOINT")
    at = _found(transaction, name)
    frame = transaction.frames[at]
    session._unwind(transaction, at, now)
    del transaction.frames[at + 1 :]
    frame.hold = Transaction(session, transaction.id, transaction.isolation, False)
    frame.hold.top = transaction
    transaction.failed = False
    transaction.read_only = frame.read_only
    session._set, session._local = frame.settings, frame.local
    session._settings_changed()
    return _done("ROLLBACK")


# -- what a text means ----------------------------------------------------------------------


class Statement(NamedTuple):
    """What a text means; `ends`: it may run in a failed transaction block; `query`: it gives rows,
    by a portal."""

    run: Callable[[Session, Any, float, str], Rows]
    ends: bool = False
    query: bool = False


_STATEMENTS: dict[str, Statement] = {
    READ: Statement(partial(_select, READ, "item"), query=True),
    COUNT: Statement(partial(_select, COUNT, "counter"), query=True),
    LOCK: Statement(partial(_write, LOCK, "SELECT FOR UPDATE", _lock_item)),
    UPDATE: Statement(partial(_write, UPDATE, "UPDATE", _update_item)),
    INCREMENT: Statement(partial(_write, INCREMENT, "UPDATE", _increment)),
    APPEND: Statement(partial(_write, APPEND, "INSERT", _append)),
    NEXTVAL: Statement(partial(_write, NEXTVAL, "nextval()", _nextval)),
    ONE: Statement(_select_one),
    DIVIDE: Statement(_divide),
    SLEEP: Statement(_sleep, query=True),
    TENANT: Statement(_tenant),
    "": Statement(_empty, ends=True),
    PROBE_SQL: Statement(_probe),
    ROLE_SQL: Statement(_role),
    "COMMIT": Statement(_commit_statement, True),
    "END": Statement(_commit_statement, True),
    "ROLLBACK": Statement(_rollback, True),
    "ABORT": Statement(_rollback, True),
    "RESET ALL": Statement(_reset_all),
    "DISCARD ALL": Statement(_discard_all),
    "DEALLOCATE ALL": Statement(_deallocate_all),
}


def _spaced(sql: str) -> str:
    return " ".join(sql.split()).rstrip("; ")


_BY_SPACED = {_spaced(sql): statement for sql, statement in _STATEMENTS.items()}
_UNDERSTOOD: dict[str, Statement] = {}
_UNDERSTOOD_MOST = 4096

_MODE = re.compile(
    r"ISOLATION LEVEL (SERIALIZABLE|REPEATABLE READ|READ COMMITTED|READ UNCOMMITTED)"
    r"|READ (ONLY|WRITE)|(NOT )?(DEFERRABLE)",
    re.IGNORECASE,
)
_LITERAL = r"E?'(?:[^']|'')*'"
_ITEM = rf'(?:{_LITERAL}|"[^"]*"|[\w.+-]+)'
_ITEMS = re.compile(_ITEM)
_CURRENT = re.compile(rf"current_setting\(({_LITERAL})(?:, ?(true|false))?\)", re.IGNORECASE)
_SET_CONFIG = re.compile(
    rf"SELECT set_config\(({_LITERAL}), ?({_LITERAL}|%\(\w+\)s|%s), ?(true|false)\)",
    re.IGNORECASE,
)
_SET = re.compile(
    rf'SET (SESSION |LOCAL )?([\w.]+|"[^"]+") ?(?:=| TO ) ?({_ITEM}(?: ?, ?{_ITEM})*)',
    re.IGNORECASE,
)
_TRANSACTION = re.compile(r"(BEGIN|START)( TRANSACTION| WORK)?(?: (.*))?", re.IGNORECASE)
_NAMED = re.compile(
    r"(SAVEPOINT|RELEASE(?: SAVEPOINT)?|ROLLBACK(?: WORK| TRANSACTION)? TO(?: SAVEPOINT)?)"
    r' (\w+|"[^"]+")',
    re.IGNORECASE,
)


def _understood(sql: str) -> Statement:
    found = _UNDERSTOOD.get(sql)
    if found is None:
        if len(_UNDERSTOOD) >= _UNDERSTOOD_MOST:
            _UNDERSTOOD.clear()
        spaced = _spaced(sql)
        found = _BY_SPACED.get(spaced) or _BY_SPACED.get(spaced.upper()) or _parsed(spaced)
        if found is None:
            raise NotImplementedError(f"the model does not understand {sql!r}")
        _UNDERSTOOD[sql] = found
    return found


def _parsed(sql: str) -> Statement | None:
    if match := _TRANSACTION.fullmatch(sql):
        verb = match[1].upper()
        tag = "BEGIN" if verb == "BEGIN" else "START TRANSACTION"
        return Statement(partial(_begin_statement, tag, _modes(match[3] or "")))
    if match := _NAMED.fullmatch(sql):
        name = match[2].strip('"') if match[2].startswith('"') else match[2].lower()
        verb = match[1].upper()
        if verb.startswith("ROLLBACK"):
            return Statement(partial(_rollback_to, name), True)
        return Statement(partial(_savepoint if verb == "SAVEPOINT" else _release, name))
    upper = sql.upper()
    for prefix, run in (
        ("SET TRANSACTION ", _set_transaction),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION ", _set_characteristics),
    ):
        if upper.startswith(prefix):
            return Statement(partial(run, _modes(sql[len(prefix) :])))
    if upper in ("COMMIT WORK", "COMMIT TRANSACTION", "END WORK", "END TRANSACTION"):
        return _STATEMENTS["COMMIT"]
    if upper in ("ROLLBACK WORK", "ROLLBACK TRANSACTION"):
        return _STATEMENTS["ROLLBACK"]
    return _parsed_setting(sql, upper)


def _parsed_setting(sql: str, upper: str) -> Statement | None:
    if match := _SET.fullmatch(sql):
        local, name = (match[1] or "").upper() == "LOCAL ", match[2].strip('"')
        if match[3].upper() == "DEFAULT":
            return Statement(partial(_set_default, name, local))
        values = [_literal(item) for item in _ITEMS.findall(match[3])]
        if name.lower() == "search_path":
            values = [", ".join(_identifier(value) for value in values)]
        if len(values) > 1:
            raise NotImplementedError(f"the model knows no setting of several values: {sql!r}")
        return Statement(partial(_set, name, values[0], local))
    if upper.startswith("RESET "):
        return Statement(partial(_set, sql[6:].strip('"'), None, False))
    if upper.startswith("SHOW "):
        return Statement(partial(_show, sql[5:].strip('"')))
    if match := _SET_CONFIG.fullmatch(sql):
        value = match[2] if match[2].startswith("%") else _literal(match[2])
        local = match[3].lower() == "true"
        return Statement(partial(_set_config, _literal(match[1]), value, local))
    if upper.startswith("SELECT "):
        found = list(_CURRENT.finditer(sql))
        if found and not _CURRENT.sub("", sql[7:]).strip(", "):
            names = tuple((_literal(m[1]), (m[2] or "").lower() == "true") for m in found)
            return Statement(partial(_current_settings, names))
    return None


def _literal(text: str) -> str:
    if text[0] in "Ee" and text[1:2] == "'":
        return text[2:-1].replace("''", "'").replace("\\\\", "\\")
    if text[0] == "'":
        return text[1:-1].replace("''", "'")
    return text.strip('"')


def _identifier(text: str) -> str:
    quoted = text.replace('"', '""')
    return text if re.fullmatch(r"[a-z_][a-z0-9_$]*", text) else f'"{quoted}"'


def _modes(text: str) -> tuple[Mode, ...]:
    modes: list[Mode] = []
    for match in _MODE.finditer(text):
        if match[1]:
            level = match[1].lower()
            modes.append(("isolation", READ_COMMITTED if level == "read uncommitted" else level))
        elif match[2]:
            modes.append(("read_only", match[2].upper() == "ONLY"))
        else:
            modes.append(("deferrable", match[3] is None))
    if _MODE.sub("", text).strip(", "):
        raise NotImplementedError(f"the model does not understand the modes {text!r}")
    return tuple(modes)


# -- tables of texts ------------------------------------------------------------------------

_LEVELS = {
    "read uncommitted": READ_COMMITTED,
    READ_COMMITTED: READ_COMMITTED,
    REPEATABLE_READ: REPEATABLE_READ,
    SERIALIZABLE: SERIALIZABLE,
}
_DEFAULTS = {
    "application_name": "",
    "client_encoding": "UTF8",
    "client_min_messages": "notice",
    "datestyle": "ISO, MDY",
    "default_transaction_deferrable": "off",
    "default_transaction_isolation": READ_COMMITTED,
    "default_transaction_read_only": "off",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "lock_timeout": "0",
    "role": "none",
    "search_path": '"$user", public',
    "statement_timeout": "0",
    "synchronous_commit": "on",
    "timezone": "GMT",
    "transaction_timeout": "0",
    "work_mem": "4MB",
}
_SWITCHES = frozenset({"default_transaction_deferrable", "default_transaction_read_only"})
_WORDS = {"true": "on", "yes": "on", "1": "on", "false": "off", "no": "off", "0": "off"}
_TIME = re.compile(r"(\d+) ?(ms|s|min|h|d)?")
_UNITS = {"d": 86_400_000, "h": 3_600_000, "min": 60_000, "s": 1000, "ms": 1}
_CHOICES = {
    "default_transaction_isolation": frozenset(_LEVELS),
    "synchronous_commit": frozenset({"on", "off", "local", "remote_write", "remote_apply"}),
}


def _value(name: str, value: str) -> str:
    """`value` as the server shows it. Refused where it is none for the setting `name`."""
    if name in _SWITCHES or name == "synchronous_commit":
        value = _WORDS.get(value.lower(), value.lower())
    if name in _SWITCHES and value not in ("on", "off"):
        raise Refused("22023", f'parameter "{name}" requires a Boolean value')
    if name in _CHOICES and value not in _CHOICES[name]:
        raise Refused("22023", f'invalid value for parameter "{name}": "{value}"')
    if name.endswith("_timeout") and name in _DEFAULTS:
        match = _TIME.fullmatch(value)
        if match is None:
            raise Refused("22023", f'invalid value for parameter "{name}": "{value}"')
        number = int(match[1]) * _UNITS[match[2] or "ms"]
        unit = next(u for u, size in _UNITS.items() if number % size == 0)
        return f"{number // _UNITS[unit]}{unit}" if number else "0"
    return value


_ENDS = {
    "25P03": "terminating connection due to idle-in-transaction timeout",
    "25P04": "terminating connection due to transaction timeout",
    "40001": "terminating connection due to conflict with recovery",
    "57P01": "terminating connection due to administrator command",
    "57P02": "terminating connection because of crash of another server process",
    "57P05": "terminating connection due to idle-session timeout",
}
_LOGIN_TEXTS = {
    "28P01": 'password authentication failed for user "{user}"',
    "28000": 'no pg_hba.conf entry for host "127.0.0.1", user "{user}"',
    "53300": "sorry, too many clients already",
    "57P03": "the database system is starting up",
}


def _broken() -> Refused:
    return Refused("", "server closed the connection unexpectedly", ends=True)


def _header(lsn: int) -> int:
    """Bytes of the header of the page that begins at `lsn`; 0 where none does."""
    if lsn % WAL_PAGE:
        return 0
    return PAGE_HEADER if lsn % SEGMENT else SEGMENT_HEADER


def _text(lsn: int) -> str:
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"
