"""Errors that are pg-router's and asyncpg's at once: what catches asyncpg's goes on working."""

from collections.abc import Callable
from functools import partial

import asyncpg

from router import errors
from router.errors import RouterError, counterpart


class PrimaryUnavailable(errors.PrimaryUnavailable, asyncpg.PostgresConnectionError):
    """The statement needs the primary, and there is none now."""


class NoReplicaAvailable(errors.NoReplicaAvailable, asyncpg.PostgresConnectionError):
    """No replica is eligible and ``fallback="error"`` forbids the primary."""


class CommitUnknown(errors.CommitUnknown, asyncpg.PostgresConnectionError):
    """The connection broke during COMMIT, or during a write that is its own transaction: it may or
    may not have been committed."""


class TransactionLost(errors.TransactionLost, asyncpg.PostgresConnectionError):
    """The connection broke in the middle of a transaction; nothing more of it is run."""


class ReplicaWriteRefused(errors.ReplicaWriteRefused, asyncpg.InterfaceError):
    """A write was asked onto a replica; it was refused before anything was sent."""


class SessionRefused(errors.SessionRefused, asyncpg.UnsupportedClientFeatureError):
    """The statement needs a server session of its own, and PgBouncer gives none; not sent."""


class PoolTimeout(RouterError, TimeoutError):
    """One node's connections are all in use. Busy is not broken: nothing is blacklisted."""


class PoolClosed(RouterError, asyncpg.InterfaceError):
    """The pool was closed."""


translated: Callable[[RouterError], RouterError] = partial(counterpart, classes=(
    PrimaryUnavailable, NoReplicaAvailable, CommitUnknown,
    TransactionLost, ReplicaWriteRefused, SessionRefused,
))  # fmt: skip
"""The asyncpg counterpart of one of the core's errors; other errors as they are."""
