"""What must hold over the whole history of a simulation, whatever was drawn.

A judge knows what the servers did and what the clients were told; of the router it looks at
nothing but which server it took for the primary, and which replicas for eligible, when.
"""

from bisect import bisect_right
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from tests.simulation.bouncer import Client
from tests.simulation.half_open import USER_TIMEOUT
from tests.simulation.history import Claim, Fault, Followed, Read, Write
from tests.simulation.vigil import APART, GRACE, Vigil

if TYPE_CHECKING:
    from tests.simulation.postgres import Commit
    from tests.simulation.simulation import Process, Simulation

END = 1 << 62
SETTINGS = ("SET", "RESET", "SELECT set_config", "SAVEPOINT")
"""How statements of users begin that no judge looks at."""
PIN_MAX = 60.0
"""Seconds after which a pin is dropped that no replica ever satisfied: `pin_max` by default."""


def watch(simulation: "Simulation") -> None:
    """Look at each statement as its server runs it."""
    history, scheduler = simulation.history, simulation.scheduler
    ports = {server.port: server.name for server in simulation.world.servers}
    before = history.followed
    claims = Claims(simulation)
    out: dict[tuple[int, int], float] = {}
    vigil = Vigil(simulation)

    def followed(process: "Process") -> None:
        def look(router: Any) -> None:
            vigil.followed(process)
            primary = router.primary
            name = "" if primary is None else ports[primary.port]
            line = before[process.number]
            if not line or line[-1].server != name:
                line.append(Followed(scheduler.now, name))
            fit = {node.port for node in router.view.replicas}
            for port in ports:
                key = (process.number, port)
                if not fit or port in fit or (primary is not None and primary.port == port):
                    out.pop(key, None)
                else:
                    out.setdefault(key, scheduler.now)

        process.router.observers.append(look)
        look(process.router)

    started: set[int] = set()

    def ran(line: Any, sql: str, params: Any) -> None:
        """`line` has run one statement of `sql` with `params`."""
        history.ran += 1
        if params is None or not isinstance(params, dict) or "tag" not in params:
            if sql.startswith(SETTINGS):
                vigil.used(line)
            return
        process = line.process
        if process.number not in started:
            started.add(process.number)
            followed(process)
        server, session = line.server, line.session
        tenant, settings = params["tag"], session.settings
        found = settings.get("app.tenant") or ""
        if found != tenant:
            history.violate(
                "session state", scheduler.now,
                f"{sql!r} ran on {server.name} for {tenant or 'nobody'!r} with {found!r}",
            )  # fmt: skip
        if claims.look():
            vigil.look()
        reads = sql.startswith("SELECT") and not sql.endswith("UPDATE")
        vigil.ran(line, params, reads=reads)
        if reads:
            if server.recovering and not session.in_transaction:
                _eligible(line, process)
            return
        newer = claims.newer_than(server)
        if newer is not None and line.sent > newer.since + claims.bound:
            history.violate(
                "no write on an old primary",
                scheduler.now,
                f"process {process.number} wrote {sql!r} on {server.name}, timeline "
                f"{server.timeline}, though {newer}",
            )
        # A write: its process must follow that server, or have done so when it sent it.
        known = before[process.number]
        late = scheduler.now - line.sent
        if known and known[-1].server != server.name:
            since = known[-1].at
            if line.sent > since + 1e-9:
                history.violate(
                    "no write elsewhere", scheduler.now,
                    f"process {process.number} wrote on {server.name} {sql!r}, sent "
                    f"{late:.4f} s before, and has followed {known[-1].server or 'nobody'!r} "
                    f"since {since:.4f}",
                )  # fmt: skip

    def _eligible(line: Any, process: "Process") -> None:
        since = out.get((process.number, line.server.port))
        if since is not None and line.sent > since + 1.0 + GRACE:
            history.violate(
                "only eligible replicas", scheduler.now,
                f"process {process.number} has read on {line.server.name}, sent {line.sent:.4f}, "
                f"which it holds for unfit since {since:.4f}",
            )  # fmt: skip

    simulation.network.trace = ran
    simulation.network.broke = vigil.broke
    simulation.claims = claims


CROWDED = 80
"""Sessions of a server that may let nobody in any more."""


