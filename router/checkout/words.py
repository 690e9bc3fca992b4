"""A driver's error as one line for people."""

from typing import Any

from router.messages import one_line


def in_words(state: str, error: BaseException) -> str:
    """`error`, of a driver, as one line without secrets: its message, and `state`, the SQLSTATE,
    empty when the server sent none. Not its context, where a server quotes the statement that a
    function put together, of the parameters too."""
    if state and getattr(error.__cause__, "sqlstate", "") == state:
        error = error.__cause__ or error  # asyncpg's, whose class SQLAlchemy 2.0 puts before it
    text: Any = getattr(getattr(error, "diag", None), "message_primary", None)  # psycopg's
    if text is None:
        text = error.args[0] if state and error.args else str(error)
    if isinstance(text, dict):  # pg8000's
        text = text.get("M", "")
    line = one_line(text) or type(error).__name__
    return f"{state}: {line}" if state else line
