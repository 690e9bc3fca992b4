"""Django: one entry of ``DATABASES`` for a primary and its replicas.

``ENGINE: "router.django"``; see docs/how-to/use-with-django.md.
"""

from router.django.transaction import read_only

__all__ = ["read_only"]
