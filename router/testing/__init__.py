"""Real PostgreSQL servers and TCP faults for tests: Cluster and Proxy."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from router.testing.cluster import Cluster, Server, ServerFailed
    from router.testing.proxy import Proxy

__all__ = ["Cluster", "Proxy", "Server", "ServerFailed"]


def __getattr__(name: str) -> object:
    # pytest loads the plugin, and so this package, in every project where we are installed.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "Proxy":
        from router.testing.proxy import Proxy

        return Proxy
    from router.testing import cluster

    return getattr(cluster, name)
