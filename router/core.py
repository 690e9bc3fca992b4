"""`Router.stats` in words, as the tutorial prints them; see `router.cluster.router`."""

from router.cluster.router import describe

__all__ = ["describe"]
