"""The Router: one process's view of one cluster.

It holds the snapshot and the blacklist, and answers every adapter's four questions: where may this
run, who failed, who is well again, what was written.

Nothing here opens a connection: adapters run statements, the monitor probes.
"""

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from router import registry
from router.cluster.lost_writes import Place, Write, loss, place
from router.config.config import Config, Server, did_you_mean, free_name, masked
from router.connect.dialing import Attempts, Turn
from router.errors import ConfigError, NoReplicaAvailable
from router.model import Node, Report, Role, Snapshot
from router.rules.balance import BALANCERS, Balancer, TimedBalancer, preferring
from router.rules.blacklist import ENDED, LOST, Blacklist, Entry, Outage
from router.rules.context import ROOT, LastRead, Pin, RoutingContext, current_context
from router.rules.decide import (
    Decision,
    Policy,
    Reason,
    Transaction,
    View,
    as_recent,
    caught_up,
    decide,
    dry,
    expired,
    last_resort,
    resolved,
)
from router.rules.dryrun import DryRunReport, summed_up
from router.rules.pgbouncer import SHARED
from router.runtime import SYSTEM, Runtime
from router.sql.catalog import BUILTIN, Catalog
from router.sql.classifier import Classifier, Intent
from router.telemetry import Tally, Telemetry

if TYPE_CHECKING:
    from router.cluster.monitor import Monitor

ROOT_WRITES_TO_MENTION = 1000
"""Writes outside any request context before one log line says what that costs."""

DRY_RUN_EVERY = 60.0
"""Seconds between two events of a dry run."""

ATTEMPT_STEP = 0.005
"""Seconds between two looks at whether the first connection to a node has been opened."""

SQL_SHOWN = 300
"""Characters of a statement an event may carry: its text holds placeholders, never parameters."""

RETRIAL = 5.0
"""Seconds until a primary that kept silent over an open connection as well is tried again."""

DRAIN_STEP = 0.02
"""Seconds between two looks at whether connections are still in use."""

LOST_WRITES = (
    "it was promoted without WAL that the former primary had flushed: look there for what is "
    "missing before you rebuild it, and see synchronous_standby_names"
)
"""What to do about writes a promotion lost."""

_NO_MONITOR = "the Router has no monitor: it was built without a way to connect"


class Use(NamedTuple):
    """The connections to one node that are open.

    Attributes:
        busy: those in use.
        idle: those kept for whoever comes next.
    """

    busy: int = 0
    idle: int = 0


class NodePools(Protocol):
    """An adapter's pools, one for each node."""

    def retire(self, node: Node) -> None:
        """Close idle connections to `node` now, those in use when they come back; any thread."""
        ...

    def use(self) -> Mapping[Node, Use]:
        """The connections to each node to which there are any."""
        ...


