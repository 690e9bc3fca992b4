"""Puts PostgreSQL's own regression scripts to a standby, statement by statement.

Each script has a session of its own on the primary, as with pg_regress. Just before a statement
runs there it is classified, by the catalog as it was after the session's last committed DDL, and
run on the standby once that has replayed what was committed, with the session's settings.
"""

import json
import re
import select
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pgparse  # type: ignore[import-not-found]
import psycopg
from psycopg import Connection, pq
from psycopg.pq import ExecStatus, TransactionStatus

from router.sql.catalog import Catalog
from router.sql.classifier import Classifier
from router.sql.intent import Intent, Kind
from router.testing import Cluster
from tests.oracle import corpus
from tests.oracle.judge import NOT_RUN, verdict
from tests.oracle.recorder import ELSEWHERE

SETTINGS = {
    "statement_timeout": "5s",
    "autovacuum": "off",
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",
    "max_standby_streaming_delay": "2s",
}
DATABASE = """
    ALTER DATABASE {0} SET lc_messages TO 'C';
    ALTER DATABASE {0} SET bytea_output TO 'hex';
    ALTER DATABASE {0} SET timezone_abbreviations TO 'Default';
    ALTER DATABASE {0} SET timezone TO 'America/Los_Angeles';
    ALTER DATABASE {0} SET datestyle TO 'Postgres, MDY';
    ALTER DATABASE {0} SET intervalstyle TO 'postgres_verbose';
"""
"""What pg_regress sets."""

VOLATILE_CAST = """
    CREATE TYPE vt AS (x int);
    CREATE FUNCTION vt2i(vt) RETURNS bigint LANGUAGE plpgsql VOLATILE
        AS 'begin return $1.x; end';
    CREATE CAST (vt AS bigint) WITH FUNCTION vt2i(vt) AS IMPLICIT;
"""

LEFT_CAST = "DROP CAST IF EXISTS (int4 AS casttesttype)"
"""create_cast.sql leaves such a cast behind, which concerns every statement after it too."""

PATIENCE = 20.0
"""Seconds after which a server's answer is no longer waited for; its own limit is 5 s."""
CATCHING_UP = 5.0
"""Seconds the standby has for what was committed."""
KILLS = re.compile(
    r"pg_terminate_backend|pg_cancel_backend|pg_promote|pg_wal_replay_(pause|resume)|ALTER\s+SYSTEM"
    r"|pg_sleep\(\s*\d\d|pg_rotate_logfile|pg_reload_conf",
    re.IGNORECASE,
)
"""Not even run on the primary."""
NO_READ = re.compile(
    r"(create|alter|drop|comment|grant|revoke|insert|update|delete|merge|vacuum|analyze|reindex"
    r"|truncate|lock|cluster|refresh|set|reset|begin|start|commit|end|rollback|abort|savepoint"
    r"|release|security|import|reassign|do|deallocate|close)\b",
    re.IGNORECASE,
)
"""No read by any catalog, so the catalog is not read anew for it."""
SETS = re.compile(
    r"\b(set|reset|discard|rollback|abort|commit|end|set_config|savepoint|call|do)\b",
    re.IGNORECASE,
)
UNSURE = re.compile(
    r"random|now\(|current_|localtime|clock_|timestamp|pg_stat|pg_lock|tablesample|backend|xid"
    r"|xact|snapshot|lsn|pg_(temp|postmaster|conf|relation_size|total|table_size|ls_|prepared)"
    r"|pg_(settings|cursors|database_size|is_in|control)|\buuid|ctid|today|yesterday|tomorrow"
    r"|currval|lastval|inet_server|version\(",
    re.IGNORECASE,
)
"""What may rightly be answered otherwise."""
SESSION_SETTINGS = b"""
    select pg_catalog.current_setting('role'), session_user, name, setting
    from (values (1)) one left join pg_catalog.pg_settings
        on source = 'session' and name !~ '^transaction_'
"""
ADVISORY = b"""
    select from pg_catalog.pg_locks
    where locktype = 'advisory' and pid = pg_catalog.pg_backend_pid()
"""

