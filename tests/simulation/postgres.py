"""A small PostgreSQL cluster in memory: its WAL, timelines, transactions and replication.

It is held to real servers by ``test_reality.py``. Nothing here reads a clock or draws lots by
itself: time arrives as `now`, in seconds, and chance as a `random.Random`. What it does not
understand raises NotImplementedError.
"""

import heapq
from collections.abc import Callable, Mapping
from math import floor
from random import Random
from typing import Any

from router.connect.probe import WAL_PAGE
from tests.simulation.answers import (
    APPEND,
    COUNT,
    DIVIDE,
    ENDS,
    IDS,
    INCREMENT,
    LOCK,
    NEXTVAL,
    ONE,
    READ,
    SCHEMA,
    SLEEP,
    TENANT,
    UPDATE,
    Blocked,
    Commit,
    Ran,
    Refused,
    Rows,
    Where,
    broken,
)
from tests.simulation.session import Session, Transaction
from tests.simulation.settings import READ_COMMITTED, REPEATABLE_READ, SERIALIZABLE
from tests.simulation.synchronous import Wait
from tests.simulation.wal import SEGMENT, START, Key, Line, header, lsn_text

__all__ = [
    "APPEND", "COUNT", "DIVIDE", "IDS", "INCREMENT", "LOCK", "NEXTVAL", "ONE", "READ",
    "READ_COMMITTED", "REPEATABLE_READ", "SCHEMA", "SERIALIZABLE", "SLEEP", "TENANT", "UPDATE",
    "Blocked", "Commit", "Key", "Line", "Ran", "Refused", "Rows", "Server", "Session",
    "Transaction", "Where", "World",
]  # fmt: skip

WAL_WRITER_DELAY = 0.2
"""Seconds; setting ``wal_writer_delay``."""
WAL_RECEIVER_TIMEOUT = 60.0
"""Seconds a WAL receiver waits for an upstream that is silent."""
WAL_RECEIVER_STATUS = 10.0
"""Seconds after which a WAL receiver tells its upstream how far it is, and hears if that knows
nothing of it."""
SEQUENCE_AHEAD = 32
"""Values of a sequence that one WAL record covers."""
SUPERUSERS = frozenset({"postgres"})
SUPERUSER_RESERVED = 3
"""Setting ``superuser_reserved_connections``."""

CATCH_UP = 0.5
"""Seconds at most from when a standby that was started lets sessions in to when it has replayed
what it had received."""
CATCH_UP_STEPS = 8
"""Steps in which it replays that."""
POSTMASTER_EXIT = "terminating connection due to unexpected postmaster exit"
"""What a session says that finds the postmaster dead before it is killed itself."""
ORPHANS = 0.2
"""How many of the sessions of a server that is killed say so."""


