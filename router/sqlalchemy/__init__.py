"""SQLAlchemy front door: an engine that splits reads and writes, sync and async."""
