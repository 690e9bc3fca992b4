"""Many checkouts while servers fail: what a process holds afterwards is what it held before.

    python -m tests.chaos.soak [--door NAME …] [--checkouts N] [--gevent]

Each door has a process of its own. It works, rests while nothing fails, and says what it holds;
then works on while one server after another is killed, frozen, made deaf or has its sessions
ended, and threads fork; rests, and says it again.
"""

import sys

if "--patched" in sys.argv:
    from gevent import monkey

    monkey.patch_all()

import argparse
import asyncio
import contextlib
import gc
import itertools
import json
import logging
import os
import resource
import subprocess
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from router.testing import Cluster, Proxy
from tests.chaos.outages import DOORS, PLACES, Threads, World, deaf, ended, frozen, killed

CALLERS = 24
WARM = 1000
"""Checkouts before the first look: pools are as large as they get, caches filled."""
REST = 3.0
"""Seconds without a call before a look: what was given up meanwhile has ended."""
SQL = ("SELECT 1", "SELECT 1", "SELECT 1", "INSERT INTO entry DEFAULT VALUES")
FAULTS = ((killed, 1), (frozen, 2), (ended, 1), (deaf, 2), (killed, 0), (ended, 0), (frozen, 0))
FORKING = ("SQLAlchemy, psycopg", "psycopg", "Django")
UNDER_GEVENT = ("SQLAlchemy, psycopg", "psycopg", "Django")
SLACK = {"descriptors": PLACES + 4, "threads": 2, "megabytes": 16.0, "backends": PLACES}
"""What a look may find more than the one before: a pool that has grown, and what is in passing."""


def held() -> dict[str, float]:
    """What this process holds."""
    gc.collect()
    resident = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "threads": len(list(Path("/proc/self/task").iterdir())),
        "megabytes": resident * resource.getpagesize() / 1e6,
    }


def say(**found: Any) -> None:
    """Tell the parent, and wait for its answer."""
    print(json.dumps(found), flush=True)
    sys.stdin.readline()


class Counted:
    """Calls `count` times in all, whoever calls; failures are no matter here."""

    def __init__(self, count: int) -> None:
        self._numbers = iter(range(count))
        self.failed = 0

    def texts(self) -> Iterator[str]:
        """The next statement, until there have been enough; any thread."""
        for number in self._numbers:
            yield SQL[number % len(SQL)]