class Claims:
    """Which servers can be reached as primaries, since when.

    Attributes:
        bound: seconds within which a process has to follow a newer one.
    """

    def __init__(self, simulation: "Simulation") -> None:
        options = simulation.setting.options
        self.bound: float = 2.5 * options["probe_interval"] + 2 * options["probe_timeout"] + 1.0
        self._simulation = simulation
        self._now: dict[tuple[str, int], Claim] = {}
        self._next = 0.0

    def look(self) -> bool:
        """Note how they are now; whether it was time to."""
        simulation = self._simulation
        now = simulation.scheduler.now
        if now < self._next:
            return False
        self._next = now + 0.01
        for server in simulation.world.servers:
            if server.recovering:
                continue
            key, link = (server.name, server.timeline), simulation.network.links[server.port]
            reached = server.running and not (
                server.frozen or link.deaf or link.refuses or link.slow or server.auth_delay
            )
            bouncer = simulation.network.bouncers.get(server.port)
            if bouncer is not None and (bouncer.paused or bouncer.queue):
                reached = False
            known = self._now.get(key)
            if known is not None and (not reached or now - known.until > APART):
                self._simulation.history.claims.append(self._now.pop(key))
                known = None
            if reached and not server.login_refused and len(server.sessions) < CROWDED:
                known = known or Claim(*key, now, now)
                self._now[key] = known._replace(until=now)
        return True

    def end(self) -> None:
        """Note those that still hold."""
        self._simulation.history.claims.extend(self._now.values())

    def newer_than(self, server: Any) -> Claim | None:
        """A primary of a later timeline than that of `server`, which can be reached now."""
        now = self._simulation.scheduler.now
        return next(
            (
                claim
                for claim in self._now.values()
                if claim.timeline > server.timeline and now - claim.until < APART
            ),
            None,
        )


def judge(simulation: "Simulation") -> None:
    """Look at the whole history."""
    simulation.claims.end()
    lines = Lines(simulation)
    _own_writes(simulation, lines)
    _monotonic(simulation, lines)
    _exactly_once(simulation, lines)
    _kept(simulation, lines)
    _transactions(simulation, lines)
    _in_place(simulation)
    _fenced(simulation, lines)
    _fresh(simulation, lines)
    _waits(simulation)
    _served(simulation)


class Lines:
    """The commits of each timeline, in order, and where each value and tag was committed."""

    def __init__(self, simulation: "Simulation") -> None:
        self.world = simulation.world
        self.by_value: dict[Any, Commit] = {}
        self.by_op: dict[str, list[Commit]] = defaultdict(list)
        self.ends: dict[int, list[int]] = defaultdict(list)
        self.commits: dict[tuple[int, int], Commit] = {}
        for commit in self.world.commits:
            self.ends[commit.timeline].append(commit.lsn)
            self.commits[commit.timeline, commit.lsn] = commit
            for (table, _), value in commit.writes.items():
                if table == "item":
                    self.by_value[value] = commit
            for op in commit.ops:
                self.by_op[op].append(commit)

    def missed(self, old: Read, new: Read) -> int:
        """Commits that `old` shows and `new`, on the same timeline, does not. A primary shows its
        own, but for those that wait for a standby, which a standby may show before; and those that
        it makes after a crash may stand where nothing was committed before."""
        low, high = new.at.lsn, old.at.lsn
        if low >= high:
            return 0
        ends = self.ends[new.at.timeline]
        found = ends[bisect_right(ends, low) : bisect_right(ends, high)]
        commits = [self.commits[new.at.timeline, end] for end in found]
        return sum(c.when <= old.done and new.at.server != c.server for c in commits)

    def stands(self, commit: "Commit", now: float) -> bool:
        """Whether its primary shows `commit` at `now`."""
        wait = self.world.waits.get(commit.txid)
        return wait is None or (wait.over and wait.ended <= now)

    def shows(self, commit: "Commit", timeline: int, lsn: int) -> bool:
        """Whether the state at `lsn` of `timeline` shows `commit`."""
        return self.world.has(commit, timeline, lsn)


