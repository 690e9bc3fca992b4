"""SQLAlchemy front door: an engine that splits reads and writes."""

from router.sqlalchemy.plugin import RoutedEngine, create_engine, router_of

__all__ = ["RoutedEngine", "create_engine", "router_of"]
