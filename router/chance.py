"""Random numbers of the router's own: an application that seeds Python's keeps its sequence."""

import random
from collections.abc import Callable

from router import registry

_own = random.Random()
rand: Callable[[], float] = _own.random
"""Floats in [0, 1)."""

# Forked workers must not all draw the same replica in step.
registry.first_in_child(_own.seed)
