"""A prepared statement of asyncpg's, for whose writes the router pins as for any other."""

from collections.abc import Coroutine
from typing import Any

import asyncpg

from router.asyncpg.checkout import AsyncpgCheckout
from router.asyncpg.node_connection import DRIVER_ERRORS, AsyncpgConnection
from router.checkout.route import Route
from router.greenlets import greenlet_spawn
from router.rules.context import current_context
from router.rules.decide import READ
from router.rules.decision import Decision, Reason
from router.sql.intent import Intent, Kind


class PreparedStatement:
    """What `router.asyncpg.Connection.prepare` gives: asyncpg's methods, and its errors.

    It stays in the server session it was prepared in.
    """

    __slots__ = ("_held", "_intent", "_pins", "_query", "_real", "_routed")

    def __init__(
        self, routed: AsyncpgCheckout, held: AsyncpgConnection, query: str, real: Any
    ) -> None:
        """Wrap.

        Args:
            routed: the checkout it was prepared through.
            held: where it is prepared.
            query: its text.
            real: asyncpg's own.
        """
        self._routed: AsyncpgCheckout = routed
        self._held: AsyncpgConnection = held
        self._query: str = query
        self._real: Any = real
        self._intent: Intent = routed.router.classifier(query)
        self._pins: bool = self._intent.writes

    def __repr__(self) -> str:
        return f"<router.asyncpg.PreparedStatement {self._query!r} on {self._held.node.name}>"

    # -- what is asked of it -------------------------------------------------------------------

    def get_name(self) -> str:
        """Its name in its session."""
        return str(self._real.get_name())

    def get_query(self) -> str:
        """Its text."""
        return str(self._real.get_query())

    def get_statusmsg(self) -> Any:
        """The status of its last execution, None before the first."""
        return self._real.get_statusmsg()

    def get_parameters(self) -> Any:
        """The types of its parameters."""
        return self._real.get_parameters()

    def get_attributes(self) -> Any:
        """The columns of its rows."""
        return self._real.get_attributes()

    # -- its execution -------------------------------------------------------------------------

    async def fetch(self, *args: Any, **kw: Any) -> Any:
        """Its rows."""
        return await self._ran(self._usable().fetch(*args, **kw))

    async def fetchrow(self, *args: Any, **kw: Any) -> Any:
        """Its first row, None without one."""
        return await self._ran(self._usable().fetchrow(*args, **kw))

    async def fetchval(self, *args: Any, **kw: Any) -> Any:
        """One value of its first row, None without a row."""
        return await self._ran(self._usable().fetchval(*args, **kw))

    async def fetchmany(self, args: Any, **kw: Any) -> Any:
        """Its rows, run once for each set of arguments."""
        return await self._ran(self._usable().fetchmany(args, **kw))

    async def executemany(self, args: Any, **kw: Any) -> None:
        """Run it once for each set of arguments, all or none of them."""
        await self._ran(self._usable().executemany(args, **kw))

    async def explain(self, *args: Any, analyze: bool = False) -> Any:
        """Its plan; with `analyze` it runs, in a transaction that asyncpg rolls back."""
        return await self._ran(self._usable().explain(*args, analyze=analyze))

    def cursor(self, *args: Any, **kw: Any) -> Any:
        """A cursor over its rows; as asyncpg's, it needs a transaction."""
        made = self._usable().cursor(*args, **kw)
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

    async def _ran(self, execution: Coroutine[Any, Any, Any]) -> Any:
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
                # Nobody knows yet how it ends at the server: again when the connection is back.
                self._routed.writing(route.context, self._intent)
            raise
        kind = self._intent.kind
        # What is set stays in this session, from which no statement of the checkout leaves.
        if kind is READ:
            route.done()
        elif kind is Kind.TRANSACTION or (
            self._pins and self._routed.router.pinning.asks_position
        ):
            await greenlet_spawn(route.done)
        elif self._pins and not self._held.in_transaction:
            self._routed.acknowledge()
            self._routed.written()
            self._routed.must_count(self._held)
        return result
