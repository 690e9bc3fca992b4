"""Real PostgreSQL servers and TCP faults for tests: Cluster and Proxy."""

from router.testing.cluster import Cluster, Server, ServerFailed
from router.testing.proxy import Proxy

__all__ = ["Cluster", "Proxy", "Server", "ServerFailed"]
