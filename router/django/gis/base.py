"""Django's PostGIS backend on top of ours."""

from typing import Any

from django.contrib.gis.db.backends.postgis import base as postgis
from django.contrib.gis.db.backends.postgis.operations import PostGISOperations

from router.django import base as routed
from router.django.facade import RoutedConnection


class DatabaseOperations(routed.DatabaseOperations, PostGISOperations):
    """PostGIS's, but for what asks the driver about a connection."""


class DatabaseWrapper(  # pyright: ignore[reportIncompatibleVariableOverride]
    routed.DatabaseWrapper, postgis.DatabaseWrapper
):
    """One thread's connection to a primary and its replicas; all of them know geometries."""

    ops_class = DatabaseOperations

    def _configure_connection(self, connection: Any) -> bool:
        self.register_geometry_adapters(connection)
        return bool(super()._configure_connection(connection))

    def register_geometry_adapters(self, pg_connection: Any, clear_caches: bool = False) -> None:
        register = super().register_geometry_adapters
        if not isinstance(pg_connection, RoutedConnection):
            register(pg_connection, clear_caches)
            return
        # The node used last made the extension; a replica may not have it yet.
        register(pg_connection.any, clear_caches)
        pg_connection.register(register)
