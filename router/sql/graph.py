"""A graph of uses: which object reaches which, and by the shortest chain."""

from collections import deque
from collections.abc import Callable, Iterable

from router.sql.objects import Effect, Verdict


class Node:
    """An object, with what running or reading it uses.

    Attributes:
        label: what a user of it does, such as "calls app.f(int)".
        own: what it does by itself, by effect, with the reason.
        uses: the objects that it uses, each with where it does so (empty for its body).
        changes: objects that are used where a body changes rows; no standby comes so far.
        volatile: of a function: the planner does not run it; None for what is no function.
        inlined: the planner may put its body in its place.
        binds, ddl, signals: it does so by itself.
        local: why its answer is one server's own, by itself.
    """

    __slots__ = (
        "binds", "changes", "ddl", "inlined", "label", "local", "own", "signals", "uses",
        "volatile",
    )  # fmt: skip

    def __init__(self, label: str) -> None:
        self.label: str = label
        self.own: dict[Effect, str] = {}
        self.uses: dict[Node, str] = {}
        self.changes: dict[Node, str] = {}
        self.volatile: bool | None = None
        self.inlined: bool = False
        self.binds: bool = False
        self.ddl: bool = False
        self.signals: bool = False
        self.local: str = ""

    def does(self, effect: Effect, why: str) -> None:
        """It has `effect` by itself."""
        self.own.setdefault(effect, why)

    def use(self, other: "Node", where: str = "") -> None:
        """It uses `other`."""
        if other is not self:
            self.uses.setdefault(other, where)

    def __repr__(self) -> str:
        return f"<Node {self.label}>"


Reached = dict[Node, tuple[Node, str] | None]
"""For each node that reaches what was looked for, the next node of its shortest chain and where
it is used; None for what is it itself."""


class Graph:
    """The nodes, turned round: who uses each."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self.nodes: list[Node] = list(nodes)
        self._users: dict[Node, list[tuple[Node, str]]] = {}
        self._changers: dict[Node, list[tuple[Node, str]]] = {}
        for node in self.nodes:
            for used, where in node.uses.items():
                self._users.setdefault(used, []).append((node, where))
            for used, where in node.changes.items():
                self._changers.setdefault(used, []).append((node, where))

    def reaching(
        self,
        seeds: Iterable[Node],
        *,
        through: Callable[[Node], bool] = lambda node: True,
        changes: bool = False,
    ) -> Reached:
        """Who reaches `seeds`, by uses, and by changes of rows too with `changes`; only by nodes
        `through` which it goes."""
        found: Reached = dict.fromkeys(seeds)
        todo = deque(found)
        while todo:
            node = todo.popleft()
            users = self._users.get(node, ())
            if changes:
                users = (*users, *self._changers.get(node, ()))
            for user, where in users:
                if user not in found and through(user):
                    found[user] = (node, where)
                    todo.append(user)
        return found

    def verdicts(self, binds: Reached) -> dict[Node, Verdict]:
        """What running each does, for those that are not safe; `binds` as `binding` has it."""
        ddl = self.reaching((node for node in self.nodes if node.ddl), changes=True)
        signals = self.reaching((node for node in self.nodes if node.signals), changes=True)
        found: dict[Node, Verdict] = {}
        for effect in (Effect.ACTS, Effect.UNKNOWN, Effect.REFUSED):
            reached = self.reaching(node for node in self.nodes if effect in node.own)
            for node in reached:
                if node not in found:
                    why = told(node, reached, effect)
                    found[node] = Verdict(effect, why, node in binds, node in ddl, node in signals)
        return found

    def binding(self) -> Reached:
        """Who leaves something in the session, by what it uses or by the rows it changes."""
        return self.reaching((node for node in self.nodes if node.binds), changes=True)

    def planned(self, run: dict[Node, Verdict]) -> dict[Node, Verdict]:
        """What planning a statement with each does, for those that are not safe; `run` is what
        running them does. The planner runs whole what it folds or estimates by, and looks into
        what it puts in place of a view or an inlined function."""
        reached = self.reaching(
            (node for node in self.nodes if _planned_does(node, run)),
            through=lambda node: not node.volatile or node.inlined,
        )
        return {node: run[node] for node in reached}


def _planned_does(node: Node, run: dict[Node, Verdict]) -> bool:
    if node.volatile is None:
        return bool(node.own)
    return not node.volatile and node in run


def told(node: Node, reached: Reached, effect: Effect | None = None) -> str:
    """The chain from `node` on, in words."""
    words = []
    at: Node | None = node
    where = ""
    while at is not None:
        words.append(f"{where} {at.label}".strip())
        step = reached[at]
        if step is None:
            reason = at.own[effect] if effect is not None else at.local
            if reason:
                words[-1] += f": {reason}"
            return " → ".join(words)
        at, where = step
    return " → ".join(words)