NO_EFFECT = re.compile(r"\blo_oid\(")
"""What ELSEWHERE takes for something else."""

Nothing = Callable[[], str]


def ask(
    raw: pq.abc.PGconn, text: bytes, params: Sequence[bytes] | None = None, data: Nothing = str
) -> pq.abc.PGresult | None:
    """The last result of `text`, or the one that failed; None where no answer came in time.

    Args:
        raw: whose answer is awaited for PATIENCE seconds, then given up with the connection.
        text: one or more statements.
        params: sent apart from the text, where there are any.
        data: called for what a COPY is to be given.
    """
    deadline = time.monotonic() + PATIENCE
    last: pq.abc.PGresult | None = None
    try:
        if params is None:
            raw.send_query(text)
        else:
            raw.send_query_params(text, list(params))
        while True:
            while raw.is_busy():
                if not select.select([raw.socket], [], [], max(0.0, deadline - time.monotonic()))[
                    0
                ]:
                    raw.finish()
                    return None
                raw.consume_input()
            result = raw.get_result()
            if result is None:
                return last
            if result.status == ExecStatus.COPY_OUT:
                while raw.get_copy_data(0)[0] > 0:
                    pass
            elif result.status == ExecStatus.COPY_IN:
                raw.put_copy_data(data().encode(errors="surrogateescape"))
                raw.put_copy_end()
            if last is None or last.status != ExecStatus.FATAL_ERROR:
                last = result
    except psycopg.OperationalError:
        raw.finish()
        return None


def rows(result: pq.abc.PGresult | None) -> list[tuple[bytes | None, ...]]:
    """The rows of `result`, none where it has none."""
    if result is None or result.status != ExecStatus.TUPLES_OK:
        return []
    columns = range(result.nfields)
    return [tuple(result.get_value(n, c) for c in columns) for n in range(result.ntuples)]


def is_plain(text: str) -> bool:
    """Whether `text` is one query without a locking clause and without INTO."""
    try:
        statements = pgparse.parse(text)
    except pgparse.PGQueryError:
        return re.match(r"(\(\s*)*(select|values|table|with)\b", text, re.IGNORECASE) is not None
    if len(statements) != 1:
        return False
    body = statements[0]["stmt"].get("SelectStmt")
    return body is not None and "intoClause" not in body and "lockingClause" not in body


def _connect(conninfo: str, options: str = "") -> Connection[Any]:
    return psycopg.connect(conninfo, options=options, autocommit=True, connect_timeout=10)


