"""What each option may be, and how it is read from text, as the environment and URLs give it."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from router.config.server import number, pooling, url_parts, url_text
from router.errors import ConfigError
from router.messages import masked
from router.rules.balance import BALANCERS

_CHOICES: dict[str, Sequence[str]] = {
    "consistency": ("lsn", "time", "off"),
    "fallback": ("primary", "error"),
    "pin_lsn": ("sample", "commit"),
    "transactions": ("primary", "lazy"),
}
_OPTIONAL = ("max_lag_seconds", "max_lag_bytes", "max_connections", "pool_size", "max_overflow",
             "pool_timeout", "pool_recycle", "pool_pre_ping", "echo",
             "prepared_statements")  # fmt: skip
_TRUTHS = ("reads_in_transaction", "pool_pre_ping", "echo", "prepared_statements", "dry_run",
           "sql_comment")  # fmt: skip
_WHOLE = ("max_lag_bytes", "max_connections", "workers", "pool_size", "max_overflow")
_LEAST = {"max_connections": 1, "workers": 1, "max_overflow": -1, "pool_recycle": -1}
_LISTS = (
    "blacklist_sqlstates",
    "read_functions",
    "write_functions",
    "read_patterns",
    "write_patterns",
    "schema",
)
_SQLSTATE = re.compile(r"[0-9A-Z]{2}([0-9A-Z]{3})?")
_SCHEMA = re.compile(r"(?!pg_)[A-Za-z0-9_]{1,63}")
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def check(key: str, value: object) -> Any:
    """`value` as the option `key` has it.

    Raises:
        ConfigError: it is malformed; names the option, what was given and what may be.
    """
    if key in _CHOICES:
        if value not in _CHOICES[key]:
            raise ConfigError(f"{key}: {value!r} is none of {', '.join(_CHOICES[key])}")
        return value
    if key == "pgbouncer":
        return pooling(value, key)
    if key == "session_url":
        if value is None:
            return None
        text = url_text(value, key)
        if not url_parts(text, key).get("host"):
            raise ConfigError(f"{key}: it names no host: write postgresql://…@HOST:5432/dbname")
        return text
    if key in ("name", "zone"):
        return str(value)
    if key in ("rule", "discovery"):
        if value is not None and not callable(value):
            takes = "of the text" if key == "rule" else "that returns servers"
            raise ConfigError(f"{key}: {value!r} is not callable: give a function {takes}")
        return value
    if key == "balance":
        if not callable(value) and (not isinstance(value, str) or value not in BALANCERS):
            raise ConfigError(
                f"balance: {value!r} is none of {', '.join(BALANCERS)}, nor callable"
            )
        return value
    if key in _OPTIONAL and (value is None or str(value).lower() == "none"):
        return None
    if key == "echo" and value == "debug":
        return value
    if key in _TRUTHS:
        text = str(value).lower()
        if text not in _TRUE + _FALSE:
            raise ConfigError(f"{key}: {masked(repr(value))} is neither true nor false")
        return text in _TRUE
    if key in _LISTS:
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, Iterable):
            raise ConfigError(f"{key}: expected a list of strings, not {type(value).__name__}")
        # An empty pattern would match every statement.
        found = tuple(text for item in items if (text := str(item).strip()))
        for text in found if key == "blacklist_sqlstates" else ():
            if not _SQLSTATE.fullmatch(text):
                raise ConfigError(
                    f"{key}: {text!r} is no SQLSTATE: give five digits or capitals, or the first "
                    "two for a class"
                )
        for text in found if key == "schema" else ():
            if not _SCHEMA.fullmatch(text):
                raise ConfigError(
                    f"{key}: {text!r} is no name of letters, digits and underscores, 63 at most "
                    "and not beginning with pg_: choose another one"
                )
        for text in found if key.endswith("_patterns") else ():
            try:
                re.compile(text)
            except re.error as error:
                raise ConfigError(
                    f"{key}: {text!r} is no regular expression ({error}): correct it"
                ) from None
        return found
    return number(value, key, int if key in _WHOLE else float, _LEAST.get(key, 0))