def _by_user(simulation: "Simulation") -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = defaultdict(list)
    acts: list[Any] = [*simulation.history.reads, *simulation.history.writes]
    for act in acts:
        found[act.user].append(act)
    for his in found.values():
        his.sort(key=lambda act: act.done)
    return found


def _own_writes(simulation: "Simulation", lines: Lines) -> None:
    """A user sees what was acknowledged to him before."""
    history, bound = simulation.history, simulation.claims.bound
    options = simulation.setting.options
    by_time = options["consistency"] != "lsn"
    for acts in _by_user(simulation).values():
        newest: tuple[Write, Commit] | None = None
        for act in acts:
            if isinstance(act, Write):
                if act.outcome != "done" or not act.sets:
                    continue
                for value in act.sets.values():
                    commit = lines.by_value.get(value)
                    if commit is not None:
                        newest = act, commit
                continue
            if newest is None or act.level == "REPEATABLE READ" or act.own is not None:
                continue
            write, commit = newest
            if act.sent < write.done:
                continue
            if by_time and act.sent - write.done > options["pin_duration"]:
                continue
            if act.sent - write.done > PIN_MAX:
                continue
            at = act.at
            if lines.shows(commit, at.timeline, at.lsn) or _hidden_restart(simulation, act):
                continue
            newest_line = max(at.timeline, act.followed)
            if not lines.shows(commit, newest_line, END) and commit.timeline < newest_line:
                continue  # lost with the old primary
            if commit.timeline > act.followed and any(
                (claim.server, claim.timeline) == (commit.server, commit.timeline)
                and claim.since <= act.sent < claim.since + bound
                for claim in history.claims
            ):
                continue  # another process has met the promoted server first
            history.violate(
                "own writes", act.done,
                f"user {act.user} in process {act.process} read row {act.key} on {at.server} at "
                f"{at.timeline}/{at.lsn:X} (sent {act.sent:.4f}), which lacks what he wrote at "
                f"{commit.timeline}/{commit.lsn:X} (done {write.done:.4f}, process "
                f"{write.process})",
            )  # fmt: skip


def _hidden_restart(simulation: "Simulation", read: Read) -> bool:
    """Whether a PgBouncer may have kept from the process of `read` that the server was restarted:
    its connections outlast that, until the next probe tells an older position."""
    hidden = simulation.claims.bound
    return simulation.setting.bouncer > 0 and any(
        f.at <= read.sent <= f.until + hidden for f in simulation.history.faults
    )


def _monotonic(simulation: "Simulation", lines: Lines) -> None:
    """Within a request no read shows an older state than the read before."""
    history, options = simulation.history, simulation.setting.options
    heard = 2 * options["probe_interval"] + options["probe_timeout"]
    last: dict[int, Read] = {}
    for read in sorted(history.reads, key=lambda r: r.done):
        if read.level == "REPEATABLE READ":
            continue
        before = last.get(read.request)
        last[read.request] = read
        if before is None or before.done > read.sent:
            continue
        old, new = before.at, read.at
        if new.timeline == old.timeline:
            missed = lines.missed(before, read)
        else:
            # A replica that was just promoted shows what its process has yet to hear of.
            unheard = new.timeline == read.followed and read.sent - before.done < heard
            missed = int(new.timeline < old.timeline and not unheard)
        if missed and not _hidden_restart(simulation, read):
            history.violate(
                "monotonic reads", read.done,
                f"request {read.request} in process {read.process} read {old.server} at "
                f"{old.timeline}/{old.lsn:X} (done {before.done:.4f}) and then {new.server} at "
                f"{new.timeline}/{new.lsn:X} (sent {read.sent:.4f}): {missed} commits less",
            )  # fmt: skip


def _exactly_once(simulation: "Simulation", lines: Lines) -> None:
    """What was acknowledged was committed once; what was refused, never; only an unknown commit
    may be either, and nothing runs twice."""
    history = simulation.history
    for write in history.writes:
        for op in write.ops:
            times = len(lines.by_op.get(op, ()))
            if times > 1:
                history.violate("once", write.done, f"{op} was committed {times} times: {write}")
            elif write.outcome == "done" and not times:
                history.violate("once", write.done, f"{op} was never committed: {write}")
            elif times and write.outcome not in ("done", "CommitUnknown"):
                history.violate("once", write.done, f"{op} was committed all the same: {write}")
        for value in write.sets.values():
            commit = lines.by_value.get(value)
            if write.outcome == "done" and commit is None:
                history.violate("once", write.done, f"{value} was never committed: {write}")
            elif commit is not None and write.outcome not in ("done", "CommitUnknown"):
                history.violate("once", write.done, f"{value} was committed all the same: {write}")
    for op, commits in lines.by_op.items():
        if op.startswith("undone."):
            history.violate("once", commits[0].when, f"{op} was to be rolled back")


