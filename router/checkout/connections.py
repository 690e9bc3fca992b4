"""The connections a checkout holds: at most one to the primary, and one to a replica."""

from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from router import errors, registry
from router.checkout.node_connection import Life, NodeConnection
from router.cluster.gate import GivenUp, brief
from router.connect.dialing import KeepsWaiting
from router.errors import RouterError
from router.model import Node
from router.rules.blacklist import is_full
from router.rules.journal import Journal
from router.rules.retry import cannot_connect

if TYPE_CHECKING:
    from router.cluster.router import Router

SESSION_LOST = "with it what only its session had: give this connection back, and take another"
"""Why a statement fails in a checkout that was bound to the connection that was lost."""

H = TypeVar("H", bound=NodeConnection)


class ConnectionSource(Protocol[H]):
    """The adapter's pools of connections, one for each node, as a checkout sees them."""

    @property
    def router(self) -> "Router":
        """The Router, which decides."""
        ...

    @property
    def driver_errors(self) -> tuple[type[Exception], ...]:
        """What the driver raises."""
        ...

    @property
    def default_isolation(self) -> str:
        """The isolation level of a connection on which none was set."""
        ...

    def start_router(self) -> None:
        """Start the Router; see `router.cluster.router.Router.start`."""

    def hold(self, node: Node) -> H:
        """A connection to `node`, taken from its pool."""
        ...

    def idle(self, node: Node) -> H | None:
        """As `hold`, of idle connections to `node` only; never opens one, nor waits."""
        ...

    def probe(self, held: H) -> None:
        """Probe a node over its connection `held`, and tell the Router; raises as the driver."""

    def reason(self, error: BaseException) -> str:
        """`error` as one line for people: SQLSTATE and message, without secrets."""
        ...

    def sqlstate(self, error: BaseException) -> str:
        """The five-character code of `error`, empty when the server sent none."""
        ...

    def translated(self, error: RouterError) -> Exception:
        """`error`, of the core, as the adapter's users expect it."""
        ...


