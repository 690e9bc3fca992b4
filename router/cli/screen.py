"""The demo's screen: a live table on a terminal, one line per second elsewhere."""

import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from typing import Any, Self

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from router.cli.acts import Act
from router.cli.workload import Users
from router.cluster.router import Router
from router.model import Node, Role
from router.rules.decision import Reason
from router.status.history import QUIET, words

READ_ON_REPLICA = frozenset({Reason.READ, Reason.PIN_REPLICA, Reason.READ_ONLY, Reason.HELD})
READ_ON_PRIMARY = frozenset(
    {Reason.PIN_PRIMARY, Reason.MONOTONIC_PRIMARY, Reason.NO_REPLICA, Reason.SERVER_LOCAL}
)
READS = READ_ON_REPLICA | READ_ON_PRIMARY | {Reason.RETRIED}

NOTICE = 10.0
"""Seconds the router has to notice an act."""


class Screen:
    """Shows one Router and its Users until it is closed; counts from where it was made."""

    def __init__(self, router: Router, users: Users, *, console: Console, plain: bool) -> None:
        self.router = router
        self.users = users
        self.console = console
        self.plain = plain
        self._act = Act(0.0, "")
        self._began = self._act_began = time.monotonic()
        self._played: list[tuple[float, Act]] = []
        self._after: dict[str, float] = {}
        self._watcher: threading.Thread | None = None
        self._closed = threading.Event()
        self._lines: deque[tuple[str, str]] = deque(maxlen=6)
        self._first: Counter[Any] = router.telemetry.decisions.total()
        self._shown: Counter[Any] = Counter()
        self._requests_shown = 0
        self._live = None if plain else Live(console=console, refresh_per_second=6, screen=False)

    def __enter__(self) -> Self:
        self.router.telemetry.hooks.append(self._event)
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._closed.set()
        self.router.telemetry.hooks.remove(self._event)
        if self._live is not None:
            self._live.update(self._picture())
            self._live.stop()

    def begin(self, act: Act) -> None:
        """Announce the next act, and watch from now on whether the router notices it."""
        now = time.monotonic()
        self._act, self._act_began = act, now
        self._played.append((now - self._began, act))
        self._say(f"== {act.title}", "bold")
        if act.notice:
            self._watcher = threading.Thread(target=self._watch, args=(act, now), daemon=True)
            self._watcher.start()

    @property
    def awaiting(self) -> bool:
        """Whether the router has yet to notice the present act, and still has time to."""
        return self._watcher is not None and self._watcher.is_alive()

    def unnoticed(self) -> list[str]:
        """What the router should have made of an act and did not, one line each."""
        return [
            f"not within {NOTICE:g} s of {act.title!r}: {act.notice}"
            for _, act in self._played
            if act.notice and act.title not in self._after
        ]

    def _watch(self, act: Act, began: float) -> None:
        while not self._closed.wait(0.005) and time.monotonic() - began < NOTICE:
            if act.noticed(began):
                after = time.monotonic() - began
                self._after[act.title] = after
                self._say(f"   router, after {after * 1000:.0f} ms: {act.notice}", "green")
                return

    def note(self, text: str) -> None:
        """Print `text`, about something the demo did itself."""
        self._say(f"   {text}")

    def _event(self, name: str, fields: Mapping[str, Any]) -> None:
        if name not in QUIET:
            after = (time.monotonic() - self._act_began) * 1000
            self._say(f"   router, after {after:.0f} ms: {words(name, fields)}", "yellow")

    def _say(self, text: str, style: str = "") -> None:
        line = f"{time.monotonic() - self._began:5.1f} s  {text}"
        self._lines.append((line, style))
        if self._live is None:
            self.console.print(Text(line, style=style), soft_wrap=True)

    def refresh(self) -> None:
        """Show the present state: redraw, or print a line."""
        if self._live is not None:
            self._live.update(self._picture())
        else:
            self.console.print(self._line(), highlight=False, soft_wrap=True)

    def _total(self) -> Counter[Any]:
        return self.router.telemetry.decisions.total() - self._first

    def _line(self) -> str:
        ledger, total = self.users.ledger, self._total()
        new, self._shown = total - self._shown, total
        requests, self._requests_shown = ledger.total - self._requests_shown, ledger.total
        served = nodes_served(new)
        nodes = [
            f"{node.name} {served[node.name]:3d} {self._state(node)[0].replace('up', '')}".rstrip()
            for node in self.router.snapshot.nodes
        ]
        why: Counter[Reason] = Counter()
        for (_, reason), n in new.items():
            why[reason] += n
        return (
            f"{time.monotonic() - self._began:5.1f} s     {requests:3d} requests | "
            f"{' | '.join(nodes)} | pinned reads {why[Reason.PIN_PRIMARY]} on the primary, "
            f"{why[Reason.PIN_REPLICA]} on a replica | "
            f"p99 {ledger.quantile(0.99) * 1000:.0f} ms | "
            f"{len(ledger.failures)} failed, {len(ledger.stale)} stale"
        )

    def _state(self, node: Node) -> tuple[str, str]:
        """The state of `node` in words, and its colour."""
        view, snapshot = self.router.view, self.router.snapshot
        report = snapshot.reports.get(node.name)
        if (entry := view.out.get(node.name)) is not None:
            left = entry.until - self.router.clock()
            return f"blacklisted, {left:.1f} s left" if left > 0 else "awaits a probe", "red"
        if report is None or not report.ok:
            return "no answer", "red"
        if node.name in snapshot.fenced:
            return "fenced", "magenta"
        if node.name in snapshot.strays:
            return "not following", "magenta"
        lag = snapshot.lag_bytes(node.name)
        if node is not snapshot.primary and lag:
            return f"{lag / 1024:.1f} kB behind", "yellow"
        return "up", "green"

    def _picture(self) -> Group:
        ledger, total = self.users.ledger, self._total()
        head = Text.assemble(
            (f" {self._act.title} ", "bold reverse"),
            f"\n {ledger.total:,} requests, p50 {ledger.quantile(0.5) * 1000:.1f} ms, "
            f"p99 {ledger.quantile(0.99) * 1000:.1f} ms, {self.users.pinned} pinned now, ",
            (f"{len(ledger.failures)} failed", "red" if ledger.failures else "green"),
            ", ",
            (f"{len(ledger.stale)} stale own-reads", "red" if ledger.stale else "green"),
        )
        events = Text("\n", overflow="ellipsis", no_wrap=True)
        for line, style in list(self._lines):
            events.append(f"{line}\n", style)
        return Group(head, Text(), self._nodes(total), events, reasons(total))

    def _nodes(self, total: Counter[Any]) -> Table:
        served = nodes_served(total)
        everything = sum(served.values()) or 1
        table = Table(expand=True, box=box.SIMPLE_HEAD, show_edge=False)
        for name in ("node", "role", "state", "lag"):
            table.add_column(name, no_wrap=True)
        for name in ("reads", "writes"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("share", no_wrap=True)
        snapshot = self.router.snapshot
        for node in snapshot.nodes:
            report = snapshot.reports.get(node.name)
            role = report.role if report is not None else Role.UNKNOWN
            lag = snapshot.lag_seconds(node.name) if role is Role.REPLICA else None
            n = served[node.name]
            reads = sum(
                n for (name, why), n in total.items() if name == node.name and why in READS
            )
            share = n / everything
            table.add_row(
                node.name,
                str(role),
                Text(*self._state(node)),
                "" if lag is None else f"{lag:.1f} s",
                f"{reads:,}",
                f"{n - reads:,}",
                f"{share:4.0%} {'█' * round(12 * share)}",
            )
        return table

    def summary(self, lost: int, doubled: int) -> Iterator[str]:
        """What happened, as lines, with the numbers of `lost` and `doubled` writes."""
        ledger, total = self.users.ledger, self._total()
        events = self.router.stats()["events"]
        on = {
            where: sum(n for (_, why), n in total.items() if why in reasons)
            for where, reasons in (("replica", READ_ON_REPLICA), ("primary", READ_ON_PRIMARY))
        }
        yield ""
        for at, act in self._played:
            after = self._after.get(act.title)
            seen = "" if after is None else f": {act.notice} after {after * 1000:.0f} ms"
            yield f"{at:5.1f} s  {act.title}{seen}"
        yield ""
        for (node, reason), n in sorted(total.items(), key=lambda item: (item[0][0], -item[1])):
            yield f"{node:<9} {n:>7,}  {reason}"
        yield ""
        yield (
            f"requests  {ledger.total:,}, {len(ledger.failures)} failed, p50 "
            f"{ledger.quantile(0.5) * 1000:.1f} ms, p99 {ledger.quantile(0.99) * 1000:.1f} ms"
        )
        yield (
            f"writes    {len(ledger.acknowledged):,} acknowledged, {lost} lost, {doubled} stored "
            f"twice; {ledger.waited} requests waited for the new primary, at most "
            f"{ledger.longest_wait:.1f} s"
        )
        yield (
            f"reads     {on['replica'] / (sum(on.values()) or 1):.0%} on replicas, "
            f"{events.get('retried', 0)} moved to another node, {events.get('healed', 0)} healed, "
            f"{len(ledger.stale)} missed an own write"
        )


def nodes_served(total: Counter[Any]) -> Counter[str]:
    """Statements by node, of the `total` by node and reason."""
    served: Counter[str] = Counter()
    for (node, _), n in total.items():
        served[node] += n
    return served


def reasons(total: Counter[Any]) -> Table:
    """A table of the `total` by node and reason."""
    table = Table(expand=True, box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("why", no_wrap=True)
    table.add_column("where")
    table.add_column("statements", justify="right")
    by_reason: dict[Reason, Counter[str]] = {}
    for (node, reason), n in total.items():
        by_reason.setdefault(reason, Counter())[node] += n
    for reason, nodes in sorted(by_reason.items(), key=lambda item: -item[1].total())[:7]:
        where = ", ".join(f"{name} {n:,}" for name, n in sorted(nodes.items()))
        table.add_row(str(reason), where, f"{nodes.total():,}")
    return table
