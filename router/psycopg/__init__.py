"""Pools for psycopg's users: reads on replicas, writes on the primary."""

from router.psycopg.async_connection import AsyncConnection, AsyncCursor
from router.psycopg.async_pool import AsyncConnectionPool
from router.psycopg.connection import Connection, Cursor
from router.psycopg.errors import PoolClosed, PoolTimeout, TooManyRequests
from router.psycopg.pool import ConnectionPool

__all__ = [
    "AsyncConnection",
    "AsyncConnectionPool",
    "AsyncCursor",
    "Connection",
    "ConnectionPool",
    "Cursor",
    "PoolClosed",
    "PoolTimeout",
    "TooManyRequests",
]