class Database:
    """One database: the catalog as last read, and what tells how far the standby is."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.name = name
        self.cluster = cluster
        self.reader = _connect(
            cluster.primary.conninfo(name), "-c lock_timeout=200 -c event_triggers=off"
        )
        self.progress = _connect(cluster.replicas[0].conninfo("postgres"))
        self.classify = Classifier(max_entries=1000)
        self.dirty = True
        self.times: Counter[str] = Counter()

    def close(self) -> None:
        """Leave the database."""
        self.reader.close()
        self.progress.close()

    def intent(self, text: str) -> Intent:
        """As a Router has it that has read the catalog since the last DDL."""
        started = time.monotonic()
        if self.dirty and not NO_READ.match(text):
            try:
                rows = {
                    part: self.reader.execute(sql.encode()).fetchall()
                    for part, sql in Catalog.QUERIES.items()
                }
            except psycopg.Error:
                self.times["catalogs not read"] += 1
            else:
                self.classify.replace_catalog(Catalog.from_rows(rows))
                self.times["catalogs read"] += 1
                self.dirty = False
            self.times["ms for the catalog"] += round((time.monotonic() - started) * 1000)
            started = time.monotonic()
        intent = self.classify(text)
        self.times["us to classify"] += round((time.monotonic() - started) * 1e6)
        return intent

    def catch_up(self) -> bool:
        """Wait until the standby has what is committed; False where it took too long."""
        started = time.monotonic()
        flushed, unflushed = self._written()
        if unflushed:  # such as what changes a row of the catalog in place
            self._flush()
            flushed, _ = self._written()
        query = "select pg_last_wal_replay_lsn() >= %s"
        nudged = False
        while not self.progress.execute(query, [flushed]).fetchone()[0]:  # type: ignore[index]
            waited = time.monotonic() - started
            if waited > CATCHING_UP:
                self.times["not caught up"] += 1
                return False
            if waited > 0.1 and not nudged:  # a record may be flushed by half
                nudged = True
                self._flush()
            time.sleep(0.0003)
        self.times["ms to catch up"] += round((time.monotonic() - started) * 1000)
        return True

    def _written(self) -> tuple[str, bool]:
        query = """
            select pg_current_wal_flush_lsn()::text,
                pg_current_wal_insert_lsn() > pg_current_wal_flush_lsn()
        """
        row: tuple[str, bool] | None = self.reader.execute(query).fetchone()
        assert row is not None
        return row

    def _flush(self) -> None:
        self.reader.execute("select pg_logical_emit_message(false, 'oracle', '', true)")


class Session:
    """A psql on the primary, and its shadow on the standby."""

    def __init__(self, database: Database, user: str = "") -> None:
        self.database = database
        primary = database.cluster.primary.conninfo(database.name)
        self.primary = _connect(f"{primary} user={user}" if user else primary).pgconn
        self.user = user
        self._connect()
        self.changing = False
        self.stale = True
        self.bound = False  # as a Router's session would be, which stays on the primary then

    def _connect(self) -> None:
        standby = self.database.cluster.replicas[0].conninfo(self.database.name)
        self.standby = _connect(standby, "-c lock_timeout=300 -c event_triggers=off").pgconn
        self.settings: list[bytes] = []
        self.unsynced = True

    def close(self) -> None:
        """End both sessions."""
        self.primary.finish()
        self.standby.finish()

    @property
    def status(self) -> TransactionStatus:
        """Of the primary's session."""
        return TransactionStatus(self.primary.transaction_status)

    def follow_settings(self) -> None:
        """Note the settings of the primary's session for the standby's."""
        result = ask(self.primary, SESSION_SETTINGS)
        found = rows(result)
        if not found:
            return
        self.unsynced = False
        escape = pq.Escaping(self.standby)
        wanted = [
            b"select pg_catalog.set_config(%b, %b, false)"
            % (escape.escape_literal(name), escape.escape_literal(value or b""))
            for _, _, name, value in found
            if name is not None
        ]
        role, user = found[0][:2]
        if user not in (None, b"postgres"):
            wanted.append(b"set session authorization " + escape.escape_identifier(user or b""))
        if role not in (None, b"none"):
            wanted.append(b"set role " + escape.escape_identifier(role or b""))
        if wanted == self.settings:
            return
        ask(self.standby, b"discard all")
        self.settings = [
            statement
            for statement in wanted
            if (done := ask(self.standby, statement)) and done.status != ExecStatus.FATAL_ERROR
        ]

    def shadow(
        self, text: str, intent: Intent, params: Sequence[bytes] | None
    ) -> tuple[pq.abc.PGresult | None, bool]:
        """The standby's answer, and whether it left an advisory lock there."""
        raw = self.standby
        read = intent.kind is Kind.READ
        if intent.needs_transaction:
            ask(raw, b"begin; savepoint a")
            if not text.upper().startswith(("DECLARE", "SET")):
                ask(raw, b"declare c scroll cursor for select 1")
        elif read:
            ask(raw, b"begin")
        result = ask(raw, text.encode(errors="surrogateescape"), params)
        locked = False
        if read and result is not None and result.status != ExecStatus.FATAL_ERROR:
            locked = bool(rows(ask(raw, ADVISORY)))
        if raw.transaction_status != TransactionStatus.IDLE:
            ask(raw, b"rollback")
        cleaned = ask(raw, b"discard all")
        if cleaned is not None and self.settings:
            cleaned = ask(raw, b"; ".join(self.settings))
        if cleaned is None:
            raw.finish()
            self._connect()
        return result, locked


