"""Write router/sql/builtins.txt from a server: what pg_catalog holds before any user comes.

    python scripts/make_builtins.py "host=127.0.0.1 port=5432 user=postgres dbname=template0"

Run it against an empty database of the newest PostgreSQL; the connection string is psycopg's.
"""

import pathlib
import sys
import textwrap

import psycopg

SCHEMAS = "('pg_catalog', 'information_schema')"
PARTS = {
    "STABLE": f"""
        select proname from pg_proc p join pg_namespace n on n.oid = pronamespace
        where nspname in {SCHEMAS} and p.oid < 16384
        group by 1 having bool_and(provolatile <> 'v')
        """,
    "VOLATILE": f"""
        select proname from pg_proc p join pg_namespace n on n.oid = pronamespace
        where nspname in {SCHEMAS} and p.oid < 16384
        group by 1 having bool_or(provolatile = 'v')
        """,
    "RELATIONS": """
        select relname from pg_class c
        where relnamespace = 'pg_catalog'::regnamespace and relkind in ('r', 'v', 'm')
            and c.oid < 16384
        """,
    "TYPES": """
        select typname from pg_type t
        where typnamespace = 'pg_catalog'::regnamespace and t.oid < 16384 and typtype <> 'c'
            and typname !~ '^_'
        """,
    "OPERATORS": """
        select distinct oprname from pg_operator o where o.oid < 16384 and not exists (
            select from pg_proc p where p.oid = oprcode and provolatile = 'v')
        """,
}
"""Kinds of names, which router/sql/builtins.py tells, and the query of each."""


def main(conninfo: str) -> None:
    """Ask the server and write the file."""
    with psycopg.connect(conninfo) as connection:
        major = connection.info.server_version // 10000
        head = f"# What PostgreSQL {major} brings: a paragraph for each kind, its name first."
        out = [f"{head} By scripts/make_builtins.py"]
        for part, sql in PARTS.items():
            names = sorted(str(row[0]) for row in connection.execute(sql))
            body = textwrap.fill(
                " ".join(names), 99, break_long_words=False, break_on_hyphens=False
            )
            out.append(f"{part}\n{body}")
    path = pathlib.Path(__file__).parent.parent / "router/sql/builtins.txt"
    path.write_text("\n\n".join(out) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
