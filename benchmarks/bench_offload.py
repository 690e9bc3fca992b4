"""How many reads replicas serve: pins that end by WAL position beside pins that last 5 seconds.

Both kinds of engine run at once, on one cluster, under the same load: 10 % writes, replay paused
at random for up to 50 ms. Each read tells the server that answered it.
"""

import random
import statistics
import threading
import time
from contextlib import nullcontext
from typing import Any

import sqlalchemy as sa

import router
from benchmarks.harness import keep
from router.rules.context import ROOT
from router.testing import Cluster

WRITES = 0.1
READ = sa.text("SELECT n, inet_server_port() FROM item WHERE id = :id")
WRITE = sa.text("UPDATE item SET n = n + 1 WHERE id = :id")


class Load:
    """Clients of one engine, each in a request context of its own unless told otherwise."""

    def __init__(self, engine: Any, primary: int, *, every: float, clients: int, own: bool):
        self.engine, self.primary, self.every, self.own = engine, primary, every, own
        self.reads = self.on_replicas = self.writes = 0
        self.pins: list[float] = []
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.threads = [
            threading.Thread(target=self._client, args=(number,)) for number in range(clients)
        ]

    def stop(self) -> None:
        self._stop.set()
        for thread in self.threads:
            thread.join()

    def share(self) -> float:
        """Part of the reads that replicas served."""
        return self.on_replicas / max(1, self.reads)

    def _client(self, number: int) -> None:
        rng = random.Random(number)
        # Clients do not act in step.
        self._stop.wait(rng.random() * self.every)
        reads = on_replicas = writes = 0
        pins: list[float] = []
        with router.request_context() if self.own else nullcontext():
            wrote = 0.0
            while not self._stop.is_set():
                began = time.monotonic()
                with self.engine.connect() as connection:
                    if rng.random() < WRITES:
                        connection.execute(WRITE, {"id": number + 1})
                        connection.commit()
                        writes, wrote = writes + 1, time.monotonic()
                    else:
                        _, port = connection.execute(READ, {"id": number + 1}).one()
                        reads += 1
                        if port != self.primary:
                            on_replicas += 1
                            if wrote:
                                pins.append(time.monotonic() - wrote)
                                wrote = 0.0
                if self.every:
                    self._stop.wait(max(0.0, began + self.every - time.monotonic()))
        with self._lock:
            self.reads += reads
            self.on_replicas += on_replicas
            self.writes += writes
            self.pins += pins


def pauses(cluster: Cluster, stop: threading.Event) -> None:
    """Stop replay on one replica or both for up to 50 ms, over and over."""
    rng = random.Random(0)
    while not stop.wait(rng.uniform(0, 0.1)):
        chosen = rng.sample(cluster.replicas, rng.randint(1, 2))
        for replica in chosen:
            replica.pause_replay()
        stop.wait(rng.uniform(0, 0.05))
        for replica in chosen:
            replica.resume_replay()


SCENES = {
    "a": ("each client acts every 100 ms", {"every": 0.1, "clients": 20, "own": True}, 20.0),
    "b": ("closed loop, no pause", {"every": 0.0, "clients": 2, "own": True}, 10.0),
    "c": ("every 100 ms, no request context", {"every": 0.1, "clients": 20, "own": False}, 20.0),
}
MODES: dict[str, dict[str, Any]] = {
    "lsn": {"consistency": "lsn"},
    "lsn, asked at the commit": {"consistency": "lsn", "pin_lsn": "commit"},
    "time, 5 s": {"consistency": "time", "pin_duration": 5.0},
}


def main() -> None:
    """Measure, print, keep."""
    figures: dict[str, Any] = {}
    with Cluster(2) as cluster:
        primary = cluster.primary
        primary.execute("CREATE TABLE item (id int PRIMARY KEY, n int NOT NULL)")
        primary.execute("INSERT INTO item SELECT n, 0 FROM generate_series(1, 100) n")
        cluster.wait_caught_up()
        stop = threading.Event()
        pausing = threading.Thread(target=pauses, args=(cluster, stop))
        pausing.start()
        try:
            for scene, (title, shape, seconds) in SCENES.items():
                print(f"\n({scene}) {title}")
                for modes in ([*MODES], *([[m] for m in MODES] if scene == "b" else [])):
                    # In the closed loop also one mode at a time: together they starve each other.
                    found = measure(cluster, modes, seconds, **shape)
                    alone = "" if len(modes) > 1 else ", alone"
                    for name, row in found.items():
                        figures.setdefault(f"{scene}{alone}", {})[name] = row
                        print(
                            f"  {name + alone:<32} {row['share']:6.1%} of {row['reads']:6,} reads "
                            f"on replicas, {row['writes']:5,} writes, first read of a replica "
                            f"{row['pin_ms']:6.1f} ms after a write (median)"
                        )
        finally:
            stop.set()
            pausing.join()
    keep("offload", figures)


def measure(
    cluster: Cluster, modes: list[str], seconds: float, **shape: Any
) -> dict[str, dict[str, float]]:
    """One scene, all `modes` at once."""
    loads = {}
    ROOT.pins.clear()
    for mode in modes:
        engine = router.create_engine(
            cluster.primary.url(),
            [r.url() for r in cluster.replicas],
            pool_size=20,
            name=mode,  # a pin of one engine is none of the others' business
            **MODES[mode],
        )
        engine.router.start()
        loads[mode] = Load(engine, cluster.primary.port, **shape)
    for load in loads.values():
        for thread in load.threads:
            thread.start()
    time.sleep(seconds)
    for load in loads.values():
        load.stop()
        load.engine.dispose()
    return {
        mode: {
            "share": load.share(),
            "reads": load.reads,
            "writes": load.writes,
            "pin_ms": statistics.median(load.pins) * 1000 if load.pins else float("nan"),
        }
        for mode, load in loads.items()
    }


if __name__ == "__main__":
    main()
