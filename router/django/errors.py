"""Errors that are pg-router's and Django's at once: code that catches Django's goes on working."""

from collections.abc import Callable
from functools import partial

from django.db import utils

from router import errors
from router.errors import RouterError, counterpart


class PrimaryUnavailable(errors.PrimaryUnavailable, utils.OperationalError):
    """The statement needs the primary, and there is none now."""


class NoReplicaAvailable(errors.NoReplicaAvailable, utils.OperationalError):
    """No replica is eligible and ``fallback="error"`` forbids the primary."""


class ReplicaWriteRefused(errors.ReplicaWriteRefused, utils.ProgrammingError):
    """A write was asked onto a replica; it was refused before anything was sent."""


class CommitUnknown(errors.CommitUnknown, utils.OperationalError):
    """The connection broke during COMMIT, or during a write that is its own transaction: it may or
    may not have been committed."""


class TransactionLost(errors.TransactionLost, utils.OperationalError):
    """The connection broke in the middle of a transaction; nothing more of it is run."""


class SessionRefused(errors.SessionRefused, utils.NotSupportedError):
    """The statement needs a server session of its own, and PgBouncer gives none; not sent."""


class PoolTimeout(RouterError, utils.OperationalError):
    """One node's connections are all in use. Busy is not broken: nothing is blacklisted."""


class TooManyRequests(RouterError, utils.OperationalError):
    """``max_waiting`` others wait for one node's connections; nothing is blacklisted."""


translated: Callable[[RouterError], RouterError] = partial(counterpart, classes=(
    PrimaryUnavailable, NoReplicaAvailable, ReplicaWriteRefused,
    CommitUnknown, TransactionLost, SessionRefused,
))  # fmt: skip
"""The Django counterpart of one of the core's errors; other errors as they are."""
