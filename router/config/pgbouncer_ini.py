"""PgBouncer's own files: its ``pgbouncer.ini`` read and written, its ``userlist.txt`` written.

Source: https://www.pgbouncer.org/config.html
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from router.config.config import Config
from router.errors import ConfigError

Auth = Literal["scram-sha-256", "md5", "trust"]
AUTHS: tuple[Auth, ...] = ("scram-sha-256", "md5", "trust")

ITERATIONS = 4096
"""Rounds of a SCRAM verifier, as PostgreSQL makes one by default."""

MONITORS = 2
"""Client connections of each process's monitor to a node: its probes', and the catalog's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bouncer:
    """How a PgBouncer for a cluster shall be.

    Attributes:
        host: address it listens on.
        port: TCP port it listens on.
        pool_mode: "transaction", "session" or "statement".
        pool_size: server connections for each database and user.
        auth: how clients log in.
        auth_file: path of the user list, as PgBouncer shall open it.
        max_prepared_statements: kept for each client, from PgBouncer 1.21 on; 0 leaves it out.
        settings: further lines of the section ``[pgbouncer]``, which win.
    """

    host: str = "127.0.0.1"
    port: int = 6432
    pool_mode: str = "transaction"
    pool_size: int = 20
    auth: Auth = "scram-sha-256"
    auth_file: str = "userlist.txt"
    max_prepared_statements: int = 0
    settings: Mapping[str, str] = field(default_factory=dict)


def databases(config: Config) -> dict[str, str]:
    """The database name behind PgBouncer for the name of each node of `config`: the primary's is
    its own.

    A replica's is the same with the node's name behind it, such as ``shop_replica1``. What is no
    letter, digit, ``_``, ``.`` or ``-`` is a ``_`` there: PgBouncer takes no other name, quoted or
    not, whatever its manual says.

    Raises:
        ConfigError: two of them would be the same.
    """
    found: dict[str, str] = {}
    for node, server in config.servers().items():
        dbname = server.dbname or server.user or "postgres"
        whole = dbname if server is config.primary else f"{dbname}_{node.name}"
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", whole)
        if name in found.values():
            raise ConfigError(
                f"{node}: {name!r} is another node's database in pgbouncer.ini: give the node a "
                "name of letters and digits"
            )
        found[node.name] = name
    return found


WAITS = {"server_login_retry": "1", "query_wait_timeout": "15"}
"""Seconds. By PgBouncer's own 15 and 120 a statement waits two minutes for a primary that is dead,
and one that is back is not seen for 15 s.

Source: https://www.pgbouncer.org/config.html
"""


def ini(config: Config, bouncer: Bouncer) -> str:
    """A ``pgbouncer.ini`` as `bouncer` says: an entry for each node of `config`."""
    names = databases(config)
    lines = ["[databases]"]
    for node, server in config.servers().items():
        words = {"host": server.host, "port": str(server.port)}
        words["dbname"] = server.dbname or server.user or "postgres"
        if config.search_path:
            words["connect_query"] = f"SET search_path = {config.search_path}"
        told = " ".join(f"{key}={_quoted(value)}" for key, value in words.items())
        lines.append(f"{names[node.name]} = {told}")
    demand = config.demand()
    clients = config.workers * len(names) * ((demand.pool if demand.bounded else 100) + MONITORS)
    settings = {
        "listen_addr": bouncer.host,
        "listen_port": str(bouncer.port),
        "auth_type": bouncer.auth,
        "auth_file": bouncer.auth_file,
        "pool_mode": bouncer.pool_mode,
        "default_pool_size": str(bouncer.pool_size),
        "max_client_conn": str(max(100, clients)),
        **WAITS,
    }
    if names_of := sorted(users(config)):
        settings["stats_users"] = ", ".join(names_of)  # pg-router budget asks it for its limits
    if bouncer.max_prepared_statements:
        settings["max_prepared_statements"] = str(bouncer.max_prepared_statements)
    settings |= bouncer.settings
    lines += ["", "[pgbouncer]", *(f"{key} = {value}" for key, value in settings.items())]
    return "\n".join(lines) + "\n"


def userlist(secrets: Mapping[str, str]) -> str:
    """A ``userlist.txt`` of `secrets`, by user: a password, or what `md5` or `scram` made."""
    return "".join(f"{_listed(user)} {_listed(text)}\n" for user, text in secrets.items())


def md5(user: str, password: str) -> str:
    """The md5 hash of the `password` of `user`; PgBouncer can log in to a server with it too."""
    return "md5" + hashlib.md5(f"{password}{user}".encode(), usedforsecurity=False).hexdigest()


def scram(password: str, salt: bytes) -> str:
    """The SCRAM-SHA-256 verifier of `password`, made with `salt`, for logging in to PgBouncer.

    With it PgBouncer logs in to a server only where the server keeps the very same one: otherwise
    it needs the password.

    Source: https://www.rfc-editor.org/rfc/rfc5803
    """
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, ITERATIONS)
    client = hmac.digest(salted, b"Client Key", "sha256")
    stored = hashlib.sha256(client).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    told = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256${ITERATIONS}:{told[0]}${told[1]}:{told[2]}"


def users(config: Config) -> dict[str, str]:
    """The password of every user of the servers in `config`."""
    return {s.user: s.password for s in config.servers().values() if s.user}


def _quoted(text: str) -> str:
    return text if re.fullmatch(r"[^\s'\"=]+", text) else "'" + text.replace("'", "''") + "'"


def _listed(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
