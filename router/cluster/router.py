"""The Router: one process's view of one cluster.

It answers every adapter's four questions: where may this run, who failed, who is well again, what
was written. Its parts are `health`, `membership`, `pinning` and the catalog; what they know stands
in one `State`.

Nothing here opens a connection: adapters run statements, the monitor probes.
"""

import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from router import registry
from router.cluster.catalog import CatalogInForce
from router.cluster.dry_run import DryRun
from router.cluster.health import Health
from router.cluster.membership import Membership, Use
from router.cluster.observation import Observation
from router.cluster.pinning import Pinning
from router.cluster.state import State
from router.config.config import Config
from router.errors import ConfigError
from router.messages import masked
from router.model import Node, Report, Snapshot
from router.rules.balance import BALANCERS, Balancer, TimedBalancer, preferring
from router.rules.blacklist import Entry, Outage
from router.rules.context import RoutingContext, current_context
from router.rules.decide import decide, last_resort
from router.rules.decision import Decision
from router.rules.dryrun import DryRunReport
from router.rules.situation import NOTHING, Situation
from router.runtime import SYSTEM, Runtime
from router.sql.classifier import Classifier
from router.sql.intent import Intent
from router.telemetry import Tally

if TYPE_CHECKING:
    from router.cluster.monitor import Monitor

DRAIN_STEP = 0.02
"""Seconds between two looks at whether connections are still in use."""

_NO_MONITOR = "the Router has no monitor: it was built without a way to connect"


