"""What each option may be, and how it is read from text, as the environment and URLs give it."""

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from router.config.urls import entries, url_parts, url_text
from router.errors import ConfigError
from router.messages import did_you_mean, masked
from router.rules.balance import BALANCERS

PREFIX = "router_"
"""What an option's name may begin with, in code and in a URL, where another library claims the
bare name."""

Pooling = Literal["transaction", "session", "statement", "off"]
MODES: tuple[Pooling, ...] = ("transaction", "session", "statement", "off")

Check = Callable[[object, str], Any]
"""Takes a value and the option's name, returns the value as the option has it, or raises
ConfigError."""

_SQLSTATE = re.compile(r"[0-9A-Z]{2}([0-9A-Z]{3})?")
_SCHEMA = re.compile(r"(?!pg_)[A-Za-z0-9_]{1,63}")
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def check(key: str, value: object) -> Any:
    """`value` as the option `key` has it.

    Raises:
        ConfigError: it is malformed; names the option, what was given and what may be.
    """
    return _CHECKS[key](value, key)


def number(value: object, key: str, kind: Callable[[Any], Any], least: float = 0) -> Any:
    """`value`, given for the option `key`, as a number of `kind`, finite and not below `least`.

    Raises:
        ConfigError: it is something else.
    """
    shown = masked(repr(value))
    try:
        found = kind(value)
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(f"{key}: {shown} is not a number: give {least:g} or more") from None
    if not math.isfinite(found):
        raise ConfigError(f"{key}: {shown} is not finite: give {least:g} or more")
    if found < least:
        below = "negative" if not least else f"less than {least:g}"
        raise ConfigError(f"{key}: {shown} is {below}: give {least:g} or more")
    return found


def pooling(value: object, key: str) -> Pooling:
    """The mode in which a PgBouncer pools, from the `value` of the option `key`, which may be true
    for "transaction".

    Raises:
        ConfigError: it is something else.
    """
    text = str(value).lower()
    for mode in MODES:
        if text == mode:
            return mode
    if text in _TRUE:
        return "transaction"
    if text in (*_FALSE, "none", ""):
        return "off"
    raise ConfigError(f"{key}: {masked(repr(value))} is none of {', '.join(MODES)}, true, false")


def _one_of(*words: str) -> Check:
    def one(value: object, key: str) -> object:
        if value not in words:
            raise ConfigError(f"{key}: {value!r} is none of {', '.join(words)}")
        return value

    return one


def _number(kind: Callable[[Any], Any] = float, least: float = 0) -> Check:
    return lambda value, key: number(value, key, kind, least)


def _or_none(check: Check) -> Check:
    def optional(value: object, key: str) -> object:
        return None if value is None or str(value).lower() == "none" else check(value, key)

    return optional


def _text(value: object, key: str) -> str:
    return str(value)


def _truth(value: object, key: str) -> bool:
    text = str(value).lower()
    if text not in _TRUE + _FALSE:
        raise ConfigError(f"{key}: {masked(repr(value))} is neither true nor false")
    return text in _TRUE


def _echo(value: object, key: str) -> object:
    return value if value == "debug" else _truth(value, key)


def _called(takes: str) -> Check:
    def function(value: object, key: str) -> object:
        if value is not None and not callable(value):
            raise ConfigError(f"{key}: {value!r} is not callable: give a function {takes}")
        return value

    return function


def _balance(value: object, key: str) -> object:
    if not callable(value) and (not isinstance(value, str) or value not in BALANCERS):
        raise ConfigError(f"{key}: {value!r} is none of {', '.join(BALANCERS)}, nor callable")
    return value


def _session_url(value: object, key: str) -> str | None:
    if value is None:
        return None
    text = url_text(value, key)
    if not url_parts(text, key).get("host"):
        raise ConfigError(f"{key}: it names no host: write postgresql://…@HOST:5432/dbname")
    return text


def _list(value: object, key: str) -> tuple[str, ...]:
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, Iterable):
        raise ConfigError(f"{key}: expected a list of strings, not {type(value).__name__}")
    # An empty pattern would match every statement.
    return tuple(text for item in items if (text := str(item).strip()))


