"""Pick one of several eligible replicas. Randomness is injected; nothing here keeps time."""

from collections.abc import Callable, Sequence
from itertools import accumulate, count
from typing import Protocol

from router.model import Node

Random = Callable[[], float]
"""A source of floats in [0, 1), such as `random.random`."""


class Balancer(Protocol):
    """Chooses among replicas that are all fit to serve the read; safe to call from any thread."""

    def __call__(self, nodes: Sequence[Node], /) -> Node:
        """One of `nodes`, which is never empty."""
        ...


class Weighted:
    """Each replica in proportion to its `Node.weight`; evenly when all weights are equal."""

    __slots__ = ("_cache", "_random")

    def __init__(self, random: Random) -> None:
        self._random = random
        self._cache: tuple[Sequence[Node], tuple[float, ...] | None] = ((), None)

    def __call__(self, nodes: Sequence[Node], /) -> Node:
        """One of `nodes`, each with the probability of its share of the weights."""
        if len(nodes) == 1:
            return nodes[0]
        of, sums = self._cache
        if of is not nodes:
            # One tuple per snapshot: the sums are computed once, not per read. Racing threads
            # compute the same thing; the pair is stored whole.
            sums = None
            if any(n.weight != nodes[0].weight for n in nodes):
                sums = tuple(accumulate(max(n.weight, 0.0) for n in nodes))
                sums = sums if sums[-1] > 0 else None
            self._cache = (nodes, sums)
        if sums is None:
            return nodes[int(self._random() * len(nodes))]
        point = self._random() * sums[-1]
        return next(node for node, upto in zip(nodes, sums, strict=True) if point < upto)


class RoundRobin:
    """Each replica in turn. The counter is one C call, so threads need no lock."""

    __slots__ = ("_turn",)

    def __init__(self, random: Random) -> None:
        # A random start, so that many processes do not all begin with the same replica.
        self._turn = count(int(random() * 1024))

    def __call__(self, nodes: Sequence[Node], /) -> Node:
        """The next of `nodes`."""
        return nodes[next(self._turn) % len(nodes)]


BALANCERS: dict[str, Callable[[Random], Balancer]] = {
    "weighted": Weighted,
    "round_robin": RoundRobin,
}
"""What the option ``balance`` may name; a callable of type `Balancer` is taken as it is."""
