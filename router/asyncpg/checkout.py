"""One checkout of asyncpg's connections."""

from typing import Any

import asyncpg

from router.asyncpg.node_connection import AsyncpgConnection
from router.asyncpg.source import AsyncpgSource
from router.checkout.checkout import Checkout
from router.checkout.route import Route
from router.model import Node


class AsyncpgCheckout(Checkout[AsyncpgConnection]):
    """A checkout of asyncpg connections."""

    @property
    def gone(self) -> bool:
        """Whether the server session ended to which this checkout had bound itself."""
        held = self.primary
        return self.bound and (held is None or held.broken or held.gone)

    def route(self, sql: str | None, **how: Any) -> Route[AsyncpgConnection]:
        """As `Checkout.route`; refuses to go on in another session than it was bound to."""
        if self.open and self.gone:
            raise asyncpg.InterfaceError(
                "the server session that this connection listened, prepared or locked in has "
                "ended: acquire another one"
            )
        return super().route(sql, **how)

    def closed_error(self) -> Exception:
        """What a statement gets after the connection was given back, as from asyncpg."""
        said = "this connection was given back to the pool: acquire another one"
        return asyncpg.InterfaceError(said)  # type: ignore[no-any-return]

    def session(self, node: Node) -> AsyncpgConnection | None:
        """A connection to `node`, the primary, by ``session_url``."""
        nodes: AsyncpgSource = self.pool  # type: ignore[assignment]
        return nodes.session(node)
