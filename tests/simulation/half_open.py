"""Connections whose other side is gone and has not said so: packets vanish.

Either side finds out by itself: the client's kernel after as long as libpq was told, the server's
after as long as its settings say. If the host is there again, and knows nothing of the connection,
it answers what it is sent with a reset.

Source: https://www.rfc-editor.org/rfc/rfc9293#section-3.5.1
"""

from math import inf
from typing import TYPE_CHECKING

from router.config.config import KEEPALIVES

if TYPE_CHECKING:
    from tests.simulation.driver import Line, Network
    from tests.simulation.postgres import Server

USER_TIMEOUT = KEEPALIVES["tcp_user_timeout"] / 1000
"""Seconds after which a client's kernel gives up what nobody acknowledges."""
IDLE, INTERVAL = float(KEEPALIVES["keepalives_idle"]), float(KEEPALIVES["keepalives_interval"])
FIRST_RETRY = 0.2
"""Seconds until a kernel sends again what was not acknowledged; doubled each time."""
SERVER_TIMEOUT = 25.0
"""Seconds after which a server ends a session whose client is gone: its ``tcp_user_timeout``, and
keepalives of that length."""


class HalfOpen:
    """What became of one connection.

    Attributes:
        since: when packets began to vanish.
        ends: when the client's kernel ends it, as far as it is known.
    """

    __slots__ = ("_back", "_sent", "ends", "since")

    def __init__(self, since: float, sent: float) -> None:
        self.since = since
        self._sent = max(sent, since)
        self._back = inf
        self.ends = self._sent + USER_TIMEOUT

    def send(self, now: float) -> None:
        """The client sends something at `now`, unless its kernel knows by then."""
        if now >= self.ends:
            return
        self._sent = now
        self.ends = now + (USER_TIMEOUT if self._back > now else 0.0005)

    def answered(self, back: float) -> None:
        """From `back` on its host is there, and resets what it does not know."""
        self._back = back
        retries = self._retries() if self._sent > self.since else self._keepalives()
        self.ends = next((when for when in retries if when >= back), self.ends)

    def _retries(self) -> list[float]:
        return [self._sent + FIRST_RETRY * (2**n - 1) for n in range(1, 9)]

    def _keepalives(self) -> list[float]:
        return [self.since + IDLE + INTERVAL * n for n in range(3)]


def cut_off(network: "Network", server: "Server") -> "list[Line]":
    """Every connection to `server` is half open from now on; the server ends its sessions."""
    scheduler, world = network.scheduler, network.world
    now = scheduler.now
    lines = [line for line in network.lines[server.port].values() if line.half_open is None]
    for line in lines:
        half = line.half_open = HalfOpen(now, line.sent)
        scheduler.at(half.ends, line.stir)
        session = line.session
        if session is not None and session.open:
            network.left_behind.append(session)
            world.at(now + SERVER_TIMEOUT, session.close)
    return lines


def reset(network: "Network", lines: "list[Line]") -> None:
    """The host of `lines` is there again, and knows nothing of them."""
    scheduler = network.scheduler
    for line in lines:
        half = line.half_open
        if half is not None:
            half.answered(scheduler.now)
            scheduler.at(half.ends, line.stir)


def hear_again(network: "Network", server: "Server") -> None:
    """Packets to and from `server` arrive again: among them that clients have closed."""
    link, world = network.links[server.port], network.world
    now = network.scheduler.now
    world.advance(now)
    link.deaf = False
    closed, link.closed = link.closed, []
    for session in closed:
        session.close(now)
    network.stir(server)
