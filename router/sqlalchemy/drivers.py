"""What differs between DBAPI drivers, in one table: open transactions, sockets, SQLSTATE."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from sqlalchemy.engine.interfaces import Dialect

from router.checkout.cursor import RoutedCursor
from router.checkout.rows import RowsCursor
from router.connect import driver
from router.connect.credentials import of_asyncpg, of_libpq, of_psycopg
from router.connect.parameters import begin_in
from router.errors import ConfigError


def ask(connection: Any, sql: str) -> tuple[Any, ...]:
    """The one row that the query `sql` gives on a DBAPI `connection`."""
    cursor = connection.cursor()
    try:
        cursor.execute(sql)
        return tuple(cursor.fetchone())
    finally:
        cursor.close()


def _in_settings(parameters: Mapping[str, Any], path: str) -> dict[str, Any]:
    return {"server_settings": {**(parameters.get("server_settings") or {}), "search_path": path}}


def _in_startup(parameters: Mapping[str, Any], path: str) -> dict[str, Any]:
    return {"startup_params": {**(parameters.get("startup_params") or {}), "search_path": path}}


def _fallback(parameters: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {"fallback_application_name": name, **parameters}  # libpq's, behind PGAPPNAME


def _named_in_settings(parameters: Mapping[str, Any], name: str) -> dict[str, Any]:
    settings = {"application_name": name, **(parameters.get("server_settings") or {})}
    return {**parameters, "server_settings": settings}


def _asyncpg_errors(dbapi: Any) -> tuple[type[Exception], ...]:
    # SQLAlchemy 2.0 lets asyncpg's own errors through while it connects; both let the socket's.
    own = dbapi.asyncpg
    return OSError, own.PostgresError, own.InterfaceError, own.InternalClientError


def _asyncpg_is_disconnect(error: BaseException) -> bool:
    # Raised while asyncpg still reads the server's message that it is ending. Compared by name,
    # because SQLAlchemy 2.1 has a class of its own for it.
    return any(c.__name__ == "InternalClientError" for c in type(error).__mro__)


def _pg8000_sqlstate(error: BaseException) -> str:
    said = error.args[0] if error.args else None
    return str(said.get("C", "")) if isinstance(said, dict) else ""


def _pg8000_reached_by(connection: Any) -> dict[str, Any]:
    found = {"user": connection.user, "password": connection.password}
    return {key: str(value, "utf-8") for key, value in found.items() if value}


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver(driver.Driver):
    """How to ask and tell one driver what SQLAlchemy's dialect interface leaves out.

    In `DRIVERS` the dialect's part is missing; `of` adds it.

    Attributes:
        in_transaction: whether the server has a transaction open on the connection.
        search_path: given connection parameters and a path, those that make the server begin
            every session with that ``search_path``.
        named: given connection parameters and a name, those by which the server shows the name
            as ``application_name`` unless the user gave one.
        raises: what the driver raises beside the ``Error`` of its module, which is given.
        is_disconnect: whether an error says that the connection is gone, where SQLAlchemy's own
            dialect would not know.
        connect_timeout: the name of that parameter (seconds) with this driver.
        unprepared: connection parameters by which the driver keeps no prepared statements;
            psycopg2 and pg8000 keep none anyway.
        shareable: whether one statement stays on one server session outside a transaction, as it
            must where PgBouncer pools by transaction.
        unsure: whether the driver does not know that a statement is under way which an exception
            interrupted.
        cursor: how a cursor of ``raw_connection()`` is routed.
        declares_session: whether its dialect makes isolation level, read-only and deferrable
            settings of the session, which hold in autocommit too.
    """

    in_transaction: Callable[[Any], bool]
    search_path: Callable[[Mapping[str, Any], str], dict[str, Any]] = begin_in
    named: Callable[[Mapping[str, Any], str], dict[str, Any]] = _fallback
    raises: Callable[[Any], tuple[type[Exception], ...]] = lambda dbapi: ()
    is_disconnect: Callable[[BaseException], bool] = lambda error: False
    connect_timeout: str = "connect_timeout"
    unprepared: Mapping[str, Any] = field(default_factory=dict)
    shareable: bool = True
    unsure: bool = False
    declares_session: bool = False
    cursor: type[RoutedCursor[Any]] = RoutedCursor
    errors: tuple[type[Exception], ...] = ()
    ask: Callable[[Any, str], tuple[Any, ...]] = ask
    lost: Callable[[BaseException, Any], bool] = lambda error, connection: False

    def of(self, dialect: Dialect) -> "Driver":
        """The same with what only the engine's `dialect` knows: errors, and how to close."""
        its: Any = dialect

        def lost(error: BaseException, connection: Any) -> bool:
            said = its.is_disconnect(error, connection, None)
            return self.is_disconnect(error) or bool(said)

        def abort(connection: Any) -> None:
            with suppress(Exception):
                (its.do_terminate if its.has_terminate else its.do_close)(connection)

        dbapi = its.loaded_dbapi
        errors = (dbapi.Error, *self.raises(dbapi))
        return replace(self, errors=errors, lost=lost, abort=abort)

    def end(self, connection: Any, verb: Literal["commit", "rollback"]) -> None:
        """End the transaction open on `connection` by `verb`, whoever began it.

        Drivers other than psycopg only know of transactions they began themselves; one opened by
        a BEGIN of the user's own would stay open."""
        getattr(connection, verb)()
        if self.in_transaction(connection):
            cursor = connection.cursor()
            cursor.execute(verb)
            cursor.close()


