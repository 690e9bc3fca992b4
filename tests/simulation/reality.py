"""Short random histories, run on real servers and on the model, which must agree at every step.

``python -m tests.simulation.reality --seed 7 --histories 300``
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeAlias

import psycopg

from router.connect.probe import PROBE_SQL, report
from router.model import Report
from router.testing import Server as RealServer
from router.testing import ServerFailed
from tests.simulation import postgres as pg
from tests.simulation.answers import Obstacle
from tests.simulation.postgres import Blocked, Refused, Server, Session, World
from tests.simulation.real_cluster import (
    ADMIN,
    DATABASE,
    MAX_CONNECTIONS,
    PATIENCE,
    USER,
    Answer,
    Late,
    RealCluster,
    RealSession,
)
from tests.simulation.settings import SERIALIZABLE
from tests.simulation.wal import SEGMENT

Params: TypeAlias = Mapping[str, Any] | None

SESSIONS = 4
ROWS = 4
LOG_LINES = 6
WAIT = "statement that waits for a lock"
DEADLOCK = "deadlock"
ENDED = "end of a session that waits"
CANCELLED = "cancelled wait"
PAUSED = "restart of a primary while replay is paused"
STRANDED = "stranded standby that does not start"


class Disagreement(AssertionError):
    """The model and the servers did not answer alike."""


@dataclass(slots=True, eq=False)
class Client:
    """One session, in the model and on the real server."""

    name: str
    at: int
    model: Session
    real: RealSession
    waits: bool = False
    looked: bool = False  # its transaction has read the table of items


@dataclass(slots=True)
class Waiting:
    """A statement that waits for a lock."""

    client: Client
    sql: str
    params: Params
    by: Obstacle
    future: "Future[Answer]"


@dataclass(slots=True)
class Tally:
    """How many histories had which fault, and what they came to."""

    histories: int = 0
    steps: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    statements: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def __str__(self) -> str:
        faults = "\n".join(f"  {n:4} {name}" for name, n in sorted(self.faults.items()))
        return (
            f"{self.histories} histories, {self.steps} steps, {self.statements.total()}"
            f" statements in {self.seconds:.0f} s; histories with\n{faults}"
        )


class History:
    """One history of `seed`. `run` plays it; `restore` leaves the cluster as it was found."""

    def __init__(self, real: RealCluster, seed: int, tally: Tally) -> None:
        self.real = real
        self.seed = seed
        self.tally = tally
        self.rand = Random(seed)
        self.told: list[str] = []
        self.faults: set[str] = set()
        self.real_servers = real.servers
        self.now = 1.0
        self.world = World(
            Random(seed), max_connections=MAX_CONNECTIONS, archive=False, start_delay=0.0,
            database=DATABASE, background=False,
        )  # fmt: skip
        self.clients: list[Client] = []
        self.waiting: list[Waiting] = []
        self.dirty = self.moved = True
        self.marks: dict[int, int] = {}
        self.known: dict[int, int] = {}  # how far a server had WAL before it ended
        self.reborn: set[int] = set()
        self._numbers = 0
        for server in self.world.servers:
            server.login(self.now, user=ADMIN)
            real.admin(self._real(server))
        # The timelines of the model begin with 1.
        self.first_line = self._real_report(0).timeline - 1
        self._record_commit()
        self.sync()
        self.baseline = self._real_report(0)
        for n, server in enumerate(self.world.servers):
            # Of an earlier history, as long as no restartpoint has come since.
            told = self._real_report(n, watcher=True).timeline
            server.set_control_file(told - self.first_line)

    # -- servers ------------------------------------------------------------------------------

    def _real(self, server: Server) -> RealServer:
        return self.real_servers[self.world.servers.index(server)]

    @property
    def primary(self) -> Server:
        """The model of the cluster's primary, the last that was promoted."""
        return self.world.servers[self.real_servers.index(self.real.cluster.primary)]

    def answering(self, server: Server) -> bool:
        return server.running and not server.frozen

    def some(self, condition: Callable[[Server], bool]) -> Server | None:
        """A server that answers and for which `condition` holds."""
        found = [s for s in self.world.servers if self.answering(s) and condition(s)]
        return self.rand.choice(found) if found else None

    def say(self, text: str) -> None:
        self.told.append(text)
        self.now += 0.01
        self.world.advance(self.now)

    def differ(self, model: object, real: object) -> Disagreement:
        """What to raise when the two answers are not alike."""
        lines = "\n".join(f"  {n:2} {line}" for n, line in enumerate(self.told, 1))
        logs = "\n".join(
            f"log of {server.name}:\n{self._real(server).log(LOG_LINES)}"
            for server in self.world.servers
        )
        return Disagreement(
            f"seed {self.seed}:\n{lines}\n  the model: {model}\n  in reality: {real}\n{logs}"
        )

    def same(self, what: str, model: object, real: object) -> None:
        if model != real:
            raise self.differ(f"{what} {model}", f"{what} {real}")

    def _record_commit(self) -> None:
        """A commit that changes nothing here; `RealCluster` has made one."""
        session = next(iter(self.primary.sessions.values()))
        session.execute(pg.LOCK, {"id": 0}, self.now)

    # -- waiting until both stand still -------------------------------------------------------

    def settle_model(self) -> None:
        self.now += 5.0
        self.world.advance(self.now)

    def sync(self) -> None:
        """Wait until every standby has received and replayed what it is going to."""
        if not self.dirty and not self.moved:
            return
        self.settle_model()
        done: set[int] = set()
        servers = self.world.servers
        # An upstream before those that stream from it.
        for _ in servers:
            for n, server in enumerate(servers):
                source = server.source
                first = source is None or servers.index(source) in done or not source.recovering
                if n not in done and first:
                    done.add(n)
                    if server.recovering and self.answering(server):
                        self._sync_standby(n, server)
        self.dirty = self.moved = False

    def _sync_standby(self, n: int, server: Server) -> None:
        real, source = self.real_servers[n], server.source
        attached = source is not None and server.name in source._downstream
        target = 0
        if attached and source is not None and self.answering(source):
            target = self.real.sent(self._real(source), source.recovering)
        timeline = server.line.number + self.first_line
        still = server.paused or server.lag > 0

        def there() -> bool:
            state = self.real.state(real)
            if state.streaming != server.streaming:
                return False
            if source is not None and state.timeline != timeline:
                return False
            if source is not None and state.port != self._real(source).port:
                return False  # the receiver before has not ended yet
            if state.received < target:
                return False
            reach = max(target, self.known.get(n, 0), state.received if attached else 0)
            return still or state.replayed >= _end_of_record(reach)

        try:
            self.real.until(there, "")
        except Late:
            state = self.real.state(real)
            want = f"{server}, streaming {server.streaming}, timeline {timeline}"
            raise self.differ(want, f"{state}, to have {target:#x}") from None

    def flush_all(self) -> None:
        """Flush what primaries have written, asynchronous commits too."""
        self.sync()
        for server in self.world.servers:
            if not server.recovering and self.answering(server):
                self._flush(server)
        self.sync()

    def _flush(self, server: Server) -> None:
        """Flush what a primary has written, by a record of its own."""
        server.flush(server.append(), self.now)
        self.real.flush(self._real(server))
        self.dirty = True

    # -- sessions -----------------------------------------------------------------------------

    def log_in(self, server: Server, settings: Mapping[str, str] | None = None) -> Client | None:
        """One more client on `server`; None where both refuse it."""
        settings = settings or {}
        self._numbers += 1
        name = f"s{self._numbers}"
        self.say(f"{name}: log in on {server.name} {dict(settings) or ''}")
        try:
            model = server.login(self.now, user=USER, settings=settings)
        except Refused as refused:
            self.login_refused(server, refused, USER, settings)
            return None
        try:
            real = RealSession(self._real(server), USER, settings)
        except psycopg.OperationalError as error:
            raise self.differ("logged in", error) from None
        client = Client(name, self.world.servers.index(server), model, real)
        self.clients.append(client)
        return client

    def login_refused(
        self, server: Server, refused: Refused, user: str, settings: Mapping[str, str]
    ) -> None:
        """The real server must refuse as the model did."""
        try:
            RealSession(self._real(server), user, settings).close()
        except psycopg.OperationalError as error:
            if refused.text not in str(error):
                raise self.differ(refused, error) from None
        else:
            raise self.differ(refused, "logged in")

    def leave(self, client: Client) -> None:
        """The client closes its session."""
        self.say(f"{client.name}: close")
        client.model.close(self.now)
        client.real.close()
        self.clients.remove(client)
        server = self.world.servers[client.at]
        if self.answering(server):
            self.real.await_gone(self._real(server), client.real.pid)
        self.dirty = True
        self.resolve()

    def run_sql(self, client: Client, sql: str, params: Params = None) -> None:
        """Run a statement on both, and compare."""
        server = self.world.servers[client.at]
        if server.recovering:
            self.sync()
        else:
            self.dirty = True
        self.marks = {
            n: real.log_size for n, real in enumerate(self.real_servers) if n == client.at
        }
        self.say(f"{client.name} on {server.name}: {sql} {dict(params) if params else ''}")
        self.tally.statements[sql.partition(" ")[0]] += 1
        try:
            answer = self.ask_model(client, sql, params)
        except Blocked as blocked:
            future = client.real.submit(sql, params)
            waiting = Waiting(client, sql, params, blocked.by, future)
            self.await_wait(waiting)
            self.waiting.append(waiting)
            client.waits = True
            self.faults.add(WAIT)
            return
        self.compare(client, sql, answer, client.real.submit(sql, params))
        self.resolve()

    def ask_model(self, client: Client, sql: str, params: Params) -> Answer:
        session = client.model
        try:
            rows = session.execute(sql, params, self.now)
        except Refused as refused:
            if refused.sqlstate == "40P01":
                self.faults.add(DEADLOCK)
            status = _status(session)
            return Answer([], 0, "", refused.sqlstate, refused.text, not session.open, status)
        return Answer(rows.rows, rows.rowcount, rows.tag, "", "", False, _status(session))

    def compare(self, client: Client, sql: str, model: Answer, future: "Future[Answer]") -> None:
        real = self._result(model, future)
        self.compare_answers(client, model, real, sql)
        if sql == pg.READ and not real.sqlstate and client.model.in_transaction:
            client.looked = True
        if not client.model.in_transaction or client.model.failed:
            client.looked = False

    def compare_answers(self, client: Client, model: Answer, real: Answer, sql: str = "") -> None:
        if sql == pg.NEXTVAL:
            # How far ahead it is logged depends on checkpoints.
            model = model._replace(rows=[(type(v),) for (v,) in model.rows])
            real = real._replace(rows=[(type(v),) for (v,) in real.rows])
        if client.model.why == "killed" and {model.text, real.text} & {pg.POSTMASTER_EXIT}:
            # Whichever is first: the session is killed, or finds that the postmaster was.
            real = real._replace(sqlstate=model.sqlstate, text=model.text)
        if not real.sqlstate:
            model, real = model._replace(text=""), real._replace(text="")
        self.same("", model, real)
        self.told[-1] += f" → {real.sqlstate or real.rows or real.tag} {real.status}"

    def _result(self, model: Answer, future: "Future[Answer]") -> Answer:
        try:
            return future.result(PATIENCE)
        except NotYet:
            raise self.differ(model, "it does not answer") from None

    # -- locks --------------------------------------------------------------------------------

    def await_wait(self, waiting: Waiting) -> None:
        """Wait until the real server says that the statement waits, and has looked for a
        deadlock."""
        client = waiting.client
        real = self.real_servers[client.at]
        mark = self.marks.get(client.at, 0)
        pid = client.real.pid

        def waits() -> bool:
            if waiting.future.done():
                raise self.differ("it waits for a lock", waiting.future.result())
            ((n,),) = self.real.ask(real, "SELECT cardinality(pg_blocking_pids(%s))", [pid])
            return n > 0 and self.real.logged(real, f"process {pid} still waiting", mark)

        self.real.until(waits, f"{client.name} does not wait")
        self.told[-1] += f" → {client.name} waits"

    def resolve(self) -> None:
        """Let the statements go on that nothing keeps any more, those that came first first."""
        progress = True
        while progress:
            progress = False
            for waiting in list(self.waiting):
                client = waiting.client
                if not (waiting.by.over or not client.model.open):
                    continue
                if self.world.servers[client.at].frozen:
                    continue
                self.say(f"{client.name} goes on")
                try:
                    answer = self.ask_model(client, waiting.sql, waiting.params)
                except Blocked as blocked:
                    waiting.by = blocked.by
                    self.await_wait(waiting)
                    continue
                self.waiting.remove(waiting)
                client.waits = False
                self.compare(client, waiting.sql, answer, waiting.future)
                progress = True
        for waiting in self.waiting:
            if waiting.future.done():
                raise self.differ("it waits for a lock", waiting.future.result())

    # -- probes -------------------------------------------------------------------------------

    def _real_report(self, n: int, *, watcher: bool = False) -> Report:
        real = self.real_servers[n]
        if watcher:
            return report("", 0.0, self.real.as_watcher(real, PROBE_SQL))
        return report("", 0.0, self.real.ask(real, PROBE_SQL)[0])

    def _steady_report(self, n: int, *, watcher: bool) -> Report:
        """What the real server tells, between two attempts to stream if those are in vain: each
        shows a WAL receiver, until that has heard of the upstream's timeline or its WAL."""
        server, found = self.world.servers[n], self._real_report(n, watcher=watcher)
        upstream = server.upstream
        in_vain = server.recovering and server.source is None and upstream is not None
        if in_vain and upstream is not None and self.answering(upstream):
            deadline = time.monotonic() + PATIENCE
            while found.streaming and time.monotonic() < deadline:
                found = self._real_report(n, watcher=watcher)
        return found

    def _model_report(self, n: int, *, watcher: bool = False) -> Report:
        self.world.monitor_sees_receivers = not watcher
        return report("", 0.0, self.world.servers[n].probe(self.now))

    def probe(self) -> None:
        """Compare what all servers tell a monitor."""
        self.sync()
        self.say("probe")
        told = {}
        for n, server in enumerate(self.world.servers):
            if not self.answering(server):
                continue
            for watcher in (False, True):
                model = self._model_report(n, watcher=watcher)
                real = self._steady_report(n, watcher=watcher)
                what = f"{server.name} tells{' a role without rights' * watcher}"
                self.same(what, self._gist(n, model), self._gist(n, real, self.first_line))
                self._compare_timelines(what, model, real)
            told[n] = self._real_report(n)
        self._compare_positions(told)

    def _gist(self, n: int, found: Report, first_line: int = 0) -> dict[str, object]:
        """What must be the same."""
        newborn = n == 0 and n not in self.reborn and first_line == 0
        source = self.baseline if newborn else found
        return {
            "role": found.role,
            "streaming": found.streaming,
            "received": found.received - first_line if found.received else 0,
            "lag is known": source.lag_seconds is not None,
            "began is known": source.began is not None,
            "flushed is known": found.flushed is not None,
            "database": found.database,
        }

    def _compare_timelines(self, what: str, model: Report, real: Report) -> None:
        self.same(f"{what} timeline", model.timeline, real.timeline - self.first_line)

    def _compare_positions(self, told: Mapping[int, Report]) -> None:
        """Of two servers on one timeline the one that is further must be so in both, if a
        transaction ended in between; a standby that has it all must be level."""
        servers = self.world.servers
        for n, mine in told.items():
            for m, other in told.items():
                one, two = servers[n], servers[m]
                if n == m or one.line is not two.line or mine.lsn is None or other.lsn is None:
                    continue
                ends = list(one.line.ends_between(one.position, two.position))
                if ends and not mine.lsn < other.lsn:
                    raise self.differ(f"{one} behind {two} by {ends}", f"{mine.lsn}, {other.lsn}")
                if one.recovering and not two.recovering and mine.lsn > other.lsn:
                    raise self.differ(f"{one.name} not past {two.name}", (mine.lsn, other.lsn))
        for n, mine in told.items():
            if servers[n].recovering:
                self._compare_level(n)
            elif mine.flushed is not None and mine.lsn is not None and mine.flushed > mine.lsn:
                raise self.differ("flushed no more than written", (mine.flushed, mine.lsn))

    def _compare_level(self, n: int) -> None:
        """A standby that in the model has all of its primary's WAL has it in reality, and has
        replayed what its receiver has flushed."""
        server = self.world.servers[n]
        source = server.source
        if source is None or source.recovering or not self.answering(source):
            return
        if server.paused or server.lag:
            return  # it would not replay what is flushed below
        if server.line is not source.line or server.position != source.end:
            return

        def level() -> bool:
            there, here = self._real_report(n), self._real_report(self.world.servers.index(source))
            return there.lsn == here.lsn == there.flushed

        if not level():
            # A page that was tidied up, or a list of transactions, that nobody has flushed yet.
            self._flush(source)
            self.sync()
            self.real.until(level, f"{server.name} is not level with {source.name}")

    def compare_rows(self) -> None:
        """All rows, on every server."""
        self.sync()
        self.say("compare all rows")
        for n, server in enumerate(self.world.servers):
            if not self.answering(server):
                continue
            real = self.real_servers[n]
            items = dict(self.real.ask(real, "SELECT id, value FROM item WHERE id < %s", [ROWS]))
            counts = dict(self.real.ask(real, "SELECT id, n FROM counter WHERE id < %s", [ROWS]))
            ops = Counter(op for (op,) in self.real.ask(real, "SELECT op FROM journal"))
            line, lsn = server.line, server.position
            modelled: Counter[str] = Counter()
            for commit in self.world.commits:
                if commit.ops and self.world.contains(commit, line, lsn):
                    modelled.update(commit.ops)
            values = {i: line.value(("item", i), lsn) for i in range(ROWS)}
            numbers = {i: line.value(("counter", i), lsn) for i in range(ROWS)}
            self.same(f"on {server.name}", (values, numbers, modelled), (items, counts, ops))

    # -- statements ---------------------------------------------------------------------------

    def run_something(self, client: Client | None = None) -> None:
        """One drawn statement, in a session that is free or a new one."""
        client = client or self.some_client()
        if client is None:
            return
        if self._serializable_meets(client):
            return
        session = client.model
        if session.failed:
            sql, params = self._in_failed(session)
        elif session.in_transaction:
            sql, params = self._in_transaction()
        else:
            sql, params = self._outside()
        self.run_sql(client, sql, params)
        if not client.model.open and self.rand.random() < 0.7:
            self.leave(client)

    def some_client(self) -> Client | None:
        """A session that can run something, mostly one that is there."""
        rand = self.rand
        free = [c for c in self.clients if not c.waits and not self.world.servers[c.at].frozen]
        if len(self.clients) < SESSIONS and (not free or rand.random() < 0.3):
            server = self.some(lambda s: True)
            if server is None:
                return None
            return self.log_in(server, self._login_settings())
        return rand.choice(free) if free else None

    def client_on(self, server: Server) -> Client | None:
        """A session on `server` without a transaction."""
        for client in self.clients:
            session = client.model
            free = session.open and not client.waits and not session.in_transaction
            if session.server is server and free:
                return client
        return self.log_in(server)

    def _serializable_meets(self, client: Client) -> bool:
        """Whether two serializable transactions would meet, which the model has no idea of."""
        session = client.model
        mine = session.transaction.isolation if session.transaction else session.isolation
        if mine != SERIALIZABLE:
            return False
        return any(
            other.transaction is not None and other.transaction.isolation == SERIALIZABLE
            for other in session.server.sessions.values()
            if other is not session
        )

    def _login_settings(self) -> dict[str, str]:
        rand = self.rand
        if rand.random() < 0.7:
            return {}
        settings = {
            "app.tenant": "t0",
            "statement_timeout": "2min",
            "search_path": "app, public",
            "default_transaction_isolation": "repeatable read",
            "default_transaction_read_only": "on",
            "synchronous_commit": "off",
            "application_name": "a b",
        }
        names = rand.sample(sorted(settings), rand.choice((1, 1, 2)))
        return {name: settings[name] for name in names}

    def _draw(
        self, *choices: tuple[float, Callable[[], tuple[str, Params]]]
    ) -> tuple[str, Params]:
        weights = [weight for weight, _ in choices]
        ((_, make),) = self.rand.choices(choices, weights)
        return make()

    def _in_failed(self, session: Session) -> tuple[str, Params]:
        return self._draw(
            (4, lambda: ("ROLLBACK", None)),
            (2, lambda: ("COMMIT", None)),
            (5, lambda: (f"ROLLBACK TO SAVEPOINT {self._savepoint()}", None)),
            (1, self._data),
            (1, self._transaction),
            (1, self._setting),
        )

    def _in_transaction(self) -> tuple[str, Params]:
        return self._draw(
            (12, self._data),
            (2, lambda: (f"SAVEPOINT {self._savepoint()}", None)),
            (1, lambda: (f"RELEASE SAVEPOINT {self._savepoint()}", None)),
            (2, lambda: (f"ROLLBACK TO {self._savepoint()}", None)),
            (3, lambda: ("COMMIT", None)),
            (2, lambda: ("ROLLBACK", None)),
            (1, lambda: (f"SET TRANSACTION {self._modes()}", None)),
            (4, self._setting),
            (0.5, lambda: ("BEGIN", None)),
        )

    def _outside(self) -> tuple[str, Params]:
        return self._draw(
            (8, self._data),
            (8, self._transaction),
            (5, self._setting),
            (0.5, lambda: ("COMMIT", None)),
            (0.5, lambda: ("ROLLBACK", None)),
            (0.3, lambda: (f"SAVEPOINT {self._savepoint()}", None)),
            (0.3, lambda: (f"RELEASE {self._savepoint()}", None)),
            (0.3, lambda: (f"ROLLBACK TO {self._savepoint()}", None)),
            (0.4, lambda: (f"SET TRANSACTION {self._modes()}", None)),
        )

    def _savepoint(self) -> str:
        return self.rand.choice(("a", "a", "b", '"_pg3_1"'))

    def _transaction(self) -> tuple[str, Params]:
        modes = self._modes() if self.rand.random() < 0.6 else ""
        verb = self.rand.choice(("BEGIN", "begin", "BEGIN WORK", "START TRANSACTION"))
        return f"{verb} {modes}".strip(), None

    def _modes(self) -> str:
        modes = [
            "ISOLATION LEVEL REPEATABLE READ",
            "ISOLATION LEVEL SERIALIZABLE",
            "ISOLATION LEVEL READ COMMITTED",
            "READ ONLY",
            "READ WRITE",
            "DEFERRABLE",
        ]
        chosen = self.rand.sample(modes, self.rand.choice((1, 1, 2)))
        if sum("LEVEL" in mode for mode in chosen) > 1:
            del chosen[1:]
        return ", ".join(chosen)

    def _data(self) -> tuple[str, Params]:
        self._numbers += 1
        value, row = f"v{self._numbers}", {"id": self.rand.randrange(ROWS)}
        return self._draw(
            (6, lambda: (pg.READ, row)),
            (5, lambda: (pg.UPDATE, {"value": value, **row})),
            (2, lambda: (pg.INCREMENT, row)),
            (2, lambda: (pg.COUNT, row)),
            (2, lambda: (pg.LOCK, row)),
            (2, lambda: (pg.APPEND, {"op": self.rand.choice((value, "op"))})),
            (1, lambda: (pg.NEXTVAL, None)),
            (1, lambda: (pg.ONE, None)),
            (1, lambda: (pg.DIVIDE, None)),
            (0.3, lambda: (pg.SLEEP, {"s": 0.0})),
            (0.3, lambda: ("", None)),
            (0.3, lambda: (pg.READ, {"id": pg.IDS})),
            (0.3, lambda: (pg.UPDATE, {"value": value, "id": pg.IDS})),
        )

    def _setting(self) -> tuple[str, Params]:
        rand = self.rand
        name, value = rand.choice(_VALUES)
        level = rand.choice(("", "", "SESSION ", "LOCAL "))
        local = rand.choice(("true", "false"))
        return self._draw(
            (5, lambda: (f"SET {level}{name} = {value}", None)),
            (1, lambda: (f"SET {level}{name} TO DEFAULT", None)),
            (1, lambda: (f"RESET {name}", None)),
            (1, lambda: ("RESET ALL", None)),
            (0.7, lambda: ("DISCARD ALL", None)),
            (0.3, lambda: ("DEALLOCATE ALL", None)),
            (3, lambda: (f"SELECT set_config('{name}', {_quoted(value)}, {local})", None)),
            (2, lambda: (pg.TENANT, None)),
            (3, lambda: (f"SHOW {name}", None)),
            (1, lambda: ("SHOW transaction_read_only", None)),
            (1, lambda: ("SHOW transaction_isolation", None)),
            (0.5, lambda: ("SHOW transaction_deferrable", None)),
            (1, lambda: ("SELECT current_setting('search_path')", None)),
            (1, lambda: ("SELECT current_setting('default_transaction_isolation')", None)),
            (2, lambda: (f"SELECT current_setting('{name}', true), {_TENANT_TOO}", None)),
            (0.5, lambda: ("SELECT current_setting('nosuch', true)", None)),
            (0.5, lambda: (f"SELECT current_setting('{rand.choice(_NONE)}')", None)),
            (0.3, lambda: (f"SET {level}{rand.choice(_WRONG)}", None)),
            (0.7, lambda: (f"SET SESSION CHARACTERISTICS AS TRANSACTION {self._modes()}", None)),
        )  # fmt: skip

    # -- faults: each returns whether it could happen -----------------------------------------

    def kill_primary(self) -> bool:
        server = self.some(lambda s: not s.recovering)
        return server is not None and self._kill(server)

    def kill_standby(self) -> bool:
        # One that is stranded may replay its old WAL as if it were the new timeline's.
        server = self.some(lambda s: s.recovering and not s.lag and not s.stranded)
        return server is not None and self._kill(server)

    def _note_known(self, server: Server) -> None:
        """Remember how far a standby is, to know when it is there again after its start."""
        if server.recovering:
            state = self.real.state(self._real(server))
            n = self.world.servers.index(server)
            self.known[n] = max(state.received, state.replayed)

    def _kill(self, server: Server) -> bool:
        self.sync()
        self._note_known(server)
        self.say(f"kill {server.name}")
        server.kill(self.now)
        self.real.kill(self._real(server))
        self._ended(server)
        return True

    def _ended(self, server: Server) -> None:
        self.moved = True
        self.reborn.add(self.world.servers.index(server))
        self.resolve()

    def stop(self) -> bool:
        frozen = any(s.frozen for s in self.world.servers)
        # Who waits for a lock there may get it before its own end comes.
        held_up = {id(waiting.client.model.server) for waiting in self.waiting}
        server = self.some(lambda s: not s.lag and id(s) not in held_up)
        if server is None or frozen:
            return False
        self._stop(server)
        return True

    def _stop(self, server: Server) -> None:
        self.sync()
        self._note_known(server)
        self.say(f"stop {server.name}")
        server.stop(self.now)
        self.real.stop(self._real(server))
        self._ended(server)

    def start_ended(self) -> None:
        """Start every server that has ended."""
        for server in self.world.servers:
            if not server.running:
                self.say(f"start {server.name}")
                server.start(self.now)
                if not server.running:
                    self._compare_failed_start(server)
                    continue
                self.real.start(self._real(server), primary=not server.recovering)
                self._back(server)

    def _compare_failed_start(self, server: Server) -> None:
        try:
            self.real.start(self._real(server), primary=False)
        except ServerFailed as failed:
            if "does not contain minimum recovery point" not in str(failed):
                raise
            self.faults.add(STRANDED)
        else:
            raise self.differ(f"{server} does not start", "it does")

    def _back(self, server: Server) -> None:
        self.moved = True
        self.real.admin(self._real(server))
        server.login(self.now, user=ADMIN)

    def killed_and_started(self) -> bool:
        """Asynchronous commits, and no others, are lost."""
        server = self.some(lambda s: not s.recovering)
        client = None if server is None else self.client_on(server)
        if server is None or client is None:
            return False
        self.flush_all()
        self.run_sql(client, "SET synchronous_commit = off")
        for _ in range(self.rand.randrange(1, 4)):
            self.run_sql(client, *self._data())
        self._kill(server)
        self.start_ended()
        return True

    def terminate(self) -> bool:
        found = [c for c in self.clients if c.model.open and self.answering(c.model.server)]
        if not found:
            return False
        client = self.rand.choice(found)
        self._terminated(client, "57P01", "terminate")
        return True

    def _terminated(self, client: Client, sqlstate: str, what: str) -> None:
        server = client.model.server
        self.sync()
        self.say(f"{what} {client.name}")
        if client.waits:
            self.faults.add(ENDED)
        server.terminate(client.model, sqlstate, self.now)
        real = self._real(server)
        if sqlstate == "57P01":
            self.real.ask(real, "SELECT pg_terminate_backend(%s)", [client.real.pid])
        self.real.await_gone(real, client.real.pid)
        self.dirty = True
        self.resolve()

    def end_wait(self) -> None:
        """A session that waits is ended."""
        client = self.waiting[0].client
        if self.answering(client.model.server):
            self._terminated(client, "57P01", "terminate")

    def cancel_wait(self) -> None:
        """A statement that waits is cancelled."""
        waiting = self.waiting[0]
        client = waiting.client
        if not self.answering(client.model.server):
            return
        self.faults.add(CANCELLED)
        self.say(f"cancel what {client.name} waits with")
        refused = client.model.cancel(self.now)
        self.real.ask(
            self._real(client.model.server), "SELECT pg_cancel_backend(%s)", [client.real.pid]
        )
        self.waiting.remove(waiting)
        client.waits = False
        status = _status(client.model)
        answer = Answer([], 0, "", refused.sqlstate, refused.text, False, status)
        self.compare(client, waiting.sql, answer, waiting.future)
        self.resolve()

    def time_out(self) -> bool:
        """The server ends a session that does nothing, or whose transaction lasts."""
        server = self.some(lambda s: True)
        client = None if server is None else self.client_on(server)
        if client is None:
            return False
        name, sqlstate = self.rand.choice(_TIMEOUTS)
        if sqlstate != "57P05":
            self.run_sql(client, "BEGIN")
            if self.rand.random() < 0.5:
                self.run_sql(client, *self._data())
            if client.model.failed or not client.model.in_transaction or client.waits:
                return False
        self.say(f"{client.name}: {name} passes")
        answer = client.real.run(f"SELECT set_config('{name}', '1ms', false)", None)
        self._terminated(client, sqlstate, f"{name} ends")
        if answer.sqlstate:
            # It was so quick that this statement has heard it already.
            self.compare_answers(client, self.ask_model(client, pg.ONE, None), answer)
        return True

    def promote(self) -> bool:
        """Promote a standby; its primary lives on, or was killed or stopped before."""
        lot = self.rand.random()
        if lot < 0.4:
            self.kill_primary()
        elif lot < 0.6:
            old = self.some(lambda s: not s.recovering)
            if old is not None and not any(s.frozen for s in self.world.servers):
                self.stop()
        server = self.some(lambda s: s.recovering)
        if server is None:
            return False
        self._promote(server)
        return True

    def _promote(self, server: Server) -> None:
        self.sync()
        self.say(f"promote {server.name}")
        server.promote(self.now)
        self.real.promote(self._real(server))
        self.reborn.add(self.world.servers.index(server))
        self.moved = True

    def follow(self) -> bool:
        """A standby is given another upstream, which may not be one it can follow."""
        standby = self.some(lambda s: s.recovering)
        if standby is None:
            return False
        upstream = self.some(
            lambda s: (
                s is not standby and s is not standby.upstream and not self._below(s, standby)
            )
        )
        if upstream is None or self._same_number(standby, upstream):
            return False
        self._follow(standby, upstream)
        return True

    def _follow(self, standby: Server, upstream: Server) -> None:
        self.sync()
        self.say(f"{standby.name} follows {upstream.name}")
        standby.follow(upstream, self.now)
        self.real.follow(self._real(standby), self._real(upstream))
        self.moved = True

    def strand(self) -> bool:
        """A standby gets more from the old primary than the promoted one had, and restarts."""
        old = self.primary
        followers = [s for s in self.world.servers if s.source is old and s.line is old.line]
        if old.recovering or not self.answering(old) or len(followers) < 2:
            return False
        if any(s.paused or s.lag or s.frozen for s in self.world.servers):
            return False
        promoted, standby = followers
        self.sync()
        self._promote(promoted)
        writer = self.client_on(old)
        if writer is None or writer.model.read_only:
            return False
        self.run_sql(writer, pg.INCREMENT, {"id": 0})
        self.flush_all()
        self._follow(standby, promoted)
        self.probe()
        self._stop(standby)
        self.start_ended()
        return True

    def _below(self, server: Server, standby: Server) -> bool:
        """Whether `server` follows `standby`, be it through others."""
        upstream = server.upstream
        return upstream is not None and (upstream is standby or self._below(upstream, standby))

    def _same_number(self, one: Server, two: Server) -> bool:
        """Whether two timelines of one number, which servers do not tell apart, would meet."""
        lines: dict[int, pg.Line] = {}
        for server in (one, two):
            line: pg.Line | None = server.line
            while line is not None:
                if lines.setdefault(line.number, line) is not line:
                    return True
                line = line.parent
        return False

    def follow_after_promotion(self) -> bool:
        """The usual failover: the other standby follows the promoted one."""
        if not self.promote():
            return False
        for _ in range(self.rand.randrange(3)):
            self.run_something()
        new = self.primary
        for standby in self.world.servers:
            can = standby.recovering and self.answering(standby) and self.answering(new)
            if can and not self._same_number(standby, new):
                self._follow(standby, new)
        return True

    def rewind(self) -> bool:
        """Any server but the primary becomes a fresh standby of that."""
        primary = self.primary
        servers = [s for s in self.world.servers if s is not primary]
        if primary.recovering or not self.answering(primary):
            return False
        server = self.rand.choice(servers)
        self.flush_all()
        self.say(f"rewind {server.name} to follow {primary.name}")
        server.lag = 0.0
        server.rewind(primary, self.now)
        self.real.rejoin(self._real(server))
        self.known.pop(self.world.servers.index(server), None)
        self._ended(server)
        self._back(server)
        return True

    def pause(self) -> bool:
        server = self.some(lambda s: s.recovering and not s.paused and not s.lag)
        if server is None:
            return False
        self.sync()
        self.say(f"pause replay on {server.name}")
        server.pause(self.now)
        self._real(server).pause_replay()
        source, frozen = server.source, any(s.frozen for s in self.world.servers)
        restart = source is not None and not source.recovering and not frozen
        if restart and source is not None and self.rand.random() < 0.4:
            # Its startup process, which waits, does not look after its WAL receiver.
            (self._stop if self.rand.random() < 0.5 else self._kill)(source)
            self.start_ended()
            self.probe()
            self.faults.add(PAUSED)
        return True

    def resume_paused(self) -> None:
        for server in self.world.servers:
            if server.paused and self.answering(server):
                self.sync()
                self.say(f"resume replay on {server.name}")
                server.resume(self.now)
                self._real(server).resume_replay()
                self.moved = True

    def delay(self) -> bool:
        server = self.some(lambda s: s.recovering and not s.paused and not s.lag)
        if server is None:
            return False
        self.sync()
        self.say(f"delay replay on {server.name}")
        server.set_lag(1000.0, self.now)
        self._real(server).set_lag(1000.0)
        return True

    def end_delays(self) -> None:
        for server in self.world.servers:
            if server.lag and self.answering(server):
                self.sync()
                self.say(f"no delay of replay on {server.name}")
                server.set_lag(0.0, self.now)
                self._real(server).set_lag(0.0)
                self.moved = True

    def freeze(self) -> bool:
        server = self.some(lambda s: True)
        if server is None:
            return False
        self.flush_all()
        self._freeze(server)
        return True

    def _freeze(self, server: Server) -> None:
        self.say(f"freeze {server.name}")
        server.freeze(self.now)
        self._real(server).freeze()

    def thaw_frozen(self) -> None:
        for server in self.world.servers:
            if server.frozen:
                self.say(f"thaw {server.name}")
                server.thaw(self.now)
                self.real.thaw(self._real(server), primary=not server.recovering)
                self.moved = True
        self.resolve()

    def _conflict_scene(self) -> tuple[Client, Server] | None:
        """A session on a standby where a conflict can be made, and the primary to make it on."""
        primary = self.primary
        if primary.recovering or not self.answering(primary) or self.waiting:
            return None
        if any(s.paused or s.lag or s.frozen for s in self.world.servers):
            return None
        for server in self.world.servers:
            for session in server.sessions.values():
                transaction = session.transaction
                if transaction is None:
                    continue
                if not server.recovering or (transaction.frames and transaction.failed):
                    return None
        standby = self.some(lambda s: s.source is primary and s.line is primary.line)
        client = None if standby is None else self.client_on(standby)
        if client is None or client.model.isolation == SERIALIZABLE:
            return None
        return client, primary

    def _fed(self, server: Server) -> bool:
        """Whether WAL of the primary reaches `server`."""
        source = server.source
        while source is not None and source.line is server.line:
            if source is self.primary:
                return True
            source = source.source
        return False

    def _lock_table(self) -> None:
        """An ACCESS EXCLUSIVE lock, replayed, ends who has looked at the table."""
        self.real.lock_and_commit("LOCK TABLE item")
        self._record_commit()
        for client in self.clients:
            session = client.model
            looked = session.open and client.looked and session.server.recovering
            if looked and self._fed(session.server):
                session.server.terminate(session, "40001", self.now)
                self.told[-1] += f", {client.name} ends"
        self.dirty = True

    def conflict_lock(self) -> bool:
        scene = self._conflict_scene()
        if scene is None:
            return False
        client, _ = scene
        self.run_sql(client, self.rand.choice(("BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ")))
        if self.rand.random() < 0.3:
            self.run_sql(client, "SAVEPOINT a")
        self.run_sql(client, pg.READ, {"id": 0})
        self.say("lock the table on the primary")
        self._lock_table()
        self.sync()
        self.run_sql(client, pg.READ, {"id": 0})
        return True

    def conflict_running(self) -> bool:
        scene = self._conflict_scene()
        if scene is None:
            return False
        client, _ = scene
        session = client.model
        self.run_sql(client, "BEGIN")
        self.run_sql(client, pg.READ, {"id": 0})
        if self.rand.random() < 0.3:
            self.run_sql(client, "SAVEPOINT a")
        self.say(f"lock the table on the primary while {client.name} runs {pg.SLEEP}")
        future = client.real.submit(pg.SLEEP, {"s": 2 * PATIENCE})
        self.real.await_event(self._real(session.server), client.real.pid, "PgSleep")
        client.looked = False
        self._lock_table()
        session.cancel_next(self.now)
        answer = self.ask_model(client, pg.SLEEP, {"s": 2 * PATIENCE})
        self.compare(client, pg.SLEEP, answer, future)
        self.sync()
        return True

    def conflict_vacuum(self) -> bool:
        """Rows are removed that a snapshot still sees: that is its end; others do not care."""
        scene = self._conflict_scene()
        if scene is None:
            return False
        client, primary = scene
        level = self.rand.choice(("REPEATABLE READ", "REPEATABLE READ", "READ COMMITTED"))
        self.run_sql(client, f"BEGIN ISOLATION LEVEL {level}")
        self.run_sql(client, pg.READ, {"id": 0})
        writer = self.client_on(primary)
        if writer is None or writer.model.read_only:
            return False
        self.run_sql(writer, pg.UPDATE, {"id": 0, "value": "gone"})
        self.say("vacuum")
        self.real.ask(self._real(primary), "VACUUM (TRUNCATE false) item")
        for other in self.clients:
            session = other.model
            transaction = session.transaction
            if transaction is None or not transaction.sees_old_rows:
                continue
            if session.server.recovering and self._fed(session.server):
                session.server.terminate(session, "40001", self.now)
                self.told[-1] += f", {other.name} ends"
        self.flush_all()
        self.run_sql(client, pg.READ, {"id": 0})
        return True

    def commit_waits(self) -> bool:
        """A commit waits for standbys that hear nothing: nobody sees it until that ends."""
        primary = self.primary
        scene = not primary.recovering and self.answering(primary) and not self.waiting
        free = [row for row in range(ROWS) if ("item", row) not in primary.locks]
        if not scene or not free or any(s.frozen for s in self.world.servers):
            return False
        writer = self.client_on(primary)
        if writer is None or writer.model.read_only or writer.model.isolation == SERIALIZABLE:
            return False
        self.flush_all()
        self._set_synchronous("ANY 1 (*)")
        for server in self.world.servers:
            if server.recovering and self.answering(server):
                self._freeze(server)
        self._numbers += 1
        self._wait_for_standby(writer, {"id": free[0], "value": f"v{self._numbers}"})
        self._look(free[0])
        self._set_synchronous("")
        self.thaw_frozen()
        return True

    def _set_synchronous(self, names: str) -> None:
        primary = self.primary
        self.say(f"synchronous_standby_names = {names!r} on {primary.name}")
        self.world.synchronous = bool(names)
        primary.checkpoint(self.now)
        self.real.synchronous(self._real(primary), names)
        self.dirty = True

    def _wait_for_standby(self, writer: Client, params: dict[str, Any]) -> None:
        primary = self.primary
        self.say(f"{writer.name} on {primary.name}: {pg.UPDATE} {params}")
        future = writer.real.submit(pg.UPDATE, params)
        try:
            answer = self.ask_model(writer, pg.UPDATE, params)
        except Blocked:
            self.real.await_event(self._real(primary), writer.real.pid, "SyncRep")
            self._look(params["id"])
            ends = [self._end_waiting, self._cancel_waiting, self._crash_waiting]
            if primary._downstream:
                ends += [self._confirm_waiting] * 2
            self.rand.choice(ends)(writer)
            answer = self.ask_model(writer, pg.UPDATE, params)
        self.compare(writer, pg.UPDATE, answer, future)
        if not writer.model.open:
            self.start_ended()
            self.leave(writer)

    def _look(self, row: int) -> None:
        """Read a row of the primary in a session of its own."""
        reader = self.log_in(self.primary)
        if reader is not None:
            self.run_sql(reader, pg.READ, {"id": row})
            self.leave(reader)

    def _end_waiting(self, writer: Client) -> None:
        self.say(f"terminate {writer.name}")
        self.primary.terminate(writer.model, "57P01", self.now)
        real = self._real(self.primary)
        self.real.ask(real, "SELECT pg_terminate_backend(%s)", [writer.real.pid])
        self.real.await_gone(real, writer.real.pid)

    def _cancel_waiting(self, writer: Client) -> None:
        self.say(f"cancel the wait of {writer.name}")
        assert writer.model.awaited is not None
        self.primary.give_up(writer.model.awaited, self.now)
        real = self._real(self.primary)
        self.real.ask(real, "SELECT pg_cancel_backend(%s)", [writer.real.pid])

    def _crash_waiting(self, writer: Client) -> None:
        self._kill(self.primary)

    def _confirm_waiting(self, writer: Client) -> None:
        self.thaw_frozen()
        self.settle_model()

    def full(self) -> bool:
        """Log in until the server refuses."""
        server = self.some(lambda s: True)
        if server is None:
            return False
        real = self._real(server)
        self.real.until(
            lambda: self.real.clients(real) == len(server.sessions), "another number of clients"
        )
        for user in (USER, ADMIN):
            self._fill(server, user)
        return True

    def _fill(self, server: Server, user: str) -> None:
        self.say(f"log in as {user} on {server.name} until it is full")
        sessions, real = [], []
        while True:
            try:
                sessions.append(server.login(self.now, user=user))
            except Refused as refused:
                self.login_refused(server, refused, user, {})
                break
            try:
                real.append(RealSession(self._real(server), user, {}))
            except psycopg.OperationalError as error:
                raise self.differ(f"room for {len(sessions)}", error) from None
        for session in sessions:
            session.close(self.now)
        for other in real:
            other.close()
        self.real.until(
            lambda: self.real.clients(self._real(server)) == len(server.sessions),
            "another number of clients",
        )

    def locks(self) -> bool:
        """Two sessions want two rows, in opposite orders or not."""
        server = self.some(lambda s: not s.recovering)
        if server is None or self.waiting:
            return False
        for client in self.clients[: max(0, len(self.clients) - SESSIONS + 2)]:
            self.leave(client)
        clients = [c for c in (self.log_in(server), self.log_in(server)) if c is not None]
        levels = ("", "", " ISOLATION LEVEL REPEATABLE READ")
        rows = self.rand.sample(range(ROWS), 2)
        for n, client in enumerate(clients):
            self.run_sql(client, "BEGIN" + self.rand.choice(levels))
            self.run_sql(client, pg.ONE)
            if self.rand.random() < 0.3:
                self.run_sql(client, "SAVEPOINT a")
            self._write(client, rows[n])
        for n, client in enumerate(clients[: self.rand.choice((1, 2))]):
            if not client.waits and client.model.open and not client.model.failed:
                self._write(client, rows[1 - n])
        return True

    def _write(self, client: Client, row: int) -> None:
        self._numbers += 1
        if client.waits or not client.model.open:
            return
        sql, params = self._draw(
            (2, lambda: (pg.UPDATE, {"id": row, "value": f"v{self._numbers}"})),
            (1, lambda: (pg.LOCK, {"id": row})),
        )
        self.run_sql(client, sql, params)

    # -- the whole ----------------------------------------------------------------------------

    def run(self) -> None:
        """Play it."""
        rand = self.rand
        steps = rand.randrange(8, 31)
        number = rand.choices((0, 1, 2, 3), (1, 4, 5, 3))[0]
        due = {rand.randrange(2, steps) for _ in range(number)}
        for step in range(steps):
            if step in due:
                self._some_fault()
            elif rand.random() < 0.08:
                self.probe()
            elif rand.random() < 0.08:
                self._mend()
            elif self.waiting and rand.random() < 0.25:
                self.rand.choice((self.cancel_wait, self.end_wait))()
            elif self.clients and rand.random() < 0.03:
                client = rand.choice(self.clients)
                if not client.waits:
                    self.leave(client)
            else:
                self.run_something()
        self.probe()
        self.compare_rows()
        self._all_well()
        self.probe()
        self.compare_rows()
        self.tally.histories += 1
        self.tally.steps += len(self.told)
        self.tally.faults.update(self.faults or {"none"})

    def _some_fault(self) -> None:
        """A drawn fault of those that can happen now."""
        rand = self.rand
        for name, happen in rand.choices(FAULTS, _FAULT_WEIGHTS, k=4):
            if happen(self):
                self.faults.add(name)
                if name.startswith(("kill", "stop")) and rand.random() < 0.4:
                    self.start_ended()
                return

    def _mend(self) -> None:
        self.rand.choice(
            (self.start_ended, self.resume_paused, self.end_delays, self.thaw_frozen)
        )()

    def _all_well(self) -> None:
        """End what still lasts."""
        self.thaw_frozen()
        self.start_ended()
        self.resume_paused()
        self.end_delays()
        while self.waiting:
            self._terminated(self.waiting[-1].client, "57P01", "terminate")
        self.flush_all()

    def restore(self) -> None:
        """One primary again that both others stream from, and empty tables."""
        for client in self.clients:
            client.real.close()
        primary = self.primary
        for server in self.world.servers:
            if server is primary:
                continue
            fits = server.recovering and server.newest.number <= primary.line.number
            fits = fits and server.running
            if fits and server.source is primary and server.line is primary.line:
                continue
            limit = primary.line.left_at(server.line)
            if fits and limit is not None and server.received <= limit:
                self.real.follow(self._real(server), self._real(primary))
            else:
                self.real.rejoin(self._real(server))
        self.real.clear()
        self.real.cluster.wait_caught_up()


