"""What is done to the servers while clients work, drawn from the seed."""

import math
import random
from typing import TYPE_CHECKING, Any

from tests.simulation.half_open import USER_TIMEOUT, cut_off, hear_again, reset
from tests.simulation.history import Fault

if TYPE_CHECKING:
    from tests.simulation.bouncer import Bouncer
    from tests.simulation.driver import Line
    from tests.simulation.postgres import Server
    from tests.simulation.simulation import Simulation


class Saboteur:
    """Does one fault after another, each for a while, and mends it."""

    KINDS = (
        "kill replica", "freeze replica", "deaf replica", "refuse replica", "slow replica",
        "pause replay", "lag", "conflicts", "terminate", "idle time-out",
        "kill primary", "freeze primary", "deaf primary", "restart primary",
        "promote", "switchover", "split brain", "full", "slow logins", "logins refused",
        "bounce replica", "bounce primary", "restart all", "there and back", "cut off", "stranded",
        "lost replica", "lost primary", "partition", "firewall",
        "bouncer restart", "bouncer pause", "far primary",
    )  # fmt: skip

    def __init__(self, simulation: "Simulation", rand: random.Random) -> None:
        self.simulation = simulation
        self.world = simulation.world
        self.network = simulation.network
        self.rand = rand
        self._until = math.inf

    def enough(self) -> bool:
        """Whether the clients need not go on to the last operation: the servers are mended, and
        it is late."""
        return self.simulation.scheduler.now > self._until

    def run(self) -> None:
        """Do every fault of the setting."""
        scheduler = self.simulation.scheduler
        for kind in self.simulation.setting.faults:
            scheduler.sleep(0.1 + self.rand.random())
            self._do(kind)
        self._until = scheduler.now + 60.0

    def _do(self, kind: str) -> None:
        scheduler, history = self.simulation.scheduler, self.simulation.history
        act = getattr(self, "_" + kind.replace(" ", "_").replace("-", ""))
        began = scheduler.now
        at = len(history.faults)
        history.faults.append(Fault(began, kind, "", float("inf")))
        self.simulation.troubled = True
        server = act()
        self.simulation.troubled = False
        name = server.name if server is not None else ""
        history.faults[at] = Fault(began, kind, name, scheduler.now)

    # -- what there is to work on --------------------------------------------------------------

    @property
    def primary(self) -> "Server":
        """The running primary of the highest timeline."""
        servers = [s for s in self.world.servers if not s.recovering]
        return max(servers, key=lambda s: (s.running, s.timeline))

    def replica(self) -> "Server | None":
        """A running standby."""
        found = [s for s in self.world.servers if s.recovering and s.running]
        return self.rand.choice(found) if found else None

    def wait(self, least: float = 0.1, most: float = 2.5) -> None:
        """Let it be so for a while."""
        self.simulation.scheduler.sleep(least + (most - least) * self.rand.random())

    @property
    def now(self) -> float:
        """The time (seconds)."""
        return self.simulation.scheduler.now

    def _change(self, server: "Server", call: Any, *args: Any) -> None:
        self.world.advance(self.now)
        call(*args, self.now)
        self.network.stir(server)

    # -- faults of one replica -----------------------------------------------------------------

    def _kill_replica(self) -> "Server | None":
        return self._killed(self.replica())

    def _killed(self, server: "Server | None") -> "Server | None":
        if server is not None:
            self._change(server, server.kill)
            self.wait()
            self._change(server, server.start)
        return server

    def _bounce_replica(self) -> "Server | None":
        return self._bounced(self.replica())

    def _bounced(self, server: "Server | None") -> "Server | None":
        """It crashes and is back before any probe may have missed it, again and again."""
        if server is not None:
            for _ in range(self.rand.randint(1, 4)):
                self._change(server, server.kill)
                self.wait(0.0, 0.05)
                self._change(server, server.start)
                self.wait(0.2, 4.0)
        return server

    def _freeze_replica(self) -> "Server | None":
        return self._frozen(self.replica())

    def _frozen(self, server: "Server | None") -> "Server | None":
        if server is not None:
            self._change(server, server.freeze)
            self.wait(0.3, 5.0)
            self._change(server, server.thaw)
        return server

    def _deaf_replica(self) -> "Server | None":
        return self._deaf(self.replica())

    def _deaf(self, server: "Server | None") -> "Server | None":
        if server is not None:
            link = self.network.links[server.port]
            link.deaf = True
            self.network.stir(server)
            self.wait(0.3, 5.0)
            hear_again(self.network, server)
        return server

    def _refuse_replica(self) -> "Server | None":
        server = self.replica()
        if server is not None:
            link = self.network.links[server.port]
            link.refuses = True
            self.wait()
            link.refuses = False
        return server

    def _slow_replica(self) -> "Server | None":
        server = self.replica()
        if server is not None:
            link = self.network.links[server.port]
            link.slow = self.rand.choice([0.01, 0.05, 0.3])
            self.wait()
            link.slow = 0.0
        return server

    def _pause_replay(self) -> "Server | None":
        server = self.replica()
        if server is not None:
            self._change(server, server.pause)
            self.wait(0.3, self.rand.choice([4.0, 12.0]))
            self._change(server, server.resume)
        return server

    def _lag(self) -> "Server | None":
        server = self.replica()
        if server is not None:
            server.lag = self.rand.choices([0.05, 0.5, 3.0, 10.0], [1, 1, 1, 2])[0]
            self.wait(0.5, max(4.0, 1.5 * server.lag))
            self._change(server, server.set_lag, 0.0)
        return server

    def _conflicts(self) -> "Server | None":
        server = self.replica()
        if server is not None:
            for _ in range(self.rand.randint(1, 20)):
                self.world.advance(self.now)
                server.conflict(self.now, self.rand)
                self.network.stir(server)
                self.wait(0.0, 0.1)
        return server

    def _lost_replica(self) -> "Server | None":
        server = self.replica()
        if server is not None:
            lines = self._switch_off(server)
            self._long()
            self._switch_on(server, lines)
        return server

    # -- hosts and networks that are gone without a word ----------------------------------------

    def _switch_off(self, server: "Server") -> "list[Line]":
        lines = cut_off(self.network, server)
        self.network.links[server.port].deaf = True
        self._change(server, server.lose_power)
        if bouncer := self.network.bouncers.get(server.port):
            bouncer.restart(self.now)
        return lines

    def _switch_on(self, server: "Server", lines: "list[Line]") -> None:
        hear_again(self.network, server)
        reset(self.network, lines)
        self._change(server, server.start)
        self._change(server, server.come_back)

    def _long(self) -> None:
        """Wait for a while; seldom until kernels have given up."""
        if self.rand.random() < 0.1:
            self.simulation.troubled = False  # what happens meanwhile is always the same
            self.wait(USER_TIMEOUT, USER_TIMEOUT + 5.0)
        else:
            self.wait(0.3, 5.0)

    def _lost_primary(self) -> "Server | None":
        """The primary's machine is switched off. Half of the time a standby takes its place."""
        old = self.primary
        lines = self._switch_off(old)
        self._long()
        new = self._heir() if self.rand.random() < 0.5 else None
        if new is not None:
            self._change(new, new.promote)
            self._follow(new)
            self._long()
            self._change(old, old.rewind, new)
        self._switch_on(old, lines)
        self.wait()
        return old

    def _partition(self) -> "Server | None":
        """Nobody reaches the primary, which lives on, and is there again after a standby was
        promoted; connections outlast that."""
        old = self.primary
        self.network.links[old.port].deaf = True
        self._change(old, old.leave)
        self.wait(0.3, 5.0)
        new = self._heir() if self.rand.random() < 0.7 else None
        if new is not None:
            self._change(new, new.promote)
            self._follow(new)
            self.wait(0.3, 4.0)
        self._change(old, old.come_back)
        hear_again(self.network, old)
        if new is not None:
            self.wait(0.0, 2.0)
            self._change(old, old.stop)
            self._change(old, old.rewind, new)
        self.wait()
        return old

    def _firewall(self) -> "Server | None":
        """What stands before a server forgets the connections there are; new ones it lets in."""
        server = self.rand.choice([s for s in self.world.servers if s.running])
        link = self.network.links[server.port]
        link.deaf = self.rand.random() < 0.5
        cut_off(self.network, server)
        self._long()
        hear_again(self.network, server)
        return server

    # -- faults of a PgBouncer, where there is one ----------------------------------------------

    def _bouncer(self) -> "Bouncer | None":
        found = list(self.network.bouncers.values())
        return self.rand.choice(found) if found else None

    def _bouncer_restart(self) -> "Server | None":
        bouncer = self._bouncer()
        if bouncer is None:
            return None
        link = self.network.links[bouncer.server.port]
        link.refuses = True
        self._change(bouncer.server, bouncer.restart)
        self.wait(0.05, 1.0)
        link.refuses = False
        return bouncer.server

    def _bouncer_pause(self) -> "Server | None":
        bouncer = self._bouncer()
        if bouncer is None:
            return None
        bouncer.paused = True
        self.wait(0.3, 5.0)
        bouncer.paused = False
        return bouncer.server

    # -- faults of connections -----------------------------------------------------------------

    def _terminate(self) -> "Server | None":
        return self._terminated("57P01")

    def _idle_timeout(self) -> "Server | None":
        return self._terminated("57P05")

    def _terminated(self, state: str) -> "Server | None":
        server = self.primary
        if self.rand.random() < 0.5 or not server.running:
            server = self.rand.choice([s for s in self.world.servers if s.running])
        for _ in range(self.rand.randint(1, 15)):
            for number in sorted(server.sessions):
                session = server.sessions.get(number)
                if session is not None and self.rand.random() < 0.5:
                    if state == "57P05" and session.in_transaction:
                        continue
                    self.world.advance(self.now)
                    server.terminate(session, state, self.now)
            self.network.stir(server)
            self.wait(0.0, 0.3)
        return server

    def _full(self) -> "Server | None":
        server = self.rand.choice([s for s in self.world.servers if s.running])
        before, server.max_connections = server.max_connections, max(4, len(server.sessions))
        self.wait()
        server.max_connections = before
        return server

    def _slow_logins(self) -> "Server | None":
        server = self.rand.choice(self.world.servers)
        server.auth_delay = self.rand.choice([0.3, 1.0, 2.0])
        self.wait()
        server.auth_delay = 0.0
        return server

    def _logins_refused(self) -> "Server | None":
        server = self.rand.choice(self.world.servers)
        server.login_refused = "28P01"
        self.wait()
        server.login_refused = ""
        return server

    # -- faults of the primary -----------------------------------------------------------------

    def _kill_primary(self) -> "Server | None":
        return self._killed(self.primary)

    def _restart_primary(self) -> "Server | None":
        server = self.primary
        for _ in range(self.rand.randint(1, 4)):
            self._change(server, server.stop)
            self.wait(0.05, 0.3)
            self._change(server, server.start)
            self.wait(0.3, 1.0)
        return server

    def _far_primary(self) -> "Server | None":
        """The way to the primary takes long, and it crashes while answers are on their way."""
        server = self.primary
        link = self.network.links[server.port]
        link.slow = self.rand.choice([0.02, 0.1, 0.3])
        for _ in range(self.rand.randint(1, 3)):
            self.wait(0.3, 1.5)
            self._change(server, server.kill)
            self.wait(0.0, 0.3)
            self._change(server, server.start)
        link.slow = 0.0
        return server

    def _bounce_primary(self) -> "Server | None":
        return self._bounced(self.primary)

    def _restart_all(self) -> "Server | None":
        """Every server ends, and they are started one after another."""
        servers = list(self.world.servers)
        ends = self.rand.choice(["kill", "stop"])
        for server in servers:
            self._change(server, getattr(server, ends))
        self.rand.shuffle(servers)
        for server in servers:
            self.wait(0.0, 0.5)
            self._change(server, server.start)
        return self.primary

    def _freeze_primary(self) -> "Server | None":
        return self._frozen(self.primary)

    def _deaf_primary(self) -> "Server | None":
        return self._deaf(self.primary)

    def _heir(self) -> "Server | None":
        """The standby that has most, as a manager chooses it; with synchronous standbys none
        unless it has most of all, those included that cannot be reached."""
        found = [s for s in self.world.servers if s.recovering]
        if not self.world.synchronous:
            found = [s for s in found if s.running and not s.frozen]
        best = max(found, key=lambda s: (s.timeline, s.received), default=None)
        return best if best is not None and best.running and not best.frozen else None

    def _follow(self, new: "Server", *without: "Server") -> None:
        for other in self.world.servers:
            if other is not new and other not in without and other.recovering:
                self._change(other, other.follow, new)

    def _rejoin(self, new: "Server") -> None:
        """Every other server becomes a standby of `new`, with its data."""
        for other in self.world.servers:
            if other is not new:
                self._change(other, other.rewind, new)
                self._change(other, other.start)

    def _fall_behind(self) -> None:
        """Some standbys replay later than they receive, until `_recover`."""
        for server in self.world.servers:
            if server.recovering and self.rand.random() < 0.3:
                server.lag = self.rand.choice([0.05, 0.5, 2.0])

    def _recover(self) -> None:
        for server in self.world.servers:
            if server.lag:
                self._change(server, server.set_lag, 0.0)

    def _promote(self) -> "Server | None":
        """The primary is killed, a replica promoted, the others follow; the old one comes back."""
        old = self.primary
        self._change(old, old.kill)
        self.wait(0.0, 3.0)
        new = self._heir()
        if new is not None:
            self._change(new, new.promote)
            self.wait(0.0, 2.0)
            self._follow(new)
            self.wait(0.3, 2.0)
            if self.rand.random() < 0.5:
                # Somebody starts it as it was: a primary, as it says.
                self._change(old, old.start)
                self.wait(0.5, 3.0)
                if self.rand.random() < 0.5:
                    # The new one is away while the old one is there.
                    self._change(new, new.kill)
                    self.wait(0.2, 3.0)
                    self._change(new, new.start)
                self.wait(0.0, 6.0)
                self._change(old, old.kill)
            self._change(old, old.rewind, new)
        self._change(old, old.start)
        return old

    def _switchover(self) -> "Server | None":
        old = self.primary
        self._change(old, old.stop)
        self.wait(0.0, 0.3)
        new = self._heir()
        if new is not None:
            self._change(new, new.promote)
            self._follow(new)
            self._change(old, old.rewind, new)
        self._change(old, old.start)
        self.wait()
        return old

    def _split_brain(self) -> "Server | None":
        """A replica is promoted while the old primary lives on, and feeds the others for a
        while."""
        old = self.primary
        new = self._heir()
        if new is None:
            return None
        self._fall_behind()
        self._change(new, new.promote)
        self.wait(0.0, self.rand.choice([4.0, 10.0]))
        self._follow(new)
        self.wait(0.0, 2.0)
        self._recover()
        self._change(old, old.stop)
        self._rejoin(new)
        self.wait()
        return old

    def _stranded(self) -> "Server | None":
        """A standby is promoted that lacks what another has, and that one, which cannot follow,
        crashes and comes up again beside it."""
        old = self.primary
        found = [s for s in self.world.servers if s.recovering and s.running and s.streaming]
        if len(found) < 2 or not old.running or self.world.synchronous:
            return None  # with synchronous standbys nobody promotes one that lacks anything
        new, ahead = self.rand.sample(found, 2)
        self._change(new, new.leave)
        self.wait(0.2, 1.0)
        self._change(old, old.kill)
        self._change(new, new.come_back)
        self._change(new, new.promote)
        self._follow(new)
        self.wait(0.1, 1.5)
        self._change(ahead, ahead.kill)
        self.wait(0.1, 2.0)
        self._change(ahead, ahead.start)
        self.wait(1.0, 6.0)
        self._rejoin(new)
        self.wait()
        return old

    def _there_and_back(self) -> "Server | None":
        """One switchover after another: the roles move on before everybody has understood."""
        for _ in range(self.rand.randint(2, 4)):
            self._switchover()
        return self.primary

    def _cut_off(self) -> "Server | None":
        """The application loses the way to the primary, a replica is promoted, and the others go
        on after the old one, where an unseen user works, for a while."""
        old, new = self.primary, self._heir()
        if new is None or not old.running:
            return None
        link = self.network.links[old.port]
        link.deaf = True
        self.network.stir(old)
        self._change(new, new.promote)
        for _ in range(self.rand.randint(4, 20)):
            self.wait(0.1, 0.8)
            self.world.advance(self.now)
            old.flush(old.append(8000), self.now)  # VACUUM: WAL without commits
        self._change(old, old.stop)
        link.deaf = False
        self._rejoin(new)
        self.wait()
        return old
