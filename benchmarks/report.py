"""Writes what was measured into docs/explanation/performance.md, and draws docs/images/*.svg.

python -m benchmarks.report

A test compares the page and the drawings with benchmarks/results, so neither can grow old.
"""

import hashlib
import json
import math
import re
import statistics
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "explanation" / "performance.md"
IMAGES = ROOT / "docs" / "images"
NAMES = ("sqlalchemy", "django", "async", "scale", "doors", "telemetry")
TITLES = {
    "read": "one read",
    "page": "page of 10 reads",
    "form": "form: write, then read",
    "long_transaction": "transaction of 100 statements",
    "bulk_insert": "10,000 rows inserted",
    "streaming": "100,000 rows streamed",
    "threads": "16 threads",
    "alone": "one task",
    "at_once": "200 tasks",
}
TARGETS = (
    ("one read, of plain SQLAlchemy", "read", "plain engine on the primary", 0.70),
    ("one read, of the floor", "read", "floor: autocommit on a replica", 1.08),
    ("one read, of the floor on two replicas", "read", "the same, on two by chance", 1.08),
    ("a statement in a long transaction", "long_transaction", "plain engine on the primary", 1.03),
    ("bulk insert", "bulk_insert", "plain engine on the primary", 1.01),
    ("streaming", "streaming", "plain engine on the primary", 1.01),
)

DOOR_TARGETS = {
    "SQLAlchemy on psycopg": 0.70,
    "SQLAlchemy on psycopg, asynchronous": 0.85,
    "SQLAlchemy on asyncpg": 0.85,
    "asyncpg's pool": 1.10,
}
"""Of one read; of psycopg's pools 1.05, and of a statement in a transaction 1.03."""

WATCHING_TARGET = 1.03
"""Of what is published, beside the same read without it."""

Figures = Mapping[str, Any]


def results() -> dict[str, Figures]:
    """All that is measured, by benchmark."""
    return {name: json.loads((RESULTS / f"{name}.json").read_text()) for name in NAMES}


def digest(found: Figures) -> str:
    """Marks a drawing with the figures it was drawn from."""
    return hashlib.sha256(json.dumps(found["figures"], sort_keys=True).encode()).hexdigest()


# -- tables ------------------------------------------------------------------------------------


def cell(row: Figures | None) -> str:
    """The ratio with its quartiles, then that of the client's processor time."""
    if row is None:
        return "—"
    spread = f"{row['ratio_25']:.2f}–{row['ratio_75']:.2f}"
    return f"{row['ratio']:.2f} ({spread}), {row['cpu_ratio']:.2f}"


def ways(workloads: Mapping[str, Figures]) -> Iterator[str]:
    """One line per way, one column per workload."""
    names = dict.fromkeys(name for found in workloads.values() for name in found)
    yield "| | " + " | ".join(TITLES[workload] for workload in workloads) + " |"
    yield "|---|" + "---|" * len(workloads)
    for name in names:
        cells = (cell(found.get(name)) for found in workloads.values())
        yield f"| {name} | " + " | ".join(cells) + " |"


def truth(found: Figures) -> Iterator[str]:
    """Who read stale rows, and who left the primary alone."""
    yield "| | own writes missed | reads off the primary |"
    yield "|---|---|---|"
    for name, row in found.items():
        yield f"| {name} | {row['stale']:.1%} | {row['off_primary']:.1%} |"


def paired(row: Figures, base: Figures) -> tuple[float, float, float]:
    """Median of the rounds' ratios, and the bounds of its 95 % confidence interval.

    The bounds are order statistics, which ask nothing of how the ratios are distributed.
    They are those of the sign test.
    """
    ratios = sorted(a / b for a, b in zip(row["samples"], base["samples"], strict=True))
    count, half = len(ratios), 0.98 * math.sqrt(len(ratios))
    low = ratios[max(0, math.floor(count / 2 - half))]
    high = ratios[min(count - 1, math.ceil(count / 2 + half))]
    return statistics.median(ratios), low, high


def verdict(low: float, high: float, aim: float) -> str:
    """Whether an aim is met, as far as the confidence interval tells."""
    return "met" if high <= aim else "**missed**" if low > aim else "not settled"


