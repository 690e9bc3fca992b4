"""The rules table, row by row, and what holds whatever the situation."""

from dataclasses import replace
from math import inf
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.cluster.roles import with_reports
from router.errors import (
    NodeUnavailable,
    NoReplicaAvailable,
    PrimaryUnavailable,
    ReplicaWriteRefused,
)
from router.model import Limits, Lsn, Node, Report, Role, Snapshot
from router.rules.blacklist import Entry
from router.rules.context import LastRead, Pin
from router.rules.decide import decide
from router.rules.decision import Decision, Policy, Reason
from router.rules.pin import expired, resolved
from router.rules.situation import Situation, Transaction
from router.rules.view import View
from router.sql.intent import Intent, Kind, OnStandby

P = Node("p", "p.example", role=Role.PRIMARY)
A = Node("a", "a.example")
B = Node("b", "b.example")
GONE = Node("gone", "gone.example")

READ = Intent(Kind.READ, "a SELECT")
LOCAL = Intent(Kind.READ, "a SELECT of pg_locks", server_local=True)
WRITE = Intent(Kind.WRITE, "an INSERT")
SESSION = Intent(Kind.SESSION, "a SET")
CONTROL = Intent(Kind.TRANSACTION, "a BEGIN")
REFUSED = Intent(Kind.WRITE, "an INSERT", on_standby=OnStandby.REFUSED)
DOUBTED = Intent(Kind.WRITE, "a table of late", on_standby=OnStandby.DOUBTED)
UNSEEN = Intent(Kind.WRITE, "a function of late", on_standby=OnStandby.UNSEEN)
BEGIN_READ_ONLY = Intent(Kind.TRANSACTION, "a BEGIN READ ONLY", read_only=True)

NOW = 100.0


def snapshot(
    *,
    a: int | None = 1000,
    b: int | None = 1000,
    p: int | None = 1000,
    at: float = 99.0,
    timelines: tuple[int, int, int] = (1, 1, 1),
) -> Snapshot:
    """A cluster whose replicas replayed to `a` and `b`; None is a node that does not answer."""
    reports = []
    for node, lsn, timeline in zip((P, A, B), (p, a, b), timelines, strict=True):
        if lsn is None:
            reports += [Report(node.name, at - 1 + i, error="refused") for i in (0, 1)]
        else:
            role = Role.PRIMARY if node is P else Role.REPLICA
            reports.append(Report(node.name, at, role, Lsn(lsn), timeline, lag_seconds=0.0))
    return with_reports(Snapshot.initial((P, A, B), Limits(), 0.0), reports, at)


def out(*names: str) -> MappingProxyType[str, Entry]:
    return MappingProxyType({n: Entry(n, "08006", 90.0, 120.0, 30.0) for n in names})


HEALTHY = View(snapshot(), out())
ALONE = View(snapshot(a=None, b=None), out())


def asked(
    intent: Intent = READ,
    transaction: Transaction = Transaction.NONE,
    view: View = HEALTHY,
    policy: Policy = Policy(),  # noqa: B008 - a frozen tuple
    **more: Any,
) -> Decision:
    situation = Situation(transaction)
    return decide(intent, situation, view, policy, **{"now": NOW, **more})


def went(decision: Decision) -> str:
    return "".join(n.name for n in decision.nodes)


PINNED = Pin(98.0, Lsn(1000), 1)
AHEAD = Pin(98.0, Lsn(1001), 1)
LAZY = Policy(lazy_transactions=True)
STRICT = Policy(fallback=False)
ANY = Policy(any_server_local=True)
TIME = Policy(consistency="time", pin_duration=5.0)
OFF = Policy(consistency="off")
ONE_BEHIND = View(snapshot(b=999), out())


# -- the table ---------------------------------------------------------------------------------

N, E, RO = Transaction.NONE, Transaction.EXPLICIT, Transaction.READ_ONLY
ON_P, ON_R, BOUND = Transaction.ON_PRIMARY, Transaction.ON_REPLICA, Transaction.BOUND
ISOLATED = Transaction.ISOLATED


