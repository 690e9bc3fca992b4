"""Errors that are pg-router's and SQLAlchemy's at once: drop-in code catches what it always did.

`DontWrapMixin` keeps SQLAlchemy from wrapping them once more in a StatementError.
"""

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import exc

from router import errors

T = TypeVar("T")


class PrimaryUnavailable(errors.PrimaryUnavailable, exc.OperationalError, exc.DontWrapMixin):
    """The statement needs the primary, and there is none now."""


class NoReplicaAvailable(errors.NoReplicaAvailable, exc.OperationalError, exc.DontWrapMixin):
    """No replica is eligible and ``fallback="error"`` forbids the primary."""


class ReplicaWriteRefused(errors.ReplicaWriteRefused, exc.InvalidRequestError, exc.DontWrapMixin):
    """A write was asked onto a replica; it was refused before anything was sent."""


class PoolTimeout(exc.TimeoutError, exc.DontWrapMixin):
    """One node's connections are all in use. Busy is not broken: nothing is blacklisted."""


def translated(action: Callable[[], T]) -> T:
    """`action()`, with the core's errors raised as their SQLAlchemy counterparts."""
    try:
        return action()
    except errors.PrimaryUnavailable as error:
        raise PrimaryUnavailable(str(error), None, error) from error
    except errors.NoReplicaAvailable as error:
        raise NoReplicaAvailable(str(error), None, error) from error
    except errors.ReplicaWriteRefused as error:
        raise ReplicaWriteRefused(str(error)) from error