class Connections(Generic[H]):
    """At most one connection to the primary and one to a replica, taken when they are needed.

    Attributes:
        pool: where connections come from.
        router: the Router of the cluster.
        open: whether statements are taken.
        primary: the connection to the primary that is held.
        replica: the connection to a replica that is held.
        last: the one that ran the last statement.
        timeline: the primary's timeline when its connection was taken, 0 when unknown.
        bound: everything stays on the primary's connection.
        dedicated: that connection avoids a PgBouncer that shares its sessions.
        journal: the session state that was built up, for a node taken later.
        slow: nodes that keep a connection waiting which another caller opens.
    """

    def __init__(self, pool: ConnectionSource[H]) -> None:
        self.pool: ConnectionSource[H] = pool
        self.router: Router = pool.router
        self.open: bool = True
        self.primary: H | None = None
        self.replica: H | None = None
        self.last: H | None = None
        self.timeline: int = 0
        self.bound: bool = False
        self.dedicated: bool = False
        self.journal: Journal = Journal()
        self.slow: tuple[Node, ...] = ()
        # Whether a transaction or session was open here when this process was forked.
        self._forked = False
        registry.renew(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}{self.state()}>"

    def state(self) -> str:
        """What it holds, for people."""
        held = [h.node.name for h in (self.primary, self.replica) if h is not None]
        return f"{'' if self.open else ' closed'} holding {', '.join(held) or 'nothing'}"

    def closed_error(self) -> Exception:
        """What a statement raises after the checkout has ended."""
        return RuntimeError("this connection was given back: take another one")

    def _must_be_open(self) -> None:
        # A connection taken now would never be given back.
        if self._forked:
            raise self.pool.translated(
                errors.TransactionLost(
                    "what is open on this connection belongs to the process that this one was "
                    "forked from: take another connection, and begin anew"
                )
            )
        if not self.open:
            raise self.closed_error()

    # -- a replica's ---------------------------------------------------------------------------

    def hold_replica(self, nodes: tuple[Node, ...]) -> tuple[H | None, Node, BaseException | None]:
        """A connection to one of `nodes`, the one held or one to the balancer's choice, or None;
        its node; and why that gave none, None where it is known only that it may not be used."""
        router = self.router
        if (held := self.replica) is not None:
            held.fresh = False
            if held.node in nodes and not held.broken:
                return held, held.node, None
            self.replica = None
            held.release(self.journal)
        node = nodes[0] if len(nodes) == 1 else router.balance(nodes)
        token = brief.set(self._keeps_primary() and router.policy.fallback)
        try:
            held = self.pool.hold(node)
        except GivenUp:
            return None, node, None
        except errors.NoReplicaAvailable as error:
            if isinstance(error, KeepsWaiting):
                self.slow = (*self.slow, node)
            return None, node, self.pool.translated(error)
        except RouterError:
            raise  # a pool's time-out may be a driver's error as well, and busy is not broken
        except self.pool.driver_errors as error:
            self._refused_by(node, error)
            return None, node, _without_frames(error)
        finally:
            brief.reset(token)
        if self.replica is not None:
            # Another thread or task has used this checkout meanwhile, and took one too.
            held.release(self.journal)
            return self.hold_replica(nodes)
        silent = router.view.outdated and not self._asked(held)
        known = router.view.snapshot
        # The probe that every new connection makes may have found another role than it had.
        if silent or (node not in known.replicas and node is not known.primary):
            held.release(self.journal)
            return None, node, None
        self.replica = held
        return held, node, None

    def _asked(self, held: H) -> bool:
        """Whether `held` answers; true where the monitor can ask its node itself."""
        report = self.router.view.snapshot.reports.get(held.node.name)
        if report is None or not report.obstacle or held.in_transaction or held.busy:
            return True
        try:
            held.autocommit(True)
            self.pool.probe(held)
        except self.pool.driver_errors as error:
            held.broken = True
            held.report_failure(error)
            return False
        except BaseException:
            held.broken = True
            if held is not self.primary:
                held.release(self.journal)
            raise
        return True

    # -- the primary's -------------------------------------------------------------------------

    def hold_primary(self, node: Node) -> H:
        """The connection to the primary: the one held, or a new one to `node`.

        Raises:
            TransactionLost: what was open on the one held is gone; as the adapter has it.
            PrimaryUnavailable: `node` cannot be reached, or is not the primary any more.
        """
        held, router = self.primary, self.router
        if held is not None:
            self.must_not_go_on(held)
            held.fresh = False
            if not held.broken and (held.node is node or held.in_transaction or self.bound):
                if not router.view.outdated or self._asked(held):
                    self.timeline = self.timeline or router.view.timeline
                    return held
                self.must_not_go_on(held)
            self.drop(held)
        elif self.bound:
            raise self.pool.translated(
                errors.TransactionLost(f"{node}: the connection was lost, and {SESSION_LOST}")
            )
        self._leave_replica()
        held = self._connect_primary(node)
        if self.primary is not None:
            # Another thread or task has used this checkout meanwhile, and took one too.
            held.release(self.journal)
            return self.hold_primary(node)
        if router.view.outdated and not self._asked(held):
            held.release(self.journal)
            return self.hold_primary(node)  # which ends with a new connection, or none
        if router.primary is not node:
            held.release(self.journal)
            raise self.pool.translated(
                errors.PrimaryUnavailable(f"{node} is not the primary any more: try again")
            )
        self.primary, self.timeline = held, router.view.timeline
        return held

    def _leave_replica(self) -> None:
        """Give the replica's connection back before waiting for the primary's pool: whoever waits
        for the one might hold the other, and all would wait for each other."""
        replica = self.replica
        if replica is None:
            return
        if replica.in_transaction:
            kept = self.must_stay(replica)
        else:
            kept = not replica.broken and replica.busy
        if not kept:
            self.drop(replica)

    def must_stay(self, replica: H) -> bool:
        """Whether the transaction that is open on `replica` has something to be kept."""
        return True

    def _keeps_primary(self) -> bool:
        """Likewise the primary's, before waiting for a replica's pool: whether it is kept all the
        same, for what its transaction or its session has. Who keeps it can read there."""
        primary = self.primary
        if primary is None:
            return False
        if self.bound or self.dedicated or primary.in_transaction:
            return True
        if not primary.broken and (primary.wrote or primary.streams or primary.busy):
            return True
        self.drop(primary)
        return False

    def _connect_primary(self, node: Node) -> H:
        try:
            return self.pool.hold(node)
        except errors.NoReplicaAvailable:
            raise GivenUp(node) from None  # it has left, or is not waited for by so many
        except RouterError:
            raise
        except self.pool.driver_errors as error:
            full = self._refused_by(node, error)
            reason = self.pool.reason(error)
            cure = "Start it, or correct its address in url"
            if full:
                cure = "Make the pools smaller, or raise max_connections there"
            raise self.pool.translated(
                errors.PrimaryUnavailable(f"{node} cannot be reached: {reason}. {cure}")
            ) from error

    def _refused_by(self, node: Node, error: Exception) -> bool:
        """Keep `node` out for the `error` that a new connection to it met, unless it is only full;
        whether it is. What the user did with the connection is raised again."""
        pool, health = self.pool, self.router.health
        state = pool.sqlstate(error)
        if not cannot_connect(state, health.lost):
            raise error
        reason = pool.reason(error)
        full = is_full(state, reason)
        if not full:
            health.failed(node, reason)
        return full

    def vouched(self) -> bool:
        """Whether the primary, which answers no probe, answers over a connection that is open;
        that one is then held.

        The connections that serve are the best probe: the monitor's own may be slow to open, or
        not be let in any more. None is opened here. A server that is silent makes its caller wait
        for ``probe_timeout``, and is then down for all others for a while: see `Health.may_try`.
        """
        router, held = self.router, self.primary
        node = router.primary
        if node is None or router.snapshot.doubted(node.name) is None:
            return False
        if held is not None and (held.broken or held.node is not node):
            return False  # what is open there has to be ended first
        if not router.health.may_try(node):
            return False
        while held is not None or (held := self.pool.idle(node)) is not None:
            life = self._asked_for_life(held)
            if held is self.primary and held.broken and (held.in_transaction or self.bound):
                return False
            self._keep_if_alive(held, life)
            if life is not Life.ENDED:
                return life is Life.ANSWERS
            held = None
        router.health.silent(node, tried=False)
        return False

    def _asked_for_life(self, held: H) -> Life:
        """Ask the primary over a connection that is open, and tell the Router what came of it."""
        router = self.router
        try:
            life = held.answers(router.config.probe_timeout, router.runtime)
        except BaseException:
            if held is not self.primary:
                held.release(self.journal)
            raise
        if life is Life.ANSWERS:
            router.health.vouch(held.node)
        elif life is Life.SILENT:
            router.health.silent(held.node, tried=True)
        return life

    def _keep_if_alive(self, held: H, life: Life) -> None:
        if held is self.primary:
            if held.broken:
                self.drop(held)
        elif life is Life.ANSWERS and not held.broken and self.primary is None:
            self.primary, self.timeline = held, self.router.view.timeline
        else:
            held.release(self.journal)

    def must_not_go_on(self, held: H) -> None:
        """Refuse to run the rest of a transaction by itself, or on a server that was replaced.

        Raises:
            TransactionLost: the first part went with the connection `held`, or with a primary that
                is followed no more; as the adapter has it.
        """
        fenced = self.superseded(held)
        if fenced:
            # Closed, not given back: whoever had it next would write there again.
            held.broken = held.distrusted = True
        if not held.broken or not (held.in_transaction or self.bound):
            return
        lost = SESSION_LOST
        if held.in_transaction:
            lost = "nothing of the open transaction was committed: roll it back, and begin anew"
        why = "another server is the primary now" if fenced else "the connection was lost"
        raise self.pool.translated(errors.TransactionLost(f"{held.node}: {why}, and {lost}"))

    def superseded(self, held: H) -> bool:
        """Whether `held`, the primary's connection, leads to a server that was replaced."""
        return self.router.view.snapshot.superseded(held.node, self.timeline)

    def must_count(self, held: H) -> None:
        """Say that a commit which `held` has just acknowledged may have been for nothing.

        Raises:
            CommitUnknown: its server was replaced meanwhile; as the adapter has it.
        """
        if held is not self.primary or not self.superseded(held):
            return
        held.broken = held.distrusted = True
        raise self.pool.translated(
            errors.CommitUnknown(
                f"{held.node}: another server became the primary while this was committed here, "
                "so the new one may have it or not: look before you repeat it"
            )
        )

    def session(self, node: Node) -> H | None:
        """A connection to `node`, the primary, by ``session_url``; None without that URL."""
        return None

    # -- the end -------------------------------------------------------------------------------

    def written(self) -> None:
        """What was written on the primary is committed, or may be; see `Transactions.written`."""

    def drop(self, held: H) -> None:
        """Give back the connection `held` before the checkout ends."""
        primary = held is self.primary
        if primary:
            self.primary = None
            self.dedicated = False
        elif held is self.replica:
            self.replica = None
        try:
            held.release(self.journal)
        finally:
            if primary:
                self.written()  # or lost with it

    def after_fork(self) -> None:
        """In a forked child: leave to the parent what is held, and what is open there.

        With nothing open, this checkout takes connections of the child's own from now on.
        """
        helds = [held for held in (self.primary, self.replica) if held is not None]
        if any(held.in_transaction for held in helds) or self.bound:
            self._forked, self.open = True, False
        registry.leave_to_parent(*helds)
        self.primary = self.replica = self.last = None


def _without_frames(error: Exception) -> Exception:
    """`error`, which may never be raised again, without the frames that it came by, and so what
    led to it. They hold the checkout, and SQLAlchemy's and psycopg's own hold the error: in that
    circle, a checkout that nobody closed would be given back when the garbage collector finds it,
    and not at once."""
    led: BaseException | None = error
    while led is not None and led.__traceback__ is not None:
        led = led.with_traceback(None).__context__
    return error