@pytest.mark.parametrize(
    ("goes", "reason", "pins", "intent", "transaction", "more"),
    [
        # 1: the caller said so
        ("p", Reason.FORCED_PRIMARY, False, READ, N, {"force": "primary"}),
        ("p", Reason.FORCED_PRIMARY, True, WRITE, N, {"force": "primary"}),
        ("p", Reason.FORCED_PRIMARY, False, READ, RO, {"force": "primary"}),
        ("ab", Reason.FORCED_REPLICA, False, READ, N, {"force": "replica"}),
        ("ab", Reason.FORCED_REPLICA, False, READ, N, {"force": "replica", "pin": AHEAD}),
        ("ab", Reason.FORCED_REPLICA, False, SESSION, N, {"force": "replica"}),
        ("p", Reason.NO_REPLICA, False, READ, N, {"force": "replica", "view": ALONE}),
        # 2: a transaction is open on the primary, or its session holds something
        ("p", Reason.TRANSACTION, False, READ, ON_P, {}),
        ("p", Reason.TRANSACTION, True, WRITE, ON_P, {}),
        ("p", Reason.TRANSACTION, False, SESSION, ON_P, {}),
        ("p", Reason.TRANSACTION, False, CONTROL, ON_P, {}),
        ("p", Reason.BOUND, False, READ, BOUND, {}),
        ("p", Reason.BOUND, True, WRITE, BOUND, {}),
        # 3: a write, or not positively a read
        ("p", Reason.ACTS, True, WRITE, N, {}),
        ("p", Reason.ACTS, True, WRITE, E, {}),
        ("p", Reason.ACTS, True, WRITE, E, {"policy": LAZY}),
        ("p", Reason.ACTS, True, WRITE, ON_R, {}),
        ("p", Reason.WRITE, True, REFUSED, N, {}),
        ("p", Reason.UNKNOWN, True, DOUBTED, N, {}),
        ("p", Reason.UNKNOWN, True, UNSEEN, E, {}),
        ("p", Reason.WRITE, False, CONTROL, N, {}),
        # 4: an explicit transaction
        ("p", Reason.EXPLICIT, False, READ, E, {}),
        ("p", Reason.EXPLICIT, False, SESSION, E, {}),
        ("ab", Reason.READ, False, READ, E, {"policy": LAZY}),
        ("p", Reason.EXPLICIT, False, READ, ISOLATED, {}),
        ("p", Reason.EXPLICIT, False, READ, ISOLATED, {"policy": LAZY}),
        # 5a: an answer that is the server's own; a transaction or the caller says of which
        ("p", Reason.SERVER_LOCAL, False, LOCAL, N, {}),
        ("p", Reason.SERVER_LOCAL, False, LOCAL, N, {"pin": AHEAD}),
        ("p", Reason.SERVER_LOCAL, False, LOCAL, N, {"last": LastRead(B, 99.5)}),
        ("p", Reason.SERVER_LOCAL, False, LOCAL, E, {"policy": LAZY}),
        ("p", Reason.SERVER_LOCAL, False, LOCAL, ON_R, {}),
        ("p", Reason.SERVER_LOCAL, False, LOCAL, N, {"view": ALONE, "policy": STRICT}),
        ("p", Reason.EXPLICIT, False, LOCAL, E, {}),
        ("p", Reason.TRANSACTION, False, LOCAL, ON_P, {}),
        ("p", Reason.BOUND, False, LOCAL, BOUND, {}),
        ("ab", Reason.READ_ONLY, False, LOCAL, RO, {}),
        ("ab", Reason.FORCED_REPLICA, False, LOCAL, N, {"force": "replica"}),
        ("ab", Reason.READ, False, LOCAL, N, {"policy": ANY}),
        ("ab", Reason.HELD, False, LOCAL, ON_R, {"policy": ANY}),
        ("p", Reason.PIN_PRIMARY, False, LOCAL, N, {"policy": ANY, "pin": AHEAD}),
        # 5: declared read-only; a write in it fails as PostgreSQL fails it
        ("ab", Reason.READ_ONLY, False, READ, RO, {}),
        ("ab", Reason.READ_ONLY, False, REFUSED, RO, {}),
        ("p", Reason.READ_ONLY, False, DOUBTED, RO, {}),
        ("p", Reason.READ_ONLY, False, UNSEEN, RO, {}),
        ("p", Reason.NO_REPLICA, False, WRITE, RO, {"view": ALONE}),
        ("p", Reason.PIN_PRIMARY, False, WRITE, RO, {"pin": AHEAD}),
        ("ab", Reason.READ_ONLY, False, BEGIN_READ_ONLY, N, {}),
        ("a", Reason.READ_ONLY, False, READ, RO, {"view": ONE_BEHIND, "pin": PINNED}),
        ("p", Reason.PIN_PRIMARY, False, READ, RO, {"pin": AHEAD}),
        ("p", Reason.NO_REPLICA, False, READ, RO, {"view": ALONE}),
        # 6: pinned
        ("ab", Reason.READ, False, READ, N, {"pin": PINNED}),
        ("a", Reason.PIN_REPLICA, False, READ, N, {"view": ONE_BEHIND, "pin": PINNED}),
        ("p", Reason.PIN_PRIMARY, False, READ, N, {"pin": AHEAD}),
        ("p", Reason.PIN_PRIMARY, False, READ, N, {"pin": Pin(98.0)}),
        ("p", Reason.PIN_PRIMARY, False, READ, N, {"pin": Pin(98.0, Lsn(1), 7)}),
        ("p", Reason.PIN_PRIMARY, False, READ, N, {"pin": PINNED, "view": ALONE}),
        ("p", Reason.PIN_PRIMARY, False, SESSION, N, {"pin": AHEAD}),
        ("p", Reason.PIN_PRIMARY, False, READ, E, {"pin": AHEAD, "policy": LAZY}),
        ("p", Reason.PIN_PRIMARY, False, READ, N, {"pin": Pin(95.1), "policy": TIME}),
        ("ab", Reason.READ, False, READ, N, {"pin": Pin(95.0), "policy": TIME}),
        ("ab", Reason.READ, False, READ, N, {"pin": AHEAD, "policy": OFF}),
        # monotonic reads: the replica read from last, else one that is as recent
        ("b", Reason.READ, False, READ, N, {"last": LastRead(B, 99.5)}),
        ("ab", Reason.HELD, False, READ, ON_R, {"last": LastRead(B, 98.0)}),
        ("p", Reason.MONOTONIC_PRIMARY, False, READ, N, {"last": LastRead(GONE, 99.5)}),
        ("ab", Reason.READ, False, READ, N, {"last": LastRead(P, 98.0)}),
        ("a", Reason.READ, False, READ, N, {"last": LastRead(P, 98.0), "view": ONE_BEHIND}),
        ("p", Reason.MONOTONIC_PRIMARY, False, READ, N, {"last": LastRead(P, 99.0)}),
        # 7: any other read
        ("ab", Reason.READ, False, READ, N, {}),
        ("ab", Reason.READ, False, SESSION, N, {}),
        # 8: no replica is eligible
        ("p", Reason.NO_REPLICA, False, READ, N, {"view": ALONE}),
        ("p", Reason.NO_REPLICA, False, READ, N, {"view": View(snapshot(), out("a", "b"))}),
        ("b", Reason.READ, False, READ, N, {"view": View(snapshot(), out("a"))}),
    ],
)  # fmt: skip
def test_each_row_of_the_rules_table(
    goes: str,
    reason: Reason,
    pins: bool,
    intent: Intent,
    transaction: Transaction,
    more: dict[str, Any],
) -> None:
    """The first rule that applies names the nodes, prints its reason and says whether it pins."""
    decision = asked(intent, transaction, **more)
    assert (went(decision), decision.reason, decision.pins) == (goes, reason, pins)
    assert decision.on_primary is (goes == "p")
    assert str(decision.reason) == reason.value


