"""A Django site of one table, and its ways to a primary and its replicas."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import django
from django.conf import settings
from django.db import connections, models
from django.db import router as routers
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.test import Client, override_settings
from django.urls import path

from router.testing import Cluster

PLAIN = "Django's own backend"
ROUTED = "routed"
FLOOR = "floor: Django's own on a replica"
OWN = "django.db.backends.postgresql"

# A model needs settings; the databases, which only a running cluster knows, come before their use.
settings.configure(ROOT_URLCONF=__name__, SECRET_KEY="of a benchmark", ALLOWED_HOSTS=["*"])
django.setup()


@dataclass(frozen=True, slots=True)
class Way:
    """One way: the alias named in queries, the database routers, and the middleware."""

    alias: str | None
    routers: tuple[Any, ...] = ()
    middleware: tuple[str, ...] = ()
    writes: bool = True


def _settings(cluster: Cluster) -> dict[str, Any]:
    primary, *replicas = cluster.servers
    common = {"NAME": "postgres", "USER": "postgres", "CONN_MAX_AGE": None}
    return {
        "DATABASES": {
            "default": {**common, "ENGINE": OWN, "HOST": primary.host, "PORT": primary.port},
            **{
                r.name: {**common, "ENGINE": OWN, "HOST": r.host, "PORT": r.port} for r in replicas
            },
            "routed": {
                **common, "ENGINE": "router.django", "HOST": primary.host, "PORT": primary.port,
                "REPLICAS": [{"HOST": r.host, "PORT": r.port} for r in replicas],
            },
        },
        "REPLICATED_DATABASE_SLAVES": [r.name for r in replicas],
        "REPLICA_DATABASES": [r.name for r in replicas],
    }  # fmt: skip


@contextmanager
def site(cluster: Cluster) -> Iterator[dict[str, Way]]:
    """Django, set up over `cluster`, and all ways that are installed here."""
    for name, value in _settings(cluster).items():
        setattr(settings, name, value)
    # Setting up Django had asked for databases when there were none.
    connections.__dict__["settings"] = connections.configure_settings(settings.DATABASES)
    with suppress(AttributeError):
        del connections["default"]
    with connections["default"].schema_editor() as editor:
        editor.create_model(Item)
    Item.objects.bulk_create(Item(id=i, name=f"item {i}") for i in range(1, 101))
    cluster.wait_caught_up()
    connections["routed"].router.start()
    connections["routed"].router.refresh()
    ways = {
        PLAIN: Way("default"),
        ROUTED: Way("routed", middleware=("router.django.middleware.PinMiddleware",)),
        FLOOR: Way("replica1", writes=False),
    }
    ways |= dict(filter(None, (_django_replicated(), _multidb())))
    yield ways
    connections.close_all()


def _django_replicated() -> tuple[str, Way] | None:
    try:
        from django_replicated import settings as defaults
    except ImportError:
        return None
    for name in filter(str.isupper, dir(defaults)):
        if not hasattr(settings, name):
            setattr(settings, name, getattr(defaults, name))
    from django_replicated.router import ReplicationRouter

    middleware = "django_replicated.middleware.ReplicationMiddleware"
    return "django-replicated", Way(None, (ReplicationRouter(),), (middleware,))


def _multidb() -> tuple[str, Way] | None:
    try:
        from multidb import PinningReplicaRouter
    except ImportError:
        return None
    middleware = "multidb.middleware.PinningRouterMiddleware"
    return "django-multidb-router", Way(None, (PinningReplicaRouter(),), (middleware,))


_present = Way("default")


def use(way: Way) -> None:
    """Let all queries of this process go this way from now on."""
    global _present
    _present = way
    routers.__dict__["routers"] = list(way.routers)


def client(way: Way) -> Client:
    """A browser of its own, before this way's middleware."""
    made = Client(raise_request_exception=True)
    with override_settings(MIDDLEWARE=list(way.middleware)):
        made.handler.load_middleware()
    return made


class Item(models.Model):
    """What is read and written."""

    name = models.TextField()
    n = models.BigIntegerField(default=0)

    class Meta:
        app_label = "benchmarks"


def items() -> "models.QuerySet[Item]":
    """All items, by the way in use."""
    manager: Any = Item.objects
    return manager.using(_present.alias) if _present.alias else manager.all()


PORT = models.Func(function="inet_server_port", output_field=models.IntegerField())


def page(_: HttpRequest) -> HttpResponse:
    """Ten rows, each by a query of its own."""
    return HttpResponse("".join(items().get(pk=i).name for i in range(1, 11)))


def write(_: HttpRequest, pk: int, n: int) -> HttpResponse:
    """Writes, and redirects to what was written."""
    items().filter(pk=pk).update(n=n)
    return HttpResponseRedirect(f"/read/{pk}")


def read(_: HttpRequest, pk: int) -> HttpResponse:
    """The number, and the port of the server that told it."""
    row = items().annotate(port=PORT).get(pk=pk)
    return HttpResponse(f"{row.n} {row.port}")  # type: ignore[attr-defined]


urlpatterns = [
    path("page", page),
    path("write/<int:pk>/<int:n>", write),
    path("read/<int:pk>", read),
]