DRIVERS: dict[str, Driver] = {
    "psycopg": Driver(
        in_transaction=lambda c: bool(c.pgconn.transaction_status != 0),
        runs=lambda c: bool(c.pgconn.transaction_status == 1),  # 1 is ACTIVE
        reached_by=of_psycopg,
        unprepared={"prepare_threshold": None},
        cursor=RowsCursor,
    ),
    "psycopg2": Driver(
        in_transaction=lambda c: bool(c.get_transaction_status() != 0),  # 0 is IDLE
        runs=lambda c: bool(c.get_transaction_status() == 1),
        reached_by=lambda c: of_libpq(c.info.dsn_parameters, c.info.password),
        sqlstate=lambda error: getattr(error, "pgcode", None) or "",
    ),
    "pg8000": Driver(
        in_transaction=lambda c: bool(c._in_transaction),
        search_path=_in_startup,
        named=lambda parameters, name: {"application_name": name, **parameters},
        fileno=lambda c: int(c._usock.fileno()),
        reached_by=_pg8000_reached_by,
        raises=lambda dbapi: (OSError,),
        # It lets the socket's own errors through while it reads an answer.
        is_disconnect=lambda error: isinstance(error, OSError),
        sqlstate=_pg8000_sqlstate,
        connect_timeout="timeout",
        # pg8000 lets the server go (Sync) after Parse: its Bind would find the statement of
        # another client.
        shareable=False,
        unsure=True,
        declares_session=True,
    ),
    "psycopg_async": Driver(
        in_transaction=lambda c: bool(c._connection.pgconn.transaction_status != 0),
        runs=lambda c: bool(c._connection.pgconn.transaction_status == 1),
        fileno=lambda c: int(c._connection.fileno()),
        reached_by=lambda c: of_psycopg(c._connection),
        unprepared={"prepare_threshold": None},
    ),
    "asyncpg_async": Driver(
        in_transaction=lambda c: bool(c._connection.is_in_transaction()),
        search_path=_in_settings,
        named=_named_in_settings,
        fileno=lambda c: int(c._connection._transport.get_extra_info("socket").fileno()),
        reached_by=lambda c: of_asyncpg(c._connection),
        raises=_asyncpg_errors,
        is_disconnect=_asyncpg_is_disconnect,
        connect_timeout="timeout",
        # There are two caches, asyncpg's and the one of SQLAlchemy's dialect. The dialect still
        # prepares: without a name no statement can collide with another client's, and none stays
        # behind on a server session that another client has next.
        unprepared={
            "statement_cache_size": 0,
            "prepared_statement_cache_size": 0,
            "prepared_statement_name_func": lambda: "",
        },
    ),
}
"""By ``Dialect.driver``; an asynchronous one has ``_async`` behind it."""


def driver_of(dialect: Dialect) -> Driver:
    """The table's row for `dialect`. Raises ConfigError: the driver is not supported."""
    key = dialect.driver + ("_async" if dialect.is_async else "")
    found = DRIVERS.get(key)
    if found is None:
        fitting = (n for n in DRIVERS if n.endswith("_async") == dialect.is_async)
        known = " or ".join("postgresql+" + n.removesuffix("_async") for n in fitting)
        kind = "the asynchronous " if dialect.is_async else ""
        raise ConfigError(
            f"url: {kind}driver {dialect.name}+{dialect.driver} is not supported: use {known}"
        )
    return found
