"""What is measured of a Router, by name; whoever publishes it takes it from here.

Nothing is added to the way of a statement: what it counts anyway is read when somebody asks.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from router.cluster.router import Router


@dataclass(frozen=True, slots=True)
class Metric:
    """One measured thing.

    Attributes:
        name: as Prometheus has it; a counter's without ``_total``.
        kind: a counter only grows.
        labels: the names of its labels; ``cluster`` is always the first.
        help: one line.
        together: how the values of several processes are put together: "sum", "max" or "min".
    """

    name: str
    kind: Literal["counter", "gauge"]
    labels: tuple[str, ...]
    help: str
    together: Literal["sum", "max", "min"] = "max"


STATEMENTS = Metric(
    "pg_router_statements", "counter", ("cluster", "node", "reason"),
    "Statements by the node that ran them and why there", "sum",
)  # fmt: skip
EVENTS = Metric("pg_router_events", "counter", ("cluster", "event"), "Events by name", "sum")
_NODE = ("cluster", "node")
UP = Metric("pg_router_node_up", "gauge", _NODE, "Whether the last probe was answered", "min")
PRIMARY = Metric("pg_router_node_primary", "gauge", _NODE, "Whether writes go there")
READABLE = Metric(
    "pg_router_node_readable",
    "gauge",
    _NODE,
    "Whether it is a replica that takes reads now",
    "min",
)
BLACKLISTED = Metric("pg_router_node_blacklisted", "gauge", _NODE, "Whether it is kept out")
LAG_SECONDS = Metric(
    "pg_router_node_lag_seconds", "gauge", _NODE, "Seconds a replica is behind at most"
)
LAG_BYTES = Metric(
    "pg_router_node_lag_bytes", "gauge", _NODE,
    "Bytes of WAL between what the primary has flushed and a replica's replay",
)  # fmt: skip
IN_USE = Metric(
    "pg_router_connections_in_use", "gauge", ("cluster",),
    "Connections checked out, to all nodes", "sum",
)  # fmt: skip
CACHED = Metric(
    "pg_router_cached_statements", "gauge", ("cluster",), "Statements known by their text"
)
UNPARSED = Metric(
    "pg_router_unparsed_texts", "counter", ("cluster",),
    "Texts that begin like a read and do not parse, which runs them on the primary", "sum",
)  # fmt: skip

METRICS: tuple[Metric, ...] = (
    STATEMENTS, EVENTS, UNPARSED, UP, PRIMARY, READABLE, BLACKLISTED, LAG_SECONDS, LAG_BYTES,
    IN_USE, CACHED,
)  # fmt: skip

LAG = "pg_router_replay_lag_seconds"
"""A histogram of `LAG_SECONDS`, a value for each replica and probe."""

LAG_HELP = "Seconds replicas were behind, each time they were probed"

LAG_BUCKETS: tuple[float, ...] = (0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 120.0)
"""Upper bounds of the histogram's buckets (seconds)."""

Labels = tuple[str, ...]


def counts(router: Router) -> Iterator[tuple[Metric, Labels, int]]:
    """The values of the counters of `router` since the process began."""
    cluster, telemetry = router.cluster, router.telemetry
    for (node, reason), n in telemetry.decisions.total().items():
        yield STATEMENTS, (cluster, node, reason.name.lower()), n
    for event, n in telemetry.counts.total().items():
        yield EVENTS, (cluster, event), n
    yield UNPARSED, (cluster,), router.classifier.unparsed[0]


def states(router: Router) -> Iterator[tuple[Metric, Labels, float]]:
    """The values of the gauges of `router` now; what is not known is left out."""
    cluster, view = router.cluster, router.view
    snapshot = view.snapshot
    for node in snapshot.nodes:
        labels = (cluster, node.name)
        report = snapshot.reports.get(node.name)
        if report is not None:
            yield UP, labels, report.ok
        is_primary = node is snapshot.primary
        yield PRIMARY, labels, is_primary
        yield READABLE, labels, node in view.replicas
        yield BLACKLISTED, labels, node.name in view.out
        if not is_primary and report is not None and report.ok:
            if (seconds := snapshot.lag_seconds(node.name)) is not None:
                yield LAG_SECONDS, labels, seconds
            if (behind := snapshot.lag_bytes(node.name)) is not None:
                yield LAG_BYTES, labels, behind
    yield IN_USE, (cluster,), router.in_use
    yield CACHED, (cluster,), len(router.classifier)


def lags(router: Router) -> Mapping[Labels, tuple[float, float]]:
    """For each replica of `router` that tells it: when asked (monotonic seconds), its lag."""
    found: dict[Labels, tuple[float, float]] = {}
    snapshot = router.snapshot
    for node in snapshot.nodes:
        report = snapshot.reports.get(node.name)
        if node is snapshot.primary or report is None or not report.ok:
            continue
        if (seconds := snapshot.lag_seconds(node.name)) is not None:
            found[router.cluster, node.name] = (report.started, seconds)
    return found