FAULTS: tuple[tuple[str, Callable[[History], bool]], ...] = (
    ("kill of a primary", History.kill_primary),
    ("kill of a standby", History.kill_standby),
    ("kill of a primary with asynchronous commits", History.killed_and_started),
    ("stop", History.stop),
    ("terminated session", History.terminate),
    ("timeout of a session", History.time_out),
    ("promotion", History.promote),
    ("promotion that the other follows", History.follow_after_promotion),
    ("another upstream", History.follow),
    ("rewind", History.rewind),
    ("stranded standby", History.strand),
    ("paused replay", History.pause),
    ("delayed replay", History.delay),
    ("frozen server", History.freeze),
    ("conflict with a lock", History.conflict_lock),
    ("conflict of a running query", History.conflict_running),
    ("conflict with a vacuum", History.conflict_vacuum),
    ("full server", History.full),
    ("rows wanted in two orders", History.locks),
    ("commit that waits for a standby", History.commit_waits),
)
_FAULT_WEIGHTS = (2, 2, 3, 2, 3, 3, 3, 3, 3, 2, 2, 4, 2, 2, 3, 3, 3, 2, 6, 4)

_VALUES = (
    ("app.tenant", "'t1'"),
    ("app.tenant", "'O''Neill'"),
    ("app.tenant", "t2"),
    ("statement_timeout", "'90s'"),
    ("statement_timeout", "60000"),
    ("search_path", "public"),
    ("search_path", "app, public"),
    ("search_path", "'App', public"),
    ("application_name", "'web 1'"),
    ("work_mem", "'8MB'"),
    ("default_transaction_isolation", "'repeatable read'"),
    ("default_transaction_isolation", "serializable"),
    ("default_transaction_read_only", "on"),
    ("default_transaction_read_only", "false"),
    ("default_transaction_deferrable", "on"),
    ("role", "none"),
    ("synchronous_commit", "off"),
    ("synchronous_commit", "local"),
)
_WRONG = (
    "nosuch = 1",
    "default_transaction_isolation = nonsense",
    "default_transaction_read_only = perhaps",
    "statement_timeout = soon",
)
_NONE = ("nosuch", "app.none")
_TENANT_TOO = "current_setting('app.tenant', true)"
_TIMEOUTS = (
    ("idle_session_timeout", "57P05"),
    ("idle_in_transaction_session_timeout", "25P03"),
    ("transaction_timeout", "25P04"),
)


