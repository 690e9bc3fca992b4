"""What the model of PostgreSQL does for each statement that it understands."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from router.connect.probe import PROBE_SQL, ROLE_SQL
from tests.simulation.answers import (
    APPEND,
    COUNT,
    DIVIDE,
    IDS,
    INCREMENT,
    LOCK,
    NEXTVAL,
    ONE,
    READ,
    SLEEP,
    TENANT,
    UPDATE,
    Blocked,
    Ran,
    Refused,
    Rows,
    Where,
)
from tests.simulation.settings import LEVELS, READ_COMMITTED, SERIALIZABLE

if TYPE_CHECKING:
    from tests.simulation.session import Session, Transaction
    from tests.simulation.wal import Key, Line

# -- data statements ------------------------------------------------------------------------


def _note(
    session: "Session",
    op: str,
    sql: str,
    now: float,
    line: "Line",
    lsn: int,
    txid: int,
    writes: bool,
) -> Where:
    name, timeline = session.server.name, line.number
    session.world.ran.append(
        Ran(op, sql, name, timeline, lsn, now, session.changed, session.id, txid, writes)
    )
    return Where(name, timeline, lsn)


def _look(session: "Session", now: float) -> "tuple[Line, int]":
    """What a query sees; in autocommit as in a transaction."""
    if session.cancelled_until:
        session.meet_conflict(now)
    transaction, server = session.transaction, session.server
    if transaction is not None:
        return session.take_snapshot(transaction)
    if session.plain:
        return server.line, server.position
    return session.take_snapshot(session.new_transaction())


def _get_id(params: Any, index: int = 0) -> int:
    return int(params["id"] if isinstance(params, Mapping) else params[index])


def _select(sql: str, table: str, session: "Session", params: Any, now: float, op: str) -> Rows:
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


_Change: TypeAlias = Callable[["Session", "Transaction", Any, "Line", int], Rows]


def _write(
    sql: str, what: str, change: _Change, session: "Session", params: Any, now: float, op: str
) -> Rows:
    """Run what `change` does, in the open transaction or one of its own."""
    transaction = session.transaction
    if transaction is None:
        return _write_alone(sql, what, change, session, params, now, op)
    rows = _change_rows(what, change, session, transaction, params)
    server = session.server
    where = _note(session, op, sql, now, server.line, server.end, transaction.id, True)
    return Rows(rows.rows, rows.rowcount, rows.tag, where)


def _write_alone(
    sql: str, what: str, change: _Change, session: "Session", params: Any, now: float, op: str
) -> Rows:
    """As `_write`, in autocommit."""
    transaction = session.alone or session.new_transaction()
    session.alone = None
    try:
        rows = _change_rows(what, change, session, transaction, params)
    except Blocked:
        session.alone = transaction
        raise
    except Refused:
        session.undo(transaction, now)
        raise
    wrote = transaction.wrote
    end = session.commit(transaction, now)
    where = _note(session, op, sql, now, session.server.line, end, transaction.id, wrote)
    return Rows(rows.rows, rows.rowcount, rows.tag, where)


def _change_rows(
    what: str, change: _Change, session: "Session", transaction: "Transaction", params: Any
) -> Rows:
    line, lsn = session.take_snapshot(transaction)
    if transaction.read_only:
        raise Refused("25006", f"cannot execute {what} in a read-only transaction")
    return change(session, transaction, params, line, lsn)


def _take(session: "Session", transaction: "Transaction", key: "Key", lsn: int) -> None:
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


def _wait(transaction: "Transaction", owner: "Transaction") -> None:
    """Block, or find that this would close a circle of waits."""
    other: Transaction | None = owner.top
    while other is not None and not other.over:
        other = None if other.waiting is None else other.waiting.top
        if other is transaction:
            raise Refused("40P01", "deadlock detected")
    transaction.waiting = owner
    raise Blocked(owner)


def _lock_item(
    session: "Session", transaction: "Transaction", params: Any, line: "Line", lsn: int
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
    session: "Session", transaction: "Transaction", params: Any, line: "Line", lsn: int
) -> Rows:
    number = _get_id(params, 1)
    if not 0 <= number < IDS:
        return Rows([], 0, "UPDATE 0", None)
    key = ("item", number)
    transaction.writes_now()
    _take(session, transaction, key, lsn)
    transaction.writes[key] = params["value"] if isinstance(params, Mapping) else params[0]
    return Rows([], 1, "UPDATE 1", None)


def _increment(
    session: "Session", transaction: "Transaction", params: Any, line: "Line", lsn: int
) -> Rows:
    number = _get_id(params)
    if not 0 <= number < IDS:
        return Rows([], 0, "UPDATE 0", None)
    key = ("counter", number)
    transaction.writes_now()
    _take(session, transaction, key, lsn)
    writes, server = transaction.writes, session.server
    count = writes[key] if key in writes else server.line.value(key, server.end)
    writes[key] = count + 1
    return Rows([], 1, "UPDATE 1", None)


def _append(
    session: "Session", transaction: "Transaction", params: Any, line: "Line", lsn: int
) -> Rows:
    transaction.ops.append(params["op"] if isinstance(params, Mapping) else params[0])
    transaction.writes_now()
    session.server.append()
    return Rows([], 1, "INSERT 0 1", None)


def _nextval(
    session: "Session", transaction: "Transaction", params: Any, line: "Line", lsn: int
) -> Rows:
    return Rows([(session.server.nextval(transaction),)], 1, "SELECT 1", None)


# -- other queries --------------------------------------------------------------------------


def _row(row: tuple[Any, ...], tag: str = "SELECT 1") -> Rows:
    return Rows([row], 1, tag, None)


def _select_one(session: "Session", params: Any, now: float, op: str) -> Rows:
    _look(session, now)
    return Rows([(1,)], 1, "SELECT 1", None)


def _divide(session: "Session", params: Any, now: float, op: str) -> Rows:
    _look(session, now)
    raise Refused("22012", "division by zero")


def _sleep(session: "Session", params: Any, now: float, op: str) -> Rows:
    _look(session, now)
    return Rows([("",)], 1, "SELECT 1", None)


def _probe(session: "Session", params: Any, now: float, op: str) -> Rows:
    _look(session, now)
    return Rows([session.server.probe(now)], 1, "SELECT 1", None)


def _role(session: "Session", params: Any, now: float, op: str) -> Rows:
    _look(session, now)
    row = (session.server.recovering, *[None] * 8, session.world.database)
    return Rows([row], 1, "SELECT 1", None)


def _tenant(session: "Session", params: Any, now: float, op: str) -> Rows:
    line, lsn = _look(session, now)
    transaction = session.transaction
    where = _note(session, op, TENANT, now, line, lsn, transaction.id if transaction else 0, False)
    return Rows([(session.show("app.tenant"),)], 1, "SELECT 1", where)


def _current_settings(
    names: tuple[tuple[str, bool], ...], session: "Session", params: Any, now: float, op: str
) -> Rows:
    _look(session, now)
    row = []
    for name, missing_ok in names:
        value = session.show(name)
        if value is None and not missing_ok:
            raise Refused("42704", f'unrecognized configuration parameter "{name}"')
        row.append(value)
    return _row(tuple(row))


def _show(name: str, session: "Session", params: Any, now: float, op: str) -> Rows:
    value = session.show(name)
    if value is None:
        raise Refused("42704", f'unrecognized configuration parameter "{name}"')
    return _row((value,), "SHOW")


def _set_config(
    name: str, value: str, local: bool, session: "Session", params: Any, now: float, op: str
) -> Rows:
    _look(session, now)
    if value.startswith("%"):
        key = value[2:-2]
        value = params[key] if isinstance(params, Mapping) else params[0]
    return _row((session.put(name, value, local),))


# -- utility statements ---------------------------------------------------------------------


def _done(tag: str) -> Rows:
    return Rows([], -1, tag, None)


def _set(
    name: str, value: str | None, local: bool, session: "Session", params: Any, now: float, op: str
) -> Rows:
    session.put(name, value, local)
    return _done("RESET" if value is None and not local else "SET")


def _set_default(
    name: str, local: bool, session: "Session", params: Any, now: float, op: str
) -> Rows:
    session.put(name, None, local)
    return _done("SET")


def _reset_all(session: "Session", params: Any, now: float, op: str) -> Rows:
    session.values = ({}, {})
    return _done("RESET")


def _discard_all(session: "Session", params: Any, now: float, op: str) -> Rows:
    if session.transaction is not None:
        raise Refused("25001", "DISCARD ALL cannot run inside a transaction block")
    _reset_all(session, params, now, op)
    return _done("DISCARD ALL")


def _empty(session: "Session", params: Any, now: float, op: str) -> Rows:
    return _done("")


def _deallocate_all(session: "Session", params: Any, now: float, op: str) -> Rows:
    return _done("DEALLOCATE ALL")


Mode: TypeAlias = tuple[str, str | bool]


def _begin_statement(
    tag: str, modes: tuple[Mode, ...], session: "Session", params: Any, now: float, op: str
) -> Rows:
    transaction = session.transaction
    if transaction is None:  # else a warning, and the modes count all the same
        transaction = session.new_transaction()
        _apply(modes, transaction, session)
        session.enter(transaction)
    else:
        _apply(modes, transaction, session)
    return _done(tag)


def _apply(modes: tuple[Mode, ...], transaction: "Transaction", session: "Session") -> None:
    """Make `modes` those of `transaction`."""
    recovering = session.server.recovering
    for name, value in modes:
        if name == "isolation":
            if value != transaction.isolation:
                _may_change_isolation(str(value), transaction, recovering)
            transaction.isolation = LEVELS[str(value)]
        elif name == "read_only":
            if not value and transaction.read_only:
                _may_change_to_read_write(transaction, recovering)
            transaction.read_only = bool(value)
        else:
            _may_change_deferrable(transaction)
            transaction.deferrable = bool(value)


def _may_change_isolation(level: str, transaction: "Transaction", recovering: bool) -> None:
    what = "SET TRANSACTION ISOLATION LEVEL must"
    if transaction.snapshot_taken:
        raise Refused("25001", f"{what} be called before any query")
    if transaction.frames:
        raise Refused("25001", f"{what} not be called in a subtransaction")
    if level == SERIALIZABLE and recovering:
        raise Refused("0A000", "cannot use serializable mode in a hot standby")


def _may_change_to_read_write(transaction: "Transaction", recovering: bool) -> None:
    if transaction.frames and transaction.frames[-1].read_only:
        what = "cannot set transaction read-write mode inside a read-only transaction"
        raise Refused("25001", what)
    if transaction.snapshot_taken:
        raise Refused("25001", "transaction read-write mode must be set before any query")
    if recovering:
        raise Refused("0A000", "cannot set transaction read-write mode during recovery")


def _may_change_deferrable(transaction: "Transaction") -> None:
    what = "SET TRANSACTION [NOT] DEFERRABLE"
    if transaction.frames:
        raise Refused("25001", f"{what} cannot be called within a subtransaction")
    if transaction.snapshot_taken:
        raise Refused("25001", f"{what} must be called before any query")


def _set_transaction(
    modes: tuple[Mode, ...], session: "Session", params: Any, now: float, op: str
) -> Rows:
    # Outside a transaction block it warns, and has no effect that lasts.
    _apply(modes, session.transaction or session.new_transaction(), session)
    return _done("SET")


_CHARACTERISTICS = {
    "isolation": "default_transaction_isolation",
    "read_only": "default_transaction_read_only",
    "deferrable": "default_transaction_deferrable",
}


def _set_characteristics(
    modes: tuple[Mode, ...], session: "Session", params: Any, now: float, op: str
) -> Rows:
    for name, value in modes:
        text = value if isinstance(value, str) else "on" if value else "off"
        session.put(_CHARACTERISTICS[name], text, False)
    return _done("SET")


def _commit_statement(session: "Session", params: Any, now: float, op: str) -> Rows:
    transaction = session.transaction
    if transaction is None:
        return _done("COMMIT")
    if transaction.failed:
        return _rollback(session, params, now, op)
    end = session.commit(transaction, now)
    session.leave(keep=True)
    server = session.server
    return Rows([], -1, "COMMIT", Where(server.name, server.line.number, end))


def _rollback(session: "Session", params: Any, now: float, op: str) -> Rows:
    transaction = session.transaction
    if transaction is not None:
        session.undo(transaction, now)
        session.leave(keep=False)
    return _done("ROLLBACK")


def _savepoint(name: str, session: "Session", params: Any, now: float, op: str) -> Rows:
    transaction = _block(session, "SAVEPOINT")
    transaction.frames.append(transaction.savepoint(name, session.values))
    return _done("SAVEPOINT")


def _block(session: "Session", what: str) -> "Transaction":
    if session.transaction is None:
        raise Refused("25P01", f"{what} can only be used in transaction blocks")
    return session.transaction


def _found(transaction: "Transaction", name: str) -> int:
    for at in range(len(transaction.frames) - 1, -1, -1):
        if transaction.frames[at].name == name:
            return at
    raise Refused("3B001", f'savepoint "{name}" does not exist')


def _release(name: str, session: "Session", params: Any, now: float, op: str) -> Rows:
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


def _rollback_to(name: str, session: "Session", params: Any, now: float, op: str) -> Rows:
    transaction = _block(session, "ROLLBACK TO SAVEPOINT")
    at = _found(transaction, name)
    frame = transaction.frames[at]
    session.unwind(transaction, at, now)
    del transaction.frames[at + 1 :]
    transaction.failed = False
    transaction.read_only = frame.read_only
    session.values = frame.values
    return _done("ROLLBACK")


# -- what a text means ----------------------------------------------------------------------


class Statement(NamedTuple):
    """What a text means; `ends`: it may run in a failed transaction block; `query`: it gives rows,
    by a portal."""

    run: Callable[["Session", Any, float, str], Rows]
    ends: bool = False
    query: bool = False


STATEMENTS: dict[str, Statement] = {
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


_BY_SPACED = {_spaced(sql): statement for sql, statement in STATEMENTS.items()}
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


def understood(sql: str) -> Statement:
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
        return STATEMENTS["COMMIT"]
    if upper in ("ROLLBACK WORK", "ROLLBACK TRANSACTION"):
        return STATEMENTS["ROLLBACK"]
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
