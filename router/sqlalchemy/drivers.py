"""What differs between DBAPI drivers, in one table: autocommit, open transactions, SQLSTATE."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy.engine.interfaces import Dialect

from router.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Driver:
    """How to ask and tell one driver what SQLAlchemy's dialect interface leaves out.

    Attributes:
        set_autocommit: switch a connection that has no transaction open.
        autocommit: whether it is switched on.
        in_transaction: whether the server has a transaction open on the connection.
        sqlstate: the five-character code of an error, empty when the server sent none.
        asynchronous: whether connections are used from an event loop.
    """

    set_autocommit: Callable[[Any, bool], None]
    autocommit: Callable[[Any], bool]
    in_transaction: Callable[[Any], bool]
    sqlstate: Callable[[BaseException], str]
    asynchronous: bool = False


def _set_attribute(connection: Any, value: bool) -> None:
    connection.autocommit = value


def _set_method(connection: Any, value: bool) -> None:
    connection.set_autocommit(value)


def _attribute(connection: Any) -> bool:
    return bool(connection.autocommit)


def _psycopg_in_transaction(connection: Any) -> bool:
    return bool(connection.pgconn.transaction_status != 0)  # 0 is IDLE


def _psycopg_sqlstate(error: BaseException) -> str:
    return getattr(error, "sqlstate", None) or ""


DRIVERS: dict[str, Driver] = {
    "psycopg": Driver(_set_attribute, _attribute, _psycopg_in_transaction, _psycopg_sqlstate),
}
"""By ``Dialect.driver``; an asynchronous one has ``_async`` behind it."""


def driver_of(dialect: Dialect) -> Driver:
    """The table's row for `dialect`.

    Raises:
        ConfigError: the driver is not supported.
    """
    key = dialect.driver + ("_async" if dialect.is_async else "")
    driver = DRIVERS.get(key)
    if driver is None:
        known = ", ".join(f"postgresql+{name}" for name in DRIVERS)
        kind = "the asynchronous " if dialect.is_async else ""
        raise ConfigError(
            f"url: {kind}driver {dialect.name}+{dialect.driver} is not supported: use {known}"
        )
    return driver
