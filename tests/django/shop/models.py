"""One table."""

from django.db import models


class Item(models.Model):
    """A thing with a name."""

    name = models.TextField()

    class Meta:
        app_label = "shop"


class Shelf(models.Model):
    """What others refer to, and derive from."""

    name = models.TextField()

    class Meta:
        app_label = "shop"


class Box(models.Model):
    """Stands on a shelf in an order, or in another box; the database knows of no reference."""

    shelf = models.ForeignKey(Shelf, on_delete=models.CASCADE, db_constraint=False)
    outer = models.ForeignKey("self", on_delete=models.CASCADE, null=True, db_constraint=False)

    class Meta:
        app_label = "shop"
        order_with_respect_to = "shelf"


class Rack(Shelf):
    """A shelf of two tables."""

    rank = models.IntegerField(default=0)

    class Meta:
        app_label = "shop"


class Label(models.Model):
    """Asks before it is saved whether it is there."""

    text = models.TextField(primary_key=True)
    size = models.IntegerField(default=0)

    class Meta:
        app_label = "shop"
        select_on_save = True