class Router(State):
    """Routes the statements of one process to one cluster.

    Adapters make one for each engine, pool or database alias and show it as ``.router``. Every
    method may be called from any thread.

    Attributes:
        draining: whether `close` was told to drain it, and `start` has not been called since.
        decisions: statements by (node name, reason).
        observers: called with this Router after probes were taken in, in the monitor's thread;
            must not block, nor change anything here.
        instrumented: whether statements take a slower path: they are timed, or get a comment.
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
        super().__init__(config, runtime or Runtime(clock=clock, rand=rand))
        self.decisions: Tally = self.telemetry.decisions
        # Whether a read outside a transaction goes to a replica, and is one by itself there.
        self.reads_alone: bool = not (config.reads_in_transaction or config.dry_run)
        # Weak, so that a Router ends with its last reference, and its locks and pins with it.
        state: State = weakref.proxy(self)
        self.health: Health = Health(state)
        self.membership: Membership = Membership(state)
        self.pinning: Pinning = Pinning(state, routers)
        self.catalog: CatalogInForce = CatalogInForce(state, routers)
        self.classifier: Classifier = self.catalog.classifier
        self.observation: Observation = Observation(state, self.health, self.membership.retire)
        self.dry_run: DryRun = DryRun(state)
        self.started: bool = False
        # Ended by close(), and nobody has asked it for anything since.
        self.closed: bool = False
        self.draining: bool = False
        self.observers: list[Callable[[Router], None]] = []
        self._choose_balancer()
        key, forget = id(self), _instances.pop
        _instances[key] = weakref.ref(self, lambda _: forget(key, None))
        registry.renew(self)

    @property
    def replicas(self) -> tuple[Node, ...]:
        """The replicas that may serve a read now."""
        return self.view.replicas

    @property
    def blacklisted(self) -> Mapping[str, Entry]:
        """The nodes that are kept out, by name, with since when, until when and why."""
        return self.view.out

    @property
    def outages(self) -> tuple[Outage, ...]:
        """The last hundred times a node was kept out that are over, oldest first."""
        return self.kept_out.history

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
        """The former name of `instrumented`."""
        return self.instrumented

    def stats(self) -> dict[str, Any]:
        """Counts since the start: ``decisions`` by node and reason, and every event's count."""
        decisions: dict[str, dict[str, int]] = {}
        counts = self.decisions.total()
        for node, reason in sorted(counts, key=lambda key: (key[0], str(key[1]))):
            decisions.setdefault(node, {})[str(reason)] = counts[node, reason]
        return {"decisions": decisions, "events": dict(self.telemetry.counts.total())}

    def intent(self, sql: str) -> Intent:
        """What `sql` does, from the cache where it was seen before."""
        return self.classifier(sql)

    def decide(
        self,
        intent: Intent,
        situation: Situation = NOTHING,
        *,
        force: str | None = None,
        context: RoutingContext | None = None,
    ) -> Decision:
        """Apply the rules to one statement. See `router.rules.decide.decide` for what it raises.

        Args:
            intent: what the statement does.
            situation: what surrounds it, and which nodes have failed it.
            force: "primary" or "replica" when the statement's options say so, whatever its hint.
            context: the request's context; the current one by default.
        """
        view = self.view
        if context is None:
            context = current_context()
        pin = last = None
        now = self.clock()
        pins = context.pins
        if pins.by_cluster or pins.arrived is not None:
            pin = self.pinning.current(context, view, now)
        if pins.reads:
            last = pins.reads.get(self.cluster)
        force = force or intent.hint or context.force
        decision = decide(
            intent, situation, view, self.policy, now=now, pin=pin, last=last, force=force
        )
        if not self.config.dry_run:
            return decision
        return self.dry_run.kept(decision, self.pick(decision.nodes), context, now)

    def dry_run_report(self) -> DryRunReport:
        """What routing would have done so far, while ``dry_run`` is on.

        Raises:
            ConfigError: it is off.
        """
        return self.dry_run.report()

    def last_resort(self, context: RoutingContext) -> tuple[Node, ...]:
        """Replicas for a read of `context` that the primary cannot serve; as the rules'."""
        return last_resort(self.view, context.pins.reads.get(self.cluster))

    def pick(self, nodes: tuple[Node, ...]) -> Node:
        """One of `nodes`: the balancer's choice."""
        return nodes[0] if len(nodes) == 1 else self.balance(nodes)

    def _choose_balancer(self) -> None:
        chosen, rand = self.config.balance, self.runtime.rand
        base: Balancer = BALANCERS[chosen](rand) if isinstance(chosen, str) else chosen
        self._base = base
        timed = base if isinstance(base, TimedBalancer) else None
        self.timed_balancer: TimedBalancer | None = timed
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
        """Tell the balancer that `node` has answered, or failed, what was sent at `sent`
        (monotonic seconds)."""
        now = self.clock()
        if self.timed_balancer is not None:
            self.timed_balancer.answered(node, now - sent, now)

    def pin(self, context: RoutingContext | None = None) -> None:
        """Treat `context`, by default the current one, as if it had just written."""
        self.pinning.pin(context or current_context())

    def observe(self, *reports: Report) -> Snapshot:
        """Take in `reports` of probes, restore nodes that are due, and return the new snapshot."""
        now = self.clock()
        found = self.observation.take(reports, now)
        self.dry_run.tell(now)
        for observer in self.observers:
            try:
                observer(self)
            except Exception as error:  # noqa: BLE001 - an observer must not stop a statement
                self.telemetry.event("observer_failed", level="error", error=masked(f"{error!r}"))
        return found

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
        return self.health.blacklist(name, reason, duration=duration)

    def restore(self, name: str) -> Entry | None:
        """Let the node called `name` back in at once.

        Returns:
            what kept it out, None when nothing did.

        Raises:
            ConfigError: no node has that name.
        """
        return self.health.restore(name)

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
        return self.membership.add_replica(given)

    def remove_replica(self, name: str) -> Node:
        """Let a server leave while running.

        It gets no new statement. What is checked out finishes there; idle connections are closed
        at once, the others when they come back.

        Raises:
            ConfigError: no node has that name, or it is the primary.
        """
        return self.membership.remove_replica(name)

    def members_changed(self) -> None:
        """Prefer the nearer of the members there are now, and have a monitor for them."""
        self._prefer()
        if self.started and self.monitor is not None:
            self.monitor.start()

    def use_monitor(self, monitor: "Monitor") -> None:
        """Let `monitor` probe the nodes once `start` is called."""
        self.monitor: Monitor | None = monitor

    def connect_args(self, node: Node) -> Mapping[str, Any]:
        """What psycopg needs to reach `node`, as the monitor does."""
        if self.monitor is None:
            raise RuntimeError(_NO_MONITOR)
        return self.monitor.connect_args(node)

    def start(self) -> None:
        """Start the monitor if it is not running, and wait for its first round once.

        Waits ``start_timeout`` seconds at most. Cheap to call again.

        Raises:
            ConfigError: a configured replica is none, belongs to another cluster, or opens another
                database than the primary.
        """
        monitor = self.monitor
        if monitor is not None and self.split:
            monitor.start(self.config.start_timeout)
            mistake = self.snapshot.impostor()
            if mistake is not None:
                monitor.stop()
                raise ConfigError(mistake)
        self.started = True
        self.draining = self.closed = False

    def refresh(self, timeout: float = 5.0) -> Snapshot:
        """Probe every node now and return what was found.

        Args:
            timeout: seconds to wait for the round.
        """
        if self.monitor is None:
            raise RuntimeError(_NO_MONITOR)
        self.closed = False
        self.monitor.start()
        self.monitor.round(timeout)
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
        return self.membership.use()

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
        self.started, self.closed = False, True
        if self.monitor is not None:
            self.monitor.stop()
        return drained

    def after_fork(self) -> None:
        """In a forked child: probe before the first statement; forget what is under way."""
        self.started = self.closed = False
        self.health.after_fork()
        self.gate.after_fork()
        self._choose_balancer()  # statements sent in the parent never come back here


def pin() -> None:
    """Treat the current context as if it had just written: nothing it reads from now on is older
    than this moment, on any cluster this process routes to.

    For writes the router did not see: another driver, another service, a worker.
    """
    for instance in routers():
        instance.pin()


_instances: dict[int, "weakref.ref[Router]"] = {}
"""Not a WeakSet, which is slow to list: each token that is read or written does so."""


def routers() -> list[Router]:
    """Every Router of this process."""
    return [router for ref in list(_instances.values()) if (router := ref()) is not None]


def describe(stats: Mapping[str, Any]) -> str:
    """`Router.stats` as text, one line per node and reason."""
    lines = []
    for node, reasons in stats["decisions"].items():
        lines += [f"{node:<12} {n:>8}  {reason}" for reason, n in reasons.items()]
    return "\n".join(lines)