# -- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize("transaction", Transaction)
def test_a_write_asked_onto_a_replica_is_refused(transaction: Transaction) -> None:
    """A write inside ``using_replica()`` is not sent; the error says what writes and the cure."""
    with pytest.raises(ReplicaWriteRefused, match=r"\(an INSERT\): run it outside using_replica"):
        asked(WRITE, transaction, force="replica")


@pytest.mark.parametrize("more", [{}, {"force": "replica"}, {"transaction": RO}])
def test_fallback_error_forbids_the_primary(more: dict[str, Any]) -> None:
    """With ``fallback="error"`` a read without a replica fails, and says of each why."""
    view = View(snapshot(b=None), out("a"))
    with pytest.raises(NoReplicaAvailable) as caught:
        asked(view=view, policy=Policy(fallback=False), **more)
    assert "a: blacklisted: 08006; b: refused" in str(caught.value)
    assert "fallback='error'" in str(caught.value)


def test_a_blacklisted_replica_that_answers_is_the_last_resort() -> None:
    """Without a primary a read goes to a replica that is out but answers probes, unless somebody
    took it out by hand, and never back in time."""
    both = View(snapshot(p=None), out("a", "b"))
    decision = asked(view=both)
    assert (decision.nodes, decision.reason) == ((A, B), Reason.LAST_RESORT)
    by_hand = MappingProxyType({**out("b"), "a": Entry("a", "a test", 90.0, inf, inf)})
    assert went(asked(view=View(snapshot(p=None), by_hand))) == "b"
    dead = View(snapshot(p=None, a=None), out("a", "b"))
    assert went(asked(view=dead)) == "b"
    assert went(asked(view=both, last=LastRead(A, 99.5))) == "a"
    for more in ({"policy": Policy(fallback=False)}, {"pin": AHEAD}, {"intent": WRITE}):
        with pytest.raises(NodeUnavailable):
            asked(view=both, **more)


