"""The nodes kept out, and when they were, as a Router shows them; see `router.rules.blacklist`."""

from router.rules.blacklist import Entry, Outage

__all__ = ["Entry", "Outage"]
