"""The same engine for asyncio: ``AsyncEngine`` over a routed one."""

from typing import Any

from sqlalchemy import orm
from sqlalchemy.engine import URL
from sqlalchemy.ext import asyncio as plain
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import PoolProxiedConnection
from sqlalchemy.util import greenlet_spawn

from router.cluster.router import Router
from router.config.config import Config
from router.rules.context import Pins
from router.sqlalchemy.checkout import RoutedConnection
from router.sqlalchemy.plugin import engine_options, router_of
from router.sqlalchemy.session import Session


class RoutedAsyncConnection(AsyncConnection):
    """SQLAlchemy's AsyncConnection, whose ``get_raw_connection`` takes the primary's."""

    async def get_raw_connection(self) -> PoolProxiedConnection:
        """The pool's connection, with a ``driver_connection`` to the primary behind it.

        The checkout stays on the primary from now on: what is done there cannot be seen.
        """
        raw = await super().get_raw_connection()
        if isinstance(raw, RoutedConnection):
            await greenlet_spawn(raw.routed.bind_primary)
        return raw


class RoutedAsyncEngine(AsyncEngine):
    """SQLAlchemy's AsyncEngine, with the Router as ``router``."""

    _connection_cls: type[AsyncConnection] = RoutedAsyncConnection

    @property
    def router(self) -> Router:
        """Decides where statements go; its own methods may block, see `refresh`."""
        return router_of(self)

    def execution_options(self, **opt: Any) -> "RoutedAsyncEngine":
        return RoutedAsyncEngine(self.sync_engine.execution_options(**opt))

    async def refresh(self) -> None:
        """Probe every node now, without holding up the event loop."""
        import asyncio

        await asyncio.to_thread(self.router.refresh)


class AsyncSession(plain.AsyncSession):
    """`router.sqlalchemy.Session` for asyncio: pins of its own, shared with nobody."""

    sync_session_class: type[orm.Session] = Session

    @property
    def pins(self) -> Pins:
        """What this session wrote; `Pins.clear` forgets it."""
        session = self.sync_session
        assert isinstance(session, Session), "sync_session_class must be router's own"
        return session.pins


def create_async_engine(
    url: str | URL | Config, replicas: object = (), **options: Any
) -> RoutedAsyncEngine:
    """An asynchronous SQLAlchemy engine whose reads go to replicas and writes to the primary.

    Sugar over ``sqlalchemy.ext.asyncio.create_async_engine(url, plugins=["router"],
    replicas=…, **options)``.

    Args:
        url: the primary's, such as ``postgresql+asyncpg://user:password@host/dbname``; asyncpg
            or psycopg. Without a driver, psycopg is taken. Or a whole `Config`; options beside
            it win.
        replicas: URLs, ``host:port`` texts, or mappings of what differs from the primary.
        **options: the options of `router.config.Config` and those of SQLAlchemy's function.

    Raises:
        ConfigError: an option is unknown or malformed; names it and the cure.
    """
    parsed, options = engine_options(url, replicas, options)
    # Only one AsyncEngine over it may live, or SQLAlchemy would find the other.
    sync_engine = plain.create_async_engine(parsed, **options).sync_engine
    return RoutedAsyncEngine(sync_engine)
