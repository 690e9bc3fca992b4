"""What the demo shows: a live table on a terminal, one line per second elsewhere."""

import time
from collections import Counter, deque
from collections.abc import Mapping
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from router.cli.workload import Ledger
from router.core import Router
from router.decide import Reason
from router.model import Role

OFF_PRIMARY = frozenset(
    {Reason.READ, Reason.PIN_REPLICA, Reason.READ_ONLY, Reason.RETRIED, Reason.HELD}
)
"""The reasons that send a statement to a replica."""

QUIET = frozenset({"retried", "healed", "no_request_context"})
"""Events that are counted, not shown one by one."""


def words(name: str, fields: Mapping[str, Any]) -> str:
    """An event as a short line."""
    node = fields.get("node", "")
    if name == "blacklisted":
        return f"{node} blacklisted for {fields['seconds']:.1f} s: {fields['reason'][:48]} …"
    if name == "restored":
        return f"{node} restored after {fields['after']:.1f} s"
    if name == "primary_changed":
        return (
            f"primary is now {fields['after'] or 'unknown'}, was {fields['before'] or 'unknown'}"
        )
    return f"{name} {' '.join(f'{k}={v}' for k, v in fields.items())}"


class Screen:
    """Shows one Router and one Ledger until it is closed."""

    def __init__(self, router: Router, ledger: Ledger, *, console: Console, plain: bool) -> None:
        self.router = router
        self.ledger = ledger
        self.console = console
        self.plain = plain
        self.act: str = ""
        self.noticed: list[tuple[str, str, float]] = []
        self._began = self._act_began = time.monotonic()
        self._lines: deque[str] = deque(maxlen=8)
        self._before: Counter[Any] = Counter()
        self._requests_before = 0
        self._live = None if plain else Live(console=console, refresh_per_second=6, screen=False)
        router.telemetry.hooks.append(self._event)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.router.telemetry.hooks.remove(self._event)
        if self._live is not None:
            self._live.update(self._picture())
            self._live.stop()

    def begin(self, act: str) -> None:
        """Announce the next act."""
        self.act, self._act_began = act, time.monotonic()
        self._say(f"== {act}", style="bold")

    def note(self, text: str) -> None:
        """Say something the demo did or found out itself."""
        self._say(text)

    def refresh(self) -> None:
        """Show the present state: redraw, or print a line."""
        if self._live is not None:
            self._live.update(self._picture())
        else:
            self.console.print(self._line(), highlight=False, soft_wrap=True)

    def _event(self, name: str, fields: Mapping[str, Any]) -> None:
        if name in QUIET:
            return
        after = time.monotonic() - self._act_began
        text = words(name, fields)
        self.noticed.append((self.act, text, after))
        self._say(f"   {text}  (+{after * 1000:.0f} ms)", style="yellow")

    def _say(self, text: str, style: str = "") -> None:
        line = f"{time.monotonic() - self._began:5.1f} s  {text}"
        self._lines.append(line)
        if self._live is None:
            self.console.print(Text(line, style=style), soft_wrap=True)

    def _line(self) -> str:
        served = nodes_served(self.router.telemetry.decisions.total())
        new = served - self._before
        self._before = served
        requests, self._requests_before = (
            self.ledger.total - self._requests_before,
            self.ledger.total,
        )
        shares = "  ".join(
            f"{node.name} {new[node.name]:5d}" for node in self.router.snapshot.nodes
        )
        ms = self.ledger.quantile(0.99) * 1000
        return (
            f"{time.monotonic() - self._began:5.1f} s     {requests:4d} requests, statements on "
            f"{shares}  p99 {ms:.0f} ms, {len(self.ledger.failures)} failed, "
            f"{len(self.ledger.stale)} stale"
        )

    def _picture(self) -> Group:
        ledger, router = self.ledger, self.router
        head = Text.assemble(
            (f" {self.act} ", "bold reverse"),
            f"  {ledger.total} requests, ",
            (f"{len(ledger.failures)} failed", "red" if ledger.failures else "green"),
            ", ",
            (f"{len(ledger.stale)} stale own-reads", "red" if ledger.stale else "green"),
            f", p50 {ledger.quantile(0.5) * 1000:.1f} ms",
            f", p99 {ledger.quantile(0.99) * 1000:.1f} ms",
        )
        total = router.telemetry.decisions.total()
        return Group(
            head,
            self._nodes(total),
            reasons(total),
            Panel("\n".join(self._lines), title="events", title_align="left"),
        )

    def _nodes(self, total: Counter[Any]) -> Table:
        served = nodes_served(total)
        everything = sum(served.values()) or 1
        table = Table(expand=True)
        for name in ("node", "role", "state", "lag", "statements", "share"):
            table.add_column(name, justify="right" if name in ("statements", "share") else "left")
        view = self.router.view
        snapshot = view.snapshot
        now = self.router.clock()
        for node in snapshot.nodes:
            report = snapshot.reports.get(node.name)
            role = report.role if report is not None else Role.UNKNOWN
            if node.name in view.out:
                left = max(0.0, view.out[node.name].until - now)
                state = Text(f"blacklisted, {left:.1f} s left", "red")
            elif report is None or not report.ok:
                state = Text("no answer", "red")
            elif node.name in snapshot.fenced:
                state = Text("fenced", "magenta")
            else:
                state = Text("up", "green")
            lag = snapshot.lag_bytes(node.name) if role is Role.REPLICA else None
            n = served[node.name]
            table.add_row(
                node.name,
                str(role),
                state,
                "" if lag is None else f"{lag:,} bytes",
                f"{n:,}",
                f"{n / everything:.0%} {'█' * round(20 * n / everything)}",
            )
        return table


def nodes_served(total: Counter[Any]) -> Counter[str]:
    """Statements by node."""
    served: Counter[str] = Counter()
    for (node, _), n in total.items():
        served[node] += n
    return served


def reasons(total: Counter[Any]) -> Table:
    """Statements by reason and node."""
    table = Table(expand=True)
    table.add_column("why")
    table.add_column("where")
    table.add_column("statements", justify="right")
    for (node, reason), n in total.most_common(9):
        table.add_row(str(reason), node, f"{n:,}")
    return table
