"""The text of what a driver was given to execute: the one place where a door asks for it."""

from contextlib import suppress
from typing import Any

from router.rules.journal import literal


def text_of(query: Any) -> str | None:
    """The text of a driver's `query`: a str, bytes, what composes SQL, or a template string; None
    for an object that is none of these, or needs a connection."""
    if isinstance(query, str):
        return query
    if isinstance(query, bytes):
        return query.decode("utf-8", "replace")
    with suppress(Exception):  # whatever it needs a live connection for
        if hasattr(query, "as_string"):
            return str(query.as_string(None))
        if hasattr(query, "interpolations"):
            return "".join(_pieces(query))
    return None


def _pieces(template: Any) -> list[str]:
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
            pieces.extend(_pieces(value))
        elif hasattr(value, "as_string"):
            pieces.append(str(value.as_string(None)))
        elif spec == "i":
            pieces.append('"' + value.replace('"', '""') + '"')
        elif spec != "l":
            pieces.append("%s")
        elif isinstance(value, str):
            pieces.append(literal(value))
        else:
            raise ValueError(value)
    return pieces
