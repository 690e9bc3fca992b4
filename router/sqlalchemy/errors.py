"""Errors that are pg-router's and SQLAlchemy's at once: drop-in code catches what it always did.

`DontWrapMixin` keeps SQLAlchemy from wrapping them once more in a StatementError.
"""

from sqlalchemy import exc

from router import errors
from router.errors import RouterError, counterpart


class ConfigError(errors.ConfigError, exc.ArgumentError, exc.DontWrapMixin):
    """An option is wrong, as was found when the servers were first asked."""


class PrimaryUnavailable(errors.PrimaryUnavailable, exc.OperationalError, exc.DontWrapMixin):
    """The statement needs the primary, and there is none now."""


class NoReplicaAvailable(errors.NoReplicaAvailable, exc.OperationalError, exc.DontWrapMixin):
    """No replica is eligible and ``fallback="error"`` forbids the primary."""


class ReplicaWriteRefused(errors.ReplicaWriteRefused, exc.InvalidRequestError, exc.DontWrapMixin):
    """A write was asked onto a replica; it was refused before anything was sent."""


class SessionRefused(errors.SessionRefused, exc.InvalidRequestError, exc.DontWrapMixin):
    """The statement needs a server session of its own, and PgBouncer gives none; not sent."""


class CommitUnknown(errors.CommitUnknown, exc.OperationalError, exc.DontWrapMixin):
    """The connection broke during COMMIT, or during a write that is its own transaction: it may or
    may not have been committed."""


class TransactionLost(errors.TransactionLost, exc.OperationalError, exc.DontWrapMixin):
    """The connection broke in the middle of a transaction; nothing more of it is run."""


class PoolTimeout(exc.TimeoutError, exc.DontWrapMixin):
    """One node's connections are all in use. Busy is not broken: nothing is blacklisted."""


def translated(error: RouterError) -> RouterError:
    """The SQLAlchemy counterpart of the core's `error`; other errors as they are."""
    for cls in (PrimaryUnavailable, NoReplicaAvailable, CommitUnknown, TransactionLost):
        if isinstance(error, cls.__bases__[0]):
            return cls(None, None, error)
    return counterpart(error, (ReplicaWriteRefused, SessionRefused, ConfigError))
