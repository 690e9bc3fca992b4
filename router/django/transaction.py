"""Patches the wrapper of a connection: transactions declared read-only may run on a replica."""

from collections.abc import Callable
from contextlib import ContextDecorator
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_BEFORE = "_router_read_only_before"
"""Attribute of Django's wrapper: what `read_only` was outside each block that is open."""


class read_only(ContextDecorator):  # noqa: N801 - stands beside atomic()
    """``atomic()`` for reads alone: one transaction, READ ONLY, on one replica.

    A ``with`` block or a decorator. A write inside fails as PostgreSQL fails it. Inside another
    ``atomic()`` it is a part of that, on the primary. As a decorator of a view it takes the place
    of ``ATOMIC_REQUESTS`` there.
    """

    def __init__(self, using: str | None = None) -> None:
        """Begin transactions on the alias `using`; None is the default one."""
        self.using: str | None = using

    def _recreate_cm(self) -> "read_only":
        return type(self)(self.using)

    def __call__(self, func: Callable[P, R]) -> Callable[P, R]:  # type: ignore[override]
        """`func`, each call in a transaction of its own."""
        from django.db import DEFAULT_DB_ALIAS

        wrapped: Any = super().__call__(func)
        named = {self.using or DEFAULT_DB_ALIAS}
        wrapped._non_atomic_requests = getattr(func, "_non_atomic_requests", set()) | named
        return wrapped  # type: ignore[no-any-return]

    def __enter__(self) -> None:
        from django.db import transaction

        connection: Any = transaction.get_connection(self.using)
        before = getattr(connection, "read_only", False)
        connection.read_only = not connection.in_atomic_block or before
        block: Any = transaction.atomic(self.using)
        try:
            block.__enter__()
        except BaseException:
            connection.read_only = before
            raise
        # Kept on the thread's connection, because several threads may enter one read_only() at
        # once, as one atomic().
        connection.__dict__.setdefault(_BEFORE, []).append(before)

    def __exit__(self, *exc: object) -> None:
        from django.db import transaction

        connection: Any = transaction.get_connection(self.using)
        block: Any = transaction.atomic(self.using)
        try:
            block.__exit__(*exc)
        finally:
            before = connection.__dict__.get(_BEFORE)
            connection.read_only = before.pop() if before else False
