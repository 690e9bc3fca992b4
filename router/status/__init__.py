"""How a cluster stands: as a value, over its last minutes, and as a page."""

from router.status.report import NodeStatus, Status, status

__all__ = ["NodeStatus", "Status", "status"]
