"""Django's ORM, and whole requests with each way's middleware and cookies."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connections

from benchmarks import django_site
from benchmarks.django_site import PLAIN, Way, site, use
from benchmarks.harness import compare, keep, show
from benchmarks.truth import USERS, show_truth, truth
from router.testing import Cluster


def read(way: Way) -> Callable[[], None]:
    """``Model.objects.get()`` outside a request and a transaction."""

    def run() -> None:
        use(way)
        assert django_site.items().get(pk=1).pk == 1

    return run


def page(way: Way) -> Callable[[], None]:
    """A request that reads ten rows, each by a query of its own."""
    browser = django_site.client(way)

    def run() -> None:
        use(way)
        assert browser.get("/page").status_code == 200

    return run


def form(way: Way) -> Callable[[], None]:
    """A request that writes, and the one it redirects to, which reads what was written."""
    browser = django_site.client(way)
    numbers = itertools.count()

    def run() -> None:
        use(way)
        answer = browser.post(f"/write/1/{next(numbers)}")
        assert browser.get(answer["Location"]).status_code == 200

    return run


WORKLOADS: dict[str, tuple[Callable[[Way], Callable[[], None]], dict[str, int]]] = {
    "read": (read, {"rounds": 150, "batch": 40, "warmup": 100}),
    "page": (page, {"rounds": 40, "batch": 5, "warmup": 20}),
    "form": (form, {"rounds": 40, "batch": 8, "warmup": 20}),
}


def own_reads(way: Way) -> tuple[Any, Any, Any]:
    """What truth() asks for: each user has a browser that keeps cookies."""
    browsers = {user: django_site.client(way) for user in range(1, USERS + 1)}

    @contextmanager
    def thread() -> Iterator[None]:
        use(way)
        try:
            yield
        finally:
            connections.close_all()

    def write(user: int, n: int) -> None:
        browsers[user].post(f"/write/{user}/{n}")

    def told(user: int) -> tuple[int, int]:
        n, port = browsers[user].get(f"/read/{user}").content.split()
        return int(n), int(port)

    return thread, write, told


def main() -> None:
    """Measure, print, keep."""
    figures: dict[str, Any] = {}
    with Cluster(replicas=2) as cluster, site(cluster) as ways:
        for name, (make, options) in WORKLOADS.items():
            fit = {n: make(way) for n, way in ways.items() if way.writes or name != "form"}
            figures[name] = found = compare(fit, baseline=PLAIN, **options)
            show((make.__doc__ or "").rstrip("."), found, PLAIN)
        honest = {n: own_reads(way) for n, way in ways.items() if way.writes}
        figures["truth"] = truth(cluster, honest)
        show_truth(figures["truth"])
    print(f"kept in {keep('django', figures)}")


if __name__ == "__main__":
    main()
