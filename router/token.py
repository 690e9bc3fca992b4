"""How a pin store of your own merges entries; see `router.pins.token`."""

from router.pins.token import merged

__all__ = ["merged"]