class Run:
    """Runs scripts and keeps what came of each statement."""

    def __init__(self, cluster: Cluster, root: Path, results: Path) -> None:
        """Prepare.

        Args:
            cluster: with one replica.
            root: PostgreSQL's sources.
            results: a directory the servers may write to.
        """
        self.cluster = cluster
        self.root = root
        self.results = results
        self.judged: list[dict[str, Any]] = []
        self.answers: list[dict[str, Any]] = []
        self.only_there: list[dict[str, Any]] = []
        self.counts: Counter[str] = Counter()
        self.where: dict[str, Any] = {}

    def scripts(self, name: str, paths: Iterable[Path], prepared: str = "") -> None:
        """Run the scripts at `paths` in a new database `name`, where `prepared` was run before."""
        primary = self.cluster.primary
        primary.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        for line in DATABASE.format(name).strip().split(";")[:-1]:
            primary.execute(line)
        for line in re.split(r";\n", prepared.strip()):
            if line:
                primary.execute(line, dbname=name)
        self.cluster.wait_caught_up()
        database = Database(self.cluster, name)
        for path in paths:
            started = time.monotonic()
            before = self.counts["statements"]
            self.where = {"group": name, "file": path.name}
            try:
                self._script(database, path)
            except psycopg.Error as error:
                print(f"  {path.name} was given up: {str(error).strip()[:200]}", flush=True)
            if path.name == "create_cast.sql":
                database.reader.execute(LEFT_CAST)
                database.dirty = True
            took = time.monotonic() - started
            if took > 10:
                n = self.counts["statements"] - before
                print(f"  {path.name}: {n} statements in {took:.0f} s", flush=True)
        self.counts.update(database.times)
        database.close()

    def _script(self, database: Database, path: Path) -> None:
        directory = path.parent.parent
        script = corpus.Script(
            path.read_text(errors="surrogateescape"),
            {
                "PG_ABS_SRCDIR": str(directory),
                "PG_ABS_BUILDDIR": str(self.results),
                "PG_LIBDIR": "/nowhere",
                "PG_DLSUFFIX": ".so",
            },
        )
        script.variables["DBNAME"] = database.name
        session = Session(database)
        try:
            for found in script:
                if isinstance(found, corpus.Connect):
                    session.close()
                    session = Session(database, found.user)
                    continue
                self.where["line"] = found.line
                if session.primary.status != pq.ConnStatus.OK:
                    session.close()
                    session = Session(database, session.user)
                self._run(session, script, found)
        finally:
            session.close()

    def _run(self, session: Session, script: corpus.Script, found: corpus.Statement) -> None:
        """Run one statement, and do with its answer what psql would."""
        result = self._judged(session, found.text, found.params, script.data)
        copies = re.match(r"copy\b.*\bstdin\b", found.text, re.IGNORECASE | re.DOTALL)
        if copies and script.has_data():
            script.data()  # of a COPY that failed
        if found.ended == "gset" and result is not None and result.ntuples == 1:
            for column in range(result.nfields):
                name = found.argument + (result.fname(column) or b"").decode()
                value = result.get_value(0, column)
                if value is None:
                    script.variables.pop(name, None)
                else:
                    script.variables[name] = value.decode(errors="surrogateescape")
        elif found.ended == "gexec":
            for row in rows(result):
                for cell in row:
                    if cell is not None:
                        self._judged(session, cell.decode(), None, script.data)

    def _judged(
        self, session: Session, text: str, params: list[str] | None, data: Nothing
    ) -> pq.abc.PGresult | None:
        """Judge one statement and run it on the primary."""
        self.counts["statements"] += 1
        if KILLS.search(text):
            self.counts["not run"] += 1
            return None
        before = session.status
        database = session.database
        given = None if params is None else [p.encode() for p in params]
        intent = database.intent(text)
        line: dict[str, Any] | None = None
        shadow: pq.abc.PGresult | None = None
        if intent.kind is Kind.TRANSACTION:
            self.counts["of transactions"] += 1
        elif NOT_RUN.search(text) or (session.stale and not database.catch_up()):
            self.counts["not put to the standby"] += 1
        else:
            session.stale = False
            if (
                session.unsynced
                and before != TransactionStatus.INERROR
                and not (before == TransactionStatus.INTRANS and NO_READ.match(text))
            ):
                session.follow_settings()
            shadow, locked = session.shadow(text, intent, given)
            line = self._note(text, intent, shadow, locked)
            line["bound"] = session.bound
        result = ask(session.primary, text.encode(errors="surrogateescape"), given, data)
        after = session.status
        if not before == after == TransactionStatus.INTRANS and intent.kind is not Kind.READ:
            session.stale = True
        session.unsynced |= bool(SETS.search(text)) or after != before
        session.changing |= intent.ddl
        if session.changing and after == TransactionStatus.IDLE:
            session.changing, database.dirty = False, True
        session.bound |= intent.binds
        if line and shadow and result and before == TransactionStatus.IDLE:
            self._compare(line, shadow, result)
        return result

    def _note(
        self, text: str, intent: Intent, shadow: pq.abc.PGresult | None, locked: bool
    ) -> dict[str, Any]:
        said = verdict(shadow) if shadow is not None else None
        line = {
            **self.where,
            "text": text,
            "kind": intent.kind.name,
            "reason": intent.reason,
            "local": intent.server_local,
            "refused": said is not None and said.refused,
            "elsewhere": locked or bool(ELSEWHERE.search(NO_EFFECT.sub("", text))),
            "locked": locked,
            "plain": False,
        }
        if said is None:
            self.counts["no answer from the standby"] += 1
        elif said.failed and not said.refused:
            self.counts["failed on the standby"] += 1
            line["failed"] = said.message
        else:
            line["plain"] = not said.refused and is_plain(text)
            self.judged.append(line)
        return line

    def _compare(
        self, line: dict[str, Any], shadow: pq.abc.PGresult, result: pq.abc.PGresult
    ) -> None:
        """Note what is called a read and does otherwise on the standby than on the primary."""
        if line["kind"] != "READ" or result.status == ExecStatus.FATAL_ERROR:
            return
        if "failed" in line:
            self.only_there.append(line)
        if not line["plain"] or UNSURE.search(line["text"]) or result.ntuples > 5000:
            return
        self.counts["answers compared"] += 1
        there, here = (sorted(rows(r), key=repr) for r in (shadow, result))
        if there != here:
            different = [[str(r) for r in of if r not in other][:3]
                         for of, other in ((here, there), (there, here))]  # fmt: skip
            self.answers.append({**line, "primary": different[0], "standby": different[1]})


