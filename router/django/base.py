"""``ENGINE: "router.django"``: Django's PostgreSQL backend, each statement routed."""

from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db.backends.base.base import NO_DB_ALIAS, BaseDatabaseWrapper
from django.db.backends.postgresql import base, operations
from django.utils.functional import cached_property
from psycopg import ClientCursor, IsolationLevel
from psycopg.sql import SQL, Literal

from router import registry
from router.cluster.router import Router
from router.config.config import Config
from router.django import bouncer, patches
from router.django.creation import DatabaseCreation
from router.django.facade import RoutedConnection
from router.django.source import DjangoConnector, DjangoSource, cluster_of
from router.errors import ConfigError
from router.psycopg.node_connection import PsycopgConnection

if not base.is_psycopg3:
    raise ImproperlyConfigured("router.django needs psycopg 3: pip install 'psycopg[binary]'")

patches.install()


class DatabaseOperations(operations.DatabaseOperations):
    """Django's, but for what asks the driver about a connection, and for compilers that read to
    write."""

    compiler_module = "router.django.compiler"

    def compose_sql(self, sql: Any, params: Any) -> Any:
        connection = self.connection
        connection.ensure_connection()
        facade = connection.connection
        if not isinstance(facade, RoutedConnection):
            return super().compose_sql(sql, params)
        return ClientCursor(facade.any).mogrify(sql, params)


class _On:
    """A wrapper that has one node's connection in place of the routed one, for Django to make a
    cursor."""

    __slots__ = ("_wrapper", "connection", "timezone")

    def __init__(self, wrapper: "DatabaseWrapper", connection: Any) -> None:
        self._wrapper = wrapper
        self.connection = connection
        self.timezone = wrapper.timezone  # Django reads it with every cursor

    def __getattr__(self, key: str) -> Any:
        return getattr(self._wrapper, key)


_create_on: Any = base.DatabaseWrapper.create_cursor


