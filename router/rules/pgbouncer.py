"""What PgBouncer takes away, by pool mode, and what is refused for it before it is sent.

Where PgBouncer pools by transaction, each transaction may run on another server session: what a
statement leaves in its session reaches other clients, or is missing later.

Source: https://www.pgbouncer.org/features.html
"""

from collections.abc import Mapping
from typing import Any

from router.errors import ConfigError, SessionRefused
from router.model import Node, Report, Role, Snapshot
from router.sql.intent import Intent, Kind

SHARED = ("transaction", "statement")
"""Modes in which a client has no server session of its own."""

TRACKED = frozenset(
    {"application_name", "client_encoding", "datestyle", "standard_conforming_strings", "timezone"}
)
"""Start-up parameters that every PgBouncer takes.

Source: https://www.pgbouncer.org/config.html#ignore_startup_parameters
"""


def needs_session(intent: Intent) -> bool:
    """Whether the statement of `intent` leaves something in its server session for certain; what a
    function it calls does inside cannot be told."""
    return intent.holds or (intent.kind is Kind.SESSION and not intent.local)


def advice(intent: Intent) -> str:
    """Why the statement of `intent` cannot run and what to do instead, for people."""
    instead = "give session_url, which leads past PgBouncer"
    if not needs_session(intent):
        return 'router="session" asks for a session past PgBouncer: give session_url'
    if intent.kind is Kind.SESSION:
        instead = (
            "use SET LOCAL or set_config(…, true), which last for the transaction, or set it for "
            "the role with ALTER ROLE … SET"
        )
    return (
        f"{intent.reason} needs a server session of its own, and PgBouncer gives none by "
        f"transaction: {instead}"
    )


def stranger(found: Report | None, node: Node, snapshot: Snapshot) -> str:
    """Why the server that ``session_url`` leads to is not `node`, the primary of `snapshot`, empty
    where it is; `found` is what it says of itself, None where it says nothing."""
    if found is None or found.role is not Role.PRIMARY:
        return "the server there is not the primary"
    known = snapshot.reports.get(node.name)
    pairs = ((found.timeline, snapshot.timeline), (found.system_id, snapshot.system_id))
    for mine, theirs in pairs:
        if known is not None and mine and theirs and mine != theirs:
            return "the server there is another than the primary"
    if known is not None and found.database and snapshot.database not in ("", found.database):
        return f"the database there is {found.database!r}, and the primary's {snapshot.database!r}"
    return ""


def not_the_primary(problem: str, node: Node) -> SessionRefused:
    """The error where no host of ``session_url`` will do for `node`: the `problem`."""
    return SessionRefused(
        f"session_url: {problem}: give the address and database of {node}, past PgBouncer, or of "
        "every server that may be the primary"
    )


def check_search_path(wanted: str, found: str, node: str) -> None:
    """Raise ConfigError if the ``search_path`` `found` in force at `node`, behind a PgBouncer, is
    not the one `wanted` by `schema`."""
    if found.replace(" ", "").replace('"', "") != wanted.replace('"', ""):
        raise ConfigError(
            f"{node}: schema: behind PgBouncer search_path is {found or 'empty'}, not {wanted}: "
            "write the database's entry with pg-router pgbouncer-ini, or set it for the role with "
            "ALTER ROLE … SET search_path"
        )


def check_startup(parameters: Mapping[str, Any], node: str) -> None:
    """Raise ConfigError if PgBouncer, which takes `TRACKED` only, would refuse connection
    `parameters` of `node` when a connection is opened."""
    found = ["options"] if parameters.get("options") else []
    settings: Any = parameters.get("server_settings") or {}
    found += [name for name in settings if name.lower() not in TRACKED]
    if found:
        raise ConfigError(
            f"{node}: {found[0]}: PgBouncer refuses this start-up parameter: leave it out, and "
            "set what it says for the role with ALTER ROLE … SET"
        )
