"""Where connections come from, as far as that is the same for every driver.

A `Connector` makes connections, once for an engine, a pool or a database alias. A `Source` gives
them to one checkout; an engine's is both.
"""

from abc import ABC
from collections.abc import Callable, Hashable, Iterable
from contextlib import nullcontext
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar

from router import registry
from router.config.config import Config
from router.config.server import Server
from router.connect.driver import Driver, severity_of
from router.connect.first_probe import first_report
from router.connect.hangup import interrupt
from router.errors import NoReplicaAvailable
from router.model import Node, Report
from router.rules.blacklist import is_full, refuses_login
from router.rules.pgbouncer import check_search_path, not_the_primary, stranger

if TYPE_CHECKING:
    from router.checkout.node_connection import NodeConnection
    from router.cluster.monitor import Monitor
    from router.cluster.router import Router

FRESH = 1.0
"""Seconds for which a connection that a pool opened counts as opened for whoever takes it."""

ENDS = ("57P01", "57P02")
"""SQLSTATEs that end a connection, even where the driver has yet to notice its closed socket:
admin_shutdown and crash_shutdown; and so do all of class 08.

Source: https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

T = TypeVar("T")


class Connector:
    """The servers of one Router, as one driver connects to them.

    Attributes:
        config: which they are.
        router: decides.
        driver: what differs between drivers.
        renews: its users give functions that make credentials anew for each connection.
        opened: when connections that nobody has taken yet were opened (monotonic seconds), by
            what tells them apart; connections older than `FRESH` are forgotten.
        last_opened: when the last connection was opened (monotonic seconds).
    """

    config: Config
    router: "Router"
    driver: Driver
    renews: bool = False
    opened: dict[Hashable, float]
    last_opened: float = -inf

    def arguments(self, server: Server) -> dict[str, Any]:
        """What the driver needs to connect to `server`. Raises ConfigError: what is said of it
        is malformed, or refused by a PgBouncer."""
        raise NotImplementedError

    def verify(self, server: Server) -> None:
        """Raise ConfigError where `arguments` would, for `server`; call no function of the
        user's."""
        self.arguments(server)

    def join(self, router: "Router", monitor: "Monitor") -> None:
        """Connect to the servers of `router` from now on, and let `monitor` probe them. Raises
        ConfigError: as `arguments`, now and not at the first statement."""
        self.router, self.opened = router, {}
        pools: Any = self  # an adapter's connector is its pools as well
        for server in router.servers.values():
            self.verify(server)
        router.use_monitor(monitor)
        router.membership.attach(pools)
        router.gate.always(self.unused)
        registry.renew(pools)

    def under_way(self, node: Node) -> Iterable[Any]:
        """The driver's connections to `node` that are in use."""
        return ()

    def unused(self, node: Node) -> None:
        """Nothing is sent to `node` any more. What waits for its answer, though it is silent, is
        given up: a read alone at once, as it runs elsewhere; whatever else would fail by that,
        when a second probe has got no answer.

        Not so behind a PgBouncer: when its pool is full a probe waits in its queue, as silent as
        if the server were gone, and what keeps the pool full is at work."""
        known = self.router.snapshot.reports.get(node.name)
        if known is None or known.silent_since is None or not self.config.give_up_silent:
            return
        server = self.router.servers.get(node)
        if server is None or self.config.pooling(server) != "off":
            return
        driver = self.driver
        for connection in self.under_way(node):
            if known.failures >= 2 or driver.alone(connection):
                interrupt(partial(driver.fileno, connection), partial(driver.runs, connection))

    def server(self, node: Node) -> Server:
        """The server behind `node`. Raises NoReplicaAvailable: it has left the cluster
        meanwhile."""
        server = self.router.servers.get(node)
        if server is None:
            raise NoReplicaAvailable(f"{node} has left the cluster: try again")
        return server

    def open_to(
        self,
        node: Node,
        dial: Callable[[], T],
        admit: Callable[[T], object],
        pause: Callable[[float], None] | None = None,
    ) -> T:
        """A new connection to `node`, closed again unless it is admitted.

        Args:
            node: to connect to.
            dial: opens the connection.
            admit: asks its server what it is, and prepares it.
            pause: waits as many seconds; on an event loop without blocking it.

        Raises:
            NoReplicaAvailable: the node keeps another attempt waiting.
            Exception: it cannot be reached, or is not admitted.
        """
        alone = len(self.router.servers) < 2
        with nullcontext() if alone else self.router.health.connecting(node, pause):
            connection = self._dialled(dial)
            try:
                admit(connection)
            except BaseException:
                self.driver.abort(connection)
                raise
            return connection

    def _dialled(self, dial: Callable[[], T]) -> T:
        """What `dial` opens, tried twice where its credentials are made anew: they may have been
        replaced while they were on their way."""
        try:
            return dial()
        except self.driver.errors as error:
            state, text = self.driver.sqlstate(error), str(error)
            if not self.renews or is_full(state, text) or not refuses_login(state, text):
                raise
            return dial()

    def report(self, node: Node, connection: Any) -> Report | None:
        """As `router.connect.first_probe.first_report`."""
        return first_report(node, connection, self.driver, self.router.clock)

    def probe_over(self, node: Node, connection: Any) -> None:
        """Probe `node` over `connection`, and tell the Router. Raises as `report`."""
        found = self.report(node, connection)
        if found is not None:
            self.router.observe(found)

    def check_schemas(self, node: Node, connection: Any) -> None:
        """Refuse the server of `node` if `connection` began in other schemas than ``schema``
        asks for, where the schemas could not be said when it was opened. Raises ConfigError: it
        did."""
        path, server = self.config.search_path, self.router.servers.get(node)
        if server is not None and self.config.begins_in(server) != path:
            (found,) = self.driver.ask(connection, "SELECT current_setting('search_path')")
            check_search_path(path, found, str(node))

    def first_of_sessions(
        self,
        node: Node,
        ways: Iterable[Callable[[], T]],
        admit: Callable[[T], str],
        drop: Callable[[T], object] | None = None,
    ) -> T | None:
        """A new connection to `node`, the primary, by ``session_url``; None without one.

        Args:
            node: the primary.
            ways: each opens a connection to one of the hosts.
            admit: says why a connection does not lead to the primary, empty where it does; see
                `why_not_primary`.
            drop: closes a connection that is refused; by default as the driver does.

        Raises:
            SessionRefused: none of the hosts is the primary.
        """
        driver, problem, cause = self.driver, "", None
        for dial in ways:
            try:
                connection = self._dialled(dial)
            except driver.errors as error:
                problem, cause = driver.reason(error), error
                continue
            try:
                problem = admit(connection)
            except BaseException:
                (drop or driver.abort)(connection)
                raise
            if not problem:
                return connection
            (drop or driver.close)(connection)
        if problem:
            raise not_the_primary(problem, node) from cause
        return None

    def why_not_primary(self, node: Node, connection: Any) -> str:
        """Why `connection` does not lead to `node`, the primary; empty where it does."""
        return stranger(self.report(node, connection), node, self.router.snapshot)

    def note_opened(self, key: Hashable) -> None:
        """Note that a connection was opened that nobody has taken yet. Its `key` tells it from
        the others; an earlier connection of the same key is closed by now."""
        self.last_opened = self.opened[key] = self.router.clock()

    def is_fresh(self, key: Hashable) -> bool:
        """Whether the connection `key`, which is taken now, was opened just now for its taker."""
        since = self.router.clock() - FRESH
        fresh = self.opened.pop(key, -inf) > since
        if self.last_opened <= since:
            # No idle connection is fresh any more. One that another thread notes in this moment
            # is taken for old, which costs a retry and never a healthy node.
            self.opened.clear()
        return fresh


