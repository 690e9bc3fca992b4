"""A ``pgbouncer.ini``: which databases it offers, and how it pools.

Source: https://www.pgbouncer.org/config.html
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from router.config.options import number
from router.config.sources.settings import Settings
from router.errors import ConfigError
from router.messages import did_you_mean

_WORD = re.compile(r"(\w+)\s*=\s*('(?:[^']|'')*'|[^\s']*)")
_ANYWHERE = ("*", "0.0.0.0", "::", "")  # noqa: S104 - read, not bound to


@dataclass(frozen=True, slots=True)
class Ini:
    """What a ``pgbouncer.ini`` says.

    Attributes:
        databases: the words of each entry, by the database's name; ``*`` is every other one.
        settings: the section ``[pgbouncer]``.
    """

    databases: Mapping[str, Mapping[str, str]]
    settings: Mapping[str, str]

    def dbname(self, database: str) -> str:
        """The database that `database` leads to; its own name where the entry says none."""
        return self._entry(database).get("dbname") or database

    def pool_mode(self, database: str) -> str:
        """How connections to `database` are pooled."""
        return self._entry(database).get("pool_mode") or self.settings.get("pool_mode", "session")

    def _entry(self, database: str) -> Mapping[str, str]:
        return self.databases.get(database) or self.databases.get("*", {})

    @property
    def max_prepared_statements(self) -> int:
        """What PgBouncer keeps for each client; where nothing is said 0, as before 1.24."""
        told = self.settings.get("max_prepared_statements", "0") or "0"
        return int(number(told, "max_prepared_statements", int))


def parse(text: str, where: str) -> Ini:
    """Read `text`, the content of the file called `where`.

    Raises:
        ConfigError: a line is none of a section, a setting or a comment.
    """
    databases: dict[str, Mapping[str, str]] = {}
    settings: dict[str, str] = {}
    section = ""
    for at, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line[0] in ";#":
            continue
        if line.startswith("%include"):
            raise ConfigError(f"{where}:{at}: %include is not followed: give the whole file")
        if line.startswith("["):
            section = line.strip("[]").strip()
            continue
        key, equals, value = line.partition("=")
        key, value = key.strip(), value.strip()
        if not equals or not section:
            raise ConfigError(f"{where}:{at}: neither a section nor 'name = value'")
        if section == "databases":
            name = key[1:-1].replace('""', '"') if key.startswith('"') else key
            databases[name] = {m[1]: _plain(m[2]) for m in _WORD.finditer(value)}
        elif section == "pgbouncer":
            settings[key] = value
    return Ini(databases, settings)


def read(path: Path, database: str, replicas: Sequence[str]) -> Settings:
    """The address of the PgBouncer that `path` configures, and how it pools `database`, the entry
    that leads to the primary, and the `replicas`, entries that lead to replicas.

    Raises:
        ConfigError: the file cannot be read, has no such entry, or a replica's leads to another
            database than the primary's.
    """
    try:
        ini = parse(path.read_text(), str(path))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}: name a file that can be read") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8: give PgBouncer's own file") from None
    for name in (database, *replicas):
        if name not in ini.databases and "*" not in ini.databases:
            raise ConfigError(
                f"{path}: [databases] has no entry {name!r}{did_you_mean(name, ini.databases)}"
            )
    for name in replicas:
        if ini.dbname(name) != ini.dbname(database):
            raise ConfigError(
                f"{path}: [databases] {name}: it leads to the database {ini.dbname(name)!r}, and "
                f"{database} to {ini.dbname(database)!r}: give it dbname={ini.dbname(database)}, "
                "or name another entry"
            )
    host = ini.settings.get("listen_addr", "").split(",")[0].strip()
    if not host and "listen_addr" not in ini.settings:
        host = ini.settings.get("unix_socket_dir", "/tmp")  # noqa: S108 - PgBouncer's default
    address = {
        "host": "127.0.0.1" if host in _ANYWHERE else host,
        "port": ini.settings.get("listen_port", "6432"),
    }
    values: dict[str, object] = {
        **address,
        "dbname": database,
        "primary": {"pgbouncer": ini.pool_mode(database)},
        "replicas": [
            {**address, "dbname": name, "name": name, "pgbouncer": ini.pool_mode(name)}
            for name in replicas
        ],
    }
    if ini.max_prepared_statements:
        values["prepared_statements"] = True
    return Settings.of(values, lambda name: f"{path} {_PLACES.get(name, '[databases]')}")


_PLACES = {
    "host": "listen_addr", "port": "listen_port", "prepared_statements": "max_prepared_statements"
}  # fmt: skip


def _plain(text: str) -> str:
    return text[1:-1].replace("''", "'") if text.startswith("'") else text
