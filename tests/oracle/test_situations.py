"""Real servers against the classifier: what a replica would do in silence is never a read.

Each situation of situations.sql is made on a primary. Every statement of it runs on a replica,
whatever the classifier says, and must show there what the table says it does; so none is vacuous.
"""

import time
from collections.abc import Iterator
from typing import NamedTuple

import psycopg
import pytest
from psycopg import Connection, pq

from router.sql.catalog import BUILTIN, Catalog
from router.sql.classifier import classify
from router.sql.intent import Intent, Kind
from router.testing import Cluster, Server
from tests.oracle.situations import PROOFS, SITUATIONS, Situation, Statement

NAME = "situations"
PRIMARYS = (Kind.WRITE, Kind.SESSION, Kind.TRANSACTION)

FREE_SHARE = 0.68
"""How many of the harmless statements are called reads, at least: raise it when it is more."""

LOCK = "select count(*) from pg_locks where locktype = 'advisory' and objid = 4242 and pid = {}"
STATE = """
select coalesce(pg_catalog.current_setting('atk.mark', true), ''),
    (select pg_catalog.count(*) from pg_catalog.pg_prepared_statements),
    (select pg_catalog.count(*) from pg_catalog.pg_cursors where is_holdable),
    pg_catalog.random()
"""
RESET = """
select (select stats_reset from pg_stat_database where datname = current_database()),
    (select max(stats_reset) from pg_stat_wal), (select max(stats_reset) from pg_stat_io),
    (select max(stats_reset) from pg_stat_bgwriter), (select max(stats_reset) from pg_stat_slru)
"""

Rows = list[tuple[bytes | None, ...]]


class Ran(NamedTuple):
    """What a server made of a text: its error, if any, and its rows."""

    error: str
    rows: Rows


class Outcome(NamedTuple):
    """What a statement is called, and in what it does not do what the table says."""

    statement: Statement
    intent: Intent
    wrong: str


def run(connection: Connection, text: str) -> Ran:
    """Run `text` by the simple protocol; the rows are those of all its statements."""
    raw = connection.pgconn
    raw.send_query(text.encode())
    error, rows = "", Rows()
    while (result := raw.get_result()) is not None:
        if result.status == pq.ExecStatus.COPY_OUT:
            while (got := raw.get_copy_data(0))[0] > 0:
                rows.append((bytes(got[1]),))
        elif result.status == pq.ExecStatus.FATAL_ERROR:
            error = error or result.error_message.decode()
        else:
            rows += [
                tuple(result.get_value(r, c) for c in range(result.nfields))
                for r in range(result.ntuples)
            ]
    return Ran(error, rows)


