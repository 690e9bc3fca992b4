"""``Model.objects.get()`` outside a transaction: router.django beside Django's own backend."""

import django
from django.conf import settings

from benchmarks.harness import compare, keep, show
from router.testing import Cluster


def main() -> None:
    """Measure, print, keep."""
    with Cluster(replicas=2) as cluster:
        primary, *replicas = cluster.servers
        common = {"NAME": "postgres", "USER": "postgres", "CONN_MAX_AGE": None}
        own = "django.db.backends.postgresql"
        settings.configure(
            INSTALLED_APPS=["django.contrib.contenttypes"],
            DATABASES={
                "default": {
                    **common, "ENGINE": own, "HOST": primary.host, "PORT": primary.port,
                },
                "floor": {
                    **common, "ENGINE": own, "HOST": replicas[0].host, "PORT": replicas[0].port,
                },
                "routed": {
                    **common, "ENGINE": "router.django", "HOST": primary.host,
                    "PORT": primary.port,
                    "REPLICAS": [{"HOST": r.host, "PORT": r.port} for r in replicas],
                },
            },
        )  # fmt: skip
        django.setup()
        from django.contrib.contenttypes.models import ContentType
        from django.core.management import call_command
        from django.db import connections

        call_command("migrate", verbosity=0)
        cluster.wait_caught_up()
        router = connections["routed"].router
        router.start()
        router.refresh()
        key = ContentType.objects.values_list("pk", flat=True)[0]

        def get(alias: str) -> None:
            assert ContentType._base_manager.using(alias).get(pk=key).pk == key

        contenders = {
            "Django's own backend": lambda: get("default"),
            "routed": lambda: get("routed"),
            "floor: Django's own on a replica": lambda: get("floor"),
        }
        baseline = "Django's own backend"
        found = compare(contenders, baseline=baseline)
        show("get() outside a transaction", found, baseline)
        print(f"  where the routed reads went: {router.stats()['decisions']}")
        print(f"  kept in {keep('django', found)}")
        connections.close_all()


if __name__ == "__main__":
    main()
