"""What differs between DBAPI drivers, in one table: autocommit, open transactions, SQLSTATE."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, Literal

from sqlalchemy.engine.interfaces import Dialect

from router.connect import driver
from router.connect.parameters import begin_in
from router.errors import ConfigError


def ask(connection: Any, sql: str) -> tuple[Any, ...]:
    """The one row a query gives."""
    cursor = connection.cursor()
    try:
        cursor.execute(sql)
        return tuple(cursor.fetchone())
    finally:
        cursor.close()


@dataclass(frozen=True, slots=True)
class Driver(driver.Driver):
    """How to ask and tell one driver what SQLAlchemy's dialect interface leaves out.

    In `DRIVERS` the dialect's part is missing; `of` adds it.

    Attributes:
        set_autocommit: switch a connection that has no transaction open.
        autocommit: whether it is switched on.
        in_transaction: whether the server has a transaction open on the connection.
        search_path: given connection parameters and a path, those that make the server begin
            every session with it.
        fileno: the descriptor of a connection's socket.
        named: given connection parameters and a name, those by which the server shows it as
            ``application_name`` unless the user gave one.
        raises: what it raises beside the ``Error`` of its module, which is given.
        is_disconnect: whether an error says that the connection is gone, where SQLAlchemy's own
            would not know.
        connect_timeout: its name among the driver's connection parameters.
        unprepared: connection parameters by which it keeps no prepared statements; psycopg2 and
            pg8000 keep none anyway.
        shareable: whether one statement stays on one server session outside a transaction, as it
            must where PgBouncer pools by transaction.
        unsure: whether it does not know of a statement under way that an exception interrupted.
        declares_session: whether its dialect makes isolation level, read-only and deferrable
            settings of the session, which hold in autocommit too.
    """

    set_autocommit: Callable[[Any, bool], None]
    autocommit: Callable[[Any], bool]
    in_transaction: Callable[[Any], bool]
    search_path: Callable[[Mapping[str, Any], str], dict[str, Any]]
    named: Callable[[Mapping[str, Any], str], dict[str, Any]]
    fileno: Callable[[Any], int]
    raises: Callable[[Any], tuple[type[Exception], ...]] = lambda dbapi: ()
    is_disconnect: Callable[[BaseException], bool] = lambda error: False
    connect_timeout: str = "connect_timeout"
    unprepared: Mapping[str, Any] = field(default_factory=dict)
    shareable: bool = True
    unsure: bool = False
    declares_session: bool = False
    _: KW_ONLY
    errors: tuple[type[Exception], ...] = ()
    ask: Callable[[Any, str], tuple[Any, ...]] = ask
    lost: Callable[[BaseException, Any], bool] = lambda error, connection: False

    def of(self, dialect: Dialect) -> "Driver":
        """The same with what only the engine's dialect knows: errors, and how to close."""
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
        """End the open transaction, whoever began it.

        Drivers other than psycopg only know of transactions they began themselves; one opened by
        a BEGIN of the user's own would stay open.
        """
        getattr(connection, verb)()
        if self.in_transaction(connection):
            cursor = connection.cursor()
            cursor.execute(verb)
            cursor.close()


def _set_attribute(connection: Any, value: bool) -> None:
    connection.autocommit = value


def _attribute(connection: Any) -> bool:
    return bool(connection.autocommit)


def _psycopg_in_transaction(connection: Any) -> bool:
    return bool(connection.pgconn.transaction_status != 0)  # 0 is IDLE


def _psycopg_async_in_transaction(connection: Any) -> bool:
    return bool(connection._connection.pgconn.transaction_status != 0)


def _psycopg2_in_transaction(connection: Any) -> bool:
    return bool(connection.get_transaction_status() != 0)


def _pg8000_in_transaction(connection: Any) -> bool:
    return bool(connection._in_transaction)


def _asyncpg_in_transaction(connection: Any) -> bool:
    return bool(connection._connection.is_in_transaction())


def _in_settings(parameters: Mapping[str, Any], path: str) -> dict[str, Any]:
    return {"server_settings": {**(parameters.get("server_settings") or {}), "search_path": path}}


