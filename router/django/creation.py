"""Test databases: made on the primary, and there on every replica before anybody asks them."""

import time
from typing import Any

import psycopg
from django.db.backends.postgresql import creation

PATIENCE = 30.0
"""Seconds to wait for one replica to replay the creation of a database."""

PAUSE = 0.02


class DatabaseCreation(creation.DatabaseCreation):
    """Django's, and waits for the replicas."""

    def _create_test_db(self, verbosity: int, autoclobber: bool, keepdb: bool = False) -> str:
        # A Router that watches a test database of this name would keep it from being dropped.
        self.connection.close_pool()
        name = str(super()._create_test_db(verbosity, autoclobber, keepdb))
        self._await(name)
        return name

    def _clone_test_db(self, suffix: str, verbosity: int, keepdb: bool = False) -> None:
        super()._clone_test_db(suffix, verbosity, keepdb)
        self._await(self.get_test_db_clone_settings(suffix)["NAME"])

    def _await(self, name: str) -> None:
        """Wait until every replica that answers has the database."""
        cluster = self.connection.cluster
        for server in cluster.config.replicas:
            arguments: dict[str, Any] = {**cluster.arguments(server), "dbname": "postgres"}
            until = time.monotonic() + PATIENCE
            try:
                with psycopg.connect(**arguments) as connection:
                    sql = "SELECT 1 FROM pg_database WHERE datname = %s"
                    while connection.execute(sql, [name]).fetchone() is None:
                        if time.monotonic() > until:
                            self.log(
                                f"{server.host}:{server.port}: did not replay the creation of "
                                f"{name} within {PATIENCE:g} s: look at replication"
                            )
                            break
                        time.sleep(PAUSE)
            except psycopg.OperationalError:
                continue  # a dead replica gets no reads
