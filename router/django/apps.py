"""The app for ``INSTALLED_APPS``: system checks and ``manage.py router``."""

from django.apps import AppConfig


class RouterConfig(AppConfig):
    """Makes Django find what belongs to the router."""

    name = "router.django"
    label = "pg_router"
    verbose_name = "pg-router"

    def ready(self) -> None:
        """Register the checks."""
        from django.core import checks

        from router.django.checks import check_settings

        checks.register(check_settings)
