"""A pool for asyncpg's users: reads on replicas, writes on the primary."""

from router.asyncpg.connection import Connection
from router.asyncpg.errors import PoolClosed, PoolTimeout
from router.asyncpg.pool import Pool, create_pool

__all__ = ["Connection", "Pool", "PoolClosed", "PoolTimeout", "create_pool"]
