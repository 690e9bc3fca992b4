"""What each driver does in its own way, as a small record, and its errors in words."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from router.messages import one_line


def sqlstate_of(error: BaseException) -> str:
    """The five-character code of an error, empty when the server sent none."""
    return getattr(error, "sqlstate", None) or ""


def severity_of(error: BaseException) -> str:
    """How grave the server says an error is, such as "FATAL", in its language; empty where the
    driver does not tell."""
    return getattr(getattr(error, "diag", error), "severity", None) or ""


def in_words(state: str, error: BaseException) -> str:
    """`error`, which a driver raised, as one line without secrets: its SQLSTATE `state`, empty
    when the server sent none, and its message.

    What a server adds to its message is left out: as context it quotes the statement that a
    function put together, with its parameters."""
    if state and getattr(error.__cause__, "sqlstate", "") == state:
        error = error.__cause__ or error  # asyncpg's, whose class SQLAlchemy 2.0 puts before it
    said: Any = getattr(getattr(error, "diag", None), "message_primary", None)  # psycopg's
    if said is None:
        said = error.args[0] if state and error.args else str(error)
    if isinstance(said, dict):  # pg8000's
        said = said.get("M", "")
    text = one_line(said) or type(error).__name__
    return f"{state}: {text}" if state else text


def _closed(connection: Any) -> None:
    connection.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """How to ask a server one question, and what an error means. Calls block, or wait in a
    greenlet.

    Attributes:
        errors: what the driver raises for a server's sake.
        ask: the one row that a query gives on a connection.
        lost: whether an error in answer to a question says that the connection is gone, and not
            that its server refused the question.
        sqlstate: the five-character code of an error, empty when the server sent none.
        close: closes a connection that nothing is wrong with.
        abort: closes a connection that something may still run on.
        fileno: the descriptor of a connection's socket.
        runs: whether a statement is under way on a connection; any thread may ask. True where the
            driver does not know.
        alone: whether that is part of no transaction.
        reached_by: libpq's parameters by which a connection was made, its password among them.
    """

    errors: tuple[type[Exception], ...]
    ask: Callable[[Any, str], tuple[Any, ...]]
    lost: Callable[[BaseException, Any], bool]
    sqlstate: Callable[[BaseException], str] = sqlstate_of
    close: Callable[[Any], object] = _closed
    abort: Callable[[Any], object] = _closed
    fileno: Callable[[Any], int] = lambda connection: int(connection.fileno())
    runs: Callable[[Any], bool] = lambda connection: True
    alone: Callable[[Any], bool] = lambda connection: bool(connection.autocommit)
    reached_by: Callable[[Any], Mapping[str, Any]] = lambda connection: {}

    def reason(self, error: BaseException) -> str:
        """The `error` as one line for people: SQLSTATE and message, without secrets."""
        return in_words(self.sqlstate(error), error)
