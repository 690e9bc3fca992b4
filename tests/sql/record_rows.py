"""Writes ``rows.json``: what a server that has run ``schema.sql`` says of its catalog.

    python -m tests.sql.record_rows

To be run when that or the catalog's queries change; test_catalog compares with a live server.
"""

import json
from pathlib import Path

import psycopg

from router.sql.queries import QUERIES
from router.testing import Cluster

SCHEMA = Path(__file__).with_name("schema.sql")
TARGET = Path(__file__).with_name("rows.json")


def main() -> None:
    """Start a server, run the schema, ask, write one row a line."""
    schema = SCHEMA.read_text("utf-8")

    with Cluster(0) as cluster:
        cluster.primary.execute("create database recorded")
        cluster.primary.execute(schema, dbname="recorded")
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
