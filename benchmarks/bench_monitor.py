"""What the monitor costs: its thread's share of one core at five nodes and one probe a second."""

import time
from pathlib import Path

import router
from benchmarks.harness import keep
from router.testing import Cluster

SECONDS, REPLICAS = 30, 4


def ticks(thread: int) -> float:
    """Seconds of CPU time a thread has used, user and system.

    Source: https://docs.kernel.org/scheduler/sched-stats.html
    """
    text = Path(f"/proc/self/task/{thread}/schedstat").read_text()
    return int(text.split()[0]) / 1e9


def threads() -> set[int]:
    """The threads of this process, as the kernel numbers them."""
    return {int(path.name) for path in Path("/proc/self/task").iterdir()}


def main() -> None:
    """Measure, print, keep."""
    with Cluster(replicas=REPLICAS) as cluster:
        engine = router.create_engine(
            cluster.primary.url(), replicas=[r.url() for r in cluster.replicas]
        )
        before = threads()
        engine.router.start()
        time.sleep(3)  # the catalog is read, connections are made
        monitor = sorted(threads() - before)
        assert monitor
        probes = len(engine.router.snapshot.reports)
        used = sum(map(ticks, monitor))
        started = time.monotonic()
        time.sleep(SECONDS)
        share = (sum(map(ticks, monitor)) - used) / (time.monotonic() - started)
        engine.dispose()
    print(f"\n{probes} nodes, one probe a second each, for {SECONDS} s")
    print(f"  the monitor's threads ({len(monitor)}) used {share:.3%} of a core")
    figures = {"nodes": probes, "seconds": SECONDS, "share_of_a_core": share}
    print(f"  kept in {keep('monitor', figures)}")


if __name__ == "__main__":
    main()