def test_fallback_error_does_not_weaken_a_promise() -> None:
    """Pinned and monotonic reads go to the primary rather than back in time, or nowhere."""
    strict = Policy(fallback=False)
    assert asked(policy=strict, pin=AHEAD).reason is Reason.PIN_PRIMARY
    last = LastRead(GONE, 99.5)
    assert asked(policy=strict, last=last).reason is Reason.MONOTONIC_PRIMARY


def one_line(error: BaseException) -> str:
    text = str(error)
    assert "\n" not in text
    return text


def test_a_primary_that_is_down_is_named_with_since_when_and_the_cure() -> None:
    """A write with the primary silent fails at once: which node, how long, why, what to do."""
    with pytest.raises(PrimaryUnavailable) as caught:
        asked(WRITE, view=View(snapshot(p=None), out()))
    text = one_line(caught.value)
    assert "p (p.example:5432) has not answered for 2.0 s: refused" in text
    assert "start it again, or promote a replica" in text
    assert "a, b" in text


def test_no_primary_at_all_says_since_when_and_the_cure() -> None:
    """Without any primary the error counts from when the last one went."""
    demoted = with_reports(snapshot(), [Report("p", 99.5, Role.REPLICA, Lsn(1), 1)], 99.6)
    with pytest.raises(PrimaryUnavailable) as caught:
        asked(WRITE, view=View(demoted, out()))
    text = one_line(caught.value)
    assert "no server has been the primary for 0.4 s: promote a replica" in text
    assert "p, a, b" in text or "a, b" in text


def test_reads_go_on_without_a_primary() -> None:
    """Unpinned reads need no primary; a pinned one without a replica to serve it fails."""
    view = View(snapshot(p=None), out())
    assert went(asked(view=view)) == "ab"
    with pytest.raises(PrimaryUnavailable):
        asked(view=view, pin=AHEAD)
    with pytest.raises(PrimaryUnavailable):
        asked(LOCAL, view=view)