def _in_startup(parameters: Mapping[str, Any], path: str) -> dict[str, Any]:
    return {"startup_params": {**(parameters.get("startup_params") or {}), "search_path": path}}


def _fallback(parameters: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {"fallback_application_name": name, **parameters}  # libpq's, behind PGAPPNAME


def _named_in_settings(parameters: Mapping[str, Any], name: str) -> dict[str, Any]:
    settings = {"application_name": name, **(parameters.get("server_settings") or {})}
    return {**parameters, "server_settings": settings}


def _named_by_itself(parameters: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {"application_name": name, **parameters}


def _asyncpg_errors(dbapi: Any) -> tuple[type[Exception], ...]:
    # SQLAlchemy 2.0 lets asyncpg's own through while it connects; the socket's come from both.
    own = dbapi.asyncpg
    return OSError, own.PostgresError, own.InterfaceError, own.InternalClientError


def _asyncpg_is_disconnect(error: BaseException) -> bool:
    # Raised where the server's last words, that it is ending, are still being read. By name, for
    # SQLAlchemy 2.1 has a class of its own for it.
    return any(c.__name__ == "InternalClientError" for c in type(error).__mro__)


def _fileno(connection: Any) -> int:
    return int(connection.fileno())


def _psycopg_async_fileno(connection: Any) -> int:
    return int(connection._connection.fileno())


def _pg8000_fileno(connection: Any) -> int:
    return int(connection._usock.fileno())


def _asyncpg_fileno(connection: Any) -> int:
    return int(connection._connection._transport.get_extra_info("socket").fileno())


def _psycopg2_sqlstate(error: BaseException) -> str:
    return getattr(error, "pgcode", None) or ""


def _pg8000_sqlstate(error: BaseException) -> str:
    said = error.args[0] if error.args else None
    return str(said.get("C", "")) if isinstance(said, dict) else ""


def _no_name() -> str:
    return ""


DRIVERS: dict[str, Driver] = {
    "psycopg": Driver(
        _set_attribute,
        _attribute,
        _psycopg_in_transaction,
        begin_in,
        _fallback,
        _fileno,
        unprepared={"prepare_threshold": None},
    ),
    "psycopg2": Driver(
        _set_attribute,
        _attribute,
        _psycopg2_in_transaction,
        begin_in,
        _fallback,
        _fileno,
        sqlstate=_psycopg2_sqlstate,
    ),
    "pg8000": Driver(
        _set_attribute,
        _attribute,
        _pg8000_in_transaction,
        _in_startup,
        _named_by_itself,
        _pg8000_fileno,
        lambda dbapi: (OSError,),
        sqlstate=_pg8000_sqlstate,
        connect_timeout="timeout",
        # It lets the server go (Sync) after Parse, and its Bind would find somebody else's
        # statement.
        shareable=False,
        unsure=True,
        declares_session=True,
    ),
    "psycopg_async": Driver(
        _set_attribute,
        _attribute,
        _psycopg_async_in_transaction,
        begin_in,
        _fallback,
        _psycopg_async_fileno,
        unprepared={"prepare_threshold": None},
    ),
    "asyncpg_async": Driver(
        _set_attribute,
        _attribute,
        _asyncpg_in_transaction,
        _in_settings,
        _named_in_settings,
        _asyncpg_fileno,
        _asyncpg_errors,
        _asyncpg_is_disconnect,
        connect_timeout="timeout",
        # Two caches: SQLAlchemy's dialect has one of its own.
        # It prepares all the same: without a name nothing can collide, and nothing stays behind
        # on a server session that another client has next.
        unprepared={
            "statement_cache_size": 0,
            "prepared_statement_cache_size": 0,
            "prepared_statement_name_func": _no_name,
        },
    ),
}
"""By ``Dialect.driver``; an asynchronous one has ``_async`` behind it."""


def driver_of(dialect: Dialect) -> Driver:
    """The table's row for `dialect`.

    Raises:
        ConfigError: the driver is not supported.
    """
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
