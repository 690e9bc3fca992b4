"""What surrounds a statement: what an open transaction leaves no choice about, which nodes are
left after some have failed, and the short ways held to the rules."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.errors import NodeUnavailable, PrimaryUnavailable, ReplicaWriteRefused, RouterError
from router.model import Node, Stray
from router.rules.context import LastRead, Pins
from router.rules.decide import decide, one_more, read_alone
from router.rules.decision import Policy, Reason
from router.rules.situation import Situation, Transaction, needs_transaction, surrounding
from router.rules.view import View
from router.sql.intent import Intent, Kind, OnStandby, Verb
from tests.rules.test_decide import (
    AHEAD,
    ALONE,
    DOUBTED,
    HEALTHY,
    LOCAL,
    NOW,
    PINNED,
    READ,
    REFUSED,
    SESSION,
    UNSEEN,
    WRITE,
    A,
    B,
    P,
    attempt,
    last_values,
    many,
    out,
    pins,
    policies,
    situations,
    snapshot,
    views,
)

OPEN = Situation(Transaction.ON_REPLICA, A)
ACTS = Intent(Kind.WRITE, "a lock", on_standby=OnStandby.ACTS)
READ_ONLY = Situation(Transaction.READ_ONLY, A)
COMMIT = Intent(Kind.TRANSACTION, "a COMMIT", verb=Verb.COMMIT)


def goes(intent: Intent, situation: Situation, view: View = HEALTHY, **more: Any) -> Any:
    """The node and the reason."""
    decision = decide(intent, situation, view, Policy(), now=NOW, **more)
    return "".join(n.name for n in decision.nodes), decision.reason


@pytest.mark.parametrize("intent", [READ, SESSION, COMMIT])
def test_a_transaction_open_on_a_replica_goes_on_there(intent: Intent) -> None:
    """Reads, settings and the end of the transaction stay where it is open."""
    assert goes(intent, OPEN) == ("a", Reason.HELD)


def test_a_write_leaves_the_transaction_open_on_a_replica() -> None:
    """In a transaction that is not read-only, a write goes to the primary."""
    assert goes(WRITE, OPEN) == ("p", Reason.ACTS)


def test_who_asks_for_the_primary_gets_it_beside_an_open_transaction() -> None:
    """using_primary() reads on the primary although a transaction is open on a replica; settings
    and a COMMIT belong to the one that is open."""
    assert goes(READ, OPEN, force="primary") == ("p", Reason.FORCED_PRIMARY)
    assert goes(SESSION, OPEN, force="primary") == ("a", Reason.HELD)
    assert goes(COMMIT, OPEN, force="primary") == ("a", Reason.HELD)


@pytest.mark.parametrize("intent", [READ, SESSION, COMMIT, REFUSED])
def test_nothing_leaves_a_read_only_transaction_for_a_block(intent: Intent) -> None:
    """In using_primary() too, all of it stays where it can be rolled back; only the statement's
    own option says otherwise."""
    assert goes(intent, READ_ONLY, force="primary") == ("a", Reason.READ_ONLY)
    own = READ_ONLY._replace(leaves=True)
    assert goes(READ, own, force="primary") == ("p", Reason.FORCED_PRIMARY)


@pytest.mark.parametrize("intent", [UNSEEN, DOUBTED, ACTS, READ])
def test_the_primary_is_no_substitute_three_times(intent: Intent) -> None:
    """What begins a read-only transaction, and finds neither a replica nor the primary, fails; an
    old connection to the primary that ended is followed by a new one."""
    once = Situation(Transaction.READ_ONLY, failed=(P,))
    assert goes(intent, once, ALONE)[0] == "p"
    situation = once._replace(failed=(P, P))
    with pytest.raises(NodeUnavailable, match="no node is left"):
        goes(intent, situation, ALONE)


def test_a_stray_gives_a_pinned_read_to_the_primary_or_to_nobody() -> None:
    """No replica of last resort shows a write that the context has made."""
    away = View(snapshot(p=None, b=990), out())
    stray = Stray("it follows another server", True, True, 1, 1, 99.0)
    view = View(replace(away.snapshot, strays={"a": stray}), out())
    with pytest.raises(PrimaryUnavailable):
        goes(READ, OPEN, view, pin=PINNED)


def test_the_primary_that_is_called_down_is_tried_when_all_else_has_failed() -> None:
    """Probes may not have met it since it is back; without a failure nobody waits for it."""
    away = View(snapshot(p=None, a=None, b=None), out())
    with pytest.raises(PrimaryUnavailable):
        goes(READ, Situation(), away)
    assert goes(READ, Situation(failed=(A, B)), away) == ("p", Reason.NO_REPLICA)


def test_a_read_that_would_miss_a_write_leaves_the_open_transaction() -> None:
    """Pinned to more than the replica shows, the read is the primary's."""
    assert goes(READ, OPEN, pin=AHEAD) == ("p", Reason.PIN_PRIMARY)
    assert goes(SESSION, OPEN, pin=AHEAD) == ("a", Reason.HELD)


