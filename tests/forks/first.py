"""Forks soon after the first statement, or during it, and lets the child do its own first ones.

Run as ``python -m tests.forks.first DOOR HOW URL REPLICA…``, where HOW names ways to fork, with
commas between them; prints what became of each child.
"""

import os
import socket
import sys
import threading
import time
from typing import Any

from tests.forks.kit import Run, ended, fork, opened

MONITOR = "pg-router monitor"


def statements(run: Run) -> None:
    """A write, which no catalog knows of, and a read, which sees it."""
    name = f"by_{os.getpid()}_{time.monotonic_ns()}"
    run(f"CREATE TABLE {name} AS SELECT 1 AS n")
    assert run(f"SELECT count(*) FROM {name}") == 1
    assert run("SELECT 1") == 1


def after(router: Any, run: Run) -> int:
    """Fork right after the first statement."""
    run("SELECT 1")
    return fork(lambda: statements(run))


def beside(router: Any, run: Run) -> int:
    """Fork in another thread than the one that ran the first statement."""
    run("SELECT 1")
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(fork(lambda: statements(run))))
    thread.start()
    thread.join()
    return found[0]


def twice(router: Any, run: Run) -> int:
    """Fork after the first statement, and in the child after its first ones again."""
    run("SELECT 1")

    def child() -> None:
        statements(run)
        assert ended(fork(lambda: statements(run))) == "fine"
        statements(run)

    return fork(child)


def holding(router: Any, run: Run) -> int:
    """Fork while another thread holds every lock there is: a thread may stand still in the middle
    of anything, for as long as it likes."""
    from router import registry

    run("SELECT 1")
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        locks: list[Any] = [lock for ref in list(registry._locks) if (lock := ref()) is not None]
        for lock in locks:
            lock.acquire()
        held.set()
        done.wait()
        for lock in locks:
            lock.release()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    began = time.monotonic()
    pid = fork(lambda: statements(run))
    took = time.monotonic() - began
    done.set()
    thread.join()
    assert took < 1.0, f"the fork was held up for {took} s"
    return pid


def starting(router: Any, run: Run) -> int:
    """Fork while another thread waits for the first probes: a replica is deaf."""
    thread = threading.Thread(target=run, args=("SELECT 1",))
    thread.start()
    while not any(MONITOR in each.name for each in threading.enumerate()):
        time.sleep(0.001)
    assert not router.started
    pid = fork(lambda: statements(run))
    thread.join()
    return pid


WAYS = {each.__name__: each for each in (after, beside, twice, holding, starting)}


def main(door: str, how: str, url: str, *replicas: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        silent = f"postgresql://127.0.0.1:{deaf.getsockname()[1]}"
        for way in how.split(","):
            given = [*replicas, silent] if way == "starting" else [*replicas]
            with opened(door, url, start_timeout=1.5, replicas=given) as (router, run):
                became = ended(WAYS[way](router, run))
                statements(run)  # the parent has lost nothing
                assert router.started
            print(f"{way}: {became}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
