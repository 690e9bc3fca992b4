"""Publish a Router's metrics by prometheus-client, in one process or in gunicorn's several.

    from router.prometheus import publish

    publish(engine)

In multiprocess mode (``PROMETHEUS_MULTIPROC_DIR``) the values are the library's own files, so the
page is made as its documentation says, with ``MultiProcessCollector``.

Source: https://prometheus.github.io/client_python/multiprocess/
"""

import os
import weakref
from collections.abc import Iterable
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.registry import Collector

from router import metrics
from router import registry as house
from router.cluster.router import Router
from router.metrics import LAG, LAG_BUCKETS, LAG_HELP, METRICS, Labels
from router.target import router_of

EVERY = 0.25
"""Seconds between two readings of the values at least, however often the nodes are probed."""


def publish(target: object, registry: CollectorRegistry = REGISTRY) -> None:
    """Publish the metrics of a cluster from now on; again for the same one changes nothing.

    Values are taken when the page is asked for, and with the probes, so that those of processes
    that nobody asks are a second old at most. The way of a statement is not made longer.

    Args:
        target: a routed engine or a `router.Router`; in Django ``connection.router``.
        registry: the registry to publish in.

    Raises:
        ConfigError: the target is none of these.
        ValueError: the registry has other metrics of these names.
    """
    router, _ = router_of(target)
    with _lock:
        page = _pages.get(registry)
        if page is None:
            page = _pages[registry] = Page(registry)
    page.follow(router)


class Page(Collector):
    """The metrics of every Router that is published in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._families: dict[metrics.Metric, Any] = {}
        registry.register(self)  # before the families, so that they are fresh when they are asked
        for metric in METRICS:
            arguments = (metric.name, metric.help, metric.labels)
            if metric.kind == "counter":
                self._families[metric] = Counter(*arguments, registry=registry)
            else:
                mode: Any = f"live{metric.together}"
                self._families[metric] = Gauge(
                    *arguments, registry=registry, multiprocess_mode=mode
                )
        self._lag = Histogram(
            LAG, LAG_HELP, ("cluster", "node"), buckets=LAG_BUCKETS, registry=registry
        )
        self._lock = house.lock()
        self._followed: weakref.WeakKeyDictionary[Router, _Taken] = weakref.WeakKeyDictionary()

    def follow(self, router: Router) -> None:
        """Publish `router` as well; again for the same one changes nothing."""
        with self._lock:
            if router in self._followed:
                return
            self._followed[router] = _Taken()
        router.observers.append(self._probed)

    def _probed(self, router: Router) -> None:
        taken = self._followed.get(router)
        if taken is not None and router.clock() >= taken.due:
            self._take(router)

    def collect(self) -> Iterable[Metric]:
        """Take the values again; the families, registered after this one, tell them."""
        for router in list(self._followed):
            self._take(router)
        return ()

    def describe(self) -> Iterable[Metric]:
        """Nothing: the families describe themselves."""
        return ()

    def _take(self, router: Router) -> None:
        with self._lock:
            self._take_in(router, self._followed[router])

    def _take_in(self, router: Router, taken: "_Taken") -> None:
        taken.due = router.clock() + EVERY
        families = self._families
        for metric, labels, n in metrics.counts(router):
            more = n - taken.counted.get((metric, labels), 0)
            if more > 0:
                families[metric].labels(*labels).inc(more)
                taken.counted[metric, labels] = n
        shown = set()
        for metric, labels, value in metrics.states(router):
            families[metric].labels(*labels).set(value)
            shown.add((metric, labels))
        for metric, labels in taken.shown - shown:
            if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
                families[metric].labels(*labels).set(0)  # the library's files forget no label
            else:
                families[metric].remove(*labels)
        taken.shown = shown
        for labels, (at, seconds) in metrics.lags(router).items():
            if taken.lagged.get(labels) != at:
                taken.lagged[labels] = at
                self._lag.labels(*labels).observe(seconds)


class _Taken:
    """What was taken from one Router so far."""

    __slots__ = ("counted", "due", "lagged", "shown")

    def __init__(self) -> None:
        self.due = float("-inf")
        self.counted: dict[tuple[metrics.Metric, Labels], int] = {}
        self.shown: set[tuple[metrics.Metric, Labels]] = set()
        self.lagged: dict[Labels, float] = {}


_pages: "weakref.WeakKeyDictionary[CollectorRegistry, Page]" = weakref.WeakKeyDictionary()
_lock = house.lock()
