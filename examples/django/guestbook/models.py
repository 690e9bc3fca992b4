"""What guests write."""

from django.db import models


class Entry(models.Model):
    """One line in the book."""

    text = models.CharField(max_length=200)
    written = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-id",)

    def __str__(self) -> str:
        return self.text