def doors(found: Figures) -> Iterator[str]:
    """One line per front door: a read, and a statement in a long transaction."""
    yield "| | one read | aim | | a statement in a long transaction | aim | |"
    yield "|---|---|---|---|---|---|---|"
    for name in found["read"]:
        cells = []
        for what, aim in (("read", DOOR_TARGETS.get(name, 1.05)), ("statement", 1.03)):
            rows = found[what][name]
            row, base = rows["routed"], rows["plain, on the primary"]
            ratio, low, high = paired(row, base)
            cells += [
                f"{ratio:.2f} ({low:.2f}–{high:.2f}), {row['cpu_ratio']:.2f}",
                f"≤ {aim:.2f}",
                verdict(low, high, aim),
            ]
        yield f"| {name} | " + " | ".join(cells) + " |"


def telemetry(found: Figures) -> Iterator[str]:
    """One line per way of publishing; tags beside the span that is there without them."""
    yield "| | beside | ratio (95 % confidence), client's processor | aim | |"
    yield "|---|---|---|---|---|"
    for name, row in found.items():
        span = name.removesuffix(", tagged")
        beside = span if span != name else "nothing published"
        if name == beside:
            continue
        ratio, low, high = paired(row, found[beside])
        cpu = row["cpu_ratio"] / found[beside]["cpu_ratio"]
        aimed = f"≤ {WATCHING_TARGET:.2f} | {verdict(low, high, WATCHING_TARGET)}"
        told = " | " if name.endswith(" span") else aimed  # the span itself is not ours
        yield f"| {name} | {beside} | {ratio:.3f} ({low:.3f}–{high:.3f}), {cpu:.3f} | {told} |"


def targets(found: Figures) -> Iterator[str]:
    """What was aimed at, and what came out."""
    yield "| | aim | measured | 95 % confidence | client's processor | |"
    yield "|---|---|---|---|---|---|"
    for title, workload, base, aim in TARGETS:
        row, other = found[workload]["routed"], found[workload][base]
        ratio, low, high = paired(row, other)
        cpu = row["cpu_ratio"] / other["cpu_ratio"]
        between, told = f"{low:.3f}–{high:.3f}", verdict(low, high, aim)
        yield f"| {title} | ≤ {aim:.2f} | {ratio:.3f} | {between} | {cpu:.3f} | {told} |"


def growth(found: Figures, unit: str) -> Iterator[str]:
    """One line per size."""
    yield f"| {unit} | median | ratio (quartiles), client's processor |"
    yield "|---|---|---|"
    for size, row in sorted(found.items(), key=lambda item: int(item[0])):
        yield f"| {int(size):,} | {row['microseconds']:,.1f} µs | {cell(row)} |"


def memory(found: Mapping[str, int]) -> Iterator[str]:
    """Bytes of each kind."""
    yield "| one more | bytes |"
    yield "|---|---|"
    for name, size in found.items():
        yield f"| {name} | {size:,} |"


