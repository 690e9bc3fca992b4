"""What a process has to have understood of a server, by what it was told: judged as each statement
runs."""

from typing import TYPE_CHECKING, Any

from tests.simulation.scheduler import START

if TYPE_CHECKING:
    from tests.simulation.simulation import Process, Simulation

GRACE = 0.05
"""Seconds within which a statement that was routed may still reach its server."""
FRESH = 0.9
"""Seconds for which a connection that was just opened counts as opened for its first statement."""
APART = 0.2
"""Seconds without a look after which nobody knows whether what was seen went on."""
CALM = 5.0
"""Seconds after which a server that was well has a connection of each monitor."""
MOVES = frozenset(
    {"promote", "switchover", "split brain", "there and back", "cut off", "stranded"}
)
"""Faults after which a role that sees no WAL receiver may long doubt whom a replica follows."""
OF_ONE = frozenset({"57P05", "25P03", "25P04"})
"""Why a server ends a session for what became of that one."""


class Vigil:
    """What was told to each process, and how the servers were meanwhile."""

    def __init__(self, simulation: "Simulation") -> None:
        options = simulation.setting.options
        self._simulation = simulation
        self._history = simulation.history
        self._scheduler = simulation.scheduler
        self._duration: float = options["blacklist_duration"]
        self._notices: float = 1.1 * options["probe_interval"] + options["probe_timeout"] + 0.3
        self._highest: dict[int, tuple[float, int]] = {}
        self._told: dict[tuple[int, str], float] = {}
        self._out: dict[tuple[int, str], tuple[float, float]] = {}
        self._used: set[int] = set()
        # By server: since when it has been silent, until when as far as was seen, and when it was
        # last unwell before.
        self._silent: dict[str, tuple[float, float]] = {}
        self._astray: dict[str, float] = {}
        self._sees = simulation.setting.sees
        self._unwell: dict[str, float] = {server.name: 0.0 for server in simulation.world.servers}
        # Since when there is no fault, and a process does not read on a replica that follows.
        self._missed: dict[tuple[int, str], float] = {}
        self._looked = 0.0
        self._glance = 0.0
        self._past: set[str] = set()
        self._longest = 0.0
        self._troubled: float | None = None
        self._again: float = 2 * self._duration + 3 * self._notices + 3.0

    def followed(self, process: "Process") -> None:
        """`process` has looked at its servers."""
        view = process.router.view
        if view.timeline > self._highest.get(process.number, (0.0, 0))[1]:
            self._highest[process.number] = self._scheduler.now, view.timeline

    def look(self) -> None:
        """Note which servers are silent now, and which replicas follow an old primary or are left
        out though all is well."""
        now = self._scheduler.now
        primaries = [s for s in self._simulation.world.servers if not s.recovering]
        newest = max(s.timeline for s in primaries)
        line = max((s.line for s in primaries), key=lambda line: line.number)
        for server in self._simulation.world.servers:
            limit = line.left_at(server.line) if server.recovering else None
            if limit is None or server.replayed <= limit:
                self._past.discard(server.name)
            elif server.name not in self._past:
                self._past.add(server.name)
                self._history.passed[server.name].append(self._glance)
            source = server.source
            if server.streaming and source is not None and source.timeline < newest:
                self._astray.setdefault(server.name, now)
            else:
                self._astray.pop(server.name, None)
        self._glance = now
        if self._simulation.troubled:
            self._missed.clear()
            self._troubled = now if self._troubled is None else self._troubled
        else:
            if self._troubled is not None:
                self._longest = max(self._longest, now - self._troubled)
                self._troubled = None
            self._look_for_missed(now)
        for server in self._simulation.world.servers:
            link, name = self._simulation.network.links[server.port], server.name
            if server.running and (server.frozen or link.deaf):
                if name in self._silent and now - self._silent[name][1] < APART:
                    self._silent[name] = self._silent[name][0], now
                elif now - self._unwell[name] > CALM and now >= server.ready + CALM:
                    self._silent[name] = now, now
                    continue
                self._unwell[name] = now
            elif not server.running or link.slow or link.refuses or server.auth_delay:
                self._unwell[name] = now

    def _look_for_missed(self, now: float) -> None:
        """A replica that is well again is read again: what a fault has doubled is over by then."""
        simulation = self._simulation
        if not simulation.setting.sees and any(f.what in MOVES for f in self._history.faults):
            return
        if now - self._looked > CALM:
            self._missed.clear()
        self._looked = now
        bound = self._again + 2 * self._longest
        for server in simulation.world.servers:
            follows = self._follows(server)
            for process in simulation.processes:
                key = process.number, server.name
                read = any(node.port == server.port for node in process.router.view.replicas)
                if read or not follows:
                    self._missed.pop(key, None)
                elif now - self._missed.setdefault(key, now) > bound:
                    self._missed[key] = now + 1e9
                    self._history.violate(
                        "replicas are read again", now,
                        f"process {process.number} has not held {server.name} for fit for "
                        f"{bound:.2f} s, though nothing is wrong with it",
                    )  # fmt: skip

    def _follows(self, server: Any) -> bool:
        """Whether `server` is a replica that nothing is wrong with."""
        upstream = server.source
        link = self._simulation.network.links[server.port]
        return bool(
            server.recovering and server.running and upstream is not None and server.streaming
            and not (upstream.recovering or server.paused or server.lag or link.deaf)
            and upstream.line is server.line and server.replayed <= upstream.flushed
        )  # fmt: skip

    def broke(self, line: Any, params: Any) -> None:
        """A statement of a user with `params` has met the end of its connection."""
        session, process = line.session, line.process
        if process is None or type(params) is not dict or "since" not in params or session.open:
            return
        if line.bouncer is not None:
            return  # what ended lay behind it, and says nothing of other connections
        now, server = self._scheduler.now, line.server
        key = process.number, server.name
        told = self._told.get(key)
        if told is None:
            self._told[key] = now
        elif session.ended < told < params["since"]:
            self._history.violate(
                "asked after a break", now,
                f"process {process.number} ran a statement on a connection to {server.name} that "
                f"had ended at {session.ended:.4f}, though it was told at {told:.4f} that "
                "connections to it break",
            )  # fmt: skip
        else:
            self._told[key] = now
        new = line.number not in self._used and line.sent - line.opened < FRESH
        if line.opened < START + FRESH:
            return  # a pool looks at how its first connections are set up
        if not new or session.why in OF_ONE or not server.recovering:
            return
        if process.leader != server.name and not now < self._out.get(key, (0.0, 0.0))[1]:
            self._out[key] = now, now + self._duration

    def used(self, line: Any) -> None:
        """A user has run something on `line`: its end says less of its server from now on."""
        self._used.add(line.number)

    def ran(self, line: Any, params: Any, *, reads: bool) -> None:
        """A statement of a user with `params` has run on `line`."""
        self.used(line)
        process, server = line.process, line.server
        if not server.recovering:
            self._way_back(line, process, reads)
        elif reads and not line.session.in_transaction:
            self._silent_server(line, process)
            self._stray(line, process)
            self._kept_out(line, process, params["since"])

    def _way_back(self, line: Any, process: "Process", reads: bool) -> None:
        since, timeline = self._highest.get(process.number, (0.0, 0))
        late = GRACE if reads else 1e-9
        if line.server.timeline < timeline and line.sent > since + late:
            self._history.violate(
                "no way back", self._scheduler.now,
                f"process {process.number} ran a statement on {line.server.name}, a primary of "
                f"timeline {line.server.timeline}, sent {line.sent:.4f}, though it has followed "
                f"timeline {timeline} since {since:.4f}",
            )  # fmt: skip

    def _silent_server(self, line: Any, process: "Process") -> None:
        since, until = self._silent.get(line.server.name, (0.0, 0.0))
        if since + self._notices < line.sent <= until:
            self._history.violate(
                "nothing to a silent server", self._scheduler.now,
                f"process {process.number} sent a read at {line.sent:.4f} to {line.server.name}, "
                f"which was silent from {since:.4f} to {until:.4f}",
            )  # fmt: skip
        elif line.sent > until:
            self._silent.pop(line.server.name, None)

    def _stray(self, line: Any, process: "Process") -> None:
        """A role that sees WAL receivers knows by its next probe whom a replica follows."""
        since, timeline = self._highest.get(process.number, (0.0, 0))
        astray, source = self._astray.get(line.server.name), line.server.source
        if astray is None or source is None or not self._sees or source.timeline >= timeline:
            return
        if line.sent > max(astray, since) + self._notices:
            self._history.violate(
                "nothing on a replica of an old primary", self._scheduler.now,
                f"process {process.number}, which has followed timeline {timeline} since "
                f"{since:.4f}, sent a read at {line.sent:.4f} to {line.server.name}, which has "
                f"followed {source.name} on timeline {source.timeline} since {astray:.4f}",
            )  # fmt: skip

    def _kept_out(self, line: Any, process: "Process", began: float) -> None:
        told, until = self._out.get((process.number, line.server.name), (0.0, 0.0))
        if not (told + GRACE < began and line.sent < until - GRACE):
            return
        if self._told.get((process.number, process.leader), 0.0) >= began:
            return  # it had failed on the primary just before
        if self._leads(process):
            self._history.violate(
                "failed nodes are kept out", self._scheduler.now,
                f"process {process.number} sent a read at {line.sent:.4f} to {line.server.name}, "
                f"which has failed it over a new connection at {told:.4f}",
            )  # fmt: skip

    def _leads(self, process: "Process") -> bool:
        """Whether the primary of `process` serves, and has long enough for that to be known: else
        what was kept out is the last resort."""
        now = self._scheduler.now
        if not process.router.snapshot.writable:
            return False
        for server in self._simulation.world.servers:
            if server.name == process.leader:
                well = server.running and not server.recovering and now > server.ready
                return well and now - self._unwell[server.name] > self._notices
        return False
