"""Faults of every kind against routed engines under load, and a judge.

    python -m tests.chaos.run --minutes 30 --seed 1

Exits with 1 if a promise was broken. `nox -s chaos` runs it.
"""

import argparse
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass

from router.telemetry import Hook
from tests.chaos.clients import Clients
from tests.chaos.ledger import Ledger, Request, broken_promises
from tests.chaos.world import FAULTS, Fault, World

DOORS = ("psycopg", "asyncpg_async", "psycopg_async")
CALM = 0.7
"""Seconds between two faults; the last fault's blacklistings are over then, or nearly."""


@dataclass(frozen=True, slots=True)
class Act:
    """One fault as it was: when it began, when everything was well again."""

    fault: Fault
    began: float
    ended: float


class Run:
    """Clients at every door, faults one after another, and what came of it."""

    def __init__(self, seed: int, *, doors: tuple[str, ...] = DOORS, clients: int = 4) -> None:
        self.rng = random.Random(seed)
        self.seed, self.doors, self.clients = seed, doors, clients
        self.ledger = Ledger()
        self.acts: list[Act] = []
        self.events: list[tuple[float, str, str]] = []
        self.broken: list[str] = []
        self.promoted: list[float] = []

    def play(self, faults: Iterable[Fault]) -> None:
        """Run all of `faults`, and judge."""
        threads_before = threading.active_count()
        with World() as world:
            fleet = [
                Clients(door, world.urls(), self.ledger, self.seed, self.clients)
                for door in self.doors
            ]
            with ExitStack() as stack:
                for clients in fleet:
                    clients.router.telemetry.hooks.append(self._hook(clients.door))
                    clients.start()
                    stack.callback(clients.stop)
                self._await_reads(fleet)
                for fault in faults:
                    self._act(world, fault)
            self._judge(world, fleet)
            for clients in fleet:
                if not clients.asynchronous:
                    clients.engine.dispose()
        if threading.active_count() > threads_before:
            names = [t.name for t in threading.enumerate()]
            self.broken.append(f"threads are left: {names}")

    def _hook(self, door: str) -> Hook:
        return lambda name, fields: self.events.append(
            (time.monotonic(), door, f"{name} {fields.get('node', '')}")
        )

    def _await_reads(self, fleet: list[Clients]) -> None:
        deadline = time.monotonic() + 20
        while {r.door for r in self.ledger.since(0, time.monotonic())} != {c.door for c in fleet}:
            assert time.monotonic() < deadline, "the clients did not begin"
            time.sleep(0.01)

    def _act(self, world: World, fault: Fault) -> None:
        began = time.monotonic()
        with fault.happen(world):
            time.sleep(fault.hold * self.rng.uniform(0.7, 1.3))
        self.acts.append(Act(fault, began, time.monotonic()))
        time.sleep(CALM)  # what hung comes back, and counts as this fault's
        print(self.line(self.acts[-1]), flush=True)

    def line(self, act: Act) -> str:
        """What clients noticed of one fault."""
        seen = self.ledger.since(act.began, act.ended)
        failed = Counter("write" if r.wrote else "read" for r in seen if r.error)
        slowest = max((r.ended - r.began for r in seen), default=0.0)
        return (
            f"{act.fault.title:<52} {act.ended - act.began:5.1f} s {len(seen):6,} requests, "
            f"{failed['read']:3} reads and {failed['write']:4} writes failed, slowest "
            f"{slowest:5.2f} s"
        )

    def _judge(self, world: World, fleet: list[Clients]) -> None:
        rows: Counter[tuple[str, int]] = Counter(
            {
                (client, n): times
                for client, n, times in world.primary.execute(
                    "SELECT client, n, count(*) FROM entry GROUP BY 1, 2"
                )
            }
        )
        longest = max((a.ended - a.began for a in self.acts), default=0.0)
        self.broken += broken_promises(self.ledger.requests, rows, longest)
        self.broken += world.stale_writes
        self.broken += [
            f"{c.door}: {n} connections were not given back"
            for c in fleet
            if (n := c.checked_out())
        ]
        self.promoted = world.figures.get("promoted", [])
        for request in self.ledger.requests:
            if request.error and not request.wrote and not self._excused(request):
                self.broken.append(f"a reader noticed: {request}")

    def _excused(self, request: Request) -> bool:
        return any(
            not act.fault.readable
            and act.began <= request.ended
            and request.began <= act.ended + CALM
            for act in self.acts
        )

    # -- figures ---------------------------------------------------------------------------

    def figures(self) -> str:
        """The numbers issue trackers ask for."""
        requests = self.ledger.requests
        lines = [f"{len(requests):,} requests at {len(self.doors)} doors, seed {self.seed}"]
        killed = [a for a in self.acts if a.fault.title == "a replica is killed"]
        reads = [r for a in killed for r in self.ledger.since(a.began, a.ended) if r.wrote is None]
        if reads:
            slowest = max(r.ended - r.began for r in reads)
            lines.append(
                f"reads failed while a replica was killed: {sum(bool(r.error) for r in reads)} "
                f"of {len(reads):,}; slowest {slowest * 1000:.0f} ms"
            )
        for door in self.doors:
            writes = [r for r in requests if r.door == door and r.acknowledged]
            waits = [
                min((r.ended - at for r in writes if r.began >= at), default=float("inf"))
                for at in self.promoted
            ]
            if waits:
                lines.append(
                    f"{door}: first write {min(waits) * 1000:.0f} to {max(waits) * 1000:.0f} ms "
                    f"after a promotion ({len(waits)})"
                )
        return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """The long run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (30)")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10_000, help="of all chance")
    parser.add_argument("--clients", type=int, default=4, help="at each door (4)")
    options = parser.parse_args(arguments)
    print(f"seed {options.seed}, {options.minutes:g} minutes", flush=True)
    run = Run(options.seed, clients=options.clients)
    end = time.monotonic() + options.minutes * 60
    chance = random.Random(options.seed)

    def endless() -> Iterable[Fault]:
        while time.monotonic() < end:
            yield chance.choice(FAULTS)

    run.play(endless())
    print(run.figures())
    for line in run.broken[:20]:
        print("BROKEN", line)
    print(f"{len(run.broken)} promises broken")
    return 1 if run.broken else 0


if __name__ == "__main__":
    sys.exit(main())