def _kept(simulation: "Simulation", lines: Lines) -> None:
    """With synchronous standbys nothing is acknowledged that no standby had flushed, and no
    promotion loses it, unless the server that acknowledged it had been replaced before."""
    history, world = simulation.history, simulation.world
    for write in history.writes:
        if write.outcome != "done":
            continue
        values = [value for value in write.sets.values() if value in lines.by_value]
        commits = [lines.by_value[value] for value in values]
        commits += [commit for op in write.ops for commit in lines.by_op.get(op, ())]
        for commit in commits:
            wait = world.waits.get(commit.txid)
            if wait is None:
                continue
            if not (wait.confirmed and wait.ended <= write.done):
                history.violate("kept", write.done, f"no standby had {commit}: {write}")
            elif not world.has(commit, *world.surviving()) and not any(
                line.number > commit.timeline
                and line.born <= wait.ended
                and not world.contains(commit, line, END)
                for line in world.lines
            ):
                history.violate("kept", write.done, f"{commit} is lost: {write}")


def _transactions(simulation: "Simulation", lines: Lines) -> None:
    """What a transaction computed its write from was still so when it was committed."""
    history = simulation.history
    for write in history.writes:
        for key, seen in write.read.items():
            value = write.sets.get(key)
            commit = lines.by_value.get(value) if value is not None else None
            if commit is None:
                continue
            found = simulation.world.value(("item", key), commit.timeline, commit.lsn - 1)
            if found != seen:
                history.violate(
                    "no lost update", write.done,
                    f"row {key} was {found} when {value} was committed, and had been read as "
                    f"{seen}: {write}",
                )  # fmt: skip


def _in_place(simulation: "Simulation") -> None:
    """What a caller's own transaction reads, or what he asks for on the primary, is read there;
    and what it has written itself it sees."""
    history = simulation.history
    lazy = simulation.setting.options["transactions"] == "lazy"
    for read in history.reads:
        there = (not lazy and read.explicit and not read.level) or read.level == "PRIMARY"
        if there and read.at.server not in {*read.leaders, *_led(simulation, read)}:
            history.violate("on the primary", read.done, f"{read}")
        if read.own is not None and read.value != read.own:
            history.violate(
                "own transaction", read.done, f"{read.value} is not {read.own}: {read}"
            )


def _led(simulation: "Simulation", read: Read) -> list[str]:
    """Servers that the process of `read` took for the primary while it was under way, which may be
    long: it may have been sent again."""
    line = simulation.history.followed[read.process]
    ends = [later.at for later in line[1:]] + [read.done]
    return [
        f.server
        for f, end in zip(line, ends, strict=True)
        if f.at <= read.done and end >= read.sent
    ]


RELEASE = 0.003
"""Seconds that the end of a transaction on a replica may take."""
HALF_OPEN = ("lost replica", "lost primary", "firewall")
"""Faults that leave connections behind which end later."""
LATE = ("slow replica", "deaf replica", "freeze replica", *HALF_OPEN)


def _over(fault: Fault) -> float:
    """When nobody waits any more because of `fault` (seconds)."""
    return fault.until + USER_TIMEOUT * (fault.what in HALF_OPEN)