class World:
    """A primary and its replicas.

    `archive`: the servers share the histories of all timelines, so that each promotion takes a
    number of its own; else two that cannot know of each other take the same.
    `monitor_sees_receivers`: whether the role that probes may see ``pg_stat_wal_receiver``.
    `retry_delay`: how long a standby takes to find that its upstream is there.
    `catch_up`: how long a standby that was started may need to replay what it had.
    `background`: whether servers write and flush WAL, and make restartpoints, by themselves.
    `synchronous`: whether commits wait until a standby has flushed them.
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
        retry_delay: float = 0.02,
        catch_up: float = CATCH_UP,
        synchronous: bool = False,
    ) -> None:
        self.rand = rand
        self.monitor_sees_receivers = monitor_sees_receivers
        self.receive_delay = receive_delay
        self.replay_delay = replay_delay
        self.archive = archive
        self.start_delay = start_delay
        self.database = database
        self.background = background
        self.retry_delay = retry_delay
        self.catch_up = catch_up
        self.synchronous = synchronous
        self.system_id = "7400000000000000001"
        self.now = 0.0
        self.commits: list[Commit] = []
        self.ran: list[Ran] = []
        self.lines: list[Line] = [Line(1, None, START)]
        self.lost: set[int] = set()
        self.waits: dict[int, Wait] = {}  # by transaction: its wait for a standby
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
        line = Line(max(known, least) + 1, parent, begin, self.now)
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
        self.apart = False  # no packet of other servers reaches it
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
        self.waiting: list[Wait] = []  # commits, in order
        self.oldest = START  # where the WAL begins that it still has
        self.newest = self.line  # timeline it knows of
        self._control = 1  # timeline in its control file
        self._checkpoint = START  # from where it would replay
        self._since_replay: int | None = None  # where its replay began when it was started
        self._downstream: dict[str, Server] = {}
        self._async = START  # what the WAL writer shall flush
        self._whole = START  # the last record that a full page ends after
        self._writing = False
        self._life = 0  # of the process
        self._stream = 0  # of the WAL receiver
        self._buffered = 0  # what the kernel has got for one that is frozen
        self._crashed = False  # when it ended last
        self._asked = self.line  # of which its WAL receiver asked for WAL
        self._astray = False  # it was started for a timeline that its WAL does not fit to
        self._noted = 0  # where WAL ended at the last housekeeping
        self._confirmed = 0  # up to where a standby has flushed
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
        return self.end + header(self.end)

    @property
    def position(self) -> int:
        """Up to where it sees commits. What is past one that waits for a standby was told to
        nobody either, unless it did not wait."""
        if self.recovering:
            return self.replayed
        return self.waiting[0].lsn - 1 if self.waiting else self.end

    @property
    def stranded(self) -> bool:
        """Whether a standby has WAL past where a later timeline that it knows of left its own."""
        limit = self.newest.left_at(self.line)
        return self.recovering and limit is not None and self.received > limit

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
        """End one session; the next that its client hears is a FATAL of `sqlstate`, unless its
        commit waited for a standby: then the connection just breaks."""
        if session.awaited is not None and not session.awaited.over:
            self.give_up(session.awaited, now)
            session.end("gave up", broken(), now)
            return
        session.end(sqlstate, Refused(sqlstate, ENDS[sqlstate], ends=True), now)

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
            # Who waits for a standby is told nothing any more.
            told = orphan and session.awaited is None
            refused = Refused("57P01", POSTMASTER_EXIT, ends=True) if told else broken()
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
            behind, share = self.replayed - self._checkpoint, self.world.rand.random()
            # As far as it had written its pages out, which may be nearly all of it.
            self.replayed -= int(behind * share ** self.world.rand.choice((1, 6)))
            self._since_replay = self._checkpoint
            self._crashed = True
        else:
            self.world.lost.update(self.line.cut(self.flushed))
            self.end = self.flushed
            self.began = self.flushed
            self._since_replay = None  # crash recovery takes no note of when commits were made
            self._crashed = True

    def lose_power(self, now: float) -> None:
        """Its machine is switched off: as killed, but those that stream from it hear nothing."""
        self.leave(now)
        self.kill(now)

    def leave(self, now: float) -> None:
        """The network between it and other servers is gone; either side takes the other for
        silent."""
        self.apart = True
        if self.recovering:
            self._abandon(now)
        for standby in list(self._downstream.values()):
            standby._abandon(now)

    def _abandon(self, now: float) -> None:
        """Nothing comes from its upstream any more, which it finds when it has waited enough."""
        for server in self.world.servers:
            server._downstream.pop(self.name, None)
        self.world.at(now + WAL_RECEIVER_TIMEOUT, self._hear_of_end, self._stream)

    def come_back(self, now: float) -> None:
        """The network is there again."""
        self.apart = False
        for standby in self.world.servers:
            if standby.source is self and standby.name not in self._downstream:
                when = now + WAL_RECEIVER_STATUS * self.world.rand.random()
                self.world.at(when, standby._hear_of_end, standby._stream)
        if self.source is not None:
            self._hear_of_end(now, self._stream)
        elif self.recovering:
            self._try_to_connect(now)
        self._call_downstream(now)

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
            # How far it must come before it is consistent is written even without one.
            self._control = max(self._control, self.line.at(self.replayed).number)
            self._since_replay = self._checkpoint
            self._crashed = False
        for standby in list(self._downstream.values()):
            standby.receive(now, self._sent(), standby._stream)
        self._down(now)

    def _down(self, now: float) -> None:
        self.running = self.frozen = self.paused = False
        self._buffered = 0
        self.ended = now
        self._life += 1
        self._writing = False
        for wait in list(self.waiting):
            self.give_up(wait, now)
        self._disconnect()
        for standby in list(self._downstream.values()):
            standby._disconnect()

    def start(self, now: float) -> None:
        """Start it again, a primary as a primary, a standby as a standby.

        A standby that is stranded ends at once: the timeline it wants does not contain its
        minimum recovery point; but after a crash that point may be from before the branch.
        """
        if self.running or (self.stranded and not self._crashed):
            return
        self.running = True
        self.ready = now + self.world.start_delay * self.world.rand.random()
        if self.recovering:
            self._astray = self.stranded
            # It lets sessions in once it is consistent, which may be before it has replayed all.
            longest = self.world.catch_up if self.world.background else 0.0
            caught_up = self.ready + longest * self.world.rand.random()
            for step in range(1, CATCH_UP_STEPS + 1):
                share = step / CATCH_UP_STEPS
                when = self.ready + (caught_up - self.ready) * share
                lsn = self.replayed + round((self.received - self.replayed) * share)
                self.world.at(when, self._replay, lsn, self._life)
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
            self.receive(now, self._buffered, self._stream)
            source = self.source
            if source is not None and self.name in source._downstream:
                self.world.at(now, self.receive, source._sent(), self._stream)
            self.world.at(now, self._replay, self.received, self._life)
            self._try_to_connect(now)
        elif self.end > self.flushed:
            self._writing = False
            self._wake_writer(now)
        self._let_go(now)
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
        self.line = self.world.branch(self.line, self.received, self.newest.number)
        self.newest = self.line
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
            upstream.switch(now)
            upstream.checkpoint(now)
        self.copy(upstream)
        self.oldest = self._checkpoint - self._checkpoint % SEGMENT
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
        self.newest = upstream.newest
        self.began = None
        self._crashed = self._astray = False

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
        self._confirmed = 0
        logged = self.line.value(("seq", 0), self.end)
        self._sequence = (logged, logged)
        if self.world.background:
            self.world.at(now + self.world.rand.uniform(1, 8), self._keep_house, self._life)

    def append(self, size: int = 0) -> int:
        """Insert a record of `size` bytes, by default a drawn one; returns where it ends."""
        left = size or 56 + 8 * int(self.world.rand.random() * 43)
        began = at = self.end
        while True:
            at += header(at)
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
            self.switch(now)
        self._noted = self.end

    def switch(self, now: float) -> None:
        """Go on to the next segment of WAL, unless this one is empty."""
        if self.end % SEGMENT:
            self.append(24)
            self.end += -self.end % SEGMENT
            self._whole = self.end
            self.flush(self.end, now)

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

    # -- synchronous commits ------------------------------------------------------------------

    def await_standby(self, commit: Commit, transaction: "Transaction") -> Wait:
        """The wait of `commit`, which keeps the locks of its `transaction`."""
        wait = self.world.waits[commit.txid] = Wait(commit.lsn, transaction)
        self.waiting.append(wait)
        return wait

    def give_up(self, wait: Wait, now: float) -> None:
        """Let a commit stand as it is, whether or not a standby has it."""
        self.waiting.remove(wait)
        wait.end(now, self.locks, confirmed=False)

    def confirm(self, now: float, lsn: int, life: int) -> None:
        """A standby tells that it has flushed up to `lsn`."""
        if life == self._life and not self.recovering:
            self._confirmed = max(self._confirmed, lsn)
            self._let_go(now)

    def _let_go(self, now: float) -> None:
        while self.waiting and self.waiting[0].lsn <= self._confirmed and not self.frozen:
            self.waiting.pop(0).end(now, self.locks, confirmed=True)

    def _tell_flushed(self, now: float) -> None:
        """Tell the upstream up to where WAL is flushed here."""
        source = self.source
        if self.world.synchronous and source is not None and self.name in source._downstream:
            when = now + self._delay(self.world.receive_delay)
            self.world.at(when, source.confirm, self.received, source._life)

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
        self.world.at(now + self._delay(self.world.retry_delay), self.connect)

    def connect(self, now: float) -> None:
        """Start a WAL receiver, where the upstream is there and the startup process wants it."""
        upstream = self.upstream
        if upstream is None or not self.recovering or not self.running or self.frozen:
            return
        if self._busy or self.apart:
            return
        if self.source is not upstream:
            self._disconnect()
        if not upstream.running or upstream.frozen or upstream.apart:
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
        if upstream.line.number > self.newest.number:
            self.newest = upstream.line
        asked = self.received - self.received % SEGMENT
        if asked < upstream.oldest:
            return
        if self.received > limit:
            # It asks for the segment from its start: if that is common, the receiver stays, and
            # waits for a timeline that the startup process will not go to; or, where it knew of
            # that one when it was started, gets WAL that does not fit, and is ended.
            if asked <= limit:
                self.streaming, self.source = True, upstream
                self._asked = upstream.line if self._astray else self.line
                if self._astray and self.world.background:
                    when = now + self.world.rand.uniform(1, 6)
                    self.world.at(when, self._hear_of_end, self._stream)
            return
        self.streaming, self.source, self._asked = True, upstream, upstream.line
        if self.line is not upstream.line:
            self._end_timeline(now)
            self.line = upstream.line
            if self.world.background:
                when = now + self.world.rand.uniform(1, 20)
                self.world.at(when, self._timed_restartpoint, self._life)
        upstream._downstream[self.name] = self
        self._tell_flushed(now)
        self.world.at(now, self.receive, upstream._sent(), self._stream)

    def _end_timeline(self, now: float) -> None:
        """Those that stream from it get the rest of its timeline, and have to ask for the next."""
        for standby in list(self._downstream.values()):
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

    def _hear_of_end(self, now: float, stream: int) -> None:
        """A WAL receiver finds that its connection leads nowhere."""
        if stream == self._stream and self.streaming:
            self._disconnect()
            self._try_to_connect(now)

    def receive(self, now: float, lsn: int, stream: int) -> None:
        """The WAL receiver of `stream` has got WAL up to `lsn`, and flushed it."""
        if stream != self._stream or lsn <= self.received:
            return
        if self.frozen:
            self._buffered = lsn
            return
        self.received = lsn
        self._tell_flushed(now)
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

    def set_control_file(self, timeline: int) -> None:
        """Have the control file tell `timeline`, from before this world began."""
        self._control = timeline

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
            began = None if self.began is None else lsn_text(self.began)
            return (False, lsn_text(self.insert), line.number, world.system_id, age, False, None,
                    began, lsn_text(self.flushed), world.database)  # fmt: skip
        received, flushed = None, None
        if self.streaming and world.monitor_sees_receivers:
            received, got = self._asked.number, self.received
            if self._asked is not line:
                got -= got % SEGMENT  # it has flushed no more than what it asked for
            flushed = lsn_text(got)
        timeline = self._control if received is None else received
        return (True, lsn_text(self.replayed), timeline, world.system_id, age, self.streaming,
                received, None, flushed, world.database)  # fmt: skip


_LOGIN_TEXTS = {
    "28P01": 'password authentication failed for user "{user}"',
    "28000": 'no pg_hba.conf entry for host "127.0.0.1", user "{user}"',
    "53300": "sorry, too many clients already",
    "57P03": "the database system is starting up",
}
