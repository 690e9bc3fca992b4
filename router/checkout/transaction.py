"""What statements leave behind in a checkout, and the ends of its transactions."""

from contextlib import suppress
from typing import Any, Literal, TypeVar

from router.checkout.connections import Connections
from router.checkout.node_connection import DEFAULTS, Characteristics, NodeConnection
from router.checkout.route import Route
from router.checkout.signals import warn_of_signal
from router.errors import CommitUnknown, RouterError
from router.model import Node
from router.rules.context import Pins, RoutingContext, current_context
from router.rules.decide import SESSION
from router.rules.journal import entries
from router.sql.intent import Intent, Kind, OnStandby, Verb

H = TypeVar("H", bound=NodeConnection)

BOUND = Intent(
    Kind.WRITE,
    "the driver connection was handed out",
    binds=True,
    on_standby=OnStandby.REFUSED,  # by itself it runs nothing
)


class Transactions(Connections[H]):
    """The transactions of a checkout: what was written in them, and how they end.

    Attributes:
        autobegun: the open transaction was begun by the adapter, and not by the caller.
        explicit: a cursor that routes its own statements is in a transaction the caller began.
        declared_read_only: the open transaction began with a ``BEGIN READ ONLY``.
        characteristics: the settings of the transactions to come.
        pins: those of a Session with a context of its own, in place of the current context's.
        asked: the replica that last told something of itself, such as a process id.
    """

    open: bool
    primary: H | None
    replica: H | None
    last: H | None
    bound: bool
    autobegun: bool = False
    explicit: bool = False
    declared_read_only: bool = False
    characteristics: Characteristics = DEFAULTS
    pins: Pins | None = None
    asked: Node | None = None
    # The contexts whose writes are not known to be committed, in the order of their writes: a set
    # would have them in another one in each process, and no history could be replayed.
    _writers: tuple[RoutingContext, ...] = ()
    _sent: float = 0.0  # when the last statement that writes, or its COMMIT, was sent
    _ddl: bool = False
    _may_be_ddl: bool = False

    @property
    def isolation(self) -> str:
        """The isolation level statements of this checkout run at."""
        return self.characteristics.isolation or self.pool.default_isolation

    def characterise(self, **changed: Any) -> None:
        """Remember settings from ``execution_options``; a node gets them when it is taken."""
        self.characteristics = self.characteristics._replace(**changed)

    def is_read_only(self) -> bool:
        """Whether the open transaction was declared read-only."""
        return bool(self.declared_read_only or self.characteristics.read_only)

    def must_stay(self, replica: H) -> bool:
        """As the base class has it: its snapshot, if it is read-only or has a level with one for
        all of its statements, or rows that are still to be fetched. Under READ COMMITTED nothing
        else is: what comes next goes to the primary, and there finds what was set locally."""
        if self.isolation != "READ COMMITTED" or self.is_read_only():
            return True
        return replica.streams or replica.running

    # -- what statements did -------------------------------------------------------------------

    def writing(self, context: RoutingContext, intent: Intent) -> None:
        """`intent`, a write, is about to be sent: pin `context` first, so no read slips in."""
        self.router.pinning.wrote(context, done=False)
        if intent.signals:
            warn_of_signal(self, context)
        self._sent = self.router.clock()
        self._note_writer(context)
        if intent.ddl:
            self._ddl = True
            self.router.catalog.ddl()
        elif intent.may_be_ddl:
            self._may_be_ddl = True

    def _note_writer(self, context: RoutingContext) -> None:
        if context not in self._writers:
            self._writers += (context,)

    def ran(self, route: Route[H], parameters: Any) -> None:
        """Take over what the statement of `route`, no read, changed; it had `parameters`."""
        intent, held = route.intent, route.held
        if intent.binds and route.decision.on_primary:
            self.bound = True
        elif intent.holds:
            # In a read-only transaction on a replica, which binds nobody: its pool's next user
            # must not find the prepared statement, or the isolation level a standby refuses.
            held.spoilt = True
        route.note_left()
        kind = intent.kind
        if kind is SESSION:
            transactional = held.in_transaction
            if transactional or not intent.local:
                try:
                    for entry in entries(
                        route.sql, intent, parameters, many=route.asked.many, ask=held.ask
                    ):
                        held.applied.append(self.journal.add(entry, transactional=transactional))
                except BaseException as error:
                    # Nobody knows what was set there: it must not be used any more.
                    held.broken = True
                    held.report_failure(error)
                    raise
                if not transactional:
                    self._tidy()
        elif kind is Kind.TRANSACTION:
            self._controlled(intent, held, route.sql)
        if not held.in_transaction and intent.writes and not (self.bound and held.busy):
            self.router.health.heard(held.node)
            self.acknowledge()
            self.written()
            self.must_count(held)
            self.ask_position()

    def _controlled(self, intent: Intent, held: H, sql: str) -> None:
        verb = intent.verb
        if verb in (Verb.BEGIN, Verb.SET) and intent.read_only:
            self.declared_read_only = True
        elif verb is Verb.SAVEPOINT:
            self.journal.savepoint(_savepoint_name(sql))
        elif verb is Verb.RELEASE:
            self.journal.release(_savepoint_name(sql))
        elif verb is Verb.ROLLBACK_TO:
            self.journal.rollback_to(_savepoint_name(sql))
            replica = self.replica
            if replica not in (None, held) and len(replica.applied) > len(self.journal.entries):
                self.drop(replica)  # the savepoint, and so its end, is not known there
            del held.applied[len(self.journal.entries) :]
        held.in_transaction = held.look()
        if held.in_transaction and verb in (Verb.COMMIT, Verb.ROLLBACK):
            self._chained(verb)
            return
        if verb in (Verb.COMMIT, Verb.COMMIT_PREPARED, Verb.PREPARE):
            self.commit()
        elif verb is Verb.ROLLBACK:
            self.rollback()

    def _chained(self, verb: Verb) -> None:
        """After COMMIT AND CHAIN, or ROLLBACK: the next transaction is open already."""
        if verb is Verb.COMMIT:
            self.acknowledge()
            self.written()
            self.journal.commit()
        else:
            self.journal.rollback()
        self._forget()

    def acknowledge(self) -> None:
        """What was written is committed, and the primary has said so; `written` follows."""
        primary = self.primary
        if self._writers and not (primary is not None and self.superseded(primary)):
            self.router.observation.acknowledged(self._sent)

    def written(self) -> None:
        """What was written is committed, or may be: pin to after this moment."""
        for context in self._writers:
            self.router.pinning.wrote(context, done=True)
        self._writers = ()
        if self._ddl:
            self.router.catalog.ddl()
        elif self._may_be_ddl or self.bound:
            self.router.catalog.doubt()
        self._ddl = self._may_be_ddl = False

    def ask_position(self) -> None:
        """With ``pin_lsn="commit"``: learn where the commit stands, over its own connection."""
        primary = self.primary
        if primary is None or not self.router.pinning.asks_position:
            return
        try:
            primary.autocommit(True)
            self.pool.probe(primary)
        except self.pool.driver_errors as error:
            # The write is done: its pin waits for the monitor instead.
            primary.report_failure(error)
        except BaseException:
            primary.broken = True
            raise

    # -- the end of a transaction --------------------------------------------------------------

    def commit(self) -> None:
        """Commit on the primary; end what is open on the replica.

        Raises:
            CommitUnknown: nobody knows whether it was committed; as the adapter has it.
            Exception: this checkout is closed, and its end rolled back.
        """
        self._must_be_open()
        self._look_at_bound()
        wrote = bool(self._writers)
        if wrote and self.pins is None and (context := current_context()).pinning:
            self._note_writer(context)  # whoever commits shall see the write too
        primary = self.primary
        try:
            if primary is not None and primary.in_transaction:
                self._commit_primary(primary, wrote)
            elif wrote:
                # By a COMMIT sent as text, which has returned: its position is past all samples.
                self.acknowledge()
                self.written()
            if wrote and primary is not None:
                self.must_count(primary)
            self._end_replica("commit")
            if wrote:
                self.ask_position()
        except BaseException:
            self.journal.rollback()
            raise
        else:
            self.journal.commit()
            self._forget()  # first: what was local counts as run no more
            self._tidy()
        finally:
            self._ended()

    def _commit_primary(self, primary: H, wrote: bool) -> None:
        """End the transaction that is open on the primary."""
        try:
            if not wrote and not primary.broken and self.superseded(primary):
                # It has only read there: nothing is lost, and nothing more is sent.
                primary.broken = primary.distrusted = True
            else:
                self.must_not_go_on(primary)
                self._sent = self.router.clock()
                primary.end("commit")
                self.router.health.heard(primary.node)
                self.acknowledge()
        except RouterError:
            raise  # an adapter's may be its driver's as well
        except self.pool.driver_errors as error:
            if not primary.report_failure(error):
                raise
            self.drop(primary)
            raise self.pool.translated(
                CommitUnknown(
                    f"{primary.node}: the connection broke during COMMIT, so the "
                    "transaction may have been committed or not: look before you repeat "
                    f"it ({self.pool.reason(error)})"
                )
            ) from error
        except BaseException:
            primary.broken = True
            raise
        finally:
            primary.in_transaction = False
            # Also when it raised: the server may have committed all the same.
            self.written()

    def _look_at_bound(self) -> None:
        """Take over a transaction that was begun on a driver connection handed out."""
        primary = self.primary
        if not self.bound or primary is None or primary.broken or primary.in_transaction:
            return
        with suppress(*self.pool.driver_errors):
            primary.in_transaction = primary.busy
        if primary.in_transaction:
            self.writing(current_context(), BOUND)

    def _tidy(self) -> None:
        """Forget settings that were set again later, by connections that ran them too."""
        journal = self.journal
        before = len(journal.entries)
        if before < 2:
            return
        gone = journal.superseded()
        if not gone:
            return
        helds = [held for held in (self.primary, self.replica) if held is not None]
        for held in helds:
            # A connection that has not run the later settings still has the first to put back.
            if len(held.applied) < before and any(e in gone for e in held.applied):
                return
        journal.forget(gone)
        for held in helds:
            held.applied = [e for e in held.applied if e not in gone]

    def rollback(self) -> None:
        """Roll back whatever is open."""
        replica = self.replica
        if self.primary is None and not (replica and (replica.in_transaction or replica.applied)):
            # As nearly all reads end, and once more where their connections are given back.
            self.journal.rollback()
            self.autobegun = self.declared_read_only = False
            return
        self._look_at_bound()
        try:
            if (primary := self.primary) is not None and primary.in_transaction:
                try:
                    if not primary.broken:  # else it ends with its connection
                        primary.end("rollback")
                        self.router.health.heard(primary.node)
                except BaseException:
                    primary.broken = True
                    raise
                finally:
                    primary.in_transaction = False
                    # The pin stays, which is safe; asking for a position now lets it end soon.
                    self.written()
            self._end_replica("rollback")
        finally:
            self.journal.rollback()
            self._ended()

    def _end_replica(self, how: Literal["commit", "rollback"]) -> None:
        replica = self.replica
        if replica is None or not replica.in_transaction:
            return
        replica.in_transaction = replica.streams = False
        try:
            replica.end(how)
        except self.pool.driver_errors as error:
            # Nothing was written there: its loss must not fail the caller's transaction.
            replica.report_failure(error)
            replica.broken = True
        except BaseException:
            replica.broken = True
            raise

    def _ended(self) -> None:
        self.autobegun = False
        self.declared_read_only = False
        self._forget()

    def _forget(self) -> None:
        entries = self.journal.entries
        for held in (self.primary, self.replica):
            if held is not None and held.applied:
                held.applied = [e for e in held.applied if e in entries]

    # -- the end of the checkout ---------------------------------------------------------------

    def release(self) -> None:
        """End this checkout: give every connection back; what is open is rolled back."""
        primary, replica = self.primary, self.replica
        self.open = False
        self.primary = self.replica = self.last = None
        try:
            if replica is not None:
                replica.release(self.journal)
        finally:
            if primary is not None:
                primary.release(self.journal)
            if self._writers or self._ddl or self.bound:
                self.written()  # ended with a transaction open: rolled back, or lost

    def finish(self) -> None:
        """No statement is taken from now on."""
        self.open = False
        self.primary = self.replica = self.last = None
        if self._writers or self._ddl or self.bound:
            self.written()

    def after_fork(self) -> None:
        """In a forked child: as the base class has it; what was written is the parent's to end."""
        super().after_fork()
        self._writers = ()
        self._ddl = self._may_be_ddl = False


def _savepoint_name(sql: str) -> str:
    return sql.rstrip().rstrip(";").split()[-1].strip('"')
