"""Pick one of several eligible replicas. Randomness is injected, time comes in as `now`."""

from collections import deque
from collections.abc import Callable, Sequence
from itertools import accumulate, count
from math import exp, log
from typing import Protocol, runtime_checkable

from router.model import Node

Random = Callable[[], float]
"""A source of floats in [0, 1), such as `random.random`."""


class Balancer(Protocol):
    """Chooses among replicas that are all fit to serve the read; safe to call from any thread."""

    def __call__(self, nodes: Sequence[Node], /) -> Node:
        """One of `nodes`, which is never empty."""
        ...


@runtime_checkable
class TimedBalancer(Protocol):
    """A balancer that is told of each statement; any `Balancer` with these two methods is."""

    def sent(self, node: Node, now: float, /) -> None:
        """A statement is about to be sent to `node`, at `now` (monotonic seconds)."""

    def answered(self, node: Node, seconds: float, now: float, /) -> None:
        """`node` has answered, or failed, at `now` what was sent `seconds` ago."""


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


class Outstanding:
    """How many statements each node is busy with.

    One deque per node, as long as the count: appending and popping are one C call each, so no
    turn is lost between threads and none needs a lock.
    """

    __slots__ = ("_busy",)

    def __init__(self) -> None:
        self._busy: dict[str, deque[None]] = {}

    def __getitem__(self, node: Node) -> int:
        return len(self._busy.get(node.name, ()))

    def add(self, node: Node) -> None:
        """One more statement is on its way to `node`."""
        busy = self._busy.get(node.name)
        if busy is None:
            busy = self._busy.setdefault(node.name, deque())
        busy.append(None)

    def remove(self, node: Node) -> None:
        """One statement that was on its way to `node` has come back."""
        if busy := self._busy.get(node.name):
            busy.pop()


class LeastOutstanding:
    """The replica with the fewest statements under way in this process, for its weight.

    Among equals it is drawn by weight, so an idle process spreads its reads like `Weighted`.
    """

    __slots__ = ("_outstanding", "_random")

    def __init__(self, random: Random) -> None:
        self._random = random
        self._outstanding = Outstanding()

    def __call__(self, nodes: Sequence[Node], /) -> Node:
        """One of `nodes`."""
        random, outstanding = self._random, self._outstanding

        def key(node: Node) -> tuple[float, float]:
            # Exponential clocks: the first of them to ring does so in proportion to its rate.
            share = _share(node)
            return outstanding[node] / share, -log(1 - random()) / share

        return min(_taking(nodes), key=key)

    def sent(self, node: Node, _now: float, /) -> None:
        """See `TimedBalancer.sent`."""
        self._outstanding.add(node)

    def answered(self, node: Node, _seconds: float, _now: float, /) -> None:
        """See `TimedBalancer.answered`."""
        self._outstanding.remove(node)


MEMORY = 5.0
"""Seconds after which a mean has faded to a third: how soon a slow replica is tried again. A
replica a hundred times slower than the others gets one statement after 23 seconds."""

SHARE = 0.1
"""Part of a mean that one answer makes up at least: so ten slow answers are a slow replica."""

UNNOTICED = 0.0001
"""Seconds of latency that do not matter; what a replica nobody has asked yet is credited with."""


class Latency:
    """The better of two replicas drawn at random: power of two choices.

    Better is the lower mean latency times the statements under way, for its weight. The mean is
    of recent answers and fades while none come, so a replica that was slow is tried again.

    Source: M. Mitzenmacher, The Power of Two Choices in Randomized Load Balancing,
    https://www.eecs.harvard.edu/~michaelm/postscripts/tpds2001.pdf
    """

    __slots__ = ("_means", "_now", "_outstanding", "_random")

    def __init__(self, random: Random) -> None:
        self._random = random
        self._outstanding = Outstanding()
        # By node: the mean in seconds, and since when. Written without a lock: a race loses one
        # answer at worst.
        self._means: dict[str, tuple[float, float]] = {}
        self._now = 0.0

    def __call__(self, nodes: Sequence[Node], /) -> Node:
        """One of `nodes`."""
        nodes = _taking(nodes)
        among = len(nodes)
        if among == 1:
            return nodes[0]
        first = int(self._random() * among)
        other = (first + 1 + int(self._random() * (among - 1))) % among
        one, two = nodes[first], nodes[other]
        return one if self._cost(one) <= self._cost(two) else two

    def mean(self, node: Node) -> float:
        """The mean latency of `node` in seconds, as it has faded by now."""
        value, at = self._means.get(node.name, (0.0, 0.0))
        return value * exp(min(0.0, at - self._now) / MEMORY)

    def _cost(self, node: Node) -> float:
        return (self.mean(node) + UNNOTICED) * (self._outstanding[node] + 1) / _share(node)

    def sent(self, node: Node, now: float, /) -> None:
        """See `TimedBalancer.sent`."""
        self._now = now
        self._outstanding.add(node)

    def answered(self, node: Node, seconds: float, now: float, /) -> None:
        """See `TimedBalancer.answered`."""
        self._now = now
        self._outstanding.remove(node)
        value, at = self._means.get(node.name, (0.0, float("-inf")))
        kept = min(1 - SHARE, exp(min(0.0, at - now) / MEMORY))
        self._means[node.name] = (kept * value + (1 - kept) * seconds, now)


def _taking(nodes: Sequence[Node]) -> Sequence[Node]:
    """Those of `nodes` with a weight above 0; all when none has one."""
    if all(n.weight > 0 for n in nodes):
        return nodes
    return [n for n in nodes if n.weight > 0] or nodes


def _share(node: Node) -> float:
    # A node without a weight is only offered where no node has one: then all are alike.
    return node.weight or 1.0


class Preferring:
    """Asks another balancer, but offers it the preferred of the nodes only.

    Preferred are, in this order: a weight above 0, the lowest `Node.priority`, the zone of this
    process. The next best are offered while none of the better ones is eligible.
    """

    __slots__ = ("_balance", "_cache", "_zone")

    def __init__(self, balance: Balancer, zone: str) -> None:
        self._balance = balance
        self._zone = zone
        self._cache: tuple[Sequence[Node], Sequence[Node]] = ((), ())

    def __call__(self, nodes: Sequence[Node], /) -> Node:
        """One of `nodes`."""
        of, best = self._cache
        if of is not nodes:
            rank = self._rank
            lowest = min(map(rank, nodes))
            best = tuple(n for n in nodes if rank(n) == lowest)
            self._cache = (nodes, best)
        return best[0] if len(best) == 1 else self._balance(best)

    def _rank(self, node: Node) -> tuple[bool, int, bool]:
        return node.weight <= 0, node.priority, bool(self._zone) and node.zone != self._zone


def preferring(balance: Balancer, zone: str, nodes: Sequence[Node]) -> Balancer:
    """`balance`, made to prefer if `zone` or priorities tell `nodes` apart."""
    if len({(n.priority, bool(zone) and n.zone == zone) for n in nodes}) < 2:
        return balance
    return Preferring(balance, zone)


BALANCERS: dict[str, Callable[[Random], Balancer]] = {
    "weighted": Weighted,
    "random": Weighted,  # the same where nobody gave weights
    "round_robin": RoundRobin,
    "least_outstanding": LeastOutstanding,
    "latency": Latency,
}
"""What the option ``balance`` may name; a callable of type `Balancer` is taken as it is."""
