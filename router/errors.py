"""Every error pg-router raises, as one tree under `RouterError`.

A message is one line: the node or key it is about, the reason, and the cure. It never holds a
password; whatever is interpolated here has been masked by `router.messages.masked`.
"""

from collections.abc import Iterable


class RouterError(Exception):
    """Base of every error raised by pg-router."""


class ConfigError(RouterError, ValueError):
    """An option is unknown, malformed or contradicts another one. Names the key and the cure."""


class NodeUnavailable(RouterError):
    """No server that may run the statement can be reached."""


class PrimaryUnavailable(NodeUnavailable):
    """The statement needs the primary, and there is none now. Says since when."""


class NoReplicaAvailable(NodeUnavailable):
    """No replica is eligible and ``fallback="error"`` forbids the primary."""


class ReplicaWriteRefused(RouterError):
    """A write was asked onto a replica, or would act there in silence in a read-only transaction;
    it was refused before anything was sent."""


class SessionRefused(RouterError):
    """The statement needs a server session of its own, and PgBouncer gives none; not sent."""


class CommitUnknown(RouterError):
    """The connection broke during COMMIT, or during a write outside a transaction, or another
    server became the primary meanwhile: it may or may not have been committed."""


class TransactionLost(RouterError):
    """The connection broke in the middle of a transaction, or with a session something depends on,
    or its server is the primary no more, or a read-only transaction's replica does not follow the
    primary any more, or it belongs to the process this one was forked from: nothing more is sent
    as if it were still whole."""


class ListenerFailed(RouterError):
    """The connection that listens was lost, and ``exit_on_failure`` asks for the end."""


def counterpart(error: RouterError, classes: Iterable[type[RouterError]]) -> RouterError:
    """`error` as one of an adapter's `classes`, by their first base; others as they are."""
    for cls in classes:
        if isinstance(error, cls.__bases__[0]) and not isinstance(error, cls):
            return cls(str(error))
    return error
