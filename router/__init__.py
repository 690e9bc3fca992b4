"""pg-router: a read/write-splitting router for PostgreSQL.

Importing this package loads no framework and no driver; what needs one is loaded when first used.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from router.context import (
    current_context,
    request_context,
    unpin,
    using_primary,
    using_replica,
    without_pinning,
)
from router.errors import (
    CommitUnknown,
    ConfigError,
    NodeUnavailable,
    NoReplicaAvailable,
    PrimaryUnavailable,
    ReplicaWriteRefused,
    RouterError,
)

if TYPE_CHECKING:
    from router.classify import classify
    from router.config import Config
    from router.core import Router
    from router.sqlalchemy.plugin import create_engine

try:
    __version__ = version("pg-router")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

_LAZY = {
    "Config": "router.config",
    "Router": "router.core",
    "classify": "router.classify",
    "create_engine": "router.sqlalchemy.plugin",
}


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module 'router' has no attribute {name!r}")
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])


__all__ = [
    "CommitUnknown",
    "Config",
    "ConfigError",
    "NoReplicaAvailable",
    "NodeUnavailable",
    "PrimaryUnavailable",
    "ReplicaWriteRefused",
    "Router",
    "RouterError",
    "__version__",
    "classify",
    "create_engine",
    "current_context",
    "request_context",
    "unpin",
    "using_primary",
    "using_replica",
    "without_pinning",
]
