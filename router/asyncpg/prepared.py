"""An asyncpg prepared statement, for whose writes the router pins as for any other."""

# ruff: noqa: D102 - asyncpg documents the methods

from collections.abc import Coroutine
from typing import Any

import asyncpg

from router.asyncpg.checkout import AsyncpgCheckout
from router.asyncpg.node_connection import DRIVER_ERRORS, AsyncpgConnection
from router.checkout.route import Asked, Route
from router.greenlets import greenlet_spawn
from router.rules.context import current_context
from router.rules.decide import READ, SESSION
from router.rules.decision import Decision, Reason
from router.rules.journal import streamed
from router.sql.intent import Intent, Kind


class PreparedStatement:
    """What `router.asyncpg.Connection.prepare` gives: asyncpg's methods, and its errors.

    It stays in the server session it was prepared in.
    """

    __slots__ = ("_held", "_intent", "_pins", "_query", "_real", "_routed")

    def __init__(
        self, routed: AsyncpgCheckout, held: AsyncpgConnection, query: str, real: Any
    ) -> None:
        """Wrap asyncpg's `real` statement of the text `query`, prepared through `routed` on
        `held`."""
        self._routed: AsyncpgCheckout = routed
        self._held: AsyncpgConnection = held
        self._query: str = query
        self._real: Any = real
        self._intent: Intent = routed.router.classifier(query)
        self._pins: bool = self._intent.writes

    def __repr__(self) -> str:
        return f"<router.asyncpg.PreparedStatement {self._query!r} on {self._held.node.name}>"

    def get_name(self) -> str:
        return str(self._real.get_name())

    def get_query(self) -> str:
        return str(self._real.get_query())

    def get_statusmsg(self) -> Any:
        return self._real.get_statusmsg()

    def get_parameters(self) -> Any:
        return self._real.get_parameters()

    def get_attributes(self) -> Any:
        return self._real.get_attributes()

    async def fetch(self, *args: Any, **kw: Any) -> Any:
        return await self._ran(self._usable().fetch(*args, **kw), (args,))

    async def fetchrow(self, *args: Any, **kw: Any) -> Any:
        return await self._ran(self._usable().fetchrow(*args, **kw), (args,))

    async def fetchval(self, *args: Any, **kw: Any) -> Any:
        return await self._ran(self._usable().fetchval(*args, **kw), (args,))

    async def fetchmany(self, args: Any, **kw: Any) -> Any:
        sets = self._routed.repeatable(self._query, args)
        return await self._ran(self._usable().fetchmany(sets, **kw), sets)

    async def executemany(self, args: Any, **kw: Any) -> None:
        sets = self._routed.repeatable(self._query, args)
        await self._ran(self._usable().executemany(sets, **kw), sets)

    async def explain(self, *args: Any, analyze: bool = False) -> Any:
        """As asyncpg's: its plan; with `analyze` it runs, in a transaction that asyncpg rolls
        back."""
        return await self._ran(self._usable().explain(*args, analyze=analyze), ())

    def cursor(self, *args: Any, **kw: Any) -> Any:
        made = self._usable().cursor(*args, **kw)
        if self._held is self._routed.replica:
            self._routed.must_not_act(streamed(self._intent))
        self._route().begin()
        return made

    def _usable(self) -> Any:
        held, routed = self._held, self._routed
        if held is routed.replica and not held.in_transaction:
            raise asyncpg.InterfaceError(
                "this statement was prepared in a read-only transaction on a replica, which has "
                "ended: prepare it again, or outside of that transaction"
            )
        if held is routed.primary:
            routed.must_not_go_on(held)
        if held is routed.replica:
            routed.must_follow(held.node)
        return self._real

    def _route(self) -> Route[AsyncpgConnection]:
        held = self._held
        decision = Decision((held.node,), Reason.BOUND, held is self._routed.primary, self._pins)
        context = current_context()
        return Route(self._routed, self._query, self._intent, held, decision, context, False)

    async def _ran(self, execution: Coroutine[Any, Any, Any], sets: Any) -> Any:
        """What `execution` gives, which runs it for each of the `sets` of arguments."""
        route = self._route()
        route.begin()
        try:
            result = await execution
        except DRIVER_ERRORS as error:
            self._held.report_failure(error)
            if self._pins and not self._held.in_transaction:
                self._routed.written()
            raise
        except BaseException:
            if self._pins:
                # Nobody knows how it ends at the server: pin again when the connection is back.
                self._routed.writing(route.context, self._intent)
            raise
        kind = self._intent.kind
        if kind is READ:
            route.done()
        elif kind is SESSION:
            # On the primary every statement of the checkout is bound to this session. On a replica
            # others follow elsewhere, when the read-only transaction has ended.
            if self._held is self._routed.replica and sets:
                route.asked = Asked(many=True)
                await greenlet_spawn(route.done, sets)
        elif kind is Kind.TRANSACTION or (
            self._pins and self._routed.router.pinning.asks_position
        ):
            await greenlet_spawn(route.done)
        elif self._pins and not self._held.in_transaction:
            self._routed.acknowledge()
            self._routed.written()
            self._routed.must_count(self._held)
        return result
