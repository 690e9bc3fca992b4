"""Test databases: made on the primary, and awaited on every replica before a test begins."""

import time
from collections.abc import Mapping
from typing import Any

import psycopg
from django.db.backends.postgresql import creation

from router.config.urls import url_parts
from router.django.source import leave

PATIENCE = 30.0
"""Seconds to wait for one replica to replay the creation of a database."""

PAUSE = 0.02
"""Seconds between two questions to a replica whether the database is there."""

_tested: set[str] = set()
"""Aliases that have a test database now."""


def testing() -> bool:
    """Whether Django's test runner, or one that calls its methods, runs tests."""
    return bool(_tested)


def _names_database(replica: object) -> bool:
    if isinstance(replica, str):
        return "://" in replica and "dbname" in url_parts(replica, "REPLICAS")
    return isinstance(replica, Mapping) and bool(replica.get("NAME"))


class DatabaseCreation(creation.DatabaseCreation):
    """Django's, and waits for the replicas."""

    def _create_test_db(self, verbosity: int, autoclobber: bool, keepdb: bool = False) -> str:
        self._leave_real_data_alone()
        leave(self._get_test_db_name())  # a database of that name may have to be dropped first
        name = str(super()._create_test_db(verbosity, autoclobber, keepdb))
        self._await(name)
        _tested.add(self.connection.alias)
        return name

    def setup_worker_connection(self, _worker_id: int) -> None:
        self._leave_real_data_alone()  # a spawned process has its settings from the file
        super().setup_worker_connection(_worker_id)
        _tested.add(self.connection.alias)  # this process was spawned, perhaps

    def _leave_real_data_alone(self) -> None:
        """Leave out what leads to the real database, where no test may go: behind a PgBouncer a
        replica's NAME of its own, a URL among the replicas that names a database, and
        ``session_url``."""
        settings = self.connection.settings_dict
        options = settings.get("ROUTER") or {}
        if "session_url" in options:
            settings["ROUTER"] = {k: v for k, v in options.items() if k != "session_url"}
            self.log("session_url is left out of the tests.")
        replicas = list(settings.get("REPLICAS") or ())
        ours = [replica for replica in replicas if not _names_database(replica)]
        if len(ours) < len(replicas):
            settings["REPLICAS"] = ours
            self.log("Replicas with a NAME of their own are left out of the tests.")

    def _clone_test_db(self, suffix: str, verbosity: int, keepdb: bool = False) -> None:
        leave(self.connection.settings_dict["NAME"])
        leave(self.get_test_db_clone_settings(suffix)["NAME"])
        super()._clone_test_db(suffix, verbosity, keepdb)
        self._await(self.get_test_db_clone_settings(suffix)["NAME"])

    def _destroy_test_db(self, test_database_name: str, verbosity: int) -> None:
        _tested.discard(self.connection.alias)
        leave(test_database_name)
        super()._destroy_test_db(test_database_name, verbosity)

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
