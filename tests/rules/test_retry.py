"""What a failed statement may still do: the table, row by row, and what holds whatever failed."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.model import Node, Role
from router.rules.decision import Reason
from router.rules.retry import CONFLICT, REFUSED_BY_STANDBY, Failure, cannot_connect, may_run_again
from router.sql.intent import Intent, Kind

P = Node("p", "p.example", role=Role.PRIMARY)
A = Node("a", "a.example")
READ = Intent(Kind.READ, "a SELECT")
KINDS = [Intent(kind, "a statement") for kind in Kind]


def again(failure: Failure, **more: Any) -> Reason | None:
    """Why a read that failed once may run again."""
    return may_run_again(READ, failure, (failure.node,), **{"fresh": True, "bound": False, **more})


@pytest.mark.parametrize(
    ("failure", "leads_to"),
    [
        (Failure(A, False, "25006"), Reason.HEALED),
        (Failure(A, False, "0A000"), Reason.HEALED),
        (Failure(A, False, "0A000", gone=True, stale=True), Reason.RETRIED),
        (Failure(A, False, "25006", read_only=True), None),
        (Failure(A, False, "40001"), Reason.RETRIED),
        (Failure(A, False, "08006", gone=True), Reason.RETRIED),
        (Failure(A, False, "42P01"), None),
        (Failure(P, True, "08006", gone=True), Reason.RETRIED),
        (Failure(P, True, "40001"), None),
        (Failure(P, True, "25006"), None),
    ],
)
def test_where_each_kind_of_failure_leads(failure: Failure, leads_to: Reason | None) -> None:
    """Each row of the table, and what is in none."""
    assert again(failure) is leads_to


failures = st.builds(
    Failure,
    st.sampled_from([P, A]),
    st.booleans(),
    st.sampled_from(["", "08006", "57P01", "42P01", *sorted(REFUSED_BY_STANDBY | CONFLICT)]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)


@settings(max_examples=300)
@given(st.sampled_from(KINDS), failures, st.booleans(), st.booleans())
def test_no_write_runs_twice_and_nothing_leaves_its_transaction(
    intent: Intent, failure: Failure, fresh: bool, bound: bool
) -> None:
    """What writes, stands in a transaction, or needs its session is never repeated."""
    found = may_run_again(intent, failure, (failure.node,), fresh=fresh, bound=bound)
    if found is not None:
        assert intent.kind in (Kind.READ, Kind.SESSION)
        assert fresh
        assert not bound


def test_the_primary_gets_one_fresh_connection() -> None:
    """A read that belongs on the primary is tried there twice, and no more."""
    failure = Failure(P, True, "08006", gone=True)
    assert may_run_again(READ, failure, (P,), fresh=True, bound=False) is Reason.RETRIED
    assert may_run_again(READ, failure, (P, P), fresh=True, bound=False) is None


@pytest.mark.parametrize(
    ("state", "cannot"),
    [("", True), ("28P01", True), ("3D000", True), ("08006", True), ("57P03", True),
     ("53300", True), ("XX000", True), ("42501", False), ("22023", False)],
)  # fmt: skip
def test_which_errors_say_that_a_server_lets_nobody_in(state: str, cannot: bool) -> None:
    """A refused login counts as a server that cannot be reached; a listener's mistake does not."""
    assert cannot_connect(state) is cannot