def calls(found: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    """Calls of functions by way, and what routing adds."""
    yield "| calls of functions for one | plain | floor | routed | routed, beside the floor |"
    yield "|---|---|---|---|---|"
    for name, row in found.items():
        plain, floor, routed = row["plain"], row["floor"], row["routed"]
        yield f"| {name} | {plain} | {floor} | {routed} | {routed - floor:+} |"


def about(all_found: Mapping[str, Figures]) -> Iterator[str]:
    """The day and the machine of each file."""
    yield "| | day | load average | machine | versions |"
    yield "|---|---|---|---|---|"
    for name, found in all_found.items():
        of = found["about"]
        machine = f"{of['cores']} cores, {of['processor'] or of['machine']}"
        packages = ", ".join(f"{package} {is_}" for package, is_ in of["packages"].items())
        yield (
            f"| {name} | {of['date']} | {of['load']} | {machine} | "
            f"Python {of['python']}, {packages} |"
        )


def tables(all_found: Mapping[str, Figures]) -> dict[str, str]:
    """Markdown by the name that stands in the page's markers."""
    orm, django, tasks, scale, every, published = (all_found[name]["figures"] for name in NAMES)

    def timed(found: Figures) -> dict[str, Figures]:
        return {name: rows for name, rows in found.items() if name in TITLES}

    made = {
        "targets": targets(orm),
        "sqlalchemy": ways(timed(orm)),
        "sqlalchemy truth": truth(orm["truth"]),
        "django": ways(timed(django)),
        "django truth": truth(django["truth"]),
        "doors": doors(every),
        "telemetry": telemetry(published),
        "tasks sqlalchemy": ways(tasks["sqlalchemy"]),
        "tasks asyncpg": ways(tasks["asyncpg"]),
        "tasks psycopg": ways(tasks["psycopg"]),
        "replicas": growth(scale["replicas"], "replicas"),
        "decisions": growth(scale["decisions"], "replicas"),
        "statements": growth(scale["statements"], "statements"),
        "threads": growth(scale["threads"], "threads"),
        "calls": calls(scale["calls"]),
        "memory": memory(scale["memory"]),
        "about": about(all_found),
    }
    return {name: "\n".join(lines) for name, lines in made.items()}


def filled(page: str, made: Mapping[str, str]) -> str:
    """`page` with a table after each marker, in place of the one that was there.

    Raises:
        KeyError: the page names a table that is not made.
    """

    def put(found: "re.Match[str]") -> str:
        return f"<!-- figures: {found[1]} -->\n\n{made[found[1]]}\n\n<!-- end -->"

    return re.sub(r"<!-- figures: (.+?) -->.*?<!-- end -->", put, page, flags=re.DOTALL)


# -- drawings ----------------------------------------------------------------------------------

DRAWINGS: dict[str, tuple[str, Callable[[Any, Figures], None]]] = {}


def drawing(name: str, source: str) -> Callable[[Any], Any]:
    """Say that a function draws docs/images/`name`.svg from results/`source`.json."""

    def note(draw: Any) -> Any:
        DRAWINGS[name] = (source, draw)
        return draw

    return note


@drawing("performance-read", "sqlalchemy")
def draw_read(axes: Any, figures: Figures) -> None:
    """One read per Session, by every way."""
    rows = sorted(figures["read"].items(), key=lambda item: -item[1]["ratio"])
    labels = [name for name, _ in rows]
    ratios = [row["ratio"] for _, row in rows]
    low = [row["ratio"] - row["ratio_25"] for _, row in rows]
    high = [row["ratio_75"] - row["ratio"] for _, row in rows]
    colours = ["#336791" if name == "routed" else "#b8c4ce" for name in labels]
    axes.barh(labels, ratios, xerr=(low, high), color=colours, ecolor="#555555", capsize=3)
    axes.axvline(1.0, color="#555555", linewidth=0.8)
    axes.set_xlabel("time of a Session with one read; plain SQLAlchemy = 1 (median, quartiles)")


@drawing("performance-truth", "sqlalchemy")
def draw_truth(axes: Any, figures: Figures) -> None:
    """Speed and truth in one picture: who misses own writes, who leaves the primary alone."""
    rows = list(figures["truth"].items())[::-1]
    labels = [name for name, _ in rows]
    places = range(len(rows))
    off = [100 * row["off_primary"] for _, row in rows]
    stale = [100 * row["stale"] for _, row in rows]
    axes.barh([p + 0.2 for p in places], off, 0.38, label="off the primary", color="#336791")
    axes.barh([p - 0.2 for p in places], stale, 0.38, label="own write missed", color="#c0392b")
    axes.set_yticks(list(places), labels)
    axes.set_xlabel("percent of reads, replicas 50 ms late")
    axes.legend(loc="lower right", frameon=False)


@drawing("performance-statements", "scale")
def draw_statements(axes: Any, figures: Figures) -> None:
    """What telling a statement costs, by how many there are."""
    rows = sorted((int(n), row["microseconds"]) for n, row in figures["statements"].items())
    axes.loglog([n for n, _ in rows], [us for _, us in rows], marker="o", color="#336791")
    axes.axvline(10_000, color="#555555", linewidth=0.8, linestyle="--")
    axes.set_xlabel("distinct statements (dashed: how many are remembered)")
    axes.set_ylabel("µs to tell one")


def draw(all_found: Mapping[str, Figures]) -> None:
    """Draw everything."""
    import matplotlib as mpl

    mpl.use("svg")
    # Ids that do not change from run to run, and text that stays text.
    mpl.rcParams.update({"svg.hashsalt": "pg-router", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot

    for name, (source, make) in DRAWINGS.items():
        figure, axes = pyplot.subplots(figsize=(7.2, 3.0), layout="constrained")
        axes.spines[["top", "right"]].set_visible(False)
        make(axes, all_found[source]["figures"])
        about = {"Date": None, "Description": digest(all_found[source])}
        figure.savefig(IMAGES / f"{name}.svg", metadata=about)
        pyplot.close(figure)


def main() -> None:
    """Fill the page, draw the drawings."""
    found = results()
    PAGE.write_text(filled(PAGE.read_text(), tables(found)))
    draw(found)


if __name__ == "__main__":
    main()