def fork(call: Callable[[str], None]) -> None:
    """Have a child call, and await its end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that a thread forks is the point
        pid = os.fork()
    if pid == 0:
        try:
            for sql in SQL:
                with contextlib.suppress(Exception):
                    call(sql)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def by_threads(made: Threads, checkouts: int, *, forks: bool) -> None:
    """Work, rest and tell by threads, or under gevent by greenlets."""

    def burst(count: int, *, fork_too: bool = False) -> None:
        counted = Counted(count)

        def caller() -> None:
            for sql in counted.texts():
                with contextlib.suppress(Exception):
                    made.call(sql)
            made.leave()

        threads = [threading.Thread(target=caller) for _ in range(CALLERS)]
        for thread in threads:
            thread.start()
        while fork_too and any(thread.is_alive() for thread in threads):
            fork(made.call)
            time.sleep(0.5)
        for thread in threads:
            thread.join(300)
        assert not any(thread.is_alive() for thread in threads), "a caller hangs"

    burst(WARM)
    time.sleep(REST)
    say(**held())
    burst(checkouts, fork_too=forks)
    say(worked=checkouts)
    burst(WARM)
    time.sleep(REST)
    say(**held())
    made.close()
    time.sleep(0.5)
    say(**held())


async def by_tasks(made: Any, checkouts: int) -> None:
    """Work, rest and tell by tasks of one event loop."""
    call, close = await made.made()

    async def burst(count: int) -> None:
        counted = Counted(count)

        async def caller() -> None:
            for sql in counted.texts():
                with contextlib.suppress(Exception):
                    await call(sql)

        async with asyncio.timeout(300), asyncio.TaskGroup() as group:
            for _ in range(3 * CALLERS):
                group.create_task(caller())

    async def look() -> None:
        await asyncio.sleep(REST)
        await asyncio.to_thread(say, **held())

    await burst(WARM)
    await look()
    await burst(checkouts)
    await asyncio.to_thread(say, worked=checkouts)
    await burst(WARM)
    await look()
    await close()
    await look()


def work(door: str, urls: list[str], checkouts: int) -> None:
    """The child: work at `door`."""
    logging.disable(logging.CRITICAL)
    made = DOORS[door](urls)
    if isinstance(made, Threads):
        by_threads(made, checkouts, forks=door in FORKING and "--patched" not in sys.argv)
    else:
        asyncio.run(by_tasks(made, checkouts))


def failing(world: World, over: threading.Event) -> None:
    """One server after another fails for a while."""
    for happen, which in itertools.cycle(FAULTS):
        if over.is_set():
            return
        with happen(world, which):
            over.wait(1.5)
        over.wait(1.0)


def backends(world: World) -> int:
    """Sessions of clients on all servers."""
    found = 0
    for server in world.cluster.servers:
        ((count,),) = server.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
        )
        found += count
    return found


class Child:
    """A process that works at `door`."""

    def __init__(self, door: str, world: World, checkouts: int, *, gevent: bool) -> None:
        command = [sys.executable, "-m", "tests.chaos.soak", "--child", door]
        command += ["--checkouts", str(checkouts), "--urls", *world.urls]
        self._world = world
        self._process = subprocess.Popen(
            command + ["--patched"] * gevent, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip

    def told(self) -> dict[str, float]:
        """What it says next, with the servers' sessions, and let it go on."""
        out: IO[str] = self._process.stdout  # type: ignore[assignment]
        found: dict[str, float] = json.loads(out.readline())
        found["backends"] = backends(self._world)
        return found

    def go_on(self) -> None:
        into: IO[str] = self._process.stdin  # type: ignore[assignment]
        into.write("\n")
        into.flush()

    def end(self) -> None:
        """Await its end; kill it where it does not come to one."""
        try:
            self._process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise


def soak(door: str, checkouts: int, *, gevent: bool = False) -> list[dict[str, float]]:
    """What a process at `door` holds: before `checkouts` under faults, after them, and closed."""
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(Cluster(replicas=2))
        cluster.primary.execute("CREATE TABLE entry (id bigserial)")
        cluster.wait_caught_up()
        proxies = [stack.enter_context(Proxy(s.host, s.port)) for s in cluster.servers]
        world, over = World(cluster, proxies), threading.Event()
        child = Child(door, world, checkouts, gevent=gevent)
        before = child.told()
        faults = threading.Thread(target=failing, args=(world, over))
        faults.start()
        try:
            child.go_on()
            out: IO[str] = child._process.stdout  # type: ignore[assignment]
            assert "worked" in json.loads(out.readline())
        finally:
            over.set()
            faults.join(60)
        child.go_on()
        after = child.told()
        child.go_on()
        closed = child.told()
        ends = time.monotonic() + 10
        while closed["backends"] > len(world.cluster.servers) and time.monotonic() < ends:
            time.sleep(0.1)  # a server that is busy ends its sessions later than their sockets
            closed["backends"] = backends(world)
        child.go_on()
        child.end()
        return [before, after, closed]


def grown(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """What `after` is more than `before`, beyond what may be in passing."""
    more = {key: after[key] - before[key] for key in before}
    return {key: value for key, value in more.items() if value > SLACK[key]}


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--door", nargs="*", default=list(DOORS), help=", ".join(DOORS))
    parser.add_argument("--checkouts", type=int, default=100_000)
    parser.add_argument("--gevent", action="store_true", help="greenlets in place of threads")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--urls", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--patched", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        work(options.child, options.urls, options.checkouts)
        return 0
    worse = 0
    for door in UNDER_GEVENT if options.gevent else options.door:
        began = time.monotonic()
        found = soak(door, options.checkouts, gevent=options.gevent)
        more = grown(found[0], found[1])
        worse += bool(more)
        looks = "; ".join(
            ", ".join(f"{value:.0f} {key}" for key, value in look.items()) for look in found
        )
        print(f"{door:<26} {time.monotonic() - began:5.0f} s  {looks}  {more or 'as before'}",
              flush=True)  # fmt: skip
    return min(worse, 1)


if __name__ == "__main__":
    sys.exit(main())
