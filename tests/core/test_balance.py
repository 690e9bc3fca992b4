"""Balancers are judged by their distribution: one that picks the first passes any other test."""

import random
import threading
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.balance import BALANCERS, Balancer, RoundRobin, Weighted
from router.model import Node

PICKS = 20_000


def nodes(*weights: float) -> tuple[Node, ...]:
    return tuple(Node(f"r{i}", "localhost", weight=w) for i, w in enumerate(weights))


def shares(balancer: Balancer, among: tuple[Node, ...], picks: int = PICKS) -> Counter[str]:
    return Counter(balancer(among).name for _ in range(picks))


@pytest.mark.parametrize(
    "weights", [(1.0, 1.0), (3.0, 1.0), (1.0, 3.0), (0.5, 0.25, 0.25), (1.0, 2.0, 3.0, 4.0)]
)
def test_each_replica_gets_its_share_of_the_weights(weights: tuple[float, ...]) -> None:
    """Over many picks every replica's count lies within five deviations of its share."""
    among = nodes(*weights)
    found = shares(Weighted(random.Random(36).random), among)
    for node in among:
        share = node.weight / sum(weights)
        deviation = (PICKS * share * (1 - share)) ** 0.5
        assert abs(found[node.name] - PICKS * share) < 5 * deviation


def test_the_injected_randomness_decides() -> None:
    """Equal numbers give equal picks, and the edges of [0, 1) give the first and the last."""
    among = nodes(1.0, 1.0, 2.0)
    one, other = (Weighted(random.Random(7).random) for _ in range(2))
    assert [one(among) for _ in range(50)] == [other(among) for _ in range(50)]
    assert Weighted(lambda: 0.0)(among).name == "r0"
    assert Weighted(lambda: 1 - 2**-53)(among).name == "r2"


@given(
    st.lists(st.floats(0.0, 1e12), min_size=1, max_size=8),
    st.floats(0.0, 1.0, exclude_max=True),
)
def test_no_weight_takes_no_reads_unless_nobody_has_any(weights: list[float], at: float) -> None:
    """A weight of 0 is never chosen beside another, and all zeroes share evenly."""
    among = nodes(*weights)
    chosen = Weighted(lambda: at)(among)
    assert chosen in among
    assert chosen.weight > 0 or not any(weights)
    if not any(weights):
        assert chosen is among[int(at * len(among))]


def test_another_set_of_nodes_brings_its_own_weights() -> None:
    """A replica that left or changed its weight takes effect with the next pick."""
    balancer = Weighted(random.Random(1).random)
    assert set(shares(balancer, nodes(1.0, 0.0), 100)) == {"r0"}
    assert set(shares(balancer, nodes(0.0, 1.0), 100)) == {"r1"}
    assert set(shares(balancer, nodes(1.0), 100)) == {"r0"}
    assert set(shares(balancer, nodes(2.0, 2.0), 100)) == {"r0", "r1"}


@given(st.integers(1, 7), st.integers(1, 50), st.floats(0.0, 1.0, exclude_max=True))
def test_round_robin_is_exact(size: int, rounds: int, start: float) -> None:
    """Over whole rounds every replica is picked equally often, each once per round."""
    among, balancer = nodes(*[1.0] * size), RoundRobin(lambda: start)
    turns = [balancer(among) for _ in range(size * rounds)]
    assert turns == turns[:size] * rounds
    assert set(turns) == set(among)


def test_round_robin_starts_anywhere() -> None:
    """Processes that start together do not all begin with the same replica."""
    among = nodes(1.0, 1.0, 1.0)
    rand = random.Random(3).random
    assert {RoundRobin(rand)(among) for _ in range(50)} == set(among)


@pytest.mark.parametrize("name", BALANCERS)
def test_threads_share_a_balancer(name: str) -> None:
    """Picks of many threads are all candidates of the set they were made from."""
    balancer, start = BALANCERS[name](random.Random(5).random), threading.Barrier(4)
    wrong: list[Node] = []

    def work(me: int) -> None:
        among = nodes(*[1.0 + i for i in range(me + 1)])
        start.wait()
        wrong.extend(n for n in (balancer(among) for _ in range(2000)) if n not in among)

    threads = [threading.Thread(target=work, args=(me,)) for me in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_round_robin_stays_exact_between_threads() -> None:
    """No turn is lost or given twice, whatever the threads."""
    balancer, among, start = RoundRobin(lambda: 0.0), nodes(1.0, 1.0, 1.0), threading.Barrier(6)
    found: list[Counter[str]] = []

    def work() -> None:
        start.wait()
        found.append(shares(balancer, among, 500))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(found, Counter()) == {"r0": 1000, "r1": 1000, "r2": 1000}
