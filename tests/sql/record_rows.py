"""Writes ``rows.json``: what a server that has run `SCHEMA` says of its catalog.

    python -m tests.sql.record_rows

To be run when `SCHEMA` or the catalog's queries change; test_catalog compares with a live server.
"""

import json
from pathlib import Path

import psycopg

from router.sql.queries import QUERIES
from router.testing import Cluster

TARGET = Path(__file__).with_name("rows.json")


def main() -> None:
    """Start a server, run the schema, ask, write one row a line."""
    from tests.sql.statements import SCHEMA

    with Cluster(0) as cluster:
        cluster.primary.execute("create database recorded")
        cluster.primary.execute(SCHEMA, dbname="recorded")
        with psycopg.connect(cluster.primary.conninfo("recorded")) as connection:
            answers = {name: connection.execute(sql).fetchall() for name, sql in QUERIES.items()}
    parts = [
        f'"{name}": [\n' + ",\n".join(json.dumps(row) for row in rows) + "\n]"
        for name, rows in answers.items()
    ]
    TARGET.write_text("{\n" + ",\n".join(parts) + "\n}\n")
    print(f"{TARGET}: {TARGET.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
