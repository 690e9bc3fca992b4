"""Errors that are pg-router's and psycopg's at once: what catches psycopg's goes on working."""

from collections.abc import Callable
from functools import partial

import psycopg
import psycopg_pool

from router import errors
from router.errors import RouterError, counterpart


class PrimaryUnavailable(errors.PrimaryUnavailable, psycopg.OperationalError):
    """The statement needs the primary, and there is none now."""


class NoReplicaAvailable(errors.NoReplicaAvailable, psycopg.OperationalError):
    """No replica is eligible and ``fallback="error"`` forbids the primary."""


class ReplicaWriteRefused(errors.ReplicaWriteRefused, psycopg.ProgrammingError):
    """A write was asked onto a replica; it was refused before anything was sent."""


class SessionRefused(errors.SessionRefused, psycopg.NotSupportedError):
    """The statement needs a server session of its own, and PgBouncer gives none; not sent."""


class CommitUnknown(errors.CommitUnknown, psycopg.OperationalError):
    """The connection broke during COMMIT, or during a write that is its own transaction: it may or
    may not have been committed."""


class TransactionLost(errors.TransactionLost, psycopg.OperationalError):
    """The connection broke in the middle of a transaction; nothing more of it is run."""


class PoolTimeout(RouterError, psycopg_pool.PoolTimeout):
    """One node's connections are all in use. Busy is not broken: nothing is blacklisted."""


class TooManyRequests(RouterError, psycopg_pool.TooManyRequests):
    """``max_waiting`` others wait for one node's connections; nothing is blacklisted."""


class PoolClosed(RouterError, psycopg_pool.PoolClosed):
    """The pool was closed, or not opened yet."""


translated: Callable[[RouterError], RouterError] = partial(counterpart, classes=(
    PrimaryUnavailable, NoReplicaAvailable, ReplicaWriteRefused,
    SessionRefused, CommitUnknown, TransactionLost,
))  # fmt: skip
"""The psycopg counterpart of one of the core's errors; other errors as they are."""
