"""A PgBouncer in front of a server: it pools by transaction, and lends a server connection to one
client after another.

A client's own connection outlasts that of the server it had, but not in a transaction.

Source: https://www.pgbouncer.org/config.html, https://www.pgbouncer.org/features.html
"""

from collections import deque
from collections.abc import Mapping
from math import inf
from typing import TYPE_CHECKING, Any

from tests.simulation.answers import Blocked, Refused, Rows

if TYPE_CHECKING:
    from tests.simulation.postgres import Server
    from tests.simulation.session import Session

QUERY_WAIT_TIMEOUT = 15.0
SERVER_LOGIN_RETRY = 1.0
"""Seconds; as ``pg-router pgbouncer-ini`` writes both."""
VIOLATION = "08P01"
"""SQLSTATE protocol_violation: with it PgBouncer ends a client's connection."""


class Bouncer:
    """The PgBouncer of `server`, with `size` connections to it at most.

    Attributes:
        paused: it lends none.
        clients: those connected.
        queue: those that wait for a connection, first come first.
        idle: connections that nobody has.
    """

    def __init__(self, server: "Server", size: int) -> None:
        self.server = server
        self.size = size
        self.paused = False
        self.clients: list[Client] = []
        self.queue: deque[Client] = deque()
        self.idle: list[Session] = []
        self._failed = -inf  # when the server last refused a connection (seconds)
        self._failing = False

    def login(self, now: float, *, user: str = "app") -> "Client":
        """A client's connection: the server is not asked."""
        client = Client(self)
        self.clients.append(client)
        return client

    def lend(self, client: "Client", now: float) -> "Session":
        """A connection of the server for `client`. Raises Refused: it is turned away; Blocked: it
        has to wait."""
        if client.since is None:
            self._must_have_hope(client, now)
            client.since = now
            self.queue.append(client)
        if now - client.since >= QUERY_WAIT_TIMEOUT:
            raise self._turn_away(client, "query_wait_timeout", now)
        lent = self._free(now) if self.first(client) else None
        if lent is None:
            raise Blocked(Turn(client))
        self.leave_queue(client)
        return lent

    def first(self, client: "Client") -> bool:
        """Whether the turn of `client` has come."""
        return not self.paused and self.queue[0] is client

    def leave_queue(self, client: "Client") -> None:
        """`client` waits no more."""
        if client.since is not None:
            client.since = None
            self.queue.remove(client)

    def has_free(self, now: float) -> bool:
        """Whether there is a connection to lend, or one may be opened."""
        return any(session.open for session in self.idle) or self._may_open(now)

    def take_back(self, session: "Session") -> None:
        """`session` is free again, whatever was set in it."""
        if session.open:
            self.idle.append(session)

    def restart(self, now: float) -> None:
        """It ends with all its connections, and is there again at once."""
        for client in list(self.clients):
            client.close(now)
        for session in self.idle:
            session.close(now)
        self.idle = []
        self._failed, self._failing = -inf, False

    def _lent(self, now: float) -> int:
        for client in list(self.clients):
            if not client.open:
                client.close(now)
        return sum(client.lent is not None for client in self.clients)

    def _may_open(self, now: float) -> bool:
        if self.server.frozen or now - self._failed < SERVER_LOGIN_RETRY:
            return False
        return len(self.idle) + self._lent(now) < self.size

    def _free(self, now: float) -> "Session | None":
        self.idle = [session for session in self.idle if session.open]
        if self.idle:
            return self.idle.pop()
        if not self._may_open(now):
            return None
        try:
            session = self.server.login(now)
        except Refused:
            self._failed, self._failing = now, True
            return None
        self._failing = False
        return session

    def _must_have_hope(self, client: "Client", now: float) -> None:
        """Turn away who comes while there is no connection, the last attempt to open one having
        failed; and try again, for the next."""
        if not self._failing or any(s.open for s in self.idle) or self._lent(now):
            return
        if session := self._free(now):
            self.idle.append(session)
        why = "server login has been failing, try again later (server_login_retry)"
        raise self._turn_away(client, why, now)

    def _turn_away(self, client: "Client", text: str, now: float) -> Refused:
        client.close(now)
        return Refused(VIOLATION, text, ends=True)


class Turn:
    """What a client of a PgBouncer waits for: that it is its turn, or that it is turned away."""

    step = 0.005
    """Seconds until it shall look again."""

    def __init__(self, client: "Client") -> None:
        self._client = client

    @property
    def over(self) -> bool:
        """Whether it shall ask again."""
        client, bouncer = self._client, self._client.bouncer
        now = client.server.world.now
        if client.since is None or now - client.since >= QUERY_WAIT_TIMEOUT:
            return True
        return bouncer.first(client) and bouncer.has_free(now)


class Thaw:
    """What a statement waits for whose `server` is frozen."""

    step = 0.02
    """Seconds until it shall look again."""

    def __init__(self, server: "Server") -> None:
        self._server = server

    @property
    def over(self) -> bool:
        """Whether it goes on."""
        return not self._server.frozen


class Client:
    """A client's connection to a PgBouncer; what a `Session` is to one without.

    Attributes:
        lent: the server's session that it has, in a transaction.
        since: since when it waits for one (seconds).
    """

    def __init__(self, bouncer: Bouncer) -> None:
        self.bouncer = bouncer
        self.server = bouncer.server
        self.lent: Session | None = None
        self.since: float | None = None
        self._open = True
        self._last: Session | None = None

    @property
    def open(self) -> bool:
        """Whether it is connected: not if it had a session that has ended."""
        return self._open and (self.lent is None or self.lent.open)

    @property
    def why(self) -> str:
        """How it ended, as of a session: it is told where the server's connection is gone, by the
        server itself or else by PgBouncer."""
        if self.lent is None or self.lent.open:
            return ""
        return self.lent.why if len(self.lent.why) == 5 else VIOLATION

    @property
    def in_transaction(self) -> bool:
        """As of a session."""
        return self.lent is not None and self.lent.in_transaction

    @property
    def failed(self) -> bool:
        """As of a session."""
        return self.lent is not None and self.lent.failed

    @property
    def settings(self) -> Mapping[str, str]:
        """What was set in the session that ran its last statement."""
        return {} if self._last is None else self._last.settings

    def execute(self, sql: str, params: Any, now: float, op: str = "") -> Rows:
        """Run one statement, on a session of its own or on one of anybody's."""
        if not self.open:
            raise Refused(VIOLATION, "server conn crashed?", ends=True)
        if self.lent is None:
            self.lent = self.bouncer.lend(self, now)
        if self.server.frozen:
            raise Blocked(Thaw(self.server))
        lent = self._last = self.lent
        try:
            rows = lent.execute(sql, params, now, op)
        except Refused as refused:
            if refused.ends:
                self.close(now)
            else:
                self._give_back(lent)
            raise
        self._give_back(lent)
        return rows

    def _give_back(self, lent: "Session") -> None:
        if not lent.in_transaction:
            self.lent = None
            self.bouncer.take_back(lent)

    def close(self, now: float) -> None:
        """The client went away, or was sent away. A session in a transaction goes with it."""
        if not self._open:
            return
        self._open = False
        self.bouncer.leave_queue(self)
        lent, self.lent = self.lent, None
        if lent is not None:
            lent.close(now)
        self.bouncer.clients.remove(self)
