"""What the users of an application do: requests of a few statements each, in any of its processes,
with their pins carried from one to the next."""

import random
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import IsolationLevel

import router
from router.errors import RouterError
from router.pins.token import Entry
from router.rules.context import RoutingContext
from tests.simulation.history import Action, Failure, Read, Write
from tests.simulation.postgres import APPEND, INCREMENT, LOCK, READ, UPDATE
from tests.simulation.tenant import Program

if TYPE_CHECKING:
    from tests.simulation.simulation import Process, Simulation

KEYS = 40
"""Rows that users read and write; so few that they meet."""

TENANT = "SELECT current_setting('app.tenant', true)"


class User:
    """One user: his requests come one after another."""

    def __init__(self, simulation: "Simulation", number: int, rand: random.Random) -> None:
        self.simulation = simulation
        self.number = number
        self.rand = rand
        self.history = simulation.history
        self.entries: list[Entry] = []
        self.older: list[Entry] = []
        self.process: Process = simulation.processes[0]
        self.request = 0
        self.tag = ""
        self.since = 0.0
        # No pin guards for long what somebody has written who only reads since.
        self.reads = number % 3 == 0

    def run(self) -> None:
        """Make requests until the simulation has had enough."""
        simulation, rand = self.simulation, self.rand
        scheduler = simulation.scheduler
        while not simulation.over:
            self.process = rand.choice(simulation.processes)
            simulation.enter(self.process)
            self.request = next(simulation.requests)
            with router.request_context() as context:
                if self.entries:
                    self._arrive(context)
                for _ in range(rand.randint(1, 5)):
                    if simulation.over:
                        break
                    self._act()
                    if self.rand.random() < 0.1:
                        scheduler.sleep(0.5 * self.rand.random())
                self._leave(context)
            # Most happens when something is wrong, and at times so much that pools are crowded.
            crowded = int(scheduler.now / 2) % 5 == 1
            pace = 0.2 if crowded else 0.5 if simulation.troubled else 1.5
            if self.history.operations > simulation.setting.operations:
                pace *= 5  # enough has been sent, and a fault goes on for long
            scheduler.sleep(simulation.think * rand.random() * pace)

    # -- pins from one process to the next -----------------------------------------------------

    def _arrive(self, context: RoutingContext) -> None:
        # As from two tabs of a browser, or a cookie and a header: the older one comes too.
        sign, tokens = self.process.carrier.tokens.sign, [self.entries]
        if self.older and self.rand.random() < 0.5:
            tokens.insert(self.rand.randrange(2), self.older)
        self.process.carrier.arrive(context.pins, [sign(entries) for entries in tokens])

    def _leave(self, context: RoutingContext) -> None:
        if context.pins.changes:
            self.older, self.entries = self.entries, self.process.carrier.entries(context)

    # -- what he does --------------------------------------------------------------------------

    def _act(self) -> None:
        weights = READING if self.reads and self.history.faults else WEIGHTS
        name, act = self.rand.choices(ACTS, weights)[0]
        simulation = self.simulation
        sent = self.since = simulation.scheduler.now
        outcome = "done"
        try:
            act(self)
        except (psycopg.Error, RouterError) as error:
            outcome = type(error).__name__
        done = simulation.scheduler.now
        self.history.actions.append(Action(name, self.process.number, sent, done, outcome))

    def _params(self, **params: Any) -> dict[str, Any]:
        self.history.operations += 1
        params["tag"], params["since"] = self.tag, self.since
        return params

    def read_one(self, connection: Any, key: int, *, explicit: bool = False, level: str = "",
                 sql: str = READ, own: Any = None, within: bool = False) -> Any:  # fmt: skip
        """Read a row; `within` a transaction that is open on some node, it fails with that."""
        scheduler, process = self.simulation.scheduler, self.process
        sent, followed, leader = scheduler.now, process.router.view.timeline, process.leader
        try:
            cursor = connection.execute(sql, self._params(id=key))
            value = cursor.fetchone()[0]
        except (psycopg.Error, RouterError) as error:
            failure = Failure(
                self.number, self.process.number, sent, scheduler.now,
                f"{type(error).__name__}: {error}",
            )  # fmt: skip
            surrounded = self.simulation.setting.options["reads_in_transaction"]
            if not (explicit or within or surrounded):
                self.history.failures.append(failure)
            raise
        at, leaders, done = cursor.result.at, (leader, process.leader), scheduler.now
        who = self.request, self.number, process.number
        self.history.reads.append(
            Read(*who, sent, done, key, value, at, explicit, level, followed, leaders, own)
        )
        return value

    def read(self) -> None:
        """Some reads on one connection."""
        with self.process.pool.connection() as connection:
            for _ in range(self.rand.randint(1, 3)):
                self.read_one(connection, self.rand.randrange(KEYS))

    def read_in_autocommit(self) -> None:
        """A read with autocommit on."""
        with self.process.pool.connection() as connection:
            connection.autocommit = True
            self.read_one(connection, self.rand.randrange(KEYS))

    def _writing(self, write: Any, *, autocommit: bool = False) -> None:
        simulation = self.simulation
        sent = simulation.scheduler.now
        ops: list[str] = []
        sets: dict[int, Any] = {}
        seen: dict[int, Any] = {}
        outcome, done = "", 0.0
        try:
            with self.process.pool.connection() as connection:
                if autocommit:
                    connection.autocommit = True
                write(connection, ops, sets, seen)
                if not autocommit:
                    connection.commit()
                # Acknowledged now; giving the connection back may take until a fault is over.
                outcome, done = "done", simulation.scheduler.now
        except (psycopg.Error, RouterError) as error:
            outcome = outcome or self._outcome(error)
            raise
        finally:
            self.history.writes.append(
                Write(self.request, self.number, self.process.number, sent,
                      done or simulation.scheduler.now, tuple(ops), sets, outcome, seen)
            )  # fmt: skip

    @staticmethod
    def _outcome(error: BaseException) -> str:
        kinds = {cls.__name__ for cls in type(error).__mro__}
        return "CommitUnknown" if "CommitUnknown" in kinds else type(error).__name__

    def _compute(self) -> None:
        """Something between two statements, while whatever is open stays open."""
        drawn = self.rand.random()
        if drawn < 0.5:
            most = 0.3 if drawn < 0.05 else 0.02
            self.simulation.scheduler.sleep(most * self.rand.random())

    def _append(self, connection: Any, ops: list[str]) -> None:
        op = f"{self.number}.{next(self.simulation.numbers)}"
        ops.append(op)
        connection.execute(APPEND, self._params(op=op))

    def _update(self, connection: Any, key: int, sets: dict[int, Any]) -> None:
        sets[key] = value = next(self.simulation.numbers)
        connection.execute(UPDATE, self._params(id=key, value=value))

    def write(self) -> None:
        """One write, and at times what was written is read at once."""
        key = self.rand.randrange(KEYS)

        def do(connection: Any, ops: list[str], sets: dict[int, Any], _: Any) -> None:
            self._update(connection, key, sets)
            if self.rand.random() < 0.3:
                self._append(connection, ops)

        self._writing(do)
        if self.rand.random() < 0.7:
            with self.process.pool.connection() as connection:
                self.read_one(connection, key)

    def write_in_autocommit(self) -> None:
        """A write with autocommit on, and its row read."""
        key = self.rand.randrange(KEYS)

        def do(connection: Any, ops: list[str], sets: dict[int, Any], _: Any) -> None:
            if self.rand.random() < 0.5:
                self._update(connection, key, sets)
            else:
                self._append(connection, ops)

        self._writing(do, autocommit=True)
        with self.process.pool.connection() as connection:
            self.read_one(connection, key)

    def read_modify_write(self) -> None:
        """An explicit transaction that computes what it writes from what it has read."""
        key, locks = self.rand.randrange(KEYS), self.rand.random() < 0.6

        def do(
            connection: Any, ops: list[str], sets: dict[int, Any], seen: dict[int, Any]
        ) -> None:
            with connection.transaction():
                if locks:
                    # Of several statements, so that the connection may break between them.
                    seen[key] = self.read_one(connection, key, explicit=True, sql=LOCK)
                else:
                    self.read_one(connection, key, explicit=True)
                self._compute()
                self._update(connection, key, sets)
                self._append(connection, ops)

        self._writing(do)

    def increment(self) -> None:
        """An increment, computed by the server."""

        def do(connection: Any, ops: list[str], sets: dict[int, Any], _: Any) -> None:
            with connection.transaction():
                connection.execute(INCREMENT, self._params(id=1))
                self._compute()
                self._append(connection, ops)

        self._writing(do)

    def as_tenant(self) -> None:
        """Statements that depend on a setting of the session made before."""
        tenant = f"t{self.rand.randrange(5)}"
        self.tag = tenant

        def do(connection: Any, ops: list[str], sets: dict[int, Any], _: Any) -> None:
            local = self.rand.random() < 0.3
            connection.execute(f"SET {'LOCAL ' * local}app.tenant = '{tenant}'")
            for _ in range(self.rand.randint(1, 3)):
                self._compute()
                key = self.rand.randrange(KEYS)
                if self.rand.random() < 0.3:
                    self._update(connection, key, sets)
                else:
                    # SET has begun a transaction, perhaps on the replica that is read on.
                    self.read_one(connection, key, within=True)

        try:
            self._writing(do)
        finally:
            self.tag = ""

    def settings(self) -> None:
        """A setting that is set, reset and rolled back, and statements that depend on it."""

        def read(tenant: str) -> None:
            self.tag = tenant
            self.read_one(connection, self.rand.randrange(KEYS), within=True, level="RO")

        def write(tenant: str) -> None:
            self.tag = tenant
            op = f"free.{next(self.simulation.numbers)}"  # it may be rolled back, or not
            connection.execute(APPEND, self._params(op=op))

        try:
            with self.process.pool.connection() as connection:
                Program(connection, self.rand, read, write).run()
        finally:
            self.tag = ""

    def read_only(self) -> None:
        """A read-only transaction of several statements."""
        repeatable = self.rand.random() < 0.5
        with self.process.pool.connection() as connection:
            connection.read_only = True
            level = ""
            if repeatable:
                connection.isolation_level = IsolationLevel.REPEATABLE_READ
                level = "REPEATABLE READ"
            with connection.transaction():
                for _ in range(self.rand.randint(1, 4)):
                    self._compute()
                    self.read_one(
                        connection,
                        self.rand.randrange(KEYS),
                        explicit=True,
                        level=level or "RO",
                    )

    def on_primary(self) -> None:
        """A read that is asked for on the primary."""
        with router.using_primary(), self.process.pool.connection() as connection:
            self.read_one(connection, self.rand.randrange(KEYS), level="PRIMARY")

    def read_inside(self) -> None:
        """A transaction reads what it has just written itself."""
        key, pins = self.rand.randrange(KEYS), self.rand.random() < 0.5
        sets_first = self.rand.random() < 0.5

        def do(connection: Any, ops: list[str], sets: dict[int, Any], _: Any) -> None:
            if sets_first:
                connection.execute("SET app.tenant = ''")
            with nullcontext() if pins else router.without_pinning():
                self._update(connection, key, sets)
                self._compute()
                self.read_one(connection, key, own=sets[key], within=True)

        self._writing(do)

    def two_connections(self) -> None:
        """What one connection has written, another reads whose transaction was open before."""
        process = self.process
        if process.nesting:
            return  # two who hold one connection and want another would wait for each other
        process.nesting = True
        try:
            self._nested()
        finally:
            process.nesting = False

    def _nested(self) -> None:
        key, tenant = self.rand.randrange(KEYS), f"t{self.rand.randrange(5)}"
        with self.process.pool.connection() as first:
            if self.rand.random() < 0.7:
                first.execute(f"SET LOCAL app.tenant = '{tenant}'")
                self.tag = tenant
            try:
                self.read_one(first, key, within=True)
                self.tag, tag = "", self.tag

                def do(connection: Any, _: list[str], sets: dict[int, Any], __: Any) -> None:
                    self._update(connection, key, sets)

                self._writing(do)
                self.tag = tag
                self.read_one(first, key, within=True)
            finally:
                self.tag = ""

    def stubborn(self) -> None:
        """A transaction that goes on after one of its statements has failed."""

        def do(connection: Any, ops: list[str], sets: dict[int, Any], _: Any) -> None:
            with connection.transaction():
                self._append(connection, ops)
                self._compute()
                with suppress(psycopg.Error):
                    self.read_one(connection, self.rand.randrange(KEYS), within=True)
                self._append(connection, ops)

        self._writing(do)

    def fails(self) -> None:
        """A transaction that an error of its own ends."""

        def do(connection: Any, ops: list[str], sets: dict[int, Any], _: Any) -> None:
            with connection.transaction():
                self._append(connection, ops)
                connection.execute("SELECT 1/0", self._params())

        self._writing(do)

    def gives_up(self) -> None:
        """A transaction that is left open when its connection is given back."""
        connection = self.process.pool.getconn()
        try:
            connection.execute(APPEND, self._params(op=f"undone.{next(self.simulation.numbers)}"))
        finally:
            self.process.pool.putconn(connection)


ACTS: list[tuple[str, Any]] = [
    ("read", User.read),
    ("read in autocommit", User.read_in_autocommit),
    ("write", User.write),
    ("write in autocommit", User.write_in_autocommit),
    ("read-modify-write", User.read_modify_write),
    ("increment", User.increment),
    ("as a tenant", User.as_tenant),
    ("read-only transaction", User.read_only),
    ("on the primary", User.on_primary),
    ("read inside", User.read_inside),
    ("two connections", User.two_connections),
    ("stubborn", User.stubborn),
    ("a failing transaction", User.fails),
    ("left open", User.gives_up),
    ("settings", User.settings),
]
WEIGHTS = [40, 10, 12, 8, 8, 5, 6, 6, 2, 7, 4, 3, 1, 1, 4]
READING = [70, 15, 0, 0, 0, 0, 0, 8, 1, 0, 0, 0, 0, 0, 0]
