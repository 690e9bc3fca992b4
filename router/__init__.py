"""pg-router: a read/write-splitting router for PostgreSQL.

Importing this package loads no framework and no driver; what needs one is loaded when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from router.cluster.router import Router, pin
from router.config.config import Config
from router.doctor.diagnosis import Diagnosis, doctor
from router.doctor.findings import Finding
from router.errors import (
    CommitUnknown,
    ConfigError,
    ListenerFailed,
    NodeUnavailable,
    NoReplicaAvailable,
    PrimaryUnavailable,
    ReplicaWriteRefused,
    RouterError,
    SessionRefused,
    TransactionLost,
)
from router.explain import Explanation, explain
from router.rules.context import (
    current_context,
    request_context,
    unpin,
    using_primary,
    using_replica,
    without_pinning,
)

# Eager, and functions named like their modules: imported later, the submodule would take the name.
from router.sql.classifier import classify
from router.sql.intent import Intent, Kind

if TYPE_CHECKING:
    from router.listener import Listener, ListenerHealth, Notification, listen
    from router.pins.carrier import PinCarrier
    from router.pins.store import MemoryPinStore
    from router.schema import create_schema
    from router.sqlalchemy.async_engine import create_async_engine
    from router.sqlalchemy.plugin import create_engine

    __version__: str

_LAZY = {
    name: module
    for module, names in {
        "router.listener": ("Listener", "ListenerHealth", "Notification", "listen"),
        "router.pins.carrier": ("PinCarrier",),
        "router.pins.store": ("MemoryPinStore",),
        "router.schema": ("create_schema",),
        "router.sqlalchemy.async_engine": ("create_async_engine",),
        "router.sqlalchemy.plugin": ("create_engine",),
    }.items()
    for name in names
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value = _version()
    elif name in _LAZY:
        value = getattr(import_module(_LAZY[name]), name)
    else:
        raise AttributeError(f"module 'router' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY, "__version__"])


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("pg-router")
    except PackageNotFoundError:  # a source tree that was never installed
        return "0+unknown"


__all__ = [
    "CommitUnknown",
    "Config",
    "ConfigError",
    "Diagnosis",
    "Explanation",
    "Finding",
    "Intent",
    "Kind",
    "Listener",
    "ListenerFailed",
    "ListenerHealth",
    "MemoryPinStore",
    "NoReplicaAvailable",
    "NodeUnavailable",
    "Notification",
    "PinCarrier",
    "PrimaryUnavailable",
    "ReplicaWriteRefused",
    "Router",
    "RouterError",
    "SessionRefused",
    "TransactionLost",
    "__version__",
    "classify",
    "create_async_engine",
    "create_engine",
    "create_schema",
    "current_context",
    "doctor",
    "explain",
    "listen",
    "pin",
    "request_context",
    "unpin",
    "using_primary",
    "using_replica",
    "without_pinning",
]