def _fenced(simulation: "Simulation", lines: "Lines") -> None:
    """Long after a newer primary could be reached no read shows what only the old one's line has;
    and what a replaced server acknowledges is told to be unknown."""
    history = simulation.history
    bound = simulation.claims.bound
    for read in history.reads:
        for claim in history.claims:
            if not (claim.since + bound < read.sent <= claim.until) or read.level:
                continue
            if claim.timeline <= read.at.timeline:
                continue
            # To a role that sees no WAL receiver nothing tells such a replica from another: see
            # docs/explanation/what-cannot-be-promised.md.
            passed = () if simulation.setting.sees else history.passed[read.at.server]
            if any(since <= read.done for since in passed):
                continue
            ends = lines.ends[read.at.timeline]
            i = bisect_right(ends, read.at.lsn) - 1
            last = lines.commits.get((read.at.timeline, ends[i])) if i >= 0 else None
            if last is not None and not lines.shows(last, claim.timeline, END):
                history.violate(
                    "no read of a fenced line",
                    read.done,
                    f"a read of user {read.user} in process {read.process} on {read.at.server} at "
                    f"{read.at.timeline}/{read.at.lsn:X} shows what {claim} has not",
                )
    if simulation.setting.options["pin_lsn"] == "commit":
        return  # the position is asked for between the acknowledgement and its return
    late = [fault for fault in history.faults if fault.what in LATE]
    for write in history.writes:
        if write.outcome != "done" or not write.sets:
            continue
        commit = lines.by_value.get(next(iter(write.sets.values())))
        known = history.followed.get(write.process, [])
        # It returned before: what is open on a replica is ended next.
        returned = write.done - RELEASE
        if any(f.at <= write.done and write.sent <= _over(f) for f in late):
            continue
        before = [name for at, name in known if at < returned]
        leaders = before[-1:] + [name for at, name in known if returned <= at <= write.done]
        if commit is not None and before and commit.server not in leaders:
            history.violate(
                "no commit on a replaced server",
                write.done,
                f"{write} was committed on {commit.server}, and {leaders} followed",
            )


def _fresh(simulation: "Simulation", lines: Lines) -> None:
    """A read is no older than max_lag_seconds and what probing adds, while all is well with the
    primary."""
    options, history = simulation.setting.options, simulation.history
    limit = options["max_lag_seconds"]
    if limit is None:
        return
    bound = limit + 2.5 * options["probe_interval"] + options["probe_timeout"] + 1.0
    troubled = [
        (fault.at, fault.until + bound) for fault in history.faults
        if fault.what not in ("pause replay", "lag", "conflicts", "slow replica")
    ]  # fmt: skip
    commits = simulation.world.commits
    times = [commit.when for commit in commits]
    for read in history.reads:
        if read.level or any(a <= read.done and read.sent <= b for a, b in troubled):
            continue
        i = bisect_right(times, read.sent - bound) - 1
        if i < 0:
            continue
        commit = commits[i]
        if not lines.stands(commit, read.sent - bound):
            continue
        if not lines.shows(commit, read.at.timeline, read.at.lsn) and lines.shows(
            commit, *simulation.world.surviving()
        ):
            history.violate(
                "fresh", read.done,
                f"a read on {read.at.server} at {read.at.timeline}/{read.at.lsn:X} lacks what was "
                f"committed {read.sent - commit.when:.2f} s before it was sent, more than "
                f"{bound:.2f}",
            )  # fmt: skip


SILENT = (
    "freeze primary", "deaf primary", "freeze replica", "deaf replica", "cut off", "partition",
    *HALF_OPEN,
)  # fmt: skip
WAIT = 25.0
"""Seconds a client's action may take: some statements, each of which may wait 5 s for a pool, 3 s
for a connection, and 1 s for a silent server."""


def _waits(simulation: "Simulation") -> None:
    """Nobody waits longer than his time-outs say, and, without any, than his server is silent."""
    history = simulation.history
    for action in history.actions:
        took = action.done - action.sent
        if took <= WAIT:
            continue
        silent = sum(
            max(0.0, min(_over(f), action.done) - max(f.at, action.sent))
            for f in history.faults if f.what in SILENT
        )  # fmt: skip
        if took > WAIT + silent:
            history.violate(
                "bounded waits",
                action.done,
                f"{action.what!r} took {took:.2f} s ({action.outcome}), process {action.process}",
            )


HARMLESS = frozenset(
    {
        "kill replica",
        "bounce replica",
        "refuse replica",
        "slow replica",
        "pause replay",
        "lag",
        "conflicts",
    }
)
"""Faults of one replica that fail no read: another node serves it."""
AFTERMATH = 10.0
"""Seconds for which any other fault may make reads fail after its end."""