def run(work: Path, cluster: Cluster, *, volatile_cast: bool, only: Sequence[str]) -> Run:
    """Run the corpus on `cluster`, which has one replica and was started with SETTINGS.

    Args:
        work: a directory that the servers' account can look into.
        cluster: the servers.
        volatile_cast: make a type with an implicit cast by a volatile function first.
        only: names of scripts, without .sql; all where there are none.
    """
    root = corpus.fetch(work)
    work.chmod(0o755)
    results = work / "built"
    (results / "results").mkdir(parents=True, exist_ok=True)
    (results / "results").chmod(0o777)
    done = Run(cluster, root, results)
    prepared = VOLATILE_CAST if volatile_cast else ""
    wanted = {*only, "test_setup"} if only else set()
    paths = [p for p in corpus.schedule(root) if not wanted or p.stem in wanted]
    done.scripts("regression", paths, prepared)
    have = {n for (n,) in cluster.primary.execute("SELECT name FROM pg_available_extensions")}
    for name, paths in corpus.contrib(root).items():
        if name in have and (not only or name in only):
            done.scripts(f"contrib_{name}", paths, prepared)
    return done


def general(reason: str) -> str:
    """`reason` without the names in it."""
    reason = re.sub(r"does not parse: .*", "does not parse", reason, flags=re.DOTALL)
    reason = re.sub(r"\"[^\"]*\"|'[^']*'", "…", reason)
    return re.sub(r"(?<![\w.])[^\s()]+(\(\))? (?=is |has |are )", r"…\1 ", reason, count=1)


