"""A pool for asyncpg's users: reads on replicas, writes on the primary."""

from router.asyncpg.connection import Connection, PoolTimeout
from router.asyncpg.pool import Pool, create_pool

__all__ = ["Connection", "Pool", "PoolTimeout", "create_pool"]
