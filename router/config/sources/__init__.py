"""Where options come from: one module for each way people already write them down.

Each turns what it reads into `Settings`; `router.config.layers` puts them over each other, checks
them and names the source in its errors.
"""

from router.config.sources.settings import ADDRESS, Settings, argument, found_at

__all__ = ["ADDRESS", "Settings", "argument", "found_at"]