class DatabaseWrapper(base.DatabaseWrapper):
    """One thread's connection to a primary and its replicas, under one alias."""

    connection: Any
    wrap_database_errors: Any  # pyright: ignore[reportIncompatibleVariableOverride]
    creation_class = DatabaseCreation
    ops_class = DatabaseOperations

    def __init__(self, settings_dict: dict[str, Any], alias: str = "default") -> None:
        super().__init__(settings_dict, alias=alias)  # PostGIS looks for the keyword
        self._routes: bool = alias != NO_DB_ALIAS
        # Transactions that begin from now on are declared READ ONLY; see router.django.read_only.
        self.read_only: bool = False
        options = settings_dict.get("ROUTER")
        if self._routes and isinstance(options, Mapping) and options.get("pgbouncer"):
            self._know_bouncer()
        registry.renew(self)

    def _know_bouncer(self) -> None:
        # Django looks at this key before it connects, where iterator() begins.
        try:
            config = Config.from_django(self.settings_dict, self.alias)
        except ConfigError:
            return  # `cluster` and manage.py check raise it
        if bouncer.shared(config):
            self.settings_dict["DISABLE_SERVER_SIDE_CURSORS"] = True

    @property
    def cluster(self) -> DjangoConnector:
        """What all wrappers of this alias share. Raises
        django.core.exceptions.ImproperlyConfigured: a key is unknown or malformed."""
        self._check_options()
        return cluster_of(self)

    def _check_options(self) -> None:
        if not isinstance(self.settings_dict["OPTIONS"], Mapping):
            where = f"DATABASES[{self.alias!r}]['OPTIONS']"
            raise ImproperlyConfigured(f"{where}: expected a mapping: give one, or leave it out")

    @property
    def router(self) -> Router:
        """Decides where this alias's statements go; one for the process. Raises as `cluster`."""
        return self.cluster.router

    @property
    def configured_isolation(self) -> IsolationLevel | None:
        """What ``OPTIONS["isolation_level"]`` asks for, None for the server's default."""
        options = self.settings_dict["OPTIONS"]
        if "isolation_level" not in options:
            return None
        try:
            return IsolationLevel(options["isolation_level"])
        except ValueError:
            raise ImproperlyConfigured(
                f"Invalid transaction isolation level {options['isolation_level']} "
                "specified. Use one of the psycopg.IsolationLevel values."
            ) from None

    @property
    def pool(self) -> Any:
        """None: each node has a pool of its own, see
        `router.django.source.DjangoConnector.pool`."""
        return None if self._routes else super().pool

    def close_pool(self) -> None:
        if self._routes:
            self.cluster.close()
        else:
            super().close_pool()

    @classmethod
    def renews(cls) -> bool:
        """Whether it is a subclass that makes credentials for each connection."""
        return cls.get_connection_params is not DatabaseWrapper.get_connection_params

    def get_connection_params(self) -> Any:
        self._check_options()
        return super().get_connection_params()

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        if not self._routes:
            return super().get_new_connection(conn_params)
        self.isolation_level = self.configured_isolation or IsolationLevel.READ_COMMITTED
        return RoutedConnection(DjangoSource(self, self.cluster))

    def after_fork(self) -> None:
        """In a forked child: leave the connection to the parent, with the ``atomic()`` that is
        open, its savepoints, and its on_commit callbacks."""
        if isinstance(self.connection, RoutedConnection):
            self.connection.abandon()
            self.connection = None
            self.in_atomic_block = self.closed_in_transaction = self.needs_rollback = False
            self.savepoint_ids: list[Any] = []
            self.atomic_blocks: list[Any] = []
            self.run_on_commit: list[Any] = []

    def init_connection_state(self) -> None:
        if self._routes:
            BaseDatabaseWrapper.init_connection_state(self)
        else:
            super().init_connection_state()

    def _configure_role(self, connection: Any) -> bool:
        # Django composes the statement by the wrapper's connection, which is only being opened.
        role = self.settings_dict["OPTIONS"].get("assume_role")
        if role:
            connection.execute(SQL("SET ROLE {}").format(Literal(role)))
        return bool(role)

    def ensure_timezone(self) -> bool:
        if not self._routes:
            return bool(super().ensure_timezone())
        self.close_pool()
        if self.connection is None:
            return False
        return bool(self.connection.configured(self._configure_timezone))

    def _close(self) -> None:
        if self.connection is not None:
            with self.wrap_database_errors:
                self.connection.close()

    def create_cursor(self, name: str | None = None) -> Any:
        if not self._routes:
            return super().create_cursor(name)
        facade = self.connection
        if name is None:
            return facade.cursor_class(facade.checkout, facade, self._cursor_on)
        return facade.cursor_by(lambda c: _create_on(_On(self, c), name), stream=True)

    def _cursor_on(self, held: PsycopgConnection) -> Any:
        return _create_on(_On(self, held.dbapi))

    def _set_autocommit(self, autocommit: bool) -> None:
        if isinstance(self.connection, RoutedConnection):
            self.connection.declared = self.read_only and not autocommit
        super()._set_autocommit(autocommit)

    def hold_session(self) -> bool:
        """Stay on a server session of its own, past PgBouncer, until the connection is closed.

        Returns:
            whether there is a PgBouncer to go past, and a ``session_url``.

        Raises:
            router.SessionRefused: ``session_url`` does not lead to the primary.
        """
        config = self.cluster.config
        if config.session_url is None or not bouncer.shared(config):
            return False
        self.ensure_connection()
        self.connection.hold_session()
        return True

    def is_usable(self) -> bool:
        if not isinstance(self.connection, RoutedConnection):
            return bool(super().is_usable())
        return self.connection.usable()

    def close_if_unusable_or_obsolete(self) -> None:
        super().close_if_unusable_or_obsolete()
        facade = self.connection
        if not isinstance(facade, RoutedConnection) or self.in_atomic_block:
            return
        if facade.checkout.bound or facade.unfinished:
            # A session that one request left bound would keep the next on the primary. In a
            # transaction left open, the next request's writes would wait for a COMMIT that nobody
            # sends, and its atomic() would fail.
            self.close()
        else:
            facade.rest()

    @cached_property  # type: ignore[untyped-decorator]  # functools' own has a lock in Python 3.11
    def pg_version(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        with self.temporary_connection():
            return int(self.connection.info.server_version)
