"""What the user asked for, and every place it is read from."""

from router.config.config import Config

__all__ = ["Config"]
