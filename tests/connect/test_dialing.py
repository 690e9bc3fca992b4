"""Who may open a connection to a node when, so that one caller waits for a dead host."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.cluster.router import Router
from router.config.config import Config
from router.config.server import Server
from router.connect.dialing import PATIENCE, PROOF, Attempts, Turn
from router.errors import NoReplicaAvailable


def test_the_first_goes_alone_until_it_has_succeeded() -> None:
    """A second caller waits for the first, and goes beside others once a connection was opened."""
    attempts = Attempts()
    assert attempts.begin("a", 0.0) is Turn.GO
    assert attempts.begin("a", 0.1) is Turn.WAIT
    assert attempts.begin("b", 0.1) is Turn.GO
    attempts.end("a", 0.0, 0.2, ok=True)
    assert [attempts.begin("a", 0.3) for _ in range(3)] == [Turn.GO] * 3


def test_nobody_joins_an_attempt_that_takes_long() -> None:
    """However lately the node was well, an attempt older than PATIENCE sends others elsewhere."""
    attempts = Attempts()
    attempts.begin("a", 0.0)
    attempts.end("a", 0.0, 0.1, ok=True)
    assert attempts.begin("a", 0.2) is Turn.GO
    assert attempts.begin("a", 0.2 + PATIENCE) is Turn.GO
    assert attempts.begin("a", 0.2 + 1.1 * PATIENCE) is Turn.ELSEWHERE
    attempts.end("a", 0.2, 5.2, ok=False)
    attempts.end("a", 0.2 + PATIENCE, 5.4, ok=False)
    assert attempts.begin("a", 5.5) is Turn.GO


def test_a_proof_grows_old() -> None:
    """PROOF seconds after the last success the next attempt goes alone again."""
    attempts = Attempts()
    attempts.begin("a", 0.0)
    attempts.end("a", 0.0, 0.1, ok=True)
    assert attempts.begin("a", 0.2 + PROOF) is Turn.GO
    assert attempts.begin("a", 0.2 + PROOF) is Turn.WAIT


@given(st.lists(st.tuples(st.floats(0, 0.2), st.booleans(), st.integers(0, 9)), max_size=40))
def test_while_nothing_succeeds_at_most_one_is_under_way(
    steps: list[tuple[float, bool, int]],
) -> None:
    """Without a success no two attempts at one node are ever under way, whatever the timing."""
    attempts, now, under_way = Attempts(), 0.0, []
    for seconds, begin, _ in steps:
        now += seconds
        if begin and attempts.begin("a", now) is Turn.GO:
            under_way.append(now)
        elif not begin and under_way:
            attempts.end("a", under_way.pop(), now, ok=False)
        assert len(under_way) <= 1


def test_a_router_sends_callers_elsewhere_and_leaves_the_primary_alone() -> None:
    """connecting() raises for a replica that keeps someone waiting, never for the primary, and
    lets the next one try when that attempt has ended, by whatever error."""
    now = [0.0]
    router = Router(Config.build(Server("p"), ["a"]), clock=lambda: now[0])
    primary, replica = router.snapshot.nodes
    attempt = router.health.connecting(replica)
    attempt.__enter__()
    now[0] = 1.0
    with router.health.connecting(primary), router.health.connecting(primary):
        pass
    with pytest.raises(NoReplicaAvailable, match=r"replica1 .* keeps another connection"):
        router.health.connecting(replica).__enter__()
    assert not attempt.__exit__(OSError, OSError("timed out"), None)
    with router.health.connecting(replica):
        pass


def test_waiting_ends_with_the_first_attempt() -> None:
    """A caller that waits goes on as soon as the first connection is there."""
    router = Router(Config.build(Server("p"), ["a"]))
    replica = router.snapshot.nodes[1]
    inside, waited = threading.Event(), threading.Event()

    def pause(seconds: float) -> None:
        inside.set()
        waited.wait(seconds)

    def work() -> None:
        with router.health.connecting(replica, pause):
            pass

    thread = threading.Thread(target=work)
    with router.health.connecting(replica):
        thread.start()
        assert inside.wait(10)
    thread.join(10)
    assert not thread.is_alive()