def test_a_blacklisted_primary_still_takes_writes_unless_it_was_given_a_duration() -> None:
    """What a promoted node got as a replica keeps no write from it; what it got as the primary,
    by a duration of its own, does."""
    assert went(asked(WRITE, view=View(snapshot(), out("p")))) == "p"
    entry = replace(out("p")["p"], primary=True)
    view = View(snapshot(), {"p": entry})
    with pytest.raises(PrimaryUnavailable, match=r"blacklisted for another 20\.0 s: 08006; wait"):
        asked(WRITE, view=view)
    assert went(asked(WRITE, view=view, now=120.0)) == "p"  # nobody probes without replicas


def test_nothing_else_is_sent_to_a_replica_by_force() -> None:
    """Reads and settings may be forced onto a replica when none is eligible only with fallback."""
    with pytest.raises(NoReplicaAvailable):
        asked(SESSION, view=ALONE, policy=Policy(fallback=False), force="replica")


# -- pins and positions ------------------------------------------------------------------------


def test_a_pin_gets_its_position_from_the_first_sample_after_it() -> None:
    """Without a sample since the commit a pin has no position; with one it has that one's."""
    view = snapshot(p=1234, at=99.0)
    assert resolved(Pin(99.0), view) is None
    assert resolved(Pin(98.5), view) == Pin(98.5, Lsn(1234), 1)
    already = Pin(98.5, Lsn(7), 1)
    assert resolved(already, view) is already


def test_after_a_promotion_a_pin_is_bounded_anew() -> None:
    """A position of the old timeline counts for nothing on the new one."""
    promoted = snapshot(p=1500, timelines=(2, 2, 1), a=1400, b=5000)
    pin = resolved(Pin(98.0, Lsn(1), 1), promoted)
    assert pin == Pin(98.0, Lsn(1500), 2)
    assert asked(view=View(promoted, out()), pin=pin).reason is Reason.PIN_PRIMARY


def test_a_pin_is_forgotten_only_when_every_replica_has_replayed_it() -> None:
    """A replica that is behind, silent or on another timeline may still come back older."""
    policy = Policy()
    assert expired(PINNED, snapshot(), policy, NOW)
    assert not expired(AHEAD, snapshot(), policy, NOW)
    assert not expired(Pin(98.0), snapshot(), policy, NOW)
    assert not expired(PINNED, snapshot(b=999), policy, NOW)
    assert not expired(PINNED, snapshot(b=None), policy, NOW)
    assert not expired(PINNED, snapshot(timelines=(1, 1, 2)), policy, NOW)


def test_in_time_mode_a_pin_lasts_its_duration() -> None:
    """`pin_duration` seconds after the write the pin is over, to the moment."""
    assert not expired(Pin(95.1), snapshot(), TIME, NOW)
    assert expired(Pin(95.0), snapshot(), TIME, NOW)


def test_a_probe_of_the_primary_frees_the_next_read() -> None:
    """When the replica read from is out, what the primary had by then is the floor."""
    view = View(snapshot(a=900, b=950, p=950), out("a"))
    assert went(asked(view=view, last=LastRead(A, 98.0))) == "b"
    view = View(snapshot(a=900, b=950, p=951), out("a"))
    assert asked(view=view, last=LastRead(A, 98.0)).reason is Reason.MONOTONIC_PRIMARY
    view = View(snapshot(a=900, b=950, p=950), out("a"))
    assert asked(view=view, last=LastRead(A, 99.0)).reason is Reason.MONOTONIC_PRIMARY


def test_a_replica_that_had_a_break_is_not_the_one_that_was_read_from() -> None:
    """After an outage the same replica must prove, as any other, that it is as recent."""
    broken = snapshot(a=900, b=950, p=950, at=97.0)
    broken = with_reports(broken, [Report("a", 98.5, error="starting up")], 98.5)
    back = [
        Report("a", 99.0, Role.REPLICA, Lsn(900), 1, lag_seconds=0.0),
        Report("p", 99.0, Role.PRIMARY, Lsn(950), 1),
    ]
    view = View(with_reports(broken, back, 99.0), out())
    assert went(asked(view=view, last=LastRead(A, 98.0))) == "b"
    assert went(asked(view=view, last=LastRead(A, 99.0))) == "a"