class Bench:
    """A primary and a replica on which one situation after the other is made.

    Attributes:
        unread: what kept the catalog from being read, by the situation.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.primary, self.replica = cluster.primary, cluster.replicas[0]
        self.primary.execute(f"create database {NAME}")
        self.primary.execute("create role reader", dbname=NAME)
        self.replica.wait_caught_up()
        self._maker = self._connect(self.primary)
        self._watcher = self._connect(self.replica)
        seeded = run(self._watcher, f"select setseed(0.5); {STATE}")
        self._seeded = seeded.rows[-1][3]
        self._known: dict[str, list[Outcome]] = {}
        self.unread: dict[str, str] = {}

    def close(self) -> None:
        self._maker.close()
        self._watcher.close()

    def judged(self, situation: Situation) -> list[Outcome]:
        """The outcome of each statement of `situation`, which is made once."""
        known = self._known.get(situation.name)
        if known is None:
            known = self._known[situation.name] = self._judge(situation)
        return known

    def _judge(self, situation: Situation) -> list[Outcome]:
        self._maker.execute(f"set search_path = {situation.path}".encode())
        self._maker.execute(situation.setup.encode())
        self._catch_up()
        try:
            catalog = self._catalog(situation)
            with self._connect(self.primary, situation) as primary:
                return [
                    Outcome(s, classify(s.sql, catalog), self._wrong(situation, s, primary))
                    for s in situation.statements
                ]
        finally:
            self._maker.execute("drop schema atk cascade")
            self._maker.execute(situation.undo.encode())
            self._catch_up()

    def _catalog(self, situation: Situation) -> Catalog:
        """What is read of the replica with the search path of `situation`, as the router does it;
        without one the router judges by PostgreSQL's own objects alone."""
        with self._connect(self.replica, situation, asks=False) as connection:
            try:
                return Catalog.from_rows(
                    {
                        part: connection.execute(sql).fetchall()
                        for part, sql in Catalog.QUERIES.items()
                    }
                )
            except psycopg.Error as error:
                self.unread[situation.name] = str(error)
                return BUILTIN

    def _catch_up(self) -> None:
        (lsn,) = self._maker.execute("select pg_current_wal_flush_lsn()").fetchone() or ("",)
        deadline = time.monotonic() + 10
        caught_up = f"select pg_last_wal_replay_lsn() >= '{lsn}'"
        while run(self._watcher, caught_up).rows != [(b"t",)]:
            assert time.monotonic() < deadline, f"the replica did not replay up to {lsn} in 10 s"
            time.sleep(0.002)

    def _wrong(self, situation: Situation, statement: Statement, primary: Connection) -> str:
        """In what a replica, asked in a session of its own, does not do what the table says."""
        proof, sql = statement
        cursor = sql.lower().startswith("declare c ")
        before = run(self._watcher, RESET).rows if proof == "resets" else []
        with self._connect(self.replica, situation) as connection:
            if proof == "held" or cursor:
                run(connection, "begin")
            ran = run(connection, sql)
            if cursor and not ran.error:
                ran = run(connection, "fetch all c")
            if proof == "refused":
                return "" if ran.error else "the replica runs it"
            if proof == "unbuilt" and "libxml" in ran.error:
                return ""
            if ran.error:
                return f"the replica: {ran.error}"
            acts = self._locked(connection)
            if proof in ("locks", "held", "unbuilt"):
                return "" if acts else "no lock is on the replica"
            stays = self._stays(connection)
        if proof == "stays":
            return "" if stays else "nothing stays in the session"
        if proof == "resets":
            return "" if self._resets(before) else "no statistics were reset"
        text = f"begin; {sql}; fetch all c; rollback" if cursor else sql
        there = run(primary, text)
        if there.error:
            return f"the primary: {there.error}"
        if proof == "differs":
            if there != run(primary, text):
                return "the primary says something else each time"
            return "" if there != ran else f"both say {there.rows}"
        if acts or stays:
            return "it acts"
        return "" if there == ran else f"the primary says {there.rows}, the replica {ran.rows}"

    def _locked(self, connection: Connection) -> bool:
        """Whether the session of `connection` has the lock, as another one sees it."""
        pid = connection.pgconn.backend_pid
        return run(self._watcher, LOCK.format(pid)).rows != [(b"0",)]

    def _stays(self, connection: Connection) -> bool:
        """Whether the session of `connection` is not as it began."""
        state = run(connection, STATE).rows[-1]
        return state[:3] != (b"", b"0", b"0") or state[3] == self._seeded

    def _resets(self, before: Rows) -> bool:
        """Whether statistics of the replica were reset since `before`; it may take a moment."""
        for _ in range(20):
            if run(self._watcher, RESET).rows != before:
                return True
            time.sleep(0.01)
        return False

    @staticmethod
    def _connect(
        server: Server, situation: Situation | None = None, *, asks: bool = True
    ) -> Connection:
        """A session of its own, as the one that `asks` in `situation` has it."""
        options = "-c statement_timeout=5s"
        if situation is not None:
            options += f" -c search_path={situation.path.replace(' ', '')}"
            options += f" -c role={situation.role}" if situation.role and asks else ""
        return psycopg.connect(server.conninfo(NAME), autocommit=True, options=options)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A primary and a replica, for all situations."""
    with Cluster(1) as started:
        yield started


@pytest.fixture(scope="module")
def bench(cluster: Cluster) -> Iterator[Bench]:
    made = Bench(cluster)
    yield made
    made.close()


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda s: s.name)
def test_what_the_table_says_is_so(bench: Bench, situation: Situation) -> None:
    """A real replica does with each statement what the table says: none of them is vacuous."""
    wrong = [(o.statement.sql, o.wrong) for o in bench.judged(situation) if o.wrong]
    assert not wrong


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda s: s.name)
def test_nothing_is_misrouted_in_silence(bench: Bench, situation: Situation) -> None:
    """What a replica runs in silence, though it is the primary's, is never called a read."""
    misrouted = [
        o.statement.sql
        for o in bench.judged(situation)
        if o.statement.proof not in ("free", "refused")
        and o.intent.kind not in PRIMARYS
        and not o.intent.server_local
    ]
    assert not misrouted, "misrouted silently"


def test_what_is_harmless_is_read(bench: Bench) -> None:
    """What only looks like an attack may leave the primary, in the share known today."""
    judged = [
        (situation.name, o)
        for situation in SITUATIONS
        for o in bench.judged(situation)
        if o.statement.proof == "free"
    ]
    lost = [(n, o.statement.sql, o.intent.reason) for n, o in judged if o.intent.kind in PRIMARYS]
    share = 1 - len(lost) / len(judged)
    print(f"\nharmless statements called reads: {share:.1%} of {len(judged)}; lost:")
    for name, sql, reason in lost:
        print(f"  {name}: {sql}\n    {reason}")
    assert share >= FREE_SHARE


def test_the_catalog_is_read(bench: Bench) -> None:
    """Nothing that is made in a situation, and no search path, keeps the catalog from the
    router."""
    for situation in SITUATIONS:
        bench.judged(situation)
    assert not bench.unread


def test_the_table_is_large() -> None:
    """The table has what it was made to have, each situation once and each statement once."""
    silent = [p for p in PROOFS if p not in ("free", "refused")]
    primarys = sum(1 for s in SITUATIONS for _ in s.of(*silent))
    assert len({s.name for s in SITUATIONS}) == len(SITUATIONS) >= 165
    assert primarys >= 1900
    assert sum(1 for s in SITUATIONS if any(s.of("free"))) >= 60
    assert all(len(set(s.statements)) == len(s.statements) for s in SITUATIONS)
