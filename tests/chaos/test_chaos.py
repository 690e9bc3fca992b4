"""Every kind of fault once, against engines of every driver under load."""

from collections import Counter

import pytest

from tests.chaos.ledger import LIMIT, Request, broken_promises
from tests.chaos.run import Run
from tests.chaos.world import FAULTS


@pytest.mark.slow
@pytest.mark.timeout(170)
def test_faults_break_no_promise() -> None:
    """Through every fault: acknowledged writes are stored exactly once, none on a server that is
    not the primary, everybody sees their own, readers notice nothing, nothing hangs or leaks."""
    run = Run(seed=1)
    run.play(FAULTS)
    print(run.figures())
    assert run.broken == []
    assert {act.fault for act in run.acts} == set(FAULTS)


@pytest.mark.parametrize(
    ("request_", "rows", "said"),
    [
        (Request("d", 0, 1, ("c", 1), acknowledged=True), {}, "lost"),
        (Request("d", 0, 1, ("c", 1), acknowledged=True), {("c", 1): 2}, "stored 2 times"),
        (Request("d", 0, 1, ("c", 1), error="x"), {("c", 1): 1}, "told that it failed"),
        (Request("d", 0, 1, ("c", 1), True, stale=True), {("c", 1): 1}, "stale"),
        (Request("d", 0, LIMIT + 3), {}, "hung"),
    ],
)
def test_the_judge_sees_each_broken_promise(
    request_: Request, rows: dict[tuple[str, int], int], said: str
) -> None:
    """Each promise, broken on purpose, is found; an unknown commit may be there or not."""
    (found,) = broken_promises([request_], Counter(rows), 1.0)
    assert said in found
    unknown = Request("d", 0, 1, ("c", 1), unknown=True)
    assert broken_promises([unknown], Counter({("c", 1): 1}), 1.0) == []
    assert broken_promises([unknown], Counter(), 1.0) == []
