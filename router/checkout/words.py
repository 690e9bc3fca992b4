"""A driver's error as one line for people."""

from typing import Any

from router.messages import one_line


def in_words(state: str, error: BaseException) -> str:
    """`error` as one line without secrets: SQLSTATE and message.

    Not what a server adds to its message: as its context it quotes the statement that a function
    put together, of the parameters too.

    Args:
        state: the SQLSTATE, empty when the server sent none.
        error: what a driver raised.
    """
    if state and getattr(error.__cause__, "sqlstate", "") == state:
        error = error.__cause__ or error  # asyncpg's, whose class SQLAlchemy 2.0 puts before it
    said: Any = getattr(getattr(error, "diag", None), "message_primary", None)  # psycopg's
    if said is None:
        said = error.args[0] if state and error.args else str(error)
    if isinstance(said, dict):  # pg8000's
        said = said.get("M", "")
    text = one_line(said) or type(error).__name__
    return f"{state}: {text}" if state else text
