"""The settings that the model knows: names, defaults, and how a server writes values."""

import re

from tests.simulation.answers import Refused

READ_COMMITTED = "read committed"
REPEATABLE_READ = "repeatable read"
SERIALIZABLE = "serializable"

LEVELS = {
    "read uncommitted": READ_COMMITTED,
    READ_COMMITTED: READ_COMMITTED,
    REPEATABLE_READ: REPEATABLE_READ,
    SERIALIZABLE: SERIALIZABLE,
}
DEFAULTS = {
    "application_name": "",
    "client_encoding": "UTF8",
    "client_min_messages": "notice",
    "datestyle": "ISO, MDY",
    "default_transaction_deferrable": "off",
    "default_transaction_isolation": READ_COMMITTED,
    "default_transaction_read_only": "off",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "lock_timeout": "0",
    "role": "none",
    "search_path": '"$user", public',
    "statement_timeout": "0",
    "synchronous_commit": "on",
    "timezone": "GMT",
    "transaction_timeout": "0",
    "work_mem": "4MB",
}
_SWITCHES = frozenset({"default_transaction_deferrable", "default_transaction_read_only"})
_WORDS = {"true": "on", "yes": "on", "1": "on", "false": "off", "no": "off", "0": "off"}
_TIME = re.compile(r"(\d+) ?(ms|s|min|h|d)?")
_UNITS = {"d": 86_400_000, "h": 3_600_000, "min": 60_000, "s": 1000, "ms": 1}
_CHOICES = {
    "default_transaction_isolation": frozenset(LEVELS),
    "synchronous_commit": frozenset({"on", "off", "local", "remote_write", "remote_apply"}),
}


def shown(name: str, value: str) -> str:
    """`value` as the server shows it. Refused where it is none for the setting `name`."""
    if name in _SWITCHES or name == "synchronous_commit":
        value = _WORDS.get(value.lower(), value.lower())
    if name in _SWITCHES and value not in ("on", "off"):
        raise Refused("22023", f'parameter "{name}" requires a Boolean value')
    if name in _CHOICES and value not in _CHOICES[name]:
        raise Refused("22023", f'invalid value for parameter "{name}": "{value}"')
    if name.endswith("_timeout") and name in DEFAULTS:
        match = _TIME.fullmatch(value)
        if match is None:
            raise Refused("22023", f'invalid value for parameter "{name}": "{value}"')
        number = int(match[1]) * _UNITS[match[2] or "ms"]
        unit = next(u for u, size in _UNITS.items() if number % size == 0)
        return f"{number // _UNITS[unit]}{unit}" if number else "0"
    return value
