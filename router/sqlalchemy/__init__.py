"""SQLAlchemy front door: engines that split reads and writes."""

from typing import TYPE_CHECKING, Any

from router.sqlalchemy.plugin import RoutedEngine, create_engine, router_of
from router.sqlalchemy.session import Session

if TYPE_CHECKING:
    from router.sqlalchemy.async_engine import (
        AsyncSession,
        RoutedAsyncEngine,
        create_async_engine,
    )

__all__ = [
    "AsyncSession",
    "RoutedAsyncEngine",
    "RoutedEngine",
    "Session",
    "create_async_engine",
    "create_engine",
    "router_of",
]


def __getattr__(name: str) -> Any:
    # SQLAlchemy's asyncio part needs greenlet, which only its users have.
    if name in ("AsyncSession", "RoutedAsyncEngine", "create_async_engine"):
        from router.sqlalchemy import async_engine

        return getattr(async_engine, name)
    raise AttributeError(f"module 'router.sqlalchemy' has no attribute {name!r}")