def test_another_server_of_the_same_name_is_not_the_one_that_was_read_from() -> None:
    """What a Router with other replicas read from "a" proves nothing of the "a" known here."""
    probed = [Report("p", 99.0, Role.PRIMARY, Lsn(950), 1)]
    view = View(with_reports(snapshot(a=900, b=950, p=950, at=97.0), probed, 99.0), out())
    other = Node("a", "elsewhere.example")
    assert went(asked(view=view, last=LastRead(A, 98.0))) == "a"
    assert went(asked(view=view, last=LastRead(other, 98.0))) == "b"


# -- whatever the situation --------------------------------------------------------------------

lsns = st.integers(990, 1010)
pin_values = st.builds(Pin, st.floats(90.0, 100.0), st.none() | lsns.map(Lsn), st.integers(1, 2))
pins = st.none() | pin_values
last_values = st.builds(LastRead, st.sampled_from([P, A, B, GONE]), st.floats(90.0, 100.0))


@st.composite
def views(draw: st.DrawFn) -> View:
    reports = []
    for name in draw(st.lists(st.sampled_from(["p", "a", "b"]), max_size=8)):
        started = draw(st.floats(90.0, 99.9))
        if draw(st.booleans()):
            reports.append(Report(name, started, error="refused"))
        else:
            reports.append(
                Report(
                    name,
                    started,
                    draw(st.sampled_from([Role.PRIMARY, Role.REPLICA])),
                    Lsn(draw(lsns)),
                    draw(st.integers(1, 2)),
                    lag_seconds=draw(st.none() | st.floats(0.0, 60.0)),
                )
            )
    limits = draw(st.sampled_from([Limits(), Limits(5.0), Limits(5.0, 8)]))
    cluster = Snapshot.initial((P, A, B), limits, 0.0)
    for report in reports:
        cluster = with_reports(cluster, [report], report.started)
    return View(cluster, out(*draw(st.sets(st.sampled_from(["a", "b"])))))