class Source(ABC):
    """What gives one checkout its connections: see `router.checkout.checkout.ConnectionSource`.

    Attributes:
        router: decides.
        driver: what differs between drivers.
    """

    __slots__ = ()

    router: "Router"
    driver: Driver

    @property
    def driver_errors(self) -> tuple[type[Exception], ...]:
        """What the driver raises because of a server or of the way to it."""
        return self.driver.errors

    def sqlstate(self, error: BaseException) -> str:
        """The five-character code of an error, empty when the server sent none."""
        return self.driver.sqlstate(error)

    def reason(self, error: BaseException) -> str:
        """The error as one line for people: SQLSTATE and message, without secrets."""
        return self.driver.reason(error)

    def report_failure(self, held: "NodeConnection", error: BaseException, *, gone: bool) -> bool:
        """Tell the Router of a server that is gone, or the way to it, if `error` says so.

        Args:
            held: the connection that failed; where it has ended it is marked as broken.
            error: what the driver raised.
            gone: the driver knows that the connection has ended.

        Returns:
            whether `error` says so.
        """
        state = self.driver.sqlstate(error)
        # So says Pgpool-II that its server has gone. It closes the connection next.
        gone = gone or (state[:2] == "XX" and severity_of(error) == "FATAL")
        if not gone and not self.router.health.is_disconnect(state):
            return False
        held.broken = held.broken or gone or state[:2] == "08" or state in ENDS
        held.distrusted = True
        self.router.health.ended(held.node, state, self.driver.reason(error), fresh=held.fresh)
        return True
