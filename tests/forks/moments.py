"""Forks at random moments while threads do all that threads may do, and counts what hangs.

Run as ``python -m tests.forks.moments SEED CHILDREN URL REPLICA…``. Every child takes every lock,
classifies, routes, blacklists, logs, pins and carries pins; every `WHOLE`-th runs statements on
connections of its own, writes and reads, by the engine or by the pool. Prints how many failed.
"""

import gc
import io
import logging
import os
import random
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from typing import Any

import sqlalchemy as sa

import router
from router import registry
from router.pins.store import MemoryPinStore
from router.psycopg import ConnectionPool
from router.sql.intent import Kind
from tests.forks.kit import ended, fork

WHOLE = 20
AT_ONCE = 4
"""Children alive at a time."""
PAUSE = 0.005
"""Seconds between two forks at most."""
REST = 0.01
"""Seconds between two turns of a thread at most."""


class Load:
    """Threads that use an engine, a pool and a carrier in every way until they are stopped."""

    def __init__(self, url: str, replicas: list[str]) -> None:
        options: dict[str, Any] = {"replicas": replicas, "probe_interval": 0.02, "name": "shop"}
        self.engine = router.create_engine(url, **options)
        self.pool = ConnectionPool(url, min_size=2, max_size=4, **options)
        self.router = self.engine.router
        self.carrier = router.PinCarrier("s" * 32, store=MemoryPinStore())
        self.did: Counter[str] = Counter()
        self.errors: list[BaseException] = []
        self._stopped = threading.Event()

    # -- what threads do, and children once ------------------------------------------------------

    def read(self) -> None:
        with router.request_context(), self.engine.connect() as connection:
            connection.scalar(sa.text(f"SELECT count(*), {random.randrange(50)} FROM item"))

    def write(self) -> None:
        with router.request_context(), self.engine.begin() as connection:
            connection.execute(sa.text("INSERT INTO item (name) VALUES ('w')"))

    def lend(self) -> None:
        with router.request_context(), self.pool.connection() as connection:
            connection.execute("INSERT INTO item (name) VALUES ('p')")
            connection.execute("SELECT count(*) FROM item")

    def define(self) -> None:
        name = f"t{os.getpid()}_{threading.get_ident()}"
        with self.engine.begin() as connection:
            connection.execute(sa.text(f"CREATE TABLE {name} (n int)"))
        with self.engine.begin() as connection:
            connection.execute(sa.text(f"DROP TABLE {name}"))

    def judge(self) -> None:
        self.router.classifier.learn_write(f"SELECT f{random.randrange(50)}()", "it was refused")
        intent = self.router.intent(f"SELECT {random.random()}")
        assert intent.kind is Kind.READ
        self.router.decide(intent)

    def shun(self) -> None:
        name = random.choice(["replica1", "replica2"])
        self.router.blacklist(name, duration=0.001)
        self.router.restore(name)

    def tell(self) -> None:
        self.router.telemetry.event("told", node=str(random.random()))
        self.router.stats()

    def carry(self) -> None:
        with router.request_context() as context:
            self.router.pinning.wrote(context, done=True)
            headers = self.carrier.headers()
        with self.carrier.received(headers):
            self.router.pinning.resolve(router.current_context())
        store = self.carrier.store
        assert isinstance(store, MemoryPinStore)
        store.save("somebody", {"shop": "1"}, 1.0)

    # -- parent and child ------------------------------------------------------------------------

    def start(self) -> None:
        for work in (self.read, self.read, self.write, self.lend, self.define, self.judge,
                     self.shun, self.tell, self.carry):  # fmt: skip
            threading.Thread(target=self._repeat, args=(work,), daemon=True).start()

    def _repeat(self, work: Callable[[], object]) -> None:
        try:
            while not self._stopped.wait(random.uniform(0.0, REST)):
                work()
                self.did[work.__name__] += 1
        except BaseException as error:
            self.errors.append(error)

    def stop(self) -> None:
        self._stopped.set()
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and thread.name.endswith("(_repeat)"):
                thread.join(20)

    def touch(self) -> None:
        """What a child does without a server."""
        for name, module in list(sys.modules.items()):
            spec = getattr(module, "__spec__", None)
            assert not getattr(spec, "_initializing", False), f"half of {name} is there"
        for ref in list(registry._locks):
            if (lock := ref()) is not None:
                with lock:
                    pass
        for work in (self.judge, self.shun, self.tell, self.carry):
            work()

    def whole(self, n: int) -> None:
        """What a child does with servers of its own."""
        self.touch()
        if n % 2:
            self.lend()
            self.lend()
        else:
            self.define()
            self.write()
            self.read()


def main(seed: str, children: str, url: str, *replicas: str) -> None:
    random.seed(int(seed))
    logging.basicConfig(stream=io.StringIO(), level=logging.INFO)
    sys.setswitchinterval(0.0005)  # threads stand still in the middle of things more often
    load = Load(url, list(replicas))
    load.read()
    gc.collect()
    gc.freeze()  # so that a child copies less
    load.start()
    became: Counter[str] = Counter()
    alive: deque[int] = deque()
    slowest = 0.0
    for n in range(int(children)):
        time.sleep(random.uniform(0.0, PAUSE))
        began = time.monotonic()
        alive.append(fork(load.touch if n % WHOLE else partial(load.whole, n // WHOLE)))
        slowest = max(slowest, time.monotonic() - began)
        while len(alive) >= AT_ONCE:
            became[ended(alive.popleft())] += 1
    while alive:
        became[ended(alive.popleft())] += 1
    load.stop()
    print(dict(became), file=sys.stderr)
    print(f"the slowest fork took {slowest:.3f} s; meanwhile {dict(load.did)}", file=sys.stderr)
    assert load.errors == []
    assert min(load.did.values()) > 0
    print(became["fine"])


if __name__ == "__main__":
    main(*sys.argv[1:])