def report(done: Run, work: Path) -> int:
    """Print the figures and write the texts below `work`; 1 where a misroute was found."""
    print("\npostgresql: " + ", ".join(f"{n:,} {what}" for what, n in done.counts.items()))
    worst = 0
    for group in ("regression", "contrib"):
        lines = [line for line in done.judged if line["group"].startswith(group)]
        if lines:
            worst = max(worst, _group(group, lines, work))
    for title, what, found in (
        ("answers", "another answer on the standby", done.answers),
        ("only-there", "reads that failed on the standby only", done.only_there),
    ):
        _write(work / f"{title}.jsonl", found)
        free = [line for line in found if not line["bound"]]
        print(f"\n{what}: {len(free)}, and {len(found) - len(free)} in sessions bound before")
        for line in free[:40]:
            print(f"  {line['file']}:{line['line']} {_short(line['text'])}")
            print(f"    {line.get('failed') or [line['primary'], line['standby']]}")
    return worst


def _group(group: str, lines: list[dict[str, Any]], work: Path) -> int:
    refused = [line for line in lines if line["refused"]]
    elsewhere = [line for line in lines if not line["refused"] and line["elsewhere"]]
    harmless = [line for line in lines if not line["refused"] and not line["elsewhere"]]
    plain = [line for line in harmless if line["plain"]]
    loud = [line for line in refused if line["kind"] == "READ"]
    silent = [line for line in elsewhere if line["kind"] == "READ"]
    bound = [line for line in (*loud, *silent) if line["bound"]]
    kept = [line for line in harmless if line["kind"] == "WRITE"]
    lost = [line for line in plain if line["kind"] != "READ"]
    named = [line for line in lost if _names_it(line)]
    local = sum(line["local"] for line in plain)
    distinct = {line["text"] for line in lines}
    plain_texts = {line["text"] for line in plain}
    lost_texts = {line["text"] for line in lost}
    print(
        f"\n{group}: {len(lines):,} statements judged, {len(distinct):,} of them distinct\n"
        f"  refused by the standby: {len(refused):,}, called a read: {len(loud)}\n"
        f"  accepted with an effect elsewhere: {len(elsewhere):,}, called a read: {len(silent)}\n"
        f"  of these misroutes in a session bound to the primary before: {len(bound)}\n"
        f"  accepted harmlessly: {len(harmless):,}, kept on the primary: {len(kept):,}\n"
        f"  plain SELECTs among these: {len(plain):,}, kept on the primary: {len(lost):,}"
        f" ({len(lost) / max(1, len(plain)):.2%}); distinct {len(plain_texts):,},"
        f" {len(lost_texts):,} ({len(lost_texts) / max(1, len(plain_texts)):.2%})\n"
        f"  of these because the text itself names what acts or runs any SQL: {len(named):,},"
        f" by anything else: {len(lost) - len(named):,}"
        f" ({(len(lost) - len(named)) / max(1, len(plain)):.2%})\n"
        f"  plain SELECTs the primary answers because the answer is the server's own: {local:,}"
    )
    for title, found in (("loud", loud), ("silent", silent), ("kept", kept), ("lost", lost)):
        _write(work / f"{group}-{title}.jsonl", found)
    _write(work / f"{group}-judged.jsonl", lines)
    for title, found in (("LOUD", loud), ("SILENT", silent)):
        for line in found[:40]:
            place = f"{line['file']}:{line['line']}"
            print(f"  {title} {place} [{line['reason']}] {_short(line['text'])}")
    reasons = Counter(general(line["reason"]) for line in lost)
    for reason, n in reasons.most_common(25):
        print(f"  {n:5} LOST [{reason}]")
    return int(len(loud) + len(silent) > len(bound))


def _names_it(line: dict[str, Any]) -> bool:
    """Whether the text itself names what acts, runs any SQL or answers otherwise there."""
    return not re.search(
        r"→|is not in the catalog|not loaded|does not parse|nobody|not parsed", line["reason"]
    )


def _short(text: str) -> str:
    return " ".join(text.split())[:200]


def _write(target: Path, lines: Iterable[dict[str, Any]]) -> None:
    target.write_text("".join(json.dumps(line) + "\n" for line in lines), errors="replace")