def _served(simulation: "Simulation") -> None:
    """A read fails only while something is wrong with more than one replica's server."""
    history = simulation.history
    # A replica that is away may be the one that commits wait for, with the primary's connections.
    harmless = frozenset() if simulation.setting.synchronous else HARMLESS
    harmful = [f for f in history.faults if f.what not in harmless]
    for failure in history.failures:
        if not any(f.at <= failure.done and failure.sent <= _over(f) + AFTERMATH for f in harmful):
            history.violate("reads are served", failure.done, f"{failure}")


def let_in_again(simulation: "Simulation") -> None:
    """With nothing wrong any more, a node whose term on the blacklist is over is let in."""
    scheduler, history = simulation.scheduler, simulation.history
    kept_out = [
        (process, entry)
        for process in simulation.processes
        for entry in process.router.view.out.values()
    ]
    if not kept_out:
        return
    options = simulation.setting.options
    rounds = 2 * (options["probe_interval"] + options["probe_timeout"]) + 3.0  # to connect anew
    over = max(entry.until for _, entry in kept_out)
    if over > scheduler.now + 30.0:
        return  # it failed again and again, and its terms have become long
    scheduler.sleep(max(0.0, over - scheduler.now) + rounds)
    silent = {s.port for s in simulation.world.servers if s.frozen or not s.running}
    for process, entry in kept_out:
        node = process.router.snapshot.node(entry.node)
        if node.port not in silent and process.router.view.out.get(entry.node) is entry:
            history.violate(
                "let in again", scheduler.now,
                f"process {process.number} keeps {entry.node} out, whose term was over at "
                f"{entry.until:.4f}",
            )  # fmt: skip


def at_rest(simulation: "Simulation") -> None:
    """With no client at work nothing is lent, open, locked or waited for."""
    history, now = simulation.history, simulation.scheduler.now
    for process in simulation.processes:
        pool = process.pool
        if pool.lent:
            history.violate("no leak", now, f"process {process.number} has lent {pool.lent}")
        for node, inner in pool._pools.items():
            # psycopg_pool keeps the places of those who gave up until it gets there.
            waiting = sum(w.conn is None and w.error is None for w in inner._waiting)
            if waiting:
                history.violate("no leak", now, f"{node}: {waiting} wait for its pool")
    silent = [s for s in simulation.world.servers if s.frozen or not s.running]
    behind = _behind(simulation)
    for server in simulation.world.servers:
        if server in silent:
            continue
        for session in server.sessions.values():
            if session.in_transaction and id(session) not in behind:
                history.violate("no leak", now, f"{server.name}: {session} is in a transaction")


def _behind(simulation: "Simulation") -> set[int]:
    """Sessions whose clients are gone, which their servers do not know yet."""
    behind: set[int] = set()
    for session in simulation.network.left_behind:
        behind.add(id(session.lent) if isinstance(session, Client) else id(session))
    return behind


def _left_in_bouncers(simulation: "Simulation") -> None:
    """No client is left there, and nothing was set in sessions that belong to nobody."""
    history, network, now = simulation.history, simulation.network, simulation.scheduler.now
    for bouncer in network.bouncers.values():
        clients = [c for c in bouncer.clients if c.open and c not in network.left_behind]
        if clients:
            history.violate("no leak", now, f"{len(clients)} clients of a PgBouncer are left")
        for session in bouncer.idle:
            if session.settings:
                history.violate("session state", now, f"left behind: {session.settings}")
        bouncer.restart(now)


def left(simulation: "Simulation") -> None:
    """Once all pools are closed no thread and no session is left."""
    history, scheduler = simulation.history, simulation.scheduler
    _left_in_bouncers(simulation)
    threads = [name for name in scheduler.threads.values() if name != "main"]
    if threads:
        history.violate("no leak", scheduler.now, f"threads are left: {', '.join(threads)}")
    for server in simulation.world.servers:
        behind = _behind(simulation)
        found = [s for s in server.sessions.values() if id(s) not in behind]
        if found and server.running and not server.frozen:
            history.violate("no leak", scheduler.now, f"{server.name} has {len(found)} sessions")
