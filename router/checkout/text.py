"""The text of what a driver was given to execute: the one place where a door asks for it."""

from typing import Any

from router.rules.journal import literal


def text_of(query: Any, connection: Any = None) -> str | None:
    """The text of a driver's `query`: a str, bytes, what composes SQL, or a template string.

    Args:
        query: as the driver takes it.
        connection: the driver's, where it is needed to quote a name, as by psycopg2.

    Returns:
        None where it cannot be told: for an object that is none of these, or needs a connection.
    """
    if isinstance(query, str):
        return query
    if isinstance(query, bytes):
        return query.decode("utf-8", "replace")
    try:
        if hasattr(query, "as_string"):
            return str(query.as_string(connection))
        if hasattr(query, "interpolations"):
            return "".join(_pieces(query, connection))
    except Exception:  # noqa: BLE001 - whatever it needs a live connection for
        return None
    return None


def _pieces(template: Any, connection: Any) -> list[str]:
    """What the template string `template` is made of, as psycopg reads it: each value is a
    parameter, but for names, literals, and SQL within SQL. Raises ValueError: there is a value
    whose text only psycopg knows.

    Source: https://www.psycopg.org/psycopg3/docs/basic/tstrings.html
    """
    pieces: list[str] = []
    for item in template:
        if isinstance(item, str):
            pieces.append(item)
            continue
        value, spec = item.value, item.format_spec
        if hasattr(value, "interpolations"):
            pieces.extend(_pieces(value, connection))
        elif hasattr(value, "as_string"):
            pieces.append(str(value.as_string(connection)))
        elif spec == "i":
            pieces.append('"' + value.replace('"', '""') + '"')
        elif spec != "l":
            pieces.append("%s")
        elif isinstance(value, str):
            pieces.append(literal(value))
        else:
            raise ValueError(value)
    return pieces
