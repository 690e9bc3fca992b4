"""A pytest plugin, and a module to import: every statement psycopg is given is put to a standby.

Each distinct text is judged just before it runs on the primary, with the parameters it has there,
until one attempt got past parsing. The texts go to a file of the caller's and nowhere else.
"""

import json
import os
import re
from collections import Counter
from functools import wraps
from pathlib import Path
from typing import Any

import psycopg
from psycopg import ClientCursor, Connection, Cursor
from psycopg.pq import TransactionStatus

from router.sql.catalog import Catalog
from router.sql.classifier import Classifier
from router.sql.intent import Kind
from tests.oracle.judge import NOT_RUN, run

ATTEMPTS = 4
"""Times one text is put to the standby until it fails for no reason of the moment."""

ELSEWHERE = re.compile(
    r"""advisory_ | set_config | pg_notify | dblink | lo_\w+\( | pg_stat_reset | pg_reload_conf
      | pg_(terminate|cancel)_backend | txid_current | pg_current_xact | currval | lastval
      | query_to_xml | ^\s*(prepare|listen|load|discard|checkpoint)\b | with\s+hold
      | ^\s*copy\b.*(program|to\s+\'/)
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
"""What a standby accepts with an effect in the wrong place, written down apart from router/."""


class Recorder:
    """Puts statements to a standby and remembers what came of it."""

    def __init__(self, target: Path, host: str, port: int) -> None:
        """Prepare.

        Args:
            target: file that gets one JSON line for each judged text.
            host: the standby's.
            port: the standby's.
        """
        self.target = target.open("a")
        self.address = {"host": host, "port": port}
        self.attempts: Counter[str] = Counter()
        self.judged: set[str] = set()
        self.ddl: set[str] = set()
        self._standbys: dict[tuple[str, str], Connection] = {}
        self._classifiers: dict[str, Classifier] = {}
        self._changing: dict[str, Connection[Any]] = {}
        self._busy = False

    def see(self, cursor: Cursor[Any], query: Any, params: Any) -> None:
        """A statement is about to run on the primary."""
        if self._busy:
            return
        text = query if isinstance(query, str) else None
        if text is None:
            try:
                text = query.decode() if isinstance(query, bytes) else query.as_string(cursor)
            except Exception:
                return
        self._follow_ddl(cursor.connection, text)
        if text in self.judged or self.attempts[text] >= ATTEMPTS:
            return
        self.attempts[text] += 1
        self._busy = True
        try:
            self._judge(cursor.connection, text, params)
        finally:
            self._busy = False

    def _judge(self, primary: Connection[Any], text: str, params: Any) -> None:
        if NOT_RUN.search(text) or not text.strip():
            return
        info = primary.info
        try:
            filled = ClientCursor(primary).mogrify(text, params) if params else text
            standby = self._standby(info)
            classify = self._classifier(info)
        except (psycopg.Error, TypeError, ValueError):
            return
        intent = classify(text)
        if intent.ddl:
            self.ddl.add(text)
            self._follow_ddl(primary, text)
        if intent.kind is Kind.TRANSACTION:
            self.judged.add(text)  # the standby would say nothing of it
            return
        verdict = run(standby, filled, transaction=intent.needs_transaction)
        if standby.broken:
            self._standbys.pop((info.dbname, info.user), None)
            return
        if verdict.failed and not verdict.refused:
            return
        self.judged.add(text)
        line = {
            "text": text,
            "kind": intent.kind.name,
            "reason": intent.reason,
            "local": intent.server_local,
            "refused": verdict.refused,
            "elsewhere": bool(ELSEWHERE.search(text)),
        }
        self.target.write(json.dumps(line) + "\n")
        self.target.flush()

    def _follow_ddl(self, primary: Connection[Any], text: str) -> None:
        """Forget a catalog once the transaction that changed it has ended, as a Router does."""
        name = primary.info.dbname
        changing = self._changing.get(name)
        if changing and changing.info.transaction_status != TransactionStatus.INTRANS:
            del self._changing[name]
            self._classifiers.pop(name, None)
        if text in self.ddl:
            self._changing[name] = primary

    def _standby(self, info: psycopg.ConnectionInfo) -> Connection:
        key = info.dbname, info.user
        found = self._standbys.get(key)
        if found is None or found.closed:
            found = self._standbys[key] = psycopg.connect(
                dbname=info.dbname,
                user=info.user,
                password=info.password,
                autocommit=True,
                **self.address,  # type: ignore[arg-type]
            )
            found.pgconn.exec_(b"set statement_timeout = '5s'")
        return found

    def _classifier(self, info: psycopg.ConnectionInfo) -> Classifier:
        """As a Router has it that has read the catalog since the last DDL."""
        found = self._classifiers.get(info.dbname)
        if found is None:
            raw = psycopg.connect(
                host=info.host, port=info.port, dbname=info.dbname, user=info.user,
                password=info.password, autocommit=True,
            )  # fmt: skip
            with raw:
                raw.execute("SET lock_timeout = 200")  # the suite itself may hold the lock
                catalog = Catalog.from_rows(
                    {part: raw.execute(sql).fetchall() for part, sql in Catalog.QUERIES.items()}
                )
            found = self._classifiers[info.dbname] = Classifier()
            found.replace_catalog(catalog)
        return found


def install() -> None:
    """Watch psycopg from now on; told by the environment what and where."""
    host, _, port = os.environ["PG_ROUTER_STANDBY"].rpartition(":")
    recorder = Recorder(Path(os.environ["PG_ROUTER_RECORD"]), host, int(port))
    execute, executemany = Cursor.execute, Cursor.executemany

    @wraps(execute)
    def watched(self: Any, query: Any, params: Any = None, **options: Any) -> Any:
        recorder.see(self, query, params)
        return execute(self, query, params, **options)

    @wraps(executemany)
    def watched_many(self: Any, query: Any, params_seq: Any, **options: Any) -> Any:
        params_seq = list(params_seq)
        if params_seq:
            recorder.see(self, query, params_seq[0])
        return executemany(self, query, params_seq, **options)

    Cursor.execute = watched  # type: ignore[method-assign]
    Cursor.executemany = watched_many  # type: ignore[method-assign]


def pytest_configure() -> None:
    """As a pytest plugin."""
    install()