def _each(like: re.Pattern[str], cure: str) -> Check:
    def texts(value: object, key: str) -> tuple[str, ...]:
        found = _list(value, key)
        for text in found:
            if not like.fullmatch(text):
                raise ConfigError(f"{key}: {text!r} is no {cure}")
        return found

    return texts


def _patterns(value: object, key: str) -> tuple[str, ...]:
    found = _list(value, key)
    for text in found:
        try:
            re.compile(text)
        except re.error as error:
            raise ConfigError(
                f"{key}: {text!r} is no regular expression ({error}): correct it"
            ) from None
    return found


_CHECKS: Mapping[str, Check] = {
    "name": _text,
    "consistency": _one_of("lsn", "time", "off"),
    "pin_lsn": _one_of("sample", "commit"),
    "pin_duration": _number(),
    "pin_max": _number(),
    "pin_probe_interval": _number(),
    "probe_interval": _number(),
    "probe_timeout": _number(),
    "start_timeout": _number(),
    "connect_timeout": _number(),
    "blacklist_duration": _number(),
    "blacklist_max": _number(),
    "give_up_silent": _truth,
    "blacklist_sqlstates": _each(
        _SQLSTATE, "SQLSTATE: give five digits or capitals, or the first two for a class"
    ),
    "max_lag_seconds": _or_none(_number()),
    "max_lag_bytes": _or_none(_number(int)),
    "fallback": _one_of("primary", "error"),
    "transactions": _one_of("primary", "lazy"),
    "reads_in_transaction": _truth,
    "server_local": _one_of("primary", "any"),
    "balance": _balance,
    "discovery": _called("that returns servers"),
    "discovery_interval": _number(),
    "zone": _text,
    "read_functions": _list,
    "write_functions": _list,
    "read_patterns": _patterns,
    "write_patterns": _patterns,
    "rule": _called("of the text"),
    "hints": _truth,
    "max_connections": _or_none(_number(int, 1)),
    "workers": _number(int, 1),
    "pool_size": _or_none(_number(int)),
    "max_overflow": _or_none(_number(int, -1)),
    "pool_timeout": _or_none(_number()),
    "pool_recycle": _or_none(_number(least=-1)),
    "pool_pre_ping": _or_none(_truth),
    "echo": _or_none(_echo),
    "schema": _each(
        _SCHEMA,
        "name of letters, digits and underscores, 63 at most and not beginning with pg_: "
        "choose another one",
    ),
    "prepared_statements": _or_none(_truth),
    "pgbouncer": pooling,
    "dry_run": _truth,
    "sql_comment": _truth,
    "session_url": _session_url,
}

OPTIONS: tuple[str, ...] = tuple(_CHECKS)
"""Every option name, in the order of `router.config.Config`."""

_IN_A_URL = ("replica", "replicas", *OPTIONS)


def own_query(query: Mapping[str, str | Sequence[str]]) -> tuple[dict[str, Any], dict[str, str]]:
    """The options in a URL's query, and the parameters that are the driver's.

    Raises:
        ConfigError: an option is unknown, looks misspelt, or is given twice.
    """
    options: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for key, value in query.items():
        name = own_name(key)
        if name is None:
            others[key] = value
        elif name in ("replica", "replicas"):
            for text in [value] if isinstance(value, str) else value:
                options.setdefault("replicas", []).extend(entries(text))
        elif not isinstance(value, str):
            raise ConfigError(f"{name}: given {len(value)} times in the URL: give it once")
        elif name not in ("plugin", "plugins"):
            options[name] = value
    for key in others:
        # The drivers' own parameters are less like an option than this.
        if close := difflib.get_close_matches(key, _IN_A_URL, n=1, cutoff=0.85):
            raise ConfigError(f"unknown option {key!r} (did you mean {close[0]!r}?)")
    return options, others


def own_name(key: str) -> str | None:
    """The option a query's key or an argument stands for, None when it is somebody else's.

    Raises:
        ConfigError: it has our prefix and is no option.
    """
    bare = key.removeprefix(PREFIX)
    if bare in _IN_A_URL:
        return bare
    if key.startswith(PREFIX):
        raise ConfigError(f"unknown option {bare!r}{did_you_mean(bare, _IN_A_URL)}")
    return key if key in ("plugin", "plugins") else None
