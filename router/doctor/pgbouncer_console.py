"""PgBouncer's own console: its database ``pgbouncer``, which answers SHOW.

Its ``admin_users`` and ``stats_users`` may ask.

Source: https://www.pgbouncer.org/usage.html#admin-console
"""

import re
from collections.abc import Mapping
from typing import Any

from router.doctor.facts import Console


def read(arguments: Mapping[str, Any]) -> Console:
    """Ask a PgBouncer about itself, over one short connection; `arguments` are libpq's for a
    database behind it.

    Raises:
        psycopg.Error: there is none, it does not let this user ask, or it went away.
    """
    import psycopg
    from psycopg.rows import dict_row

    wanted = {**arguments, "dbname": "pgbouncer"}
    with (
        psycopg.connect(**wanted, autocommit=True) as connection,
        connection.cursor(row_factory=dict_row) as cursor,
    ):

        def show(what: str) -> list[dict[str, Any]]:
            return cursor.execute(f"SHOW {what}".encode()).fetchall()

        version = re.search(r"\d+(\.\d+)+", str(show("VERSION")[0]["version"]))
        settings = {row["key"]: str(row["value"]) for row in show("CONFIG")}
        pools, databases = (
            tuple({k: str(v) for k, v in row.items()} for row in show(what))
            for what in ("POOLS", "DATABASES")
        )
    number = tuple(map(int, version[0].split("."))) if version else ()
    return Console(number, settings, pools, {row["name"]: row for row in databases})
