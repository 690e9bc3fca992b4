"""One table."""

from django.db import models


class Item(models.Model):
    """A thing with a name."""

    name = models.TextField()

    class Meta:
        app_label = "shop"