def _quoted(value: str) -> str:
    """`value`, as SET has it, as one literal."""
    if value.startswith("'") and value.count("'") % 2 == 0 and ", " not in value:
        return value
    return "'" + value.replace("'", "") + "'"


def _status(session: Session) -> str:
    if not session.open:
        return "UNKNOWN"
    if session.failed:
        return "INERROR"
    return "INTRANS" if session.in_transaction else "IDLE"


def _end_of_record(lsn: int) -> int:
    """A position behind the header of a page still to come is the end of the page before."""
    header = 40 if lsn % SEGMENT < 8192 else 24
    return lsn - header if lsn % 8192 == header else lsn


def play(real: RealCluster, seeds: Iterable[int], tally: Tally) -> None:
    """Play the histories of `seeds` on one cluster."""
    began = time.monotonic()
    for seed in seeds:
        history = History(real, seed, tally)
        try:
            history.run()
            history.restore()
        except Disagreement:
            raise
        except Exception as error:
            error.add_note(str(history.differ("?", "?")))
            raise
    tally.seconds += time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the first history")
    parser.add_argument("--histories", type=int, default=300)
    given = parser.parse_args()
    tally = Tally()
    with RealCluster() as real:
        play(real, range(given.seed, given.seed + given.histories), tally)
    sys.stdout.write(f"{tally}\n")


if __name__ == "__main__":
    main()
