"""The wrapper that Django looks for, as packages for managed services have one."""

from collections.abc import Callable
from typing import Any, ClassVar

from router.django import base


class DatabaseWrapper(base.DatabaseWrapper):
    """`router.django`'s, with a password made for each connection."""

    token: ClassVar[Callable[[str, int], str]]
    """Gives the password for a host and port."""

    def get_connection_params(self) -> Any:
        found = super().get_connection_params()
        return {**found, "password": type(self).token(found["host"], int(found["port"]))}
