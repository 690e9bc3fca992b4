"""Who waits for a connection to a node, and is told when nothing is sent there any more.

A driver's pool wakes its waiters when a connection is free, and at their time-out. That the node
has gone it does not know, and so its waiters would stand before a dead server while another one
serves.
"""

from collections.abc import Callable
from contextvars import ContextVar
from itertools import count
from weakref import WeakMethod

from router.errors import RouterError
from router.model import Node
from router.rules.view import View

BRIEF = 1.0
"""Seconds for which `brief` lets anybody wait."""

brief: ContextVar[bool] = ContextVar("pg_router_brief", default=False)
"""Whether the caller can do without what he waits for, and holds what those may wait for who have
it: after `BRIEF` he gives up."""

Tell = Callable[[], object]
"""Tells somebody something, from any thread. It neither blocks nor raises."""


class GivenUp(RouterError):
    """Nobody waits for a connection to that node any more: the rules have to be asked again."""

    def __init__(self, node: Node) -> None:
        super().__init__(f"{node}: it is no longer waited for: try again")


def must_be_used(node: Node, view: View, now: float) -> None:
    """Raise GivenUp if the `view` does not use `node` at `now` (monotonic seconds)."""
    if not view.uses(node, now):
        raise GivenUp(node)


def at_most(seconds: float) -> float:
    """For how long the caller waits for a place who would wait for `seconds`."""
    return min(seconds, BRIEF) if brief.get() else seconds


def must_be_had(node: Node) -> None:
    """Raise GivenUp if the caller, for whom there was no place in the pool of `node` in time, can
    do without."""
    if brief.get():
        raise GivenUp(node)


class Gate:
    """What waits for the nodes of one Router. Every method may be called from any thread."""

    __slots__ = ("_always", "_numbers", "_watching")

    def __init__(self) -> None:
        self._watching: dict[int, tuple[Node, Tell]] = {}
        self._numbers = count()
        self._always: list[WeakMethod[Callable[[Node], object]]] = []

    def always(self, unused: Callable[[Node], object]) -> None:
        """Call the method `unused`, as long as its object lives, with each node that a new view
        does not use."""
        self._always = [known for known in self._always if known() is not None]
        self._always.append(WeakMethod(unused))

    def watch(self, node: Node, give_up: Tell) -> int:
        """Call `give_up` with each view in which no statement would be sent to `node`, until
        `leave` is called with the number that this returns."""
        number = next(self._numbers)
        self._watching[number] = node, give_up
        return number

    def leave(self, number: int) -> None:
        """End what `watch` began."""
        self._watching.pop(number, None)

    def after_fork(self) -> None:
        """In a forked child: those who wait are threads of the parent's."""
        self._watching = {}

    def look(self, view: View, now: float) -> None:
        """Tell those who wait for nodes that `view`, which is new at `now` (monotonic seconds),
        does not use."""
        for node, give_up in self._watching.copy().values():
            if not view.uses(node, now):
                give_up()
        for node in view.snapshot.nodes:
            if not view.uses(node, now):
                for method in self._always:
                    if (unused := method()) is not None:
                        unused(node)