def test_what_is_the_servers_own_leaves_a_transaction_that_nobody_declared() -> None:
    """It is asked of the primary, unless a replica was asked for; in one that is read-only it is
    asked of that transaction's own session."""
    assert goes(LOCAL, OPEN) == ("p", Reason.SERVER_LOCAL)
    assert goes(LOCAL, OPEN, force="replica") == ("a", Reason.HELD)
    assert goes(LOCAL, READ_ONLY) == ("a", Reason.READ_ONLY)


def test_what_nobody_knows_does_not_follow_in_a_read_only_transaction() -> None:
    """A replica would run it in silence, so it is refused before it is sent."""
    with pytest.raises(ReplicaWriteRefused):
        goes(UNSEEN, READ_ONLY)


@many
@given(situations, st.lists(st.sampled_from([P, A, B]), max_size=5))
def test_a_node_that_failed_gets_the_statement_again_only_as_the_primary(
    situation: dict[str, Any], failed: list[Node]
) -> None:
    """The rules give no replica that failed this statement, nor the primary as a substitute once
    it has failed twice."""
    given_ = dict(situation)
    asked = Situation(given_.pop("transaction"), failed=tuple(failed))
    try:
        decision = decide(situation=asked, now=NOW, **given_)
    except RouterError:
        return
    assert decision.on_primary or not set(failed).intersection(decision.nodes)
    if decision.reason is Reason.NO_REPLICA:
        assert failed.count(P) < 2


def test_the_last_node_that_failed_leaves_nothing() -> None:
    """With every node failed the statement gets one clear error."""
    with pytest.raises(NodeUnavailable, match="no node is left"):
        goes(READ, Situation(failed=(P, P)), ALONE)


@many
@given(views(), policies, st.sampled_from([READ, WRITE, SESSION, COMMIT]), st.integers(0, 2))
def test_one_more_is_row_two(view: View, policy: Policy, intent: Intent, timeline: int) -> None:
    """Where the short way knows a node, the rules give the same decision."""
    found = one_more(intent.kind, view, P, timeline)
    if found is not None:
        given_ = {"intent": intent, "transaction": Transaction.ON_PRIMARY, "view": view}
        assert attempt({**given_, "policy": policy}) == found


@many
@given(views(), pins, st.none() | last_values, st.sampled_from([None, A, B]))
def test_a_read_alone_is_row_seven(view: View, pin: Any, last: LastRead | None, held: Any) -> None:
    """Where the short way knows the nodes, the rules let the read run there."""
    context = Pins()
    if pin is not None:
        context.set("one", pin)
    if last is not None:
        context.reads["one"] = last
    assert read_alone(LOCAL, view, context, "one", held) is None
    found = read_alone(READ, view, context, "one", held)
    if found is None:
        return
    ruled = attempt({"view": view, "pin": pin, "last": last})
    assert ruled is not None
    assert not ruled.on_primary
    assert {held} <= set(ruled.nodes) if held else ruled == found


@given(
    st.fixed_dictionaries(
        dict.fromkeys(("on_replica", "bound", "declared", "read_only", "explicit"), st.booleans())
    )
)
def test_what_is_open_on_the_primary_comes_first(facts: dict[str, bool]) -> None:
    """An open transaction on the primary surrounds a statement, whatever else was said."""
    assert surrounding("READ COMMITTED", on_primary=True, **facts) is Transaction.ON_PRIMARY
    nothing = surrounding("READ COMMITTED", on_primary=False, **facts) is Transaction.NONE
    assert nothing is not any(facts.values())


@pytest.mark.parametrize(
    ("intent", "situation", "needed"),
    [
        (READ, Situation(), False),
        (LOCAL, Situation(), False),
        (READ, Situation(stream=True), True),
        (READ, Situation(settings_open=True), True),
        (READ, Situation(Transaction.EXPLICIT), True),
        (READ, Situation(Transaction.BOUND), True),
        (WRITE, Situation(), True),
        (WRITE, Situation(isolation="AUTOCOMMIT"), False),
        (COMMIT, Situation(Transaction.EXPLICIT), False),
    ],
)
def test_when_a_transaction_has_to_be_open(
    intent: Intent, situation: Situation, needed: bool
) -> None:
    """A read by itself needs none; a write does, outside autocommit; its end never begins one."""
    view = View(snapshot(), out())
    decision = decide(intent, situation, view, Policy(), now=NOW)
    assert needs_transaction(intent, situation, decision, Policy()) is needed