class Router:
    """Routes the statements of one process to one cluster.

    Adapters make one for each engine, pool or database alias and show it as ``.router``. Every
    method may be called from any thread.

    Attributes:
        runtime: its clock, and all it waits with.
        draining: whether `close` was told to drain it, and `start` has not been called since.
        decisions: statements by (node name, reason).
        observers: called with this Router after probes were taken in, in the monitor's thread;
            must not block, nor change anything here.
        pooled: whether a PgBouncer that pools by transaction or statement stands before any node.
        instrumented: whether statements take a way round: they are timed, or get a comment.
        view: the snapshot and the blacklist, as one value to check and use; for reading.
    """

    def __init__(
        self,
        config: Config,
        *,
        clock: Callable[[], float] = SYSTEM.clock,
        rand: Callable[[], float] = SYSTEM.rand,
        runtime: Runtime | None = None,
    ) -> None:
        """Start with the configured roles and nothing probed; see `start`.

        Args:
            config: what the user asked for.
            clock: monotonic seconds.
            rand: floats in [0, 1), for balancing and jitter.
            runtime: waits, wakes, locks and spawns; in place of `clock` and `rand`, of which it
                has its own.
        """
        self.config = config
        self.runtime: Runtime = runtime or Runtime(clock=clock, rand=rand)
        # Called for each statement: an attribute, and nothing in between.
        self.clock: Callable[[], float] = self.runtime.clock
        self.cluster: str = config.cluster
        self.policy: Policy = config.policy()
        self.telemetry: Telemetry = Telemetry(self.cluster, self.clock)
        self.decisions: Tally = self.telemetry.decisions
        # Whether a read outside a transaction goes to a replica, and is one by itself there.
        self.reads_alone: bool = not (config.reads_in_transaction or config.dry_run)
        self._blacklist = Blacklist(config.blacklist_max)
        self._attempts = Attempts()
        self._of_users = frozenset(config.blacklist_sqlstates)
        self._lost = LOST | self._of_users
        # By the node's name: when a statement last succeeded there; when one is tried there next.
        self._heard: dict[str, float] = {}
        self._retrial: dict[str, float] = {}
        self.classifier: Classifier = Classifier(
            read_functions=config.read_functions,
            write_functions=config.write_functions,
            read_patterns=config.read_patterns,
            write_patterns=config.write_patterns,
            rule=config.rule,
        )
        self.catalog: Catalog = BUILTIN
        self.catalog_generation: int = 0
        self._lock = self.runtime.lock()
        self.servers: Mapping[Node, Server] = MappingProxyType(config.servers())
        self.pooled: bool = any(map(self.shares_sessions, self.servers))
        self.view: View = View(
            Snapshot.initial(self.servers, config.limits(), self.clock()), self._blacklist.entries
        )
        self._members_lock = self.runtime.lock()
        self._pools: weakref.WeakSet[NodePools] = weakref.WeakSet()
        self._monitor: Monitor | None = None
        self._last_write = float("-inf")
        self._root_writes = 0
        self._last_acknowledged: Write | None = None
        self._placed: Place | None = None
        self._blind_told = False
        self.started: bool = False
        self.draining: bool = False
        self.observers: list[Callable[[Router], None]] = []
        self._dry_run = config.dry_run
        self._dry_furthest = 0.0
        self._dry_since = self.clock()
        self._dry_due = self._dry_since + DRY_RUN_EVERY
        self._asks = config.consistency == "lsn" and config.pin_lsn == "commit"
        self._split = len(self.servers) > 1 or config.discovery is not None
        self._choose_balancer()
        key, forget = id(self), _instances.pop
        _instances[key] = weakref.ref(self, lambda _: forget(key, None))
        registry.renew(self)

    # -- what is known ---------------------------------------------------------------------

    @property
    def snapshot(self) -> Snapshot:
        """The cluster as last seen."""
        return self.view.snapshot

    @property
    def primary(self) -> Node | None:
        """The node writes go to, None while there is none."""
        return self.view.snapshot.primary

    @property
    def replicas(self) -> tuple[Node, ...]:
        """The replicas that may serve a read now."""
        return self.view.replicas

    @property
    def blacklisted(self) -> Mapping[str, Entry]:
        """The nodes that are kept out, by name, with since when, until when and why."""
        return self.view.out

    @property
    def has_monitor(self) -> bool:
        """Whether nodes can be probed, so that `refresh` has somebody to ask."""
        return self._monitor is not None

    @property
    def outages(self) -> tuple[Outage, ...]:
        """The last hundred times a node was kept out that are over, oldest first."""
        return self._blacklist.history

    @property
    def asks_position(self) -> bool:
        """Whether adapters ask for the WAL position at each commit and hand it to `wrote`."""
        return self._split and self._asks

    @property
    def last_write(self) -> float:
        """When this process last wrote, or met a pin set elsewhere (monotonic seconds).

        Minus infinity if it never did.
        """
        return self._last_write

    def __repr__(self) -> str:
        view = self.view
        primary = view.snapshot.primary
        out = ", ".join(view.out)
        return (
            f"<Router {self.cluster}: primary {primary.name if primary else 'none'}; replicas "
            f"{', '.join(n.name for n in view.replicas) or 'none'}"
            f"{f'; blacklisted {out}' if out else ''}>"
        )

    @property
    def watched(self) -> bool:
        """`instrumented`, by its name of before."""
        return self.instrumented

    def stats(self) -> dict[str, Any]:
        """Counts since the start: ``decisions`` by node and reason, and every event's count."""
        decisions: dict[str, dict[str, int]] = {}
        for (node, reason), n in sorted(
            self.telemetry.decisions.total().items(),
            key=lambda item: (item[0][0], str(item[0][1])),
        ):
            decisions.setdefault(node, {})[str(reason)] = n
        return {"decisions": decisions, "events": dict(self.telemetry.counts.total())}

    def shares_sessions(self, node: Node) -> bool:
        """Whether one stands before `node`."""
        server = self.servers.get(node)
        return server is not None and self.config.pooling(server) in SHARED

    # -- routing ---------------------------------------------------------------------------

    def intent(self, sql: str) -> Intent:
        """What `sql` does, from the cache where it was seen before."""
        return self.classifier(sql)

    def decide(
        self,
        intent: Intent,
        transaction: Transaction = Transaction.NONE,
        *,
        force: str | None = None,
        context: RoutingContext | None = None,
    ) -> Decision:
        """Apply the rules to one statement. See `router.rules.decide.decide` for what it raises.

        Args:
            intent: what the statement does.
            transaction: what surrounds it.
            force: "primary" or "replica" when the statement itself says so.
            context: the request's context; the current one by default.
        """
        view = self.view
        if context is None:
            context = current_context()
        pin = last = None
        now = self.clock()
        pins = context.pins
        if pins.by_cluster or pins.arrived is not None:
            pin = self._pin(context, view, now)
        if pins.reads:
            last = pins.reads.get(self.cluster)
        decision = decide(
            intent,
            transaction,
            view,
            self.policy,
            now=now,
            pin=pin,
            last=last,
            force=force or context.force,
        )
        return self._dried(decision, context, now) if self._dry_run else decision

    def _dried(self, decision: Decision, context: RoutingContext, now: float) -> Decision:
        """Keep on the primary what `decision` would have sent to a replica."""
        node = decision.nodes[0] if decision.on_primary else self.balance(decision.nodes)
        if not context.root:
            context.pins.reads[self.cluster] = LastRead(node, now)
        if decision.on_primary:
            return decision
        kept = dry(self.view, node, now)
        if kept.reason is Reason.DRY_RUN_BEHIND:
            lag = self.snapshot.lag_seconds(node.name) or 0.0
            # Of two threads at once the lesser may win: it is a figure for people.
            self._dry_furthest = max(self._dry_furthest, lag)
        return kept

    def dry_run_report(self) -> DryRunReport:
        """What routing would have done so far, while ``dry_run`` is on.

        Raises:
            ConfigError: it is off.
        """
        if not self._dry_run:
            raise ConfigError("dry_run: it is off: say dry_run=True to have a report")
        seconds = self.clock() - self._dry_since
        return summed_up(self.telemetry.decisions.total(), self._dry_furthest, seconds)

    def last_resort(self, context: RoutingContext) -> tuple[Node, ...]:
        """Replicas for a read the primary cannot serve; as `router.rules.decide.last_resort`."""
        return last_resort(self.view, context.pins.reads.get(self.cluster))

    def _pin(self, context: RoutingContext, view: View, now: float) -> Pin | None:
        """The context's pin with its position filled in, or None once it is satisfied."""
        pins = context.pins
        pin = pins.get(self.cluster)
        if pin is None or not self._split:
            return None
        snapshot = view.snapshot
        if self.policy.consistency == "lsn":
            settled = resolved(pin, snapshot)
            if settled is not None and settled is not pin and settled.lsn is not None:
                pin = pins.resolve(self.cluster, pin, settled.lsn, settled.timeline)
        if expired(pin, snapshot, self.policy, now):
            if not self._over(pin, now):
                return None
            pins.clear(self.cluster, pin)
            satisfied = self.policy.consistency == "lsn"
            name = "pin_satisfied" if satisfied else "pin_expired"
            self.telemetry.detail(name, after=round(pin.waited(now), 3))
            return None
        waited = pin.waited(now)
        if waited > self.config.pin_max and not caught_up(view, pin, self.policy, now):
            pins.clear(self.cluster, pin)
            self.telemetry.event(
                "pin_dropped",
                level="warning",
                after=round(waited, 1),
                advice="no replica replayed the write within pin_max: look at replication",
            )
            return None
        if pin.at > self._last_write and self.policy.consistency == "lsn":
            # It came with the request: nobody has told the monitor yet that a pin waits.
            self._last_write = pin.at
            if self._monitor is not None:
                self._monitor.hurry()
        return pin

    def _over(self, pin: Pin, now: float) -> bool:
        """Whether no other Router of the cluster needs `pin`: each has replicas of its own."""
        return all(
            other.policy.consistency == "off"
            or pin.waited(now) > other.config.pin_max
            or expired(pin, other.snapshot, other.policy, now)
            for other in routers()
            if other.has_monitor and other is not self and other.cluster == self.cluster
        )

    def behind(self, node: Node, context: RoutingContext) -> bool:
        """Whether `node`, a replica, may show less than `context` has written, or has read."""
        pins, view, now = context.pins, self.view, self.clock()
        if (pins.by_cluster or pins.arrived is not None) and self.policy.consistency != "off":
            pin = self._pin(context, view, now)
            if pin is not None and node not in caught_up(view, pin, self.policy, now):
                return True
        last = pins.reads.get(self.cluster)
        if last is None or last.node is node:
            return False
        return node not in as_recent(view, view.replicas, last)

    def settle(self, context: RoutingContext) -> None:
        """Give the pin of `context` its position, or drop it, by what is known now."""
        self._pin(context, self.view, self.clock())

    def pick(self, nodes: tuple[Node, ...]) -> Node:
        """One of `nodes`: the balancer's choice."""
        return nodes[0] if len(nodes) == 1 else self.balance(nodes)

    def _choose_balancer(self) -> None:
        chosen = self.config.balance
        base: Balancer = (
            BALANCERS[chosen](self.runtime.rand) if isinstance(chosen, str) else chosen
        )
        self._base = base
        self.timed_balancer: TimedBalancer | None = (
            base if isinstance(base, TimedBalancer) else None
        )
        self.instrumented: bool = base is self.timed_balancer or self.config.sql_comment
        self._prefer()

    def _prefer(self) -> None:
        self.balance: Balancer = preferring(self._base, self.config.zone, self.snapshot.nodes)

    def sent(self, node: Node) -> float:
        """Tell the balancer that a statement is about to be sent to `node`.

        Adapters call this and `answered` only where `timed_balancer` is not None.

        Returns:
            when that was (monotonic seconds), to be handed to `answered`.
        """
        now = self.clock()
        if self.timed_balancer is not None:
            self.timed_balancer.sent(node, now)
        return now

    def answered(self, node: Node, sent: float) -> None:
        """Tell the balancer that the statement sent at `sent` has come back, or failed."""
        now = self.clock()
        if self.timed_balancer is not None:
            self.timed_balancer.answered(node, now - sent, now)

    def wrote(self, context: RoutingContext, *, done: bool) -> None:
        """Pin `context`: a write is about to be sent, or has just returned.

        Called before the statement is sent, so that no read slips between, and again after the
        commit returned, because only a position sampled after that covers the commit.

        Args:
            context: whose write it is.
            done: whether the commit, or the autocommitted statement, has returned.
        """
        if self.policy.consistency == "off":
            return
        now = self.clock()
        # Without replicas of its own a service pins its requests for others that have some.
        if context.pinning and (self._split or not context.root):
            context.pins.set(self.cluster, Pin(now))
            if done:
                self.telemetry.detail("pin_set")
        if not done or not self._split:
            return
        self._last_write = now
        if context.root:
            self._root_writes += 1
            if self._root_writes == ROOT_WRITES_TO_MENTION:
                self.telemetry.event(
                    "no_request_context",
                    advice="every write pins the whole process: enter request_context() for each "
                    "request",
                )
        monitor = self._monitor
        if monitor is not None:
            monitor.hurry()

    def acknowledged(self, sent: float) -> None:
        """The primary has acknowledged a write.

        Args:
            sent: when its COMMIT, or the autocommitted statement, was sent (monotonic seconds).
        """
        self._last_acknowledged = Write(sent, self.clock())

    def pin(self, context: RoutingContext | None = None) -> None:
        """Treat `context`, by default the current one, as if it had just written."""
        now = self.clock()
        (context or current_context()).pins.set(self.cluster, Pin(now))
        self._last_write = now
        if self._monitor is not None:
            self._monitor.hurry()

    def read(self, context: RoutingContext, node: Node) -> None:
        """Remember that `context` has read from the replica `node`."""
        if not context.root and not self._dry_run:
            context.pins.reads[self.cluster] = LastRead(node, self.clock())

    # -- health ----------------------------------------------------------------------------

    def is_disconnect(self, sqlstate: str) -> bool:
        """Whether an error of this SQLSTATE blacklists the node that sent it."""
        return sqlstate in self._lost or sqlstate[:2] in self._lost

    def failed(self, node: Node, reason: str) -> None:
        """Keep `node` out for its blacklist duration: a connection to it broke or was refused."""
        if node not in self.servers:
            return  # it has left, and its name may be another's
        duration = node.blacklist_duration
        if duration is None:
            duration = self.config.blacklist_duration
        is_primary = self.primary is node
        if is_primary:
            duration = node.blacklist_duration or 0.0
        was_out = node.name in self._blacklist
        now = self.clock()
        entry = self._blacklist.add(node.name, reason, duration, now, primary=is_primary)
        self.interrupted(node)
        if entry is not None and not was_out:
            self.telemetry.event(
                "blacklisted", level="warning", node=node.name, reason=reason, seconds=duration
            )
        if self._monitor is not None:
            self._monitor.hurry(node)

    def ended(self, node: Node, state: str, reason: str, *, fresh: bool) -> None:
        """A connection to `node` ended. One that was open before says nothing of the node, which
        is kept out when one that was opened for the statement ends as well.

        Args:
            node: whose.
            state: the SQLSTATE it ended with, empty when the server sent none.
            reason: the error as one line.
            fresh: it was opened for the statement that failed.
        """
        of_users = state in self._of_users or state[:2] in self._of_users
        if of_users or (fresh and state not in ENDED):
            self.failed(node, reason)
            return
        self.interrupted(node)
        if self._monitor is not None:
            self._monitor.hurry(node)

    def heard(self, node: Node) -> None:
        """A statement has succeeded on `node`: no probe sent before that says that it is down."""
        self._heard[node.name] = self.clock()

    def may_try(self, node: Node) -> bool:
        """Whether `node`, of which probes say that it is down, may be asked over a connection
        that is open; not so for `RETRIAL` seconds from one that got no answer."""
        due, now = self._retrial.get(node.name), self.clock()
        if due is None:
            return True
        if now < due:
            return False
        self._retrial[node.name] = now + RETRIAL  # one caller's wait, and not everybody's
        return True

    def vouch(self, node: Node) -> None:
        """`node`, of which probes say that it is down, has answered over an open connection."""
        self.heard(node)
        self._retrial.pop(node.name, None)
        with self._lock:
            before = self.view.snapshot
            after = before.vouched(node.name)
            self.view = View(after, self._blacklist.entries)
        self._tell_outage(node.name, before, after)
        self._tell_writable(before, after)

    def silent(self, node: Node, *, tried: bool) -> None:
        """Nothing but its probes speaks for `node`.

        Args:
            node: which.
            tried: it was asked over an open connection, and said nothing; else there was none.
        """
        if tried:
            self._retrial[node.name] = self.clock() + RETRIAL
        with self._lock:
            before = self.view.snapshot
            after = before.silent(node.name)
            self.view = View(after, self._blacklist.entries)
        self._tell_outage(node.name, before, after)
        self._tell_writable(before, after)

    @contextmanager
    def connecting(
        self, node: Node, pause: Callable[[float], None] | None = None
    ) -> Iterator[None]:
        """Around the opening of a connection to `node`: only one caller waits for a dead host.

        The primary has no substitute, so every caller may try it.

        Args:
            node: to connect to.
            pause: waits as many seconds, on an event loop without blocking it; None blocks the
                thread.

        Raises:
            NoReplicaAvailable: another attempt takes long already: use another node. Nothing is
                blacklisted for it; the attempt's own end will tell.
        """
        if node is self.primary:
            yield
            return
        attempts, clock = self._attempts, self.clock
        while (turn := attempts.begin(node.name, began := clock())) is Turn.WAIT:
            (pause or self.runtime.sleep)(ATTEMPT_STEP)
        if turn is Turn.ELSEWHERE:
            raise NoReplicaAvailable(
                f"{node} keeps another connection waiting that is being opened: try again, or "
                "look at the host"
            )
        ok = False
        try:
            yield
            ok = True
        finally:
            attempts.end(node.name, began, clock(), ok=ok)

    def interrupted(self, node: Node) -> None:
        """Connections to `node` broke: it may have restarted, even if no probe met it down."""
        with self._lock:
            snapshot = self.view.snapshot.interrupted(node.name, self.clock())
            self.view = View(snapshot, self._blacklist.entries)

    def blacklist(
        self, name: str, reason: str = "by hand", *, duration: float | None = None
    ) -> Entry:
        """Keep the node called `name` out: a replica gets no reads, the primary no statement.

        Checked-out connections finish what they are doing. A node taken out as a replica and
        promoted meanwhile takes writes.

        Args:
            name: as in the events and errors.
            reason: shown wherever the node is missed.
            duration: seconds after which a probe may let it back in; None until `restore`.

        Raises:
            ConfigError: no node has that name.
        """
        node = self._named("blacklist", name)
        now = self.clock()
        before = self._blacklist.entries.get(name)
        seconds = float("inf") if duration is None else duration
        entry = Entry(
            name,
            reason,
            since=before.since if before else now,
            until=now + seconds,
            duration=seconds,
            failures=before.failures if before else 0,
            primary=self.primary is node,
        )
        self._blacklist.put(entry)
        self._renew()
        self.telemetry.event(
            "blacklisted", level="warning", node=name, reason=reason, seconds=duration
        )
        return entry

    def restore(self, name: str) -> Entry | None:
        """Let the node called `name` back in at once.

        Returns:
            what kept it out, None when nothing did.

        Raises:
            ConfigError: no node has that name.
        """
        node = self._named("restore", name)
        entry = self._restore(name)
        if self._monitor is not None:
            self._monitor.hurry(node)
        return entry

    def _restore(self, name: str) -> Entry | None:
        now = self.clock()
        entry = self._blacklist.remove(name, now)
        if entry is not None:
            self._renew()
            self.telemetry.event("restored", node=name, after=round(now - entry.since, 3))
        return entry

    def _named(self, method: str, name: str) -> Node:
        nodes = self.snapshot.nodes
        for node in nodes:
            if node.name == name:
                return node
        raise ConfigError(
            f"{method}: no node is called {name!r}{did_you_mean(name, (n.name for n in nodes))}"
        )

    def observe(self, *reports: Report) -> Snapshot:
        """Take in what probes found, restore nodes that are due, and return the new snapshot."""
        now, heard = self.clock(), self._heard
        if heard:
            reports = tuple(
                r if r.ok or r.node not in heard else replace(r, heard=heard[r.node])
                for r in reports
            )
        with self._lock:
            before = self.view.snapshot
            after = before.with_reports(reports, now)
            self.view = View(after, self._blacklist.entries)
        self._mind_positions(after)
        self._place_write(before, after)
        for report in reports:
            if report.ok:
                self._retrial.pop(report.node, None)
            self._tell_outage(report.node, before, after)
            entry = self._blacklist.entries.get(report.node)
            if entry is None or not entry.due(report.started):
                continue
            if report.ok:
                self._restore(report.node)
            elif not report.obstacle:
                self._blacklist.add(report.node, report.error, entry.duration, now)
                self._renew()
        if after.primary is not before.primary:
            self.telemetry.event(
                "primary_changed",
                level="warning",
                before=before.primary.name if before.primary else None,
                after=after.primary.name if after.primary else None,
                timeline=after.timeline,
            )
            if self._monitor is not None and after.primary is not None:
                # Who follows it, and who claims to be the primary as well, is told by answers that
                # are newer than the one by which it is known.
                self._monitor.hurry(after.primary)
        elif after.primary is not None and 0 < before.timeline < after.timeline:
            # Its address leads to the promoted server now, and what is pooled to the old one.
            self.retire(after.primary)
        self._tell_foreign(before, after)
        if after.timeline > before.timeline > 0:
            self._tell_lost_writes(before, after)
        self._tell_lag(before, after)
        self._tell_writable(before, after)
        for name in after.fenced - before.fenced:
            self.telemetry.event(
                "fenced", level="error", node=name, reason="claims to be primary as well"
            )
        if self._dry_run and now >= self._dry_due:
            self._dry_due = now + DRY_RUN_EVERY
            self._tell_dry_run()
        for observer in self.observers:
            try:
                observer(self)
            except Exception as error:  # noqa: BLE001 - whoever watches must not stop a statement
                self.telemetry.event("observer_failed", level="error", error=masked(f"{error!r}"))
        return after

    def _tell_dry_run(self) -> None:
        report = self.dry_run_report()
        self.telemetry.event(
            "dry_run",
            statements=report.statements,
            replicas=report.replicas,
            share=round(report.share, 3),
            behind=report.behind,
        )

    def _mind_positions(self, snapshot: Snapshot) -> None:
        """Pin by time while the servers tell no WAL positions, and say so once."""
        wanted = self.config.policy()
        if wanted.consistency != "lsn":
            return
        if snapshot.blind():
            wanted = wanted._replace(consistency="time")
        if wanted == self.policy:
            return
        self.policy = wanted
        if wanted.consistency == "time" and not self._blind_told:
            self._blind_told = True
            self.telemetry.event(
                "no_positions",
                level="warning",
                advice="the servers tell no WAL positions, so a write pins for pin_duration: give "
                "the role EXECUTE on the WAL functions, or say consistency='time'",
            )

    def _tell_foreign(self, before: Snapshot, after: Snapshot) -> None:
        """Say of a server that its rows are not the primary's: it gets nothing."""
        for node in after.nodes:
            reason = after.foreign(node.name)
            if reason and not before.foreign(node.name):
                self.telemetry.event(
                    "foreign",
                    level="error",
                    node=node.name,
                    reason=reason,
                    advice="it gets no statement: correct its address or database",
                )

    def _place_write(self, before: Snapshot, after: Snapshot) -> None:
        """Remember where the last acknowledged write stands, before its samples are forgotten."""
        write, known = self._last_acknowledged, self._placed
        if write is None or before.timeline != after.timeline:
            return
        if known is None or known.write is not write:
            self._placed = place(after, write)

    def _tell_lost_writes(self, before: Snapshot, after: Snapshot) -> None:
        """Say that what a former primary had acknowledged to this process is not on the new one,
        or may not be."""
        write, primary = self._last_acknowledged, after.primary
        if write is None or primary is None:
            return
        if self._last_acknowledged is write:
            self._last_acknowledged = None  # each is judged at one promotion
        found = loss(before, after, write, self._placed)
        if found is None:
            return
        former = None if before.primary is None else before.primary.name
        began, written, certain = found
        if certain:
            self.telemetry.event(
                "writes_lost",
                level="error",
                node=primary.name,
                before=former,
                timeline=after.timeline,
                began=str(began),
                written=str(written),
                bytes=written - began,
                advice=LOST_WRITES,
            )
        else:
            self.telemetry.event(
                "writes_maybe_lost",
                level="warning",
                node=primary.name,
                before=former,
                timeline=after.timeline,
                began=str(began),
                written=str(written),
                bytes=written - began,
                advice=LOST_WRITES,
            )

    def _tell_lag(self, before: Snapshot, after: Snapshot) -> None:
        """Say of a replica that answers why it takes reads no more, or that it does again."""
        self._tell_strays(before, after)
        if before.replicas is after.replicas or before.replicas == after.replicas:
            return
        for node in before.replicas:
            report = after.reports.get(node.name)
            if report is None or not report.ok or report.role is not Role.REPLICA:
                continue
            if after.foreign(node.name) or node.name in after.strays:
                continue  # told above
            if node not in after.replicas and node in after.nodes:
                self.telemetry.event(
                    "lagging",
                    level="warning",
                    node=node.name,
                    seconds=after.lag_seconds(node.name),
                    bytes=after.lag_bytes(node.name),
                )
        for node in after.replicas:
            report = before.reports.get(node.name)
            if report is None or not report.ok or report.role is not Role.REPLICA:
                continue
            stray = before.strays.get(node.name)
            if node not in before.replicas and (stray is None or stray.sure):
                self.telemetry.event("caught_up", node=node.name)

    def _tell_strays(self, before: Snapshot, after: Snapshot) -> None:
        """Say of a replica that answers that it does not follow the primary."""
        for name, stray in after.strays.items():
            report, known = after.reports[name], before.strays.get(name)
            told = known is not None and known.sure
            if stray.sure and not told and report.ok and report.role is Role.REPLICA:
                self.telemetry.event(
                    "not_following",
                    level="warning",
                    node=name,
                    reason=stray.why,
                    advice="let its primary_conninfo lead to the primary, or set it up anew with "
                    "pg_rewind or pg_basebackup",
                )

    def _tell_writable(self, before: Snapshot, after: Snapshot) -> None:
        """Say that nothing can be written, or that it can be again."""
        was, now = before.writable, after.writable
        if was and not now:
            self.telemetry.event(
                "degraded",
                level="error",
                node=after.primary.name if after.primary else None,
                advice="writes fail until there is a primary; reads go on"
                if after.primary is None
                else "writes fail unless a connection that is open still serves; reads go on",
            )
        elif now and not was:
            self.telemetry.event("writable", node=after.primary.name if after.primary else None)

    def _tell_outage(self, name: str, before: Snapshot, after: Snapshot) -> None:
        was, now = before.down(name), after.down(name)
        if was is not None and now is None:
            away = round(self.clock() - was.since, 3)
            self.telemetry.event("reachable", node=name, after=away)
        elif was is None and now is not None:
            self.telemetry.event("unreachable", level="warning", node=name, reason=now.error)

    # -- who belongs to the cluster --------------------------------------------------------

    def add_replica(self, given: str | Mapping[str, object]) -> Node:
        """Let a server join while running.

        It gets reads once a probe has found it to be a replica of this cluster that has replayed
        what the primary had written by now: then it can miss no write that anybody was promised.

        Args:
            given: a URL, ``host``, ``host:port`` or a mapping, as in ``replicas``; what it leaves
                out is the configured primary's.

        Raises:
            ConfigError: it is malformed, its name is taken, or it opens another database.
        """
        server = self.config.joining(given, "add_replica")
        with self._members_lock:
            names = {n.name for n in self.servers}
            if server.name in names:
                raise ConfigError(
                    f"add_replica: the name {server.name!r} is taken by another node: "
                    "give every node a name of its own"
                )
            node = server.node(free_name(names), Role.REPLICA)
            self._become({**self.servers, node: server})
        return node

    def remove_replica(self, name: str) -> Node:
        """Let a server leave while running.

        It gets no new statement. What is checked out finishes there; idle connections are closed
        at once, the others when they come back.

        Raises:
            ConfigError: no node has that name, or it is the primary.
        """
        with self._members_lock:
            node = self._named("remove_replica", name)
            if node is self.primary:
                raise ConfigError(
                    f"remove_replica: {node} is the primary: promote another server first"
                )
            self._become({n: s for n, s in self.servers.items() if n is not node})
        return node

    def members(self, given: Iterable[str | Mapping[str, object]]) -> None:
        """Make `given` the servers of the cluster: new ones join, others leave.

        A server is known again by its host and port; its weight, zone and priority are taken over.
        The primary stays until another one is followed, or a member claims to be it.

        Args:
            given: every server, as in ``replicas``, the primary too; roles are found out.

        Raises:
            ConfigError: nothing is given, an entry is malformed or opens another database, or
                two have one name.
        """
        wanted = {}
        for i, entry in enumerate(given):
            server = self.config.joining(entry, f"discovery[{i}]")
            wanted[server.host, server.port] = server
        if not wanted:
            raise ConfigError("discovery: no server was given: give every one of the cluster")
        with self._members_lock:
            servers: dict[Node, Server] = {}
            for node, server in self.servers.items():
                known, found = node, wanted.pop((node.host, node.port), None)
                if found is not None:
                    share = (found.weight, found.zone, found.priority)
                    if share != (node.weight, node.zone, node.priority):
                        known = replace(node, weight=share[0], zone=share[1], priority=share[2])
                    servers[known] = server
                elif node is self.primary and not self._claimed_beside(node):
                    servers[node] = server
            for server in wanted.values():
                names = {n.name for n in servers}
                if server.name in names:
                    raise ConfigError(
                        f"discovery: two servers are called {server.name!r}: "
                        "give every one a name of its own"
                    )
                servers[server.node(free_name(names), Role.REPLICA)] = server
            if servers.keys() != self.servers.keys():
                self._become(servers)

    def _claimed_beside(self, primary: Node) -> bool:
        """Whether another node claims to be primary on the timeline of `primary`: a server that is
        known by two addresses, or a split brain."""
        snapshot = self.snapshot
        return any(
            (report := snapshot.reports.get(name)) and report.timeline == snapshot.timeline
            for name in snapshot.fenced - {primary.name}
        )

    def _become(self, servers: Mapping[Node, Server]) -> None:
        now = self.clock()
        old, new = ({(n.name, n.host, n.port): n for n in s} for s in (self.servers, servers))
        leaving = [node for key, node in old.items() if key not in new]
        joining = [node for key, node in new.items() if key not in old]
        changed = [node for node in self.servers if node not in servers]
        with self._lock:
            self.servers = MappingProxyType(dict(servers))
            self.pooled = any(map(self.shares_sessions, self.servers))
            for node in leaving:
                self._blacklist.remove(node.name, now)
            snapshot = self.view.snapshot.with_nodes(self.servers, now)
            self.view = View(snapshot, self._blacklist.entries)
        if not self._split and len(self.servers) > 1:
            # Outside any request no pin was kept while there was nothing to read but the primary.
            ROOT.pins.set(self.cluster, Pin(now))
            self._split = True
        self._prefer()
        for node in changed:
            self.retire(node)
        for node in leaving:
            self.telemetry.event("left", node=node.name, address=f"{node.host}:{node.port}")
        for node in joining:
            self.telemetry.event("joined", node=node.name, address=f"{node.host}:{node.port}")
        monitor = self._monitor
        if monitor is not None:
            if self.started:
                monitor.start()
            for node in joining:
                monitor.hurry(node)

    def moved(self, node: Node, before: Iterable[str], after: Iterable[str]) -> None:
        """The name of `node` stands for other addresses: what is behind it has to be asked anew.

        Its pool is emptied, and as a replica it gets reads again like one that joins.

        Args:
            node: whose host name was looked up.
            before: the addresses it had.
            after: the addresses it has, none of them among those.
        """
        with self._lock:
            snapshot = self.view.snapshot.renewed(node, self.clock())
            self.view = View(snapshot, self._blacklist.entries)
        self.retire(node)
        self.telemetry.event(
            "moved",
            level="warning",
            node=node.name,
            before=" ".join(sorted(before)),
            after=" ".join(sorted(after)),
        )
        if self._monitor is not None:
            self._monitor.hurry(node)

    def attach(self, pools: NodePools) -> None:
        """Tell `pools`, held weakly, when connections to a node are not to be used again."""
        self._pools.add(pools)

    def retire(self, node: Node) -> None:
        """Let every attached pool close its connections to `node` as they are now."""
        for pools in list(self._pools):
            pools.retire(node)

    def learn(self, catalog: Catalog, generation: int) -> bool:
        """Classify by `catalog` from now on, unless DDL was run since reading it began.

        Args:
            catalog: what the server says of functions and relations.
            generation: `catalog_generation` before the reading began.
        """
        with self._lock:
            if generation != self.catalog_generation:
                return False
            self.catalog = catalog
            self.classifier.replace_catalog(catalog)
            return True

    def ddl(self) -> None:
        """DDL is about to be sent, or its transaction has ended: what is known may be wrong.

        Until the catalog has been read again, statements over relations go to the primary.
        """
        with self._lock:
            self.catalog_generation += 1
            if self.catalog is not BUILTIN:
                self.catalog = BUILTIN
                self.classifier.replace_catalog(BUILTIN)
        if self._monitor is not None:
            self._monitor.refresh_catalog()

    def heal(self, sql: str, state: str, reason: str) -> None:
        """Remember that a standby refused `sql`, which had been taken for a read."""
        self.classifier.learn_write(sql, f"a replica refused it ({state})")
        self.telemetry.event(
            "healed",
            level="warning",
            sql=sql if len(sql) <= SQL_SHOWN else sql[:SQL_SHOWN] + "…",
            reason=reason,
            advice="add its function to write_functions, or run it inside using_primary()",
        )

    def _renew(self) -> None:
        with self._lock:
            self.view = View(self.view.snapshot, self._blacklist.entries)

    # -- life ------------------------------------------------------------------------------

    def use_monitor(self, monitor: "Monitor") -> None:
        """Let `monitor` probe the nodes once `start` is called."""
        self._monitor = monitor

    def connect_args(self, node: Node) -> Mapping[str, Any]:
        """What psycopg needs to reach `node`, as the monitor does."""
        if self._monitor is None:
            raise RuntimeError(_NO_MONITOR)
        return self._monitor.connect_args(node)

    def start(self) -> None:
        """Start the monitor if it is not running, and wait for its first round once.

        Waits ``start_timeout`` seconds at most. Cheap to call again.

        Raises:
            ConfigError: a configured replica is none, belongs to another cluster, or opens another
                database than the primary.
        """
        monitor = self._monitor
        if monitor is not None and self._split:
            monitor.start(self.config.start_timeout)
            mistake = self.snapshot.impostor()
            if mistake is not None:
                monitor.stop()
                raise ConfigError(mistake)
        self.started = True
        self.draining = False

    def refresh(self, timeout: float = 5.0) -> Snapshot:
        """Probe every node now and return what was found.

        Args:
            timeout: seconds to wait for the round.
        """
        if self._monitor is None:
            raise RuntimeError(_NO_MONITOR)
        self._monitor.start()
        self._monitor.round(timeout)
        return self.snapshot

    @property
    def in_use(self) -> int:
        """Connections checked out now, to all nodes, by every engine or pool of this Router.

        Those of a `sqlalchemy.pool.NullPool` are not known.
        """
        return sum(use.busy for use in self.use().values())

    def use(self) -> dict[str, Use]:
        """Connections to each node, by its name: those of every engine or pool of this Router.

        Those of a `sqlalchemy.pool.NullPool` are not known.
        """
        found = {node.name: Use() for node in self.servers}
        for pools in list(self._pools):
            for node, use in pools.use().items():
                before = found.get(node.name, Use())
                found[node.name] = Use(before.busy + use.busy, before.idle + use.idle)
        return found

    def close(self, drain: float = 0.0) -> bool:
        """Stop the monitor. Statements are still routed, by what was last known.

        Args:
            drain: seconds to wait first until no connection is in use; what begins meanwhile is
                waited for too, so let nothing new in before. Blocks the calling thread.

        Returns:
            whether no connection was in use when it stopped.
        """
        until = self.clock() + drain
        self.draining = drain > 0
        while self.in_use and (left := until - self.clock()) > 0:
            self.runtime.sleep(min(left, DRAIN_STEP))
        drained = not self.in_use
        self.started = False
        if self._monitor is not None:
            self._monitor.stop()
        return drained

    def after_fork(self) -> None:
        """In a forked child: probe anew before the first statement, and forget what is under way
        in the parent."""
        self.started = False
        # Connections being opened, and statements sent, in the parent never come back here.
        self._attempts = Attempts()
        self._choose_balancer()


def pin() -> None:
    """Treat the current context as if it had just written: nothing it reads from now on is older
    than this moment, on any cluster this process routes to.

    For writes the router did not see: another driver, another service, a worker.
    """
    for instance in routers():
        instance.pin()


_instances: dict[int, "weakref.ref[Router]"] = {}
"""Not a WeakSet: each token that is read or written asks who is there, and that takes it long."""


def routers() -> list[Router]:
    """Every Router of this process."""
    return [router for ref in list(_instances.values()) if (router := ref()) is not None]


def describe(stats: Mapping[str, Any]) -> str:
    """`Router.stats` as text, one line per node and reason."""
    lines = []
    for node, reasons in stats["decisions"].items():
        lines += [f"{node:<12} {n:>8}  {reason}" for reason, n in reasons.items()]
    return "\n".join(lines)