policies = st.builds(
    Policy,
    st.sampled_from(["lsn", "lsn", "time", "off"]),
    st.just(5.0),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
situations = st.fixed_dictionaries(
    {
        "intent": st.sampled_from(
            [READ, LOCAL, WRITE, REFUSED, DOUBTED, UNSEEN, SESSION, CONTROL, BEGIN_READ_ONLY]
        ),
        "transaction": st.sampled_from(Transaction),
        "view": views(),
        "policy": policies,
        "pin": pins,
        "last": st.none() | last_values,
        "force": st.sampled_from([None, None, "primary", "replica"]),
    }
)


def attempt(situation: dict[str, Any]) -> Decision | None:
    """The decision, or None where the rules refuse."""
    try:
        return asked(**situation)
    except (NodeUnavailable, ReplicaWriteRefused) as error:
        one_line(error)
        return None


readings = st.sampled_from([READ, SESSION, BEGIN_READ_ONLY])
loose = st.sampled_from([N, E, RO])  # what leaves a read a choice
many = settings(max_examples=300)


@many
@given(situations)
def test_every_decision_names_a_node_or_raises(situation: dict[str, Any]) -> None:
    """There is no decision without a node, nor any other error than the two that say why."""
    try:
        decision = asked(**situation)
    except PrimaryUnavailable:
        cluster = situation["view"].snapshot
        assert cluster.primary is None or cluster.down(cluster.primary.name)
    except NoReplicaAvailable:
        assert not situation["policy"].fallback
        assert not situation["view"].replicas
    except ReplicaWriteRefused:
        assert situation["intent"].kind is Kind.WRITE
        acts = situation["transaction"] is RO and situation["intent"] is WRITE
        assert situation["force"] == "replica" or acts
    else:
        assert decision.nodes
        assert isinstance(decision.reason, Reason)
        primary = situation["view"].snapshot.primary
        assert decision.on_primary is (decision.nodes == (primary,))


@many
@given(situations, st.sampled_from([t for t in Transaction if t is not RO]))
def test_a_write_never_goes_to_a_replica(
    situation: dict[str, Any], not_read_only: Transaction
) -> None:
    """Unless its transaction was declared read-only, a write goes to the primary or nowhere."""
    situation["intent"] = WRITE
    situation["transaction"] = not_read_only
    decision = attempt(situation)
    assert decision is None or (decision.on_primary and decision.pins)


@many
@given(situations, st.sampled_from([t for t in Transaction if t is not RO]))
def test_an_answer_that_is_the_servers_own_is_the_primarys(
    situation: dict[str, Any], not_read_only: Transaction
) -> None:
    """Unless a replica was asked for, by a block, an option or a declared transaction."""
    policy = situation["policy"]._replace(any_server_local=False)
    force = situation["force"] if situation["force"] != "replica" else None
    situation |= {"intent": LOCAL, "transaction": not_read_only, "policy": policy, "force": force}
    decision = attempt(situation)
    assert decision is None or (decision.on_primary and not decision.pins)


@given(situations)
def test_only_eligible_replicas_are_candidates(situation: dict[str, Any]) -> None:
    """A replica that is blacklisted, silent, behind or no replica is never chosen."""
    view = situation["view"]
    decision = attempt(situation)
    if decision is not None and not decision.on_primary:
        assert set(decision.nodes) <= set(view.snapshot.replicas)
        assert not {n.name for n in decision.nodes} & set(view.out)


@many
@given(situations, readings, loose, pin_values)
def test_a_pinned_read_never_goes_to_a_replica_that_lacks_the_write(
    situation: dict[str, Any], intent: Intent, transaction: Transaction, pin: Pin
) -> None:
    """In lsn mode a replica serves a pinned read only when known to have replayed the pin."""
    policy = situation["policy"]._replace(consistency="lsn", lazy_transactions=True)
    view = situation["view"]
    situation |= {"intent": intent, "policy": policy, "force": None, "pin": pin}
    situation |= {"transaction": transaction}
    decision = attempt(situation)
    if decision is not None and not decision.on_primary:
        assert pin.lsn is not None
        assert pin.timeline == view.snapshot.timeline
        for node in decision.nodes:
            report = view.snapshot.reports[node.name]
            assert report.timeline == pin.timeline
            assert report.lsn is not None
            assert report.lsn >= pin.lsn


@many
@given(situations, readings, loose, last_values)
def test_a_read_is_never_older_than_the_one_before(
    situation: dict[str, Any], intent: Intent, transaction: Transaction, last: LastRead
) -> None:
    """Another replica than the last must have replayed what the primary had after that read."""
    view = situation["view"]
    policy = situation["policy"]._replace(lazy_transactions=True)
    situation |= {"intent": intent, "policy": policy, "force": None, "last": last}
    situation |= {"transaction": transaction}
    decision = attempt(situation)
    snapshot = view.snapshot
    if decision is None or decision.on_primary:
        return
    if decision.nodes == (last.node,) and snapshot.reports[last.node.name].since <= last.at:
        return
    floors = [s.lsn for s in snapshot.samples if s.started > last.at]
    assert floors
    for node in decision.nodes:
        replayed = snapshot.replayed(node.name)
        assert replayed is not None
        assert replayed >= min(floors)


@given(situations)
def test_a_decision_depends_on_nothing_but_its_inputs(situation: dict[str, Any]) -> None:
    """Asked twice, the rules answer the same."""
    assert attempt(situation) == attempt(situation)


def test_the_hot_path_allocates_nothing() -> None:
    """An unpinned read outside a request returns the decision the view holds already."""
    assert asked() is HEALTHY.any_read
    assert asked(pin=PINNED) is HEALTHY.any_read


def test_a_node_is_only_told_apart_by_what_it_is() -> None:
    """A view made from equal values decides equally."""
    again = View(replace(HEALTHY.snapshot), out())
    assert asked(view=again) == asked()
